"""DaViT: dual attention vision transformers.

"DaViT: Dual Attention Vision Transformers", Mingyu Ding et al., 2022.
https://arxiv.org/abs/2204.03645

Faithful (paper and published code): every unit attends within windows and then across channel
groups; convolutional position encodings; patch embeddings; the norm between pooling and head;
padded tokens take part in the windows' softmax; initialisation; parameter counts. Where the two
disagree the code is followed: the paper's roles of query, key and value in channel attention are
the code's key, value and query.

Deviations: none in the published variants; `attention` exchanges the two kinds of block, for the
ablation of the reproduction. timm's weights load through `checkpoint_filter`; its Huge and Giant,
which the paper has not, are those of the same design. Florence-2's changes to it (overlapping patch
embeddings, the scale of the tokens in channel attention) are not here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models._classifier import Classifier, DefaultCfg
from saccade.models._layers import DropPath, Mlp, no_autocast
from saccade.models._registry import configure, register_model

KINDS = ("spatial", "channel")


@dataclass(frozen=True)
class DaViTConfig:
    """What distinguishes one DaViT from another; every field is an option of `create_model`.

    Args:
        dims: channels of the stages.
        heads: heads, and channel groups, of the stages; they divide the channels.
        depths: units of the stages; a unit has one block of each kind in `attention`.
        attention: kinds of the blocks of a unit, "spatial" or "channel".
        window_size: side of the attention windows.
        stem_stride: of the stem's 7 x 7 convolution (3 x 3 where it is 2).
        mlp_ratio: hidden width of the feed-forward over C.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        drop_rate: dropout before the classifier.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    dims: tuple[int, ...] = (96, 192, 384, 768)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    depths: tuple[int, ...] = (1, 1, 3, 1)
    attention: tuple[str, ...] = KINDS
    window_size: int = 7
    stem_stride: int = 4
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.1
    drop_rate: float = 0.0
    num_classes: int = 1000
    in_chans: int = 3

    def __post_init__(self) -> None:
        stages = len(self.dims)
        for name in ("dims", "heads", "depths"):
            values = getattr(self, name)
            if not stages or len(values) != stages or min(values) < 1:
                raise ValueError(
                    f"{name} must hold a positive number for each of the {stages} stages, "
                    f"got {values}."
                )
        for stage, (width, heads) in enumerate(zip(self.dims, self.heads, strict=True)):
            if width % heads:
                raise ValueError(
                    f"heads must divide the channels: stage {stage} has {width} channels and "
                    f"{heads} heads."
                )
        if not self.attention or not set(self.attention) <= set(KINDS):
            raise ValueError(
                f"attention must name kinds of {', '.join(KINDS)}, got {self.attention}."
            )
        if self.window_size < 1 or self.stem_stride not in (2, 4):
            raise ValueError(
                "window_size must be at least 1 and stem_stride 2 or 4, got "
                f"{self.window_size} and {self.stem_stride}."
            )


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        y: Tensor = super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Zeros at the right and the bottom, up to a multiple."""
    return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple))


class Stem(nn.Module):
    """Image to tokens: a strided convolution, then the norm."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        kernel = 7 if stride == 4 else 3
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)
        self.norm = LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ceil(H / stride), ceil(W / stride)]."""
        y: Tensor = self.norm(self.conv(_pad(x, self.conv.stride[0])))
        return y


class Downsample(nn.Module):
    """The norm, then a 2 x 2 convolution of stride 2."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ceil(H / 2), ceil(W / 2)]."""
        y: Tensor = self.conv(_pad(self.norm(x), 2))
        return y


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, without mask or position bias; section 3.1."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]; zeros pad the map to whole windows and are attended."""
        batch, height, width, channels = x.shape
        side = self.window
        padded = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        windows = padded.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        windows = windows.reshape(batch * rows * columns, side * side, channels)
        q, k, v = self.qkv(windows).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(windows.shape)
        y: Tensor = self.proj(mixed)
        y = y.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return y.reshape(padded.shape)[:, :height, :width]


