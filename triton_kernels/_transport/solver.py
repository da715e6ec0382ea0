"""A problem that fits into the registers of one program: all sweeps in one launch."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._transport.side import (
    INFINITY,
    advanced,
    line_lse,
    load_weights,
    moved_mass,
    updated,
)
from saccade.triton_kernels._transport.sweeps import STATE


# sizes are specialized: multiples of 16 are read in vectors, and a thread has fewer rows to sum
@triton.jit(do_not_specialize=["max_iter"])
def solve_problems(
    matrix,
    a,
    b_weights,
    f,
    g,
    state,
    plan,
    lse_a,
    lse_b,
    linear,
    n,
    m,
    batch_stride,
    row_stride,
    column_stride,
    max_iter,
    rho_a,
    rho_b,
    scaling,
    tol,
    BALANCED_A: tl.constexpr,
    BALANCED_B: tl.constexpr,
    KL: tl.constexpr,
    CHECK: tl.constexpr,
    SCALES: tl.constexpr,
    N: tl.constexpr,
    M: tl.constexpr,
):
    """Go on from the potentials f and g until a problem is done; write its plan and its sums."""
    b = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, N).to(tl.int64), tl.arange(0, M).to(tl.int64)
    row, column = i < n, j < m
    inside = row[:, None] & column[None, :]
    place = matrix + b * batch_stride + i[:, None] * row_stride + j[None, :] * column_stride
    cost = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    weight_a = load_weights(a + b * n + i, row)
    weight_b = load_weights(b_weights + b * m + j, column)
    phi = tl.load(f + b * n + i, mask=row, other=-INFINITY)
    psi = tl.load(g + b * m + j, mask=column, other=-INFINITY)
    final = tl.load(state + b * STATE + 3)
    eps = final
    if SCALES:
        finite = inside & (tl.abs(cost) < INFINITY)
        low = tl.min(tl.min(tl.where(finite, cost, INFINITY), 1), 0)
        high = tl.max(tl.max(tl.where(finite, cost, -INFINITY), 1), 0)
        eps = tl.maximum(eps, tl.where(high > low, high.to(tl.float64) - low, 0.0))
    n_iter = final * 0.0
    done = final * 0.0
    sum_b = psi
    running = done == 0.0
    while running:
        inverse = (1.0 / eps).to(tl.float32)
        single = eps.to(tl.float32)
        sum_a = line_lse((psi[None, :] - cost) * inverse, 1)
        after = updated(weight_a, sum_a, single, rho_a, BALANCED_A, KL)
        moved = final * 0.0
        if CHECK:
            change = moved_mass(weight_a, phi, after, sum_a, inverse, BALANCED_A)
            moved = tl.sum(tl.where(row, change, 0.0).to(tl.float64), 0)
        phi = after
        sum_b = line_lse((phi[:, None] - cost) * inverse, 0)
        psi = updated(weight_b, sum_b, single, rho_b, BALANCED_B, KL)
        eps, n_iter, done = advanced(
            eps, n_iter, done, final, moved, scaling, tol, max_iter, CHECK
        )  # fmt: skip
        running = done == 0.0
    inverse = (1.0 / final).to(tl.float32)
    sum_a = line_lse((psi[None, :] - cost) * inverse, 1)
    p = tl.where(inside, tl.exp((phi[:, None] + psi[None, :] - cost) * inverse), 0.0)
    spent = tl.sum(tl.where(p == 0.0, 0.0, p * cost), 1)
    place = plan + (b * n + i[:, None]) * m + j[None, :]
    tl.store(place, p.to(plan.dtype.element_ty), mask=inside)
    tl.store(f + b * n + i, phi, mask=row)
    tl.store(g + b * m + j, psi, mask=column)
    tl.store(lse_a + b * n + i, sum_a, mask=row)
    tl.store(lse_b + b * m + j, sum_b, mask=column)
    tl.store(linear + b * n + i, spent, mask=row)
    tl.store(state + b * STATE + 1, n_iter)
