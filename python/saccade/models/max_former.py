"""Max-Former: a spiking transformer with max pooling and depthwise convolutions.

"Spiking Neural Networks Need High-Frequency Information", Yuetong Fang et al., 2025.
https://arxiv.org/abs/2505.18608

Faithful (paper and published code): patch embeddings, token mixers and feed-forward on membrane
shortcuts, attention of spikes without softmax, thresholds, batch norms, initialisation, parameter
counts, depths 1, 2, 7 for ImageNet. Where the two disagree the code is followed: neurons are reset
to 0, `reset="soft"` subtracts the threshold as equation 3 does.

Deviations: the potential never survives a call. The first convolution of a still image is computed
once and not for every step, so its batch norm's running variance counts B * H * W values and not
T * B * H * W. Where two layers of neurons read the same membrane they are one. In evaluation a
batch norm before neurons joins their pass. Any height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from saccade.models._classifier import DefaultCfg
from saccade.models._layers import init_weights
from saccade.models._registry import configure, register_model
from saccade.models._spiking import LIF, ConvNorm, SpikeProduct, SpikingClassifier, Unit, per_frame

Neurons = Callable[..., LIF]

FIRST_EMBEDS = ("orig", "orig_imagenet", "max_plus")
LATER_EMBEDS = ("max", "max1", "avg", "orig")
MIXERS = ("identity", "dwc3", "dwc5", "dwc7", "ssa", "max", "avg")
RESETS = ("hard", "soft")


@dataclass(frozen=True)
class MaxFormerConfig:
    """What distinguishes one Max-Former from another; every field is an option of `create_model`.

    Args:
        dims: channels of the stages; multiples of 2, the first of 8 with "max_plus".
        depths: blocks of the stages.
        first_embed: "orig" keeps the size, "orig_imagenet" divides it by 4, "max_plus" by 8.
        embed: embedding of the later stages, each at half the size: "max" as proposed; "max1", max
            pooling in one place; "avg", average pooling instead; "orig", strided convolutions.
        mixers: token mixer of the stages: "identity", "dwc3", "dwc5" or "dwc7" (depthwise
            convolutions of that side), "ssa" (attention), "max" or "avg" (pooling).
        heads: attention heads; they divide the channels of stages with "ssa".
        mlp_ratio: hidden width of the feed-forward over C; at 1 its first half has a shortcut too.
        steps: steps T over which a still image is shown.
        tau: time constant of the neurons in steps.
        reset: "hard", to 0, as the code; "soft", by the threshold, as the paper's equation 3.
        init: "default": truncated normal for the head alone; "imagenet": for convolutions too.
        drop_rate: dropout before the classifier.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image, or of each frame.
    """

    dims: tuple[int, ...] = (96, 192, 384)
    depths: tuple[int, ...] = (1, 1, 2)
    first_embed: str = "orig"
    embed: str = "max"
    mixers: tuple[str, ...] = ("identity", "dwc3", "ssa")
    heads: int = 8
    mlp_ratio: int = 4
    steps: int = 4
    tau: float = 2.0
    reset: str = "hard"
    init: str = "default"
    drop_rate: float = 0.0
    num_classes: int = 10
    in_chans: int = 3

    def __post_init__(self) -> None:
        stages = len(self.dims)
        for name in ("depths", "mixers"):
            values = getattr(self, name)
            if len(values) != stages:
                raise ValueError(
                    f"{name} must hold one value for each of the {stages} stages, got {values}."
                )
        if not stages or min(self.dims) < 1 or min(self.depths) < 0:
            raise ValueError(
                f"dims must be positive and depths not negative, got {self.dims} and {self.depths}."
            )
        for name, value, choices in (
            ("first_embed", self.first_embed, FIRST_EMBEDS),
            ("embed", self.embed, LATER_EMBEDS),
            ("reset", self.reset, RESETS),
            ("init", self.init, ("default", "imagenet")),
            *(("a mixer", mixer, MIXERS) for mixer in self.mixers),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
        part = 8 if self.first_embed == "max_plus" else 2
        if self.dims[0] % part:
            raise ValueError(
                f"the first of dims must be a multiple of {part} for {self.first_embed!r}, "
                f"got {self.dims[0]}."
            )
        for name in ("heads", "mlp_ratio", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.tau >= 1:
            raise ValueError(f"tau must be at least 1 step, got {self.tau}.")
        for stage, (width, mixer) in enumerate(zip(self.dims, self.mixers, strict=True)):
            if mixer == "ssa" and width % self.heads:
                raise ValueError(
                    f"heads must divide the channels: stage {stage} has {width} channels and "
                    f"{self.heads} heads."
                )


def _conv_unit(
    neurons: Neurons, in_channels: int, channels: int, kernel: int = 3, stride: int = 1
) -> Unit:
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
    return Unit(neurons(), conv, nn.BatchNorm2d(channels))


def _max_pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, padding=1)


class OrigEmbed(nn.Module):
    """What follows the stem where nothing is pooled: units of 3 x 3, and a 1 x 1 beside them.

    `strides` are those of the units; the shortcut reads the spikes of the first and strides by
    their product. With two units and strides (1, 2) this is the embedding of QKFormer.
    """

    def __init__(
        self, neurons: Neurons, in_channels: int, channels: int, strides: tuple[int, ...]
    ) -> None:
        super().__init__()
        total = 1
        self.units = nn.ModuleList()
        for depth, stride in enumerate(strides):
            width = channels if depth else in_channels
            self.units.append(_conv_unit(neurons, width, channels, 3, stride))
            total *= stride
        self.shortcut = ConvNorm(in_channels, channels, 1, total)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, O, h, w]."""
        first, *rest = self.units
        spikes = first.lif(x)  # type: ignore[operator]
        y, norm = per_frame(first.conv, spikes), first.norm  # type: ignore[arg-type]
        for unit in rest:
            y, norm = unit.current(y, norm), unit.norm  # type: ignore[operator]
        z: Tensor = per_frame(norm, y) + self.shortcut(spikes)  # type: ignore[arg-type]
        return z


