"""Between the public functions and the kernels: fakes, vmap rules, autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade import _load
from saccade.ops._kernels import namespace, teach_vmap
from saccade.ops._select import with_signature


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that coordinates and sums are held in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _sample_forward_fake(
    image: Tensor,
    pyramid: Tensor | None,
    fixation: Tensor,
    theta0: Tensor,
    scale: Tensor,
    radii: Tensor,
    edges: Tensor,
    rays: int,
    *_: Any,
) -> Tensor:
    dtype = image.dtype if image.is_floating_point() else torch.float32
    shape = (*fixation.shape[:2], image.shape[1], radii.shape[0], rays)
    return image.new_empty(shape, dtype=dtype)


def _pose_fake(like: Tensor, wanted: bool, *pose: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(t.shape if wanted else (0,), dtype=dtype) for t in pose)


def _sample_backward_fake(
    grad_out: Tensor,
    image: Tensor,
    pyramid: Tensor | None,
    fixation: Tensor,
    theta0: Tensor,
    scale: Tensor,
    radii: Tensor,
    edges: Tensor,
    normalized: bool,
    padding: int,
    antialias: int,
    image_grad: bool,
    pose_grad: bool,
) -> tuple[Tensor, ...]:
    dtype = compute_dtype(image.dtype)
    layered = image_grad and pyramid is not None
    return (
        grad_out.new_empty(image.shape if image_grad else (0,)),
        grad_out.new_empty(pyramid.shape if layered and pyramid is not None else (0,), dtype=dtype),
        *_pose_fake(grad_out, pose_grad, fixation, theta0, scale, dtype=dtype),
    )


def _inverse_forward_fake(
    logpolar: Tensor,
    fixation: Tensor,
    theta0: Tensor,
    scale: Tensor,
    radii: Tensor,
    height: int,
    width: int,
    normalized: bool,
    law: int,
    offset: float,
    mean: bool,
    fill: float,
) -> tuple[Tensor, Tensor]:
    batch, fixations, channels = logpolar.shape[:3]
    lead = (batch, channels) if mean else (batch, fixations, channels)
    count = (batch, height, width) if mean else (0,)
    return logpolar.new_empty((*lead, height, width)), logpolar.new_empty(
        count, dtype=compute_dtype(logpolar.dtype)
    )


def _inverse_backward_fake(
    grad_out: Tensor,
    count: Tensor,
    logpolar: Tensor,
    fixation: Tensor,
    theta0: Tensor,
    scale: Tensor,
    radii: Tensor,
    normalized: bool,
    law: int,
    offset: float,
    mean: bool,
    logpolar_grad: bool,
    pose_grad: bool,
) -> tuple[Tensor, ...]:
    dtype = compute_dtype(logpolar.dtype)
    return (
        logpolar.new_empty(logpolar.shape if logpolar_grad else (0,)),
        *_pose_fake(logpolar, pose_grad, fixation, theta0, scale, dtype=dtype),
    )


def _vmap_rule(op: Callable[..., Any], tensors: int) -> Callable[..., Any]:
    """Fold the mapped axis into the batch, which every tensor but the tables begins with."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size

        def fold(tensor: Any, mapped: int | None) -> Any:
            if tensor is None or (tensor.dim() == 1 and mapped is None):
                return tensor
            if mapped is None:
                tensor, mapped = tensor.expand(size, *tensor.shape), 0
            return tensor.movedim(mapped, 0).flatten(0, 1)

        folded = [fold(t, d) for t, d in zip(args[:tensors], in_dims[:tensors], strict=True)]
        results = op(*folded, *args[tensors:])
        single = isinstance(results, Tensor)
        unfolded, out_dims = [], []
        for result in (results,) if single else results:
            # results that were not wanted are empty and stay unmapped
            absent = result.dim() == 1
            unfolded.append(result if absent else result.unflatten(0, (size, -1)))
            out_dims.append(None if absent else 0)
        return (unfolded[0], out_dims[0]) if single else (tuple(unfolded), tuple(out_dims))

    return rule


def _register_vmap(space: str) -> None:
    """Teach vmap the operators of one namespace; tables of radii cannot be mapped."""
    ops = getattr(torch.ops, space)
    for op, tensors in (
        (ops.logpolar_sample_forward.default, 7),
        (ops.logpolar_sample_backward.default, 8),
        (ops.logpolar_inverse_forward.default, 5),
        (ops.logpolar_inverse_backward.default, 7),
    ):
        torch.library.register_vmap(op, _vmap_rule(op, tensors))


if _load.has("_C"):
    torch.library.register_fake("saccade::logpolar_sample_forward", _sample_forward_fake)
    torch.library.register_fake("saccade::logpolar_sample_backward", _sample_backward_fake)
    torch.library.register_fake("saccade::logpolar_inverse_forward", _inverse_forward_fake)
    torch.library.register_fake("saccade::logpolar_inverse_backward", _inverse_backward_fake)
teach_vmap("logpolar", _register_vmap)


def sample(rung: str, *arguments: Any) -> Tensor:
    """Run a kernel's forward without autograd."""
    out: Tensor = namespace("logpolar", rung).logpolar_sample_forward.default(*arguments)
    return out


def inverse(rung: str, *arguments: Any) -> tuple[Tensor, Tensor]:
    """Run a kernel's forward without autograd."""
    op = namespace("logpolar", rung).logpolar_inverse_forward.default
    result: tuple[Tensor, Tensor] = op(*arguments)
    return result


class Sample(torch.autograd.Function):
    """Sampling with its gradients: the arguments of logpolar_sample_forward, then the rung."""

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(*arguments: Any) -> Tensor:
        return sample(arguments[-1], *arguments[:-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:7])
        ctx.static = inputs[8:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *static, rung = ctx.static
        needs = ctx.needs_input_grad[:5]
        grads = namespace("logpolar", rung).logpolar_sample_backward.default(
            grad_out, *ctx.saved_tensors, *static, any(needs[:2]), any(needs[2:])
        )
        wanted = (g if need else None for g, need in zip(grads, needs, strict=True))
        return *wanted, *(None for _ in range(7))


class Inverse(torch.autograd.Function):
    """The inverse with its gradients: the arguments of logpolar_inverse_forward, then the rung."""

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        return inverse(arguments[-1], *arguments[:-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], *inputs[:5])
        ctx.static = inputs[7:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        normalized, law, offset, mean, _, rung = ctx.static
        needs = ctx.needs_input_grad[:4]
        grads = namespace("logpolar", rung).logpolar_inverse_backward.default(
            grad_out, *ctx.saved_tensors, normalized, law, offset, mean, needs[0], any(needs[1:])
        )
        wanted = (g if need else None for g, need in zip(grads, needs, strict=True))
        return *wanted, *(None for _ in range(9))
