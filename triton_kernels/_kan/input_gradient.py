"""Gradients of x, centres, widths and knots: a program owns rows and inputs and walks the outputs.

The gradient of the features stays in registers: a tile is used up by every sum that wants it. Sums
over rows go to a slot of the program, and the slots are added in their order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._kan.bases import by_point, by_scale, slopes
from saccade.triton_kernels._kan.knot_gradient import add_adjoints, store_knots
from saccade.triton_kernels._kan.tile import edge_tile, load_x, tile_of


@triton.jit
def differentiate_inputs(
    x, weight, grad_out, base, grad_x, grad_points, grad_scales, points, scales,
    rows, inputs, outputs, count,
    BASIS: tl.constexpr, OPTION: tl.constexpr, RANGE: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, FUNCTIONS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write grad_x (base, the share of the silu term, is added), and the slots that are there.

    grid: input tiles, row tiles, heads. Slots: [row tiles and heads, n] of centres and widths for
    every input tile, [row tiles and heads, I, m] of knots.
    """
    column, row, head = tile_of(tl.program_id(0), tl.cdiv(inputs, INPUTS), tl.cdiv(rows, ROWS))
    first = column * INPUTS
    i = first + tl.arange(0, INPUTS)
    r = row * ROWS + tl.arange(0, ROWS)
    u = load_x(x, head, r, i, rows, inputs)
    inside = tl.minimum(i, inputs - 1)
    slot = (head * tl.cdiv(rows, ROWS) + row).to(tl.int64)
    sums = tl.zeros([ROWS, INPUTS], tl.float32)
    adjoints = ()
    if BASIS == 0 and grad_points is not None:
        for _ in tl.static_range(0, OPTION + 1):
            adjoints = adjoints + (tl.zeros([ROWS, INPUTS], tl.float32),)  # noqa: RUF005
    for lowest in range(0, count, FUNCTIONS):
        n = lowest + tl.arange(0, FUNCTIONS)
        flat = tl.zeros([ROWS, INPUTS * FUNCTIONS], tl.float32)
        for start in range(0, outputs, OUTPUTS):
            o = start + tl.arange(0, OUTPUTS)
            index = (head * rows + r).to(tl.int64)[:, None] * outputs + o[None, :]
            mask = (r < rows)[:, None] & (o < outputs)[None, :]
            left = tl.load(grad_out + index, mask=mask, other=0.0)
            right = edge_tile(weight, head, o, first, lowest, inputs, outputs, count,
                              INPUTS, FUNCTIONS)  # fmt: skip
            flat = tl.dot(left, right, flat, input_precision=PRECISION)
        grad = tl.reshape(flat, [ROWS, INPUTS, FUNCTIONS])
        if grad_x is not None:
            slope = slopes(u, inside, n, points, scales, BASIS, OPTION, RANGE)
            sums += tl.sum(grad * slope, 2)
        if BASIS == 0:
            if grad_points is not None:
                adjoints = add_adjoints(adjoints, grad, u, inside, n, points, OPTION, RANGE)
        else:
            at = (slot * tl.cdiv(inputs, INPUTS) + column) * count + n
            if grad_points is not None:
                part = grad * by_point(u, n, points, scales, BASIS, OPTION)
                tl.store(grad_points + at, tl.sum(tl.sum(part, 0), 0), mask=n < count)
            if grad_scales is not None:
                part = grad * by_scale(u, n, points, scales, BASIS)
                tl.store(grad_scales + at, tl.sum(tl.sum(part, 0), 0), mask=n < count)
    if grad_x is not None:
        index = (head * rows + r).to(tl.int64)[:, None] * inputs + i[None, :]
        mask = (r < rows)[:, None] & (i < inputs)[None, :]
        if base is not None:
            sums += tl.load(base + index, mask=mask, other=0.0)
        tl.store(grad_x + index, sums, mask=mask)
    if BASIS == 0 and grad_points is not None:
        table = grad_points + (slot * inputs + i) * points[2]
        store_knots(adjoints, table, i < inputs, u, inside, points, OPTION, RANGE)
