"""B-splines at a tile of points: the k + 1 functions that are not zero, and their derivatives.

Functions and knots before the first and behind the last are computed from repeated knots; no
function of the layer depends on them.

Source: Piegl and Tiller, The NURBS Book, algorithms A2.2 and A2.3.
"""

from __future__ import annotations

import triton
import triton.language as tl

ZERO, CLAMP, EXTEND = 0, 1, 2


@triton.jit
def quotient(a, b):
    """A / b, and 0 where b is 0: knots that coincide."""
    return tl.where(b == 0.0, 0.0, a / tl.where(b == 0.0, 1.0, b))


@triton.jit
def interval(x, rows, knots, ORDER: tl.constexpr, RANGE: tl.constexpr):
    """(j, where x is taken): t_j <= x < t_{j+1}. Outside the knots j is -1 or the last knot's.

    rows are the addresses of the first knots, [1, inputs]; x is [points, inputs].
    """
    at = x
    if RANGE != 0:
        functions = knots - 1 - ORDER
        low = tl.load(rows + ORDER) + tl.zeros_like(x)
        high = tl.load(rows + functions) + tl.zeros_like(x)
        at = tl.where(x < low, low, tl.where(x > high, high, x))
    j = tl.full(x.shape, -1, tl.int32)
    for m in range(0, knots):
        j += (tl.load(rows + m) <= at).to(tl.int32)
    if RANGE != 0:
        j = tl.minimum(tl.maximum(j, ORDER), knots - 2 - ORDER)
    return j, at


@triton.jit
def knots_around(rows, j, knots, ORDER: tl.constexpr):
    """t_{j+1-k} .. t_{j+k} as a tuple."""
    around = ()
    for q in tl.static_range(0, 2 * ORDER):
        index = tl.minimum(tl.maximum(j + 1 - ORDER + q, 0), knots - 1)
        around = around + (tl.load(rows + index),)  # noqa: RUF005
    return around


@triton.jit
def triangle(x, around, LEVEL: tl.constexpr, ORDER: tl.constexpr):
    """The LEVEL + 1 functions of order LEVEL that are not zero at x, the first is j - LEVEL."""
    values = (tl.full(x.shape, 1.0, tl.float32),)
    for d in tl.static_range(1, LEVEL + 1):
        saved = tl.zeros_like(x)
        above = ()
        for r in tl.static_range(0, d):
            low = around[ORDER + r - d]
            high = around[ORDER + r]
            share = quotient(values[r], high - low)
            above = above + (saved + (high - x) * share,)  # noqa: RUF005
            saved = (x - low) * share
        values = above + (saved,)  # noqa: RUF005
    return values


@triton.jit
def slopes(x, around, ORDER: tl.constexpr):
    """The derivatives of the ORDER + 1 functions of order ORDER."""
    if ORDER == 0:
        result = (tl.zeros_like(x),)
    else:
        lower = triangle(x, around, ORDER - 1, ORDER)
        result = ()
        before = tl.zeros_like(x)
        for r in tl.static_range(0, ORDER):
            share = ORDER * quotient(lower[r], around[ORDER + r] - around[r])
            result = result + (before - share,)  # noqa: RUF005
            before = share
        result = result + (before,)  # noqa: RUF005
    return result


@triton.jit
def spread(values, first, functions, ORDER: tl.constexpr):
    """[points, inputs, functions] from the ORDER + 1 values of the functions from `first` on."""
    tile = tl.zeros([first.shape[0], first.shape[1], functions.shape[0]], tl.float32)
    offset = functions[None, None, :] - first[:, :, None]
    for r in tl.static_range(0, ORDER + 1):
        tile = tl.where(offset == r, values[r][:, :, None], tile)
    return tile


@triton.jit
def spline(x, rows, knots, functions, ORDER: tl.constexpr, RANGE: tl.constexpr):
    """The functions of order ORDER, [points, inputs, functions]; NaN for NaN."""
    j, at = interval(x, rows, knots, ORDER, RANGE)
    around = knots_around(rows, j, knots, ORDER)
    values = triangle(at, around, ORDER, ORDER)
    tile = spread(values, j - ORDER, functions, ORDER)
    if RANGE == 0:
        tile = tl.where(((j >= 0) & (j < knots - 1))[:, :, None], tile, 0.0)
    elif RANGE == 2:
        steps = spread(slopes(at, around, ORDER), j - ORDER, functions, ORDER)
        tile += (x - at)[:, :, None] * steps
    return tl.where((x == x)[:, :, None], tile, x[:, :, None])


@triton.jit
def spline_slope(x, rows, knots, functions, ORDER: tl.constexpr, RANGE: tl.constexpr):
    """The derivatives by x of `spline`."""
    j, at = interval(x, rows, knots, ORDER, RANGE)
    around = knots_around(rows, j, knots, ORDER)
    tile = spread(slopes(at, around, ORDER), j - ORDER, functions, ORDER)
    if RANGE == 0:
        tile = tl.where(((j >= 0) & (j < knots - 1))[:, :, None], tile, 0.0)
    elif RANGE == 1:
        tile = tl.where((x == at)[:, :, None], tile, 0.0)
    return tl.where((x == x)[:, :, None], tile, x[:, :, None])
