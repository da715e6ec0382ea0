"""Kernels of the selective scan (S6).

A program takes one batch entry and path and a tile of channels of one group, and walks the length
in chunks. Within a chunk the states of all steps come from a parallel scan over the affine maps of
the steps, along an axis that lies in a thread's registers. Tiles are [STEPS, CHANNELS, STATES].

Source: Gu and Dao, arXiv 2312.00752, algorithm 2; Blelloch, CMU-CS-90-190 (scan of affine maps).
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._scan.steps import (
    DROP,
    LOG2E,
    apply_map,
    follow,
    follow_or_drop,
    position,
    sigmoid,
    silu_slope,
    softplus,
    softplus_slope,
    starts_sequence,
)


@triton.jit
def _load_steps(x, base, where, channel, mask):
    """[STEPS, CHANNELS] of (pointer, ..., row, step) in float32; zero outside the mask."""
    offsets = where.to(tl.int64)[:, None] * x[4] + channel.to(tl.int64)[None, :] * x[3]
    return tl.load(base + offsets, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _start(x, batch, path):
    return x[0] + batch * x[1] + path * x[2]


@triton.jit
def _load_input(
    x, batch, path, group, channel, where, n, present, wanted, N, CONSTANT: tl.constexpr
):
    """B or C as [STEPS, 1, STATES], or [1, CHANNELS, STATES] where it is constant."""
    states = (n < N)[None, :]
    if CONSTANT:
        rows = x[0] + path * x[2] + channel.to(tl.int64) * x[3]
        at = rows[:, None] + n[None, :] * x[5]
        tile = tl.load(at, mask=wanted[:, None] & states, other=0.0)
        return tile.to(tl.float32)[None, :, :]
    else:
        base = _start(x, batch, path) + group * x[3]
        offsets = where.to(tl.int64)[:, None] * x[4] + n.to(tl.int64)[None, :] * x[5]
        tile = tl.load(base + offsets, mask=present[:, None] & states, other=0.0)
        return tile.to(tl.float32)[:, None, :]


@triton.jit
def _load_pre(delta, bias, batch, path, where, channel, mask, wanted, D):
    """The argument of the step size."""
    pre = _load_steps(delta, _start(delta, batch, path), where, channel, mask)
    if bias is not None:
        pre += tl.load(bias + path * D + channel, mask=wanted, other=0.0)[None, :]
    return pre


@triton.jit
def _step_size(pre, mask, SOFTPLUS: tl.constexpr):
    if SOFTPLUS:
        pre = softplus(pre)
    return tl.where(mask, pre, 0.0)


@triton.jit
def _maps(dt, a, drops, present, DROPS: tl.constexpr):
    """Decays of the steps [STEPS, CHANNELS, STATES]; 1 beyond the length, DROP at a border."""
    decay = tl.where(present[:, None, None], tl.exp2(dt[:, :, None] * a[None, :, :]), 1.0)
    if DROPS:
        decay = tl.where(drops[:, None, None], DROP, decay)
    return decay


@triton.jit
def _row(tile, t, wanted):
    """The row of a [STEPS, CHANNELS, STATES] tile at t == wanted."""
    return tl.sum(tl.where((t == wanted)[:, None, None], tile, 0.0), 0)


@triton.jit(do_not_specialize=["length", "height", "directions", "tiles"])
def scan_forward(
    u, delta, A, b, c, D, z, bias, initial, seq, out, last, checkpoints,
    length, height, directions, paths, groups, tiles, channels_of_group,
    SOFTPLUS: tl.constexpr, CONSTANT_B: tl.constexpr, CONSTANT_C: tl.constexpr,
    GATED: tl.constexpr, SAVE: tl.constexpr, N: tl.constexpr, STATES: tl.constexpr,
    CHANNELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Write out (of one path), last and checkpoints; grid: tiles, groups, paths, batch entries."""
    program = tl.program_id(0)
    tile = program % tiles
    group = (program // tiles % groups).to(tl.int64)
    path = (program // tiles // groups % paths).to(tl.int64)
    batch = (program // tiles // groups // paths).to(tl.int64)
    direction = directions >> (2 * path.to(tl.int32)) & 3
    channel_in_group = tile * CHANNELS + tl.arange(0, CHANNELS)
    wanted = channel_in_group < channels_of_group
    channel = group * channels_of_group + channel_in_group
    all_channels = groups * channels_of_group
    n = tl.arange(0, STATES)
    t = tl.arange(0, STEPS)
    state_mask = wanted[:, None] & (n < N)[None, :]
    row = (batch * paths + path) * all_channels + channel
    state_at = row[:, None] * N + n[None, :]
    a_at = (path * all_channels + channel)[:, None] * N + n[None, :]
    a = tl.load(A + a_at, mask=state_mask, other=0.0) * LOG2E
    if initial is not None:
        h = tl.load(initial + state_at, mask=state_mask, other=0.0)
    else:
        h = tl.zeros([CHANNELS, STATES], tl.float32)
    DROPS: tl.constexpr = seq is not None
    chunks = tl.cdiv(length, STEPS)

    for chunk in range(0, chunks):
        if SAVE:
            at = ((batch * paths + path) * (chunks + 1) + chunk) * N
            at = (at + n)[None, :] * all_channels + channel[:, None]
            tl.store(checkpoints + at, h, mask=state_mask)
        step = chunk * STEPS + t
        present = step < length
        where = position(step, length, height, direction)
        mask = present[:, None] & wanted[None, :]
        pre = _load_pre(delta, bias, batch, path, where, channel, mask, wanted, all_channels)
        dt = _step_size(pre, mask, SOFTPLUS)
        signal = _load_steps(u, _start(u, batch, path), where, channel, mask)
        b_tile = _load_input(
            b, batch, path, group, channel, where, n, present, wanted, N, CONSTANT_B
        )
        c_tile = _load_input(
            c, batch, path, group, channel, where, n, present, wanted, N, CONSTANT_C
        )
        drops = present
        if DROPS:
            before = position(step - 1, length, height, direction)
            drops = starts_sequence(seq, batch, where, before, step, present)
        decay = _maps(dt, a, drops, present, DROPS)
        drive = (dt * signal)[:, :, None] * b_tile
        if DROPS:
            decay, drive = tl.associative_scan((decay, drive), 0, follow_or_drop)
        else:
            decay, drive = tl.associative_scan((decay, drive), 0, follow)
        states = apply_map(decay, drive, h[None, :, :], DROPS)
        h = _row(states, t, STEPS - 1)
        y = tl.sum(states * c_tile, 2)
        if D is not None:
            skip = tl.load(D + path * all_channels + channel, mask=wanted, other=0.0)
            y += skip[None, :] * signal
        if GATED:
            gate = _load_steps(z, _start(z, batch, path), where, channel, mask)
            y *= gate * sigmoid(gate)
        offsets = where.to(tl.int64)[:, None] * out[4] + channel[None, :] * out[3]
        tl.store(_start(out, batch, path) + offsets, y, mask=mask)
    tl.store(last + state_at, h, mask=state_mask)


@triton.jit(do_not_specialize=["length", "height", "directions", "tiles", "tiles_a_program"])
def scan_backward(
    grad_out, grad_last, u, delta, A, b, c, D, z, bias, seq, checkpoints,
    grad_u, grad_delta, grad_A, grad_b, grad_c, grad_D, grad_z, grad_bias, grad_initial, outputs,
    length, height, directions, paths, groups, tiles, tiles_a_program, channels_of_group, batches,
    SOFTPLUS: tl.constexpr, CONSTANT_B: tl.constexpr, CONSTANT_C: tl.constexpr,
    N: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Gradients; grid: slots of tiles, groups, paths, batch entries.

    grad_A, grad_D, grad_bias and constant grad_b, grad_c are of one batch entry; grad_b, grad_c of
    one slot, [slot, batch, path, group, position, state], are added up over the slot's tiles.
    `outputs` gets y of one path where it is given, and grad_z otherwise.
    """
    program = tl.program_id(0)
    slots = tl.cdiv(tiles, tiles_a_program)
    slot = program % slots
    group = (program // slots % groups).to(tl.int64)
    path = (program // slots // groups % paths).to(tl.int64)
    batch = (program // slots // groups // paths).to(tl.int64)
    direction = directions >> (2 * path.to(tl.int32)) & 3
    all_channels = groups * channels_of_group
    n = tl.arange(0, STATES)
    t = tl.arange(0, STEPS)
    DROPS: tl.constexpr = seq is not None
    chunks = tl.cdiv(length, STEPS)
    table_row = ((slot * batches + batch) * paths + path) * groups + group

    for tile in range(slot * tiles_a_program, tl.minimum((slot + 1) * tiles_a_program, tiles)):
        channel_in_group = tile * CHANNELS + tl.arange(0, CHANNELS)
        wanted = channel_in_group < channels_of_group
        channel = group * channels_of_group + channel_in_group
        state_mask = wanted[:, None] & (n < N)[None, :]
        row = (batch * paths + path) * all_channels + channel
        state_at = row[:, None] * N + n[None, :]
        a_at = (path * all_channels + channel)[:, None] * N + n[None, :]
        a = tl.load(A + a_at, mask=state_mask, other=0.0)
        a2 = a * LOG2E
        flow = tl.load(grad_last + state_at, mask=state_mask, other=0.0)
        skip = tl.zeros([CHANNELS], tl.float32)
        if D is not None:
            skip = tl.load(D + path * all_channels + channel, mask=wanted, other=0.0)
        sum_a = tl.zeros([CHANNELS, STATES], tl.float32)
        sum_b = tl.zeros([CHANNELS, STATES], tl.float32)
        sum_c = tl.zeros([CHANNELS, STATES], tl.float32)
        sum_d = tl.zeros([CHANNELS], tl.float32)
        sum_bias = tl.zeros([CHANNELS], tl.float32)

        for back in range(0, chunks):
            chunk = chunks - 1 - back
            at = ((batch * paths + path) * (chunks + 1) + chunk) * N
            at = (at + n)[None, :] * all_channels + channel[:, None]
            h = tl.load(checkpoints + at, mask=state_mask, other=0.0)
            step = chunk * STEPS + t
            present = step < length
            where = position(step, length, height, direction)
            mask = present[:, None] & wanted[None, :]
            pre = _load_pre(delta, bias, batch, path, where, channel, mask, wanted, all_channels)
            dt = _step_size(pre, mask, SOFTPLUS)
            signal = _load_steps(u, _start(u, batch, path), where, channel, mask)
            b_tile = _load_input(
                b, batch, path, group, channel, where, n, present, wanted, N, CONSTANT_B
            )
            c_tile = _load_input(
                c, batch, path, group, channel, where, n, present, wanted, N, CONSTANT_C
            )
            dy = _load_steps(grad_out, _start(grad_out, batch, path), where, channel, mask)
            out_gradient = dy
            gate = dy
            if z is not None:
                gate = _load_steps(z, _start(z, batch, path), where, channel, mask)
                dy *= gate * sigmoid(gate)

            # States in front of every step: the maps of the steps before, loaded one step late.
            earlier = position(step - 1, length, height, direction)
            inside = (t > 0) & (step - 1 < length)
            late = inside[:, None] & wanted[None, :]
            pre_late = _load_pre(
                delta, bias, batch, path, earlier, channel, late, wanted, all_channels
            )
            dt_late = _step_size(pre_late, late, SOFTPLUS)
            signal_late = _load_steps(u, _start(u, batch, path), earlier, channel, late)
            b_late = _load_input(
                b, batch, path, group, channel, earlier, n, inside, wanted, N, CONSTANT_B
            )
            # Adjoints behind every step: the decays of the steps after.
            later = position(step + 1, length, height, direction)
            ahead = (t < STEPS - 1) & (step + 1 < length)
            early = ahead[:, None] & wanted[None, :]
            pre_early = _load_pre(
                delta, bias, batch, path, later, channel, early, wanted, all_channels
            )
            dt_early = _step_size(pre_early, early, SOFTPLUS)
            drops = present
            drops_late = present
            drops_early = present
            if DROPS:
                drops = starts_sequence(seq, batch, where, earlier, step, present)
                twice = position(step - 2, length, height, direction)
                drops_late = starts_sequence(seq, batch, earlier, twice, step - 1, inside)
                drops_early = starts_sequence(seq, batch, later, where, step + 1, ahead)

            decay_late = _maps(dt_late, a2, drops_late, inside, DROPS)
            drive_late = (dt_late * signal_late)[:, :, None] * b_late
            if DROPS:
                kept, added = tl.associative_scan((decay_late, drive_late), 0, follow_or_drop)
            else:
                kept, added = tl.associative_scan((decay_late, drive_late), 0, follow)
            before = apply_map(kept, added, h[None, :, :], DROPS)
            decay = tl.where(present[:, None, None], tl.exp2(dt[:, :, None] * a2[None, :, :]), 1.0)
            carried = before
            if DROPS:
                carried = tl.where(drops[:, None, None], 0.0, before)
            states = decay * carried + (dt * signal)[:, :, None] * b_tile

            decay_early = _maps(dt_early, a2, drops_early, ahead, DROPS)
            source = c_tile * dy[:, :, None]
            if DROPS:
                kept, added = tl.associative_scan(
                    (decay_early, source), 0, follow_or_drop, reverse=True
                )
            else:
                kept, added = tl.associative_scan((decay_early, source), 0, follow, reverse=True)
            adjoint = apply_map(kept, added, flow[None, :, :], DROPS)
            leaving = decay * adjoint
            if DROPS:
                leaving = tl.where(drops[:, None, None], 0.0, leaving)
            flow = _row(leaving, t, 0)

            through = leaving * carried
            of_input = tl.sum(adjoint * b_tile, 2)
            of_step = signal * of_input + tl.sum(through * a[None, :, :], 2)
            sum_a += tl.sum(through * dt[:, :, None], 0)
            of_delta = of_step
            if SOFTPLUS:
                of_delta *= softplus_slope(pre)
            of_delta = tl.where(mask, of_delta, 0.0)
            sum_bias += tl.sum(of_delta, 0)
            sum_d += tl.sum(dy * signal, 0)
            of_u = dt * of_input + skip[None, :] * dy
            at = where.to(tl.int64)[:, None] * grad_u[4] + channel[None, :] * grad_u[3]
            tl.store(_start(grad_u, batch, path) + at, of_u, mask=mask)
            at = where.to(tl.int64)[:, None] * grad_delta[4] + channel[None, :] * grad_delta[3]
            tl.store(_start(grad_delta, batch, path) + at, of_delta, mask=mask)
            if z is not None:
                y = tl.sum(states * c_tile, 2) + skip[None, :] * signal
                if outputs is not None:
                    at = where.to(tl.int64)[:, None] * outputs[4] + channel[None, :] * outputs[3]
                    tl.store(_start(outputs, batch, path) + at, y, mask=mask)
                else:
                    at = where.to(tl.int64)[:, None] * grad_z[4] + channel[None, :] * grad_z[3]
                    of_z = out_gradient * y * silu_slope(gate)
                    tl.store(_start(grad_z, batch, path) + at, of_z, mask=mask)

            of_b = adjoint * (dt * signal)[:, :, None]
            of_c = states * dy[:, :, None]
            at = (table_row * length + where)[:, None] * N + n[None, :]
            table_mask = present[:, None] & (n < N)[None, :]
            more = table_mask & (tile > slot * tiles_a_program)
            if CONSTANT_B:
                sum_b += tl.sum(of_b, 0)
            else:
                earlier_tiles = tl.load(grad_b + at, mask=more, other=0.0)
                tl.store(grad_b + at, tl.sum(of_b, 1) + earlier_tiles, mask=table_mask)
            if CONSTANT_C:
                sum_c += tl.sum(of_c, 0)
            else:
                earlier_tiles = tl.load(grad_c + at, mask=more, other=0.0)
                tl.store(grad_c + at, tl.sum(of_c, 1) + earlier_tiles, mask=table_mask)

        tl.store(grad_A + state_at, sum_a, mask=state_mask)
        if CONSTANT_B:
            tl.store(grad_b + state_at, sum_b, mask=state_mask)
        if CONSTANT_C:
            tl.store(grad_c + state_at, sum_c, mask=state_mask)
        if D is not None:
            tl.store(grad_D + row, sum_d, mask=wanted)
        if bias is not None:
            tl.store(grad_bias + row, sum_bias, mask=wanted)
        if grad_initial is not None:
            tl.store(grad_initial + state_at, flow, mask=state_mask)
        # a later tile reads what other threads of this program have stored
        tl.debug_barrier()
