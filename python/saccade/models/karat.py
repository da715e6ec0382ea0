"""KArAt: vision Transformers whose attention is a learnable Kolmogorov-Arnold operator.

"Kolmogorov-Arnold Attention: Is Learnable Attention Better For Vision Transformers?", Subhajit
Maity et al., 2025. https://arxiv.org/abs/2503.10632

Faithful (paper, version 3; there is no published code): timm's plain vision Transformers, in which
the softmax over the scores of a query is replaced by low-rank sums of Fourier series, blockwise
("G3B") or universal ("G3U"); the other bases, base functions and the projection onto the simplex as
options; parameter counts.

Deviations: the coefficients start small, `coef_init="scaled"`, because sums of 197 terms of unit
deviation do not train; "paper" draws them as printed. Equation 2 has frequencies 1 to G, but the
published totals are those of frequencies 0 to G, the dead sine of 0 included: `include_dc=True`
follows the totals, False the equation. The simplex comes after the expansion to N scores, and not
before, where it would not give rows of sum 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models._classifier import DefaultCfg
from saccade.models._layers import DropPath, Mlp, no_autocast
from saccade.models._registry import configure, register_model
from saccade.models._vit import PatchClassifier, PatchStem
from saccade.ops.kan import kan_linear

WAVELETS = ("mexican_hat", "morlet", "dog", "meyer", "shannon")
BASES = ("fourier", "rational", *WAVELETS)
BASE_FUNCTIONS = {"zero": None, "identity": lambda x: x, "silu": F.silu, "gelu": F.gelu}
COEF_INITS = ("scaled", "paper")
# of the safe Pade units: powers 0 to 5 over 1 + |powers 1 to 4|
NUMERATOR, DENOMINATOR = 6, 4


@dataclass(frozen=True)
class KArAtConfig:
    """What distinguishes one model from another; every field is an option of `create_model`.

    Args:
        dim: channels.
        depth: blocks.
        heads: attention heads; they divide the channels.
        patch_size: side of the patches; it divides img_size.
        img_size: side of the square image. The operator has one function a pair of token and
            component, so no other size works.
        attention: "softmax"; "G3B", an operator of grid size 3 for each head of each block; "G3U",
            one for each head, which all blocks share; any grid size.
        rank: r, components between a row of scores and a row of attention; default 12.
        modular: expand r components to N by a learnable matrix; False is the ideal operator, which
            has N components and no matrix.
        basis: "fourier"; "rational" (safe Pade units of 5 over 4), "mexican_hat", "morlet", "dog",
            "meyer" or "shannon", for which the grid size means nothing.
        include_dc: the Fourier series start at frequency 0, as the published totals have it.
        base: function added to every unit: "zero", "identity", "silu" or "gelu".
        simplex: project every row of the attention onto the simplex.
        coef_init: deviation of the coefficients at first: "scaled", 1 / sqrt(N G); "paper", 1.
        freeze_phi: keep the coefficients as they were drawn, for the ablation of the reproduction.
        mlp_ratio: hidden width of the feed-forward over C.
        attn_drop_rate: dropout of the attention.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        drop_rate: dropout before the classifier.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    dim: int = 192
    depth: int = 12
    heads: int = 3
    patch_size: int = 16
    img_size: int = 224
    attention: str = "G3B"
    rank: int = 12
    modular: bool = True
    basis: str = "fourier"
    include_dc: bool = True
    base: str = "zero"
    simplex: bool = False
    coef_init: str = "scaled"
    freeze_phi: bool = False
    mlp_ratio: float = 4.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_rate: float = 0.0
    num_classes: int = 1000
    in_chans: int = 3

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "heads", "patch_size", "img_size", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.dim % self.heads:
            raise ValueError(
                f"heads must divide the channels, got {self.dim} channels and {self.heads} heads."
            )
        if self.img_size % self.patch_size:
            raise ValueError(
                f"patch_size must divide img_size, got {self.patch_size} and {self.img_size}."
            )
        if self.attention != "softmax" and not re.fullmatch(r"G[1-9]\d*[BU]", self.attention):
            raise ValueError(
                'attention must be "softmax", or G, a grid size of at least 1 and B or U, as '
                f'"G3B"; got {self.attention!r}.'
            )
        for name, among in (
            ("basis", BASES),
            ("base", tuple(BASE_FUNCTIONS)),
            ("coef_init", COEF_INITS),
        ):
            if getattr(self, name) not in among:
                raise ValueError(
                    f"{name} must be one of {', '.join(among)}, got {getattr(self, name)!r}."
                )
        if not 0 <= self.attn_drop_rate < 1:
            raise ValueError(f"attn_drop_rate must lie in [0, 1), got {self.attn_drop_rate}.")

    @property
    def grid(self) -> int:
        """G, frequencies of a unit; 0 for softmax."""
        return 0 if self.attention == "softmax" else int(self.attention[1:-1])

    @property
    def universal(self) -> bool:
        """Whether all blocks share one operator."""
        return self.attention.endswith("U")

    @property
    def tokens(self) -> int:
        """N: patches and the class token."""
        return (self.img_size // self.patch_size) ** 2 + 1


def project_simplex(y: Tensor) -> Tensor:
    """The nearest point of the simplex, on the last axis; algorithm 1.

    >>> project_simplex(torch.tensor([0.75, 0.125, -0.25, 1.0]))
    tensor([0.3750, 0.0000, 0.0000, 0.6250])
    """
    falling = y.sort(-1, descending=True).values
    excess = falling.cumsum(-1) - 1
    count = torch.arange(1, y.shape[-1] + 1, device=y.device, dtype=y.dtype)
    # NaN satisfies no inequality
    support = (falling > excess / count).sum(-1, keepdim=True).clamp(min=1)
    return (y - excess.gather(-1, support - 1) / support).clamp(min=0)


class Operator(nn.Module):
    """Rows of scores to rows of attention, by functions of their own for every head; section 4.

    u_p = sum_q phi_pq(a_q) has r components, and `lift`, W of the paper, makes N of them.

    `phi` holds the units' coefficients, [h, r, N, n]. For the Fourier basis with frequency 0 the
    order is 1, cosines, sines, and the sine of 0, which does nothing.
    """

    def __init__(self, cfg: KArAtConfig) -> None:
        super().__init__()
        self.cfg = cfg
        fourier = cfg.basis == "fourier"
        if fourier:
            coefficients = 2 * (cfg.grid + cfg.include_dc)
        else:
            coefficients = NUMERATOR + DENOMINATOR if cfg.basis == "rational" else 1
        rank = cfg.rank if cfg.modular else cfg.tokens
        self.phi = nn.Parameter(torch.empty(cfg.heads, rank, cfg.tokens, coefficients))
        terms = cfg.tokens * (cfg.grid if fourier else 1)
        nn.init.normal_(self.phi, std=1.0 if cfg.coef_init == "paper" else terms**-0.5)
        self.phi.requires_grad_(not cfg.freeze_phi)
        self.lift = None
        if cfg.modular:
            self.lift = nn.Parameter(torch.empty(cfg.heads, cfg.tokens, rank))
            nn.init.trunc_normal_(self.lift, std=0.02)

    def reduce(self, scores: Tensor) -> Tensor:
        """[h, B, N, N] -> u, [h, B, N, r], in the type of the scores."""
        cfg, rows = self.cfg, scores.flatten(1, 2)
        phi = self.phi.to(scores.dtype)
        if cfg.basis == "fourier":
            # the sine of 0 is a parameter, not a function
            weight = phi[..., :-1] if cfg.include_dc else phi
            u = kan_linear(rows, weight, basis="fourier", include_dc=cfg.include_dc)
        elif cfg.basis == "rational":
            u = _rational(rows, phi)
        else:
            u = kan_linear(rows, phi, basis="wavelet", kind=cfg.basis)
        function = BASE_FUNCTIONS[cfg.base]
        if function is not None:
            u = u + function(rows).sum(-1, keepdim=True)
        components: Tensor = u.unflatten(1, scores.shape[1:3])
        return components

    def forward(self, scores: Tensor) -> Tensor:
        """[h, B, N, N] -> the attention, [h, B, N, N]; every row of it has rank r or less."""
        y: Tensor = self.reduce(scores)
        if self.lift is not None:
            y = y @ self.lift.to(y.dtype).mT.unsqueeze(1)
        return project_simplex(y) if self.cfg.simplex else y


def _rational(x: Tensor, phi: Tensor) -> Tensor:
    """Sums of P / (1 + |Q|), [h, M, N] and [h, r, N, 10] -> [h, M, r]; one component at a time."""
    components = []
    for p in range(phi.shape[1]):
        a = phi[:, p, :, :NUMERATOR].unsqueeze(1).unbind(-1)
        b = phi[:, p, :, NUMERATOR:].unsqueeze(1).unbind(-1)
        above, below = a[-1], b[-1]
        for coefficient in reversed(a[:-1]):
            above = above * x + coefficient
        for coefficient in reversed(b[:-1]):
            below = below * x + coefficient
        components.append((above / (1 + (below * x).abs())).sum(-1))
    return torch.stack(components, -1)


class Attention(nn.Module):
    """Multi-head attention with a softmax or an operator over the scores; figure 2.

    The operator's output is a product of matrices of rank r, so that attention times values is
    u (W^T V): no matrix of N x N follows the scores, unless simplex or dropout needs it.
    """

    def __init__(self, cfg: KArAtConfig, operator: Operator | None, owner: bool) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.dim = cfg.dim // cfg.heads
        self.drop = cfg.attn_drop_rate
        self.simplex = cfg.simplex
        self.qkv = nn.Linear(cfg.dim, 3 * cfg.dim)
        self.proj = nn.Linear(cfg.dim, cfg.dim)
        # a tuple hides a shared operator from the module tree: the first block registers it, and
        # state and averages of the weights have it once
        self._shared = (operator,)
        if owner:
            self.operator = operator

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, C] -> scores [h, B, N, N], in float32 at least, and values [h, B, N, C / h]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 3, 0, 1, 4)
        # m times a score of half precision is no phase
        wide = torch.promote_types(q.dtype, torch.float32)
        with no_autocast(x.device):
            return (q.to(wide) * self.dim**-0.5) @ k.to(wide).mT, v

    def attention(self, x: Tensor) -> Tensor:
        """[B, N, C] -> the attention itself, [h, B, N, N]."""
        scores, _ = self.scores(x)
        (operator,) = self._shared
        with no_autocast(x.device):
            return scores.softmax(-1) if operator is None else operator(scores)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        (operator,) = self._shared
        lift = None if operator is None else operator.lift
        drop = self.drop if self.training else 0.0
        if operator is None:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=drop).permute(1, 0, 2, 3)
        elif lift is not None and not (self.simplex or drop):
            scores, v = self.scores(x)
            with no_autocast(x.device):
                u = operator.reduce(scores)
            mixed = u.to(v.dtype) @ (lift.to(v.dtype).mT.unsqueeze(1) @ v)
        else:
            scores, v = self.scores(x)
            with no_autocast(x.device):
                attention = operator(scores)
            mixed = F.dropout(attention, drop).to(v.dtype) @ v
        y: Tensor = self.proj(mixed.permute(1, 2, 0, 3).flatten(2))
        return y


