"""What the kernels do with a tile: load rows, score, update the softmax or the gradients.

A strided tensor comes as a tuple (pointer, batch, axis 0, axis 1, axis 2, head) with strides in
elements and with stride 1 along the head dimension. Tensors that this package allocated are
contiguous and come as plain pointers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._neighborhood_attention.window import bias_index, visible

# Scores are kept in base 2, since exp2 is the instruction that a GPU has.
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def token_rows(x, batch, head, p, group, dilation):
    """Pointers to the first element of the tokens at positions p of a dilation group."""
    offsets = (group[0] + p[0] * dilation[0]).to(tl.int64) * x[2]
    offsets += (group[1] + p[1] * dilation[1]).to(tl.int64) * x[3]
    offsets += (group[2] + p[2] * dilation[2]).to(tl.int64) * x[4]
    return x[0] + batch * x[1] + head * x[5] + offsets


@triton.jit
def additional_rows(x, batch, head, j):
    """The same for additional keys or values, whose tokens run along the last axis."""
    return x[0] + batch * x[1] + head * x[5] + j.to(tl.int64) * x[4]


@triton.jit
def dense_index(batch, head, p, group, dilation, lengths, heads):
    """Index of (batch, token, head) in a contiguous [B, *dims, heads] tensor."""
    token = batch * lengths[0] + (group[0] + p[0] * dilation[0])
    token = token * lengths[1] + (group[1] + p[1] * dilation[1])
    token = token * lengths[2] + (group[2] + p[2] * dilation[2])
    return token * heads + head


@triton.jit
def load_rows(rows, valid, HEAD_DIM: tl.constexpr, HEAD_PAD: tl.constexpr):
    """HEAD_DIM elements of each row, padded to HEAD_PAD; padding and invalid rows are zero."""
    d = tl.arange(0, HEAD_PAD)
    mask = valid[:, None]
    if HEAD_DIM != HEAD_PAD:
        mask = mask & (d < HEAD_DIM)[None, :]
    return tl.load(rows[:, None] + d[None, :], mask=mask, other=0.0)


@triton.jit
def store_rows(rows, tile, valid, HEAD_DIM: tl.constexpr, HEAD_PAD: tl.constexpr):
    """The counterpart of `load_rows`; rounds to the dtype of the tensor."""
    d = tl.arange(0, HEAD_PAD)
    mask = valid[:, None]
    if HEAD_DIM != HEAD_PAD:
        mask = mask & (d < HEAD_DIM)[None, :]
    tl.store(rows[:, None] + d[None, :], tile.to(rows.dtype.element_ty), mask=mask)


@triton.jit
def load_bias(bias, head, queries, keys, mask, kernel, QUERY_AXIS: tl.constexpr):
    """Bias of a tile of scores, in base 2; 0 where the mask is false."""
    table = (2 * kernel[0] - 1) * (2 * kernel[1] - 1) * (2 * kernel[2] - 1)
    centre = bias_index((kernel[0] - 1, kernel[1] - 1, kernel[2] - 1), kernel)
    key = tl.expand_dims(bias_index(keys, kernel), QUERY_AXIS)
    query = tl.expand_dims(bias_index(queries, kernel), 1 - QUERY_AXIS)
    entry = tl.load(bias + head * table + (key - query + centre), mask=mask, other=0.0)
    return entry.to(tl.float32) * LOG2E


@triton.jit
def window_scores(
    rows,
    columns,
    scale,
    bias,
    head,
    queries,
    keys,
    starts,
    ends,
    whole,
    kernel,
    QUERY_AXIS: tl.constexpr,
    RANK: tl.constexpr,
    UNMASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Scores of a tile in base 2, -inf where the query does not see the key.

    QUERY_AXIS says which of rows and columns holds queries (0: rows). With UNMASKED, a tile that is
    seen as a whole skips the mask; the bias needs the mask for its own loads, so the two do not go
    together.
    """
    scores = tl.dot(rows, tl.trans(columns), input_precision=PRECISION) * (scale * LOG2E)
    if UNMASKED:
        if not whole:
            mask = visible(starts, ends, keys, QUERY_AXIS, RANK)
            scores = tl.where(mask, scores, float("-inf"))
    else:
        mask = visible(starts, ends, keys, QUERY_AXIS, RANK)
        if bias is not None:
            scores += load_bias(bias, head, queries, keys, mask, kernel, QUERY_AXIS)
        scores = tl.where(mask, scores, float("-inf"))
    return scores


@triton.jit
def additional_scores(rows, columns, scale, valid, PRECISION: tl.constexpr):
    """Scores against additional keys in base 2; `valid` runs along the columns."""
    scores = tl.dot(rows, tl.trans(columns), input_precision=PRECISION) * (scale * LOG2E)
    return tl.where(valid[None, :], scores, float("-inf"))


@triton.jit
def accumulate(accumulator, maximum, total, scores, value, PRECISION: tl.constexpr):
    """Online softmax: take one more tile of scores (base 2) and values."""
    updated = tl.maximum(maximum, tl.max(scores, 1))
    # A row that has met no key yet has maximum -inf, and -inf - (-inf) is NaN.
    shift = tl.where(updated == float("-inf"), 0.0, updated)
    weights = tl.exp2(scores - shift[:, None])
    decay = tl.exp2(maximum - shift)
    total = total * decay + tl.sum(weights, 1)
    accumulator = accumulator * decay[:, None]
    accumulator = tl.dot(weights.to(value.dtype), value, accumulator, input_precision=PRECISION)
    return accumulator, updated, total


@triton.jit
def add_key_tile(grad_k, grad_v, q, do, v, scores, lse, delta, PRECISION: tl.constexpr):
    """Take one more tile of queries; scores are [keys, queries] in base 2, as is lse."""
    weights = tl.exp2(scores - lse[None, :])
    grad_v = tl.dot(weights.to(do.dtype), do, grad_v, input_precision=PRECISION)
    products = tl.dot(v, tl.trans(do), input_precision=PRECISION)
    grad_scores = weights * (products - delta[None, :])
    grad_k = tl.dot(grad_scores.to(q.dtype), q, grad_k, input_precision=PRECISION)
    return grad_k, grad_v
