"""Kernels of the depthwise causal convolution.

Tiles are [CHANNELS, STEPS]. The backward has two: one computes the gradient of the sum before the
activation, in float32, and what it gives to the filter; one gathers the gradient of the signal.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._scan.steps import sigmoid, silu_slope


@triton.jit
def _tile_of(first, length, channels, CHANNELS: tl.constexpr, STEPS: tl.constexpr):
    """Batch entry, channels, steps from `first` on, and the number of the tile of steps."""
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, CHANNELS)
    spans = tl.cdiv(length - first, STEPS)
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    span = program // blocks % spans
    batch = (program // blocks // spans).to(tl.int64)
    return batch, channel, first + span * STEPS + tl.arange(0, STEPS), batch * spans + span


@triton.jit
def _sees(seq, batch, t, past, inside):
    """Whether steps t and past are of one sequence; seq: (pointer, batch, step)."""
    base = seq[0] + batch * seq[1]
    now = tl.load(base + t.to(tl.int64) * seq[2], mask=inside, other=0)
    then = tl.load(base + past.to(tl.int64) * seq[2], mask=inside, other=0)
    return now == then


@triton.jit
def _tap(x, initial, seq, batch, channel, t, wanted, length, back: tl.constexpr, W: tl.constexpr):
    """What step t sees `back` steps ago; x: (pointer, batch, path, row, step)."""
    past = t - back
    inside = (past >= 0) & (t < length)
    seen = inside
    if seq is not None:
        seen = inside & _sees(seq, batch, t, past, inside)
    row = channel.to(tl.int64)[:, None]
    at = x[0] + batch * x[1] + row * x[3] + past.to(tl.int64)[None, :] * x[4]
    tap = tl.load(at, mask=wanted[:, None] & seen[None, :], other=0.0).to(tl.float32)
    if initial is not None:
        early = (past < 0) & (past >= 1 - W) & (t < length)
        at = initial[0] + batch * initial[1] + row * initial[3]
        at += (past + (W - 1)).to(tl.int64)[None, :] * initial[4]
        tap += tl.load(at, mask=wanted[:, None] & early[None, :], other=0.0).to(tl.float32)
    return tap


@triton.jit
def _sum_before(
    x, weight, bias, initial, seq, batch, channel, t, wanted, length, W: tl.constexpr
):  # fmt: skip
    """What stands before the activation: the bias and the weighted taps."""
    pre = tl.zeros([channel.shape[0], t.shape[0]], tl.float32)
    if bias is not None:
        pre += tl.load(bias + channel, mask=wanted, other=0.0)[:, None]
    for back in tl.static_range(W):
        w = tl.load(weight + channel * W + (W - 1 - back), mask=wanted, other=0.0)
        tap = _tap(x, initial, seq, batch, channel, t, wanted, length, back, W)
        pre += w[:, None] * tap
    return pre


@triton.jit(do_not_specialize=["length"])
def convolve(
    x, weight, bias, initial, seq, out, length, channels,
    SILU: tl.constexpr, W: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Write out; grid: tiles of channels, tiles of steps, batch entries."""
    batch, channel, t, _ = _tile_of(0, length, channels, CHANNELS, STEPS)
    wanted = channel < channels
    y = _sum_before(x, weight, bias, initial, seq, batch, channel, t, wanted, length, W)
    if SILU:
        y *= sigmoid(y)
    at = out[0] + batch * out[1] + channel.to(tl.int64)[:, None] * out[3]
    mask = wanted[:, None] & (t < length)[None, :]
    tl.store(at + t.to(tl.int64)[None, :] * out[4], y, mask=mask)


@triton.jit(do_not_specialize=["length"])
def differentiate_filter(
    grad_out, x, weight, bias, initial, seq, grad_sum, grad_weight, grad_bias, length, channels,
    SILU: tl.constexpr, W: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Write grad_sum, and the tile's share of grad_weight and grad_bias."""
    batch, channel, t, slot = _tile_of(0, length, channels, CHANNELS, STEPS)
    wanted = channel < channels
    mask = wanted[:, None] & (t < length)[None, :]
    at = grad_out[0] + batch * grad_out[1] + channel.to(tl.int64)[:, None] * grad_out[3]
    g = tl.load(at + t.to(tl.int64)[None, :] * grad_out[4], mask=mask, other=0.0).to(tl.float32)
    if SILU:
        pre = _sum_before(x, weight, bias, initial, seq, batch, channel, t, wanted, length, W)
        g = tl.where(mask, g * silu_slope(pre), 0.0)
    at = grad_sum[0] + batch * grad_sum[1] + channel.to(tl.int64)[:, None] * grad_sum[3]
    tl.store(at + t.to(tl.int64)[None, :] * grad_sum[4], g, mask=mask)
    for back in tl.static_range(W):
        tap = _tap(x, initial, seq, batch, channel, t, wanted, length, back, W)
        share = tl.sum(g * tap, 1)
        at = (slot * channels + channel) * W + (W - 1 - back)
        tl.store(grad_weight + at, share, mask=wanted)
    if grad_bias is not None:
        tl.store(grad_bias + slot * channels + channel, tl.sum(g, 1), mask=wanted)


@triton.jit(do_not_specialize=["length"])
def differentiate_signal(
    grad_sum, weight, seq, grad_x, grad_initial, length, channels,
    FIRST: tl.constexpr, W: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Write grad_x and, for the steps from FIRST on that come before it, grad_initial."""
    batch, channel, t, _ = _tile_of(FIRST, length, channels, CHANNELS, STEPS)
    wanted = channel < channels
    row = channel.to(tl.int64)[:, None]
    total = tl.zeros([CHANNELS, STEPS], tl.float32)
    for ahead in tl.static_range(W):
        later = t + ahead
        seen = (later >= 0) & (later < length)
        if seq is not None:
            both = seen & (t >= 0)
            seen = both & _sees(seq, batch, later, t, both)
        at = grad_sum[0] + batch * grad_sum[1] + row * grad_sum[3]
        at += later.to(tl.int64)[None, :] * grad_sum[4]
        g = tl.load(at, mask=wanted[:, None] & seen[None, :], other=0.0)
        w = tl.load(weight + channel * W + (W - 1 - ahead), mask=wanted, other=0.0)
        total += w[:, None] * g
    at = grad_x[0] + batch * grad_x[1] + row * grad_x[3] + t.to(tl.int64)[None, :] * grad_x[4]
    tl.store(at, total, mask=wanted[:, None] & ((t >= 0) & (t < length))[None, :])
    if grad_initial is not None:
        at = grad_initial[0] + batch * grad_initial[1] + row * grad_initial[3]
        at += (t + (W - 1)).to(tl.int64)[None, :] * grad_initial[4]
        tl.store(at, total, mask=wanted[:, None] & ((t < 0) & (t < length))[None, :])
