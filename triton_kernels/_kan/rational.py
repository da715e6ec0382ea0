"""Grouped rational functions: one pass over the elements, coefficients in scalars.

x is [N, G, L] contiguous; a program has a tile of N and L of one group.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._kan.tile import tile_of


@triton.jit
def _place(batch, groups, length, ITEMS: tl.constexpr, LENGTH: tl.constexpr):
    """(group, number of the tile, addresses, mask)."""
    column, row, group = tile_of(tl.program_id(0), tl.cdiv(length, LENGTH), tl.cdiv(batch, ITEMS))
    item = row * ITEMS + tl.arange(0, ITEMS)
    along = column * LENGTH + tl.arange(0, LENGTH)
    index = (item.to(tl.int64)[:, None] * groups + group) * length + along[None, :]
    mask = (item < batch)[:, None] & (along < length)[None, :]
    return group, row * tl.cdiv(length, LENGTH) + column, index, mask


@triton.jit
def _numerator(u, a, NUMERATOR: tl.constexpr):
    """P and P'."""
    value, slope = tl.zeros_like(u), tl.zeros_like(u)
    for step in tl.static_range(0, NUMERATOR):
        slope = slope * u + value
        value = value * u + tl.load(a + (NUMERATOR - 1 - step)).to(tl.float32)
    return value, slope


@triton.jit
def _denominator(size, b, DENOMINATOR: tl.constexpr):
    """Q and its derivative by |x|."""
    value, slope = tl.zeros_like(size), tl.zeros_like(size)
    for step in tl.static_range(0, DENOMINATOR):
        slope = slope * size + value
        value = value * size + tl.abs(tl.load(b + (DENOMINATOR - 1 - step)).to(tl.float32))
    return 1.0 + value * size, slope * size + value


@triton.jit
def evaluate_rational(
    x, numerator, denominator, out, batch, groups, length,
    SHARED_A: tl.constexpr, SHARED_B: tl.constexpr, NUMERATOR: tl.constexpr,
    DENOMINATOR: tl.constexpr, ITEMS: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """Write P / Q; grid: tiles of L, tiles of N, groups."""
    group, _, index, mask = _place(batch, groups, length, ITEMS, LENGTH)
    a = numerator if SHARED_A else numerator + group * NUMERATOR
    b = denominator if SHARED_B else denominator + group * DENOMINATOR
    u = tl.load(x + index, mask=mask, other=0.0).to(tl.float32)
    p, _ = _numerator(u, a, NUMERATOR)
    q, _ = _denominator(tl.abs(u), b, DENOMINATOR)
    tl.store(out + index, p / q, mask=mask)


@triton.jit
def differentiate_rational(
    x, numerator, denominator, grad_out, grad_x, slots, batch, groups, length,
    SHARED_A: tl.constexpr, SHARED_B: tl.constexpr, NUMERATOR: tl.constexpr,
    DENOMINATOR: tl.constexpr, ITEMS: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """Write grad_x, and slots [tiles, G, m + n]: what a tile gives to the coefficients."""
    group, tile, index, mask = _place(batch, groups, length, ITEMS, LENGTH)
    a = numerator if SHARED_A else numerator + group * NUMERATOR
    b = denominator if SHARED_B else denominator + group * DENOMINATOR
    u = tl.load(x + index, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_out + index, mask=mask, other=0.0).to(tl.float32)
    size = tl.abs(u)
    p, of_p = _numerator(u, a, NUMERATOR)
    q, of_q = _denominator(size, b, DENOMINATOR)
    y = p / q
    share = grad / q
    sign = tl.where(u < 0.0, -1.0, 1.0)
    tl.store(grad_x + index, share * (of_p - y * of_q * sign), mask=mask)
    slot = slots + (tile.to(tl.int64) * groups + group) * (NUMERATOR + DENOMINATOR)
    power = share
    for k in tl.static_range(0, NUMERATOR):
        tl.store(slot + k, tl.sum(tl.sum(power, 0), 0))
        power *= u
    power = -share * y
    for k in tl.static_range(0, DENOMINATOR):
        power *= size
        side = tl.where(tl.load(b + k).to(tl.float32) < 0.0, -1.0, 1.0)
        tl.store(slot + NUMERATOR + k, side * tl.sum(tl.sum(power, 0), 0))
