"""Inception-v4, Inception-ResNet-v1 and Inception-ResNet-v2.

"Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", Christian
Szegedy et al., 2016. https://arxiv.org/abs/1602.07261

Faithful (paper's figures 3 to 19): stems, blocks, reductions, residual scaling, head with dropout
0.2. The layer tables below read like the figures. Two widths of figure 17 and 19, 1154 and 2048,
do not fit the maps they are added to; 1152 and 2144 stand here.

Deviations: batch norm has its scale; He initialisation; any image of at least 75 pixels; the
ablations of the reproduction (`residual=False`, `stem="cifar"`, `width`). timm's weights of
inception_v4 load through `checkpoint_filter`. The network that TF-slim calls inception_resnet_v2 is
another one: `inception_resnet_v2_slim` is timm's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saccade.models._classifier import Classifier, DefaultCfg
from saccade.models._inception_slim import InceptionResNetV2Slim, SlimConfig
from saccade.models._registry import configure, register_model

# Pixels a side of which the paper's stem and reductions leave one.
LEAST = 75
# A branch is a line of layers: "192 3x3/2 V" is a convolution of 192 channels, stride 2, without
# padding; "max/2" and "avg" are poolings of 3 x 3; {a | b} splits the branch. Branches are joined.
Branches = tuple[str, ...]

STEM_V4: tuple[Branches, ...] = (
    ("32 3x3/2 V, 32 3x3 V, 64 3x3",),
    ("max/2", "96 3x3/2 V"),
    ("64 1x1, 96 3x3 V", "64 1x1, 64 1x7, 64 7x1, 96 3x3 V"),
    ("192 3x3/2 V", "max/2"),
)
STEM_V1: tuple[Branches, ...] = (
    ("32 3x3/2 V, 32 3x3 V, 64 3x3",),
    ("max/2",),
    ("80 1x1, 192 3x3 V, 256 3x3/2 V",),
)
STEM_CIFAR: tuple[Branches, ...] = (("128 3x3, 384 3x3/2",),)


@dataclass(frozen=True)
class _Layers:
    """Blocks of one architecture: A, reduction A, B, reduction B, C."""

    stem: tuple[Branches, ...]
    a: Branches
    reduction_a: Branches
    b: Branches
    reduction_b: Branches
    c: Branches
    repeats: tuple[int, int, int]
    residual: bool


LAYERS = {
    "v4": _Layers(
        stem=STEM_V4,
        a=("96 1x1", "64 1x1, 96 3x3", "64 1x1, 96 3x3, 96 3x3", "avg, 96 1x1"),
        reduction_a=("384 3x3/2 V", "192 1x1, 224 3x3, 256 3x3/2 V", "max/2"),
        b=(
            "384 1x1",
            "192 1x1, 224 1x7, 256 7x1",
            "192 1x1, 192 7x1, 224 1x7, 224 7x1, 256 1x7",
            "avg, 128 1x1",
        ),
        reduction_b=("192 1x1, 192 3x3/2 V", "256 1x1, 256 1x7, 320 7x1, 320 3x3/2 V", "max/2"),
        c=(
            "256 1x1",
            "384 1x1, {256 1x3 | 256 3x1}",
            "384 1x1, 448 3x1, 512 1x3, {256 1x3 | 256 3x1}",
            "avg, 256 1x1",
        ),
        repeats=(4, 7, 3),
        residual=False,
    ),
    "resnet_v1": _Layers(
        stem=STEM_V1,
        a=("32 1x1", "32 1x1, 32 3x3", "32 1x1, 32 3x3, 32 3x3"),
        reduction_a=("384 3x3/2 V", "192 1x1, 192 3x3, 256 3x3/2 V", "max/2"),
        b=("128 1x1", "128 1x1, 128 1x7, 128 7x1"),
        reduction_b=(
            "256 1x1, 384 3x3/2 V",
            "256 1x1, 256 3x3/2 V",
            "256 1x1, 256 3x3, 256 3x3/2 V",
            "max/2",
        ),
        c=("192 1x1", "192 1x1, 192 1x3, 192 3x1"),
        repeats=(5, 10, 5),
        residual=True,
    ),
    "resnet_v2": _Layers(
        stem=STEM_V4,
        a=("32 1x1", "32 1x1, 32 3x3", "32 1x1, 48 3x3, 64 3x3"),
        reduction_a=("384 3x3/2 V", "256 1x1, 256 3x3, 384 3x3/2 V", "max/2"),
        b=("192 1x1", "128 1x1, 160 1x7, 192 7x1"),
        reduction_b=(
            "256 1x1, 384 3x3/2 V",
            "256 1x1, 288 3x3/2 V",
            "256 1x1, 288 3x3, 320 3x3/2 V",
            "max/2",
        ),
        c=("192 1x1", "192 1x1, 224 1x3, 256 3x1"),
        repeats=(5, 10, 5),
        residual=True,
    ),
}


@dataclass(frozen=True)
class InceptionConfig:
    """What distinguishes one network from another; every field is an option of `create_model`.

    Args:
        layers: "v4", "resnet_v1" or "resnet_v2": the paper's tables.
        repeats: blocks A, B and C; default the paper's.
        residual: add the blocks' input to their output (through a 1 x 1 convolution without
            activation); default as the paper has it.
        residual_scale: factor of what is added, 0.1 to 0.3 in the paper; 1 is no scaling.
        stem: "paper", or "cifar": two convolutions, the second of stride 2, for small images.
        width: factor of all channels.
        drop_rate: dropout before the classifier.
        drop_path_rate: must be 0: the paper has no stochastic depth.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    layers: str = "v4"
    repeats: tuple[int, int, int] | None = None
    residual: bool | None = None
    residual_scale: float = 0.2
    stem: str = "paper"
    width: float = 1.0
    drop_rate: float = 0.2
    drop_path_rate: float = 0.0
    num_classes: int = 1000
    in_chans: int = 3

    def __post_init__(self) -> None:
        for name, wanted in (("layers", tuple(LAYERS)), ("stem", ("paper", "cifar"))):
            if getattr(self, name) not in wanted:
                raise ValueError(
                    f"{name} must be one of {', '.join(wanted)}, got {getattr(self, name)!r}."
                )
        if self.repeats is not None and (
            len(self.repeats) != 3 or self.repeats[0] < 1 or min(self.repeats) < 0
        ):
            raise ValueError(
                f"repeats must hold 3 numbers, the first at least 1 and the others at least 0, got "
                f"{self.repeats}."
            )
        if self.width <= 0:
            raise ValueError(f"width must be above 0, got {self.width}.")
        if self.drop_path_rate:
            raise ValueError(
                f"drop_path_rate must be 0: there is no stochastic depth in these networks, got "
                f"{self.drop_path_rate}."
            )

    def channels(self, wanted: int) -> int:
        """Channels of a layer, at this width."""
        return max(1, round(wanted * self.width))


class Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded to keep the size, unless `valid`."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: tuple[int, int],
        stride: int = 1,
        valid: bool = False,
    ) -> None:
        super().__init__()
        padding = (0, 0) if valid else (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ...]."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class Inception(nn.ModuleList):
    """Branches over the same map, joined along the channels.

    Args:
        in_channels: of the map.
        branches: lines of layers, in the grammar of this file's tables.
        cfg: gives the width.
    """

    def __init__(self, in_channels: int, branches: Sequence[str], cfg: InceptionConfig) -> None:
        super().__init__()
        self.out_channels = 0
        for branch in branches:
            layers, split = re.fullmatch(r"([^{]*?)(?:, \{(.*)\})?", branch).groups()  # type: ignore[union-attr]
            line: list[nn.Module] = []
            channels = in_channels
            for layer in layers.split(", "):
                line.append(self._layer(channels, layer, cfg))
                channels = getattr(getattr(line[-1], "conv", None), "out_channels", channels)
            if split:
                line.append(Inception(channels, split.split(" | "), cfg))
                channels = line[-1].out_channels  # type: ignore[assignment]
            self.append(nn.Sequential(*line))
            self.out_channels += channels

    @staticmethod
    def _layer(in_channels: int, layer: str, cfg: InceptionConfig) -> nn.Module:
        if layer == "max/2":
            return nn.MaxPool2d(3, 2, padding=int(cfg.stem == "cifar"))
        if layer == "avg":
            return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        channels, rows, columns, stride, valid = re.fullmatch(  # type: ignore[union-attr]
            r"(\d+) (\d)x(\d)(?:/(\d))?( V)?", layer
        ).groups()
        # small images keep their borders
        return Conv(
            in_channels,
            cfg.channels(int(channels)),
            (int(rows), int(columns)),
            int(stride or 1),
            bool(valid) and cfg.stem == "paper",
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out_channels, ...]."""
        return torch.cat([branch(x) for branch in self], 1)


class Residual(nn.Module):
    """ReLU(x + scale * linear(branches(x))); section 3.3 for the scale."""

    def __init__(self, channels: int, branches: Sequence[str], cfg: InceptionConfig) -> None:
        super().__init__()
        self.scale = cfg.residual_scale
        self.branches = Inception(channels, branches, cfg)
        self.linear = nn.Conv2d(self.branches.out_channels, channels, 1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        y: Tensor = self.act(x + self.scale * self.linear(self.branches(x)))
        return y


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class InceptionNet(Classifier):
    """The network of a config; `create_model("inception_v4")` makes one.

    Shape:
        [B, in_chans, H, W] -> [B, num_classes], or [B, num_features] without classes; H and W at
        least 75 with the paper's stem.
    """

    def __init__(self, cfg: InceptionConfig) -> None:
        table = LAYERS[cfg.layers]
        residual = table.residual if cfg.residual is None else cfg.residual
        stem, channels = nn.Sequential(), cfg.in_chans
        for branches in table.stem if cfg.stem == "paper" else STEM_CIFAR:
            stem.append(Inception(channels, branches, cfg))
            channels = stem[-1].out_channels  # type: ignore[assignment]
        stages: list[list[nn.Module]] = []
        widths = []
        repeats = cfg.repeats or table.repeats
        for reduction, branches, count in (
            ((), table.a, repeats[0]),
            (table.reduction_a, table.b, repeats[1]),
            (table.reduction_b, table.c, repeats[2]),
        ):
            blocks: list[nn.Module] = []
            if reduction:
                blocks.append(Inception(channels, reduction, cfg))
                channels = blocks[-1].out_channels  # type: ignore[assignment]
            for _ in range(count):
                block: nn.Module = (
                    Residual(channels, branches, cfg)
                    if residual
                    else Inception(channels, branches, cfg)
                )
                channels = channels if residual else block.out_channels  # type: ignore[assignment]
                blocks.append(block)
            stages.append(blocks)
            widths.append(channels)
        first = 8 if cfg.stem == "paper" else 2
        super().__init__(
            stem,
            stages,
            widths,
            nn.Identity(),
            cfg.num_classes,
            cfg.drop_rate,
            (first, 2 * first, 4 * first),
            _init,
        )
        self.cfg = cfg
        if cfg.stem == "paper":
            self.least_size = LEAST

    def checkpoint_filter(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the keys of timm's inception_v4 to this file's; keys of this file pass unchanged.

        | timm | here |
        | --- | --- |
        | `features.0` to `features.5` | `stem`, by the stem's table |
        | `features.N.branchB.*`, N from 6 | `features.(N - 6).B.*` |
        | `branch1_0`, `branch1_1a`, `branch2_3b` ... | the branch's layers and its split |
        | `last_linear.*` | `head.*` |
        """
        if "last_linear.weight" not in state and not any(
            re.search(r"\.branch\d", key) for key in state
        ):
            return state
        return {_renamed(key): value for key, value in state.items()}


