"""Building Efficient Lightweight CNN Models: two tiny networks trained apart, joined, unfrozen.

The small run trains the network of 14,862 parameters by the two stages, and with it three that get
as many epochs: one branch on the images as they are, one branch on images and augmentation, and the
same unified network from scratch. All are tested on the test images as they are and on the same
ones turned, shifted and zoomed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.learn.config import TrainConfig
from saccade.systems._arms import as_tensors, each, run_folder
from saccade.systems._protocol import Comparison, Floor, Measured, System

if TYPE_CHECKING:
    from torch import Tensor, nn

    from saccade.data import ImageDataModule, Jitter

CLEAN, MOVED = "test accuracy (%)", "accuracy on moved images (%)"

TWO_STAGE, BRANCH = "two-stage", "one branch, plain images"
AUGMENTED, SCRATCH = "one branch, both kinds", "unified, from scratch"
ARMS = (TWO_STAGE, BRANCH, AUGMENTED, SCRATCH)

# The paper's augmentation: turn, shift, zoom and brightness; the magnitudes are chosen here.
JITTER: dict[str, Any] = {"degrees": 15.0, "shift": 0.1, "zoom": 0.1, "brightness": 0.1}
# The moved test images: geometry alone, the same for all arms and seeds.
MOVES: dict[str, Any] = {"degrees": 15.0, "shift": 0.1, "zoom": 0.1, "seed": 0}

# What all arms have in common, and the unified network from scratch: as many epochs as two stages.
PAPER = TrainConfig(
    model="lightweight_cnn",
    data="mnist",
    in_chans=1,
    augment="none",
    normalize="none",
    epochs=55,
    batch_size=128,
    optimizer="adam",
    lr=1e-3,
    schedule="constant",
    weight_decay=0.0,
)
# Settings of saccade.learn.TwoStageConfig. The small scale has a tenth of the steps and takes those
# of the second stage at 50 times the rate; the rate was chosen on seed 20.
STAGES: dict[str, dict[str, Any]] = {
    "paper": {},
    "small": {"first_epochs": 8, "phases": (1, 1, 1, 3), "second_lr": 5e-2},
}
SMALL = PAPER.replace(epochs=14, batch_size=64)
SIZES = {"train": 6000, "val": 500, "test": 2000}

# From one calibrating run of seeds 0 to 2 on MNIST: what the branch on plain images reached there.
THRESHOLDS = {"mnist": 96.9}
# Half of the margins of that run.
MARGIN, CLEAN_MARGIN = 6.7, 0.45


def run(
    scale: str,
    data: str,
    seed: int,
    out: Path,
    *,
    arms: Collection[str] = ARMS,
    data_dir: str | None = None,
    started: Callable[[str], None] = lambda arm: None,
) -> Measured:
    """Train and test arms with one seed.

    Args:
        scale: "small": 6,000 images, 14 epochs; "paper": all images, 55 epochs.
        data: data spec; images are brought to 28 x 28 gray, or 32 x 32 where they have colours.
        seed: of weights, order and augmentation; the images of a subset are the same for every
            seed.
        out: folder of the reproduction; the paper's scale writes config.yaml and the weights there.
        arms: those to measure.
        data_dir: directory of the data.
        started: called with the name of each arm before it starts.

    Returns:
        Arm to accuracy on the test images as they are and on moved ones.
    """
    from saccade.data import Jitter, load_data
    from saccade.data._seeds import seed_all
    from saccade.learn._fit import data_module
    from saccade.learn._two_stage import TwoStageConfig, train, two_stage
    from saccade.learn.dual import UnionModule
    from saccade.models import create_model, save_weights

    base = SMALL if scale == "small" else PAPER
    loaded = load_data(data, data_dir)
    if scale == "small":
        loaded = loaded.limited(SIZES["train"], SIZES["val"], SIZES["test"])
    options: dict[str, Any] = {
        "in_chans": loaded.channels,
        "img_size": 28 if loaded.channels == 1 else 32,
        "num_classes": len(loaded.classes),
    }
    config = base.replace(
        data=data,
        data_dir=data_dir,
        seed=seed,
        in_chans=loaded.channels,
        img_size=options["img_size"],
        batch_size=min(base.batch_size, len(loaded.train)),
    )
    if scale == "paper":
        (out / "config.yaml").write_text(config.text())
    stages = TwoStageConfig(**STAGES[scale], seed=seed)

    def feed() -> ImageDataModule:
        # every arm its own: a data module follows its trainer's epochs
        return data_module(config, loaded)

    augment = Jitter(**JITTER, mirror=loaded.mirrors)
    module = feed()
    images, targets = as_tensors(module, module.test_dataloader())
    tests = images, Jitter(**MOVES)(images), targets
    measured: Measured = {}

    def finish(arm: str, model: nn.Module) -> None:
        measured[arm] = _measure(model, *tests)
        if scale == "paper":
            save_weights(model, run_folder(out, arm, seed))

    def branch() -> nn.Module:
        return create_model("lightweight_cnn_branch", **options)

    if TWO_STAGE in arms:
        started(TWO_STAGE)
        seed_all(seed)
        model: Any = create_model("lightweight_cnn", **options)
        two_stage(model, branch, feed(), augment, stages)
        finish(TWO_STAGE, model)
    alone: dict[str, tuple[Callable[[], nn.Module], Jitter | None]] = {
        BRANCH: (branch, None),
        AUGMENTED: (branch, augment),
        SCRATCH: (lambda: create_model("lightweight_cnn", **options), augment),
    }
    for arm, (make, change) in alone.items():
        if arm not in arms:
            continue
        started(arm)
        seed_all(seed)
        union = UnionModule(make(), change, stages.adam)
        train(union, feed(), stages.epochs, stages)
        finish(arm, union.model)
    return measured


def _measure(model: nn.Module, images: Tensor, moved: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy in per cent on both kinds of test images."""
    import torch

    model = model.cpu().eval()

    def accuracy(batch: Tensor) -> float:
        with torch.no_grad():
            classes = torch.cat([model(part).argmax(1) for part in batch.split(500)])
        return 100 * float((classes == targets).double().mean())

    return {CLEAN: accuracy(images), MOVED: accuracy(moved)}


SYSTEM = System(
    name="lightweight_cnn",
    title="Building Efficient Lightweight CNN Models",
    paper="arXiv 2501.15547",
    year=2025,
    link="https://arxiv.org/abs/2501.15547",
    operators=(),
    claim=(
        "Two tiny networks, one trained on augmented images, joined and unfrozen step by step, "
        "classify well with 14,862 parameters, moved images included."
    ),
    data=("mnist", "digits"),
    run=run,
    arms=ARMS,
    parts=each(ARMS),
    main=Comparison(MOVED, TWO_STAGE, BRANCH, expected=MARGIN),
    also=(
        Comparison(CLEAN, TWO_STAGE, BRANCH, expected=CLEAN_MARGIN, note="images as they are"),
        Comparison(MOVED, TWO_STAGE, SCRATCH, expected=0.0, note="what the two stages give"),
        Comparison(
            MOVED, TWO_STAGE, AUGMENTED, expected=0.0, note="what two branches give beside the data"
        ),
    ),
    floor=Floor(CLEAN, TWO_STAGE, THRESHOLDS),
    figures={
        "MNIST": "99 %",
        "Fashion-MNIST": "89 %",
        "CIFAR-10, fewer than 20,000 parameters": "65 %",
        "parameters, size": "14,862, 0.17 MB",
    },
)
