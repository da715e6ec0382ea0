"""The inverse map and its gradients: a program owns pixels, or rays of the map."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._logpolar.taps import TURN, load_pose

LOGARITHMIC, LINEAR, TABLE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
SIZES = ["fixations", "channels", "height", "width", "rings", "rays", "steps"]
EIGHTH = tl.constexpr(0.41421356237309503)  # tan(pi / 8)


@triton.jit
def arc_tangent(y, x):
    """atan2, within 3e-7; 0 at the origin."""
    longer = tl.maximum(tl.abs(x), tl.abs(y))
    shorter = tl.minimum(tl.abs(x), tl.abs(y))
    ratio = shorter / tl.where(longer > 0.0, longer, 1.0)
    # atan(a) = pi / 4 + atan((a - 1) / (a + 1)); below tan(pi / 8) a polynomial, fitted at
    # Chebyshev points to 1e-9
    steep = ratio > EIGHTH
    a = tl.where(steep, (ratio - 1.0) / (ratio + 1.0), ratio)
    z = a * a
    series = -0.142642325 + z * (0.107462983 - 0.0645937599 * z)
    angle = a + a * z * (-0.333333318 + z * (0.199995501 + z * series))
    angle = tl.where(steep, 0.125 * TURN + angle, angle)
    angle = tl.where(tl.abs(y) > tl.abs(x), 0.25 * TURN - angle, angle)
    angle = tl.where(x < 0.0, 0.5 * TURN - angle, angle)
    return tl.where(y < 0.0, -angle, angle)


@triton.jit
def place(
    column, row, x0, y0, angle, zoom, unit_x, unit_y, finite, radii, rings, rays, offset, steps,
    LAW: tl.constexpr,
):  # fmt: skip
    """Where pixels stand on a map.

    Whether the map covers them and whether they are central; the first of two rings and the share
    of the second; the same of rays; dx, dy and r in units of the radii; the derivative of the ring
    index by r, 0 where the index is clamped.
    """
    dx = tl.div_rn(column - x0, 0.0 * column + unit_x * zoom)
    dy = tl.div_rn(row - y0, 0.0 * row + unit_y * zoom)
    r = tl.sqrt_rn(dx * dx + dy * dy)
    inner, outer = tl.load(radii), tl.load(radii + rings - 1)
    covered = r <= tl.where(finite, outer, -1.0)
    central = covered & (r < 0.5 * inner)
    # no number that is not finite goes on from here
    r = tl.where(covered, r, outer)
    dx, dy = tl.where(covered, dx, outer), tl.where(covered, dy, 0.0)
    last = rings - 1.0
    at = tl.maximum(r, inner)
    if LAW == TABLE:
        below = tl.zeros(r.shape, tl.int32)  # radii[below] <= r, and the answer is less than above
        above = tl.zeros(r.shape, tl.int32) + tl.maximum(rings - 1, 1)
        for _ in range(steps):
            middle = (below + above) // 2
            up = tl.load(radii + middle) <= r
            going = above - below > 1
            below = tl.where(going & up, middle, below)
            above = tl.where(going & (up == 0), middle, above)
        start = tl.load(radii + below)
        step = tl.load(radii + tl.minimum(below + 1, rings - 1)) - start
        du = 1.0 / tl.where(step > 0.0, step, 1.0)
        u = below + (at - start) * du
    elif LAW == LOGARITHMIC:
        whole = tl.log(outer + offset) - tl.log(inner + offset)
        slope = last / tl.where(rings > 1, whole, 1.0)
        u = slope * (tl.log(at + offset) - tl.log(inner + offset))
        du = slope / (at + offset)
    else:
        slope = last / tl.where(rings > 1, outer - inner, 1.0)
        u = slope * (at - inner)
        du = 0.0 * at + slope
    du = tl.where((r >= inner) & (u >= 0.0) & (u <= last) & (rings > 1), du, 0.0)
    u = tl.where(u >= 0.0, tl.where(u <= last, u, last), 0.0)
    ring = tl.maximum(tl.minimum(tl.floor(u).to(tl.int32), rings - 2), 0)
    turn = rays / TURN * (arc_tangent(dy, dx) - angle)
    turn = turn - rays * tl.floor(turn / rays)
    # theta0 may be so large that rounding leaves the circle
    turn = tl.where(turn >= 0.0, tl.where(turn <= rays, turn, 0.0), 0.0)
    ray = tl.floor(turn).to(tl.int32)
    return covered, central, ring, u - ring, ray % rays, turn - ray, dx, dy, r, du


@triton.jit
def load_map(logpolar, plane, ring, ray, rings, rays, mask):
    return tl.load(logpolar + (plane * rings + ring) * rays + ray, mask=mask, other=0.0).to(
        tl.float32
    )


@triton.jit(do_not_specialize=SIZES)
def invert(
    logpolar, fixation, theta0, scale, radii, out, count,
    fixations, channels, height, width, rings, rays, steps, offset, fill,
    NORMALIZED: tl.constexpr, LAW: tl.constexpr, MEAN: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK pixels in CHANNELS channels: the fixations that cover them, in their order."""
    program = tl.program_id(0)
    plane_size = height * width
    blocks, groups = tl.cdiv(plane_size, BLOCK), tl.maximum(tl.cdiv(channels, CHANNELS), 1)
    pixel = program % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    program = program // blocks
    group = program % groups
    image = (program // groups).to(tl.int64)
    channel = group * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    column, row = pixel % width, pixel // width
    total = tl.zeros([CHANNELS, BLOCK], tl.float32)
    covering = tl.zeros([1, BLOCK], tl.float32)
    begin, end = image, image + 1
    if MEAN:
        begin, end = image * fixations, (image + 1) * fixations
    wrong = 0
    for index in range(begin, end):
        x0, y0, angle, zoom, unit_x, unit_y, finite = load_pose(
            fixation, theta0, scale, index, height, width, NORMALIZED
        )
        wrong += 1 - finite.to(tl.int32)
        covered, central, ring, upper, ray, later, _, _, _, _ = place(
            column, row, x0, y0, angle, zoom, unit_x, unit_y, finite, radii, rings, rays, offset,
            steps, LAW,
        )  # fmt: skip
        covering += covered.to(tl.float32)
        mask = covered & (channel < channels)
        plane = index * channels + channel
        next_ring, next_ray = tl.minimum(ring + 1, rings - 1), (ray + 1) % rays
        outside = mask & (central == 0)
        a = load_map(logpolar, plane, ring, ray, rings, rays, outside)
        b = load_map(logpolar, plane, ring, next_ray, rings, rays, outside)
        c = load_map(logpolar, plane, next_ring, ray, rings, rays, outside)
        d = load_map(logpolar, plane, next_ring, next_ray, rings, rays, outside)
        value = (1.0 - upper) * ((1.0 - later) * a + later * b)
        value += upper * ((1.0 - later) * c + later * d)
        if tl.max(central.to(tl.int32)) > 0:
            middle = tl.zeros([CHANNELS, 1], tl.float32)
            for j in range(rays):
                middle += load_map(logpolar, plane, 0, j, rings, rays, channel < channels)
            value = tl.where(central, middle / rays, value)
        total += tl.where(mask, value, 0.0)
    value = tl.where(covering > 0.0, total / tl.maximum(covering, 1.0), fill)
    value = tl.where(wrong > 0, float("nan"), value)
    inside = pixel < plane_size
    at = (image * channels + channel) * plane_size + pixel
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside & (channel < channels))
    if MEAN:
        tl.store(count + image * plane_size + pixel, covering, mask=inside & (group == 0))


