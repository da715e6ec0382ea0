"""Between the public functions and the kernels of scans: fakes, vmap, autograd, double backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops._kernels import namespace, teach_vmap, wanted

# Steps between the states that a kernel saves for its backward pass. A state of SSD is a matrix a
# head: kept less often.
CHUNK = {"cpu": 32, "cuda": 16, "triton": 16}
SSD_CHUNK = {"cpu": 64, "cuda": 64, "triton": 64}

Axis: TypeAlias = int | dict[int, int] | None

# B or C, constant or variable
_COEFFICIENT: Axis = {3: 1, 5: 2}


@dataclass(frozen=True)
class Operator:
    """An operator's arguments: `axes` has the channel axis of each tensor, differentiable first.

    None as an axis: the tensor has no channels and cannot be mapped; a mapping: it depends on the
    rank. `saves`: the last result is for the backward pass alone, and the last argument says how
    much of it there is.
    """

    axes: tuple[Axis, ...]
    differentiable: int
    result_axes: tuple[int, ...]
    saves: bool
    reference: Callable[..., Any]


OPERATORS = {
    "selective_scan": Operator(
        axes=(1, 2, 1, _COEFFICIENT, _COEFFICIENT, 1, 1, 1, 2, None),
        differentiable=9,
        result_axes=(1, 2, 4),
        saves=True,
        reference=reference.selective_scan,
    ),
    "ssd_scan": Operator(
        axes=(2, 2, 0, 2, 2, 0, 2, 0, 1, None),
        differentiable=9,
        result_axes=(2, 1, 2),
        saves=True,
        reference=reference.ssd_scan,
    ),
    "causal_conv1d": Operator(
        axes=(1, 0, 0, 1, None),
        differentiable=4,
        result_axes=(1,),
        saves=False,
        reference=reference.causal_conv1d,
    ),
}


def computation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that a kernel computes in, and that of states and parameters."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _like(tensor: Tensor) -> Tensor:
    """Memory for a result: channels-last where the tensor is, else contiguous."""
    if tensor.stride(-2) == 1 and tensor.stride(-1) != 1:
        *front, rows, columns = tensor.shape
        return tensor.new_empty(*front, columns, rows).transpose(-1, -2)
    return tensor.new_empty(tensor.shape)


def _intervals(length: int, chunk: int) -> int:
    # one more than are used: see csrc/scan/kernel.h
    return (length + chunk - 1) // chunk + 1 if chunk else 0


def _selective_scan_fake(
    u: Tensor, delta: Tensor, A: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = u.shape
    paths, _, state = A.shape
    saved = (batch, paths, _intervals(length, rest[-1]), state, channels)
    return _like(u), A.new_empty(batch, paths, channels, state), A.new_empty(saved)


def _ssd_scan_fake(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, width = x.shape
    final = (batch, heads, width, B.shape[-1])
    saved = (batch, _intervals(length, rest[-1]), *final[1:])
    return x.new_empty(x.shape), A.new_empty(final), A.new_empty(saved)


def _causal_conv1d_fake(x: Tensor, *_: Any) -> Tensor:
    return _like(x)


def _gradients(laid_out: Sequence[int], tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    first = next(t for t in tensors if t is not None)
    grads = []
    for i, tensor in enumerate(tensors):
        if tensor is None:
            grads.append(first.new_empty(0))
        elif i in laid_out and tensor.dim() > 2:
            grads.append(_like(tensor))
        else:
            grads.append(tensor.new_empty(tensor.shape))
    return tuple(grads)


def _selective_scan_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = arguments[2:11]
    # constant B and C are parameters: contiguous
    laid_out = [0, 1, 6, *(i for i in (3, 4) if inputs[i].dim() == 5)]
    return _gradients(laid_out, inputs)


def _ssd_scan_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    return _gradients((), arguments[2:11])


def _causal_conv1d_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    return _gradients((0,), arguments[1:5])


FAKES: dict[str, Callable[..., Any]] = {
    "selective_scan_forward": _selective_scan_fake,
    "selective_scan_backward": _selective_scan_backward_fake,
    "ssd_scan_forward": _ssd_scan_fake,
    "ssd_scan_backward": _ssd_scan_backward_fake,
    "causal_conv1d_forward": _causal_conv1d_fake,
    "causal_conv1d_backward": _causal_conv1d_backward_fake,
}


def _vmap_rule(
    op: Callable[..., Any], axes: Sequence[Axis], result_axes: Sequence[Axis]
) -> Callable[..., Any]:
    """Fold the mapped axis into the channels, which every floating argument has."""

    def rule(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size

        def fold(tensor: Tensor | None, mapped: int | None, axis: Axis) -> Tensor | None:
            if tensor is None:
                return None
            if isinstance(axis, dict):
                axis = axis[tensor.dim() - (mapped is not None)]
            if axis is None:
                if mapped is not None:
                    raise NotImplementedError("vmap over seq_idx is not possible: loop over it.")
                return tensor
            if mapped is None:
                tensor, mapped = tensor.expand(size, *tensor.shape), 0
            return tensor.movedim(mapped, axis).flatten(axis, axis + 1)

        count = len(axes)
        folded = [
            fold(t, d, a) for t, d, a in zip(args[:count], in_dims[:count], axes, strict=True)
        ]
        out = op(*folded, *args[count:])
        many = isinstance(out, (tuple, list))
        results, out_dims = [], []
        for result, axis in zip(out if many else (out,), result_axes, strict=True):
            # gradients of absent inputs are empty and stay unmapped
            absent = result.dim() == 1 and result.shape[0] == 0
            axis = axis[result.dim()] if isinstance(axis, dict) else axis
            results.append(result if absent else result.unflatten(axis, (size, -1)))
            out_dims.append(None if absent else axis)
        return (tuple(results), tuple(out_dims)) if many else (results[0], out_dims[0])

    return rule


def _register_vmap(space: str) -> None:
    ops = getattr(torch.ops, space)
    for name, operator in OPERATORS.items():
        forward = getattr(ops, f"{name}_forward").default
        backward = getattr(ops, f"{name}_backward").default
        grads = operator.axes[: operator.differentiable]
        cotangents = operator.result_axes[: 2 if operator.saves else 1]
        saved = operator.result_axes[2:]
        torch.library.register_vmap(
            forward, _vmap_rule(forward, operator.axes, operator.result_axes)
        )
        torch.library.register_vmap(
            backward,
            _vmap_rule(backward, (*cotangents, *operator.axes, *saved), grads),
        )


if _load.has("_C"):
    for _name, _fake in FAKES.items():
        torch.library.register_fake(f"saccade::{_name}", _fake)
teach_vmap("scan", _register_vmap)


def _kernel(rung: str, name: str) -> Callable[..., Any]:
    kernel: Callable[..., Any] = getattr(namespace("scan", rung), name).default
    return kernel


def _results(operator: str, *arguments: Any) -> tuple[Tensor, ...]:
    """The differentiable results of the reference, which knows nothing of intervals."""
    spec = OPERATORS[operator]
    results = spec.reference(*(arguments[:-1] if spec.saves else arguments))
    return results if isinstance(results, tuple) else (results,)


def run(operator: str, rung: str, tensors: Sequence[Tensor | None], *static: Any) -> Any:
    """Run an operator on a rung, with autograd where a gradient is wanted.

    Args:
        operator: its name.
        rung: that of `select`.
        tensors: all tensor arguments of the schema.
        static: the other arguments; the interval between saved states last, where states are saved.
    """
    spec = OPERATORS[operator]
    if rung == "reference":
        results = _results(operator, *tensors, *static)
        return results if len(results) > 1 else results[0]
    if wanted(*tensors):
        if torch.compiler.is_dynamo_compiling():
            # Dynamo refuses one tensor in two places
            tensors = [None if t is None else t.view_as(t) for t in tensors]
        results = Recurrence.apply(operator, rung, *tensors, *static)
    else:
        if spec.saves:
            static = (*static[:-1], 0)
        results = _kernel(rung, f"{operator}_forward")(*tensors, *static)
    if isinstance(results, Tensor):
        return results
    return results[:2] if spec.saves else results[0]


class Recurrence(torch.autograd.Function):
    """A kernel with its gradients: operator, rung, then the arguments of its schema."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operator: str, rung: str, *arguments: Any) -> tuple[Tensor, ...]:
        results = _kernel(rung, f"{operator}_forward")(*arguments)
        return (results,) if isinstance(results, Tensor) else tuple(results)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        spec = OPERATORS[inputs[0]]
        tensors, ctx.static = inputs[2 : 2 + len(spec.axes)], inputs[2 + len(spec.axes) :]
        ctx.operator, ctx.rung = inputs[:2]
        saved = output[2:]
        if saved:
            ctx.mark_non_differentiable(*saved)
        # zeros for the saved states, which nobody reads, would cost as much as writing those
        ctx.set_materialize_grads(False)
        ctx.results = [(result.shape, result.dtype) for result in output[: 2 if spec.saves else 1]]
        ctx.save_for_backward(*tensors, *saved)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        spec = OPERATORS[ctx.operator]
        # read once: activation checkpointing gives every saved tensor out a single time
        saved = ctx.saved_tensors
        grad_results = [
            saved[0].new_zeros(shape, dtype=dtype) if grad is None else grad
            for grad, (shape, dtype) in zip(given, ctx.results, strict=False)
        ]
        arguments = (ctx.operator, ctx.rung, *grad_results, *saved, *ctx.static)
        # the second Function costs a graph node and memory: only create_graph=True needs it
        apply = RecurrenceBackward.apply if torch.is_grad_enabled() else RecurrenceBackward.forward
        grads = apply(*arguments)
        inputs = saved[: spec.differentiable]
        present = [None if t is None else g for t, g in zip(inputs, grads, strict=True)]
        rest = len(spec.axes) - spec.differentiable + len(ctx.static)
        return None, None, *present, *[None] * rest


