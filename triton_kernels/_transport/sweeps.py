"""Sinkhorn's iteration, a launch a side and sweep: a program owns some numbers of one side.

The state of problem b is (eps, sweeps that counted, done, final eps) in float64; a launch reads one
state and that of the columns writes the next, so that no program waits for another.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._transport.costs import add_exponentials, cost_tile, lse_of
from saccade.triton_kernels._transport.side import (
    INFINITY,
    advanced,
    load_weights,
    moved_mass,
    updated,
    value_of,
)

# other sizes are specialized: where they are multiples of 16 whole vectors are read
_SIZES = ["blocks"]
STATE = tl.constexpr(4)
CHUNK = tl.constexpr(1024)


@triton.jit(do_not_specialize=_SIZES)
def find_range(
    source,
    least,
    largest,
    own_count,
    other_count,
    blocks,
    METRIC: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Write the least and the largest finite cost of each program's rows."""
    program = tl.program_id(0).to(tl.int64)
    b = program // blocks
    own = program % blocks * OWN + tl.arange(0, OWN)
    low = tl.zeros([OWN], tl.float32) + INFINITY
    high = tl.zeros([OWN], tl.float32) - INFINITY
    for start in range(0, other_count, OTHER):
        other = start + tl.arange(0, OTHER).to(tl.int64)
        cost = cost_tile(
            source, b, own, other, own_count, other_count, METRIC, OWN, OTHER, DEPTH
        )  # fmt: skip
        inside = (own < own_count)[:, None] & (other < other_count)[None, :]
        finite = inside & (tl.abs(cost) < INFINITY)
        low = tl.minimum(low, tl.min(tl.where(finite, cost, INFINITY), 1))
        high = tl.maximum(high, tl.max(tl.where(finite, cost, -INFINITY), 1))
    tl.store(least + program, tl.min(low, 0))
    tl.store(largest + program, tl.max(high, 0))


@triton.jit
def end_sweep(
    b, block, eps, done, moved, moved_count, state, following, scaling, tol, max_iter,
    CHECK: tl.constexpr,
):  # fmt: skip
    """Write the next state, in one program of a problem."""
    if block == 0:
        n_iter = tl.load(state + b * STATE + 1)
        final = tl.load(state + b * STATE + 3)
        all_moved = n_iter * 0.0
        if CHECK:
            part = tl.zeros([128], tl.float64)
            for start in range(0, moved_count, 128):
                k = start + tl.arange(0, 128)
                part += tl.load(moved + b * moved_count + k, mask=k < moved_count, other=0.0)
            all_moved = tl.sum(part, 0)
        next_eps, counted, finished = advanced(
            eps, n_iter, done, final, all_moved, scaling, tol, max_iter, CHECK
        )
        tl.store(following + b * STATE, next_eps)
        tl.store(following + b * STATE + 1, counted)
        tl.store(following + b * STATE + 2, finished)
        tl.store(following + b * STATE + 3, final)


@triton.jit(do_not_specialize=[*_SIZES, "moved_count", "max_iter"])
def update_potentials(
    source,
    other_potential,
    weights,
    potential,
    lse,
    moved,
    state,
    following,
    own_count,
    other_count,
    blocks,
    moved_count,
    max_iter,
    rho,
    scaling,
    tol,
    METRIC: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    DEPTH: tl.constexpr,
    BALANCED: tl.constexpr,
    KL: tl.constexpr,
    CHECK: tl.constexpr,
    ADVANCE: tl.constexpr,
):
    """Make one side's potentials from the other's; the columns' launch (ADVANCE) ends a sweep."""
    program = tl.program_id(0).to(tl.int64)
    b, block = program // blocks, program % blocks
    eps = tl.load(state + b * STATE)
    done = tl.load(state + b * STATE + 2)
    if done == 0.0:
        inverse = (1.0 / eps).to(tl.float32)
        own = block * OWN + tl.arange(0, OWN)
        inside = own < own_count
        top = tl.zeros([OWN], tl.float32) - INFINITY
        total = tl.zeros([OWN], tl.float32)
        for start in range(0, other_count, OTHER):
            other = start + tl.arange(0, OTHER).to(tl.int64)
            psi = tl.load(
                other_potential + b * other_count + other, mask=other < other_count, other=-INFINITY
            )
            cost = cost_tile(
                source, b, own, other, own_count, other_count, METRIC, OWN, OTHER, DEPTH
            )  # fmt: skip
            top, total = add_exponentials(top, total, (psi[None, :] - cost) * inverse)
        sum_log = lse_of(top, total)
        at = b * own_count + own
        weight = load_weights(weights + at, inside)
        before = tl.load(potential + at, mask=inside, other=0.0)
        after = updated(weight, sum_log, eps.to(tl.float32), rho, BALANCED, KL)
        tl.store(potential + at, after, mask=inside)
        tl.store(lse + at, sum_log, mask=inside)
        if CHECK and not ADVANCE:
            change = moved_mass(weight, before, after, sum_log, inverse, BALANCED)
            change = tl.where(inside, change, 0.0).to(tl.float64)
            tl.store(moved + program, tl.sum(change, 0))
    if ADVANCE:
        end_sweep(
            b, block, eps, done, moved, moved_count, state, following, scaling, tol, max_iter, CHECK
        )