class ChannelAttention(nn.Module):
    """Attention among the channels of a group, each a vector over all tokens; equation 4."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.scale = (channels // groups) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        tokens = x.flatten(1, 2)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.groups, -1)).permute(2, 0, 3, 4, 1)
        # a score sums over all tokens, which overflows float16 on large maps
        wide = torch.promote_types(k.dtype, torch.float32)
        with no_autocast(x.device):
            attention = ((self.scale * k).to(wide) @ v.to(wide).mT).softmax(-1)
        mixed = (attention.to(q.dtype) @ q).permute(0, 3, 1, 2).reshape(tokens.shape)
        y: Tensor = self.proj(mixed).view(x.shape)
        return y


class Block(nn.Module):
    """Attention of one kind and feed-forward, each after a depthwise position encoding."""

    def __init__(self, channels: int, heads: int, cfg: DaViTConfig, kind: str, drop: float) -> None:
        super().__init__()
        self.cpe1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.attn: nn.Module = (
            WindowAttention(channels, heads, cfg.window_size)
            if kind == "spatial"
            else ChannelAttention(channels, heads)
        )
        self.drop_path = DropPath(drop)
        self.cpe2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * cfg.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        for cpe, norm, layer in (
            (self.cpe1, self.norm1, self.attn),
            (self.cpe2, self.norm2, self.mlp),
        ):
            x = x + cpe(x)
            tokens = norm(x.permute(0, 2, 3, 1))
            x = x + self.drop_path(layer(tokens)).permute(0, 3, 1, 2)
        return x


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class DaViT(Classifier):
    """DaViT as its config says; `create_model("davit_tiny")` makes one.

    Shape:
        [B, in_chans, H, W] -> [B, num_classes], or [B, num_features] without classes.
    """

    def __init__(self, cfg: DaViTConfig) -> None:
        stages: list[list[nn.Module]] = []
        last, index = max(1, len(cfg.attention) * sum(cfg.depths) - 1), 0
        for stage, (width, heads) in enumerate(zip(cfg.dims, cfg.heads, strict=True)):
            blocks: list[nn.Module] = [Downsample(cfg.dims[stage - 1], width)] if stage else []
            for kind in cfg.attention * cfg.depths[stage]:
                blocks.append(Block(width, heads, cfg, kind, cfg.drop_path_rate * index / last))
                index += 1
            stages.append(blocks)
        super().__init__(
            Stem(cfg.in_chans, cfg.dims[0], cfg.stem_stride),
            stages,
            cfg.dims,
            nn.LayerNorm(cfg.dims[-1]),
            cfg.num_classes,
            cfg.drop_rate,
            [cfg.stem_stride << stage for stage in range(len(cfg.dims))],
            _init,
        )
        self.cfg = cfg

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> the last map, [B, num_features, ...]; its norm follows pooling."""
        x = self.stem(x)
        for block in self.features:
            x = self._run(block, x)
        return x

    def pool(self, x: Tensor) -> Tensor:
        """The norm of the mean over the map."""
        y: Tensor = self.norm(x.mean((2, 3)))
        return y

    def checkpoint_filter(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename timm's keys to this file's; keys of this file pass unchanged.

        | timm | here |
        | --- | --- |
        | `stages.S.downsample.*`, `stages.S.blocks.U.K.*` | `features.N.*`, in order |
        | `cpe1.proj.*`, `cpe2.proj.*` | `cpe1.*`, `cpe2.*` |
        | `mlp.fc1.*`, `mlp.fc2.*` | `mlp.0.*`, `mlp.2.*` |
        | `head.norm.*`, `head.fc.*` | `norm.*`, `head.*` |
        """
        kinds, first, position = len(self.cfg.attention), [], 0
        for stage, depth in enumerate(self.cfg.depths):
            position += stage > 0
            first.append(position)
            position += depth * kinds

        def unit(match: re.Match[str]) -> str:
            stage, unit, kind = map(int, match.groups())
            return f"features.{first[stage] + unit * kinds + kind}."

        renamed = {}
        for key, value in state.items():
            key = re.sub(r"^stages\.(\d+)\.blocks\.(\d+)\.(\d+)\.", unit, key)
            key = re.sub(
                r"^stages\.(\d+)\.downsample\.",
                lambda match: f"features.{first[int(match[1])] - 1}.",
                key,
            )
            key = re.sub(r"\.(cpe[12])\.proj\.", r".\1.", key)
            key = key.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.2.")
            key = re.sub(r"^head\.norm\.", "norm.", key)
            renamed[re.sub(r"^head\.fc\.", "head.", key)] = value
        return renamed


def _cfg(**changes: Any) -> DefaultCfg:
    return DefaultCfg(
        source="https://arxiv.org/abs/2204.03645",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bicubic",
        crop_pct=0.9,
        first_conv="stem.conv",
        **changes,
    )


def _build(options: dict[str, Any], **variant: Any) -> DaViT:
    return DaViT(configure(DaViTConfig(**variant), options))


@register_model(_cfg(input_size=(3, 32, 32), min_input_size=(3, 8, 8), num_classes=10))
def davit_micro(**options: Any) -> DaViT:
    """For images of 32 x 32 and two CPU cores: grids of 16, 8 and 4; not in the paper."""
    return _build(
        options,
        dims=(32, 64, 96),
        heads=(1, 2, 3),
        depths=(1, 1, 2),
        window_size=4,
        stem_stride=2,
        num_classes=10,
    )


@register_model(_cfg())
def davit_tiny(**options: Any) -> DaViT:
    """DaViT-Tiny of the paper."""
    return _build(options)


@register_model(_cfg())
def davit_small(**options: Any) -> DaViT:
    """DaViT-Small of the paper."""
    return _build(options, depths=(1, 1, 9, 1), drop_path_rate=0.2)


@register_model(_cfg())
def davit_base(**options: Any) -> DaViT:
    """DaViT-Base of the paper."""
    return _build(
        options,
        dims=(128, 256, 512, 1024),
        heads=(4, 8, 16, 32),
        depths=(1, 1, 9, 1),
        drop_path_rate=0.4,
    )


@register_model(_cfg(input_size=(3, 384, 384)))
def davit_large(**options: Any) -> DaViT:
    """DaViT-Large of the published code, for 384 pixels and windows of 12."""
    return _build(
        options,
        dims=(192, 384, 768, 1536),
        heads=(6, 12, 24, 48),
        depths=(1, 1, 9, 1),
        window_size=12,
    )


@register_model(_cfg())
def davit_huge(**options: Any) -> DaViT:
    """DaViT-Huge of timm."""
    return _build(options, dims=(256, 512, 1024, 2048), heads=(8, 16, 32, 64), depths=(1, 1, 9, 1))


@register_model(_cfg())
def davit_giant(**options: Any) -> DaViT:
    """DaViT-Giant of timm, 1.4 billion parameters."""
    return _build(
        options, dims=(384, 768, 1536, 3072), heads=(12, 24, 48, 96), depths=(1, 1, 12, 3)
    )
