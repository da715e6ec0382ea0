"""One step of a neuron inside the kernels, and the surrogates.

The launches switch contraction off, and division is the IEEE one: spikes are those of the plain
formula, bit by bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTEGRATE = tl.constexpr(0)
DECAY_INPUT = tl.constexpr(1)
HALF_PI = tl.constexpr(1.5707963267948966)
INVERSE_ROOT_PI = tl.constexpr(0.5641895835477563)


@triton.jit
def parameter(values, number, channel, mask, PER_CHANNEL: tl.constexpr):
    """A constant of each neuron: the number, or in its place a tensor's one entry or channels."""
    if values is None:
        return tl.zeros(channel.shape, tl.float32) + number
    elif PER_CHANNEL:
        return tl.load(values + channel, mask=mask, other=1.0)
    else:
        return tl.zeros(channel.shape, tl.float32) + tl.load(values)


@triton.jit
def current(x, weight, bias, residual, at, mask):
    """The input of a step: the affine map and the residual, each rounded as written."""
    u = x
    if weight is not None:
        u = weight * u
        u = u + bias
    if residual is not None:
        u = u + tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    return u


@triton.jit
def over_tau(x, tau, inverse, EXACT_INVERSE: tl.constexpr):
    """Divide by tau; by a product where tau is a power of two, which has the same bits."""
    if EXACT_INVERSE:
        return x * inverse
    else:
        return tl.div_rn(x, tau)


@triton.jit
def charge(v, u, tau, inverse, v_reset, CHARGE: tl.constexpr, EXACT_INVERSE: tl.constexpr):
    """The potential before the neuron fires."""
    if CHARGE == INTEGRATE:
        return v + u
    elif CHARGE == DECAY_INPUT:
        return v + over_tau(u - (v - v_reset), tau, inverse, EXACT_INVERSE)
    else:
        return v - over_tau(v - v_reset, tau, inverse, EXACT_INVERSE) + u


@triton.jit
def reset(h, threshold, v_reset, HARD: tl.constexpr):
    """The potential after the neuron fired, or not."""
    distance = h - threshold
    if HARD:
        return tl.where(distance >= 0.0, v_reset, h)
    else:
        return tl.where(distance >= 0.0, distance, h)


@triton.jit
def slope(d, alpha, SURROGATE: tl.constexpr):
    """Derivative of the surrogate at d = h - threshold."""
    away = tl.abs(d)
    if SURROGATE == 0:
        tail = tl.exp(-alpha * away)
        return alpha * tail / ((1.0 + tail) * (1.0 + tail))
    elif SURROGATE == 1:
        y = HALF_PI * alpha * d
        return 0.5 * alpha / (1.0 + y * y)
    elif SURROGATE == 2:
        inner = alpha - alpha * alpha * away
        return tl.where(inner < 0.0, 0.0, inner)
    elif SURROGATE == 3:
        return 0.5 * alpha * tl.exp(-alpha * away)
    elif SURROGATE == 4:
        y = 1.0 + alpha * away
        return 0.5 * alpha / (y * y)
    elif SURROGATE == 5:
        y = 1.0 + away
        return alpha / (y * y)
    elif SURROGATE == 6:
        y = alpha * d
        return alpha * INVERSE_ROOT_PI * tl.exp(-y * y)
    else:
        return tl.where(away < 0.5 / alpha, alpha, 0.0)
