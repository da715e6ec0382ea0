"""Backward: a program owns a block of columns and a share of their rows.

It runs the neurons of a row forward again, a segment of steps at a time with the potentials of the
segment in registers, and walks the segment back; of earlier segments only the potential at their
start is kept. Nothing but x is needed from the forward. Sums over neurons stay in registers over a
share of the rows and become one number a column and slot, which are added afterwards in their
order: no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._spiking.neuron import (
    DECAY_INPUT,
    INTEGRATE,
    charge,
    current,
    over_tau,
    parameter,
    reset,
    slope,
)


@triton.jit(do_not_specialize=["steps", "rows", "share", "slots"])
def differentiate(
    x,
    v0,
    tau,
    threshold,
    weight,
    bias,
    residual,
    grad_spikes,
    grad_v_last,
    grad_v_seq,
    checkpoints,
    partial,
    grad_x,
    grad_residual,
    grad_v0,
    steps,
    rows,
    columns,
    channels,
    inner,
    share,
    slots,
    x_step,
    residual_step,
    grad_step,
    tau_number,
    threshold_number,
    inverse,
    v_reset,
    alpha,
    CHARGE: tl.constexpr,
    HARD: tl.constexpr,
    DETACH: tl.constexpr,
    SURROGATE: tl.constexpr,
    EXACT_INVERSE: tl.constexpr,
    TAU_PER_CHANNEL: tl.constexpr,
    THRESHOLD_PER_CHANNEL: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradients of x, residual and v0, and [4, slots, columns] partial sums of those of
    tau, threshold, weight and bias, each where it is asked for; grid: blocks of columns, slots.

    STEPS is the length of a segment; checkpoints is [segments - 1, rows, columns].
    """
    blocks = (columns + BLOCK - 1) // BLOCK
    slot = tl.program_id(0) // blocks
    column = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    neurons = tl.cast(columns, tl.int64) * rows
    channel = column // inner % channels
    tau_n = parameter(tau, tau_number, channel, mask, TAU_PER_CHANNEL)
    threshold_n = parameter(threshold, threshold_number, channel, mask, THRESHOLD_PER_CHANNEL)
    weight_n = None
    bias_n = None
    if weight is not None:
        weight_n = tl.load(weight + channel, mask=mask, other=1.0)
        bias_n = tl.load(bias + channel, mask=mask, other=0.0)
    sum_tau = tl.zeros([BLOCK], tl.float32)
    sum_threshold = tl.zeros([BLOCK], tl.float32)
    sum_weight = tl.zeros([BLOCK], tl.float32)
    sum_bias = tl.zeros([BLOCK], tl.float32)
    final = (steps + STEPS - 1) // STEPS - 1

    for row in range(slot * share, tl.minimum((slot + 1) * share, rows)):
        n = tl.cast(columns, tl.int64) * row + column
        if v0 is None:
            start = tl.zeros([BLOCK], tl.float32) + v_reset
        else:
            start = tl.load(v0 + n, mask=mask, other=0.0)
        v = start
        for segment in range(0, final):
            for i in tl.static_range(STEPS):
                t = tl.cast(segment * STEPS + i, tl.int64)
                raw = tl.load(x + t * x_step + n, mask=mask, other=0.0).to(tl.float32)
                u = current(raw, weight_n, bias_n, residual, t * residual_step + n, mask)
                h = charge(v, u, tau_n, inverse, v_reset, CHARGE, EXACT_INVERSE)
                v = reset(h, threshold_n, v_reset, HARD)
            tl.store(checkpoints + segment * neurons + n, v, mask=mask)
        if grad_v_last is None:
            carry = tl.zeros([BLOCK], tl.float32)
        else:
            carry = tl.load(grad_v_last + n, mask=mask, other=0.0)

        for back in range(0, final + 1):
            segment = final - back
            if back > 0:
                if segment > 0:
                    v = tl.load(checkpoints + (segment - 1) * neurons + n, mask=mask, other=0.0)
                else:
                    v = start
            befores = ()
            charged = ()
            for i in tl.static_range(STEPS):
                t = tl.cast(segment * STEPS + i, tl.int64)
                seen = mask & (t < steps)
                raw = tl.load(x + t * x_step + n, mask=seen, other=0.0).to(tl.float32)
                u = current(raw, weight_n, bias_n, residual, t * residual_step + n, seen)
                h = charge(v, u, tau_n, inverse, v_reset, CHARGE, EXACT_INVERSE)
                befores = befores + (v,)  # noqa: RUF005
                charged = charged + (h,)  # noqa: RUF005
                v = reset(h, threshold_n, v_reset, HARD)

            for i in tl.static_range(STEPS - 1, -1, -1):
                t = tl.cast(segment * STEPS + i, tl.int64)
                live = t < steps
                seen = mask & live
                h = charged[i]
                d = h - threshold_n
                fired = d >= 0.0
                if grad_v_seq is not None:
                    carry += tl.load(grad_v_seq + t * neurons + n, mask=seen, other=0.0)
                of_spike = tl.zeros([BLOCK], tl.float32)
                if grad_spikes is not None:
                    loaded = tl.load(grad_spikes + t * grad_step + n, mask=seen, other=0.0)
                    of_spike = loaded.to(tl.float32)
                if not DETACH:
                    of_spike += carry * ((v_reset - h) if HARD else -threshold_n)
                through = of_spike * slope(d, alpha, SURROGATE)
                kept = tl.where(fired, 0.0, carry) if HARD else carry
                of_charge = through + kept
                of_input = of_charge
                passed = of_charge
                if CHARGE != INTEGRATE:
                    leak = over_tau(of_charge, tau_n, inverse, EXACT_INVERSE)
                    passed = of_charge - leak
                    if CHARGE == DECAY_INPUT:
                        of_input = leak
                if partial is not None:
                    raw = tl.load(x + t * x_step + n, mask=seen, other=0.0).to(tl.float32)
                    through = tl.where(live, through, 0.0)
                    sum_threshold -= through
                    if not HARD:
                        sum_threshold -= tl.where(fired & live, carry, 0.0)
                    if CHARGE != INTEGRATE:
                        above = v_reset - befores[i]
                        if CHARGE == DECAY_INPUT:
                            at = t * residual_step + n
                            above += current(raw, weight_n, bias_n, residual, at, seen)
                        sum_tau -= tl.where(live, leak / tau_n * above, 0.0)
                    sum_weight += tl.where(live, of_input * raw, 0.0)
                    sum_bias += tl.where(live, of_input, 0.0)
                if grad_residual is not None:
                    into = grad_residual + t * neurons + n
                    tl.store(into, of_input.to(grad_residual.dtype.element_ty), mask=seen)
                if grad_x is not None:
                    of_x = of_input
                    if weight is not None:
                        of_x = of_input * weight_n
                    tl.store(grad_x + t * neurons + n, of_x.to(grad_x.dtype.element_ty), mask=seen)
                carry = tl.where(live, passed, carry)
        if grad_v0 is not None:
            tl.store(grad_v0 + n, carry, mask=mask)

    if partial is not None:
        into = partial + tl.cast(slot, tl.int64) * columns + column
        stride = tl.cast(columns, tl.int64) * slots
        tl.store(into, sum_tau, mask=mask)
        tl.store(into + stride, sum_threshold, mask=mask)
        tl.store(into + 2 * stride, sum_weight, mask=mask)
        tl.store(into + 3 * stride, sum_bias, mask=mask)
