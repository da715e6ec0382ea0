"""Between the public functions and the kernels: fakes, vmap rules, autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade import _load
from saccade.ops._kernels import fold_batch, namespace, teach_vmap


def _forward_fake(grad: Tensor, memory: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, t = memory.shape[:2]
    return (
        grad.new_empty(grad.shape),
        grad.new_empty((batch, t), dtype=torch.float64),
        grad.new_empty((batch,), dtype=torch.int32),
        grad.new_empty((batch, t, t), dtype=torch.float64),
    )


def _backward_fake(
    grad_out: Tensor, memory: Tensor, out: Tensor, dual: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        grad_out.new_empty(grad_out.shape),
        grad_out.new_empty(memory.shape),
        grad_out.new_empty(dual.shape, dtype=torch.float64),
    )


def _gram_fake(memory: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    batch, t = memory.shape[:2]
    return (
        grad.new_empty((batch, t, t), dtype=torch.float64),
        grad.new_empty((batch, t), dtype=torch.float64),
    )


def _combine_fake(grad: Tensor, memory: Tensor, dual: Tensor) -> Tensor:
    return grad.new_empty(grad.shape)


def _nnqp_fake(gram: Tensor, linear: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return (
        linear.new_empty(linear.shape, dtype=torch.float64),
        linear.new_empty(linear.shape[:1], dtype=torch.int32),
    )


def _project_fake(
    grads: list[Tensor], memory: list[Tensor], rows: int, *_: Any
) -> tuple[Tensor, Tensor]:
    return (
        grads[0].new_empty((1, rows), dtype=torch.float64),
        grads[0].new_empty((1,), dtype=torch.int32),
    )


FAKES: dict[str, Callable[..., Any]] = {
    "gem_backward": _backward_fake,
    "gem_combine": _combine_fake,
    "gem_forward": _forward_fake,
    "gem_gram": _gram_fake,
    "gem_nnqp": _nnqp_fake,
    "gem_project_": _project_fake,
}


if _load.has("_C"):
    for _name, _fake in FAKES.items():
        torch.library.register_fake(f"saccade::{_name}", _fake)
teach_vmap("gem", fold_batch(name for name in FAKES if name != "gem_project_"))


def kernel(rung: str, name: str) -> Callable[..., Any]:
    """The operator of a rung, without autograd."""
    op: Callable[..., Any] = getattr(namespace("gem", rung), name).default
    return op


class Projection(torch.autograd.Function):
    """gem_forward with the gradients of v; the dual variables and the status have none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        *given, rung = arguments
        results: tuple[Tensor, ...] = kernel(rung, "gem_forward")(*given)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        out, dual, status, gram = output
        ctx.mark_non_differentiable(dual, status, gram)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[1], out, dual, gram)
        ctx.has_slack = inputs[2] is not None
        ctx.static = (inputs[3], inputs[4])
        ctx.rung = inputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_out is None:
            return (None,) * 7
        op = kernel(ctx.rung, "gem_backward")
        grad, memory, slack = op(grad_out, *ctx.saved_tensors, *ctx.static)
        return grad, memory, slack if ctx.has_slack else None, None, None, None, None


class Products(torch.autograd.Function):
    """gem_gram with its gradients, in plain torch."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        memory, grad, rung = arguments
        results: tuple[Tensor, Tensor] = kernel(rung, "gem_gram")(memory, grad)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, of_gram: Tensor, of_dot: Tensor) -> tuple[Tensor | None, ...]:
        memory, grad = ctx.saved_tensors
        square, column = (of_gram + of_gram.mT).to(grad.dtype), of_dot.to(grad.dtype).unsqueeze(-1)
        of_memory = square @ memory + column * grad.unsqueeze(-2)
        return of_memory, (column.mT @ memory).squeeze(-2), None


class Combination(torch.autograd.Function):
    """gem_combine with its gradients, in plain torch."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        *given, rung = arguments
        result: Tensor = kernel(rung, "gem_combine")(*given)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:3])

    @staticmethod
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, ...]:
        memory, dual = ctx.saved_tensors
        of_memory = dual.to(of_out.dtype).unsqueeze(-1) * of_out.unsqueeze(-2)
        of_dual = (memory @ of_out.unsqueeze(-1)).squeeze(-1).to(dual.dtype)
        return of_out, of_memory, of_dual, None


class Quadratic(torch.autograd.Function):
    """gem_nnqp with the gradients of the dual variables."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        *given, rung = arguments
        results: tuple[Tensor, Tensor] = kernel(rung, "gem_nnqp")(*given)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        dual, status = output
        ctx.mark_non_differentiable(status)
        ctx.save_for_backward(inputs[0], dual)
        ctx.lower, ctx.ridge = inputs[2:4]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_dual: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        gram, dual = ctx.saved_tensors
        free = dual > ctx.lower
        square = gram.double()
        identity = torch.eye(dual.shape[-1], dtype=dual.dtype, device=dual.device)
        both = free.unsqueeze(-1) & free.unsqueeze(-2)
        system = torch.where(both, (square + square.mT) / 2 + ctx.ridge * identity, identity)
        # solve_ex does not ask the device whether it succeeded
        y = torch.linalg.solve_ex(system, torch.where(free, of_dual, 0.0).unsqueeze(-1)).result
        outer = y * dual.unsqueeze(-2)
        of_gram = -(outer + outer.mT) / 2
        return of_gram.to(gram.dtype), -y.squeeze(-1).to(gram.dtype), None, None, None
