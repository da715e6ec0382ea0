"""Forward kernel: a program takes a box of queries and walks the union of their windows.

Source: Dao et al., arXiv 2205.14135 (online softmax in tiles); Hassani et al., arXiv 2403.04690
(fused neighborhood attention).
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._neighborhood_attention.tile import (
    LN2,
    accumulate,
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


@triton.jit(do_not_specialize=["length0", "length1", "length2", "additional"])
def attend(
    query,
    key,
    value,
    bias,
    additional_keys,
    additional_values,
    out,
    lse,
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
    """Write out and lse; grid: heads, dilation groups, tiles, batch items (heads run fastest)."""
    program = tl.program_id(0)
    lengths = lift(length0, length1, length2, RANK)
    head = (program % heads).to(tl.int64)
    origin, group, n, batch = tile_of(program // heads, lengths, dilation, QUERY_BOX)
    # The last groups of an axis may be one position, hence one tile, shorter than the first.
    if (origin[0] >= n[0]) | (origin[1] >= n[1]) | (origin[2] >= n[2]):
        return
    head_kv = head // heads_per_kv

    queries = box(origin, QUERY_BOX)
    valid = inside(queries, n)
    starts, ends = query_windows(queries, valid, n, kernel, stride, CAUSAL)
    first, last, shared, shared_end = union(origin, n, kernel, stride, CAUSAL, QUERY_BOX)
    query_rows = token_rows(query, batch, head, queries, group, dilation)
    q = load_rows(query_rows, valid, HEAD_DIM, HEAD_PAD)

    BLOCK: tl.constexpr = QUERY_BOX[0] * QUERY_BOX[1] * QUERY_BOX[2]
    accumulator = tl.zeros([BLOCK, HEAD_PAD], tl.float32)
    maximum = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
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
        accumulator, maximum, total = accumulate(accumulator, maximum, total, scores, v, PRECISION)

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
            accumulator, maximum, total = accumulate(
                accumulator, maximum, total, scores, v, PRECISION
            )

    # Rows outside the group have met no key; they are not stored.
    total = tl.where(valid, total, 1.0)
    index = dense_index(batch, head, queries, group, dilation, lengths, heads)
    store_rows(out + index * HEAD_DIM, accumulator / total[:, None], valid, HEAD_DIM, HEAD_PAD)
    shift = tl.where(maximum == float("-inf"), 0.0, maximum)
    tl.store(lse + index, (shift + tl.log2(total)) * LN2, mask=valid)
