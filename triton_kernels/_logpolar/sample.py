"""Sampling, and its gradient by the poses: a program owns rays, or a ring, of one fixation."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._logpolar.taps import MIP, load_pose, locate, plan_ring, read

SIZES = ["fixations", "channels", "height", "width", "rings", "rays", "pyramid_size"]


@triton.jit(do_not_specialize=SIZES)
def sample(
    image, pyramid, fixation, theta0, scale, radii, edges, out,
    fixations, channels, height, width, rings, rays, pyramid_size,
    NORMALIZED: tl.constexpr, PADDING: tl.constexpr, ANTIALIAS: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK rays of a ring in CHANNELS channels: the sum over the taps and levels."""
    program = tl.program_id(0)
    blocks, groups = tl.cdiv(rays, BLOCK), tl.cdiv(channels, CHANNELS)
    ray = program % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    program = program // blocks
    channel = program % groups * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    program = program // groups
    ring = program % rings
    index = (program // rings).to(tl.int64)

    x0, y0, angle, zoom, unit_x, unit_y, finite = load_pose(
        fixation, theta0, scale, index, height, width, NORMALIZED
    )
    low, high, center = tl.load(edges + ring), tl.load(edges + ring + 1), tl.load(radii + ring)
    factor = tl.abs(zoom) * tl.maximum(unit_x, unit_y)
    across, along, level, upper = plan_ring(low, high, center, factor, rays, ANTIALIAS)
    mask = (channel < channels) & (ray < rays)
    plane = index // fixations * channels + channel
    total = tl.zeros([CHANNELS, BLOCK], tl.float32)
    for tap in range(across * along):
        x, y, _, _, _, weight = locate(
            tap, ray, across, along, low, high, center, x0, y0, angle, zoom, unit_x, unit_y, rays
        )
        value, _, _ = read(
            image, pyramid, plane, level, x, y, height, width, pyramid_size, mask,
            PADDING, ANTIALIAS,
        )  # fmt: skip
        if ANTIALIAS == MIP:
            value = (1.0 - upper) * value
            if upper > 0.0:
                next_value, _, _ = read(
                    image, pyramid, plane, level + 1, x, y, height, width, pyramid_size, mask,
                    PADDING, ANTIALIAS,
                )  # fmt: skip
                value += upper * next_value
        total += weight * value
    total = tl.where(finite, total, float("nan"))
    at = ((index * channels + channel) * rings + ring) * rays + ray
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def differentiate_poses(
    grad_out, image, pyramid, fixation, theta0, scale, radii, edges, partial,
    fixations, channels, height, width, rings, rays, pyramid_size,
    NORMALIZED: tl.constexpr, PADDING: tl.constexpr, ANTIALIAS: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The part of a ring in the gradients of x, y, theta0 and scale, in a fixed order."""
    program = tl.program_id(0)
    ring = program % rings
    index = (program // rings).to(tl.int64)
    x0, y0, angle, zoom, unit_x, unit_y, finite = load_pose(
        fixation, theta0, scale, index, height, width, NORMALIZED
    )
    low, high, center = tl.load(edges + ring), tl.load(edges + ring + 1), tl.load(radii + ring)
    factor = tl.abs(zoom) * tl.maximum(unit_x, unit_y)
    across, along, level, upper = plan_ring(low, high, center, factor, rays, ANTIALIAS)
    of_x = tl.zeros([1, BLOCK], tl.float32)
    of_y = tl.zeros([1, BLOCK], tl.float32)
    of_angle = tl.zeros([1, BLOCK], tl.float32)
    of_zoom = tl.zeros([1, BLOCK], tl.float32)
    positions = tl.where(finite, rays * across * along, 0)
    for first in range(0, positions, BLOCK):
        position = first + tl.arange(0, BLOCK)[None, :]
        ray = position % rays
        x, y, radius, cosine, sine, weight = locate(
            position // rays, ray, across, along, low, high, center, x0, y0, angle, zoom,
            unit_x, unit_y, rays,
        )  # fmt: skip
        along_x = tl.zeros([1, BLOCK], tl.float32)
        along_y = tl.zeros([1, BLOCK], tl.float32)
        for group in range(0, channels, CHANNELS):
            channel = group + tl.arange(0, CHANNELS)[:, None]
            mask = (channel < channels) & (position < positions)
            at = ((index * channels + channel) * rings + ring) * rays + ray
            grad = weight * tl.load(grad_out + at, mask=mask, other=0.0).to(tl.float32)
            plane = index // fixations * channels + channel
            _, by_x, by_y = read(
                image, pyramid, plane, level, x, y, height, width, pyramid_size, mask,
                PADDING, ANTIALIAS,
            )  # fmt: skip
            if ANTIALIAS == MIP:
                by_x = (1.0 - upper) * by_x
                by_y = (1.0 - upper) * by_y
                if upper > 0.0:
                    _, next_x, next_y = read(
                        image, pyramid, plane, level + 1, x, y, height, width, pyramid_size, mask,
                        PADDING, ANTIALIAS,
                    )  # fmt: skip
                    by_x += upper * next_x
                    by_y += upper * next_y
            along_x += tl.sum(grad * by_x, 0)[None, :]
            along_y += tl.sum(grad * by_y, 0)[None, :]
        right, down = unit_x * radius, unit_y * radius
        of_x += along_x
        of_y += along_y
        of_angle += zoom * (along_y * down * cosine - along_x * right * sine)
        of_zoom += along_x * right * cosine + along_y * down * sine
    if NORMALIZED:
        of_x = of_x * unit_x
        of_y = of_y * unit_y
    to = partial + (index * rings + ring) * 4
    tl.store(to, tl.sum(of_x))
    tl.store(to + 1, tl.sum(of_y))
    tl.store(to + 2, tl.sum(of_angle))
    tl.store(to + 3, tl.sum(of_zoom))
