"""Forward kernel: features are made tile by tile, where the product takes them."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._kan.bases import features
from saccade.triton_kernels._kan.tile import edge_tile, load_x, tile_of


@triton.jit
def transform(
    x, weight, base_weight, bias, out, points, scales,
    rows, inputs, outputs, count,
    BASIS: tl.constexpr, OPTION: tl.constexpr, RANGE: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, FUNCTIONS: tl.constexpr,
    BASE_INPUTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write out [h, M, O]; grid: output tiles, row tiles, heads (output tiles run fastest)."""
    column, row, head = tile_of(tl.program_id(0), tl.cdiv(outputs, OUTPUTS), tl.cdiv(rows, ROWS))
    o = column * OUTPUTS + tl.arange(0, OUTPUTS)
    r = row * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros([ROWS, OUTPUTS], tl.float32)
    kind = weight[0].dtype.element_ty
    for first in range(0, inputs, INPUTS):
        i = first + tl.arange(0, INPUTS)
        u = load_x(x, head, r, i, rows, inputs)
        i = tl.minimum(i, inputs - 1)
        for lowest in range(0, count, FUNCTIONS):
            n = lowest + tl.arange(0, FUNCTIONS)
            phi = features(u, i, n, points, scales, BASIS, OPTION, RANGE)
            left = tl.reshape(phi.to(kind), [ROWS, INPUTS * FUNCTIONS])
            right = edge_tile(weight, head, o, first, lowest, inputs, outputs, count,
                              INPUTS, FUNCTIONS)  # fmt: skip
            sums = tl.dot(left, tl.trans(right), sums, input_precision=PRECISION)
    if base_weight is not None:
        for first in range(0, inputs, BASE_INPUTS):
            u = load_x(x, head, r, first + tl.arange(0, BASE_INPUTS), rows, inputs)
            left = (u * tl.sigmoid(u)).to(kind)
            right = edge_tile(base_weight, head, o, first, 0, inputs, outputs, 1, BASE_INPUTS, 1)
            sums = tl.dot(left, tl.trans(right), sums, input_precision=PRECISION)
    if bias is not None:
        offset = tl.load(bias + head * outputs + o, mask=o < outputs, other=0.0)
        sums += offset.to(tl.float32)[None, :]
    index = (head * rows + r).to(tl.int64)[:, None] * outputs + o[None, :]
    tl.store(out + index, sums, mask=(r < rows)[:, None] & (o < outputs)[None, :])
