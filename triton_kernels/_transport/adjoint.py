"""The system of the implicit gradient: conjugate gradients on the columns.

    (alpha_b diag(c) - P' diag(1 / (alpha_a r)) P) y = q - P' (p / (alpha_a r))

with the sums r and c of P and alpha = 1 + eps / rho, preconditioned by the diagonal. Where both
sides are balanced the system determines y up to a constant, and what has a mean is not in its
range.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._transport.plans import (
    DESCENT,
    load_or_zero,
    matrix_tile,
    pair_gradient,
    upstream_tile,
)
from saccade.triton_kernels._transport.side import INFINITY, load_weights

CHUNK = tl.constexpr(1024)
TOLERANCE = tl.constexpr(1e-6)


@triton.jit
def preconditioned(r, diagonal):
    """The residual over the diagonal; 0 stays where the diagonal is 0."""
    return tl.where(r == 0.0, 0.0, r / tl.where(r == 0.0, 1.0, diagonal))


@triton.jit
def ratio(number, by):
    """A quotient of float64 numbers, 0 where there is nothing to divide by."""
    return tl.where(by == 0.0, 0.0, number / tl.where(by == 0.0, 1.0, by)).to(tl.float32)


@triton.jit(do_not_specialize=["m"])
def step_descent(y, r, d, s, sums, descent, m, alpha, BALANCED: tl.constexpr):
    """One step of every problem; s is P' diag(1 / (alpha_a r)) P d."""
    b = tl.program_id(0).to(tl.int64)
    size = tl.load(descent + b * DESCENT)
    target = tl.load(descent + b * DESCENT + 1)
    if tl.load(descent + b * DESCENT + 2) == 0.0:
        part = tl.zeros([CHUNK], tl.float64)
        for start in range(0, m, CHUNK):
            j = start + tl.arange(0, CHUNK)
            inside, at = j < m, b * m + j
            c = tl.load(sums + at, mask=inside, other=0.0)
            direction = tl.load(d + at, mask=inside, other=0.0)
            applied = alpha * c * direction - tl.load(s + at, mask=inside, other=0.0)
            tl.store(s + at, applied, mask=inside)
            part += direction.to(tl.float64) * applied
        curvature = tl.sum(part, 0)
        works = curvature > 0.0
        length = ratio(tl.where(works, size, 0.0), tl.where(works, curvature, 1.0))
        tl.debug_barrier()
        part = tl.zeros([CHUNK], tl.float64)
        mass = tl.zeros([CHUNK], tl.float64)
        for start in range(0, m, CHUNK):
            j = start + tl.arange(0, CHUNK)
            inside, at = j < m, b * m + j
            direction = tl.load(d + at, mask=inside, other=0.0)
            solution = tl.load(y + at, mask=inside, other=0.0) + length * direction
            applied = tl.load(s + at, mask=inside, other=0.0)
            residual = tl.load(r + at, mask=inside, other=0.0) - length * applied
            tl.store(y + at, solution, mask=inside)
            tl.store(r + at, residual, mask=inside)
            part += residual
            mass += tl.load(sums + at, mask=inside, other=0.0)
        mean = ratio(tl.sum(part, 0), tl.sum(mass, 0))
        tl.debug_barrier()
        part = tl.zeros([CHUNK], tl.float64)
        for start in range(0, m, CHUNK):
            j = start + tl.arange(0, CHUNK)
            inside, at = j < m, b * m + j
            c = tl.load(sums + at, mask=inside, other=0.0)
            residual = tl.load(r + at, mask=inside, other=0.0)
            if BALANCED:
                residual -= mean * c
                tl.store(r + at, residual, mask=inside)
            part += residual.to(tl.float64) * preconditioned(residual, alpha * c)
        following = tl.sum(part, 0)
        turn = ratio(following, size)
        tl.debug_barrier()
        for start in range(0, m, CHUNK):
            j = start + tl.arange(0, CHUNK)
            inside, at = j < m, b * m + j
            c = tl.load(sums + at, mask=inside, other=0.0)
            residual = tl.load(r + at, mask=inside, other=0.0)
            direction = turn * tl.load(d + at, mask=inside, other=0.0)
            direction += preconditioned(residual, alpha * c)
            tl.store(d + at, direction, mask=inside)
        tl.store(descent + b * DESCENT, following)
        going = works & (following > target)
        tl.store(descent + b * DESCENT + 2, tl.where(going, 0.0, 1.0).to(tl.float64))


@triton.jit
def centred(r, c, BALANCED: tl.constexpr):
    """The residual without what is not in the range of the system."""
    if BALANCED:
        r -= ratio(tl.sum(r.to(tl.float64), 0), tl.sum(c.to(tl.float64), 0)) * c
    return r


