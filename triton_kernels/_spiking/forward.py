"""Forward: a program owns a block of neurons for all time steps."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._spiking.neuron import charge, current, parameter, reset

BYTES = tl.constexpr(1)
BITS = tl.constexpr(2)


@triton.jit(do_not_specialize=["steps", "last"])
def fire(
    x,
    v0,
    tau,
    threshold,
    weight,
    bias,
    residual,
    spikes,
    v_last,
    v_seq,
    steps,
    neurons,
    channels,
    inner,
    last,
    x_step,
    residual_step,
    tau_number,
    threshold_number,
    inverse,
    v_reset,
    CHARGE: tl.constexpr,
    HARD: tl.constexpr,
    EXACT_INVERSE: tl.constexpr,
    TAU_PER_CHANNEL: tl.constexpr,
    THRESHOLD_PER_CHANNEL: tl.constexpr,
    KIND: tl.constexpr,
    AHEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write spikes, the last potentials and, where asked, all of them; grid: blocks of neurons.

    Bits are packed along rows of `last` neurons, each filled up to whole bytes. AHEAD steps are
    loaded before the first of them is used.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    n = place
    if KIND == BITS:
        width = (last + 7) // 8 * 8
        n = place // width * last + place % width
        mask = (place % width < last) & (n < neurons)
        row_bytes = neurons // last * (width // 8)
    else:
        mask = n < neurons
    channel = n // inner % channels
    tau_n = parameter(tau, tau_number, channel, mask, TAU_PER_CHANNEL)
    threshold_n = parameter(threshold, threshold_number, channel, mask, THRESHOLD_PER_CHANNEL)
    weight_n = None
    bias_n = None
    if weight is not None:
        weight_n = tl.load(weight + channel, mask=mask, other=1.0)
        bias_n = tl.load(bias + channel, mask=mask, other=0.0)
    if v0 is None:
        v = tl.zeros([BLOCK], tl.float32) + v_reset
    else:
        v = tl.load(v0 + n, mask=mask, other=0.0)

    for first in range(0, steps, AHEAD):
        # Triton unpacks no stars: tuples grow by sums
        inputs = ()
        for i in tl.static_range(AHEAD):
            t = tl.cast(first + i, tl.int64)
            loaded = tl.load(x + t * x_step + n, mask=mask & (t < steps), other=0.0)
            inputs = inputs + (loaded.to(tl.float32),)  # noqa: RUF005
        for i in tl.static_range(AHEAD):
            t = tl.cast(first + i, tl.int64)
            live = t < steps
            seen = mask & live
            u = current(inputs[i], weight_n, bias_n, residual, t * residual_step + n, seen)
            h = charge(v, u, tau_n, inverse, v_reset, CHARGE, EXACT_INVERSE)
            fired = h - threshold_n >= 0.0
            v = tl.where(live, reset(h, threshold_n, v_reset, HARD), v)
            if KIND == BITS:
                eights = tl.reshape((fired & mask).to(tl.int32), [BLOCK // 8, 8])
                packed = tl.sum(eights << tl.arange(0, 8)[None, :], 1)
                byte = tl.program_id(0).to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
                inside = live & (byte < row_bytes)
                tl.store(spikes + t * row_bytes + byte, packed.to(tl.uint8), mask=inside)
            else:
                tl.store(spikes + t * neurons + n, fired.to(spikes.dtype.element_ty), mask=seen)
            if v_seq is not None:
                tl.store(v_seq + t * neurons + n, v, mask=seen)
    tl.store(v_last + n, v, mask=mask)
