"""Training the arms of a reproduction: one configuration that every arm changes, and a measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.systems._protocol import Measured

if TYPE_CHECKING:
    from saccade.learn._fit import FitResult
    from saccade.learn.config import TrainConfig


def train_arms(
    base: TrainConfig,
    arms: Mapping[str, Mapping[str, Any]],
    measure: Callable[[FitResult], dict[str, float]],
    *,
    scale: str,
    sizes: Mapping[str, int],
    out: Path,
    started: Callable[[str], None] = lambda arm: None,
) -> Measured:
    """Train every arm on the same images with the seed of `base`, and measure it.

    Args:
        base: the configuration that the arms have in common, with data and seed.
        arms: name of an arm to the fields of `base` that it changes; `model_kwargs` are merged.
        measure: the figures of a finished run.
        scale: "small" trains on subsets and leaves no file; "paper" trains on all images and writes
            config.yaml and a run folder an arm.
        sizes: images of the small scale: "train", "val" and "test".
        out: folder of the reproduction.
        started: called with the name of each arm before it starts.

    Returns:
        Arm to its figures.
    """
    from saccade.data import load_data
    from saccade.learn._fit import fit

    base = base.replace(quiet=True)
    data = load_data(base.data, base.data_dir)
    if scale == "small":
        data = data.limited(sizes["train"], sizes["val"], sizes["test"])
    else:
        (out / "config.yaml").write_text(base.text())
    measured: Measured = {}
    for arm, changes in arms.items():
        started(arm)
        slug = "".join(c if c.isalnum() else "-" for c in arm.lower())
        config = base.replace(
            **{
                **changes,
                "model_kwargs": {**base.model_kwargs, **changes.get("model_kwargs", {})},
                "out": str(out / "runs" / f"{slug}-seed{base.seed}"),
            }
        )
        measured[arm] = measure(fit(config, data=data, write=scale == "paper"))
    return measured