class RecurrenceBackward(torch.autograd.Function):
    """The backward kernel, itself differentiable: its gradient is the reference's, recomputed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operator: str, rung: str, *arguments: Any) -> tuple[Tensor, ...]:
        return tuple(_kernel(rung, f"{operator}_backward")(*arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        spec = OPERATORS[inputs[0]]
        ctx.operator = inputs[0]
        ctx.count = 2 if spec.saves else 1
        tensors = 2 + ctx.count + len(spec.axes)
        ctx.save_for_backward(*inputs[2:tensors])
        ctx.static = inputs[tensors + len(spec.result_axes[2:]) :]

    @staticmethod
    def backward(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
        spec = OPERATORS[ctx.operator]
        saved = ctx.saved_tensors
        cotangents, inputs = saved[: ctx.count], saved[ctx.count :]
        present = [i for i in range(spec.differentiable) if inputs[i] is not None]

        def forward(*given: Tensor) -> tuple[Tensor, ...]:
            full = list(inputs)
            for i, tensor in zip(present, given, strict=True):
                full[i] = tensor
            return _results(ctx.operator, *full, *ctx.static)

        def gradient(*given: Tensor) -> tuple[Tensor, ...]:
            pullback: Callable[..., Any] = torch.func.vjp(forward, *given[ctx.count :])[1]
            grads: tuple[Tensor, ...] = pullback(tuple(given[: ctx.count]))
            return grads

        # saved states are functions of the inputs, so their share is in the recomputation
        given = (*cotangents, *(inputs[i] for i in present))
        pullback: Callable[..., Any] = torch.func.vjp(gradient, *given)[1]
        grads = pullback(tuple(grad_grads[i] for i in present))
        full: list[Tensor | None] = [None] * len(inputs)
        for i, grad in zip(present, grads[ctx.count :], strict=True):
            full[i] = grad
        rest = len(spec.result_axes[2:]) + len(ctx.static)
        return None, None, *grads[: ctx.count], *full, *[None] * rest