@triton.jit(do_not_specialize=_SIZES)
def finish_rows(
    source,
    f,
    g,
    state,
    plan,
    lse,
    linear,
    own_count,
    other_count,
    blocks,
    METRIC: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Write the plan, where it is formed, with the sum of every row and what it costs."""
    program = tl.program_id(0).to(tl.int64)
    b = program // blocks
    inverse = (1.0 / tl.load(state + b * STATE + 3)).to(tl.float32)
    own = program % blocks * OWN + tl.arange(0, OWN)
    at = b * own_count + own
    phi = tl.load(f + at, mask=own < own_count, other=-INFINITY)
    top = tl.zeros([OWN], tl.float32) - INFINITY
    total = tl.zeros([OWN], tl.float32)
    spent = tl.zeros([OWN], tl.float32)
    for start in range(0, other_count, OTHER):
        other = start + tl.arange(0, OTHER).to(tl.int64)
        psi = tl.load(g + b * other_count + other, mask=other < other_count, other=-INFINITY)
        cost = cost_tile(
            source, b, own, other, own_count, other_count, METRIC, OWN, OTHER, DEPTH
        )  # fmt: skip
        top, total = add_exponentials(top, total, (psi[None, :] - cost) * inverse)
        inside = (own < own_count)[:, None] & (other < other_count)[None, :]
        p = tl.where(inside, tl.exp((phi[:, None] + psi[None, :] - cost) * inverse), 0.0)
        # a forbidden pair costs nothing where nothing goes
        spent += tl.sum(tl.where(p == 0.0, 0.0, p * cost), 1)
        if plan is not None:
            place = plan + at[:, None] * other_count + other[None, :]
            tl.store(place, p.to(plan.dtype.element_ty), mask=inside)
    tl.store(lse + at, lse_of(top, total), mask=own < own_count)
    tl.store(linear + at, spent, mask=own < own_count)


@triton.jit(do_not_specialize=["n", "m"])
def conclude(
    a,
    b_weights,
    f,
    g,
    lse_a,
    lse_b,
    row_linear,
    state,
    value,
    linear,
    n_iter,
    err,
    status,
    n,
    m,
    rho_a,
    rho_b,
    tol,
    tolerance,
    BALANCED_A: tl.constexpr,
    BALANCED_B: tl.constexpr,
    KL: tl.constexpr,
):
    """Write a problem's numbers from its potentials and the sums at them, added up in float64."""
    b = tl.program_id(0).to(tl.int64)
    eps = tl.load(state + b * STATE + 3)
    single = eps.to(tl.float32)
    inverse = (1.0 / eps).to(tl.float32)
    total_a = tl.zeros([CHUNK], tl.float64)
    total_b = tl.zeros([CHUNK], tl.float64)
    values = tl.zeros([CHUNK], tl.float64)
    mass = tl.zeros([CHUNK], tl.float64)
    spent = tl.zeros([CHUNK], tl.float64)
    moved = tl.zeros([CHUNK], tl.float64)
    stuck = tl.zeros([CHUNK], tl.int32)
    for start in range(0, n, CHUNK):
        i = start + tl.arange(0, CHUNK)
        inside, at = i < n, b * n + i
        weight = load_weights(a + at, inside)
        lse = tl.load(lse_a + at, mask=inside, other=-INFINITY)
        phi = tl.load(f + at, mask=inside, other=-INFINITY)
        row = tl.exp(phi * inverse + lse)
        total_a += weight
        mass += row
        spent += tl.load(row_linear + at, mask=inside, other=0.0)
        after = updated(weight, lse, single, rho_a, BALANCED_A, KL)
        moved += moved_mass(weight, phi, after, lse, inverse, BALANCED_A)
        values += value_of(weight, row, phi, eps, rho_a, BALANCED_A, KL)
        if BALANCED_A:
            stuck += tl.where((weight > 0.0) & (phi == -INFINITY), 1, 0)
    for start in range(0, m, CHUNK):
        j = start + tl.arange(0, CHUNK)
        inside, at = j < m, b * m + j
        weight = load_weights(b_weights + at, inside)
        lse = tl.load(lse_b + at, mask=inside, other=-INFINITY)
        psi = tl.load(g + at, mask=inside, other=-INFINITY)
        total_b += weight
        column = tl.exp(psi * inverse + lse)
        values += value_of(weight, column, psi, eps, rho_b, BALANCED_B, KL)
        if BALANCED_B:
            stuck += tl.where((weight > 0.0) & (psi == -INFINITY), 1, 0)
    all_a, all_b = tl.sum(total_a, 0), tl.sum(total_b, 0)
    apart, off = tl.sum(moved, 0), tl.sum(spent, 0)
    result = tl.sum(values, 0) - eps * tl.sum(mass, 0)
    if KL:
        result += eps * (all_a * all_b)
    else:
        result += eps
    code = tl.where((tol > 0.0) & (apart <= tol), 0, 1)
    infeasible = tl.sum(stuck, 0) > 0
    if BALANCED_A and BALANCED_B:
        infeasible = infeasible | (tl.abs(all_a - all_b) > tolerance * all_a)
    code = tl.where(infeasible, 2, code)
    numbers = result.to(tl.float32) + off.to(tl.float32) + apart.to(tl.float32)
    code = tl.where(tl.abs(numbers) < INFINITY, code, 3)
    tl.store(value + b, result.to(tl.float32))
    tl.store(linear + b, off.to(tl.float32))
    tl.store(err + b, apart.to(tl.float32))
    tl.store(n_iter + b, tl.load(state + b * STATE + 1).to(tl.int32))
    tl.store(status + b, code)
