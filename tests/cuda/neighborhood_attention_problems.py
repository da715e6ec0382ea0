"""The problems of the CUDA tests, and neighborhood attention written out from its definition."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    name: str
    dims: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    causal: tuple[int, ...] = ()
    batch: int = 1
    heads: int = 1
    kv_heads: int = 0
    dim: int = 8
    extra: int = 0
    bias: bool = False
    scale: float | None = None

    def sizes(self) -> tuple[list[int], list[int], list[int], list[int], float]:
        ones = (1,) * len(self.dims)
        return (
            list(self.kernel),
            list(self.stride or ones),
            list(self.dilation or ones),
            list(self.causal or (0,) * len(self.dims)),
            self.dim**-0.5 if self.scale is None else self.scale,
        )


# D walks through all padded widths, aligned or not; a "large" window is more than one chunk.
CASES = [
    Case("1d", (23,), (5,), dim=16, heads=2),
    Case("1d-even-kernel", (19,), (4,), dim=8),
    Case("1d-causal-stride", (30,), (7,), stride=(3,), causal=(1,), dim=8),
    Case("1d-length-1", (1,), (1,), dim=4, batch=2),
    Case("1d-long-rows", (9,), (3,), dim=200),
    Case("1d-large-window", (61,), (50,), dim=130),
    Case("2d", (9, 11), (3, 5), dim=32, heads=2, batch=2),
    Case("2d-bias", (8, 9), (3, 3), dim=32, bias=True, heads=2),
    Case("2d-dilated-uneven-groups", (11, 13), (3, 3), dilation=(2, 3), dim=12, bias=True),
    Case("2d-stride-causal-axis", (10, 9), (4, 3), stride=(2, 3), causal=(0, 1), dim=40, bias=True),
    Case("2d-grouped-heads-extra", (6, 7), (3, 3), heads=4, kv_heads=2, extra=3, dim=20, bias=True),
    Case("2d-extra-many", (5, 5), (3, 3), extra=70, dim=64),
    Case("2d-bias-large-window", (13, 13), (11, 12), dim=30, bias=True),
    Case("2d-zero-scale", (5, 6), (3, 3), dim=8, scale=0.0),
    Case("2d-odd-dim", (7, 7), (7, 7), dim=33, heads=3, kv_heads=1),
    Case("3d", (4, 5, 6), (2, 3, 3), dim=24, heads=2, bias=True),
    Case(
        "3d-mixed",
        (5, 4, 9),
        (2, 2, 3),
        stride=(1, 2, 2),
        dilation=(2, 1, 3),
        causal=(1, 0, 0),
        dim=72,
        extra=2,
    ),
]


def ids(case: Case) -> str:
    return case.name


def make(case: Case, dtype: torch.dtype, seed: int = 0, device: str = "cpu") -> Tensors:
    """Inputs and gradients of both outputs; queries and keys are views, as projections are."""
    torch.manual_seed(seed)
    kv_heads = case.kv_heads or case.heads
    lead = (case.batch, *case.dims)
    last = len(lead) + 1
    tensors: Tensors = {
        "query": torch.randn(case.heads, *lead, case.dim).movedim(0, last - 1),
        "key": torch.randn(*lead, 2, kv_heads, case.dim).select(last - 1, 1),
        "value": torch.randn(*lead, kv_heads, case.dim),
        "grad_out": torch.randn(*lead, case.heads, case.dim),
        "grad_lse": torch.randn(*lead, case.heads),
    }
    if case.bias:
        tensors["bias"] = torch.randn(case.heads, *(2 * k - 1 for k in case.kernel))
    if case.extra:
        tensors["additional_keys"] = torch.randn(case.batch, case.extra, kv_heads, case.dim)
        tensors["additional_values"] = torch.randn(case.batch, case.extra, kv_heads, case.dim)
    return {
        name: tensor.to(device, torch.float32 if name == "grad_lse" else dtype)
        for name, tensor in tensors.items()
    }


def window(length: int, kernel: int, stride: int, dilation: int, causal: int, i: int) -> list[int]:
    """Positions on one axis that position i attends to."""
    group, p = i % dilation, i // dilation
    n = len(range(group, length, dilation))
    first = p // stride * stride
    if causal:
        last = min(first + stride - 1, n - 1)
        seen = range(max(last - kernel + 1, 0), p + 1)
    else:
        start = min(max(min(first + stride // 2, n - 1) - kernel // 2, 0), n - kernel)
        seen = range(start, start + kernel)
    return [group + j * dilation for j in seen]


def dense(case: Case, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Outputs and gradients in float64, through the full score matrix."""
    kernel, stride, dilation, causal, scale = case.sizes()
    leaves = {
        k: v.detach().double().requires_grad_()
        for k, v in tensors.items()
        if not k.startswith("grad_")
    }
    tokens = list(itertools.product(*(range(n) for n in case.dims)))
    mask = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    offset = torch.zeros(len(tokens), len(tokens), len(case.dims), dtype=torch.long)
    strides = [int(torch.tensor(case.dims[a + 1 :]).prod()) for a in range(len(case.dims))]
    for q, token in enumerate(tokens):
        axes = [
            window(n, *rest)
            for n, *rest in zip(case.dims, kernel, stride, dilation, causal, token, strict=True)
        ]
        for other in itertools.product(*axes):
            k = sum(i * s for i, s in zip(other, strides, strict=True))
            mask[q, k] = True
            offset[q, k] = torch.tensor(
                [(o - t) // d for o, t, d in zip(other, token, dilation, strict=True)]
            )

    def flat(name: str) -> torch.Tensor:
        x = leaves[name].flatten(1, -3) if leaves[name].dim() > 4 else leaves[name]
        x = x.movedim(-2, 1)
        return x.repeat_interleave(case.heads // x.shape[1], 1)

    mask = mask.to(leaves["query"].device)
    score = scale * flat("query") @ flat("key").transpose(-1, -2)
    if case.bias:
        index = (offset + torch.tensor(kernel) - 1).clamp(min=0).to(mask.device)
        score = score + leaves["bias"][(slice(None), *index.unbind(-1))]
    score = score.masked_fill(~mask, -torch.inf)
    value = flat("value")
    if case.extra:
        score = torch.cat(
            [score, scale * flat("query") @ flat("additional_keys").transpose(-1, -2)], -1
        )
        value = torch.cat([value, flat("additional_values")], -2)
    shape = leaves["query"].shape
    out = (score.softmax(-1) @ value).movedim(1, -2).reshape(shape)
    lse = score.logsumexp(-1).movedim(1, -1).reshape(shape[:-1])
    loss = (out * tensors["grad_out"].double()).sum() + (lse * tensors["grad_lse"].double()).sum()
    grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    return {"out": out.detach(), "lse": lse.detach()}, grads
