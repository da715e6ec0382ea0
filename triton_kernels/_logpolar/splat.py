"""Gradient of sampling by the image: a program owns a tile of pixels and looks for its samples."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._logpolar.taps import (
    MIP,
    ZEROS,
    load_pose,
    locate,
    on_level,
    onto_axis,
    plan_ring,
    tap_radius,
)


@triton.jit(
    do_not_specialize=[
        "fixations", "channels", "height", "width", "rings", "rays", "level", "level_height",
        "level_width", "begin", "plane_size",
    ]
)  # fmt: skip
def differentiate_image(
    grad_out, fixation, theta0, scale, radii, edges, grad_level,
    fixations, channels, height, width, rings, rays, level, level_height, level_width, begin,
    plane_size,
    NORMALIZED: tl.constexpr, PADDING: tl.constexpr, ANTIALIAS: tl.constexpr,
    CHANNELS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """TILE x TILE pixels of a level in CHANNELS channels: fixations, rings and taps in their order.

    A pixel takes (1 - |x - column|) (1 - |y - row|) of every sample that is closer than 1 on both
    axes. A block of samples that has none of them is left out.
    """
    program = tl.program_id(0)
    wide, tall = tl.cdiv(level_width, TILE), tl.cdiv(level_height, TILE)
    groups = tl.cdiv(channels, CHANNELS)
    left = program % wide * TILE
    program = program // wide
    top = program % tall * TILE
    program = program // tall
    group = program % groups * CHANNELS
    batch = (program // groups).to(tl.int64)
    pixel = tl.arange(0, TILE * TILE)
    column, row = left + pixel % TILE, top + pixel // TILE
    slot = tl.arange(0, CHANNELS)[None, :]
    total = tl.zeros([TILE * TILE, CHANNELS], tl.float32)

    for n in range(fixations):
        index = batch * fixations + n
        x0, y0, angle, zoom, unit_x, unit_y, finite = load_pose(
            fixation, theta0, scale, index, height, width, NORMALIZED
        )
        factor = tl.abs(zoom) * tl.maximum(unit_x, unit_y)
        for ring in range(rings):
            low, high = tl.load(edges + ring), tl.load(edges + ring + 1)
            center = tl.load(radii + ring)
            across, along, lower, upper = plan_ring(low, high, center, factor, rays, ANTIALIAS)
            positions = tl.where(finite, rays * across * along, 0)
            share = 1.0 + 0.0 * upper
            if ANTIALIAS == MIP:
                share = tl.where(level == lower, 1.0 - upper, 0.0)
                share = tl.where(level == lower + 1, upper, share)
                positions = tl.where(share > 0.0, positions, 0)
            if PADDING == ZEROS:
                # a ring that ends before the tile; with a margin for the rounding of positions
                x_level, y_level, shrink = (
                    on_level(x0, level),
                    on_level(y0, level),
                    1.0 / (1 << level),
                )
                outer = tl.abs(tap_radius(across - 1, across, low, high, center))
                outer = 1.001 * shrink * tl.abs(zoom) * tl.maximum(outer, tl.abs(low))
                far = tl.abs(x_level - left - 0.5 * TILE) > outer * unit_x + 0.5 * TILE + 2.0
                far |= tl.abs(y_level - top - 0.5 * TILE) > outer * unit_y + 0.5 * TILE + 2.0
                positions = tl.where(far, 0, positions)
            for first in range(0, positions, BLOCK):
                position = first + tl.arange(0, BLOCK)
                ray = position % rays
                x, y, _, _, _, weight = locate(
                    position // rays, ray, across, along, low, high, center, x0, y0, angle, zoom,
                    unit_x, unit_y, rays,
                )  # fmt: skip
                if ANTIALIAS == MIP:
                    x, y = on_level(x, level), on_level(y, level)
                x, _ = onto_axis(x, level_width, PADDING)
                y, _ = onto_axis(y, level_height, PADDING)
                near = (x > left - 1.0) & (x < left + TILE) & (y > top - 1.0) & (y < top + TILE)
                near = near & (position < positions)
                if tl.max(near.to(tl.int32), 0) > 0:
                    aside = 1.0 - tl.abs(x[None, :] - column[:, None])
                    below = 1.0 - tl.abs(y[None, :] - row[:, None])
                    there = near[None, :] & (aside > 0.0) & (below > 0.0)
                    taken = aside * below * (share * weight)[None, :]
                    for c in tl.static_range(CHANNELS):
                        at = ((index * channels + group + c) * rings + ring) * rays + ray
                        mask = near & (group + c < channels)
                        grad = tl.load(grad_out + at, mask=mask, other=0.0).to(tl.float32)
                        # where: what is not finite stays with the pixels that were read
                        sums = tl.sum(tl.where(there, taken * grad[None, :], 0.0), 1)
                        total += tl.where(slot == c, sums[:, None], 0.0)
    at = (batch * channels + group + slot) * plane_size + begin
    at = at + (row * level_width + column)[:, None]
    mask = (column < level_width)[:, None] & (row < level_height)[:, None]
    mask = mask & (group + slot < channels)
    tl.store(grad_level + at, total.to(grad_level.dtype.element_ty), mask=mask)
