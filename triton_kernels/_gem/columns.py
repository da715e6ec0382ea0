"""What reads columns: products of rows, and sums of rows.

A program owns a fixed range of columns of one problem. Products are summed in float32 within it,
and over programs in float64 by their number; sums of rows are float64, rounded once.
"""

from __future__ import annotations

import triton
import triton.language as tl

_SIZES = ["rows", "columns", "slots", "blocks"]
_STRIDES = ["memory_batch", "memory_row", "memory_column", "grad_batch"]


@triton.jit
def load_rows(memory, grad, index, column, rows, columns, memory_row, memory_column, wanted):
    """Rows [R, BLOCK] of the memories with the gradient as row `rows`; zeros elsewhere."""
    inside = (column < columns)[None, :]
    of_memory = memory + index[:, None] * memory_row + column[None, :] * memory_column
    values = tl.load(of_memory, mask=((index < rows) & wanted)[:, None] & inside, other=0.0)
    of_grad = grad + column[None, :] + index[:, None] * 0
    return tl.load(of_grad, mask=(index == rows)[:, None] & inside, other=values)


@triton.jit(do_not_specialize=_SIZES + _STRIDES)
def multiply_rows(
    memory,
    grad,
    partial,
    rows,
    columns,
    slots,
    memory_batch,
    memory_row,
    memory_column,
    grad_batch,
    R: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill partial[b, slot] with the products of all pairs of rows, [R, R]."""
    program = tl.program_id(0).to(tl.int64)
    b, slot = program // slots, program % slots
    index = tl.arange(0, R).to(tl.int64)
    total = tl.zeros([R, R], tl.float32)
    for step in range(STEPS):
        column = (slot * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        tile = load_rows(
            memory + b * memory_batch, grad + b * grad_batch, index, column, rows, columns,
            memory_row, memory_column, index >= 0,
        )  # fmt: skip
        total = tl.dot(tile, tl.trans(tile), total, input_precision="ieee")
    place = partial + program * R * R
    tl.store(place + index[:, None] * R + index[None, :], total)


@triton.jit(do_not_specialize=_SIZES + _STRIDES)
def multiply_gradient(
    memory,
    grad,
    dual,
    lower,
    partial,
    rows,
    columns,
    slots,
    memory_batch,
    memory_row,
    memory_column,
    grad_batch,
    R: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill partial[b, slot]: rows whose dual is above the bound, times the gradient, [R]."""
    program = tl.program_id(0).to(tl.int64)
    b, slot = program // slots, program % slots
    index = tl.arange(0, R).to(tl.int64)
    variable = tl.load(dual + b * rows + index, mask=index < rows, other=0.0)
    wanted = (index < rows) & (variable > tl.load(lower))
    total = tl.zeros([R], tl.float32)
    for step in range(STEPS):
        column = (slot * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        inside = column < columns
        g = tl.load(grad + b * grad_batch + column, mask=inside, other=0.0).to(tl.float32)
        of_memory = (
            memory
            + b * memory_batch
            + index[:, None] * memory_row
            + column[None, :] * memory_column
        )
        tile = tl.load(of_memory, mask=wanted[:, None] & inside[None, :], other=0.0)
        total += tl.sum(tile.to(tl.float32) * g[None, :], 1)
    tl.store(partial + program * R + index, total)


@triton.jit
def sum_rows(memory, grad, factor, column, rows, columns, memory_row, memory_column):
    """The gradient and factor[i] memory[i] at some columns, in float64."""
    inside = column < columns
    total = tl.load(grad + column, mask=inside, other=0.0).to(tl.float64)
    row = memory + column * memory_column
    for i in range(rows):
        f = tl.load(factor + i)
        read = tl.where(f != 0.0, inside, column < 0)
        total += f * tl.load(row, mask=read, other=0.0).to(tl.float64)
        row += memory_row
    return total


@triton.jit(do_not_specialize=_SIZES + _STRIDES)
def combine_rows(
    memory,
    grad,
    dual,
    out,
    rows,
    columns,
    blocks,
    memory_batch,
    memory_row,
    memory_column,
    grad_batch,
    BLOCK: tl.constexpr,
):
    """The gradient and dual[i] memory[i], summed."""
    program = tl.program_id(0).to(tl.int64)
    b, block = program // blocks, program % blocks
    column = block * BLOCK + tl.arange(0, BLOCK)
    total = sum_rows(
        memory + b * memory_batch, grad + b * grad_batch, dual + b * rows, column, rows, columns,
        memory_row, memory_column,
    )  # fmt: skip
    value = total.to(tl.float32).to(out.dtype.element_ty)
    tl.store(out + b * columns + column, value, mask=column < columns)


@triton.jit(do_not_specialize=[*_SIZES, *_STRIDES, "v_batch"])
def differentiate_rows(
    memory,
    grad,
    dual,
    minus_y,
    v,
    grad_grad,
    grad_memory,
    rows,
    columns,
    blocks,
    memory_batch,
    memory_row,
    memory_column,
    grad_batch,
    v_batch,
    BLOCK: tl.constexpr,
):
    """Write grad_grad = h = grad - G' y and grad_memory = dual h' - y v'."""
    program = tl.program_id(0).to(tl.int64)
    b, block = program // blocks, program % blocks
    column = block * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    h = sum_rows(
        memory + b * memory_batch, grad + b * grad_batch, minus_y + b * rows, column, rows,
        columns, memory_row, memory_column,
    )  # fmt: skip
    value = h.to(tl.float32).to(grad_grad.dtype.element_ty)
    tl.store(grad_grad + b * columns + column, value, mask=inside)
    result = tl.load(v + b * v_batch + column, mask=inside, other=0.0).to(tl.float64)
    for i in range(rows):
        left, right = tl.load(dual + b * rows + i), tl.load(minus_y + b * rows + i)
        # a factor of zero makes zero, whatever the other one is
        one = tl.where(left != 0.0, left * h, 0.0)
        row = one + tl.where(right != 0.0, right * result, 0.0)
        place = grad_memory + (b * rows + i) * columns + column
        tl.store(place, row.to(tl.float32).to(grad_memory.dtype.element_ty), mask=inside)
