"""Between `kan_linear` and the kernels: codes, fakes, vmap rules, autograd, double backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from saccade import _load
from saccade.ops._kernels import namespace, teach_vmap
from saccade.reference import kan as reference

# A name's place is its code in the schema.
BASES = ("bspline", "gaussian", "rswaf", "chebyshev", "fourier", "wavelet")
OUT_OF_RANGE = ("zero", "clamp", "extend")
MODES = ("exact", "fasterkan")
KINDS = ("mexican_hat", "morlet", "dog", "meyer", "shannon")

_TENSORS = 6  # x, weight, base_weight, bias, points, scales


def _forward_fake(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return weight.new_empty((*x.shape[:-1], weight.shape[1]))


def _backward_fake(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    base_weight: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
    wanted: Sequence[int],
) -> tuple[Tensor, ...]:
    def gradient(like: Tensor | None, place: int) -> Tensor:
        if like is None or not wanted[place]:
            return (weight if like is None else like).new_empty((0,))
        return like.new_empty(like.shape)

    grad_weight = torch.empty_like(weight) if wanted[1] else weight.new_empty((0,))
    return (
        gradient(x, 0),
        grad_weight,
        gradient(base_weight, 2),
        weight.new_empty((weight.shape[0], weight.shape[1]) if wanted[3] else (0,)),
        gradient(points, 4),
        gradient(scales, 5),
    )


def _rational_forward_fake(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _rational_backward_fake(grad_out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in inputs)


def _entry(given: Any, mapped: int | None, i: int) -> Any:
    return given if mapped is None else given.select(mapped, i)


def _loop(op: Callable[..., Any], info: Any, in_dims: Sequence[Any], args: Any) -> list[Any]:
    # a list of ints has a list of dimensions
    dims = [d if isinstance(d, int) else None for d in in_dims]
    return [
        op(*(_entry(a, d, i) for a, d in zip(args, dims, strict=True)))
        for i in range(info.batch_size)
    ]


def _vmap_one(op: Callable[..., Tensor]) -> Callable[..., Any]:
    def rule(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
        if in_dims[0] is not None and not any(isinstance(d, int) for d in in_dims[1:]):
            # one more axis of rows
            x = args[0].movedim(in_dims[0], 1)
            y = op(x.flatten(1, 2), *args[1:])
            return y.unflatten(1, x.shape[1:3]), 1
        return torch.stack(_loop(op, info, in_dims, args)), 0

    return rule


def _vmap_many(op: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    def rule(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Any, Any]:
        results = zip(*_loop(op, info, in_dims, args), strict=True)
        stacked = tuple(torch.stack(entries) for entries in results)
        return stacked, (0,) * len(stacked)

    return rule


def _register_vmap(space: str) -> None:
    ops = getattr(torch.ops, space)
    for op in (ops.kan_forward.default,):
        torch.library.register_vmap(op, _vmap_one(op))
    for op in (ops.kan_backward.default, ops.kan_rational_backward.default):
        torch.library.register_vmap(op, _vmap_many(op))
    op = ops.kan_rational_forward.default
    torch.library.register_vmap(
        op, lambda info, dims, *args: (torch.stack(_loop(op, info, dims, args)), 0)
    )


if _load.has("_C"):
    torch.library.register_fake("saccade::kan_forward", _forward_fake)
    torch.library.register_fake("saccade::kan_backward", _backward_fake)
    torch.library.register_fake("saccade::kan_rational_forward", _rational_forward_fake)
    torch.library.register_fake("saccade::kan_rational_backward", _rational_backward_fake)
teach_vmap("kan", _register_vmap)


def call(rung: str, *arguments: Any) -> Tensor:
    """Run a kernel's forward without autograd."""
    y: Tensor = namespace("kan", rung).kan_forward.default(*arguments)
    return y


def reference_options(
    basis: int, options: Sequence[int], points: Tensor | None, scales: Tensor | None
) -> dict[str, Any]:
    """The arguments of the schema as options of the reference."""
    name = BASES[basis]
    if name == "bspline":
        grid = points if points is None or points.shape[0] != 1 else points[0]
        return {"grid": grid, "order": options[0], "out_of_range": OUT_OF_RANGE[options[1]]}
    if name == "gaussian":
        return {"centres": points, "width": scales}
    if name == "rswaf":
        return {"centres": points, "inv_width": scales, "mode": MODES[options[0]]}
    if name == "fourier":
        return {"include_dc": bool(options[0])}
    if name == "wavelet":
        return {"kind": KINDS[options[0]], "scale": scales, "shift": points}
    return {}


