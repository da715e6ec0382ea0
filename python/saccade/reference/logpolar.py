"""Log-polar sampling and its inverse in plain torch: the shortest version that is obviously right.

Ring k lies at radius r_k around the fixation, ray j at the angle theta_0 + 2 pi j / T (y points
down, so angles run clockwise on the screen). Foveated retinotopy, arXiv 2402.15480, section 2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ZEROS, BORDER, REFLECTION = range(3)
NONE, AREA, MIP = range(3)
LOGARITHMIC, LINEAR, TABLE = range(3)

LEVELS = 6
"""Levels of a pyramid above the image; the last one has pixels of 64 x 64."""
MAX_TAPS = 64
"""The most taps of a cell on one of its sides."""
MAX_MIP_TAPS = 4
"""The most taps of a cell along its longer side in a pyramid."""


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Heights and widths of levels 1, 2, ... of a pyramid, rounded up.

    >>> level_sizes(224, 100)[:3]
    [(112, 50), (56, 25), (28, 13)]
    """
    return [(-(-height // 2**n), -(-width // 2**n)) for n in range(1, LEVELS + 1)]


def pyramid(image: Tensor) -> Tensor:
    """Halve an image again and again: every pixel is the mean of the 2 x 2 (or fewer) below it.

    Args:
        image: [B, C, H, W], floating.

    Returns:
        [B, C, P], levels 1 to LEVELS one after another, each row-major.

    >>> pyramid(torch.ones(1, 1, 4, 4)).shape
    torch.Size([1, 1, 9])
    """
    # one channel an entry: pooling takes an empty batch, and no empty channels
    level, levels = image.flatten(0, 1)[:, None], []
    for _ in range(LEVELS):
        level = F.avg_pool2d(level, 2, ceil_mode=True)
        levels.append(level.flatten(1))
    packed: Tensor = torch.cat(levels, dim=1).unflatten(0, image.shape[:2])
    return packed


def _bilinear(image: Tensor, batch: Tensor, x: Tensor, y: Tensor, padding: int) -> Tensor:
    """Interpolate image [B, C, H, W] at pixels x, y [S, M] of entries batch [S]: [S, M, C]."""
    height, width = image.shape[-2:]
    if padding != ZEROS:
        x, y = (_into(c, n, padding) for c, n in ((x, width), (y, height)))
    flat = image.flatten(2)
    total = torch.zeros((), dtype=image.dtype, device=image.device)
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = x.detach().floor() + dx, y.detach().floor() + dy
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            value = flat[batch[:, None], :, index.long()]
            total = total + torch.where(inside[..., None], weight[..., None] * value, 0)
    return total


def _into(x: Tensor, length: int, padding: int) -> Tensor:
    """Bring coordinates into [0, length - 1]: clamped, after reflection at the pixels' edges."""
    if padding == REFLECTION:
        x = (x + 0.5).abs()
        x = x - 2 * length * (x.detach() / (2 * length)).floor()
        x = torch.minimum(x, 2 * length - x) - 0.5
    return x.clamp(0, length - 1)


def _count(side: float) -> int:
    """Taps across one side of a cell, of so many pixels."""
    if not side >= 0.25:
        return 1
    return min(MAX_TAPS, math.ceil(1 + 0.75 * min(side, 2.0 * MAX_TAPS) - 1e-3))


def _taps(
    antialias: int, radius: float, low: float, high: float, side_r: float, side_t: float
) -> tuple[list[tuple[float, float]], list[float], list[tuple[int, float]]]:
    """What a cell is sampled by: the product of radii, angles and pyramid levels.

    Returns:
        (radius, weight), offsets from the ray in rays, and (level, weight).
    """
    levels = [(0, 1.0)]
    across, along = 1, 1
    if antialias == AREA:
        across, along = _count(side_r), _count(side_t)
    elif antialias == MIP and max(side_r, side_t) > 1:
        # a cell that is longer than wide is covered by several squarish footprints
        ratio = max(side_r, side_t) / max(min(side_r, side_t), 1e-6)
        taps = math.floor(min(ratio, MAX_MIP_TAPS) + 0.5)
        across, along = (taps, 1) if side_r > side_t else (1, taps)
        lod = min(max(0.5 * math.log2(max(side_r * side_t / taps, 1e-6)), 0.0), float(LEVELS))
        level = min(math.floor(lod), LEVELS - 1)
        levels = [(level, 1 - (lod - level)), (level + 1, lod - level)]
    radii = [low + (high - low) * (i + 0.5) / across for i in range(across)]
    if across == 1:
        radii = [radius]
    # a tap stands for an area, which grows with its radius
    total = sum(radii)
    weights = [r / total if total > 0 else 1 / across for r in radii]
    offsets = [(i + 0.5) / along - 0.5 for i in range(along)]
    return list(zip(radii, weights, strict=True)), offsets, levels


def logpolar_sample(
    image: Tensor,
    pyramid: Tensor | None,
    fixation: Tensor,
    theta0: Tensor,
    scale: Tensor,
    radii: Tensor,
    edges: Tensor,
    rays: int,
    normalized: bool,
    padding: int,
    antialias: int,
) -> Tensor:
    r"""Sample an image on rings and rays around fixations.

    .. math:: O_{kj} = I(p + s\, r_k (\cos\theta_j, \sin\theta_j)), \quad
              \theta_j = \theta_0 + 2\pi j / T

    With area anti-aliasing a sample is the mean over its cell, between the edges of its ring and
    half a ray to each side, on a grid of taps about 4/3 pixels apart; with "mip" it is read from
    the pyramid.

    Args:
        image: [B, C, H, W], floating or uint8.
        pyramid: :func:`pyramid` of the image for antialias 2, else None.
        fixation: p [B, N, 2], (x, y) in pixels, or in [-1, 1] if normalized.
        theta0: [B, N], radians.
        scale: s [B, N], multiplies every radius.
        radii: r [R], in pixels, or in half widths and half heights if normalized.
        edges: [R + 1], ring k lies between edges k and k + 1.
        rays: T.
        normalized: the units above.
        padding: 0 zeros, 1 border, 2 reflection.
        antialias: 0 none, 1 area, 2 mip.

    Returns:
        [B, N, C, R, T] in the type of the image (float32 for uint8). NaN where fixation, theta0 or
        scale is not finite.

    Source:
        arXiv 2402.15480, section 2; the cells are those of the squares of a log-polar map.

    >>> radii, edges = torch.tensor([1.0, 2.0]), torch.tensor([0.7, 1.4, 2.8])
    >>> out = logpolar_sample(torch.ones(1, 3, 9, 9), None, torch.full((1, 1, 2), 4.0),
    ...     torch.zeros(1, 1), torch.ones(1, 1), radii, edges, 8, False, 0, 0)
    >>> out.shape
    torch.Size([1, 1, 3, 2, 8])
    """
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    result = image.dtype if image.is_floating_point() else dtype
    batch, channels, height, width = image.shape
    fixations = fixation.shape[1]
    levels = [image.to(dtype)]
    if antialias == MIP and pyramid is not None:
        sizes = level_sizes(height, width)
        parts = pyramid.to(dtype).split([h * w for h, w in sizes], dim=2)
        levels += [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]

    flat = (fixation.to(dtype).reshape(-1, 2), theta0.to(dtype).reshape(-1, 1),
            scale.to(dtype).reshape(-1, 1))  # fmt: skip
    finite = torch.cat(flat, dim=1).isfinite().all(1)
    center, theta, zoom = (torch.where(finite[:, None], t, 0) for t in flat)
    unit_x, unit_y = (width / 2, height / 2) if normalized else (1.0, 1.0)
    if normalized:
        size = torch.tensor([width, height], dtype=dtype, device=image.device)
        center = ((center + 1) * size - 1) / 2
    shape = (batch, fixations, channels, len(radii), rays)
    if 0 in shape:
        nothing = torch.stack([t.sum() for t in (*levels, *flat)]).sum().to(result)
        return nothing.expand(shape).clone()
    ray = torch.arange(rays, dtype=dtype, device=image.device)
    entry = torch.arange(batch, device=image.device).repeat_interleave(fixations)
    scales = zoom.detach().abs().flatten() * max(unit_x, unit_y)

    rings = []
    for k in range(len(radii)):
        radius, low, high = float(radii[k]), float(edges[k]), float(edges[k + 1])
        ring = torch.zeros(len(entry), rays, channels, dtype=dtype, device=image.device)
        for factor in scales.unique().tolist():
            side_r, side_t = factor * (high - low), factor * 2 * math.pi * radius / rays
            taps, offsets, layers = _taps(antialias, radius, low, high, side_r, side_t)
            some = (scales == factor).nonzero().flatten()
            # [T, angles, radii], and every radius' weight
            offset = torch.tensor(offsets, dtype=torch.float64).to(ray)
            turn = 2 * math.pi / rays * (ray[:, None, None] + offset[:, None])
            r, weight = torch.tensor(taps, dtype=torch.float64).to(ray).unbind(1)
            angle = theta[some, :, None, None] + turn
            reach = zoom[some, :, None, None] * r
            x = (center[some, :1, None, None] + unit_x * reach * angle.cos()).flatten(1)
            y = (center[some, 1:, None, None] + unit_y * reach * angle.sin()).flatten(1)
            total = torch.zeros((), dtype=dtype, device=image.device)
            for level, share in layers:
                at_x, at_y = (x + 0.5) / 2**level - 0.5, (y + 0.5) / 2**level - 0.5
                value = _bilinear(levels[level], entry[some], at_x, at_y, padding)
                value = value.reshape(len(some), rays, len(offsets), len(r), channels).mean(2)
                total = total + share * (weight[:, None] * value).sum(2)
            ring = ring.index_copy(0, some, total)
        rings.append(torch.where(finite[:, None, None], ring, math.nan))
    joined = torch.stack(rings, 1).permute(0, 3, 1, 2)
    return joined.reshape(shape).to(result).contiguous()


def logpolar_inverse(
    logpolar: Tensor,
    fixation: Tensor,
    theta0: Tensor,
    scale: Tensor,
    radii: Tensor,
    height: int,
    width: int,
    normalized: bool,
    law: int,
    offset: float,
    mean: bool,
    fill: float,
) -> tuple[Tensor, Tensor]:
    r"""Put a log-polar map back into an image.

    .. math:: u = (R - 1) \frac{g(r) - g(r_0)}{g(r_{R-1}) - g(r_0)}, \quad
              v = \frac{T}{2\pi} (\theta - \theta_0)

    Pixel (x, y) lies at radius r and angle theta from the fixation and reads the map at (u, v),
    linearly between rings and, around the circle, between rays. u is clamped to the innermost ring;
    below half of its radius a pixel is the ring's mean. Beyond the last ring it is the filling.

    Args:
        logpolar: [B, N, C, R, T], floating.
        fixation: [B, N, 2], as in :func:`logpolar_sample`.
        theta0: [B, N].
        scale: [B, N].
        radii: [R], increasing.
        height: H.
        width: W.
        normalized: units.
        law: g; 0: ln(r + offset), 1: r, 2: linear between the entries of the table radii.
        offset: of law 0.
        mean: average the fixations that cover a pixel.
        fill: value of uncovered pixels.

    Returns:
        out [B, C, H, W] if mean, else [B, N, C, H, W]; count [B, H, W], the number of fixations
        that cover a pixel, or [0] without mean. NaN where fixation, theta0 or scale is not finite.

    >>> out, count = logpolar_inverse(torch.ones(1, 1, 3, 2, 8), torch.full((1, 1, 2), 4.0),
    ...     torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([1.0, 3.0]), 9, 9, False, 0, 0.0,
    ...     True, 0.0)
    >>> out.shape, int(count.sum())
    (torch.Size([1, 3, 9, 9]), 29)
    """
    dtype = torch.float64 if logpolar.dtype == torch.float64 else torch.float32
    channels, rings, rays = logpolar.shape[2:]
    table = logpolar.to(dtype)
    pose = (*fixation.to(dtype).unbind(-1), theta0.to(dtype), scale.to(dtype))
    finite = torch.stack(pose).isfinite().all(0)
    cx, cy, theta, zoom = (torch.where(finite, t, 0)[..., None, None] for t in pose)
    unit_x, unit_y = (width / 2, height / 2) if normalized else (1.0, 1.0)
    if normalized:
        cx, cy = ((cx + 1) * width - 1) / 2, ((cy + 1) * height - 1) / 2
    column = torch.arange(width, dtype=dtype, device=logpolar.device)
    row = torch.arange(height, dtype=dtype, device=logpolar.device)[:, None]
    dx, dy = torch.broadcast_tensors(
        (column - cx) / (unit_x * zoom), (row - cy) / (unit_y * zoom)
    )  # [B, N, H, W]
    # a pixel on the fixation has no angle: its derivatives are zero
    square = dx * dx + dy * dy
    away = (square > 0) & square.isfinite()
    dx, dy = torch.where(away, dx, 1), torch.where(away, dy, 0)
    r = torch.where(away, (dx * dx + dy * dy).sqrt(), square.detach())
    angle = torch.where(away, torch.atan2(dy, dx), 0)

    radii = radii.to(dtype)
    covered = (r <= radii[-1]) & finite[..., None, None]
    u = _ring(r.clamp(min=0).where(covered, radii[0]), radii, law, offset).clamp(0, rings - 1)
    v = rays / (2 * math.pi) * (angle - theta)
    v = v - rays * (v.detach() / rays).floor()
    k, j = u.detach().floor().clamp(max=max(rings - 2, 0)), v.detach().floor()
    fu, fv = u - k, v - j

    flat = table.flatten(3).transpose(2, 3)  # [B, N, R T, C]
    value = torch.zeros((), dtype=dtype, device=logpolar.device)
    for ring, wu in ((k, 1 - fu), ((k + 1).clamp(max=rings - 1), fu)):
        for ray, wv in ((j % rays, 1 - fv), ((j + 1) % rays, fv)):
            index = (ring * rays + ray).long().flatten(2)[..., None].expand(-1, -1, -1, channels)
            found = flat.gather(2, index).unflatten(2, (height, width))
            value = value + (wu * wv)[..., None] * found
    center = table[:, :, :, 0].mean(-1)[:, :, None, None]
    value = torch.where((r < radii[0] / 2)[..., None], center, value)
    nothing = torch.where(finite, torch.tensor(fill, dtype=dtype, device=table.device), math.nan)
    if not mean:
        out = torch.where(covered[..., None], value, nothing[..., None, None, None])
        return out.movedim(-1, 2).to(logpolar.dtype).contiguous(), table.new_empty(0)
    count = covered.sum(1).to(dtype)
    total = torch.where(covered[..., None], value, 0).sum(1)
    out = torch.where(count[..., None] > 0, total / count.clamp(min=1)[..., None], fill)
    out = torch.where(finite.all(1)[:, None, None, None], out, math.nan)
    return out.movedim(-1, 1).to(logpolar.dtype).contiguous(), count


def _ring(r: Tensor, radii: Tensor, law: int, offset: float) -> Tensor:
    """The ring index, a real number, of radius r; not yet clamped."""
    if len(radii) == 1:
        return torch.zeros_like(r)
    last = len(radii) - 1
    if law == TABLE:
        below = (torch.searchsorted(radii, r.detach(), right=True) - 1).clamp(0, last - 1)
        return below + (r - radii[below]) / (radii[below + 1] - radii[below])
    if law == LOGARITHMIC:
        # the clamp to ring 0 comes before the logarithm, which has none at 0
        r = (torch.maximum(r, radii[0]) + offset).log()
        radii = (radii + offset).log()
    return last * (r - radii[0]) / (radii[last] - radii[0])