class PoolEmbed(nn.Module):
    """Two units, of which one is pooled, and a 1 x 1 beside them; section 4.

    "max": the first unit and the shortcut are max-pooled. "avg": they are averaged. "max1": the
    second unit is max-pooled and the shortcut strides.
    """

    def __init__(self, neurons: Neurons, in_channels: int, channels: int, kind: str) -> None:
        super().__init__()
        self.late = kind == "max1"
        self.unit1 = _conv_unit(neurons, in_channels, channels)
        self.unit2 = _conv_unit(neurons, channels, channels)
        self.shortcut = ConvNorm(in_channels, channels, 1, 2 if self.late else 1)
        self.pool: nn.Module = _max_pool()
        if kind == "avg":
            self.pool = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, O, ceil(H / 2), ceil(W / 2)]."""
        spikes = self.unit1.lif(x)
        y = per_frame(self.unit1.conv, spikes)
        z: Tensor = self.shortcut(spikes)
        if self.late:
            return per_frame(self.pool, self.unit2(y, self.unit1.norm)) + z
        pooled = per_frame(self.pool, per_frame(self.unit1.norm, y))
        z = self.unit2(pooled) + per_frame(self.pool, z)
        return z


class EventEmbed(nn.Module):
    """Three max-pooled units, and a 1 x 1 of stride 4 on the second's spikes; for events."""

    def __init__(self, neurons: Neurons, channels: int) -> None:
        super().__init__()
        widths = [channels // 8, channels // 4, channels // 2, channels]
        self.units = nn.ModuleList(_conv_unit(neurons, *pair) for pair in pairwise(widths))
        self.shortcut = ConvNorm(widths[1], channels, 1, 4)
        self.pool = _max_pool()

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, O / 8, H, W] -> [T, B, O, ceil(H / 8), ceil(W / 8)]."""
        first, second, third = self.units
        x = per_frame(self.pool, first(x))
        spikes = second.lif(x)  # type: ignore[operator]
        x = per_frame(second.norm, per_frame(second.conv, spikes))  # type: ignore[arg-type]
        y: Tensor = per_frame(self.pool, third(per_frame(self.pool, x))) + self.shortcut(spikes)
        return y


class SpikingSelfAttention(nn.Module):
    """Attention of spikes, without a softmax: 0.125 q (k^T v), whose cost is linear in H W.

    The sums of products of spikes are integers, so the order of the products does not matter.
    """

    scale = 0.125

    def __init__(self, neurons: Neurons, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.lif = neurons()
        for name in "qkv":
            self.add_module(name, nn.Conv1d(channels, channels, 1, bias=False))
            self.add_module(f"{name}_norm", nn.BatchNorm1d(channels))
            self.add_module(f"{name}_lif", neurons())
        self.keys_values = SpikeProduct()
        self.queries = SpikeProduct()
        self.proj = Unit(
            neurons(v_threshold=0.5), nn.Conv1d(channels, channels, 1), nn.BatchNorm1d(channels)
        )

    def spikes(self, x: Tensor) -> list[Tensor]:
        """[T, B, C, N] -> q, k, v, spikes of [T, B, heads, C / heads, N]."""
        shared = self.lif(x)
        made = []
        for name in "qkv":
            current = per_frame(self.get_submodule(name), shared)
            lif, norm = self.get_submodule(f"{name}_lif"), self.get_submodule(f"{name}_norm")
            made.append(lif(current, norm).unflatten(2, (self.heads, -1)))
        return made

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v of `spikes` -> multiples of the scale, [T, B, C, N]."""
        summed = self.keys_values(v, k.mT)
        mixed: Tensor = self.queries(summed, q)
        return (mixed * self.scale).flatten(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> the same shape."""
        y: Tensor = self.proj(self.mix(*self.spikes(x.flatten(3)))).unflatten(3, x.shape[3:])
        return y


class Mlp(nn.Module):
    """Two units of 1 x 1; where the hidden width is C the first adds its input too."""

    def __init__(self, neurons: Neurons, channels: int, ratio: int) -> None:
        super().__init__()
        hidden = channels * ratio
        self.fc1 = Unit(neurons(), nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden))
        self.fc2 = Unit(neurons(), nn.Conv2d(hidden, channels, 1), nn.BatchNorm2d(channels))
        self.doubled = ratio == 1

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> the same shape, x added."""
        if self.doubled:
            middle: Tensor = x + self.fc1(x)
            x, branch = middle, self.fc2(middle)
        else:
            branch = self.fc2(self.fc1.current(x), self.fc1.norm)
        y: Tensor = x + branch
        return y


class Block(nn.Module):
    """A token mixer and the feed-forward, each added to the membrane it reads.

    Pooling replaces the membrane and is not added.
    """

    def __init__(
        self, neurons: Neurons, channels: int, mixer: str, heads: int, mlp_ratio: int
    ) -> None:
        super().__init__()
        self.adds = mixer == "ssa" or mixer.startswith("dwc")
        self.mixer: nn.Module = nn.Identity()
        if mixer == "ssa":
            self.mixer = SpikingSelfAttention(neurons, channels, heads)
        elif self.adds:
            side = int(mixer[3:])
            conv = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels)
            self.mixer = Unit(neurons(), conv, nn.BatchNorm2d(channels))
        elif mixer == "max":
            self.mixer = nn.MaxPool2d(3, 1, padding=1)
        elif mixer == "avg":
            self.mixer = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        self.mlp = Mlp(neurons, channels, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> the same shape."""
        x = x + self.mixer(x) if self.adds else per_frame(self.mixer, x)
        y: Tensor = self.mlp(x)
        return y


def _first_embed(neurons: Neurons, cfg: MaxFormerConfig) -> tuple[nn.Module, nn.Module, int]:
    """The first convolution, what follows it, and what both divide the size by."""
    width = cfg.dims[0]
    if cfg.first_embed == "max_plus":
        return ConvNorm(cfg.in_chans, width // 8, 3), EventEmbed(neurons, width), 8
    half = width // 2
    if cfg.first_embed == "orig_imagenet":
        stem = ConvNorm(cfg.in_chans, half, 3, 2)
        return stem, OrigEmbed(neurons, half, width, (2, 1)), 4
    return ConvNorm(cfg.in_chans, half, 3), OrigEmbed(neurons, half, width, (1,)), 1


def _init_head(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class MaxFormer(SpikingClassifier):
    """Max-Former as its config says; `create_model("max_former_cifar")` makes one.

    Shape:
        [B, in_chans, H, W] or [B, T, in_chans, H, W] -> [B, num_classes], or [B, num_features]
        without classes.
    """

    def __init__(self, cfg: MaxFormerConfig) -> None:
        neurons = partial(LIF, cfg.tau, cfg.reset)
        stem, first, reduction = _first_embed(neurons, cfg)
        stages: list[list[nn.Module]] = []
        for stage, width in enumerate(cfg.dims):
            embed = first if stage == 0 else _later_embed(neurons, cfg, stage)
            blocks = [
                Block(neurons, width, cfg.mixers[stage], cfg.heads, cfg.mlp_ratio)
                for _ in range(cfg.depths[stage])
            ]
            stages.append([embed, *blocks])
        super().__init__(
            neurons,
            cfg.steps,
            stem,
            stages,
            cfg.dims,
            cfg.num_classes,
            cfg.drop_rate,
            [reduction << stage for stage in range(len(stages))],
            init_weights if cfg.init == "imagenet" else _init_head,
        )
        self.cfg = cfg


def _later_embed(neurons: Neurons, cfg: MaxFormerConfig, stage: int) -> nn.Module:
    width, channels = cfg.dims[stage - 1 : stage + 1]
    if cfg.embed == "orig":
        return OrigEmbed(neurons, width, channels, (1, 2))
    return PoolEmbed(neurons, width, channels, cfg.embed)


def _cfg(**changes: Any) -> DefaultCfg:
    return DefaultCfg(
        **{
            "source": "https://arxiv.org/abs/2505.18608",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "interpolation": "bicubic",
            "first_conv": "stem.conv",
            **changes,
        }
    )


_CIFAR = {"input_size": (3, 32, 32), "min_input_size": (3, 8, 8), "num_classes": 10}
_EVENTS = {"input_size": (2, 128, 128), "min_input_size": (2, 32, 32), "num_classes": 10}


def _build(options: dict[str, Any], **variant: Any) -> MaxFormer:
    return MaxFormer(configure(MaxFormerConfig(**variant), options))


def _imagenet(options: dict[str, Any], width: int) -> MaxFormer:
    return _build(
        options,
        dims=(width // 4, width // 2, width),
        depths=(1, 2, 7),
        first_embed="orig_imagenet",
        mixers=("dwc7", "dwc5", "ssa"),
        heads=width // 64,
        init="imagenet",
        num_classes=1000,
    )


@register_model(_cfg(**_CIFAR))
def max_former_micro(**options: Any) -> MaxFormer:
    """For images of 32 x 32 and two CPU cores, T = 2: grids of 32, 16 and 8; not in the paper."""
    return _build(options, dims=(24, 48, 96), depths=(1, 1, 1), heads=3, mlp_ratio=2, steps=2)


@register_model(_cfg(**_CIFAR))
def max_former_cifar(**options: Any) -> MaxFormer:
    """Max-Former 4-384 of the paper, for CIFAR."""
    return _build(options)


@register_model(_cfg(**_EVENTS, mean=(0.0, 0.0), std=(1.0, 1.0)))
def max_former_events(**options: Any) -> MaxFormer:
    """Max-Former 2-256 of the paper, for frames of events with two polarities, T = 16."""
    return _build(
        options,
        dims=(128, 256),
        depths=(1, 1),
        first_embed="max_plus",
        mixers=("dwc3", "ssa"),
        heads=16,
        mlp_ratio=1,
        steps=16,
        in_chans=2,
    )


@register_model(_cfg())
def max_former_10_384(**options: Any) -> MaxFormer:
    """Max-Former 10-384 of the paper, for ImageNet."""
    return _imagenet(options, 384)


@register_model(_cfg())
def max_former_10_512(**options: Any) -> MaxFormer:
    """Max-Former 10-512 of the paper, for ImageNet."""
    return _imagenet(options, 512)


@register_model(_cfg())
def max_former_10_768(**options: Any) -> MaxFormer:
    """Max-Former 10-768 of the paper, for ImageNet."""
    return _imagenet(options, 768)
