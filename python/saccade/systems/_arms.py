"""What the reproductions have in common: arms of one configuration, trained and measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.learn.config import TrainConfig
from saccade.systems._protocol import Measured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from saccade.data import ImageDataModule
    from saccade.learn._fit import FitResult

ACCURACY = "test accuracy (%)"

# The fields of a configuration that an arm changes; `model_kwargs` are merged.
Changes = Mapping[str, Any]


def accuracy(result: FitResult) -> dict[str, float]:
    """Test accuracy in per cent."""
    return {ACCURACY: 100 * result.accuracy}


def kwargs_arms(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, Changes]:
    """Arms that differ in the options of the model alone."""
    return {arm: {"model_kwargs": options} for arm, options in arms.items()}


def each(arms: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Every arm as a part of its own."""
    return tuple((arm,) for arm in arms)


@dataclass(frozen=True)
class TrainedArms:
    """A `Run` that trains every arm on the same images with the same seed, and measures it.

    The seed decides weights, order, augmentation and dropout; the images of a subset are the same
    for every seed.

    Args:
        small, paper: what the arms of a scale have in common; data and seed are set by the run.
        sizes: images of the small scale: "train", "val" and "test"; it leaves no file. The paper's
            takes all images and writes config.yaml and a run folder an arm.
        arms: name of an arm to what it changes.
        paper_arms: the same at the paper's scale; default `arms`.
        measure: the figures of a finished run; default its test accuracy in per cent.
    """

    small: TrainConfig
    paper: TrainConfig
    sizes: Mapping[str, int]
    arms: Mapping[str, Changes]
    paper_arms: Mapping[str, Changes] = field(default_factory=dict)
    measure: Callable[[FitResult], dict[str, float]] = accuracy

    def __call__(
        self,
        scale: str,
        data: str,
        seed: int,
        out: Path,
        *,
        arms: Collection[str] = (),
        data_dir: str | None = None,
        started: Callable[[str], None] = lambda arm: None,
    ) -> Measured:
        """Train and measure the named arms, by default all, with one seed."""
        from saccade.data import load_data
        from saccade.learn._fit import fit

        small = scale == "small"
        base = (self.small if small else self.paper).replace(
            data=data, data_dir=data_dir, seed=seed, quiet=True
        )
        loaded = load_data(data, data_dir)
        if small:
            loaded = loaded.limited(*(self.sizes[split] for split in ("train", "val", "test")))
        else:
            (out / "config.yaml").write_text(base.text())
        measured: Measured = {}
        known = self.arms if small else self.paper_arms or self.arms
        for arm in arms or known:
            started(arm)
            changes = known[arm]
            config = base.replace(
                **{
                    **changes,
                    "model_kwargs": {**base.model_kwargs, **changes.get("model_kwargs", {})},
                    "out": str(run_folder(out, arm, seed)),
                }
            )
            measured[arm] = self.measure(fit(config, data=loaded, write=not small))
        return measured


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Where an arm's run at the paper's scale goes."""
    slug = "".join(c if c.isalnum() else "-" for c in arm.lower())
    return out / "runs" / f"{slug}-seed{seed}"


def as_tensors(
    module: ImageDataModule, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """All images of a loader as the model sees them, and their classes."""
    import torch

    images, targets = zip(*batches, strict=True)
    return module.normalize(torch.cat(images)), torch.cat(targets)
