"""The reference against a dense definition, token by token, that shares no code with it."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor

from saccade.reference.neighborhood_attention import neighborhood_attention, window


def attended(length: int, kernel: int, stride: int, dilation: int, causal: bool) -> list[list[int]]:
    """Keys of every query of one axis, found one query at a time."""
    keys: list[list[int]] = []
    for i in range(length):
        group = list(range(i % dilation, length, dilation))
        p = group.index(i)
        shared = [r for r in range(len(group)) if r // stride == p // stride]
        if causal:
            leader = shared[-1]
            chosen = [r for r in range(p + 1) if r > leader - kernel]
        else:
            # for an even stride the right one of the two middle queries of a complete group
            leader = min(shared[0] + stride // 2, len(group) - 1)
            left = leader - kernel // 2
            while left + kernel > len(group):
                left -= 1
            while left < 0:
                left += 1
            chosen = list(range(left, left + kernel))
        keys.append([group[r] for r in chosen])
    return keys


def dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    causal: tuple[bool, ...],
    scale: float,
    bias: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Full attention under an [N, N] mask."""
    batch, *dims, heads, channels = query.shape
    axes = [attended(*axis) for axis in zip(dims, kernel, stride, dilation, causal, strict=True)]
    tokens = list(itertools.product(*(range(n) for n in dims)))
    mask = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    table = torch.zeros(heads, len(tokens), len(tokens), dtype=query.dtype)
    for (a, i), (b, j) in itertools.product(enumerate(tokens), enumerate(tokens)):
        mask[a, b] = all(y in axis[x] for axis, x, y in zip(axes, i, j, strict=True))
        if mask[a, b] and bias is not None:
            at = [(y - x) // d + k - 1 for x, y, d, k in zip(i, j, dilation, kernel, strict=True)]
            table[:, a, b] = bias[(slice(None), *at)]
    if additional_keys is not None and additional_values is not None:
        extra = additional_keys.shape[1]
        mask = torch.cat([mask, torch.ones(len(tokens), extra, dtype=torch.bool)], dim=1)
        table = torch.cat([table, table.new_zeros(heads, len(tokens), extra)], dim=2)
        key = torch.cat([key.flatten(1, -3), additional_keys], dim=1)
        value = torch.cat([value.flatten(1, -3), additional_values], dim=1)
    out, lse = [], []
    for head in range(heads):
        shared = head // (heads // key.shape[-2])
        q = query[..., head, :].reshape(batch, -1, channels)
        k = key[..., shared, :].reshape(batch, -1, channels)
        v = value[..., shared, :].reshape(batch, -1, channels)
        weight = torch.where(mask, (scale * q @ k.mT + table[head]).exp(), 0.0)
        total = weight.sum(-1, keepdim=True)
        out.append((weight / total @ v).reshape(batch, *dims, channels))
        lse.append(total.log().reshape(batch, *dims))
    return torch.stack(out, -2), torch.stack(lse, -1)


# name: dims, kernel, stride, dilation, causal
SHAPES = {
    "1d-plain": ((7,), (3,), (1,), (1,), (False,)),
    "1d-one-token": ((1,), (1,), (1,), (1,), (False,)),
    "1d-even": ((9,), (4,), (1,), (1,), (False,)),
    "1d-even-stride-even": ((11,), (4,), (2,), (1,), (False,)),
    "1d-full": ((6,), (6,), (1,), (1,), (False,)),
    "1d-groups-of-two-lengths": ((11,), (3,), (1,), (3,), (False,)),
    "1d-causal": ((9,), (3,), (1,), (1,), (True,)),
    "1d-causal-stride": ((11,), (5,), (3,), (2,), (True,)),
    "1d-window": ((12,), (4,), (4,), (1,), (False,)),
    "2d-plain": ((5, 7), (3, 5), (1, 1), (1, 1), (False, False)),
    "2d-mixed": ((7, 6), (3, 2), (2, 1), (2, 3), (False, True)),
    "2d-thin": ((1, 8), (1, 3), (1, 3), (1, 2), (True, False)),
    "2d-kernel-one": ((3, 4), (1, 1), (1, 1), (3, 2), (False, False)),
    "3d-plain": ((3, 4, 3), (3, 3, 2), (1, 1, 1), (1, 1, 1), (False, False, False)),
    "3d-mixed": ((4, 3, 4), (2, 3, 2), (1, 2, 2), (2, 1, 1), (True, False, True)),
}


def _random_shape(seed: int) -> tuple[tuple[int, ...], ...]:
    draw = random.Random(seed)
    axes = draw.choice((1, 2, 2, 3))
    dims = tuple(draw.randint(1, {1: 25, 2: 8, 3: 4}[axes]) for _ in range(axes))
    kernel = tuple(draw.randint(1, n) for n in dims)
    stride = tuple(draw.randint(1, k) for k in kernel)
    dilation = tuple(draw.randint(1, n // k) for n, k in zip(dims, kernel, strict=True))
    causal = tuple(draw.random() < 0.4 for _ in dims)
    return dims, kernel, stride, dilation, causal


SHAPES |= {f"random-{seed}": _random_shape(seed) for seed in range(24)}

# name: heads, kv_heads, bias, additional keys
EXTRAS = {
    "plain": (2, 2, False, 0),
    "grouped": (4, 2, False, 0),
    "bias": (2, 1, True, 0),
    "additional": (2, 2, False, 3),
    "all": (4, 2, True, 2),
}


def _inputs(dims: tuple[int, ...], kernel: tuple[int, ...], extras: str) -> list[Tensor | None]:
    heads, kv_heads, with_bias, additional = EXTRAS[extras]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).requires_grad_()

    more = [draw(2, additional, kv_heads, 3) if additional else None for _ in range(2)]
    return [
        draw(2, *dims, heads, 3),
        draw(2, *dims, kv_heads, 3),
        draw(2, *dims, kv_heads, 3),
        draw(heads, *(2 * k - 1 for k in kernel)) if with_bias else None,
        *more,
    ]


@pytest.mark.parametrize(
    ("shape", "extras"),
    [(name, "all" if i % 3 else "plain") for i, name in enumerate(SHAPES)]
    + [("2d-mixed", extras) for extras in EXTRAS],
)
def test_equals_the_dense_definition(shape: str, extras: str) -> None:
    dims, kernel, stride, dilation, causal = SHAPES[shape]
    query, key, value, *rest = inputs = _inputs(dims, kernel, extras)
    given = [t for t in inputs if t is not None]
    results = []
    for function in (dense, neighborhood_attention):
        out, lse = function(query, key, value, kernel, stride, dilation, causal, 0.7, *rest)
        torch.manual_seed(1)
        loss = (out * torch.randn_like(out)).sum() + (lse * torch.randn_like(lse)).sum()
        results.append((out, lse, *torch.autograd.grad(loss, given)))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


AXES = [
    (length, kernel, stride, dilation, causal)
    for length in (1, 2, 5, 12, 13)
    for kernel in (1, 2, 3, 4, 7)
    for dilation in (1, 2, 3)
    for stride in (1, 2, 3, 7)
    for causal in (False, True)
    if kernel * dilation <= length and stride <= kernel
]


def test_window_tables_equal_the_text() -> None:
    assert len(AXES) > 100
    for axis in AXES:
        table = window(*axis)
        got = [row[used].tolist() for row, used in zip(table.index, table.valid, strict=True)]
        assert got == attended(*axis), axis


def test_queries_of_a_key_form_an_interval_of_their_group() -> None:
    for length, kernel, stride, dilation, causal in AXES:
        table = window(length, kernel, stride, dilation, causal)
        for key in range(length):
            seen = ((table.index == key) & table.valid).any(1).nonzero().flatten().tolist()
            assert seen == list(range(seen[0], seen[-1] + 1, dilation))


def test_number_of_pairs() -> None:
    for length, kernel, stride, dilation, causal in AXES:
        pairs = int(window(length, kernel, stride, dilation, causal).valid.sum())
        assert pairs <= length * kernel if causal else pairs == length * kernel


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_rounded_once(dtype: torch.dtype) -> None:
    query, key, value = (torch.randn(1, 9, 2, 8).to(dtype) for _ in range(3))
    settings = ((5,), (1,), (1,), (False,), 0.3)
    out, lse = neighborhood_attention(query, key, value, *settings)
    single, single_lse = neighborhood_attention(
        query.float(), key.float(), value.float(), *settings
    )
    assert torch.equal(out, single.to(dtype))
    assert torch.equal(lse, single_lse)


def test_autocast_does_not_reach_in() -> None:
    query, key, value = (torch.randn(1, 9, 2, 8) for _ in range(3))
    settings = ((5,), (1,), (1,), (False,), 0.3)
    expected, _ = neighborhood_attention(query, key, value, *settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = neighborhood_attention(query, key, value, *settings)
    assert torch.equal(got, expected)


def test_gradients_of_any_order() -> None:
    query, key, value, *rest = _inputs((4,), (3,), "all")

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return neighborhood_attention(*tensors[:3], (3,), (2,), (1,), (False,), 0.7, *tensors[3:])

    inputs = (query, key, value, *rest)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
