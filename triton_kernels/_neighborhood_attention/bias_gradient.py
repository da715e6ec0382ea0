"""Gradient of the relative position bias: dbias[head, r] = sum of dS over all (query, key = query +
r).

A program owns a box of offsets r of one head and one slot, that is, a fixed share of the query
tiles. For a box of queries with origin p and a box of offsets with origin r, of one shape, all keys
lie in the box of twice that shape at p + r. There the score of (query m, offset o) stands in column
m + o whatever p and r are, so one gather with constant indices lines the diagonals up, and the sum
runs over rows. Slots are summed afterwards in their order: no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._neighborhood_attention.tile import (
    LOG2E,
    dense_index,
    load_rows,
    token_rows,
    window_scores,
)
from saccade.triton_kernels._neighborhood_attention.window import (
    box,
    inside,
    lift,
    query_windows,
    tile_of,
    union,
    unravel,
)


@triton.jit(do_not_specialize=["length0", "length1", "length2", "count", "share"])
def differentiate_bias(
    query,
    key,
    value,
    bias,
    grad_out,
    lse,
    delta,
    partial,
    length0,
    length1,
    length2,
    kernel,
    stride,
    dilation,
    heads,
    heads_per_kv,
    count,
    share,
    scale,
    CAUSAL: tl.constexpr,
    RANK: tl.constexpr,
    QUERY_BOX: tl.constexpr,
    KEY_BOX: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write [slots, heads, bias table] partial sums; grid: heads, boxes of offsets, slots.

    count is the number of query tiles of a head, share the number of those in a slot.
    """
    program = tl.program_id(0)
    lengths = lift(length0, length1, length2, RANK)
    head = (program % heads).to(tl.int64)
    head_kv = head // heads_per_kv
    table = (2 * kernel[0] - 1, 2 * kernel[1] - 1, 2 * kernel[2] - 1)
    boxes = (
        (table[0] + QUERY_BOX[0] - 1) // QUERY_BOX[0],
        (table[1] + QUERY_BOX[1] - 1) // QUERY_BOX[1],
        (table[2] + QUERY_BOX[2] - 1) // QUERY_BOX[2],
    )
    block = unravel(program // heads % (boxes[0] * boxes[1] * boxes[2]), boxes)
    slot = program // heads // (boxes[0] * boxes[1] * boxes[2])
    entry = (block[0] * QUERY_BOX[0], block[1] * QUERY_BOX[1], block[2] * QUERY_BOX[2])

    BLOCK: tl.constexpr = QUERY_BOX[0] * QUERY_BOX[1] * QUERY_BOX[2]
    m = box((0, 0, 0), QUERY_BOX)
    column = (m[0] * KEY_BOX[1] + m[1]) * KEY_BOX[2] + m[2]
    columns = column[:, None] + column[None, :]

    total = tl.zeros([BLOCK], tl.float32)
    for t in range(slot * share, tl.minimum((slot + 1) * share, count)):
        origin, group, n, batch = tile_of(t, lengths, dilation, QUERY_BOX)
        corner = (
            origin[0] + entry[0] - kernel[0] + 1,
            origin[1] + entry[1] - kernel[1] + 1,
            origin[2] + entry[2] - kernel[2] + 1,
        )
        first, last, _, _ = union(origin, n, kernel, stride, CAUSAL, QUERY_BOX)
        seen = (origin[0] < n[0]) & (origin[1] < n[1]) & (origin[2] < n[2])
        seen &= (corner[0] < last[0]) & (corner[0] + KEY_BOX[0] > first[0])
        seen &= (corner[1] < last[1]) & (corner[1] + KEY_BOX[1] > first[1])
        seen &= (corner[2] < last[2]) & (corner[2] + KEY_BOX[2] > first[2])
        if seen:
            queries = box(origin, QUERY_BOX)
            valid = inside(queries, n)
            starts, ends = query_windows(queries, valid, n, kernel, stride, CAUSAL)
            keys = box(corner, KEY_BOX)
            present = inside(keys, n)
            rows = token_rows(query, batch, head, queries, group, dilation)
            q = load_rows(rows, valid, HEAD_DIM, HEAD_PAD)
            rows = token_rows(grad_out, batch, head, queries, group, dilation)
            do = load_rows(rows, valid, HEAD_DIM, HEAD_PAD)
            rows = token_rows(key, batch, head_kv, keys, group, dilation)
            k = load_rows(rows, present, HEAD_DIM, HEAD_PAD)
            rows = token_rows(value, batch, head_kv, keys, group, dilation)
            v = load_rows(rows, present, HEAD_DIM, HEAD_PAD)
            index = dense_index(batch, head, queries, group, dilation, lengths, heads)
            query_lse = tl.load(lse + index, mask=valid, other=0.0) * LOG2E
            query_delta = tl.load(delta + index, mask=valid, other=0.0)
            scores = window_scores(
                q, k, scale, bias, head, queries, keys, starts, ends, False, kernel,
                0, RANK, False, PRECISION,
            )  # fmt: skip
            weights = tl.exp2(scores - query_lse[:, None])
            products = tl.dot(do, tl.trans(v), input_precision=PRECISION)
            grad_scores = weights * (products - query_delta[:, None])
            total += tl.sum(tl.gather(grad_scores, columns, 1), 0)

    offsets = box(entry, QUERY_BOX)
    row = (slot * heads + head) * table[0] + offsets[0]
    pointers = partial + (row * table[1] + offsets[1]) * table[2] + offsets[2]
    tl.store(pointers, total, mask=inside(offsets, table))
