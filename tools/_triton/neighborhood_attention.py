"""What is compiled of neighborhood attention's Triton kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._neighborhood_attention.launches import (
    backward_launches,
    forward_launch,
)


@dataclass(frozen=True)
class Case:
    """One input: its kernels are the forward's and the backward's, with bias and additional keys
    where asked.
    """

    dims: tuple[int, ...]
    kernel: tuple[int, ...]
    head_dim: int
    bias: bool = False
    additional: int = 0
    heads: int = 4
    heads_kv: int = 4
    causal: bool = False


CASES = {
    "2d-k7": Case((56, 56), (7, 7), 32),
    "2d-k7-bias": Case((56, 56), (7, 7), 32, bias=True),
    "3d": Case((8, 14, 14), (3, 7, 7), 64, bias=True, additional=5, heads_kv=2),
    "2d-large-window": Case((64, 64), (32, 32), 128),
    "1d-causal": Case((4096,), (256,), 64, causal=True, additional=4),
    "2d-d256": Case((28, 28), (7, 7), 256, bias=True, additional=4),
    "2d-odd-d": Case((14, 14), (7, 7), 20, bias=True),
}


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""

    def tensor(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    query = tensor(2, *case.dims, case.heads, case.head_dim)
    key = tensor(2, *case.dims, case.heads_kv, case.head_dim)
    bias = tensor(case.heads, *(2 * k - 1 for k in case.kernel)) if case.bias else None
    extra = tensor(2, case.additional, case.heads_kv, case.head_dim) if case.additional else None
    ones = [1] * len(case.dims)
    window = (case.kernel, ones, ones, [int(case.causal)] * len(case.dims))
    optional = (bias, extra, extra)
    forward, out, lse = forward_launch(query, key, key, *optional, window, 0.125)
    backward, _ = backward_launches(out, lse, query, key, key, out, lse, *optional, window, 0.125)
    return [forward, *backward]
