"""Gradient projection in Triton, and the ops `saccade_triton::gem_*`.

    v = g + G' lambda,  lambda = argmin x'(G G' + ridge I)x/2 + (G g + w)'x
    over x >= memory_strength

Layouts, arguments and results are those of `saccade::gem_*`. Memories are read where they lie,
through strides, once for the products and once for the sum. Products of up to 2048 columns are
summed in float32, programs in float64 in the order of their number; the quadratic problem and the
sum of rows are float64. Nothing waits for the device. The list form has no kernel here: a launch
takes pointers one by one, and a launch for every parameter would cost more than flattening does.

Source: Lopez-Paz and Ranzato, arXiv 1706.08840; Goldfarb and Idnani, Mathematical Programming 27.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saccade.triton_kernels._gem.columns import combine_rows
from saccade.triton_kernels._gem.launches import (
    MAX_ROWS,
    TOLERANCE,
    combine_launch,
    gradient_launch,
    number,
    outer_launch,
    products_launch,
    solve_active_launch,
    solve_launch,
)
from saccade.triton_kernels._launch import device_of, interpreted

__all__ = ["backward", "combine", "forward", "gram_dot", "nnqp"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_SCHEMAS = {
    "gem_backward": (
        "(Tensor grad_out, Tensor memory, Tensor out, Tensor dual, Tensor gram, "
        "float memory_strength, float ridge) "
        "-> (Tensor grad_grad, Tensor grad_memory, Tensor grad_slack)"
    ),
    "gem_combine": "(Tensor grad, Tensor memory, Tensor dual) -> Tensor",
    "gem_forward": (
        "(Tensor grad, Tensor memory, Tensor? slack, float memory_strength, float ridge, "
        "bool always) -> (Tensor out, Tensor dual, Tensor status, Tensor gram)"
    ),
    "gem_gram": "(Tensor memory, Tensor grad) -> (Tensor gram, Tensor dot)",
    "gem_nnqp": (
        "(Tensor gram, Tensor linear, float lower, float ridge) -> (Tensor dual, Tensor status)"
    ),
}


def _check(tensor: Tensor, rows: int, dtypes: tuple[torch.dtype, ...] = DTYPES) -> None:
    if rows > MAX_ROWS:
        raise NotImplementedError(f"The Triton kernels take at most {MAX_ROWS} rows, got {rows}.")
    if tensor.dtype not in dtypes:
        known = ", ".join(str(dtype) for dtype in dtypes)
        raise NotImplementedError(f"The Triton kernels take {known}, got {tensor.dtype}.")
    if interpreted(combine_rows):
        if tensor.dtype == torch.bfloat16:
            raise NotImplementedError(
                "Triton's interpreter computes bfloat16 wrongly: use float32 or float16 there."
            )
    elif not tensor.is_cuda:
        raise NotImplementedError(
            f"The Triton kernels run on a GPU, got tensors on {tensor.device}; with "
            "TRITON_INTERPRET=1 set before the first import they run on the CPU, in Triton's "
            "interpreter."
        )


def _check_problem(memory: Tensor, grad: Tensor) -> None:
    if grad.dim() != 2 or memory.dim() != 3 or memory.shape[::2] != grad.shape:
        raise ValueError(
            "memory must have shape [B, t, P] and grad [B, P], "
            f"got {tuple(memory.shape)} and {tuple(grad.shape)}."
        )
    if memory.dtype != grad.dtype:
        raise TypeError(f"memory must have grad's dtype {grad.dtype}, got {memory.dtype}.")
    _check(grad, memory.shape[1])


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def gram_dot(memory: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Products of all rows with each other, [B, t, t], and with the gradient, [B, t]."""
    _check_problem(memory, grad)
    launch, partial = products_launch(memory, _dense(grad))
    with device_of(grad):
        launch.run()
    total = partial.sum(1, dtype=torch.float64)
    t = memory.shape[1]
    return total[:, :t, :t].contiguous(), total[:, t, :t].contiguous()


