"""Gradient of the queries: the forward's walk again, with the softmax recomputed from lse."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._neighborhood_attention.tile import (
    LOG2E,
    additional_rows,
    additional_scores,
    dense_index,
    load_rows,
    store_rows,
    token_rows,
    window_scores,
)
from saccade.triton_kernels._neighborhood_attention.window import (
    box,
    contains,
    inside,
    lift,
    query_windows,
    tile_of,
    tile_origin,
    tiles_between,
    union,
)


@triton.jit
def _add_tile(gradient, grad_out, k, v, scores, lse, delta, PRECISION: tl.constexpr):
    weights = tl.exp2(scores - lse[:, None])
    products = tl.dot(grad_out, tl.trans(v), input_precision=PRECISION)
    grad_scores = weights * (products - delta[:, None])
    return tl.dot(grad_scores.to(k.dtype), k, gradient, input_precision=PRECISION)


@triton.jit(do_not_specialize=["length0", "length1", "length2", "additional"])
def differentiate_queries(
    query,
    key,
    value,
    bias,
    additional_keys,
    additional_values,
    grad_out,
    out,
    lse,
    grad_lse,
    grad_query,
    delta,
    length0,
    length1,
    length2,
    kernel,
    stride,
    dilation,
    heads,
    heads_per_kv,
    additional,
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
    """Write dQ, and delta = rowsum(dO * O) - dLSE for the kernels that follow; grid as in
    `attend`.
    """
    program = tl.program_id(0)
    lengths = lift(length0, length1, length2, RANK)
    head = (program % heads).to(tl.int64)
    origin, group, n, batch = tile_of(program // heads, lengths, dilation, QUERY_BOX)
    if (origin[0] >= n[0]) | (origin[1] >= n[1]) | (origin[2] >= n[2]):
        return
    head_kv = head // heads_per_kv

    queries = box(origin, QUERY_BOX)
    valid = inside(queries, n)
    starts, ends = query_windows(queries, valid, n, kernel, stride, CAUSAL)
    first, last, shared, shared_end = union(origin, n, kernel, stride, CAUSAL, QUERY_BOX)
    query_rows = token_rows(query, batch, head, queries, group, dilation)
    q = load_rows(query_rows, valid, HEAD_DIM, HEAD_PAD)
    grad_rows = token_rows(grad_out, batch, head, queries, group, dilation)
    do = load_rows(grad_rows, valid, HEAD_DIM, HEAD_PAD)
    index = dense_index(batch, head, queries, group, dilation, lengths, heads)
    o = load_rows(out + index * HEAD_DIM, valid, HEAD_DIM, HEAD_PAD)
    row_lse = tl.load(lse + index, mask=valid, other=0.0) * LOG2E
    row_delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    row_delta -= tl.load(grad_lse + index, mask=valid, other=0.0)
    tl.store(delta + index, row_delta, mask=valid)

    BLOCK: tl.constexpr = QUERY_BOX[0] * QUERY_BOX[1] * QUERY_BOX[2]
    gradient = tl.zeros([BLOCK, HEAD_PAD], tl.float32)
    walk = tiles_between(first, last, KEY_BOX)
    for t in range(0, walk[0] * walk[1] * walk[2]):
        corner = tile_origin(first, t, walk, KEY_BOX)
        keys = box(corner, KEY_BOX)
        present = inside(keys, n)
        rows = token_rows(key, batch, head_kv, keys, group, dilation)
        k = load_rows(rows, present, HEAD_DIM, HEAD_PAD)
        rows = token_rows(value, batch, head_kv, keys, group, dilation)
        v = load_rows(rows, present, HEAD_DIM, HEAD_PAD)
        whole = contains(shared, shared_end, corner, KEY_BOX)
        scores = window_scores(
            q, k, scale, bias, head, queries, keys, starts, ends, whole, kernel,
            0, RANK, UNMASKED, PRECISION,
        )  # fmt: skip
        gradient = _add_tile(gradient, do, k, v, scores, row_lse, row_delta, PRECISION)

    if additional_keys is not None:
        KEYS: tl.constexpr = KEY_BOX[0] * KEY_BOX[1] * KEY_BOX[2]
        for t in range(0, additional, KEYS):
            j = t + tl.arange(0, KEYS)
            present = j < additional
            rows = additional_rows(additional_keys, batch, head_kv, j)
            k = load_rows(rows, present, HEAD_DIM, HEAD_PAD)
            rows = additional_rows(additional_values, batch, head_kv, j)
            v = load_rows(rows, present, HEAD_DIM, HEAD_PAD)
            scores = additional_scores(q, k, scale, present, PRECISION)
            gradient = _add_tile(gradient, do, k, v, scores, row_lse, row_delta, PRECISION)

    store_rows(grad_query + index * HEAD_DIM, gradient * scale, valid, HEAD_DIM, HEAD_PAD)