# timm's first six features in this file's stem
_TIMM_STEM = (
    (r"^features\.([012])\.", r"stem.0.0.\1."),
    (r"^features\.3\.conv\.", "stem.1.1.0."),
    (r"^features\.4\.branch(\d)\.", r"stem.2.\1."),
    (r"^features\.5\.conv\.", "stem.3.0.0."),
)


def _renamed(key: str) -> str:
    for pattern, here in _TIMM_STEM:
        if re.match(pattern, key):
            return re.sub(pattern, here, key)
    key = re.sub(r"^last_linear\.", "head.", key)
    match = re.match(r"^features\.(\d+)\.branch(\d)(?:_(\d)([ab])?)?\.", key)
    if not match:
        return key
    rest = key[match.end() :]
    place = f"features.{int(match[1]) - 6}.{match[2]}."
    if match[4]:
        return f"{place}{match[3]}.{'ab'.index(match[4])}.0.{rest}"
    if match[3]:
        return f"{place}{match[3]}.{rest}"
    return place + (rest if rest[0].isdigit() else f"0.{rest}")


def _cfg(**changes: Any) -> DefaultCfg:
    return DefaultCfg(
        source="https://arxiv.org/abs/1602.07261",
        **{
            "input_size": (3, 299, 299),
            "min_input_size": (3, LEAST, LEAST),
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "first_conv": "stem.0.0.0.conv",
            **changes,
        },
    )


def _build(options: dict[str, Any], **variant: Any) -> InceptionNet:
    return InceptionNet(configure(InceptionConfig(**variant), options))


@register_model(_cfg())
def inception_v4(**options: Any) -> InceptionNet:
    """Inception-v4 of the paper."""
    return _build(options)


@register_model(_cfg())
def inception_resnet_v1(**options: Any) -> InceptionNet:
    """Inception-ResNet-v1 of the paper."""
    return _build(options, layers="resnet_v1", residual_scale=0.17)


@register_model(_cfg())
def inception_resnet_v2(**options: Any) -> InceptionNet:
    """Inception-ResNet-v2 of the paper; 5, 10 and 5 blocks as its figures have it."""
    return _build(options, layers="resnet_v2")


@register_model(_cfg(classifier="model.classif", first_conv="model.conv2d_1a.conv"))
def inception_resnet_v2_slim(**options: Any) -> InceptionResNetV2Slim:
    """The network that TF-slim, Keras and timm call inception_resnet_v2."""
    return InceptionResNetV2Slim(configure(SlimConfig(), options))


@register_model(_cfg(input_size=(3, 32, 32), min_input_size=(3, 8, 8), num_classes=10))
def inception_resnet_micro(**options: Any) -> InceptionNet:
    """For images of 32 x 32 and two CPU cores: an eighth of the channels; not in the paper."""
    return _build(
        options,
        layers="resnet_v2",
        repeats=(1, 1, 1),
        stem="cifar",
        width=0.125,
        num_classes=10,
    )
