"""CvT: convolutional vision Transformer.

"CvT: Introducing Convolutions to Vision Transformers", Haiping Wu et al., 2021.
https://arxiv.org/abs/2103.15808

Faithful (paper and published code): overlapping convolutional token embedding, depthwise
convolution and batch norm before the projections of queries, keys and values, keys and values at
half the resolution, a class token in the last stage alone, QuickGELU, no position encoding,
initialisation, parameter counts. Where the two disagree the code is followed: scores are scaled by
the whole width, C^-0.5, and not by the head's.

Deviations: any height and width; `projection="linear"` works for all three projections;
`pos_embed=True` adds a learned position encoding and `class_token=False` takes the mean of the
tokens, for the ablations of the reproduction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models._classifier import Classifier, DefaultCfg
from saccade.models._layers import DropPath
from saccade.models._registry import configure, register_model

PROJECTIONS = ("dw_bn", "avg", "linear")


@dataclass(frozen=True)
class CvTConfig:
    """What distinguishes one CvT from another; every field is an option of `create_model`.

    Args:
        dims: channels of the stages.
        heads: attention heads of the stages; they divide the channels.
        depths: blocks of the stages.
        kernels, strides, paddings: of the stages' token embedding.
        projection: what precedes the projections: "dw_bn", a depthwise convolution and batch norm;
            "avg", a mean over the keys' and values' windows; "linear", nothing.
        kv_stride: stride of keys and values in "dw_bn" and "avg".
        mlp_ratio: hidden width of the feed-forward over C.
        class_token: classify by a token of the last stage; else by the mean of its tokens.
        pos_embed: add a learned position encoding to the first stage's tokens.
        img_size: side of the square image for which the position encoding is made; other sizes get
            it resized.
        drop_path_rate: stochastic depth of the last stage's last block; it grows linearly from 0
            within that stage, and the other stages have none.
        drop_rate: dropout before the classifier.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    dims: tuple[int, ...] = (64, 192, 384)
    heads: tuple[int, ...] = (1, 3, 6)
    depths: tuple[int, ...] = (1, 2, 10)
    kernels: tuple[int, ...] = (7, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2)
    paddings: tuple[int, ...] = (2, 1, 1)
    projection: str = "dw_bn"
    kv_stride: int = 2
    mlp_ratio: float = 4.0
    class_token: bool = True
    pos_embed: bool = False
    img_size: int = 224
    drop_path_rate: float = 0.1
    drop_rate: float = 0.0
    num_classes: int = 1000
    in_chans: int = 3

    def __post_init__(self) -> None:
        stages = len(self.dims)
        for name in ("dims", "heads", "depths", "kernels", "strides", "paddings"):
            values = getattr(self, name)
            if not stages or len(values) != stages or min(values) < (name != "paddings"):
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
        if self.projection not in PROJECTIONS:
            raise ValueError(
                f"projection must be one of {', '.join(PROJECTIONS)}, got {self.projection!r}."
            )
        if self.kv_stride < 1 or self.img_size < 1:
            raise ValueError(
                f"kv_stride and img_size must be at least 1, got {self.kv_stride} and "
                f"{self.img_size}."
            )


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        return x * torch.sigmoid(1.702 * x)


class ConvEmbed(nn.Module):
    """A convolution that makes the tokens, and their layer norm; section 3.1."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride, padding)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, (H + 2 padding - kernel) // stride + 1, ...].

        Raises:
            ValueError: the map is smaller than the kernel.
        """
        least = self.proj.kernel_size[0] - 2 * int(self.proj.padding[0])
        if min(x.shape[2:]) < least:
            raise ValueError(
                f"the image is too small: a patch embedding reads at least {least} x {least}, "
                f"got {x.shape[2]} x {x.shape[3]}."
            )
        y: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


