"""Where samples are taken: the pose of a fixation, the taps of a ring, pixels around a position."""

from __future__ import annotations

import triton
import triton.language as tl

ZEROS, BORDER, REFLECTION = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
NONE, AREA, MIP = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
LEVELS, MAX_TAPS, MAX_MIP_TAPS = tl.constexpr(6), tl.constexpr(64), tl.constexpr(4)
TURN = tl.constexpr(6.283185307179586)
LARGEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def load_pose(fixation, theta0, scale, index, height, width, NORMALIZED: tl.constexpr):
    """x, y, theta0, scale, the units of both axes, and whether all are finite; zeros if not."""
    x, y = tl.load(fixation + 2 * index), tl.load(fixation + 2 * index + 1)
    angle, zoom = tl.load(theta0 + index), tl.load(scale + index)
    finite = (tl.abs(x) <= LARGEST) & (tl.abs(y) <= LARGEST)
    finite = finite & (tl.abs(angle) <= LARGEST) & (tl.abs(zoom) <= LARGEST)
    x, y = tl.where(finite, x, 0.0), tl.where(finite, y, 0.0)
    angle, zoom = tl.where(finite, angle, 0.0), tl.where(finite, zoom, 0.0)
    # made of a size to be tensors in both branches
    unit_x, unit_y = 1.0 + 0.0 * width, 1.0 + 0.0 * height
    if NORMALIZED:
        unit_x, unit_y = 0.5 * width, 0.5 * height
        x = ((x + 1.0) * width - 1.0) * 0.5
        y = ((y + 1.0) * height - 1.0) * 0.5
    return x, y, angle, zoom, unit_x, unit_y, finite


@triton.jit
def count_taps(side):
    """Taps across a side of so many pixels."""
    bounded = tl.where(side >= 0.25, tl.minimum(side, 2.0 * MAX_TAPS), 0.0)
    taps = tl.ceil(1.0 + 0.75 * bounded - 1e-3).to(tl.int32)
    return tl.where(side >= 0.25, tl.minimum(taps, MAX_TAPS), 1)


@triton.jit
def plan_ring(low, high, center, factor, rays, ANTIALIAS: tl.constexpr):
    """Taps across and along a cell, the first level, and the share of the level after it."""
    side_r = factor * (high - low)
    side_t = factor * TURN * center / (1.0 * rays)
    upper = 0.0 * side_r
    level = upper.to(tl.int32)
    across = level + 1
    along = level + 1
    if ANTIALIAS == AREA:
        across, along = count_taps(side_r), count_taps(side_t)
    elif ANTIALIAS == MIP:
        longer, shorter = tl.maximum(side_r, side_t), tl.minimum(side_r, side_t)
        coarse = longer > 1.0
        # a cell that is longer than wide is covered by several squarish footprints
        ratio = longer / tl.maximum(shorter, 1e-6)
        taps = (tl.minimum(ratio, 1.0 * MAX_MIP_TAPS) + 0.5).to(tl.int32)
        taps = tl.where(coarse, taps, 1)
        across = tl.where(side_r > side_t, taps, 1)
        along = tl.where(side_r > side_t, 1, taps)
        area = tl.maximum(side_r * side_t / (1.0 * taps), 1e-6)
        lod = tl.minimum(tl.maximum(0.5 * tl.log2(area), 0.0), 1.0 * LEVELS)
        lod = tl.where(coarse, lod, 0.0)
        level = tl.minimum(tl.floor(lod).to(tl.int32), LEVELS - 1)
        upper = lod - level
    return across, along, level, upper


@triton.jit
def tap_radius(i, across, low, high, center):
    """Radius of the i-th tap across a cell."""
    return tl.where(across == 1, center, low + (high - low) * (i + 0.5) / (1.0 * across))


