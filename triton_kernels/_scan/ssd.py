"""Kernels of the state space dual scan (SSD): products within a chunk, a recurrence over chunks.

A program takes one batch entry, a head and a tile of its channels, and walks the length in chunks
of Q steps with the [P, N] state in registers: no state reaches memory but the checkpoints that the
backward asks for. Decays are products over intervals of steps, formed from sums over just those
steps. With half inputs, weights that meet a signal are rounded to the signal's type and products
with states are TF32; sums are float32.

Source: Dao and Gu, arXiv 2405.21060, section 6 (block decomposition) and listing 1.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._scan.steps import (
    LOG2E,
    sigmoid,
    silu_slope,
    softplus,
    softplus_slope,
    starts_sequence,
)


@triton.jit
def _rows(x, batch, row, t):
    """Pointers to the rows of the steps; x: (pointer, batch, row, step, column)."""
    return x[0] + batch * x[1] + row * x[2] + t.to(tl.int64) * x[3]


@triton.jit
def _load(x, batch, row, t, column, present, wanted):
    """[Q, columns] in the type of x, zero outside."""
    at = _rows(x, batch, row, t)[:, None] + column.to(tl.int64)[None, :] * x[4]
    return tl.load(at, mask=present[:, None] & wanted[None, :], other=0.0)


@triton.jit
def _pre_step(dt, bias, batch, head, t, present):
    pre = tl.load(_rows(dt, batch, head, t), mask=present, other=0.0).to(tl.float32)
    if bias is not None:
        pre += tl.load(bias + head)
    return pre


@triton.jit
def _step_size(pre, present, dt_min, dt_max, SOFTPLUS: tl.constexpr):
    if SOFTPLUS:
        pre = softplus(pre)
    # comparisons that let NaN through
    pre = tl.where(pre < dt_min, dt_min, pre)
    return tl.where(present, tl.where(pre > dt_max, dt_max, pre), 0.0)


@triton.jit
def _step_slope(pre, dt_min, dt_max, SOFTPLUS: tl.constexpr):
    value = pre
    slope = tl.full([pre.shape[0]], 1.0, tl.float32)
    if SOFTPLUS:
        value = softplus(pre)
        slope = softplus_slope(pre)
    return tl.where((value < dt_min) | (value > dt_max), 0.0, slope)


@triton.jit
def _decays(d, a, seq, batch, step, present, Q: tl.constexpr):
    """Decays within a chunk: between steps [t, s], up to a step, from a step, of all; and log2."""
    t = tl.arange(0, Q)
    log = d * a * LOG2E
    # log2 of the decay from behind step s up to step t, as a sum over those steps alone
    between = tl.cumsum(tl.where(t[:, None] > t[None, :], log[:, None], 0.0), 0)
    visible = t[:, None] >= t[None, :]
    upto = tl.cumsum(log, 0)
    rest = tl.sum(tl.where((t == Q - 1)[:, None], between, 0.0), 0)
    upto_factor = tl.exp2(upto)
    rest_factor = tl.exp2(rest)
    all_factor = tl.exp2(tl.sum(log, 0))
    if seq is not None:
        starts = starts_sequence(seq, batch, step, step - 1, step, present).to(tl.int32)
        number = tl.cumsum(starts, 0)
        final = tl.sum(starts, 0)
        visible = visible & (number[:, None] == number[None, :])
        upto_factor = tl.where(number == 0, upto_factor, 0.0)
        rest_factor = tl.where(number == final, rest_factor, 0.0)
        all_factor = tl.where(final == 0, all_factor, 0.0)
    decay = tl.where(visible, tl.exp2(tl.where(visible, between, 0.0)), 0.0)
    return decay, upto_factor, rest_factor, all_factor


@triton.jit
def _keep(state, factor, seq):
    """The state times the factor, or nothing where a border made the factor 0."""
    if seq is not None:
        return tl.where(factor == 0.0, 0.0, factor * state)
    return factor * state


@triton.jit
def _outputs(c, b, x, d, decay, upto, state, PRECISION: tl.constexpr):
    """The outputs [Q, P] without skip and gate."""
    scores = tl.dot(c, tl.trans(b), input_precision=PRECISION)
    weights = scores * decay * d[None, :]
    within = tl.dot(weights.to(x.dtype), x, input_precision=PRECISION)
    across = tl.dot(c.to(tl.float32), tl.trans(state), input_precision=PRECISION)
    return within + upto[:, None] * across


@triton.jit
def _site(heads, blocks):
    program = tl.program_id(0)
    block = program % blocks
    head = (program // blocks % heads).to(tl.int64)
    batch = (program // blocks // heads).to(tl.int64)
    return block, head, batch


@triton.jit(do_not_specialize=["length"])
def ssd_forward(
    x, dt, A, b, c, D, z, bias, initial, seq, out, last, checkpoints,
    length, heads, heads_of_group, blocks, dt_min, dt_max,
    SOFTPLUS: tl.constexpr, SAVE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    WIDTH: tl.constexpr, STATES: tl.constexpr, Q: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write out, last and checkpoints; grid: tiles of channels, heads, batch entries."""
    block, head, batch = _site(heads, blocks)
    group = head // heads_of_group
    p = block * WIDTH + tl.arange(0, WIDTH)
    n = tl.arange(0, STATES)
    has_p = p < P
    has_n = n < N
    state_mask = has_p[:, None] & has_n[None, :]
    state_at = ((batch * heads + head) * P + p)[:, None] * N + n[None, :]
    if initial is not None:
        state = tl.load(initial + state_at, mask=state_mask, other=0.0)
    else:
        state = tl.zeros([WIDTH, STATES], tl.float32)
    a = tl.load(A + head)
    chunks = tl.cdiv(length, Q)

    for chunk in range(0, chunks):
        if SAVE:
            at = (((batch * chunks + chunk) * heads + head) * P + p)[:, None] * N + n[None, :]
            tl.store(checkpoints + at, state, mask=state_mask)
        step = chunk * Q + tl.arange(0, Q)
        present = step < length
        pre = _pre_step(dt, bias, batch, head, step, present)
        d = _step_size(pre, present, dt_min, dt_max, SOFTPLUS)
        signal = _load(x, batch, head, step, p, present, has_p)
        b_tile = _load(b, batch, group, step, n, present, has_n)
        c_tile = _load(c, batch, group, step, n, present, has_n)
        decay, upto, rest, everything = _decays(d, a, seq, batch, step, present, Q)
        y = _outputs(c_tile, b_tile, signal, d, decay, upto, state, PRECISION)
        single = signal.to(tl.float32)
        if D is not None:
            y += tl.load(D + head * P + p, mask=has_p, other=0.0)[None, :] * single
        if z is not None:
            gate = _load(z, batch, head, step, p, present, has_p).to(tl.float32)
            y *= gate * sigmoid(gate)
        at = ((batch * length + step) * heads + head)[:, None] * P + p[None, :]
        tl.store(out + at, y, mask=present[:, None] & has_p[None, :])
        weighted = single * (d * rest)[:, None]
        added = tl.dot(tl.trans(weighted), b_tile.to(tl.float32), input_precision=PRECISION)
        state = _keep(state, everything, seq) + added
    tl.store(last + state_at, state, mask=state_mask)


