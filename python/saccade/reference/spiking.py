"""Spiking neurons over T steps in plain torch: the loop that every kernel repeats, bit by bit.

One step, with the potential v of the step before and v_r = `v_reset` (0 for a soft reset):

    u = weight * x + bias + residual          (from left to right; what is absent is left out)
    h = v + (u - (v - v_r)) / tau             charge 1: the input decays
    h = v - (v - v_r) / tau + u               charge 2: it does not
    h = v + u                                 charge 0: integrate and fire
    s = 1 if h - v_threshold >= 0 else 0
    v = v_r where s else h                    hard reset, as s v_r + (1 - s) h
    v = h - s v_threshold                     soft reset

Every operation is rounded by itself: a fused multiply-add would move spikes.

Source: PLIF, arXiv 2007.05785, equations 3 to 7; surrogate gradients, arXiv 1901.09948; soft reset,
arXiv 1903.04341.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

INTEGRATE, DECAY_INPUT, LEAK = range(3)
"""How a step charges: the codes of `charge`."""

FLOAT_SPIKES, BYTE_SPIKES, BIT_SPIKES = range(3)
"""What spikes come as: the codes of `spike_code`."""

Elementwise = Callable[[Tensor, float], Tensor]


def _sigmoid_slope(d: Tensor, alpha: float) -> Tensor:
    s = torch.sigmoid(alpha * d)
    return alpha * s * (1 - s)


def _piecewise_exp(d: Tensor, alpha: float) -> Tensor:
    tail = torch.exp(-alpha * d.abs()) / 2
    return torch.where(d < 0, tail, 1 - tail)


def _piecewise_quadratic(d: Tensor, alpha: float) -> Tensor:
    inside = d.clamp(-1 / alpha, 1 / alpha)
    return 0.5 + alpha * inside - alpha**2 / 2 * inside.abs() * inside


# name: (default alpha, smooth step p with p(0) = 1/2, its derivative); the order gives the codes
SURROGATES: dict[str, tuple[float, Elementwise, Elementwise]] = {
    "sigmoid": (4.0, lambda d, a: torch.sigmoid(a * d), _sigmoid_slope),
    "atan": (
        2.0,
        lambda d, a: torch.atan(math.pi / 2 * a * d) / math.pi + 0.5,
        lambda d, a: a / 2 / (1 + (math.pi / 2 * a * d).square()),
    ),
    "piecewise_quadratic": (
        1.0,
        _piecewise_quadratic,
        lambda d, a: (a - a**2 * d.abs()).clamp(min=0),
    ),
    "piecewise_exp": (1.0, _piecewise_exp, lambda d, a: a / 2 * torch.exp(-a * d.abs())),
    "soft_sign": (
        2.0,
        lambda d, a: F.softsign(a * d) / 2 + 0.5,
        lambda d, a: a / 2 / (1 + a * d.abs()).square(),
    ),
    "super_spike": (
        1.0,
        lambda d, a: a * F.softsign(d) + 0.5,
        lambda d, a: a / (1 + d.abs()).square(),
    ),
    "erf": (
        2.0,
        lambda d, a: torch.erf(a * d) / 2 + 0.5,
        lambda d, a: a / math.sqrt(math.pi) * torch.exp(-(a * d).square()),
    ),
    "rectangle": (
        1.0,
        lambda d, a: (a * d + 0.5).clamp(0, 1),
        lambda d, a: a * (d.abs() < 0.5 / a).to(d.dtype),
    ),
}

_STEPS = tuple(SURROGATES.values())


class _Spike(torch.autograd.Function):
    """The step function; its derivative is the surrogate's."""

    generate_vmap_rule = True

    @staticmethod
    def forward(d: Tensor, surrogate: int, alpha: float) -> Tensor:
        return (d >= 0).to(d.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, float], output: Tensor) -> None:
        d, *ctx.static = inputs
        ctx.save_for_backward(d)
        ctx.save_for_forward(d)

    @staticmethod
    def _slope(ctx: Any) -> Tensor:
        surrogate, alpha = ctx.static
        slope: Tensor = _STEPS[surrogate][2](ctx.saved_tensors[0], alpha)
        return slope

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * _Spike._slope(ctx), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tangent: Tensor = tangents[0]
        return tangent * _Spike._slope(ctx)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that potentials are held in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def pack_spikes(spikes: Tensor) -> Tensor:
    """Eight spikes a byte along the last axis, low bit first; the last byte is filled with zeros.

    Args:
        spikes: [..., W], zeros and not zeros, of any type.

    Returns:
        [..., ceil(W / 8)] in uint8.

    >>> pack_spikes(torch.tensor([1, 0, 1, 0, 0, 0, 0, 0, 1])).tolist()
    [5, 1]
    """
    bits = F.pad((spikes != 0).to(torch.uint8), (0, -spikes.shape[-1] % 8)).unflatten(-1, (-1, 8))
    weights = 2 ** torch.arange(8, dtype=torch.uint8, device=spikes.device)
    packed: Tensor = (bits * weights).sum(-1, dtype=torch.uint8)
    return packed


