"""Max-ResNet: a spiking residual network with two max poolings.

"Spiking Neural Networks Need High-Frequency Information", Yuetong Fang et al., 2025.
https://arxiv.org/abs/2505.18608

Faithful (paper and published code): pre-activation blocks on membrane shortcuts, max pooling in
place of the stride, shortcuts of 1 x 1 on the membrane, blocks of the stages, parameter count of
Max-ResNet-18 with 3, 3, 2 blocks.

Deviations: as in `max_former`: the first convolution is computed once for a still image, and a
batch norm before neurons joins their pass in evaluation. `down="stride"` gives MS-ResNet, the
paper's baseline. The variant of four stages is built from the paper's description and its count of
parameters in millions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from saccade.models._classifier import DefaultCfg
from saccade.models._registry import configure, register_model
from saccade.models._spiking import LIF, ConvNorm, SpikingClassifier, Unit, per_frame
from saccade.models.max_former import RESETS


@dataclass(frozen=True)
class MaxResNetConfig:
    """What distinguishes one Max-ResNet from another; every field is an option of `create_model`.

    Args:
        stem_width: channels of the first convolution.
        dims: channels of the stages.
        depths: blocks of the stages.
        down: how the first block of every stage but the first halves the size: "max", pooling of a
            convolution of stride 1; "stride", a convolution of stride 2, as MS-ResNet.
        steps: steps T over which a still image is shown.
        tau: time constant of the neurons in steps.
        reset: "hard", to 0; "soft", by the threshold.
        drop_rate: dropout before the classifier.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    stem_width: int = 64
    dims: tuple[int, ...] = (128, 256, 512)
    depths: tuple[int, ...] = (3, 3, 2)
    down: str = "max"
    steps: int = 4
    tau: float = 2.0
    reset: str = "hard"
    drop_rate: float = 0.0
    num_classes: int = 10
    in_chans: int = 3

    def __post_init__(self) -> None:
        stages = len(self.dims)
        if not stages or len(self.depths) != stages or min(*self.dims, *self.depths) < 1:
            raise ValueError(
                "dims and depths must hold a positive number for each stage, "
                f"got {self.dims} and {self.depths}."
            )
        for name, value, choices in (
            ("down", self.down, ("max", "stride")),
            ("reset", self.reset, RESETS),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
        for name in ("stem_width", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.tau >= 1:
            raise ValueError(f"tau must be at least 1 step, got {self.tau}.")


class Block(nn.Module):
    """Two units of 3 x 3, added to the membrane they read.

    Where the size is halved or the channels differ, a 1 x 1 of the membrane, not of its spikes,
    stands on the shortcut.
    """

    def __init__(
        self, neurons: partial[LIF], in_channels: int, channels: int, down: str | None
    ) -> None:
        super().__init__()
        stride = 2 if down == "stride" else 1
        self.unit1 = Unit(
            neurons(),
            nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.pool = nn.MaxPool2d(3, 2, padding=1) if down == "max" else None
        self.unit2 = Unit(
            neurons(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if down or in_channels != channels:
            self.shortcut = ConvNorm(in_channels, channels, 1, 2 if down else 1)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, O, h, w]."""
        if self.pool is None:
            y = self.unit2(self.unit1.current(x), self.unit1.norm)
        else:
            y = self.unit2(per_frame(self.pool, self.unit1(x)))
        z: Tensor = y + self.shortcut(x)
        return z


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class MaxResNet(SpikingClassifier):
    """Max-ResNet as its config says; `create_model("max_resnet18")` makes one.

    Shape:
        [B, in_chans, H, W] or [B, T, in_chans, H, W] -> [B, num_classes], or [B, num_features]
        without classes.
    """

    def __init__(self, cfg: MaxResNetConfig) -> None:
        neurons = partial(LIF, cfg.tau, cfg.reset)
        stages: list[list[nn.Module]] = []
        width = cfg.stem_width
        for stage, (channels, depth) in enumerate(zip(cfg.dims, cfg.depths, strict=True)):
            first = Block(neurons, width, channels, cfg.down if stage else None)
            rest = (Block(neurons, channels, channels, None) for _ in range(depth - 1))
            stages.append([first, *rest])
            width = channels
        super().__init__(
            neurons,
            cfg.steps,
            ConvNorm(cfg.in_chans, cfg.stem_width, 3),
            stages,
            cfg.dims,
            cfg.num_classes,
            cfg.drop_rate,
            [1 << stage for stage in range(len(stages))],
            _init,
        )
        self.cfg = cfg

    def _rates(self, x: Tensor) -> Tensor:
        """Spikes first, then their mean over map and steps: the other order than Max-Former's."""
        spikes: Tensor = self.head_lif(x)
        return spikes.mean((0, 3, 4))


_CFG = DefaultCfg(
    source="https://arxiv.org/abs/2505.18608",
    input_size=(3, 32, 32),
    min_input_size=(3, 8, 8),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    interpolation="bicubic",
    num_classes=10,
    first_conv="stem.conv",
)


def _build(options: dict[str, Any], **variant: Any) -> MaxResNet:
    return MaxResNet(configure(MaxResNetConfig(**variant), options))


@register_model(_CFG)
def max_resnet_micro(**options: Any) -> MaxResNet:
    """For images of 32 x 32 and two CPU cores, T = 2: grids of 32, 16 and 8; not in the paper."""
    return _build(options, stem_width=16, dims=(16, 32, 64), depths=(1, 1, 1), steps=2)


@register_model(_CFG)
def max_resnet18(**options: Any) -> MaxResNet:
    """Max-ResNet-18 of the paper with 3, 3, 2 blocks."""
    return _build(options)


@register_model(_CFG)
def max_resnet18_2222(**options: Any) -> MaxResNet:
    """Max-ResNet-18 of the paper with 2, 2, 2, 2 blocks."""
    return _build(options, dims=(64, 128, 256, 512), depths=(2, 2, 2, 2))
