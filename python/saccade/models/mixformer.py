"""mixFormer: vision Transformers whose layers differ in width, heads and kind of attention.

"Neural Architecture Search on Efficient Transformers and Beyond", Zexiang Liu et al., 2022.
https://arxiv.org/abs/2207.13955

Faithful (published code, CIFAR-10): patches with a class token, scaled by sqrt(d) before the
position encoding is added; pre-norm blocks with a ReLU feed-forward; the mean over the patches
alone is classified; cosFormer, softmax, or softmax with relative keys on the distance in raster
order, in every layer on its own; dropout and stochastic depth; initialisation; parameter counts.

Deviations: cosFormer looks both ways, where the published code builds the image encoder causal
(`causal=True`, as in `mixformer_official`). Its least denominator is the search code's 0.001, not
cosFormer's own 0.000001. Of the architecture found the kinds of attention are not on record;
cosFormer stands in.

The super-net, the search space and the search are in `saccade.compress.search`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models._classifier import DefaultCfg
from saccade.models._cosformer import cosformer_attention
from saccade.models._layers import DropPath
from saccade.models._registry import configure, register_model
from saccade.models._vit import PatchClassifier, PatchStem

# Relative keys tell distances up to this one apart.
REACH = 14


@dataclass(frozen=True)
class MixFormerConfig:
    """What distinguishes one mixFormer from another; every field is an option of `create_model`.

    Args:
        dim: d, channels of the tokens.
        heads: heads of every layer; their number is the depth.
        hidden: width of every layer's feed-forward.
        attention: kind of every layer's attention, names in `ATTENTION`; one name serves all.
        head_dim: channels of a head; d need not be a multiple.
        patch_size: side of a patch.
        img_size: side of the image; the position encodings fix it.
        pos_std: deviation of the position encoding at first. The published 0.02 is little beside
            sqrt(d) times the tokens; short runs learn from 1 on.
        eps: least denominator of cosFormer.
        causal: cosFormer sees the tokens before in raster order alone; the class token comes first.
        ffn_drop_rate: dropout after the feed-forward's ReLU.
        drop_path_rate: stochastic depth of layer `drop_path_depth`; it grows linearly from 0.
        drop_path_depth: 0: the depth of the model.
        drop_rate: dropout before the classifier.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    dim: int = 448
    heads: tuple[int, ...] = (7,) * 14
    hidden: tuple[int, ...] = (1792,) * 14
    attention: tuple[str, ...] | str = "cosformer"
    head_dim: int = 64
    patch_size: int = 16
    img_size: int = 224
    pos_std: float = 0.02
    eps: float = 1e-3
    causal: bool = False
    ffn_drop_rate: float = 0.1
    drop_path_rate: float = 0.1
    drop_path_depth: int = 0
    drop_rate: float = 0.0
    num_classes: int = 10
    in_chans: int = 3

    def __post_init__(self) -> None:
        for name in ("dim", "head_dim", "patch_size", "img_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.heads or min(self.heads) < 1:
            raise ValueError(f"heads must hold a positive number for each layer, got {self.heads}.")
        if len(self.hidden) != self.depth or min(self.hidden) < 1:
            raise ValueError(
                f"hidden must hold a positive number for each of the {self.depth} layers, got "
                f"{self.hidden}."
            )
        if len(self.kinds) != self.depth:
            raise ValueError(
                f"attention must hold a name for each of the {self.depth} layers, or be one name, "
                f"got {self.attention}."
            )
        unknown = sorted(set(self.kinds) - set(ATTENTION))
        if unknown:
            raise ValueError(
                f"attention must name kinds of {', '.join(ATTENTION)}, got {', '.join(unknown)}."
            )
        if self.img_size % self.patch_size:
            raise ValueError(
                f"patch_size must divide img_size, got {self.patch_size} and {self.img_size}."
            )
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0, got {self.eps}.")
        if self.drop_path_depth and self.drop_path_depth < self.depth:
            raise ValueError(
                f"drop_path_depth must be 0 or at least the {self.depth} layers, got "
                f"{self.drop_path_depth}."
            )

    @property
    def depth(self) -> int:
        """Layers."""
        return len(self.heads)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of attention of every layer."""
        given = self.attention
        return (given,) * self.depth if isinstance(given, str) else tuple(given)

    @property
    def tokens(self) -> int:
        """N: patches and the class token."""
        return (self.img_size // self.patch_size) ** 2 + 1


class Attention(nn.Module):
    """Multi-head attention on heads * head_dim channels; kinds differ in `mix` and its costs.

    A further kind is a subclass in `ATTENTION`; the super-net slices whatever parameters it has.
    """

    def __init__(self, dim: int, heads: int, cfg: MixFormerConfig) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * heads * cfg.head_dim)
        self.proj = nn.Linear(heads * cfg.head_dim, dim)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, h, N, D], three times -> [B, h, N, D]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y: Tensor = self.proj(self.mix(q, k, v).transpose(1, 2).flatten(2))
        return y

    @staticmethod
    def macs(tokens: int, width: int, head_dim: int) -> int:
        """Multiply-accumulates of `mix` for one image; width = heads * head_dim."""
        raise NotImplementedError

    @staticmethod
    def parameters_of_mix(head_dim: int) -> int:
        """Parameters beside the projections."""
        return 0


class CosFormer(Attention):
    """Linear attention with a cosine of the distance, see `cosformer_attention`."""

    def __init__(self, dim: int, heads: int, cfg: MixFormerConfig) -> None:
        super().__init__(dim, heads, cfg)
        self.eps, self.causal = cfg.eps, cfg.causal

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, h, N, D], three times -> [B, h, N, D]."""
        return cosformer_attention(q, k, v, causal=self.causal, eps=self.eps)

    @staticmethod
    def macs(tokens: int, width: int, head_dim: int) -> int:
        """Two products with 2 D features."""
        return 4 * tokens * width * head_dim


class Softmax(Attention):
    """Scaled dot products and a softmax."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, h, N, D], three times -> [B, h, N, D]."""
        return F.scaled_dot_product_attention(q, k, v)

    @staticmethod
    def macs(tokens: int, width: int, head_dim: int) -> int:
        """Scores, and their product with the values."""
        return 2 * tokens**2 * width


class Relative(Attention):
    """Softmax with a learned key added for the clipped distance, shared by the heads.

    Source: Shaw et al., "Self-Attention with Relative Position Representations"
        (arXiv 1803.02155), equation 4 without the values' part of equation 3.
    """

    def __init__(self, dim: int, heads: int, cfg: MixFormerConfig) -> None:
        super().__init__(dim, heads, cfg)
        self.keys = nn.Parameter(torch.empty(2 * REACH + 1, cfg.head_dim))
        nn.init.xavier_uniform_(self.keys)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, h, N, D], three times -> [B, h, N, D]."""
        place = torch.arange(q.shape[2], device=q.device)
        distance = (place - place.unsqueeze(1)).clamp(-REACH, REACH) + REACH
        # one product a distance, not one a pair of tokens
        products = (q * q.shape[-1] ** -0.5) @ self.keys.mT
        bias = products.gather(-1, distance.expand(*q.shape[:2], -1, -1))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    @staticmethod
    def macs(tokens: int, width: int, head_dim: int) -> int:
        """As published: the relative part costs as much as the scores."""
        return 3 * tokens**2 * width

    @staticmethod
    def parameters_of_mix(head_dim: int) -> int:
        """The relative keys."""
        return (2 * REACH + 1) * head_dim


# Kinds of attention in the order of their codes, which count from 1.
ATTENTION: dict[str, type[Attention]] = {
    "cosformer": CosFormer,
    "softmax": Softmax,
    "relative": Relative,
}


class Block(nn.Module):
    """Attention and feed-forward, each on the norm of its input and added to it."""

    def __init__(self, cfg: MixFormerConfig, layer: int) -> None:
        super().__init__()
        dim, hidden = cfg.dim, cfg.hidden[layer]
        self.norm1 = nn.LayerNorm(dim)
        self.attn: nn.Module = ATTENTION[cfg.kinds[layer]](dim, cfg.heads[layer], cfg)
        last = max(1, (cfg.drop_path_depth or cfg.depth) - 1)
        self.drop_path = DropPath(cfg.drop_path_rate * layer / last)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(cfg.ffn_drop_rate), nn.Linear(hidden, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class MixFormer(PatchClassifier):
    """mixFormer as its config says; `create_model("mixformer_found")` makes one.

    Its stages, for `features_only`, are its blocks.

    Shape:
        [B, in_chans, img_size, img_size] -> [B, num_classes], or [B, num_features] without classes.
    """

    def __init__(self, cfg: MixFormerConfig) -> None:
        super().__init__(
            PatchStem(
                cfg.in_chans,
                cfg.dim,
                cfg.patch_size,
                cfg.img_size,
                scaled=True,
                pos_std=cfg.pos_std,
            ),
            [[Block(cfg, layer)] for layer in range(cfg.depth)],
            [cfg.dim] * cfg.depth,
            nn.LayerNorm(cfg.dim),
            cfg.num_classes,
            cfg.drop_rate,
            [cfg.patch_size] * cfg.depth,
            _init,
        )
        self.cfg = cfg

    def pool(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] -> the mean over the patches [B, C]; the class token is not read."""
        return x[:, 1:].mean(1)


