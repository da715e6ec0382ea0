"""From tensors to launches: which kernel, how many programs, which tables."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._gem.columns import (
    combine_rows,
    differentiate_rows,
    multiply_gradient,
    multiply_rows,
)
from saccade.triton_kernels._gem.solver import solve_active, solve_quadratics
from saccade.triton_kernels._launch import Launch

MAX_ROWS = 64
# columns of a program of the products, whose sums are float32
SLOT = 2048
COMBINED = 1024
# as in csrc/gem/kernel.h
TOLERANCE = {torch.float64: 2.0**-40, torch.float32: 2.0**-19}


def padded(rows: int, least: int) -> int:
    """The power of two that holds so many rows; a product of tiles wants 16."""
    return max(least, int(triton.next_power_of_2(max(rows, 1))))


def number(like: Tensor, value: float) -> Tensor:
    """A float64 on the device: a kernel's own numbers are float32."""
    return like.new_full((1,), value, dtype=torch.float64)


def _columns(memory: Tensor, grad: Tensor) -> dict[str, Any]:
    batch, row, column = memory.stride()
    return {
        "memory": memory, "grad": grad, "rows": memory.shape[1], "columns": memory.shape[2],
        "memory_batch": batch, "memory_row": row, "memory_column": column,
        "grad_batch": grad.stride(0),
    }  # fmt: skip


def _slots(columns: int) -> int:
    return max(1, -(-columns // SLOT))


def _launch(
    kernel: Any, grid: int, arguments: dict[str, Any], constants: dict[str, Any], warps: int = 4
) -> Launch:
    return Launch(kernel, grid, arguments, constants, num_warps=warps, num_stages=2)


def products_launch(memory: Tensor, grad: Tensor) -> tuple[Launch, Tensor]:
    """The launch that fills partial [B, slots, R, R]."""
    batch, rows, columns = memory.shape
    size, slots = padded(rows + 1, 16), _slots(columns)
    partial = grad.new_empty((batch, slots, size, size), dtype=torch.float32)
    block = 64 if size <= 32 else 32
    constants = {"R": size, "BLOCK": block, "STEPS": SLOT // block}
    arguments = {**_columns(memory, grad), "partial": partial, "slots": slots}
    return _launch(
        multiply_rows, batch * slots, arguments, constants, 4 if size <= 32 else 8
    ), partial


def gradient_launch(
    memory: Tensor, grad: Tensor, dual: Tensor, lower: Tensor
) -> tuple[Launch, Tensor]:
    """The launch that fills partial [B, slots, R]."""
    batch, rows, columns = memory.shape
    size, slots = padded(rows, 2), _slots(columns)
    partial = grad.new_empty((batch, slots, size), dtype=torch.float32)
    arguments = {
        **_columns(memory, grad), "dual": dual, "lower": lower, "partial": partial, "slots": slots,
    }  # fmt: skip
    constants = {"R": size, "BLOCK": 128, "STEPS": SLOT // 128}
    return _launch(multiply_gradient, batch * slots, arguments, constants), partial


def combine_launch(memory: Tensor, grad: Tensor, dual: Tensor) -> tuple[Launch, Tensor]:
    """The launch that fills out [B, P]."""
    batch, _, columns = memory.shape
    out = grad.new_empty(grad.shape)
    blocks = -(-columns // COMBINED)
    arguments = {**_columns(memory, grad), "dual": dual, "out": out, "blocks": max(blocks, 1)}
    return _launch(combine_rows, batch * blocks, arguments, {"BLOCK": COMBINED}), out


def outer_launch(
    memory: Tensor, grad_out: Tensor, dual: Tensor, minus_y: Tensor, v: Tensor
) -> tuple[Launch, Tensor, Tensor]:
    """The launch that fills grad_grad [B, P] and grad_memory [B, t, P]."""
    batch, _, columns = memory.shape
    grad_grad, grad_memory = grad_out.new_empty(grad_out.shape), grad_out.new_empty(memory.shape)
    blocks = -(-columns // COMBINED)
    arguments = {
        **_columns(memory, grad_out), "dual": dual, "minus_y": minus_y, "v": v,
        "v_batch": v.stride(0), "grad_grad": grad_grad, "grad_memory": grad_memory,
        "blocks": max(blocks, 1),
    }  # fmt: skip
    launch = _launch(differentiate_rows, batch * blocks, arguments, {"BLOCK": COMBINED})
    return launch, grad_grad, grad_memory


def solve_launch(
    gram: Tensor, linear: Tensor, slack: Tensor | None, numbers: tuple[float, float, float],
    always: bool,
) -> tuple[Launch, Tensor, Tensor]:  # fmt: skip
    """The launch that fills dual [B, t] and status [B]; numbers: lower, ridge, tolerance."""
    batch, rows = linear.shape
    dual = linear.new_empty(linear.shape, dtype=torch.float64)
    status = linear.new_empty((batch,), dtype=torch.int32)
    lower, ridge, tolerance = (number(linear, value) for value in numbers)
    arguments = {
        "gram": gram, "linear": linear, "slack": slack, "lower": lower, "ridge": ridge,
        "tolerance": tolerance, "dual": dual, "status": status, "rows": rows,
    }  # fmt: skip
    size = padded(rows, 2)
    constants = {"ALWAYS": always, "R": size}
    launch = _launch(solve_quadratics, batch, arguments, constants, 1 if size <= 16 else 8)
    return launch, dual, status


def solve_active_launch(
    gram: Tensor, linear: Tensor, dual: Tensor, numbers: tuple[float, float, float]
) -> tuple[Launch, Tensor]:
    """The launch that fills minus_y [B, t]; numbers: lower, ridge, tolerance."""
    minus_y = linear.new_empty(linear.shape, dtype=torch.float64)
    lower, ridge, tolerance = (number(linear, value) for value in numbers)
    arguments = {
        "gram": gram, "linear": linear, "dual": dual, "lower": lower, "ridge": ridge,
        "tolerance": tolerance, "minus_y": minus_y, "rows": linear.shape[1],
    }  # fmt: skip
    size = padded(linear.shape[1], 2)
    launch = _launch(solve_active, linear.shape[0], arguments, {"R": size}, 1 if size <= 16 else 8)
    return launch, minus_y
