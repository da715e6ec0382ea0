"""DaViT: Dual Attention Vision Transformers.

The small run trains a cut-down DaViT in three arms that differ in the kinds of attention alone:
windows and channel groups in turn, as the paper has it, windows twice, channel groups twice. All
three have the same number of parameters.
"""

from __future__ import annotations

from saccade.learn.config import TrainConfig
from saccade.systems._arms import ACCURACY, TrainedArms, each, kwargs_arms
from saccade.systems._protocol import Comparison, System

DUAL, SPATIAL, CHANNEL = "windows + channels", "windows twice", "channels twice"
ARMS = kwargs_arms(
    {
        DUAL: {"attention": ("spatial", "channel")},
        SPATIAL: {"attention": ("spatial", "spatial")},
        CHANNEL: {"attention": ("channel", "channel")},
    }
)

SMALL = TrainConfig(
    model="davit_micro",
    epochs=4,
    batch_size=64,
    lr=1e-3,
    weight_decay=0.05,
    model_kwargs={"drop_path_rate": 0.0},
)
PAPER = TrainConfig(
    model="davit_tiny",
    data="folder:./images",
    augment="crop",
    rand_ops=2,
    rand_magnitude=27,
    erase=0.25,
    mixup=0.8,
    cutmix=1.0,
    epochs=300,
    batch_size=1024,
    label_smoothing=0.1,
    lr=1e-3,
    min_lr=1e-5,
    warmup_epochs=5,
    weight_decay=0.05,
    clip_grad=1.0,
    precision="bf16-mixed",
)
SIZES = {"train": 4000, "val": 100, "test": 1000}


SYSTEM = System(
    name="davit",
    title="DaViT: Dual Attention Vision Transformers",
    paper="arXiv 2204.03645",
    year=2022,
    link="https://arxiv.org/abs/2204.03645",
    operators=(),
    claim=(
        "Attention within windows and across channel groups in turn classifies at least as well as "
        "either alone."
    ),
    data=("cifar10", "digits"),
    run=TrainedArms(SMALL, PAPER, SIZES, ARMS),
    arms=tuple(ARMS),
    parts=each(ARMS),
    # Neither threshold is calibrated; they were stated before any run over seeds.
    main=Comparison(ACCURACY, DUAL, SPATIAL, expected=-0.5, note="against windows alone"),
    also=(Comparison(ACCURACY, DUAL, CHANNEL, expected=-0.5, note="against channels alone"),),
    figures={
        "ImageNet-1K top-1 at 224 pixels, tiny / small / base": "82.8 / 84.2 / 84.6 %",
        "parameters, tiny / small / base": "28.3 / 49.7 / 87.9 million",
        "COCO, Mask R-CNN 1x, box AP, tiny / small / base": "45.0 / 47.7 / 48.2",
        "COCO, Mask R-CNN 1x, mask AP, tiny / small / base": "41.1 / 42.9 / 43.3",
    },
)
