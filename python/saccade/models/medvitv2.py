"""MedViTV2: KAN-integrated transformer with dilated neighborhood attention.

"Medical Image Classification with KAN-Integrated Transformers and Dilated Neighborhood Attention",
Omid Nejati Manzari et al., 2025. https://arxiv.org/abs/2502.13693

Faithful (paper and published code): stem, stages, widths, LFP and GFP blocks, the KAN feed-forward,
initialisation, parameter counts. Where the two disagree, the paper's side is the default and the
code's side is an option:

- `dilation="dinat"`: the paper's dilated attention; which dilations it means is not said there, so
  they follow DiNAT (arXiv 2209.15001): the odd LFP blocks of a stage take the largest dilation that
  fits the stage's grid. The code runs without dilation: `dilation="none"`.
- `legacy_layout=True`: the code reshapes NCHW maps to [B, H, W, C] where a permutation is meant,
  which mixes space and channels before attention and KAN. Same parameters, other function;
  published checkpoints were trained with it.
- `legacy_dead_params=True`: the code's GFP blocks also own a convolutional feed-forward that
  nothing calls.

Deviations: maps of any height and width work (the windows shrink with the grid, the pooling of keys
with the tokens); `ffn="mlp"` exchanges the KAN for a plain MLP of the same hidden width, the
ablation of the reproduction.

Dilations are numbers fixed when the model is built, from `img_size`, and the attention clamps them
where the map at hand is smaller. So the weights keep their meaning at every input size, a square
input smaller than `img_size` gets just what the rule says for its own grid, and torch.compile and
torch.export see constants.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models._classifier import Classifier, DefaultCfg
from saccade.models._layers import ConvBNReLU, DropPath, Mlp, SqueezeExcite, make_divisible
from saccade.models._registry import configure, register_model
from saccade.nn.kan import FasterKAN
from saccade.nn.neighborhood_attention import NeighborhoodAttention2d

KAN_OPTIONS: dict[str, Any] = {
    "num_basis": 8,
    "centre_range": (-2.0, 2.0),
    "inv_width": 1 / 0.33,
    "mode": "exact",
}
HEAD_DIM = 32


@dataclass(frozen=True)
class MedViTV2Config:
    """What distinguishes one MedViTV2 from another; every field is an option of `create_model`.

    Args:
        stem: widths c0, c1, c2 of the stem, whose stride is 4.
        dims: channels of the four stages, multiples of 32.
        depths: blocks of the four stages; the third must divide by 3.
        kernel_size: window of the neighborhood attention.
        local_kernels: depthwise kernel of the LFP blocks' feed-forward, by stage.
        sr_ratios: GFP blocks pool keys and values over sr^2 tokens, by stage.
        mix_ratio: share of the GFP channels that attention makes; convolution makes the others.
        ffn: "kan", or "mlp" of the same hidden width 2C.
        dilation: "dinat" or "none", see the file's first lines.
        img_size: height and width (one number: square) from which "dinat" takes its dilations.
        legacy_layout: reshape instead of permute, as published checkpoints need.
        legacy_dead_params: own the unused weights of the published code.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        drop_rate: dropout before the classifier.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    stem: tuple[int, int, int] = (64, 32, 64)
    dims: tuple[int, int, int, int] = (64, 128, 192, 384)
    depths: tuple[int, int, int, int] = (2, 2, 6, 1)
    kernel_size: int = 7
    local_kernels: tuple[int, int, int, int] = (7, 3, 3, 3)
    sr_ratios: tuple[int, int, int, int] = (8, 4, 2, 1)
    mix_ratio: float = 0.75
    ffn: str = "kan"
    dilation: str = "dinat"
    img_size: int | tuple[int, int] = 224
    legacy_layout: bool = False
    legacy_dead_params: bool = False
    drop_path_rate: float = 0.1
    drop_rate: float = 0.0
    num_classes: int = 1000
    in_chans: int = 3

    def __post_init__(self) -> None:
        for name, wanted in (("ffn", ("kan", "mlp")), ("dilation", ("dinat", "none"))):
            if getattr(self, name) not in wanted:
                raise ValueError(
                    f'{name} must be "{wanted[0]}" or "{wanted[1]}", got {getattr(self, name)!r}.'
                )
        for name, count in (
            ("stem", 3),
            ("dims", 4),
            ("depths", 4),
            ("local_kernels", 4),
            ("sr_ratios", 4),
        ):
            values = getattr(self, name)
            if len(values) != count or min(values) < 1:
                raise ValueError(f"{name} must hold {count} numbers of at least 1, got {values}.")
        if not all(kernel % 2 for kernel in self.local_kernels):
            raise ValueError(f"local_kernels must be odd, got {self.local_kernels}.")
        if min(self.img_size if isinstance(self.img_size, tuple) else (self.img_size,)) < 1:
            raise ValueError(f"img_size must be at least 1, got {self.img_size}.")
        if self.depths[2] % 3:
            raise ValueError(
                "the third stage repeats (LFP, LFP, GFP), so depths[2] must divide by 3, "
                f"got {self.depths[2]}."
            )
        for stage, width in enumerate(self.dims):
            if width % HEAD_DIM:
                raise ValueError(
                    f"dims must be multiples of {HEAD_DIM}, got {width} in stage {stage}."
                )
            if stage > 0:
                self.split(width)

    def block_types(self, stage: int) -> list[str]:
        """The blocks of a stage: "LFP" or "GFP"."""
        depth = self.depths[stage]
        return [
            ["LFP"] * depth,
            ["LFP"] * (depth - 1) + ["GFP"],
            ["LFP", "LFP", "GFP"] * (depth // 3),
            ["GFP"] * depth,
        ][stage]

    def split(self, width: int) -> tuple[int, int]:
        """Channels that attention and convolution make in a GFP block of `width` channels."""
        attention = make_divisible(int(width * self.mix_ratio), HEAD_DIM)
        if width - attention < HEAD_DIM:
            raise ValueError(
                f"a GFP block must leave at least {HEAD_DIM} channels to convolution: of "
                f"C = {width} attention takes {attention} at mix_ratio {self.mix_ratio}, "
                f"which leaves {width - attention}; at mix_ratio 0.75 C must be 128 or more."
            )
        return attention, width - attention

    def stage_dilation(self, stage: int) -> int:
        """Dilation of a stage's odd LFP blocks: max(1, floor(grid's short side / kernel_size))."""
        if self.dilation == "none":
            return 1
        side = min(self.img_size) if isinstance(self.img_size, tuple) else self.img_size
        grid = -(-side // (4 << stage))
        return max(1, grid // self.kernel_size)


class PatchEmbed(nn.Module):
    """Halve the map where stride is 2, and change its channels where they differ; else identity."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.avgpool = (
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
            if stride == 2
            else nn.Identity()
        )
        change = stride == 2 or in_channels != out_channels
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False) if change else nn.Identity()
        self.norm = nn.BatchNorm2d(out_channels) if change else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ceil(H / stride), ceil(W / stride)]."""
        y: Tensor = self.norm(self.conv(self.avgpool(x)))
        return y


class LocalityFeedForward(nn.Module):
    """y + f(y), f an inverted bottleneck `ratio` times as wide, depthwise, with channel gates."""

    def __init__(self, channels: int, kernel_size: int, ratio: int) -> None:
        super().__init__()
        hidden = ratio * channels
        self.conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
            nn.Conv2d(
                hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden, bias=False
            ),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
            # the reduction is C, so the gates see only `ratio` numbers
            SqueezeExcite(hidden, ratio),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, y: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        z: Tensor = self.conv(y)
        return y + z


class EMHSA(nn.Module):
    """Self-attention whose keys and values are means of sr^2 tokens, neighbours in raster order."""

    def __init__(self, channels: int, sr_ratio: int) -> None:
        super().__init__()
        self.window = sr_ratio**2
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)
        self.norm = nn.BatchNorm1d(channels) if sr_ratio > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        keys = x
        if self.window > 1:
            keys = self.norm(F.avg_pool1d(x.mT, min(self.window, x.shape[1]))).mT
        q, k, v = (
            layer(tokens).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
            for layer, tokens in ((self.q, x), (self.k, keys), (self.v, keys))
        )
        heads = F.scaled_dot_product_attention(q, k, v)
        y: Tensor = self.proj(heads.transpose(1, 2).flatten(2))
        return y


class MHCA(nn.Module):
    """Convolutional attention: a 3x3 convolution a head of 32 channels, then a 1x1 over all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_conv3x3 = nn.Conv2d(
            channels, channels, 3, padding=1, groups=channels // HEAD_DIM, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)
        self.projection = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        y: Tensor = self.projection(self.act(self.norm(self.group_conv3x3(x))))
        return y


class _Block(nn.Module):
    """What LFP and GFP share: the way between maps and channels-last tokens."""

    legacy_layout: bool

    def channels_last(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Apply a layer of [B, H, W, C] to a map [B, C, H, W]."""
        batch, channels, height, width = x.shape
        y: Tensor
        if self.legacy_layout:
            y = layer(x.reshape(batch, height, width, channels)).reshape(x.shape)
        else:
            y = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


class LFP(_Block):
    """Local feature perception: neighborhood attention, then a convolutional feed-forward."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        cfg: MedViTV2Config,
        stage: int,
        drop: float,
        odd: bool,
    ) -> None:
        super().__init__()
        self.legacy_layout = cfg.legacy_layout
        self.patch_embed = PatchEmbed(in_channels, channels, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = NeighborhoodAttention2d(
            channels,
            channels // HEAD_DIM,
            cfg.kernel_size,
            dilation=cfg.stage_dilation(stage) if odd else 1,
            rel_pos_bias=True,
            clamp=True,
        )
        self.drop_path = DropPath(drop)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv = LocalityFeedForward(channels, cfg.local_kernels[stage], ratio=3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ceil(H / stride), ceil(W / stride)]."""
        x = self.patch_embed(x)
        x = x + self.drop_path(self.channels_last(self.attn, self.norm1(x)))
        y: Tensor = self.conv(self.norm2(x))
        return x + y


class GFP(_Block):
    """Global feature perception: attention and convolution share the channels, then the KAN."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        cfg: MedViTV2Config,
        stage: int,
        drop: float,
    ) -> None:
        super().__init__()
        self.legacy_layout = cfg.legacy_layout
        attention, convolution = cfg.split(channels)
        self.patch_embed = PatchEmbed(in_channels, attention, stride)
        self.norm1 = nn.BatchNorm2d(attention)
        self.e_mhsa = EMHSA(attention, cfg.sr_ratios[stage])
        self.mhsa_drop_path = DropPath(drop * cfg.mix_ratio)
        self.projection = PatchEmbed(attention, convolution)
        self.mhca = MHCA(convolution)
        self.mhca_drop_path = DropPath(drop * (1 - cfg.mix_ratio))
        self.norm2 = nn.BatchNorm2d(channels)
        if cfg.legacy_dead_params:
            self.conv = LocalityFeedForward(channels, 3, ratio=2)
        hidden = 2 * channels
        self.kan: nn.Module = (
            FasterKAN([channels, hidden, channels], **KAN_OPTIONS)
            if cfg.ffn == "kan"
            else Mlp(channels, hidden)
        )
        self.drop_path = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ceil(H / stride), ceil(W / stride)]."""
        x = self.patch_embed(x)
        tokens = self.norm1(x).flatten(2).mT
        x = x + self.mhsa_drop_path(self.e_mhsa(tokens).mT.unflatten(2, x.shape[2:]))
        z = self.projection(x)
        z = z + self.mhca_drop_path(self.mhca(z))
        x = torch.cat([x, z], 1)
        y: Tensor = self.drop_path(self.channels_last(self.kan, self.norm2(x)))
        return x + y


class MedViTV2(Classifier):
    """MedViTV2 as its config says; `create_model("medvitv2_tiny")` makes one.

    Shape:
        [B, in_chans, H, W] -> [B, num_classes], or [B, num_features] without classes.
    """

    def __init__(self, cfg: MedViTV2Config) -> None:
        c0, c1, c2 = cfg.stem
        stem = nn.Sequential(
            ConvBNReLU(cfg.in_chans, c0, stride=2),
            ConvBNReLU(c0, c1),
            ConvBNReLU(c1, c2),
            ConvBNReLU(c2, c2, stride=2),
        )
        stages: list[list[nn.Module]] = []
        channels, last, index = c2, max(1, sum(cfg.depths) - 1), 0
        for stage, width in enumerate(cfg.dims):
            blocks: list[nn.Module] = []
            for kind in cfg.block_types(stage):
                stride = 2 if stage > 0 and not blocks else 1
                drop = cfg.drop_path_rate * index / last
                if kind == "LFP":
                    odd = sum(isinstance(block, LFP) for block in blocks) % 2 == 1
                    blocks.append(LFP(channels, width, stride, cfg, stage, drop, odd))
                else:
                    blocks.append(GFP(channels, width, stride, cfg, stage, drop))
                channels, index = width, index + 1
            stages.append(blocks)
        norm = nn.BatchNorm2d(channels)
        super().__init__(stem, stages, cfg.dims, norm, cfg.num_classes, cfg.drop_rate)
        self.cfg = cfg

    def checkpoint_filter(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a published checkpoint's keys to this file's; keys of this file pass unchanged.

        | published | here |
        | --- | --- |
        | `module.*` (data parallel) | `*` |
        | `proj_head.0.*` | `head.*` |
        | `*.kan.layers.N.spline_linear.weight` [O, I * n] | `*.kan.layers.N.weight` [O, I, n] |
        | `*.kan.layers.N.rbf.grid` | `*.kan.layers.N.centres` |
        | `features.N.conv.*` of a GFP block | dropped unless `legacy_dead_params` |

        The published names are assumed from the code's description; no published file was at hand
        to verify them. Whatever does not fit is reported by `load_weights`.
        """
        renamed = {}
        dead = () if self.cfg.legacy_dead_params else self._dead_prefixes()
        for key, value in state.items():
            key = re.sub(r"^module\.", "", key)
            if key.startswith(dead):
                continue
            key = re.sub(r"^proj_head\.0\.", "head.", key).replace(".rbf.grid", ".centres")
            if key.endswith(".spline_linear.weight"):
                key = key.replace(".spline_linear.weight", ".weight")
                value = value.reshape(value.shape[0], -1, KAN_OPTIONS["num_basis"])
            renamed[key] = value
        return renamed

    def _dead_prefixes(self) -> tuple[str, ...]:
        return tuple(
            f"features.{i}.conv." for i, block in enumerate(self.features) if isinstance(block, GFP)
        )


def _cfg(**changes: Any) -> DefaultCfg:
    return DefaultCfg(source="https://arxiv.org/abs/2502.13693", **changes)


def _build(options: dict[str, Any], **variant: Any) -> MedViTV2:
    return MedViTV2(configure(MedViTV2Config(**variant), options))


@register_model(_cfg(input_size=(3, 56, 56), num_classes=10))
def medvitv2_micro(**options: Any) -> MedViTV2:
    """For small images and two CPU cores: 56 x 56, window 3, 9 blocks; not in the paper."""
    dims, depths = (32, 128, 160, 192), (2, 3, 3, 1)
    return _build(
        options,
        stem=(16, 8, 16),
        dims=dims,
        depths=depths,
        kernel_size=3,
        img_size=56,
        num_classes=10,
    )


@register_model(_cfg())
def medvitv2_tiny(**options: Any) -> MedViTV2:
    """MedViTV2-T of the paper."""
    return _build(options, dims=(64, 128, 192, 384), depths=(2, 2, 6, 1))


@register_model(_cfg())
def medvitv2_small(**options: Any) -> MedViTV2:
    """MedViTV2-S of the paper."""
    return _build(options, dims=(64, 128, 256, 512), depths=(2, 2, 6, 2))


@register_model(_cfg())
def medvitv2_base(**options: Any) -> MedViTV2:
    """MedViTV2-B of the paper."""
    return _build(options, dims=(96, 192, 384, 768), depths=(2, 2, 6, 2), drop_path_rate=0.2)


@register_model(_cfg())
def medvitv2_large(**options: Any) -> MedViTV2:
    """MedViTV2-L of the paper."""
    return _build(options, dims=(96, 256, 512, 1024), depths=(2, 2, 6, 2), drop_path_rate=0.2)
