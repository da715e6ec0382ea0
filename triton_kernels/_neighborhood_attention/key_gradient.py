"""Gradients of keys and values: a program owns a box of keys and walks the queries that see them.

Window starts and ends never decrease with the position, so those queries are an interval along each
axis. Nothing is added from two programs to one place: no atomics, the same bits in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._neighborhood_attention.tile import (
    LOG2E,
    add_key_tile,
    dense_index,
    load_rows,
    store_rows,
    token_rows,
    window_scores,
)
from saccade.triton_kernels._neighborhood_attention.window import (
    box,
    inside,
    last_of,
    lift,
    query_windows,
    tile_of,
    tile_origin,
    tiles_between,
    visitors,
    windows,
)


@triton.jit(do_not_specialize=["length0", "length1", "length2"])
def differentiate_keys(
    query,
    key,
    value,
    bias,
    grad_out,
    lse,
    delta,
    grad_key,
    grad_value,
    length0,
    length1,
    length2,
    kernel,
    stride,
    dilation,
    heads,
    heads_per_kv,
    scale,
    CAUSAL: tl.constexpr,
    RANK: tl.constexpr,
    QUERY_BOX: tl.constexpr,
    KEY_BOX: tl.constexpr,
    UNMASKED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write dK and dV of the window; grid: key heads, dilation groups, tiles, batch items."""
    program = tl.program_id(0)
    lengths = lift(length0, length1, length2, RANK)
    heads_kv = heads // heads_per_kv
    head_kv = (program % heads_kv).to(tl.int64)
    origin, group, n, batch = tile_of(program // heads_kv, lengths, dilation, KEY_BOX)
    if (origin[0] >= n[0]) | (origin[1] >= n[1]) | (origin[2] >= n[2]):
        return

    keys = box(origin, KEY_BOX)
    present = inside(keys, n)
    key_rows = token_rows(key, batch, head_kv, keys, group, dilation)
    k = load_rows(key_rows, present, HEAD_DIM, HEAD_PAD)
    value_rows = token_rows(value, batch, head_kv, keys, group, dilation)
    v = load_rows(value_rows, present, HEAD_DIM, HEAD_PAD)

    end = last_of(origin, n, KEY_BOX)
    first0, _ = visitors(origin[0], n[0], kernel[0], stride[0], CAUSAL[0])
    first1, _ = visitors(origin[1], n[1], kernel[1], stride[1], CAUSAL[1])
    first2, _ = visitors(origin[2], n[2], kernel[2], stride[2], CAUSAL[2])
    _, last0 = visitors(end[0], n[0], kernel[0], stride[0], CAUSAL[0])
    _, last1 = visitors(end[1], n[1], kernel[1], stride[1], CAUSAL[1])
    _, last2 = visitors(end[2], n[2], kernel[2], stride[2], CAUSAL[2])
    first = (first0, first1, first2)
    walk = tiles_between(first, (last0 + 1, last1 + 1, last2 + 1), QUERY_BOX)
    count = walk[0] * walk[1] * walk[2]

    BLOCK: tl.constexpr = KEY_BOX[0] * KEY_BOX[1] * KEY_BOX[2]
    grad_k = tl.zeros([BLOCK, HEAD_PAD], tl.float32)
    grad_v = tl.zeros([BLOCK, HEAD_PAD], tl.float32)
    for t in range(0, count * heads_per_kv):
        head = head_kv * heads_per_kv + t // count
        corner = tile_origin(first, t % count, walk, QUERY_BOX)
        queries = box(corner, QUERY_BOX)
        valid = inside(queries, n)
        starts, ends = query_windows(queries, valid, n, kernel, stride, CAUSAL)
        rows = token_rows(query, batch, head, queries, group, dilation)
        q = load_rows(rows, valid, HEAD_DIM, HEAD_PAD)
        rows = token_rows(grad_out, batch, head, queries, group, dilation)
        do = load_rows(rows, valid, HEAD_DIM, HEAD_PAD)
        index = dense_index(batch, head, queries, group, dilation, lengths, heads)
        query_lse = tl.load(lse + index, mask=valid, other=0.0) * LOG2E
        query_delta = tl.load(delta + index, mask=valid, other=0.0)
        whole = _seen_by_all(corner, origin, end, n, kernel, stride, CAUSAL, QUERY_BOX)
        scores = window_scores(
            k, q, scale, bias, head, queries, keys, starts, ends, whole, kernel,
            1, RANK, UNMASKED, PRECISION,
        )  # fmt: skip
        grad_k, grad_v = add_key_tile(
            grad_k, grad_v, q, do, v, scores, query_lse, query_delta, PRECISION
        )

    index = dense_index(batch, head_kv, keys, group, dilation, lengths, heads_kv)
    store_rows(grad_key + index * HEAD_DIM, grad_k * scale, present, HEAD_DIM, HEAD_PAD)
    store_rows(grad_value + index * HEAD_DIM, grad_v, present, HEAD_DIM, HEAD_PAD)


@triton.jit
def _seen_by_all(corner, origin, end, n, kernel, stride, CAUSAL, QUERY_BOX: tl.constexpr):
    """Whether every query of a box exists and sees every key from origin to end."""
    last = (
        corner[0] + QUERY_BOX[0] - 1,
        corner[1] + QUERY_BOX[1] - 1,
        corner[2] + QUERY_BOX[2] - 1,
    )
    _, ends = windows(corner, n, kernel, stride, CAUSAL)
    starts, _ = windows(last, n, kernel, stride, CAUSAL)
    whole = (last[0] < n[0]) & (starts[0] <= origin[0]) & (end[0] < ends[0])
    whole &= (last[1] < n[1]) & (starts[1] <= origin[1]) & (end[1] < ends[1])
    return whole & (last[2] < n[2]) & (starts[2] <= origin[2]) & (end[2] < ends[2])