@triton.jit
def handed(
    grad_out, count, index, channel, pixel, fixations, channels, plane_size, mask,
    MEAN: tl.constexpr,
):  # fmt: skip
    """The gradient that pixels hand to a fixation."""
    if MEAN:
        batch = index // fixations
        at = (batch * channels + channel) * plane_size + pixel
        covering = tl.load(count + batch * plane_size + pixel, mask=mask, other=1.0)
        return tl.load(grad_out + at, mask=mask, other=0.0).to(tl.float32) / covering
    else:
        at = (index * channels + channel) * plane_size + pixel
        return tl.load(grad_out + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=SIZES)
def differentiate_map(
    grad_out, count, fixation, theta0, scale, radii, grad_map,
    fixations, channels, height, width, rings, rays, steps, offset,
    NORMALIZED: tl.constexpr, LAW: tl.constexpr, MEAN: tl.constexpr,
    CHANNELS: tl.constexpr, RAYS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """RAYS rays of a ring in CHANNELS channels: the pixels that read them, in their order."""
    program = tl.program_id(0)
    blocks, groups = tl.cdiv(rays, RAYS), tl.cdiv(channels, CHANNELS)
    mine = program % blocks * RAYS + tl.arange(0, RAYS)
    program = program // blocks
    group = program % groups * CHANNELS
    program = program // groups
    of_ring = program % rings
    index = (program // rings).to(tl.int64)
    x0, y0, angle, zoom, unit_x, unit_y, finite = load_pose(
        fixation, theta0, scale, index, height, width, NORMALIZED
    )
    plane_size = height * width
    slot = tl.arange(0, CHANNELS)[None, :]
    total = tl.zeros([RAYS, CHANNELS], tl.float32)
    # the rows within the next ring, with a margin for rounding
    reach = tl.load(radii + tl.minimum(of_ring + 1, rings - 1))
    reach = 1.001 * tl.abs(unit_y * zoom) * reach + 1.0
    first_row = tl.minimum(tl.maximum(tl.floor(y0 - reach), 0.0), 1.0 * height).to(tl.int32)
    last_row = tl.minimum(tl.maximum(tl.floor(y0 + reach) + 1.0, 0.0), 1.0 * height).to(tl.int32)
    end = tl.where(finite, last_row * width, 0)
    for first in range(first_row * width, end, BLOCK):
        pixel = first + tl.arange(0, BLOCK)
        covered, central, ring, upper, ray, later, _, _, _, _ = place(
            pixel % width, pixel // width, x0, y0, angle, zoom, unit_x, unit_y, finite, radii,
            rings, rays, offset, steps, LAW,
        )  # fmt: skip
        next_ring, next_ray = tl.minimum(ring + 1, rings - 1), (ray + 1) % rays
        reads = (ring == of_ring) | (next_ring == of_ring)
        reads = covered & (pixel < end) & tl.where(central, of_ring == 0, reads)
        if tl.max(reads.to(tl.int32), 0) > 0:
            share = tl.where(ring == of_ring, 1.0 - upper, 0.0)
            share += tl.where(next_ring == of_ring, upper, 0.0)
            is_first = mine[:, None] == ray[None, :]
            is_second = mine[:, None] == next_ray[None, :]
            taken = tl.where(is_first, (share * (1.0 - later))[None, :], 0.0)
            taken += tl.where(is_second, (share * later)[None, :], 0.0)
            taken = tl.where(central[None, :], 1.0 / rays, taken)
            there = reads[None, :] & (is_first | is_second | central[None, :])
            for c in tl.static_range(CHANNELS):
                grad = handed(
                    grad_out, count, index, group + c, pixel, fixations, channels, plane_size,
                    reads & (group + c < channels), MEAN,
                )  # fmt: skip
                sums = tl.sum(tl.where(there, taken * grad[None, :], 0.0), 1)
                total += tl.where(slot == c, sums[:, None], 0.0)
    at = ((index * channels + group + slot) * rings + of_ring) * rays + mine[:, None]
    mask = (group + slot < channels) & (mine < rays)[:, None]
    tl.store(grad_map + at, total.to(grad_map.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def differentiate_inverse_poses(
    grad_out, count, logpolar, fixation, theta0, scale, radii, partial,
    fixations, channels, height, width, rings, rays, steps, offset,
    NORMALIZED: tl.constexpr, LAW: tl.constexpr, MEAN: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The part of BLOCK pixels in the gradients of x, y, theta0 and scale of a fixation."""
    program = tl.program_id(0)
    plane_size = height * width
    blocks = tl.cdiv(plane_size, BLOCK)
    pixel = program % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    index = (program // blocks).to(tl.int64)
    x0, y0, angle, zoom, unit_x, unit_y, finite = load_pose(
        fixation, theta0, scale, index, height, width, NORMALIZED
    )
    covered, central, ring, upper, ray, later, dx, dy, r, du = place(
        pixel % width, pixel // width, x0, y0, angle, zoom, unit_x, unit_y, finite, radii, rings,
        rays, offset, steps, LAW,
    )  # fmt: skip
    next_ring, next_ray = tl.minimum(ring + 1, rings - 1), (ray + 1) % rays
    counts = covered & (central == 0) & (r > 0.0) & (pixel < plane_size)
    of_u = tl.zeros([1, BLOCK], tl.float32)
    of_v = tl.zeros([1, BLOCK], tl.float32)
    for group in range(0, channels, CHANNELS):
        channel = group + tl.arange(0, CHANNELS)[:, None]
        mask = counts & (channel < channels)
        grad = handed(
            grad_out, count, index, channel, pixel, fixations, channels, plane_size, mask, MEAN
        )
        plane = index * channels + channel
        a = load_map(logpolar, plane, ring, ray, rings, rays, mask)
        b = load_map(logpolar, plane, ring, next_ray, rings, rays, mask)
        c = load_map(logpolar, plane, next_ring, ray, rings, rays, mask)
        d = load_map(logpolar, plane, next_ring, next_ray, rings, rays, mask)
        by_u = (1.0 - later) * (c - a) + later * (d - b)
        by_v = (1.0 - upper) * (b - a) + upper * (d - c)
        of_u += tl.sum(grad * by_u, 0)[None, :]
        of_v += tl.sum(grad * by_v, 0)[None, :]
    of_angle, of_r = of_v * rays / TURN, of_u * du
    r = tl.where(counts, r, 1.0)
    zoom = tl.where(zoom == 0.0, 1.0, zoom)  # covers nothing
    of_dx = of_r * dx / r - of_angle * dy / (r * r)
    of_dy = of_r * dy / r + of_angle * dx / (r * r)
    of_x, of_y = -of_dx / (unit_x * zoom), -of_dy / (unit_y * zoom)
    if NORMALIZED:
        of_x = of_x * unit_x
        of_y = of_y * unit_y
    to = partial + program.to(tl.int64) * 4
    tl.store(to, tl.sum(tl.where(counts, of_x, 0.0)))
    tl.store(to + 1, tl.sum(tl.where(counts, of_y, 0.0)))
    tl.store(to + 2, tl.sum(tl.where(counts, -of_angle, 0.0)))
    tl.store(to + 3, tl.sum(tl.where(counts, -(of_dx * dx + of_dy * dy) / zoom, 0.0)))
