"""Costs in tiles: read from a matrix through its strides, or computed from points.

A side of `own` numbers looks at `other` ones; `source` is (matrix, batch stride, own stride, other
stride), or (own points, other points, own squares, other squares, dimension) with rows of float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._transport.side import INFINITY

MATRIX, SQUARED, DISTANCE, ONE_MINUS_DOT = (tl.constexpr(code) for code in (-1, 0, 1, 2))
# 3 products of TF32 keep the digits of float32; one does not, and the iteration stalls
PRECISION = tl.constexpr("tf32x3")


@triton.jit
def load_points(points, index, count, column, dim):
    """Coordinates [index, column] of points, zeros outside."""
    inside = (index < count)[:, None] & (column < dim)[None, :]
    return tl.load(points + index[:, None] * dim + column[None, :], mask=inside, other=0.0)


@triton.jit
def distances(
    x, y, own, other, own_count, other_count, dim, OWN: tl.constexpr, OTHER: tl.constexpr
):  # fmt: skip
    """Distances from differences: near points keep their digits."""
    total = tl.zeros([OWN, OTHER], tl.float32)
    for k in range(dim):
        left = tl.load(x + own * dim + k, mask=own < own_count, other=0.0)
        right = tl.load(y + other * dim + k, mask=other < other_count, other=0.0)
        apart = left[:, None] - right[None, :]
        total += apart * apart
    return tl.sqrt_rn(total)


@triton.jit
def products(
    x, y, own, other, own_count, other_count, dim, OWN: tl.constexpr, OTHER: tl.constexpr,
    DEPTH: tl.constexpr,
):  # fmt: skip
    """Inner products of points."""
    total = tl.zeros([OWN, OTHER], tl.float32)
    for start in range(0, dim, DEPTH):
        column = start + tl.arange(0, DEPTH)
        left = load_points(x, own, own_count, column, dim)
        right = load_points(y, other, other_count, column, dim)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)
    return total


@triton.jit
def cost_tile(
    source, b, own, other, own_count, other_count, METRIC: tl.constexpr, OWN: tl.constexpr,
    OTHER: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Costs [OWN, OTHER] of problem b; what is outside is finite or costs nothing."""
    if METRIC == MATRIX:
        inside = (own < own_count)[:, None] & (other < other_count)[None, :]
        place = source[0] + b * source[1] + own[:, None] * source[2] + other[None, :] * source[3]
        cost = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    else:
        dim = source[4]
        x, y = source[0] + b * own_count * dim, source[1] + b * other_count * dim
        if METRIC == DISTANCE:
            cost = distances(x, y, own, other, own_count, other_count, dim, OWN, OTHER)
        else:
            dot = products(x, y, own, other, own_count, other_count, dim, OWN, OTHER, DEPTH)
            if METRIC == ONE_MINUS_DOT:
                cost = 1.0 - dot
            else:
                at = b * own_count + own
                left = tl.load(source[2] + at, mask=own < own_count, other=0.0)
                at = b * other_count + other
                right = tl.load(source[3] + at, mask=other < other_count, other=0.0)
                cost = left[:, None] + right[None, :] - 2.0 * dot
                # rounding alone makes it negative; NaN stays
                cost = tl.where(cost < 0.0, 0.0, cost)
    return cost


@triton.jit
def add_exponentials(top, total, z):
    """Go on with the largest exponent and the sum of every row."""
    largest = tl.maximum(top, tl.max(z, 1))
    # nothing yet: exponents of -inf, not of NaN
    safe = tl.where(largest == -INFINITY, 0.0, largest)
    return largest, total * tl.exp(top - safe) + tl.sum(tl.exp(z - safe[:, None]), 1)


@triton.jit
def lse_of(top, total):
    """The logarithm of what `add_exponentials` has added."""
    return tl.where(top == -INFINITY, 0.0, top) + tl.log(total)