@triton.jit(do_not_specialize=["length"])
def ssd_backward(
    grad_out, grad_last, x, dt, A, b, c, D, z, bias, seq, checkpoints,
    grad_x, grad_dt, grad_A, grad_b, grad_c, grad_D, grad_z, grad_bias, grad_initial,
    length, heads, heads_of_group, blocks, batches, dt_min, dt_max,
    SOFTPLUS: tl.constexpr, P: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr,
    STATES: tl.constexpr, Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients; grid: tiles of channels, heads, batch entries.

    Tables: grad_dt [block, batch, length, head], grad_A and grad_bias [block, batch, head], grad_D
    [batch, head, P], grad_b and grad_c [head of its group and block, batch, length, group, N].
    """
    block, head, batch = _site(heads, blocks)
    group = head // heads_of_group
    groups = heads // heads_of_group
    p = block * WIDTH + tl.arange(0, WIDTH)
    n = tl.arange(0, STATES)
    t = tl.arange(0, Q)
    has_p = p < P
    has_n = n < N
    state_mask = has_p[:, None] & has_n[None, :]
    state_at = ((batch * heads + head) * P + p)[:, None] * N + n[None, :]
    flow = tl.load(grad_last + state_at, mask=state_mask, other=0.0)
    a = tl.load(A + head)
    skip = tl.zeros([WIDTH], tl.float32)
    if D is not None:
        skip = tl.load(D + head * P + p, mask=has_p, other=0.0)
    sum_a = 0.0
    sum_bias = 0.0
    sum_d = tl.zeros([WIDTH], tl.float32)
    chunks = tl.cdiv(length, Q)
    table = (block * heads_of_group + head % heads_of_group) * batches + batch

    for back in range(0, chunks):
        chunk = chunks - 1 - back
        at = (((batch * chunks + chunk) * heads + head) * P + p)[:, None] * N + n[None, :]
        state = tl.load(checkpoints + at, mask=state_mask, other=0.0)
        step = chunk * Q + t
        present = step < length
        tile_mask = present[:, None] & has_p[None, :]
        tile_at = ((batch * length + step) * heads + head)[:, None] * P + p[None, :]
        pre = _pre_step(dt, bias, batch, head, step, present)
        d = _step_size(pre, present, dt_min, dt_max, SOFTPLUS)
        signal = _load(x, batch, head, step, p, present, has_p)
        b_tile = _load(b, batch, group, step, n, present, has_n)
        c_tile = _load(c, batch, group, step, n, present, has_n)
        decay, upto, rest, everything = _decays(d, a, seq, batch, step, present, Q)
        single = signal.to(tl.float32)
        dy = _load(grad_out, batch, head, step, p, present, has_p).to(tl.float32)
        if z is not None:
            y = _outputs(c_tile, b_tile, signal, d, decay, upto, state, PRECISION)
            y += skip[None, :] * single
            gate = _load(z, batch, head, step, p, present, has_p).to(tl.float32)
            tl.store(grad_z + tile_at, dy * y * silu_slope(gate), mask=tile_mask)
            dy *= gate * sigmoid(gate)
        rounded = dy.to(signal.dtype)

        # Through the products within the chunk.
        scores = tl.dot(c_tile, tl.trans(b_tile), input_precision=PRECISION)
        from_pair = tl.dot(rounded, tl.trans(signal), input_precision=PRECISION) * decay
        of_scores = from_pair * d[None, :]
        through = of_scores * scores
        weights = (scores * decay).to(signal.dtype)
        of_driven = tl.dot(tl.trans(weights), rounded, input_precision=PRECISION)
        of_scores = of_scores.to(signal.dtype)
        of_c = tl.dot(of_scores, b_tile, input_precision=PRECISION)
        of_b = tl.dot(tl.trans(of_scores), c_tile, input_precision=PRECISION)
        # Through the state that comes in and the one that leaves.
        weighted = dy * upto[:, None]
        from_state = tl.dot(weighted, state, input_precision=PRECISION)
        c_single = c_tile.to(tl.float32)
        of_upto = tl.sum(from_state * c_single, 1)
        of_c += from_state
        b_single = b_tile.to(tl.float32)
        to_state = tl.dot(b_single, tl.trans(flow), input_precision=PRECISION) * rest[:, None]
        of_driven += to_state
        of_rest = d * tl.sum(to_state * single, 1)
        driven = single * (d * rest)[:, None]
        of_b += tl.dot(driven, flow, input_precision=PRECISION)
        of_all = tl.sum(tl.sum(_keep(flow * state, everything, seq), 1), 0)

        # The log decay of step j is in every product over an interval of steps that holds j.
        through = tl.where(t[:, None] > t[None, :], through, 0.0)
        ends = tl.sum(through, 1) - tl.sum(through, 0) + of_upto
        of_log = tl.cumsum(ends, 0, reverse=True) + (tl.cumsum(of_rest, 0) - of_rest) + of_all
        of_d = tl.sum(of_driven * single, 1) + a * of_log
        sum_a += tl.sum(tl.where(present, d * of_log, 0.0), 0)
        of_pre = tl.where(present, of_d * _step_slope(pre, dt_min, dt_max, SOFTPLUS), 0.0)
        sum_bias += tl.sum(of_pre, 0)
        sum_d += tl.sum(dy * single, 0)
        at = ((block * batches + batch) * length + step) * heads + head
        tl.store(grad_dt + at, of_pre, mask=present)
        of_x = of_driven * d[:, None] + skip[None, :] * dy
        tl.store(grad_x + tile_at, of_x, mask=tile_mask)
        at = ((table * length + step) * groups + group)[:, None] * N + n[None, :]
        table_mask = present[:, None] & has_n[None, :]
        tl.store(grad_b + at, of_b, mask=table_mask)
        tl.store(grad_c + at, of_c, mask=table_mask)

        flow = _keep(flow, everything, seq)
        flow += tl.dot(tl.trans(weighted), c_single, input_precision=PRECISION)

    if grad_initial is not None:
        tl.store(grad_initial + state_at, flow, mask=state_mask)
    row = (block * batches + batch) * heads + head
    tl.store(grad_A + row, sum_a)
    if bias is not None:
        tl.store(grad_bias + row, sum_bias)
    if D is not None:
        tl.store(grad_D + (batch * heads + head) * P + p, sum_d, mask=has_p)