def reference_forward(
    x: Tensor,
    weight: Tensor,
    base_weight: Tensor | None,
    bias: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
) -> Tensor:
    """The formula of kan_forward."""
    y = reference.kan_linear(
        x,
        weight,
        basis=BASES[basis],
        base_weight=base_weight,
        bias=bias,
        **reference_options(basis, options, points, scales),
    )
    return y.to(weight.dtype)


class KanLinear(torch.autograd.Function):
    """The kernels with their gradients: the arguments of kan_forward, then the rung."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return call(arguments[-1], *arguments[:-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, base_weight, _, points, scales = inputs[:_TENSORS]
        ctx.save_for_backward(x, weight, base_weight, points, scales)
        ctx.static = inputs[_TENSORS:]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        wanted = tuple(int(needed) for needed in ctx.needs_input_grad[:_TENSORS])
        basis, options, rung = ctx.static
        arguments = (grad_out, *ctx.saved_tensors, basis, options, wanted, rung)
        # the second Function costs a graph node and memory: only create_graph=True needs it
        run = KanBackward.apply if torch.is_grad_enabled() else KanBackward.forward
        grads = run(*arguments)
        present = (g if w else None for g, w in zip(grads, wanted, strict=True))
        return *present, *(None for _ in ctx.static)


class KanBackward(torch.autograd.Function):
    """kan_backward, itself differentiable: its gradient is the reference formula's, recomputed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        op = namespace("kan", arguments[-1]).kan_backward.default
        grads: tuple[Tensor, ...] = op(*arguments[:-1])
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:6])
        ctx.static = inputs[6:]

    @staticmethod
    def backward(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_out, x, weight, base_weight, points, scales = ctx.saved_tensors
        basis, options, wanted, _ = ctx.static
        # the layer is linear in its bias, whose gradient is the sum of grad_out
        inputs = (x, weight, base_weight, None, points, scales)
        wide = torch.promote_types(weight.dtype, torch.float32)
        present = [i for i, t in enumerate(inputs) if t is not None]
        asked = [i for i in range(_TENSORS) if wanted[i]]

        def forward(*given: Tensor) -> Tensor:
            full: list[Any] = [None] * _TENSORS
            for i, tensor in zip((*present, 3), given, strict=True):
                full[i] = tensor
            x, weight, base_weight, bias, points, scales = full
            return reference_forward(x, weight, base_weight, bias, points, scales, basis, options)

        bias = torch.zeros(weight.shape[:2], dtype=wide, device=weight.device)

        def gradient(grad_out: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            pullback: Callable[..., Any] = torch.func.vjp(forward, *given, bias)[1]
            places = (*present, 3)
            grads = dict(zip(places, pullback(grad_out), strict=True))
            return tuple(grads[i] for i in asked)

        given = [inputs[i].to(wide) for i in present]  # type: ignore[union-attr]
        pullback: Callable[..., Any] = torch.func.vjp(gradient, grad_out.to(wide), *given)[1]
        first, *rest = pullback(tuple(grad_grads[i].to(wide) for i in asked))
        full: list[Tensor | None] = [None] * _TENSORS
        for i, grad in zip(present, rest, strict=True):
            full[i] = grad.to(inputs[i].dtype)  # type: ignore[union-attr]
        return (first.to(grad_out.dtype), *full[:3], *full[4:], *(None for _ in ctx.static))


class Rational(torch.autograd.Function):
    """The rational kernels with their gradients: x, numerator, denominator, then the rung."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        y: Tensor = namespace("kan", arguments[-1]).kan_rational_forward.default(*arguments[:-1])
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.rung = inputs[3]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        run = RationalBackward.apply if torch.is_grad_enabled() else RationalBackward.forward
        return *run(grad_out, *ctx.saved_tensors, ctx.rung), None


class RationalBackward(torch.autograd.Function):
    """kan_rational_backward, itself differentiable through the reference formula."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        op = namespace("kan", arguments[-1]).kan_rational_backward.default
        grads: tuple[Tensor, ...] = op(*arguments[:-1])
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
        def gradient(grad_out: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            pullback: Callable[..., Any] = torch.func.vjp(reference.group_rational, *given)[1]
            grads: tuple[Tensor, ...] = pullback(grad_out)
            return grads

        pullback: Callable[..., Any] = torch.func.vjp(gradient, *ctx.saved_tensors)[1]
        return *pullback(tuple(grad_grads)), None
