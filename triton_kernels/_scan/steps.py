"""What the kernels of the scans share: paths over a map, step sizes, gates, affine maps.

A strided tensor comes as a tuple (pointer, strides in elements ...), whose order of axes each
function names. Tensors that this package allocated are contiguous and come as plain pointers.
"""

from __future__ import annotations

import triton
import triton.language as tl

# exp2 is the instruction that a GPU has.
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# Above this, softplus is its argument.
LARGE = tl.constexpr(20.0)
# A decay that drops what comes in, instead of multiplying it: decays are never negative.
DROP = tl.constexpr(-1.0)


@triton.jit
def position(step, length, height, direction):
    """Where on a map of `height` rows a path is at a step: 0 lr, 1 rl, 2 tb, 3 bt."""
    s = tl.where(direction % 2 == 1, length - 1 - step, step)
    column = s % height * (length // height) + s // height
    return tl.where(direction >= 2, column, s)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2E))


@triton.jit
def softplus(x):
    """log(1 + exp(x)), exact for small exp(x) too."""
    y = tl.exp2(tl.minimum(x, LARGE) * LOG2E)
    one = 1.0 + y
    log = tl.where(one == 1.0, y, tl.log(one) * (y / tl.where(one == 1.0, 1.0, one - 1.0)))
    # a comparison that lets NaN through
    return tl.where(x > LARGE, x, log + (x - x))


@triton.jit
def softplus_slope(x):
    return tl.where(x > LARGE, 1.0, sigmoid(x))


@triton.jit
def silu_slope(x):
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


@triton.jit
def follow(a1, b1, a2, b2):
    """The affine map (a1, b1) and then (a2, b2): x -> a2 (a1 x + b1) + b2."""
    return a1 * a2, a2 * b1 + b2


@triton.jit
def follow_or_drop(a1, b1, a2, b2):
    """As `follow`, for maps that may drop their argument: a is DROP."""
    dropped = (a1 < 0.0) | (a2 < 0.0)
    return tl.where(dropped, DROP, a1 * a2), tl.where(a2 < 0.0, b2, a2 * b1 + b2)


@triton.jit
def apply_map(a, b, x, DROPS: tl.constexpr):
    """The image a x + b of x, or b where a drops."""
    if DROPS:
        return tl.where(a < 0.0, b, a * x + b)
    return a * x + b


@triton.jit
def starts_sequence(seq, batch, here, before, step, present):
    """Whether another sequence begins at each step; seq: (pointer, batch, step)."""
    base = seq[0] + batch * seq[1]
    inside = present & (step > 0)
    now = tl.load(base + here.to(tl.int64) * seq[2], mask=inside, other=0)
    past = tl.load(base + before.to(tl.int64) * seq[2], mask=inside, other=0)
    return now != past
