"""One side of a problem: its weights, the update of its potentials, its part of the value.

A potential of -inf belongs to a number without weight or without a partner. A NaN of any sum goes
through every function.
"""

from __future__ import annotations

import triton
import triton.language as tl

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def load_weights(weights, inside):
    """Weights, 0 outside; what no measure has is not a number."""
    weight = tl.load(weights, mask=inside, other=0.0)
    return tl.where(weight >= 0.0, weight, float("nan"))


@triton.jit
def updated(weight, lse, eps, rho, BALANCED: tl.constexpr, KL: tl.constexpr):
    """The potentials that meet the marginal, or come as close as it is worth."""
    log_weight = tl.log(weight)
    potential = eps * (log_weight - lse)
    if not BALANCED:
        tau = rho / (rho + eps)
        if KL:
            base = eps * log_weight
            potential = base + tau * (potential - base)
        else:
            potential = tau * potential
    return tl.where((weight == 0.0) | (lse == -INFINITY), -INFINITY, potential)


@triton.jit
def moved_mass(weight, before, after, lse, inverse, BALANCED: tl.constexpr):
    """Mass that an update moves; balanced, the error of the marginal."""
    total = tl.exp(before * inverse + lse)
    change = total * tl.abs(1.0 - tl.exp((after - before) * inverse))
    change = tl.where(total == 0.0, 0.0, change)
    if BALANCED:
        change = tl.where(after == -INFINITY, weight, change)
    return change


@triton.jit
def value_of(weight, total, potential, eps, rho, BALANCED: tl.constexpr, KL: tl.constexpr):
    """Each number's part of the value, in float64: total is its sum of the plan."""
    log_weight = tl.log(weight).to(tl.float64)
    slope = potential.to(tl.float64)
    if KL:
        slope -= eps * log_weight
    mass = total.to(tl.float64)
    value = tl.where(mass == 0.0, 0.0, mass * slope)
    if not BALANCED:
        entropy = mass * (tl.log(total).to(tl.float64) - log_weight)
        entropy = tl.where(mass > 0.0, entropy, mass)
        value += rho * (entropy - mass + weight)
    return value


@triton.jit
def line_lse(z, AXIS: tl.constexpr):
    """Logarithm of the sum of exp(z) along one axis of a whole matrix."""
    top = tl.max(z, AXIS)
    safe = tl.where(top == -INFINITY, 0.0, top)
    return safe + tl.log(tl.sum(tl.exp(z - tl.expand_dims(safe, AXIS)), AXIS))


@triton.jit
def advanced(eps, n_iter, done, final, moved, scaling, tol, max_iter, CHECK: tl.constexpr):
    """What follows a sweep: the eps of the next one, the sweeps that counted, whether all is done.

    Sweeps count at the final eps; `moved` is looked at with CHECK.
    """
    descends = eps > final
    following = tl.where(descends, tl.maximum(eps * scaling, final), eps)
    counted = n_iter + tl.where(descends | (done > 0.0), 0.0, 1.0)
    enough = counted >= max_iter
    if CHECK:
        enough = enough | (moved <= tol)
    finished = (done > 0.0) | ((eps <= final) & enough)
    return following, counted, tl.where(finished, 1.0, 0.0).to(tl.float64)
