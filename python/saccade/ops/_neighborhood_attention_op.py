"""Between the public function and the kernels: fakes, vmap rules, autograd, double backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops._kernels import namespace, teach_vmap

# Where the heads are in every tensor argument and in every result, in the order of the schemas.
_FORWARD_HEAD_AXES = (-2, -2, -2, 0, 2, 2)
_FORWARD_RESULT_AXES = (-2, -1)
_BACKWARD_HEAD_AXES = (-2, -1, -2, -2, -2, -2, -1, 0, 2, 2)
_BACKWARD_RESULT_AXES = (-2, -2, -2, 0, 2, 2)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that sums are held in, and that of the log-sum-exp."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor]:
    lse = query.new_empty(query.shape[:-1], dtype=accumulation_dtype(query.dtype))
    return query.new_empty(query.shape), lse


def _backward_fake(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    *_: Any,
) -> tuple[Tensor, ...]:
    inputs = (query, key, value, bias, additional_keys, additional_values)
    return tuple(query.new_empty((0,) if t is None else t.shape) for t in inputs)


def _vmap_rule(
    op: Callable[..., tuple[Tensor, ...]], head_axes: Sequence[int], result_axes: Sequence[int]
) -> Callable[..., Any]:
    """Fold the mapped axis into the heads, which every argument has (a mapped bias too)."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size

        def fold(tensor: Tensor | None, mapped: int | None, axis: int) -> Tensor | None:
            if tensor is None:
                return None
            rank = tensor.dim() - (mapped is not None)
            axis %= rank
            if mapped is None:
                tensor, mapped = tensor.expand(size, *tensor.shape), 0
            return tensor.movedim(mapped, axis).flatten(axis, axis + 1)

        count = len(head_axes)
        folded = [
            fold(t, d, a) for t, d, a in zip(args[:count], in_dims[:count], head_axes, strict=True)
        ]
        results, out_dims = [], []
        for result, axis in zip(op(*folded, *args[count:]), result_axes, strict=True):
            # gradients of absent inputs are empty and stay unmapped
            absent = result.dim() == 1 and result.shape[0] == 0
            axis %= result.dim()
            sizes = list(result.shape)
            sizes[axis : axis + 1] = (size, sizes[axis] // size)
            results.append(result if absent else result.view(sizes))
            out_dims.append(None if absent else axis)
        return tuple(results), tuple(out_dims)

    return rule


def _register_vmap(space: str) -> None:
    """Teach vmap the operators of one namespace."""
    ops = getattr(torch.ops, space)
    for op, head_axes, result_axes in (
        (ops.na_forward.default, _FORWARD_HEAD_AXES, _FORWARD_RESULT_AXES),
        (ops.na_backward.default, _BACKWARD_HEAD_AXES, _BACKWARD_RESULT_AXES),
    ):
        torch.library.register_vmap(op, _vmap_rule(op, head_axes, result_axes))


if _load.has("_C"):
    torch.library.register_fake("saccade::na_forward", _forward_fake)
    torch.library.register_fake("saccade::na_backward", _backward_fake)
teach_vmap("neighborhood_attention", _register_vmap)


def call(rung: str, *arguments: Any) -> tuple[Tensor, Tensor]:
    """Run a kernel's forward without autograd."""
    op = namespace("neighborhood_attention", rung).na_forward.default
    result: tuple[Tensor, Tensor] = op(*arguments)
    return result


class Attention(torch.autograd.Function):
    """The kernels with their gradients: the arguments of na_forward, then the rung."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        return call(arguments[-1], *arguments[:-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:6], *output)
        ctx.static = inputs[6:]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, lse = ctx.saved_tensors
        arguments = (grad_out, grad_lse, *inputs[:3], out, lse, *inputs[3:], *ctx.static)
        # the second Function costs a graph node and memory: only create_graph=True needs it
        run = AttentionBackward.apply if torch.is_grad_enabled() else AttentionBackward.forward
        grads = run(*arguments)
        present = (None if t is None else g for t, g in zip(inputs, grads, strict=True))
        return *present, *(None for _ in ctx.static)


class AttentionBackward(torch.autograd.Function):
    """na_backward, itself differentiable: its gradient is the reference formula's, recomputed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        op = namespace("neighborhood_attention", arguments[-1]).na_backward.default
        grads: tuple[Tensor, ...] = op(*arguments[:-1])
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:5], *inputs[7:10])
        ctx.static = inputs[10:]

    @staticmethod
    def backward(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_out, grad_lse, *inputs = ctx.saved_tensors
        present = [i for i, tensor in enumerate(inputs) if tensor is not None]
        kernel_size, stride, dilation, is_causal, scale, _ = ctx.static

        def forward(*given: Tensor) -> tuple[Tensor, Tensor]:
            full = list(inputs)
            for i, tensor in zip(present, given, strict=True):
                full[i] = tensor
            query, key, value, *optional = full
            return reference.neighborhood_attention(
                query, key, value, kernel_size, stride, dilation, is_causal, scale, *optional
            )

        def gradient(grad_out: Tensor, grad_lse: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            pullback: Callable[..., Any] = torch.func.vjp(forward, *given)[1]
            grads: tuple[Tensor, ...] = pullback((grad_out, grad_lse))
            return grads

        # out and lse are functions of the other inputs, so their share is in the recomputation
        given = (inputs[i] for i in present)
        pullback: Callable[..., Any] = torch.func.vjp(gradient, grad_out, grad_lse, *given)[1]
        first, second, *rest = pullback(tuple(grad_grads[i] for i in present))
        full: list[Tensor | None] = [None] * 6
        for i, grad in zip(present, rest, strict=True):
            full[i] = grad
        return first, second, *full[:3], None, None, *full[3:], *(None for _ in ctx.static)
