"""Kernels of the state space dual scan (SSD): products within a chunk, a recurrence over chunks.

A first kernel turns step sizes into decays. One walks the chunks of Q steps with the [P, N] state
of a head in registers and writes the states between them; the outputs of all chunks then come at
once. The backward walks the chunks against time for the gradients of those states, and does all
else for all chunks at once. With half inputs, what is multiplied by a signal or by B or C is
rounded to their type, except the state in the forward, which is TF32: in float16, gradients need
states below 65504. Float32 inputs are multiplied in three TF32 products. Sums are float32.

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
def _base(x, batch, row, first):
    """Where a row starts at step `first`; x: (pointer, batch, row, step, column)."""
    return x[0] + batch * x[1] + row * x[2] + first.to(tl.int64) * x[3]


@triton.jit
def _load(x, batch, row, first, t, column, present, wanted):
    """[Q, columns] in the type of x, zero outside; offsets within a chunk take 32 bits."""
    at = t[:, None] * x[3] + column[None, :] * x[4]
    mask = present[:, None] & wanted[None, :]
    return tl.load(_base(x, batch, row, first) + at, mask=mask, other=0.0)


@triton.jit
def _load_pre(dt, bias, batch, head, first, t, present):
    """The argument of the step size."""
    pre = tl.load(_base(dt, batch, head, first) + t * dt[3], mask=present, other=0.0)
    pre = pre.to(tl.float32)
    if bias is not None:
        pre += tl.load(bias + head)
    return pre


@triton.jit(do_not_specialize=["length"])
def ssd_steps(
    dt, A, bias, seq, sizes, high, low, numbers, length, heads, dt_min, dt_max,
    SOFTPLUS: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """Write step sizes and log2 of the decay from a chunk's start: [batch, head, chunk, Q].

    The decay over an interval of steps is a difference of two such sums. They are made in float64
    and kept in two float32 numbers each, `high` and `low`: a short interval behind a long decay
    loses no digit. `numbers` counts the borders between sequences from the chunk's start. Grid:
    chunks, heads, batch entries.
    """
    program = tl.program_id(0)
    chunks = tl.cdiv(length, Q)
    chunk = program % chunks
    head = (program // chunks % heads).to(tl.int64)
    batch = (program // chunks // heads).to(tl.int64)
    t = tl.arange(0, Q)
    first = chunk * Q
    step = first + t
    present = step < length
    size = _load_pre(dt, bias, batch, head, first, t, present)
    if SOFTPLUS:
        size = softplus(size)
    # comparisons that let NaN through
    size = tl.where(size < dt_min, dt_min, size)
    size = tl.where(size > dt_max, dt_max, size)
    size = tl.where(present, size, 0.0)
    total = tl.cumsum((size * tl.load(A + head)).to(tl.float64) * LOG2E, 0)
    rounded = total.to(tl.float32)
    at = program.to(tl.int64) * Q + t
    tl.store(sizes + at, size)
    tl.store(high + at, rounded)
    tl.store(low + at, (total - rounded.to(tl.float64)).to(tl.float32))
    if numbers is not None:
        starts = starts_sequence(seq, batch, step, step - 1, step, present)
        tl.store(numbers + at, tl.cumsum(starts.to(tl.int32), 0))


@triton.jit
def _load_decays(sizes, high, low, numbers, row, Q: tl.constexpr):
    """Step sizes, and decays: between steps [t, s], up to a step, from a step, of all steps.

    `row` is the number of batch entry, head and chunk. A decay across a border is 0.
    """
    t = tl.arange(0, Q)
    base = row * Q
    end = base + Q - 1
    d = tl.load(sizes + base + t)
    big = tl.load(high + base + t)
    small = tl.load(low + base + t)
    all_big = tl.load(high + end)
    visible = t[:, None] >= t[None, :]
    between = (big[:, None] - big[None, :]) + (small[:, None] - small[None, :])
    upto = tl.exp2(big)
    rest = tl.exp2((all_big - big) + (tl.load(low + end) - small))
    everything = tl.exp2(all_big)
    if numbers is not None:
        number = tl.load(numbers + base + t)
        last = tl.load(numbers + end)
        visible = visible & (number[:, None] == number[None, :])
        upto = tl.where(number == 0, upto, 0.0)
        rest = tl.where(number == last, rest, 0.0)
        everything = tl.where(last == 0, everything, 0.0)
    decay = tl.where(visible, tl.exp2(tl.where(visible, between, 0.0)), 0.0)
    return d, decay, upto, rest, everything


@triton.jit
def _keep(state, factor, numbers):
    """The state times the factor, or nothing where a border made the factor 0."""
    if numbers is not None:
        return tl.where(factor == 0.0, 0.0, factor * state)
    return factor * state


@triton.jit(do_not_specialize=["length"])
def ssd_states(
    x, b, initial, sizes, high, low, numbers, last, checkpoints,
    length, heads, heads_of_group, blocks,
    P: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, STATES_TILE: tl.constexpr,
    Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write last and the states in front of every chunk.

    Grid: tiles of states, tiles of channels, heads, batch entries.
    """
    tiles: tl.constexpr = (N + STATES_TILE - 1) // STATES_TILE
    n = tl.program_id(0) % tiles * STATES_TILE + tl.arange(0, STATES_TILE)
    program = tl.program_id(0) // tiles
    head = (program // blocks % heads).to(tl.int64)
    batch = (program // blocks // heads).to(tl.int64)
    group = head // heads_of_group
    p = program % blocks * WIDTH + tl.arange(0, WIDTH)
    t = tl.arange(0, Q)
    has_p = p < P
    has_n = n < N
    state_mask = has_p[:, None] & has_n[None, :]
    state_at = p[:, None] * N + n[None, :]
    state_base = (batch * heads + head) * (P * N)
    if initial is not None:
        state = tl.load(initial + state_base + state_at, mask=state_mask, other=0.0)
    else:
        state = tl.zeros([WIDTH, STATES_TILE], tl.float32)
    chunks = tl.cdiv(length, Q)
    for chunk in range(0, chunks):
        base = ((batch * (chunks + 1) + chunk) * heads + head) * (P * N)
        tl.store(checkpoints + base + state_at, state, mask=state_mask)
        first = chunk * Q
        present = first + t < length
        row = (batch * heads + head) * chunks + chunk
        d, _, _, rest, everything = _load_decays(sizes, high, low, numbers, row, Q)
        signal = _load(x, batch, head, first, t, p, present, has_p)
        b_tile = _load(b, batch, group, first, t, n, present, has_n)
        weighted = (signal.to(tl.float32) * (d * rest)[:, None]).to(signal.dtype)
        state = _keep(state, everything, numbers)
        state += tl.dot(tl.trans(weighted), b_tile, input_precision=PRECISION)
    tl.store(last + state_base + state_at, state, mask=state_mask)


@triton.jit(do_not_specialize=["length"])
def ssd_outputs(
    x, b, c, D, z, sizes, high, low, numbers, checkpoints, out,
    length, heads, heads_of_group, blocks,
    P: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, STATES_TILE: tl.constexpr,
    Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write out; grid: tiles of channels, heads, chunks, batch entries."""
    program = tl.program_id(0)
    chunks = tl.cdiv(length, Q)
    head = (program // blocks % heads).to(tl.int64)
    chunk = program // blocks // heads % chunks
    batch = (program // blocks // heads // chunks).to(tl.int64)
    group = head // heads_of_group
    p = program % blocks * WIDTH + tl.arange(0, WIDTH)
    t = tl.arange(0, Q)
    has_p = p < P
    first = chunk * Q
    present = first + t < length
    row = (batch * heads + head) * chunks + chunk
    d, decay, upto, _, _ = _load_decays(sizes, high, low, numbers, row, Q)
    signal = _load(x, batch, head, first, t, p, present, has_p)
    base = ((batch * (chunks + 1) + chunk) * heads + head) * (P * N)
    scores = tl.zeros([Q, Q], tl.float32)
    across = tl.zeros([Q, WIDTH], tl.float32)
    for tile in range(0, N, STATES_TILE):
        n = tile + tl.arange(0, STATES_TILE)
        has_n = n < N
        b_tile = _load(b, batch, group, first, t, n, present, has_n)
        c_tile = _load(c, batch, group, first, t, n, present, has_n)
        scores = tl.dot(c_tile, tl.trans(b_tile), scores, input_precision=PRECISION)
        at = p[:, None] * N + n[None, :]
        state = tl.load(checkpoints + base + at, mask=has_p[:, None] & has_n[None, :], other=0.0)
        c_single = c_tile.to(tl.float32)
        across = tl.dot(c_single, tl.trans(state), across, input_precision=PRECISION)
    weights = (scores * decay * d[None, :]).to(signal.dtype)
    y = tl.dot(weights, signal, upto[:, None] * across, input_precision=PRECISION)
    if D is not None:
        skip = tl.load(D + head * P + p, mask=has_p, other=0.0)
        y += skip[None, :] * signal.to(tl.float32)
    if z is not None:
        gate = _load(z, batch, head, first, t, p, present, has_p).to(tl.float32)
        y *= gate * sigmoid(gate)
    base = ((batch * length + first) * heads + head) * P
    at = t[:, None] * (heads * P) + p[None, :]
    tl.store(out + base + at, y, mask=present[:, None] & has_p[None, :])


@triton.jit
def _load_gated(grad_out, z, batch, head, first, t, p, present, has_p):
    """The gradient of the output in front of the gate, float32."""
    dy = _load(grad_out, batch, head, first, t, p, present, has_p).to(tl.float32)
    if z is not None:
        gate = _load(z, batch, head, first, t, p, present, has_p).to(tl.float32)
        dy *= gate * sigmoid(gate)
    return dy


@triton.jit(do_not_specialize=["length"])
def ssd_adjoint(
    grad_out, grad_last, c, z, sizes, high, low, numbers, flows, grad_initial,
    length, heads, heads_of_group, blocks,
    P: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, STATES_TILE: tl.constexpr,
    Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the states behind every chunk; grid as that of the states."""
    tiles: tl.constexpr = (N + STATES_TILE - 1) // STATES_TILE
    n = tl.program_id(0) % tiles * STATES_TILE + tl.arange(0, STATES_TILE)
    program = tl.program_id(0) // tiles
    head = (program // blocks % heads).to(tl.int64)
    batch = (program // blocks // heads).to(tl.int64)
    group = head // heads_of_group
    p = program % blocks * WIDTH + tl.arange(0, WIDTH)
    t = tl.arange(0, Q)
    has_p = p < P
    has_n = n < N
    state_mask = has_p[:, None] & has_n[None, :]
    state_at = p[:, None] * N + n[None, :]
    state_base = (batch * heads + head) * (P * N)
    flow = tl.load(grad_last + state_base + state_at, mask=state_mask, other=0.0)
    chunks = tl.cdiv(length, Q)
    for back in range(0, chunks):
        chunk = chunks - 1 - back
        base = ((batch * (chunks + 1) + chunk) * heads + head) * (P * N)
        tl.store(flows + base + state_at, flow, mask=state_mask)
        first = chunk * Q
        present = first + t < length
        row = (batch * heads + head) * chunks + chunk
        _, _, upto, _, everything = _load_decays(sizes, high, low, numbers, row, Q)
        c_tile = _load(c, batch, group, first, t, n, present, has_n)
        dy = _load_gated(grad_out, z, batch, head, first, t, p, present, has_p)
        weighted = (dy * upto[:, None]).to(c_tile.dtype)
        flow = _keep(flow, everything, numbers)
        flow += tl.dot(tl.trans(weighted), c_tile, input_precision=PRECISION)
    if grad_initial is not None:
        tl.store(grad_initial + state_base + state_at, flow, mask=state_mask)


@triton.jit(do_not_specialize=["length"])
def differentiate_signals(
    grad_out, x, A, b, c, D, z, sizes, high, low, numbers, checkpoints, flows,
    grad_x, grad_sizes, grad_A, grad_D, grad_z, length, heads, heads_of_group, blocks, batches,
    P: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, STATES_TILE: tl.constexpr,
    Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of x, z and the step sizes; grid as that of the outputs.

    Tables: grad_sizes [tile, batch, length, head], grad_A [tile, batch, chunk, head], grad_D
    [batch, chunk, head, P]. What comes through pairs of steps is added by `differentiate_decays`.
    """
    program = tl.program_id(0)
    chunks = tl.cdiv(length, Q)
    block = program % blocks
    head = (program // blocks % heads).to(tl.int64)
    chunk = program // blocks // heads % chunks
    batch = (program // blocks // heads // chunks).to(tl.int64)
    group = head // heads_of_group
    p = block * WIDTH + tl.arange(0, WIDTH)
    t = tl.arange(0, Q)
    has_p = p < P
    first = chunk * Q
    present = first + t < length
    state_base = ((batch * (chunks + 1) + chunk) * heads + head) * (P * N)
    tile_mask = present[:, None] & has_p[None, :]
    tile_base = ((batch * length + first) * heads + head) * P
    tile_at = t[:, None] * (heads * P) + p[None, :]
    row = (batch * heads + head) * chunks + chunk
    d, decay, upto, rest, everything = _load_decays(sizes, high, low, numbers, row, Q)
    signal = _load(x, batch, head, first, t, p, present, has_p)
    single = signal.to(tl.float32)
    scores = tl.zeros([Q, Q], tl.float32)
    across = tl.zeros([Q, WIDTH], tl.float32)
    to_state = tl.zeros([Q, WIDTH], tl.float32)
    of_all = 0.0
    for tile in range(0, N, STATES_TILE):
        n = tile + tl.arange(0, STATES_TILE)
        has_n = n < N
        state_mask = has_p[:, None] & has_n[None, :]
        state_at = p[:, None] * N + n[None, :]
        b_tile = _load(b, batch, group, first, t, n, present, has_n)
        c_tile = _load(c, batch, group, first, t, n, present, has_n)
        scores = tl.dot(c_tile, tl.trans(b_tile), scores, input_precision=PRECISION)
        state = tl.load(checkpoints + state_base + state_at, mask=state_mask, other=0.0)
        small = state.to(signal.dtype)
        across = tl.dot(c_tile, tl.trans(small), across, input_precision=PRECISION)
        flow = tl.load(flows + state_base + state_at, mask=state_mask, other=0.0)
        small = flow.to(signal.dtype)
        to_state = tl.dot(b_tile, tl.trans(small), to_state, input_precision=PRECISION)
        of_all += tl.sum(tl.sum(_keep(flow * state, everything, numbers), 1), 0)
    scores *= decay
    across *= upto[:, None]
    to_state *= rest[:, None]
    dy = _load_gated(grad_out, z, batch, head, first, t, p, present, has_p)
    rounded = dy.to(signal.dtype)
    weights = scores.to(signal.dtype)
    of_driven = tl.dot(tl.trans(weights), rounded, input_precision=PRECISION)
    of_log = tl.cumsum(tl.sum(across * dy, 1), 0, reverse=True)
    skip = tl.zeros([WIDTH], tl.float32)
    if D is not None:
        skip = tl.load(D + head * P + p, mask=has_p, other=0.0)
        base = ((batch * chunks + chunk) * heads + head) * P
        tl.store(grad_D + base + p, tl.sum(dy * single, 0), mask=has_p)
    if z is not None:
        driven = (single * d[:, None]).to(signal.dtype)
        y = across + tl.dot(weights, driven, input_precision=PRECISION) + skip[None, :] * single
        gate = _load(z, batch, head, first, t, p, present, has_p).to(tl.float32)
        full = _load(grad_out, batch, head, first, t, p, present, has_p).to(tl.float32)
        tl.store(grad_z + tile_base + tile_at, full * y * silu_slope(gate), mask=tile_mask)

    of_driven += to_state
    of_rest = d * tl.sum(to_state * single, 1)

    before = tl.where(t[:, None] < t[None, :], of_rest[:, None], 0.0)
    of_log += tl.sum(before, 0) + of_all
    of_size = tl.sum(of_driven * single, 1) + tl.load(A + head) * of_log
    base = ((block * batches + batch) * length + first) * heads + head
    tl.store(grad_sizes + base + t * heads, of_size, mask=present)
    # d is 0 beyond the length
    at = ((block * batches + batch) * chunks + chunk) * heads + head
    tl.store(grad_A + at, tl.sum(d * of_log, 0))
    of_x = of_driven * d[:, None] + skip[None, :] * dy
    tl.store(grad_x + tile_base + tile_at, of_x, mask=tile_mask)


@triton.jit(do_not_specialize=["length"])
def differentiate_decays(
    grad_out, x, A, b, c, z, sizes, high, low, numbers, grad_sizes, grad_A,
    length, heads, heads_of_group, blocks, batches,
    P: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, STATES_TILE: tl.constexpr,
    Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write what the decays within a chunk give to the step sizes and to A, as a further tile.

    The log decay of step j is in the product of every pair of steps s < j <= t. Their sum is a
    product with a triangle of ones: differences of sums would leave their rounding where a long
    decay has left nothing. Grid: heads, chunks, batch entries.
    """
    program = tl.program_id(0)
    chunks = tl.cdiv(length, Q)
    head = (program % heads).to(tl.int64)
    chunk = program // heads % chunks
    batch = (program // heads // chunks).to(tl.int64)
    group = head // heads_of_group
    t = tl.arange(0, Q)
    first = chunk * Q
    present = first + t < length
    scores = tl.zeros([Q, Q], tl.float32)
    for tile in range(0, N, STATES_TILE):
        n = tile + tl.arange(0, STATES_TILE)
        b_tile = _load(b, batch, group, first, t, n, present, n < N)
        c_tile = _load(c, batch, group, first, t, n, present, n < N)
        scores = tl.dot(c_tile, tl.trans(b_tile), scores, input_precision=PRECISION)
    pairs = tl.zeros([Q, Q], tl.float32)
    for tile in range(0, P, WIDTH):
        p = tile + tl.arange(0, WIDTH)
        signal = _load(x, batch, head, first, t, p, present, p < P)
        dy = _load_gated(grad_out, z, batch, head, first, t, p, present, p < P)
        pairs = tl.dot(dy.to(signal.dtype), tl.trans(signal), pairs, input_precision=PRECISION)
    row = (batch * heads + head) * chunks + chunk
    d, decay, _, _, _ = _load_decays(sizes, high, low, numbers, row, Q)
    through = tl.where(t[:, None] > t[None, :], pairs * scores * decay * d[None, :], 0.0)
    before = (t[:, None] < t[None, :]).to(tl.float32)
    spans = tl.dot(through, before, input_precision=PRECISION)
    of_log = tl.sum(tl.where(t[:, None] >= t[None, :], spans, 0.0), 0)
    base = ((blocks * batches + batch) * length + first) * heads + head
    tl.store(grad_sizes + base + t * heads, tl.load(A + head) * of_log, mask=present)
    at = ((blocks * batches + batch) * chunks + chunk) * heads + head
    tl.store(grad_A + at, tl.sum(d * of_log, 0))


@triton.jit(do_not_specialize=["length", "parts_a_program"])
def differentiate_inputs(
    grad_out, x, b, c, z, sizes, high, low, numbers, checkpoints, flows, grad_b, grad_c,
    length, heads, heads_of_group, blocks, groups, batches, parts_a_program,
    P: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, STATES_TILE: tl.constexpr,
    Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of B and C; grid: tiles of states, slots, groups, chunks, batch entries.

    A slot adds up consecutive parts, which are a head and a tile of its channels. Tables: [slot,
    batch, length, group, N].
    """
    tiles: tl.constexpr = (N + STATES_TILE - 1) // STATES_TILE
    n = tl.program_id(0) % tiles * STATES_TILE + tl.arange(0, STATES_TILE)
    program = tl.program_id(0) // tiles
    chunks = tl.cdiv(length, Q)
    parts = heads_of_group * blocks
    slots = tl.cdiv(parts, parts_a_program)
    slot = program % slots
    group = (program // slots % groups).to(tl.int64)
    chunk = program // slots // groups % chunks
    batch = (program // slots // groups // chunks).to(tl.int64)
    t = tl.arange(0, Q)
    has_n = n < N
    first = chunk * Q
    present = first + t < length
    b_tile = _load(b, batch, group, first, t, n, present, has_n)
    c_tile = _load(c, batch, group, first, t, n, present, has_n)
    of_b = tl.zeros([Q, STATES_TILE], tl.float32)
    of_c = tl.zeros([Q, STATES_TILE], tl.float32)
    for part in range(slot * parts_a_program, tl.minimum((slot + 1) * parts_a_program, parts)):
        head = group * heads_of_group + part // blocks
        p = part % blocks * WIDTH + tl.arange(0, WIDTH)
        has_p = p < P
        state_mask = has_p[:, None] & has_n[None, :]
        state_at = p[:, None] * N + n[None, :]
        state_base = ((batch * (chunks + 1) + chunk) * heads + head) * (P * N)
        row = (batch * heads + head) * chunks + chunk
        d, decay, upto, rest, _ = _load_decays(sizes, high, low, numbers, row, Q)
        signal = _load(x, batch, head, first, t, p, present, has_p)
        dy = _load_gated(grad_out, z, batch, head, first, t, p, present, has_p)
        pairs = tl.dot(dy.to(signal.dtype), tl.trans(signal), input_precision=PRECISION)
        of_scores = (pairs * decay * d[None, :]).to(signal.dtype)
        of_c += tl.dot(of_scores, b_tile, input_precision=PRECISION)
        of_b += tl.dot(tl.trans(of_scores), c_tile, input_precision=PRECISION)
        state = tl.load(checkpoints + state_base + state_at, mask=state_mask, other=0.0)
        weighted = (dy * upto[:, None]).to(signal.dtype)
        of_c += tl.dot(weighted, state.to(signal.dtype), input_precision=PRECISION)
        flow = tl.load(flows + state_base + state_at, mask=state_mask, other=0.0)
        driven = (signal.to(tl.float32) * (d * rest)[:, None]).to(signal.dtype)
        of_b += tl.dot(driven, flow.to(signal.dtype), input_precision=PRECISION)
    base = (((slot * batches + batch) * length + first) * groups + group) * N
    at = t[:, None] * (groups * N) + n[None, :]
    mask = present[:, None] & has_n[None, :]
    tl.store(grad_b + base + at, of_b, mask=mask)
    tl.store(grad_c + base + at, of_c, mask=mask)


@triton.jit(do_not_specialize=["length"])
def differentiate_steps(
    grad_sizes, dt, bias, grad_dt, grad_pre, length, heads, blocks, batches, dt_min, dt_max,
    SOFTPLUS: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """Write grad_dt, and grad_pre in float32 for the bias; grid: chunks, heads, batch entries."""
    program = tl.program_id(0)
    chunks = tl.cdiv(length, Q)
    head = (program // chunks % heads).to(tl.int64)
    batch = (program // chunks // heads).to(tl.int64)
    t = tl.arange(0, Q)
    first = program % chunks * Q
    present = first + t < length
    total = tl.zeros([Q], tl.float32)
    for block in range(0, blocks + 1):
        base = ((block * batches + batch) * length + first) * heads + head
        total += tl.load(grad_sizes + base + t * heads, mask=present, other=0.0)
    pre = _load_pre(dt, bias, batch, head, first, t, present)
    value = pre
    if SOFTPLUS:
        value = softplus(pre)
        total *= softplus_slope(pre)
    total = tl.where((value < dt_min) | (value > dt_max), 0.0, total)
    base = (batch * length + first) * heads + head
    tl.store(grad_dt + base + t * heads, total, mask=present)
    if grad_pre is not None:
        tl.store(grad_pre + base + t * heads, total, mask=present)
