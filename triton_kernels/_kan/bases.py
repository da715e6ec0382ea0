"""The basis functions of a tile of points, their derivatives by x and by their parameters.

BASIS is the code of the schema; SILU is the base term, one function an input. OPTION is the basis'
first option: the order of the splines, rswaf's mode, whether the Fourier basis has a constant.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._kan.spline import spline, spline_slope

BSPLINE, GAUSSIAN, RSWAF, CHEBYSHEV, FOURIER, WAVELET, SILU = range(7)


@triton.jit
def features(
    x, inputs, functions, points, scales, BASIS: tl.constexpr, OPTION: tl.constexpr,
    RANGE: tl.constexpr,
):  # fmt: skip
    """[points, inputs, functions] in float32.

    x is [points, inputs] in float32. `points` is (tensor, stride of an input, how many), `scales`
    is (tensor, stride of a function), as the basis has them.
    """
    if BASIS == 0:
        rows = points[0] + inputs[None, :].to(tl.int64) * points[1]
        return spline(x, rows, points[2], functions, OPTION, RANGE)
    elif BASIS == 1:
        z = _distance(x, functions, points)
        z = z / _scale(functions, points, scales)
        return tl.exp(-z * z)
    elif BASIS == 2:
        z = _distance(x, functions, points)
        if OPTION == 0:
            z = z * _scale(functions, points, scales)
        return _sech2(z)
    elif BASIS == 3:
        return _chebyshev(_tanh(x), functions)
    elif BASIS == 4:
        frequency, phase = _frequencies(functions, points[2], OPTION)
        angle = x[:, :, None] * frequency
        return tl.where(phase == 0, tl.cos(angle), tl.sin(angle))
    else:
        return (x * tl.sigmoid(x))[:, :, None]


@triton.jit
def slopes(
    x, inputs, functions, points, scales, BASIS: tl.constexpr, OPTION: tl.constexpr,
    RANGE: tl.constexpr,
):  # fmt: skip
    """The derivatives by x of `features`."""
    if BASIS == 0:
        rows = points[0] + inputs[None, :].to(tl.int64) * points[1]
        return spline_slope(x, rows, points[2], functions, OPTION, RANGE)
    elif BASIS == 1 or BASIS == 2:
        return -by_point(x, functions, points, scales, BASIS, OPTION)
    elif BASIS == 3:
        u = _tanh(x)
        return _chebyshev_slope(u, functions) * (1.0 - u * u)[:, :, None]
    elif BASIS == 4:
        frequency, phase = _frequencies(functions, points[2], OPTION)
        angle = x[:, :, None] * frequency
        return frequency * tl.where(phase == 0, -tl.sin(angle), tl.cos(angle))
    else:
        s = tl.sigmoid(x)
        return (s * (1.0 + x * (1.0 - s)))[:, :, None]


@triton.jit
def by_point(x, functions, points, scales, BASIS: tl.constexpr, OPTION: tl.constexpr):
    """The derivatives of `features` by the centres."""
    distance = _distance(x, functions, points)
    scale = _scale(functions, points, scales)
    if BASIS == 1:
        z = distance / scale
        return 2.0 * z / scale * tl.exp(-z * z)
    else:
        z = distance
        if OPTION == 0:
            z = z * scale
        # FasterKAN's gradient has the factor that its forward leaves out
        return 2.0 * scale * _tanh(z) * _sech2(z)


@triton.jit
def by_scale(x, functions, points, scales, BASIS: tl.constexpr):
    """The derivatives of `features` by the widths, or the inverse widths."""
    distance = _distance(x, functions, points)
    scale = _scale(functions, points, scales)
    if BASIS == 1:
        z = distance / scale
        return 2.0 * z * z / scale * tl.exp(-z * z)
    else:
        z = distance * scale
        return -2.0 * distance * _tanh(z) * _sech2(z)


@triton.jit
def _distance(x, functions, points):
    centres = tl.load(points[0] + functions, mask=functions < points[2], other=0.0)
    return x[:, :, None] - centres[None, None, :]


@triton.jit
def _scale(functions, points, scales):
    scale = tl.load(scales[0] + functions * scales[1], mask=functions < points[2], other=1.0)
    return scale[None, None, :]


@triton.jit
def _tanh(x):
    small = tl.exp(-2.0 * tl.abs(x))
    # near 0 the quotient has the rounding of 1, and the series has none
    series = tl.abs(x) * (1.0 - x * x * (1.0 / 3.0 - x * x * (2.0 / 15.0)))
    size = tl.where(tl.abs(x) < 0.05, series, (1.0 - small) / (1.0 + small))
    return tl.where(x < 0.0, -size, size)


@triton.jit
def _sech2(z):
    small = tl.exp(-2.0 * tl.abs(z))
    return 4.0 * small / ((1.0 + small) * (1.0 + small))


@triton.jit
def _chebyshev(u, functions):
    """T_n(u), by the recurrence on [points, inputs]."""
    tile = tl.where(functions[None, None, :] == 0, 1.0, u[:, :, None])
    before, value = tl.full(u.shape, 1.0, tl.float32), u
    last = tl.max(functions, 0)
    for n in range(2, last + 1):
        before, value = value, 2.0 * u * value - before
        tile = tl.where(functions[None, None, :] == n, value[:, :, None], tile)
    return tl.where((u == u)[:, :, None], tile, u[:, :, None])


@triton.jit
def _chebyshev_slope(u, functions):
    """T_n'(u) = n U_{n-1}(u)."""
    n0 = functions[None, None, :]
    tile = tl.where(n0 == 0, 0.0, tl.full([u.shape[0], u.shape[1], 1], 1.0, tl.float32))
    before, value = tl.full(u.shape, 1.0, tl.float32), 2.0 * u
    last = tl.max(functions, 0)
    for n in range(2, last + 1):
        tile = tl.where(n0 == n, n * value[:, :, None], tile)
        before, value = value, 2.0 * u * value - before
    return tile


@triton.jit
def _frequencies(functions, count, DC: tl.constexpr):
    """(frequency, 0 for the cosine and 1 for the sine) of every function; the constant is cos 0."""
    waves = (count - DC) // 2
    k = functions - DC
    sine = k >= waves
    frequency = tl.where(sine, k - waves + 1, k + 1)
    frequency = tl.where(k < 0, 0, frequency)
    return frequency.to(tl.float32)[None, None, :], sine.to(tl.int32)[None, None, :]