@triton.jit(do_not_specialize=["most"])
def solve_kept(
    cost,
    plan,
    upstream,
    of_f,
    of_g,
    of_linear,
    of_value,
    grad_cost,
    sums_a,
    sums_b,
    x_out,
    y_out,
    n,
    m,
    most,
    eps,
    inverse_eps,
    alpha_a,
    alpha_b,
    BALANCED: tl.constexpr,
    SYSTEM: tl.constexpr,
    N: tl.constexpr,
    M: tl.constexpr,
):
    """Solve the system of a plan that stays in registers, and write the gradient of its cost."""
    b = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, N).to(tl.int64), tl.arange(0, M).to(tl.int64)
    row, column = i < n, j < m
    inside = row[:, None] & column[None, :]
    p = matrix_tile(plan, b, i, j, inside)
    rows, c = tl.sum(p, 1), tl.sum(p, 0)
    x = tl.zeros([N], tl.float32)
    y = tl.zeros([M], tl.float32)
    if SYSTEM:
        costs = p
        if of_linear is not None:
            costs = matrix_tile(cost, b, i, j, inside)
        w = upstream_tile(upstream, of_linear, costs, b, i, j, inside)
        product = tl.where(p == 0.0, 0.0, p * w)
        right, q = tl.sum(product, 1), tl.sum(product, 0)
        inverse = tl.where(rows == 0.0, 0.0, 1.0 / (alpha_a * rows))
        if of_f is not None:
            given = tl.load(of_f + b * n + i, mask=row, other=0.0)
            right += tl.where(rows == 0.0, 0.0, eps * given)
        if of_g is not None:
            given = tl.load(of_g + b * m + j, mask=column, other=0.0)
            q += tl.where(c == 0.0, 0.0, eps * given)
        x = inverse * right
        r = tl.where(c == 0.0, 0.0, q - tl.sum(p * x[:, None], 0))
        r = centred(r, c, BALANCED)
        d = preconditioned(r, alpha_b * c)
        size = tl.sum(r.to(tl.float64) * d, 0)
        target = TOLERANCE * TOLERANCE * size
        step = most * 0
        running = (size > target) & (step < most)
        while running:
            t = inverse * tl.sum(p * d[None, :], 1)
            s = alpha_b * c * d - tl.sum(p * t[:, None], 0)
            curvature = tl.sum(d.to(tl.float64) * s, 0)
            works = curvature > 0.0
            length = ratio(tl.where(works, size, 0.0), tl.where(works, curvature, 1.0))
            y += length * d
            r = centred(r - length * s, c, BALANCED)
            z = preconditioned(r, alpha_b * c)
            following = tl.sum(r.to(tl.float64) * z, 0)
            d = z + ratio(following, size) * d
            size = following
            step += 1
            running = works & (size > target) & (step < most)
        x = inverse * (right - tl.sum(p * y[None, :], 1))
    constant = load_or_zero(of_linear, b) + load_or_zero(of_value, b)
    costs = p
    if of_linear is not None:
        costs = matrix_tile(cost, b, i, j, inside)
    w = upstream_tile(upstream, of_linear, costs, b, i, j, inside)
    g = pair_gradient(p, w, x[:, None] + y[None, :], inverse_eps, constant)
    place = grad_cost + (b * n + i[:, None]) * m + j[None, :]
    tl.store(place, g.to(grad_cost.dtype.element_ty), mask=inside)
    tl.store(sums_a + b * n + i, rows, mask=row)
    tl.store(sums_b + b * m + j, c, mask=column)
    tl.store(x_out + b * n + i, x, mask=row)
    tl.store(y_out + b * m + j, y, mask=column)


@triton.jit(do_not_specialize=["own_count", "other_count"])
def differentiate_weights(
    weights,
    other_weights,
    potential,
    sums,
    solution,
    of_value,
    out,
    own_count,
    other_count,
    eps,
    rho,
    BALANCED: tl.constexpr,
    KL: tl.constexpr,
):
    """Write the gradients of one side's weights from the solution and the value's envelope."""
    b = tl.program_id(0).to(tl.int64)
    factor = load_or_zero(of_value, b)
    part = tl.zeros([CHUNK], tl.float64)
    for start in range(0, other_count, CHUNK):
        j = start + tl.arange(0, CHUNK)
        part += load_weights(other_weights + b * other_count + j, j < other_count)
    total = tl.sum(part, 0)
    for start in range(0, own_count, CHUNK):
        i = start + tl.arange(0, CHUNK)
        inside, at = i < own_count, b * own_count + i
        weight = load_weights(weights + at, inside)
        phi = tl.load(potential + at, mask=inside, other=-INFINITY)
        dead = (weight == 0.0) | (phi == -INFINITY)
        phi = tl.where(dead, 0.0, phi).to(tl.float64)
        weight = tl.where(dead, 1.0, weight)
        share = tl.load(sums + at, mask=inside, other=0.0).to(tl.float64) / weight
        of_solution = tl.load(solution + at, mask=inside, other=0.0).to(tl.float64)
        slope = phi
        if KL:
            slope -= eps * tl.log(weight).to(tl.float64)
        if not BALANCED:
            of_solution *= tl.exp((-slope / rho).to(tl.float32))
            slope = rho * (1.0 - share)
            if KL:
                of_solution *= 1.0 + eps / rho
        if KL:
            slope += eps * (total - share)
        result = tl.where(dead, 0.0, of_solution + factor * slope)
        tl.store(out + at, result.to(tl.float32), mask=inside)