def _cfg(**changes: Any) -> DefaultCfg:
    # the number of tokens is fixed
    size = {"input_size": (3, 224, 224), "min_input_size": (3, 224, 224)} | changes
    return DefaultCfg(
        source="https://arxiv.org/abs/2207.13955",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        interpolation="bicubic",
        num_classes=10,
        first_conv="stem.proj",
        **size,
    )


def _build(options: dict[str, Any], **variant: Any) -> MixFormer:
    return MixFormer(configure(MixFormerConfig(**variant), options))


# The architecture found at 87.4 %, of which the published history tells widths and heads.
FOUND: dict[str, Any] = {
    "heads": (7, 7, 6, 7, 5, 7, 5, 7, 5, 6, 7, 6),
    "hidden": (1792, 1792, 1344, 1568, 1344, 1344, 1344, 1344, 1568, 672, 1568, 1344),
    "drop_path_depth": 14,
}


@register_model(_cfg(input_size=(3, 32, 32), min_input_size=(3, 32, 32)))
def mixformer_micro(**options: Any) -> MixFormer:
    """For images of 32 x 32 and two CPU cores: 65 tokens, one layer of each kind; not published."""
    return _build(
        options,
        dim=64,
        heads=(4, 4, 4),
        hidden=(128, 128, 128),
        attention=("cosformer", "softmax", "relative"),
        head_dim=16,
        patch_size=4,
        img_size=32,
    )


@register_model(_cfg())
def mixformer_min(**options: Any) -> MixFormer:
    """The smallest architecture of the search space, cosFormer in all 12 layers."""
    small = {"dim": 320, "heads": (5,) * 12, "hidden": (672,) * 12}
    return _build(options, ffn_drop_rate=0.1 * 320 / 448, drop_path_depth=14, **small)


@register_model(_cfg())
def mixformer_found(**options: Any) -> MixFormer:
    """The architecture found by the search, 12 layers."""
    return _build(options, **FOUND)


@register_model(_cfg())
def mixformer_official(**options: Any) -> MixFormer:
    """The architecture found, causal as the published code builds it."""
    return _build(options, causal=True, **FOUND)


@register_model(_cfg())
def mixformer_max(**options: Any) -> MixFormer:
    """The largest architecture of the search space, cosFormer in all 14 layers."""
    return _build(options)