class Block(nn.Module):
    """Attention and feed-forward, each on the norm of its input and added to it."""

    def __init__(
        self, cfg: KArAtConfig, operator: Operator | None, owner: bool, drop: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(cfg.dim, eps=1e-6)
        self.attn = Attention(cfg, operator, owner)
        self.drop_path = DropPath(drop)
        self.norm2 = nn.LayerNorm(cfg.dim, eps=1e-6)
        self.mlp = Mlp(cfg.dim, int(cfg.dim * cfg.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class KArAt(PatchClassifier):
    """A vision Transformer as its config says; `create_model("karat_tiny")` makes one.

    Its stages, for `features_only`, are its blocks.

    Shape:
        [B, in_chans, img_size, img_size] -> [B, num_classes], or [B, num_features] without classes.
    """

    def __init__(self, cfg: KArAtConfig) -> None:
        blocks: list[list[nn.Module]] = []
        operator: Operator | None = None
        for index in range(cfg.depth):
            owner = cfg.attention != "softmax" and (index == 0 or not cfg.universal)
            if owner:
                operator = Operator(cfg)
            drop = cfg.drop_path_rate * index / max(1, cfg.depth - 1)
            blocks.append([Block(cfg, operator, owner, drop)])
        super().__init__(
            PatchStem(cfg.in_chans, cfg.dim, cfg.patch_size, cfg.img_size, cls_std=1e-6),
            blocks,
            [cfg.dim] * cfg.depth,
            nn.LayerNorm(cfg.dim, eps=1e-6),
            cfg.num_classes,
            cfg.drop_rate,
            [cfg.patch_size] * cfg.depth,
            _init,
        )
        self.cfg = cfg

    def pool(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] -> the class token [B, C]."""
        return x[:, 0]

    def checkpoint_filter(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename timm's keys to this file's; keys of this file pass unchanged.

        | timm | here |
        | --- | --- |
        | `patch_embed.proj.*`, `cls_token`, `pos_embed` | `stem.*` |
        | `blocks.N.*` | `features.N.*` |
        | `mlp.fc1.*`, `mlp.fc2.*` | `mlp.0.*`, `mlp.2.*` |
        """
        renamed = {}
        for key, value in state.items():
            key = re.sub(r"^(patch_embed\.)?(proj\.|cls_token$|pos_embed$)", r"stem.\2", key)
            key = re.sub(r"^blocks\.", "features.", key)
            key = key.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.2.")
            renamed[key] = value
        return renamed


def _cfg(**changes: Any) -> DefaultCfg:
    # the number of tokens is fixed
    size = {"input_size": (3, 224, 224), "min_input_size": (3, 224, 224)} | changes
    return DefaultCfg(
        source="https://arxiv.org/abs/2503.10632",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bicubic",
        crop_pct=0.9,
        first_conv="stem.proj",
        **size,
    )


def _build(options: dict[str, Any], **variant: Any) -> KArAt:
    return KArAt(configure(KArAtConfig(**variant), options))


@register_model(_cfg(input_size=(3, 32, 32), min_input_size=(3, 32, 32), num_classes=10))
def karat_micro(**options: Any) -> KArAt:
    """For images of 32 x 32 and two CPU cores: 65 tokens; not in the paper."""
    return _build(options, dim=64, depth=4, heads=2, patch_size=4, img_size=32, num_classes=10)


@register_model(_cfg())
def karat_tiny(**options: Any) -> KArAt:
    """ViT-Tiny + G3B of the paper."""
    return _build(options)


@register_model(_cfg())
def karat_small(**options: Any) -> KArAt:
    """ViT-Small + G3B of the paper."""
    return _build(options, dim=384, heads=6)


@register_model(_cfg())
def karat_base(**options: Any) -> KArAt:
    """ViT-Base + G1B of the paper."""
    return _build(options, dim=768, heads=12, attention="G1B")