def unpack_spikes(packed: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Undo :func:`pack_spikes`.

    Args:
        packed: [..., ceil(size / 8)] in uint8.
        size: W, spikes on the last axis.
        dtype: type of the result.

    Returns:
        [..., size], zeros and ones.

    >>> unpack_spikes(torch.tensor([5, 1], dtype=torch.uint8), 9).tolist()
    [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> places) & 1).flatten(-2)[..., :size].to(dtype)


def _column(given: Tensor | None, value: float, dtype: torch.dtype, like: Tensor) -> Tensor:
    # a tensor also for a number: torch would multiply by the number's reciprocal on a GPU
    if given is None:
        return like.new_full((1, 1), value, dtype=dtype)
    return given.to(dtype).unsqueeze(-1)


def lif(
    x: Tensor,
    v0: Tensor | None,
    tau: Tensor | None,
    v_threshold: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    tau_value: float,
    v_threshold_value: float,
    v_reset: float,
    alpha: float,
    charge: int,
    hard_reset: bool,
    detach_reset: bool,
    surrogate: int,
    smooth: bool,
    store_v: bool,
    spike_code: int,
    row: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run T steps of A * C * I neurons; the arguments are those of the compiled `lif_forward`.

    Differentiable any number of times. Half types are computed in float32, spikes come back in the
    type of x.

    Args:
        x: [T, A, C, I], C channels.
        v0: [A, C, I], the potential before the first step; None: v_reset.
        tau: [1] or [C], used instead of tau_value.
        v_threshold: [1] or [C], used instead of v_threshold_value.
        weight: [C], given together with bias.
        bias: [C].
        residual: the shape of x.
        tau_value: time constant in steps.
        v_threshold_value: potential that fires.
        v_reset: potential after a hard reset, and the one that the leak leads to; 0 for soft reset.
        alpha: width of the surrogate.
        charge: 0 integrate, 1 the input decays, 2 it does not.
        hard_reset: to v_reset, or by v_threshold.
        detach_reset: no gradient through the spike of the reset.
        surrogate: place in SURROGATES.
        smooth: put the surrogate's smooth step in place of the spike.
        store_v: return all potentials.
        spike_code: 0 the type of x, 1 uint8, 2 bits.
        row: length of the last axis that bits are packed along.

    Returns:
        spikes [T, A, C, I], or [T, A * C * I / row, ceil(row / 8)] as bits; v_last [A, C, I] in
        float32 (float64 for float64); v_seq [T, A, C, I], the potentials after each step, or [0].
    """
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return lif(
                x, v0, tau, v_threshold, weight, bias, residual, tau_value, v_threshold_value,
                v_reset, alpha, charge, hard_reset, detach_reset, surrogate, smooth, store_v,
                spike_code, row,
            )  # fmt: skip
    dtype = state_dtype(x.dtype)
    constant = _column(tau, tau_value, dtype, x)
    threshold = _column(v_threshold, v_threshold_value, dtype, x)
    u = x.to(dtype)
    if weight is not None and bias is not None:
        u = weight.to(dtype).unsqueeze(-1) * u + bias.to(dtype).unsqueeze(-1)
    if residual is not None:
        u = u + residual.to(dtype)
    v = x.new_full(x.shape[1:], v_reset, dtype=dtype) if v0 is None else v0.to(dtype)

    spikes, potentials = [], []
    for t in range(x.shape[0]):
        if charge == INTEGRATE:
            h = v + u[t]
        elif charge == DECAY_INPUT:
            h = v + (u[t] - (v - v_reset)) / constant
        else:
            h = v - (v - v_reset) / constant + u[t]
        d = h - threshold
        s = _STEPS[surrogate][1](d, alpha) if smooth else _Spike.apply(d, surrogate, alpha)
        reset = s.detach() if detach_reset else s
        v = reset * v_reset + (1 - reset) * h if hard_reset else h - reset * threshold
        spikes.append(s)
        potentials.append(v)

    if not spikes:  # T = 0
        v = v.clone()
    fired = torch.stack(spikes) if spikes else torch.zeros_like(u)
    v_seq = u.new_empty(0)
    if store_v:
        v_seq = torch.stack(potentials) if spikes else torch.zeros_like(u)
    if spike_code == FLOAT_SPIKES:
        fired = fired.to(x.dtype)
    elif spike_code == BYTE_SPIKES:
        fired = fired.to(torch.uint8)
    else:
        fired = pack_spikes(fired.detach().reshape(x.shape[0], x.shape[1:].numel() // row, row))
    return fired, v, v_seq


def spike_linear(spikes: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer over packed spikes; the arguments are those of the compiled `spike_linear`.

    Args:
        spikes: [M, ceil(I / 8)] in uint8, bits as :func:`pack_spikes` makes them.
        weight: [O, I].
        bias: [O].

    Returns:
        [M, O] in the type of weight.
    """
    return F.linear(unpack_spikes(spikes, weight.shape[1], weight.dtype), weight, bias)
