"""Neighborhood attention in plain torch: the shortest version that is obviously right.

Windows: NAT (arXiv 2204.07143, section 3.1), dilation: DiNAT (arXiv 2209.15001, section 3.2),
stride, causal masking and even windows: generalized neighborhood attention (arXiv 2504.16922,
section 3). Everything is separable by axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The keys that each query of one axis sees: tables of shape [L, K]."""

    index: Tensor
    """Key position on the axis, int64; an unused slot repeats the query's last key."""
    valid: Tensor
    """Whether the slot is used, bool; only causal windows have unused slots."""
    offset: Tensor
    """Key minus query in steps of the dilation, plus K - 1: the row of the bias, int64."""


def window(
    length: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    causal: bool = False,
    device: torch.device | None = None,
) -> Window:
    """Tabulate the window of every query of one axis.

    Args:
        length: L, number of tokens on the axis; kernel * dilation <= length.
        kernel: K, window size; odd windows are symmetric, even ones reach one key further to the
            left.
        stride: queries of a group that share one window, 1 <= stride <= kernel.
        dilation: distance between the keys of a window.
        causal: drop the keys after the query.
        device: where the tables live.

    >>> window(5, 3).index.tolist()
    [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    """
    token = torch.arange(length, device=device)
    # dilation splits the axis into interleaved groups: token i is position p of group g, which has
    # n tokens
    group, position = token % dilation, token // dilation
    size = length // dilation + (group < length % dilation).long()
    first = position // stride * stride
    if causal:
        leader = torch.minimum(first + stride - 1, size - 1)
        start = (leader - kernel + 1).clamp(min=0)
        last = position
    else:
        leader = torch.minimum(first + stride // 2, size - 1)
        start = torch.minimum((leader - kernel // 2).clamp(min=0), size - kernel)
        last = start + kernel - 1
    slot = start[:, None] + torch.arange(kernel, device=device)
    key = torch.minimum(slot, last[:, None])
    return Window(
        index=group[:, None] + key * dilation,
        valid=slot <= last[:, None],
        offset=key - position[:, None] + kernel - 1,
    )


def _join(tables: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Flat row-major indices of a product of tables: [L0, K0], [L1, K1] ... -> [N, W]."""
    flat = torch.zeros(1, 1, dtype=torch.int64, device=tables[0].device)
    for table, size in zip(tables, sizes, strict=True):
        flat = (flat[:, None, :, None] * size + table[None, :, None, :]).flatten(2).flatten(0, 1)
    return flat


def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    is_causal: Sequence[int],
    scale: float,
    bias: Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Softmax attention of every token to the window around it.

    .. math:: \ell_{ij} = s\, q_i \cdot k_j + b_{j - i}, \quad
              L_i = \log \sum_{j \in \rho(i)} e^{\ell_{ij}}, \quad
              o_i = \sum_{j \in \rho(i)} e^{\ell_{ij} - L_i} v_j

    The arguments are those of :func:`saccade.ops.neighborhood_attention`, checked and with one
    entry per spatial axis. Half types are computed in float32 and rounded once. Differentiable any
    number of times.

    Args:
        query: [B, *dims, h, D], 1 to 3 spatial axes.
        key: [B, *dims, h_kv, D], h_kv divides h.
        value: the same shape as key.
        kernel_size: K, one per axis.
        stride: one per axis.
        dilation: one per axis.
        is_causal: one per axis, bool or 0 and 1.
        scale: s above.
        bias: [h, 2*K0 - 1, ...], indexed by key minus query in steps of the dilation, plus K - 1.
        additional_keys: [B, S, h_kv, D], seen by every query without bias.
        additional_values: [B, S, h_kv, D].

    Returns:
        out [B, *dims, h, D] in the dtype of query, and the log-sum-exp L [B, *dims, h] in float32
        (float64 for float64).

    Source:
        NAT, arXiv 2204.07143, equations 1 to 3.

    Notes:
        Gathers the windows: O(B N W h D) memory, with N tokens and windows of W keys.

    >>> x = torch.randn(1, 9, 2, 4)
    >>> out, lse = neighborhood_attention(x, x, x, [3], [1], [1], [False], 0.5)
    >>> out.shape, lse.shape
    (torch.Size([1, 9, 2, 4]), torch.Size([1, 9, 2]))
    """
    device = query.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return neighborhood_attention(
                query, key, value, kernel_size, stride, dilation, is_causal, scale,
                bias, additional_keys, additional_values,
            )  # fmt: skip
    dims, heads, kv_heads = query.shape[1:-2], query.shape[-2], key.shape[-2]
    dtype = query.dtype if query.dtype == torch.float64 else torch.float32

    axes = [
        window(n, k, s, d, bool(c), query.device)
        for n, k, s, d, c in zip(dims, kernel_size, stride, dilation, is_causal, strict=True)
    ]
    index = _join([axis.index for axis in axes], dims)
    # flat index 0 of a 2 x 2 x ... grid: used on every axis
    unused = _join([(~axis.valid).long() for axis in axes], [2] * len(axes)) > 0

    # [B, N, h_kv, h / h_kv, D]: consecutive query heads share a key head
    groups = (kv_heads, heads // kv_heads)
    q = query.to(dtype).reshape(query.shape[0], index.shape[0], *groups, query.shape[-1])
    k = key.to(dtype).flatten(1, -3)[:, index]
    v = value.to(dtype).flatten(1, -3)[:, index]
    logits = scale * torch.einsum("bnkgd,bnwkd->bnkgw", q, k)
    if bias is not None:
        offset = _join([axis.offset for axis in axes], [2 * n - 1 for n in kernel_size])
        table = bias.to(dtype).flatten(1)[:, offset].transpose(0, 1)
        logits = logits + table.reshape(index.shape[0], *groups, -1)
    logits = logits.masked_fill(unused[:, None, None], -math.inf)
    if additional_keys is not None:
        extra = scale * torch.einsum("bnkgd,bskd->bnkgs", q, additional_keys.to(dtype))
        logits = torch.cat([logits, extra], dim=-1)

    lse = logits.logsumexp(-1)
    weight = logits.softmax(-1)
    out = torch.einsum("bnkgw,bnwkd->bnkgd", weight[..., : index.shape[1]], v)
    if additional_values is not None:
        extra = weight[..., index.shape[1] :]
        out = out + torch.einsum("bnkgs,bskd->bnkgd", extra, additional_values.to(dtype))
    out = out.to(query.dtype).reshape(query.shape).contiguous()
    return out, lse.reshape(query.shape[:-1]).contiguous()