@triton.jit
def locate(
    tap, ray, across, along, low, high, center, pose_x, pose_y, angle, zoom, unit_x, unit_y, rays
):  # fmt: skip
    """x, y, radius, cosine, sine and weight of a tap of a ray."""
    radius = tap_radius(tap // along, across, low, high, center)
    mean = 0.5 * (low + high)
    # a tap stands for an area, which grows with its radius
    share = tl.where((across > 1) & (mean > 0.0), radius / mean, 1.0)
    weight = share / (1.0 * across * along)
    offset = (tap % along + 0.5) / (1.0 * along) - 0.5
    at = angle + TURN / (1.0 * rays) * (ray + offset)
    cosine, sine = tl.cos(at), tl.sin(at)
    x = pose_x + unit_x * zoom * radius * cosine
    y = pose_y + unit_y * zoom * radius * sine
    return x, y, radius, cosine, sine, weight


@triton.jit
def onto_axis(x, length, PADDING: tl.constexpr):
    """A coordinate on an axis of `length` pixels, bounded, and its derivative, 1, 0 or -1."""
    n = 1.0 * length
    direction = tl.full(x.shape, 1.0, tl.float32)
    if PADDING == REFLECTION:
        x = x + 0.5
        direction = tl.where(x < 0.0, -1.0, 1.0)
        x = tl.abs(x)
        x = x - 2.0 * n * tl.floor(x / (2.0 * n))
        direction = tl.where(x > n, -direction, direction)
        x = tl.where(x > n, 2.0 * n - x, x) - 0.5
    if PADDING != ZEROS:
        direction = tl.where((x >= 0.0) & (x <= n - 1.0), direction, 0.0)
        x = tl.where(x >= 0.0, tl.where(x <= n - 1.0, x, n - 1.0), 0.0)
    # NaN becomes -2, which is on no axis
    return tl.where(x >= -2.0, tl.where(x <= n + 1.0, x, n + 1.0), -2.0), direction


@triton.jit
def on_level(x, level):
    """A coordinate of the image on a level of its pyramid."""
    return (x + 0.5) / (1 << level) - 0.5


@triton.jit
def level_length(length, level):
    return (length + (1 << level) - 1) >> level


@triton.jit
def level_offset(height, width, level):
    """Where a level stands in a channel of the pyramid."""
    offset = 0 * level
    for i in range(1, level):
        offset += level_length(height, i) * level_length(width, i)
    return offset


@triton.jit
def load_corner(plane, channel, column, row, height, width, mask):
    """Pixels [channels, positions] of planes at the addresses `channel`; 0 off the image."""
    there = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    at = tl.where(there, row * width + column, 0)
    return tl.load(plane + channel + at, mask=mask & there, other=0.0).to(tl.float32)


@triton.jit
def interpolate(plane, channel, x, y, height, width, mask, PADDING: tl.constexpr):
    """The value at x, y and its derivatives by both."""
    x, slope_x = onto_axis(x, width, PADDING)
    y, slope_y = onto_axis(y, height, PADDING)
    column, row = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32)
    right, down = x - column, y - row
    a = load_corner(plane, channel, column, row, height, width, mask)
    b = load_corner(plane, channel, column + 1, row, height, width, mask)
    c = load_corner(plane, channel, column, row + 1, height, width, mask)
    d = load_corner(plane, channel, column + 1, row + 1, height, width, mask)
    value = (1.0 - down) * ((1.0 - right) * a + right * b)
    value += down * ((1.0 - right) * c + right * d)
    by_x = slope_x * ((1.0 - down) * (b - a) + down * (d - c))
    by_y = slope_y * ((1.0 - right) * (c - a) + right * (d - b))
    return value, by_x, by_y


@triton.jit
def read(
    image, pyramid, plane, level, x, y, height, width, pyramid_size, mask,
    PADDING: tl.constexpr, ANTIALIAS: tl.constexpr,
):  # fmt: skip
    """As `interpolate`, on a level of planes number `plane`; derivatives by x, y of the image."""
    if ANTIALIAS == MIP:
        x, y, shrink = on_level(x, level), on_level(y, level), 1.0 / (1 << level)
        h, w = level_length(height, level), level_length(width, level)
        if level == 0:
            channel = plane * (height * width)
            value, by_x, by_y = interpolate(image, channel, x, y, h, w, mask, PADDING)
        else:
            channel = plane * pyramid_size + level_offset(height, width, level)
            value, by_x, by_y = interpolate(pyramid, channel, x, y, h, w, mask, PADDING)
        return value, by_x * shrink, by_y * shrink
    else:
        channel = plane * (height * width)
        return interpolate(image, channel, x, y, height, width, mask, PADDING)
