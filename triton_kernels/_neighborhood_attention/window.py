"""Geometry inside the kernels: tiles as boxes, windows, and the queries that see a key.

Every kernel works on three axes; one- and two-dimensional inputs get leading axes of length 1.
Positions count within one dilation group: position p of group g stands at coordinate
g + p * dilation. Triples are tuples, one entry an axis.

Source: Hassani et al., arXiv 2504.16922, for windows with stride and causal axes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def window(p, n, kernel, stride, CAUSAL: tl.constexpr):
    """First key and one past the last key that position p of a group of n positions sees."""
    first = p // stride * stride
    if CAUSAL:
        leader = tl.minimum(first + stride - 1, n - 1)
        start = tl.maximum(leader - kernel + 1, 0)
        end = p + 1
    else:
        start = tl.maximum(tl.minimum(first + stride // 2 - kernel // 2, n - kernel), 0)
        end = start + kernel
    return start, end


@triton.jit
def visitors(j, n, kernel, stride, CAUSAL: tl.constexpr):
    """First and last position that see key j.

    They bound an interval, since the starts and ends of windows never decrease with the position.
    """
    if CAUSAL:
        first = j
        last = (j + kernel - stride) // stride * stride + stride - 1
    else:
        reach = kernel // 2 - stride // 2
        # The dividend is kept at zero or above: division rounds towards zero on a GPU.
        first = (tl.maximum(j - kernel + 1 + reach, 0) + stride - 1) // stride * stride
        first = tl.where(j < kernel, 0, first)
        last = (j + reach) // stride * stride + stride - 1
    return first, tl.where(j + kernel >= n, n - 1, tl.minimum(last, n - 1))


@triton.jit
def windows(p, n, kernel, stride, CAUSAL: tl.constexpr):
    """`window` of each axis: (starts, ends)."""
    start0, end0 = window(p[0], n[0], kernel[0], stride[0], CAUSAL[0])
    start1, end1 = window(p[1], n[1], kernel[1], stride[1], CAUSAL[1])
    start2, end2 = window(p[2], n[2], kernel[2], stride[2], CAUSAL[2])
    return (start0, start1, start2), (end0, end1, end2)


@triton.jit
def query_windows(queries, valid, n, kernel, stride, CAUSAL: tl.constexpr):
    """`windows` of a tile of queries; those outside the group see nothing."""
    starts, ends = windows(queries, n, kernel, stride, CAUSAL)
    return starts, (ends[0], ends[1], tl.where(valid, ends[2], 0))


@triton.jit
def union(origin, n, kernel, stride, CAUSAL: tl.constexpr, BOX: tl.constexpr):
    """Starts and ends of what the queries of a box see together, then of what all of them see."""
    first_starts, first_ends = windows(origin, n, kernel, stride, CAUSAL)
    last = last_of(origin, n, BOX)
    last_starts, last_ends = windows(last, n, kernel, stride, CAUSAL)
    return first_starts, last_ends, last_starts, first_ends


@triton.jit
def visible(starts, ends, keys, QUERY_AXIS: tl.constexpr, RANK: tl.constexpr):
    """Mask of a tile of scores: queries run along QUERY_AXIS (0: rows), keys along the other."""
    KEY_AXIS: tl.constexpr = 1 - QUERY_AXIS
    key = tl.expand_dims(keys[2], QUERY_AXIS)
    mask = (key >= tl.expand_dims(starts[2], KEY_AXIS)) & (key < tl.expand_dims(ends[2], KEY_AXIS))
    if RANK >= 2:
        key = tl.expand_dims(keys[1], QUERY_AXIS)
        mask &= (key >= tl.expand_dims(starts[1], KEY_AXIS)) & (
            key < tl.expand_dims(ends[1], KEY_AXIS)
        )
    if RANK >= 3:
        key = tl.expand_dims(keys[0], QUERY_AXIS)
        mask &= (key >= tl.expand_dims(starts[0], KEY_AXIS)) & (
            key < tl.expand_dims(ends[0], KEY_AXIS)
        )
    return mask


@triton.jit
def box(origin, BOX: tl.constexpr):
    """Positions of a box of BOX[0] * BOX[1] * BOX[2] tokens, last axis fastest."""
    m = tl.arange(0, BOX[0] * BOX[1] * BOX[2])
    return (
        origin[0] + m // (BOX[1] * BOX[2]),
        origin[1] + m // BOX[2] % BOX[1],
        origin[2] + m % BOX[2],
    )


@triton.jit
def unravel(index, shape):
    """Three coordinates of a linear index into `shape`, last axis fastest."""
    return index // (shape[1] * shape[2]), index // shape[2] % shape[1], index % shape[2]


@triton.jit
def lift(length0, length1, length2, RANK: tl.constexpr):
    """Lengths as a triple; those of absent axes are the constant 1 and fold away."""
    if RANK == 1:
        return 1, 1, length2
    elif RANK == 2:
        return 1, length1, length2
    else:
        return length0, length1, length2


@triton.jit
def tile_of(program, lengths, dilation, BOX: tl.constexpr):
    """Origin of a program's tile, its dilation group, the group's lengths, the batch item.

    Dilation groups come before tiles, so that programs that run together read the same stretch of
    memory. Tiles are those of the longest group: in a shorter one the last may be empty.
    """
    groups = dilation[0] * dilation[1] * dilation[2]
    tiles = (
        tl.cdiv(tl.cdiv(lengths[0], dilation[0]), BOX[0]),
        tl.cdiv(tl.cdiv(lengths[1], dilation[1]), BOX[1]),
        tl.cdiv(tl.cdiv(lengths[2], dilation[2]), BOX[2]),
    )
    count = tiles[0] * tiles[1] * tiles[2]
    group = unravel(program % groups, dilation)
    tile = unravel(program // groups % count, tiles)
    n = (
        tl.cdiv(lengths[0] - group[0], dilation[0]),
        tl.cdiv(lengths[1] - group[1], dilation[1]),
        tl.cdiv(lengths[2] - group[2], dilation[2]),
    )
    batch = (program // groups // count).to(tl.int64)
    return (tile[0] * BOX[0], tile[1] * BOX[1], tile[2] * BOX[2]), group, n, batch


@triton.jit
def last_of(origin, n, BOX: tl.constexpr):
    """Last position of a box that is inside the group."""
    return (
        tl.minimum(origin[0] + BOX[0] - 1, n[0] - 1),
        tl.minimum(origin[1] + BOX[1] - 1, n[1] - 1),
        tl.minimum(origin[2] + BOX[2] - 1, n[2] - 1),
    )


@triton.jit
def tiles_between(start, end, BOX: tl.constexpr):
    """Number of boxes along each axis that cover positions start to end - 1."""
    return (
        tl.cdiv(end[0] - start[0], BOX[0]),
        tl.cdiv(end[1] - start[1], BOX[1]),
        tl.cdiv(end[2] - start[2], BOX[2]),
    )


@triton.jit
def tile_origin(start, index, tiles, BOX: tl.constexpr):
    """Origin of box number `index` of a walk that begins at `start`."""
    t = unravel(index, tiles)
    return start[0] + t[0] * BOX[0], start[1] + t[1] * BOX[1], start[2] + t[2] * BOX[2]


@triton.jit
def inside(p, n):
    """Which positions of a box exist in the group."""
    valid = (p[0] >= 0) & (p[0] < n[0]) & (p[1] >= 0) & (p[1] < n[1])
    return valid & (p[2] >= 0) & (p[2] < n[2])


@triton.jit
def contains(start, end, origin, BOX: tl.constexpr):
    """Whether a box lies between start and end - 1 on every axis."""
    whole = (start[0] <= origin[0]) & (origin[0] + BOX[0] <= end[0])
    whole &= (start[1] <= origin[1]) & (origin[1] + BOX[1] <= end[1])
    return whole & (start[2] <= origin[2]) & (origin[2] + BOX[2] <= end[2])


@triton.jit
def bias_index(p, kernel):
    """Linear coordinate in the bias table, whose entries belong to differences of positions."""
    return (p[0] * (2 * kernel[1] - 1) + p[1]) * (2 * kernel[2] - 1) + p[2]