def combine(grad: Tensor, memory: Tensor, dual: Tensor) -> Tensor:
    """The gradient and dual[i] memory[i], summed: [B, P]."""
    _check_problem(memory, grad)
    launch, out = combine_launch(memory, _dense(grad), dual.double().contiguous())
    with device_of(grad):
        launch.run()
    return out


def _solve(
    gram: Tensor, linear: Tensor, slack: Tensor | None, numbers: tuple[float, float, float],
    always: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    launch, dual, status = solve_launch(gram, linear, slack, numbers, always)
    with device_of(linear):
        launch.run()
    return dual, status


def nnqp(gram: Tensor, linear: Tensor, lower: float, ridge: float) -> tuple[Tensor, Tensor]:
    """Minimise x'(K + ridge I)x/2 + c'x over x >= lower: dual [B, t] and status [B]."""
    _check(gram, linear.shape[-1], (torch.float32, torch.float64))
    numbers = (lower, ridge, TOLERANCE[gram.dtype])
    return _solve(gram.double().contiguous(), linear.double().contiguous(), None, numbers, True)


def forward(
    grad: Tensor, memory: Tensor, slack: Tensor | None, memory_strength: float, ridge: float,
    always: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Project grad [B, P] against memory [B, t, P]: v, dual, status and the Gram matrix."""
    gram, dot = gram_dot(memory, grad)
    width = None if slack is None else slack.double().contiguous()
    numbers = (memory_strength, ridge, TOLERANCE[torch.float32])
    dual, status = _solve(gram, dot, width, numbers, always)
    return combine(grad, memory, dual), dual, status, gram


def backward(
    grad_out: Tensor, memory: Tensor, out: Tensor, dual: Tensor, gram: Tensor,
    memory_strength: float, ridge: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of grad, memory and slack from that of v."""
    _check_problem(memory, grad_out)
    u, t = _dense(grad_out), memory.shape[1]
    dual, gram = dual.double().contiguous(), gram.double().contiguous()
    launch, partial = gradient_launch(memory, u, dual, number(u, memory_strength))
    with device_of(grad_out):
        launch.run()
        linear = partial.sum(1, dtype=torch.float64)[:, :t].contiguous()
        numbers = (memory_strength, ridge, TOLERANCE[torch.float32])
        launch, minus_y = solve_active_launch(gram, linear, dual, numbers)
        launch.run()
        launch, grad_grad, grad_memory = outer_launch(memory, u, dual, minus_y, _dense(out))
        launch.run()
    return grad_grad, grad_memory, minus_y


def _fake_forward(grad: Tensor, memory: Tensor, *_: Any) -> tuple[Tensor, ...]:
    batch, t = memory.shape[:2]
    return (
        grad.new_empty(grad.shape),
        grad.new_empty((batch, t), dtype=torch.float64),
        grad.new_empty((batch,), dtype=torch.int32),
        grad.new_empty((batch, t, t), dtype=torch.float64),
    )


def _fake_backward(
    grad_out: Tensor, memory: Tensor, out: Tensor, dual: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return (
        grad_out.new_empty(grad_out.shape),
        grad_out.new_empty(memory.shape),
        grad_out.new_empty(dual.shape, dtype=torch.float64),
    )


def _fake_gram(memory: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    _, dual, _, gram = _fake_forward(grad, memory)
    return gram, dual


def _fake_nnqp(gram: Tensor, linear: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return (
        linear.new_empty(linear.shape, dtype=torch.float64),
        linear.new_empty(linear.shape[:1], dtype=torch.int32),
    )


def _register() -> None:
    """Define the ops once in a process: a second import of this module finds them."""
    implementations: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "gem_backward": (backward, _fake_backward),
        "gem_combine": (combine, lambda grad, memory, dual: grad.new_empty(grad.shape)),
        "gem_forward": (forward, _fake_forward),
        "gem_gram": (gram_dot, _fake_gram),
        "gem_nnqp": (nnqp, _fake_nnqp),
    }
    for name, (function, fake) in implementations.items():
        if not hasattr(torch.ops.saccade_triton, name):
            operator = f"saccade_triton::{name}"
            torch.library.define(operator, _SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(operator, ("cpu", "cuda"), function)
            torch.library.register_fake(operator, fake)


_register()
