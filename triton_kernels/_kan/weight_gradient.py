"""Gradients of weights: a program owns edges and walks its share of the rows."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._kan.bases import features
from saccade.triton_kernels._kan.tile import edges, load_x, tile_of


@triton.jit
def differentiate_weights(
    x, grad_out, target, points, scales,
    rows, inputs, outputs, count, shares, heads,
    BASIS: tl.constexpr, OPTION: tl.constexpr, RANGE: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, FUNCTIONS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write target, a weight's layout behind one axis of shares of the rows, whose stride is last.

    grid: output tiles, function tiles, input tiles, heads, shares.
    """
    groups = tl.cdiv(count, FUNCTIONS)
    column, group, rest = tile_of(tl.program_id(0), tl.cdiv(outputs, OUTPUTS), groups)
    block, head, share = tile_of(rest, tl.cdiv(inputs, INPUTS), heads)
    o = column * OUTPUTS + tl.arange(0, OUTPUTS)
    first = (block * INPUTS).to(tl.int32)
    i = first + tl.arange(0, INPUTS)
    lowest = group * FUNCTIONS
    n = lowest + tl.arange(0, FUNCTIONS)
    inside = tl.minimum(i, inputs - 1)
    sums = tl.zeros([OUTPUTS, INPUTS * FUNCTIONS], tl.float32)
    kind = grad_out.dtype.element_ty
    steps = tl.cdiv(tl.cdiv(rows, ROWS), shares)
    start = share.to(tl.int32) * steps * ROWS
    for at in range(start, tl.minimum(start + steps * ROWS, rows), ROWS):
        r = at + tl.arange(0, ROWS)
        u = load_x(x, head, r, i, rows, inputs)
        phi = features(u, inside, n, points, scales, BASIS, OPTION, RANGE)
        index = (head * rows + r).to(tl.int64)[None, :] * outputs + o[:, None]
        mask = (r < rows)[None, :] & (o < outputs)[:, None]
        left = tl.load(grad_out + index, mask=mask, other=0.0)
        right = tl.reshape(phi.to(kind), [ROWS, INPUTS * FUNCTIONS])
        sums = tl.dot(left, right, sums, input_precision=PRECISION)
    to, mask = edges(target, head, o, first, lowest, inputs, outputs, count, INPUTS, FUNCTIONS)
    tl.store(to + share * target[5], sums, mask=mask)
