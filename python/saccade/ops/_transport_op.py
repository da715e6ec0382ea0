"""Between the public functions of entropic transport and the kernels: fakes, vmap, autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade import _load, reference
from saccade.ops._kernels import fold_batch, namespace, teach_vmap
from saccade.reference import transport as _reference


def _small(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """f, g, value, value_linear, n_iter, err, status."""
    batch = a.shape[:1]
    return (
        a.new_empty(a.shape),
        b.new_empty(b.shape),
        a.new_empty(batch),
        a.new_empty(batch),
        a.new_empty(batch, dtype=torch.int32),
        a.new_empty(batch),
        a.new_empty(batch, dtype=torch.int32),
    )


def _forward_fake(cost: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return (cost.new_empty(cost.shape), *_small(a, b))


def _points_forward_fake(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return _small(a, b)


def _backward_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    cost, a, b = arguments[5:8]
    return cost.new_empty(cost.shape), a.new_empty(a.shape), b.new_empty(b.shape)


def _points_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(given.new_empty(given.shape) for given in arguments[4:8])


FAKES: dict[str, Callable[..., Any]] = {
    "sinkhorn_backward": _backward_fake,
    "sinkhorn_forward": _forward_fake,
    "sinkhorn_points_backward": _points_backward_fake,
    "sinkhorn_points_forward": _points_forward_fake,
}


if _load.has("_C"):
    for _name, _fake in FAKES.items():
        torch.library.register_fake(f"saccade::{_name}", _fake)
teach_vmap("transport", fold_batch(FAKES))


def _reference_forward(
    cost: Tensor, a: Tensor, b: Tensor, init_f: Tensor | None, init_g: Tensor | None, eps: float,
    rho_a: float, rho_b: float, kl: bool, max_iter: int, tol: float, eps_scaling: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    init = None if init_f is None or init_g is None else (init_f, init_g)
    plan, *rest = reference.sinkhorn(
        cost.to(a.dtype), a, b, eps=eps, rho=(rho_a, rho_b), kl=kl, max_iter=max_iter, tol=tol,
        eps_scaling=eps_scaling, init=init,
    )  # fmt: skip
    return plan.to(cost.dtype), *rest


def _reference_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    grads, (cost, a, b, plan, f, g), (eps, rho_a, rho_b, kl) = (
        arguments[:5], arguments[5:11], arguments[11:],
    )  # fmt: skip
    wide = tuple(None if given is None else given.to(a.dtype) for given in grads)
    of_cost, of_a, of_b = _reference.sinkhorn_gradients(
        cast("_reference.Grads", wide), cost.to(a.dtype), a, b, plan.to(a.dtype), f, g,
        eps=eps, rho=(rho_a, rho_b), kl=kl,
    )  # fmt: skip
    return of_cost.to(cost.dtype), of_a, of_b


_REFERENCE: dict[str, Callable[..., Any]] = {
    "sinkhorn_backward": _reference_backward,
    "sinkhorn_forward": _reference_forward,
}


def kernel(rung: str, name: str) -> Callable[..., Any]:
    """The operator of a rung, without autograd."""
    if rung == "reference":
        return _REFERENCE[name]
    op: Callable[..., Any] = getattr(namespace("transport", rung), name).default
    return op


class Plan(torch.autograd.Function):
    """sinkhorn_forward; all of it is differentiable, or with `envelope` the two values alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        *given, _, rung = arguments
        results: tuple[Tensor, ...] = kernel(rung, "sinkhorn_forward")(*given)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        plan, f, g, _, _, n_iter, err, status = output
        ctx.envelope, ctx.rung = inputs[-2:]
        constants = (plan, f, g) if ctx.envelope else ()
        ctx.mark_non_differentiable(*constants, n_iter, err, status)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:3], plan, f, g)
        ctx.static = inputs[5:9]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        nothing = (None,) * 11
        of_plan, of_f, of_g, of_value, of_linear = grads[:5]
        saved, plan = ctx.saved_tensors, ctx.saved_tensors[3]
        of_cost: Tensor | None = None
        if ctx.envelope and of_linear is not None:
            # <C, P> with P held fixed
            of_cost, of_linear = of_linear[:, None, None].to(plan.dtype) * plan, None
        if all(given is None for given in (of_plan, of_f, of_g, of_value, of_linear)):
            return (of_cost, None, None, *nothing)
        op = kernel(ctx.rung, "sinkhorn_backward")
        through, of_a, of_b = op(of_plan, of_f, of_g, of_value, of_linear, *saved, *ctx.static)
        return through if of_cost is None else through + of_cost, of_a, of_b, *nothing


class PointPotentials(torch.autograd.Function):
    """sinkhorn_points_forward; with `envelope` the value alone is differentiable."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        *given, _, rung = arguments
        results: tuple[Tensor, ...] = kernel(rung, "sinkhorn_points_forward")(*given)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        f, g, _, linear, n_iter, err, status = output
        envelope, ctx.rung = inputs[-2:]
        constants = (f, g, linear) if envelope else ()
        ctx.mark_non_differentiable(*constants, n_iter, err, status)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:4], f, g)
        ctx.static = inputs[6:11]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        nothing = (None,) * 12
        if all(given is None for given in grads[:4]):
            return (None,) * 4 + nothing
        op = kernel(ctx.rung, "sinkhorn_points_backward")
        return *op(*grads[:4], *ctx.saved_tensors, *ctx.static), *nothing
