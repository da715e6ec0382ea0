"""Gradients of additional keys and values, which every query sees.

A program owns a block of additional keys and one slot, that is, a fixed share of the queries; it
writes its partial sum to the slot's table, and the tables are summed in the order of their slots.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._neighborhood_attention.tile import (
    LOG2E,
    add_key_tile,
    additional_rows,
    additional_scores,
    dense_index,
    load_rows,
    store_rows,
    token_rows,
)
from saccade.triton_kernels._neighborhood_attention.window import lift, unravel


@triton.jit(
    do_not_specialize=["length0", "length1", "length2", "additional", "blocks", "share", "batches"]
)
def differentiate_additional(
    query,
    additional_keys,
    additional_values,
    grad_out,
    lse,
    delta,
    partial_keys,
    partial_values,
    length0,
    length1,
    length2,
    heads,
    heads_per_kv,
    additional,
    blocks,
    share,
    batches,
    scale,
    RANK: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write [slots, B, S, key heads, D] partial sums.

    Grid: blocks of keys, key heads, batch items, slots; share is the number of query tiles of a
    slot.
    """
    program = tl.program_id(0)
    lengths = lift(length0, length1, length2, RANK)
    heads_kv = heads // heads_per_kv
    j = program % blocks * KEYS + tl.arange(0, KEYS)
    head_kv = (program // blocks % heads_kv).to(tl.int64)
    batch = (program // (blocks * heads_kv) % batches).to(tl.int64)
    slot = program // (blocks * heads_kv) // batches
    present = j < additional
    k = load_rows(additional_rows(additional_keys, batch, head_kv, j), present, HEAD_DIM, HEAD_PAD)
    v = load_rows(
        additional_rows(additional_values, batch, head_kv, j), present, HEAD_DIM, HEAD_PAD
    )

    tokens = lengths[0] * lengths[1] * lengths[2]
    origin = (0, 0, 0)
    step = (1, 1, 1)
    grad_k = tl.zeros([KEYS, HEAD_PAD], tl.float32)
    grad_v = tl.zeros([KEYS, HEAD_PAD], tl.float32)
    for t in range(0, share * heads_per_kv):
        head = head_kv * heads_per_kv + t // share
        token = (slot * share + t % share) * QUERIES + tl.arange(0, QUERIES)
        valid = token < tokens
        queries = unravel(token, lengths)
        q = load_rows(
            token_rows(query, batch, head, queries, origin, step), valid, HEAD_DIM, HEAD_PAD
        )
        do = load_rows(
            token_rows(grad_out, batch, head, queries, origin, step), valid, HEAD_DIM, HEAD_PAD
        )
        index = dense_index(batch, head, queries, origin, step, lengths, heads)
        query_lse = tl.load(lse + index, mask=valid, other=0.0) * LOG2E
        query_delta = tl.load(delta + index, mask=valid, other=0.0)
        scores = additional_scores(k, q, scale, valid, PRECISION)
        grad_k, grad_v = add_key_tile(
            grad_k, grad_v, q, do, v, scores, query_lse, query_delta, PRECISION
        )

    row = (((slot * batches + batch) * additional + j) * heads_kv + head_kv) * HEAD_DIM
    store_rows(partial_keys + row, grad_k * scale, present, HEAD_DIM, HEAD_PAD)
    store_rows(partial_values + row, grad_v, present, HEAD_DIM, HEAD_PAD)
