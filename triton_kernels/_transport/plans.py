"""Passes over a plan that the backward pass makes: a program owns some numbers of one side.

`plan` and `upstream` are (matrix, batch stride, own stride, other stride); the plan of points is
computed from their potentials. With the gradients W of the plan and l of <C, P>, W + l C is what is
upstream of a pair.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._transport.costs import (
    DISTANCE,
    MATRIX,
    ONE_MINUS_DOT,
    PRECISION,
    SQUARED,
    cost_tile,
    load_points,
)
from saccade.triton_kernels._transport.side import INFINITY

# other sizes are specialized: where they are multiples of 16 whole vectors are read
_SIZES = ["blocks"]
# size, target and whether it is solved
DESCENT = tl.constexpr(3)


@triton.jit
def matrix_tile(matrix, b, own, other, inside):
    """Numbers of a matrix, 0 outside."""
    place = matrix[0] + b * matrix[1] + own[:, None] * matrix[2] + other[None, :] * matrix[3]
    return tl.load(place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def plan_tile(
    source, plan, own_potential, other_potential, b, own, other, own_count, other_count, inverse,
    METRIC: tl.constexpr, OWN: tl.constexpr, OTHER: tl.constexpr, DEPTH: tl.constexpr,
    COSTS: tl.constexpr,
):  # fmt: skip
    """P and C of a tile, 0 where nothing is; C of a matrix only with COSTS."""
    inside = (own < own_count)[:, None] & (other < other_count)[None, :]
    if METRIC == MATRIX:
        p = matrix_tile(plan, b, own, other, inside)
        cost = p
        if COSTS:
            cost = matrix_tile(source, b, own, other, inside)
    else:
        cost = cost_tile(
            source, b, own, other, own_count, other_count, METRIC, OWN, OTHER, DEPTH
        )  # fmt: skip
        phi = tl.load(own_potential + b * own_count + own, mask=own < own_count, other=-INFINITY)
        at = b * other_count + other
        psi = tl.load(other_potential + at, mask=other < other_count, other=-INFINITY)
        p = tl.where(inside, tl.exp((phi[:, None] + psi[None, :] - cost) * inverse), 0.0)
    return p, cost


@triton.jit
def upstream_tile(upstream, of_linear, cost, b, own, other, inside):
    """The gradient of a pair's entry of the plan: W + l C."""
    w = tl.zeros(cost.shape, tl.float32)
    if upstream is not None:
        w = matrix_tile(upstream, b, own, other, inside)
    if of_linear is not None:
        factor = tl.load(of_linear + b)
        w = tl.where(factor == 0.0, w, w + factor * cost)
    return w


@triton.jit
def load_or_zero(given, b):
    """One number of a problem, 0 where nothing is given."""
    value = b.to(tl.float32) * 0.0
    if given is not None:
        value = tl.load(given + b)
    return value


