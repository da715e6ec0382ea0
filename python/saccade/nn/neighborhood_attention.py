"""Neighborhood attention as a layer: projections around the operator."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from saccade.ops import _checks
from saccade.ops.neighborhood_attention import Bools, Ints, neighborhood_attention


class _NeighborhoodAttention(nn.Module):
    axes: ClassVar[int]

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: Ints,
        stride: Ints = 1,
        dilation: Ints = 1,
        is_causal: Bools = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_drop: float = 0.0,
        rel_pos_bias: bool = False,
        clamp: bool = False,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads != 0:
            raise ValueError(
                f"num_heads must divide embed_dim, which is {embed_dim}, got num_heads={num_heads}."
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.kernel_size = _checks.positive_ints("kernel_size", kernel_size, self.axes)
        self.stride = _checks.positive_ints("stride", stride, self.axes)
        self.dilation = _checks.positive_ints("dilation", dilation, self.axes)
        self.is_causal = _checks.bools("is_causal", is_causal, self.axes)
        self.scale = (
            self.head_dim**-0.5 if qk_scale is None else _checks.finite_number("qk_scale", qk_scale)
        )
        self.clamp = clamp

        self.qkv = nn.Linear(embed_dim, embed_dim * 3, bias=qkv_bias)
        self.rpb: nn.Parameter | None = None
        if rel_pos_bias:
            self.rpb = nn.Parameter(torch.empty(num_heads, *(2 * k - 1 for k in self.kernel_size)))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != self.axes + 2 or x.shape[-1] != self.embed_dim:
            letters = ", ".join(["B", *"XYZ"[: self.axes], "C"])
            raise ValueError(
                f"x must have shape [{letters}] with C = {self.embed_dim}, got {tuple(x.shape)}."
            )
        # [B, *dims, 3, h, D]: query, key and value are views, the operator takes their strides
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(-3)
        out = neighborhood_attention(
            query,
            key,
            value,
            self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
            is_causal=self.is_causal,
            scale=self.scale,
            bias=self.rpb,
            clamp=self.clamp,
        )
        projected: Tensor = self.proj_drop(self.proj(out.flatten(-2)))
        return projected

    def extra_repr(self) -> str:
        return (
            f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, "
            f"kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}, "
            f"is_causal={self.is_causal}, scale={self.scale:.4g}, "
            f"rel_pos_bias={self.rpb is not None}, clamp={self.clamp}"
        )


class NeighborhoodAttention1d(_NeighborhoodAttention):
    r"""Multi-head neighborhood attention over a sequence [B, X, C] -> [B, X, C].

    .. math:: y = W_o\, \mathrm{NA}(W_q x, W_k x, W_v x) + b_o

    The attributes `qkv`, `proj` and `rpb` are named as in NATTEN, so NAT and DiNAT checkpoints load
    by their own keys.

    Args:
        embed_dim: C, channels in and out.
        num_heads: h, divides C; every head has D = C / h channels.
        kernel_size: window size K.
        stride: queries that share a window, 1 to kernel_size. Default 1.
        dilation: distance between the keys of a window. Default 1.
        is_causal: keys after the query are not seen. Default False.
        qkv_bias: bias of the projection to query, key and value. Default True.
        qk_scale: factor of query times key, 0 included; None: D ** -0.5.
        proj_drop: dropout after the output projection. Default 0. There is no dropout of the
            attention weights: they are never formed.
        rel_pos_bias: learn `rpb` [h, 2*K0 - 1, ...], initialised by a truncated normal of deviation
            0.02. Default False.
        clamp: shrink the window on inputs that are smaller than it (see
            :func:`saccade.ops.neighborhood_attention`). Default False: such inputs are an error.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: sizes do not fit together.

    Source:
        NAT, arXiv 2204.07143, section 3.

    >>> NeighborhoodAttention1d(16, num_heads=2, kernel_size=7)(torch.randn(1, 14, 16)).shape
    torch.Size([1, 14, 16])
    """

    axes = 1


class NeighborhoodAttention2d(_NeighborhoodAttention):
    """Multi-head neighborhood attention over a map [B, X, Y, C] -> [B, X, Y, C].

    The arguments are those of :class:`NeighborhoodAttention1d`; kernel_size, stride, dilation and
    is_causal are one value or a tuple of two.

    >>> module = NeighborhoodAttention2d(16, num_heads=2, kernel_size=7, rel_pos_bias=True)
    >>> module(torch.randn(1, 14, 14, 16)).shape
    torch.Size([1, 14, 14, 16])
    """

    axes = 2


class NeighborhoodAttention3d(_NeighborhoodAttention):
    """Multi-head neighborhood attention over a volume [B, X, Y, Z, C] -> [B, X, Y, Z, C].

    The arguments are those of :class:`NeighborhoodAttention1d`; kernel_size, stride, dilation and
    is_causal are one value or a tuple of three.

    >>> module = NeighborhoodAttention3d(16, 2, (4, 3, 3), is_causal=(True, False, False))
    >>> module(torch.randn(1, 8, 6, 6, 16)).shape
    torch.Size([1, 8, 6, 6, 16])
    """

    axes = 3
