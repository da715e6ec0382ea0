"""The quadratic problem of t variables, a program each: the table stays in registers.

The method is that of csrc/gem/nnqp.inl, one elementary step a turn of the loop: choose a violated
row, move until it is an equality or an active variable comes to zero, sweep the table on whichever
changed.
"""

from __future__ import annotations

import triton
import triton.language as tl

SOLVED, UNTOUCHED, INFEASIBLE, NOT_FINITE = (tl.constexpr(code) for code in range(4))
STEPS_A_VARIABLE = tl.constexpr(50)
ROUNDS = tl.constexpr(4)
TINY = tl.constexpr(2.2250738585072014e-308)


@triton.jit
def entry(vector, mask):
    """The one element that the mask names."""
    return tl.sum(tl.where(mask, vector, 0.0), 0)


@triton.jit
def row_of(matrix, mask):
    """The one row that the mask names."""
    return tl.sum(tl.where(mask[:, None], matrix, 0.0), 0)


@triton.jit
def sweep(table, mask, sign):
    """One rank-one update: the row's variable enters (sign 1) or leaves (sign -1)."""
    row = row_of(table, mask)
    d = entry(row, mask)
    d = tl.where(d == 0.0, 1.0, d)
    value = sign * row / d
    rest = table - row[:, None] * (row / d)[None, :]
    rest = tl.where(mask[None, :], value[:, None], rest)
    rest = tl.where(mask[:, None], value[None, :], rest)
    return tl.where(mask[:, None] & mask[None, :], -1.0 / d, rest)


@triton.jit
def load_gram(gram, kept, index, rows, ridge, R: tl.constexpr):
    """The symmetric part of a matrix with its ridge, zeros where a row takes no part."""
    both = kept[:, None] & kept[None, :]
    upright = tl.load(gram + index[:, None] * rows + index[None, :], mask=both, other=0.0)
    turned = tl.load(gram + index[None, :] * rows + index[:, None], mask=both, other=0.0)
    diagonal = (index[:, None] == index[None, :]) & both
    return 0.5 * (upright + turned) + tl.where(diagonal, ridge, 0.0)