def _depthwise(channels: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


class Attention(nn.Module):
    """Attention whose queries, keys and values are convolved first; equation 2 and section 3.2.

    The class token, where there is one, is not convolved.
    """

    def __init__(self, channels: int, heads: int, projection: str, kv_stride: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = channels**-0.5
        self.conv_q: nn.Module = nn.Identity()
        self.conv_k: nn.Module = nn.Identity()
        self.conv_v: nn.Module = nn.Identity()
        if projection == "dw_bn":
            self.conv_q = _depthwise(channels, 1)
            self.conv_k, self.conv_v = (_depthwise(channels, kv_stride) for _ in range(2))
        elif projection == "avg":
            self.conv_k = self.conv_v = nn.AvgPool2d(3, kv_stride, padding=1, ceil_mode=True)
        self.proj_q = nn.Linear(channels, channels)
        self.proj_k = nn.Linear(channels, channels)
        self.proj_v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, 1 + H * W or H * W, C] -> the same shape; `size` is (H, W)."""
        extra = tokens.shape[1] - size[0] * size[1]
        cls, grid = tokens[:, :extra], tokens[:, extra:].mT.unflatten(2, size)
        q, k, v = (
            project(torch.cat([cls, conv(grid).flatten(2).mT], 1))
            .unflatten(2, (self.heads, -1))
            .transpose(1, 2)
            for conv, project in (
                (self.conv_q, self.proj_q),
                (self.conv_k, self.proj_k),
                (self.conv_v, self.proj_v),
            )
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        y: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return y


class Block(nn.Module):
    """Attention and feed-forward, each on the norm of its input and added to it."""

    def __init__(self, channels: int, heads: int, cfg: CvTConfig, drop: float) -> None:
        super().__init__()
        hidden = int(channels * cfg.mlp_ratio)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = Attention(channels, heads, cfg.projection, cfg.kv_stride)
        self.drop_path = DropPath(drop)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), QuickGELU(), nn.Linear(hidden, channels)
        )

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), size))
        y: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return y


class Stage(nn.Module):
    """Token embedding and blocks; the last stage may carry the class token beside the map."""

    def __init__(self, in_channels: int, stage: int, cfg: CvTConfig) -> None:
        super().__init__()
        channels, last = cfg.dims[stage], stage == len(cfg.dims) - 1
        embed = (cfg.kernels[stage], cfg.strides[stage], cfg.paddings[stage])
        self.embed = ConvEmbed(in_channels, channels, *embed)
        self.pos_embed = self.class_token = None
        if cfg.pos_embed and stage == 0:
            side = (cfg.img_size + 2 * embed[2] - embed[0]) // embed[1] + 1
            self.pos_embed = nn.Parameter(torch.empty(1, channels, side, side))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if cfg.class_token and last:
            self.class_token = nn.Parameter(torch.empty(1, 1, channels))
            nn.init.trunc_normal_(self.class_token, std=0.02)
        depth = cfg.depths[stage]
        self.blocks = nn.ModuleList(
            Block(
                channels,
                cfg.heads[stage],
                cfg,
                cfg.drop_path_rate * i / max(1, depth - 1) if last else 0.0,
            )
            for i in range(depth)
        )

    def tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """[B, C, H, W] -> tokens [B, (1 +) h * w, O], the class token first, and (h, w)."""
        x = self.embed(x)
        size = (x.shape[2], x.shape[3])
        if self.pos_embed is not None:
            encoding: Tensor = self.pos_embed
            if encoding.shape[2:] != x.shape[2:]:
                encoding = F.interpolate(encoding, size, mode="bicubic", align_corners=False)
            x = x + encoding
        tokens = x.flatten(2).mT
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens, size)
        return tokens, size

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the map [B, O, h, w], without the class token."""
        tokens, size = self.tokens(x)
        y: Tensor = tokens[:, tokens.shape[1] - size[0] * size[1] :].mT.unflatten(2, size)
        return y


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class CvT(Classifier):
    """CvT as its config says; `create_model("cvt_13")` makes one.

    Shape:
        [B, in_chans, H, W] -> [B, num_classes], or [B, num_features] without classes.
    """

    def __init__(self, cfg: CvTConfig) -> None:
        widths = (cfg.in_chans, *cfg.dims)
        stages = [[Stage(widths[stage], stage, cfg)] for stage in range(len(cfg.dims))]
        reductions, reduction = [], 1
        for stride in cfg.strides:
            reduction *= stride
            reductions.append(reduction)
        super().__init__(
            nn.Identity(),
            stages,
            cfg.dims,
            nn.LayerNorm(cfg.dims[-1]),
            cfg.num_classes,
            cfg.drop_rate,
            reductions,
            _init,
        )
        self.cfg = cfg

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> the class token [B, 1, C], or all tokens, after the norm."""
        *stages, last = self.features
        for stage in stages:
            x = self._run(stage, x)
        tokens, _ = last.tokens(x)  # type: ignore[operator]
        y: Tensor = self.norm(tokens[:, :1] if self.cfg.class_token else tokens)
        return y

    def pool(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] -> their mean [B, C]."""
        return x.mean(1)

    def no_weight_decay(self) -> set[str]:
        """The class token and the position encoding."""
        return {
            name
            for name, _ in self.named_parameters()
            if name.endswith(("class_token", "pos_embed"))
        }


def _cfg(**changes: Any) -> DefaultCfg:
    return DefaultCfg(
        source="https://arxiv.org/abs/2103.15808",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bicubic",
        crop_pct=0.875,
        first_conv="features.0.embed.proj",
        **changes,
    )


def _build(options: dict[str, Any], **variant: Any) -> CvT:
    return CvT(configure(CvTConfig(**variant), options))


@register_model(_cfg(input_size=(3, 32, 32), min_input_size=(3, 8, 8), num_classes=10))
def cvt_micro(**options: Any) -> CvT:
    """For images of 32 x 32 and two CPU cores: grids of 16, 8 and 4; not in the paper."""
    return _build(
        options,
        dims=(32, 64, 96),
        heads=(1, 2, 3),
        depths=(1, 1, 2),
        kernels=(3, 3, 3),
        strides=(2, 2, 2),
        paddings=(1, 1, 1),
        img_size=32,
        num_classes=10,
    )


@register_model(_cfg())
def cvt_13(**options: Any) -> CvT:
    """CvT-13 of the paper."""
    return _build(options)


@register_model(_cfg())
def cvt_21(**options: Any) -> CvT:
    """CvT-21 of the paper."""
    return _build(options, depths=(1, 4, 16))


@register_model(_cfg(input_size=(3, 384, 384)))
def cvt_w24(**options: Any) -> CvT:
    """CvT-W24 of the paper."""
    return _build(
        options,
        dims=(192, 768, 1024),
        heads=(3, 12, 16),
        depths=(2, 2, 20),
        img_size=384,
        drop_path_rate=0.3,
    )