@triton.jit(do_not_specialize=_SIZES)
def weigh_plan(
    source,
    plan,
    own_potential,
    other_potential,
    upstream,
    of_linear,
    sums,
    weighted,
    own_count,
    other_count,
    blocks,
    inverse,
    METRIC: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Write the sums of P and of P (W + l C)."""
    program = tl.program_id(0).to(tl.int64)
    b = program // blocks
    own = program % blocks * OWN + tl.arange(0, OWN)
    total = tl.zeros([OWN], tl.float32)
    product = tl.zeros([OWN], tl.float32)
    for start in range(0, other_count, OTHER):
        other = start + tl.arange(0, OTHER).to(tl.int64)
        p, cost = plan_tile(
            source, plan, own_potential, other_potential, b, own, other, own_count, other_count,
            inverse, METRIC, OWN, OTHER, DEPTH, of_linear is not None,
        )  # fmt: skip
        inside = (own < own_count)[:, None] & (other < other_count)[None, :]
        w = upstream_tile(upstream, of_linear, cost, b, own, other, inside)
        total += tl.sum(p, 1)
        product += tl.sum(tl.where(p == 0.0, 0.0, p * w), 1)
    at = b * own_count + own
    tl.store(sums + at, total, mask=own < own_count)
    tl.store(weighted + at, product, mask=own < own_count)


@triton.jit(do_not_specialize=_SIZES)
def multiply_plan(
    source,
    plan,
    own_potential,
    other_potential,
    vector,
    scale,
    out,
    descent,
    own_count,
    other_count,
    blocks,
    inverse,
    METRIC: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Write scale * (P vector); nothing where the system is solved."""
    program = tl.program_id(0).to(tl.int64)
    b = program // blocks
    if tl.load(descent + b * DESCENT + 2) == 0.0:
        own = program % blocks * OWN + tl.arange(0, OWN)
        total = tl.zeros([OWN], tl.float32)
        for start in range(0, other_count, OTHER):
            other = start + tl.arange(0, OTHER).to(tl.int64)
            p, _ = plan_tile(
                source, plan, own_potential, other_potential, b, own, other, own_count,
                other_count, inverse, METRIC, OWN, OTHER, DEPTH, False,
            )  # fmt: skip
            at = b * other_count + other
            x = tl.load(vector + at, mask=other < other_count, other=0.0)
            total += tl.sum(p * x[None, :], 1)
        at = b * own_count + own
        if scale is not None:
            total *= tl.load(scale + at, mask=own < own_count, other=0.0)
        tl.store(out + at, total, mask=own < own_count)


@triton.jit
def pair_gradient(p, w, both, inverse, constant):
    """The gradient of a pair's cost: both is x_i + y_j."""
    return tl.where(p == 0.0, 0.0, p * ((both - w) * inverse + constant))


@triton.jit(do_not_specialize=_SIZES)
def differentiate_costs(
    source,
    plan,
    upstream,
    of_linear,
    of_value,
    x,
    y,
    grad_cost,
    own_count,
    other_count,
    blocks,
    inverse,
    METRIC: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Write the gradient of a matrix, rows by rows."""
    program = tl.program_id(0).to(tl.int64)
    b = program // blocks
    own = program % blocks * OWN + tl.arange(0, OWN)
    constant = load_or_zero(of_linear, b) + load_or_zero(of_value, b)
    left = tl.load(x + b * own_count + own, mask=own < own_count, other=0.0)
    for start in range(0, other_count, OTHER):
        other = start + tl.arange(0, OTHER).to(tl.int64)
        p, cost = plan_tile(
            source, plan, None, None, b, own, other, own_count, other_count, inverse, METRIC,
            OWN, OTHER, DEPTH, of_linear is not None,
        )  # fmt: skip
        inside = (own < own_count)[:, None] & (other < other_count)[None, :]
        w = upstream_tile(upstream, of_linear, cost, b, own, other, inside)
        right = tl.load(y + b * other_count + other, mask=other < other_count, other=0.0)
        g = pair_gradient(p, w, left[:, None] + right[None, :], inverse, constant)
        place = grad_cost + (b * own_count + own[:, None]) * other_count + other[None, :]
        tl.store(place, g.to(grad_cost.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=[*_SIZES, "chunks"])
def differentiate_points(
    source,
    own_potential,
    other_potential,
    of_linear,
    of_value,
    x,
    y,
    out,
    own_count,
    other_count,
    blocks,
    chunks,
    inverse,
    METRIC: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write sum_j G_ij dC_ij/dx_i for some coordinates of some points; x, y solve the system."""
    program = tl.program_id(0).to(tl.int64)
    b = program // (blocks * chunks)
    own = program // chunks % blocks * OWN + tl.arange(0, OWN)
    column = program % chunks * WIDTH + tl.arange(0, WIDTH)
    dim = source[4]
    constant = load_or_zero(of_linear, b) + load_or_zero(of_value, b)
    left = tl.load(x + b * own_count + own, mask=own < own_count, other=0.0)
    total = tl.zeros([OWN], tl.float32)
    moved = tl.zeros([OWN, WIDTH], tl.float32)
    for start in range(0, other_count, OTHER):
        other = start + tl.arange(0, OTHER).to(tl.int64)
        p, cost = plan_tile(
            source, None, own_potential, other_potential, b, own, other, own_count, other_count,
            inverse, METRIC, OWN, OTHER, DEPTH, True,
        )  # fmt: skip
        inside = (own < own_count)[:, None] & (other < other_count)[None, :]
        w = upstream_tile(None, of_linear, cost, b, own, other, inside)
        right = tl.load(y + b * other_count + other, mask=other < other_count, other=0.0)
        g = pair_gradient(p, w, left[:, None] + right[None, :], inverse, constant)
        if METRIC == DISTANCE:
            # the derivative of |x - y| has the distance below; where it is 0 it is taken as 0
            g = tl.where(cost == 0.0, 0.0, g / tl.where(cost == 0.0, 1.0, cost))
        total += tl.sum(g, 1)
        points = load_points(
            source[1] + b * other_count * dim, other, other_count, column, dim
        )  # fmt: skip
        moved = tl.dot(g, points, moved, input_precision=PRECISION)
    place = (b * own_count + own[:, None]) * dim + column[None, :]
    inside = (own < own_count)[:, None] & (column < dim)[None, :]
    if METRIC == ONE_MINUS_DOT:
        result = -moved
    else:
        points = load_points(source[0] + b * own_count * dim, own, own_count, column, dim)
        result = total[:, None] * points - moved
        if METRIC == SQUARED:
            result = 2.0 * result
    tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)