@triton.jit(do_not_specialize=["rows"])
def solve_quadratics(
    gram,
    linear,
    slack,
    lower,
    ridge,
    tolerance,
    dual,
    status,
    rows,
    ALWAYS: tl.constexpr,
    R: tl.constexpr,
):
    """Write dual[b] = argmin x'Kx/2 + c'x over x >= lower, and how it went."""
    b = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, R)
    there = index < rows
    infinity = float("inf")
    bound, part = tl.load(lower), tl.load(tolerance)
    given = tl.load(linear + b * rows + index, mask=there, other=infinity)
    if slack is not None:
        width = tl.load(slack + b * rows + index, mask=there, other=infinity)
        given = tl.where(width == infinity, infinity, given + width)
    kept = there & (given != infinity)
    matrix = load_gram(gram + b * rows * rows, kept, index, rows, tl.load(ridge), R)
    sums = tl.sum(matrix, 1)
    c = tl.where(kept, given + bound * sums, 0.0)
    calm = tl.sum(tl.where(given >= 0.0, 0, 1), 0) == 0
    finite = tl.sum(tl.where((sums + c) - (sums + c) == 0.0, 0, 1), 0) == 0

    diagonal = tl.sum(tl.where(index[:, None] == index[None, :], matrix, 0.0), 0)
    weight = 1.0 / tl.maximum(diagonal, TINY)
    work = finite
    if not ALWAYS:
        work = work & (calm == 0)
    table, residual = matrix, c
    x = tl.zeros([R], tl.float64)
    active = tl.zeros([R], tl.float64)
    feasible = work | (work == 0)
    steps = STEPS_A_VARIABLE * (rows + 1)
    for _ in range(ROUNDS):
        new = steps * 0 - 1
        running = work & feasible
        while running:
            depth = tl.where(residual < 0.0, residual * residual * weight + TINY, 0.0)
            there_is = (new >= 0) | (tl.max(depth, 0) > 0.0)
            pick = tl.where(new >= 0, new, tl.argmax(depth, 0))
            chosen = index == pick
            row, missing = row_of(table, chosen), entry(residual, chosen)
            size = tl.sum(tl.abs(row_of(matrix, chosen)) * x, 0) + tl.abs(entry(c, chosen))
            violated = there_is & ((new >= 0) | (missing < -part * size))
            pivot = entry(row, chosen)
            independent = pivot > part * entry(diagonal, chosen)
            full = tl.where(independent, -missing / tl.where(independent, pivot, 1.0), infinity)
            can_block = (active > 0.0) & (row > 0.0)
            ratio = tl.where(can_block, x / tl.where(can_block, row, 1.0), infinity)
            blocked, first = tl.min(ratio, 0), tl.argmin(ratio, 0)
            step = tl.minimum(full, blocked)
            moves = violated & (step < infinity)
            feasible = feasible & (moves | (violated == 0))
            step = tl.where(moves, step, 0.0)
            enters = full <= blocked
            change = tl.where(enters, pick, first)
            changes = index == change
            x = x - step * active * row + tl.where(chosen, step, 0.0)
            residual = residual + step * (1.0 - active) * row
            residual = tl.where(changes & moves, 0.0, residual)
            residual = tl.where(chosen & there_is & (violated == 0), 0.0, residual)
            x = tl.where(changes & moves & (enters == 0), 0.0, x)
            table = tl.where(moves, sweep(table, changes, tl.where(enters, 1.0, -1.0)), table)
            active = tl.where(changes & moves, tl.where(enters, 1.0, 0.0), active)
            new = tl.where(moves & (enters == 0), pick, -1)
            steps -= 1
            feasible = feasible & ((steps > 0) | (there_is == 0))
            running = there_is & feasible
        # from the true matrix: sweeping has rounded the table many times
        off = tl.where(active > 0.0, c + tl.sum(matrix * x[None, :], 1), 0.0)
        x = tl.maximum(x + active * tl.sum(table * off[None, :], 1), 0.0)
        residual = tl.where(active > 0.0, 0.0, c + tl.sum(matrix * x[None, :], 1))
    solved = work & feasible
    code = tl.where(solved, SOLVED, tl.where(work, INFEASIBLE, UNTOUCHED))
    code = tl.where(finite, code, NOT_FINITE)
    value = tl.where(solved & kept, bound + x, 0.0)
    tl.store(dual + b * rows + index, value, mask=there)
    tl.store(status + b, code)


@triton.jit(do_not_specialize=["rows"])
def solve_active(
    gram,
    linear,
    dual,
    lower,
    ridge,
    tolerance,
    minus_y,
    rows,
    R: tl.constexpr,
):
    """Write minus_y[b] with K_AA y_A = linear_A for the rows A whose dual is above the bound."""
    b = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, R)
    there = index < rows
    variable = tl.load(dual + b * rows + index, mask=there, other=0.0)
    wanted = there & (variable > tl.load(lower))
    right = tl.load(linear + b * rows + index, mask=wanted, other=0.0)
    matrix = load_gram(gram + b * rows * rows, wanted, index, rows, tl.load(ridge), R)
    diagonal = tl.sum(tl.where(index[:, None] == index[None, :], matrix, 0.0), 0)
    part = tl.load(tolerance)
    table = matrix
    active = tl.zeros([R], tl.float64)
    for k in range(rows):
        own = index == k
        pivot = entry(row_of(table, own), own)
        counts = tl.sum(tl.where(own & wanted, 1, 0), 0)
        independent = tl.where(pivot > part * entry(diagonal, own), 1, 0)
        enters = counts * independent > 0
        table = tl.where(enters, sweep(table, own, 1.0), table)
        active = tl.where(enters, tl.where(own, 1.0, active), active)
    y = tl.zeros([R], tl.float64)
    # one correction with the residual of the first answer
    for _ in range(2):
        off = active * (right - tl.sum(matrix * y[None, :], 1))
        y -= active * tl.sum(table * off[None, :], 1)
    tl.store(minus_y + b * rows + index, -y, mask=there)
