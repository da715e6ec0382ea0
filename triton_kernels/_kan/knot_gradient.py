"""Gradients of knots: the triangular scheme of `spline.triangle`, backwards."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._kan.spline import interval, knots_around, quotient, slopes, triangle


@triton.jit
def add_adjoints(adjoints, grad, x, inputs, functions, points, ORDER: tl.constexpr,
                 RANGE: tl.constexpr):  # fmt: skip
    """Add to the gradients of the ORDER + 1 values at a point what a tile of functions gives."""
    rows = points[0] + inputs[None, :].to(tl.int64) * points[1]
    j, _ = interval(x, rows, points[2], ORDER, RANGE)
    offset = functions[None, None, :] - (j - ORDER)[:, :, None]
    result = ()
    for r in tl.static_range(0, ORDER + 1):
        share = tl.sum(tl.where(offset == r, grad, 0.0), 2)
        if RANGE == 0:
            share = tl.where((j >= 0) & (j < points[2] - 1), share, 0.0)
        result = result + (adjoints[r] + share,)  # noqa: RUF005
    return result


@triton.jit
def store_knots(adjoints, table, present, x, inputs, points, ORDER: tl.constexpr,
                RANGE: tl.constexpr):  # fmt: skip
    """Write the gradients of all knots of the inputs, summed over the points."""
    rows = points[0] + inputs[None, :].to(tl.int64) * points[1]
    knots = points[2]
    j, at = interval(x, rows, knots, ORDER, RANGE)
    around = knots_around(rows, j, knots, ORDER)
    grads = _around_gradient(adjoints, around, at, ORDER)
    # where x was clamped, its place moves with the border knot
    moved = tl.zeros_like(x)
    if RANGE == 1:
        slope = slopes(at, around, ORDER)
        for r in tl.static_range(0, ORDER + 1):
            moved += adjoints[r] * slope[r]
    for m in range(0, knots):
        total = tl.zeros_like(x)
        for q in tl.static_range(0, 2 * ORDER):
            total += tl.where(j + 1 - ORDER + q == m, grads[q], 0.0)
        if RANGE == 1:
            low = (m == ORDER) & (x < at)
            high = (m == knots - 1 - ORDER) & (x > at)
            total += tl.where(low | high, moved, 0.0)
        tl.store(table + m, tl.sum(total, 0), mask=present)


@triton.jit
def _around_gradient(adjoints, around, x, ORDER: tl.constexpr):
    """Gradients of t_{j+1-k} .. t_{j+k}, from those of the values."""
    grads = ()
    for _ in tl.static_range(0, 2 * ORDER):
        grads = grads + (tl.zeros_like(x),)  # noqa: RUF005
    values = adjoints
    for step in tl.static_range(0, ORDER):
        values, grads = _lower(values, grads, around, x, ORDER - step, ORDER)
    return grads


@triton.jit
def _lower(values, grads, around, x, LEVEL: tl.constexpr, ORDER: tl.constexpr):
    """From the gradients of the values of one order to those of the order below, and of knots."""
    lower = triangle(x, around, LEVEL - 1, ORDER)
    below = ()
    for r in tl.static_range(0, LEVEL):
        low = around[ORDER + r - LEVEL]
        high = around[ORDER + r]
        gap = high - low
        share = quotient(lower[r], gap)
        # value r has (high - x) share, value r + 1 has (x - low) share
        of_share = values[r] * (high - x) + values[r + 1] * (x - low)
        of_gap = -quotient(of_share * share, gap)
        grads = _add_at(grads, ORDER + r, values[r] * share + of_gap, 2 * ORDER)
        grads = _add_at(grads, ORDER + r - LEVEL, -values[r + 1] * share - of_gap, 2 * ORDER)
        below = below + (quotient(of_share, gap),)  # noqa: RUF005
    return below, grads


@triton.jit
def _add_at(items, index: tl.constexpr, value, LENGTH: tl.constexpr):
    """The tuple with a value added to one item."""
    result = ()
    for q in tl.static_range(0, LENGTH):
        # a statement, since only its taken branch is compiled
        if q == index:  # noqa: SIM108
            result = result + (items[q] + value,)  # noqa: RUF005
        else:
            result = result + (items[q],)  # noqa: RUF005
    return result
