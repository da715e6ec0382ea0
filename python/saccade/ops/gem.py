"""Gradient projection for continual learning: a step that opposes none of the past tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import _checks
from saccade.ops import _gem_checks as _arguments
from saccade.ops._gem_op import Projection, kernel
from saccade.ops._kernels import wanted
from saccade.ops._select import (
    cuda_obstacle,
    offer,
    select,
    select_reverse_mode,
    triton_obstacle,
)

MAX_GPU_ROWS = 64


def _limits(memory: Tensor) -> str | None:
    if memory.dtype == torch.float64:
        return "the GPU kernels read float32 and half types, float64 needs the reference"
    if memory.dim() >= 2 and memory.shape[-2] > MAX_GPU_ROWS:
        return f"the GPU kernels take at most t = {MAX_GPU_ROWS} rows, got {memory.shape[-2]}"
    return None


def _cpu(memory: Tensor) -> str | None:
    if memory.device.type not in ("cpu", "meta"):
        return f"the tensors are on {memory.device}"
    return None if _load.has("_C") else _load.reason("_C")


def _cuda(memory: Tensor) -> str | None:
    return cuda_obstacle(memory) or _limits(memory)


def _triton(memory: Tensor) -> str | None:
    return triton_obstacle("gem", memory) or _limits(memory)


offer("gem", cpu=_cpu, cuda=_cuda, triton=_triton)


@overload
def gem_project(
    grad: Tensor, memory: Tensor, *, memory_strength: float = ...,
    slack: Tensor | float | None = ..., ridge: float = ..., valid: Tensor | None = ...,
    trigger: str = ..., return_dual: Literal[False] = ..., backend: str = ...,
) -> Tensor: ...  # fmt: skip


@overload
def gem_project(
    grad: Tensor, memory: Tensor, *, memory_strength: float = ...,
    slack: Tensor | float | None = ..., ridge: float = ..., valid: Tensor | None = ...,
    trigger: str = ..., return_dual: bool, backend: str = ...,
) -> Tensor | tuple[Tensor, Tensor, Tensor]: ...  # fmt: skip


def gem_project(
    grad: Tensor,
    memory: Tensor,
    *,
    memory_strength: float = 0.0,
    slack: Tensor | float | None = None,
    ridge: float = 0.0,
    valid: Tensor | None = None,
    trigger: str = "violation",
    return_dual: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    r"""Project a gradient onto the half spaces of the memories: the nearest that opposes none.

    .. math:: v^\star = \arg\min_v \tfrac{1}{2} \lVert v - g \rVert^2
              \ \text{s.t.}\ G v \ge -w, \quad v^\star = g + G^\top \lambda^\star, \quad
              \lambda^\star = \arg\min_{\lambda \ge m} \tfrac{1}{2} \lambda^\top
              (G G^\top + \epsilon I) \lambda + \lambda^\top (G g + w)

    Three numbers are called margin in the literature; each has its own name here.
    `memory_strength` m is the lower bound of the dual variables, GEM's own: it is the projection of
    g + m (G_1 + ... + G_t). `slack` w loosens the constraints. `ridge` is added to the diagonal of
    G G'. The defaults are the projection itself; memory_strength=0.5 and ridge=1e-3 are what the
    published code of GEM computes.

    Args:
        grad: g, [..., P], of any floating type.
        memory: G, [..., t, P], of grad's type, a row for each past task; leading axes are grad's or
            broadcast to them. Any strides: [P, t] as `.mT` is read in place.
        memory_strength: m, finite, at least 0. Default 0.
        slack: w, a number or [..., t]; None is 0. A negative one asks for progress on its task,
            which may be impossible; a row with +inf takes no part.
        ridge: epsilon, finite, at least 0, in the units of G G'. Default 0: rows that depend on
            others are recognised by their pivots.
        valid: bool [..., t]; a row that is False takes no part, whatever it holds. Default all.
        trigger: "violation" (default) leaves g as it is, also with m > 0, unless an entry of G g +
            w is negative; "always" solves in any case.
        return_dual: also return lambda and the status. Default False.
        backend: "auto" takes the fastest rung that can run on memory
            (:func:`saccade.ops.explain`); "cpu", "cuda", "triton" and "reference" are taken or
            refused, never replaced.

    Returns:
        v with the shape and type of grad; with return_dual also lambda [..., t] in float64 and the
        status [...] in int32: 0 solved, 1 untouched, 2 infeasible, 3 NaN or infinity in what
        counts. Where it is not 0, v is g and lambda is 0. v is differentiable, they are not.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or values do not fit together.
        NotImplementedError: sparse and nested tensors; forward-mode derivatives with a forced
            backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: one pass over grad and memory for all products, (t + 1) (t + 2) P flops; a dual
        active-set method in float64 on t numbers; one pass over the rows that are active. Products
        of float32 are summed in float32 over a few hundred columns, then in float64: squares
        must fit into float32. Half types are computed in float32 and rounded once.

        Deterministic, backward included; on the CPU the bits do not depend on the number of
        threads. On CUDA nothing waits for the device, so the call fits into a CUDA graph. Gradients
        reach grad, memory and slack, in a pass over memory and one that writes its gradient; no
        double backward on the kernels. A dual variable at its bound is treated as inactive.
        Autocast changes nothing. vmap folds the mapped axis into the batch.

    Source:
        GEM, arXiv 1706.08840, equations 8 to 12; Goldfarb and Idnani, Mathematical Programming 27,
        1983.

    >>> import torch
    >>> memory = torch.tensor([[0.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
    >>> gem_project(torch.tensor([1.0, -1.0, 3.0]), memory)
    tensor([1., 0., 3.])
    """
    _arguments.gradient_and_memory(grad, memory)
    strength = _arguments.at_least_zero("memory_strength", memory_strength)
    epsilon = _arguments.at_least_zero("ridge", ridge)
    always = _arguments.is_always(trigger)
    batch, t = grad.shape[:-1], memory.shape[-2]
    widths = _arguments.slack_of_rows(slack, valid, t, batch, grad)

    rung = select_reverse_mode("gem", backend, memory)
    g, rows, w = _fold(grad, batch, 1), _fold(memory, batch, 2), _fold(widths, batch, 1)
    if rung == "reference":
        v, dual, status = reference.gem_project(g, rows, strength, w, epsilon, always)
    elif wanted(g, rows, w):
        v, dual, status, _ = Projection.apply(g, rows, w, strength, epsilon, always, rung)
    else:
        v, dual, status, _ = kernel(rung, "gem_forward")(g, rows, w, strength, epsilon, always)
    v = v.reshape(grad.shape)
    return (v, dual.reshape(*batch, t), status.reshape(batch)) if return_dual else v


def _fold(tensor: Any, batch: Sequence[int], own: int) -> Any:
    """Broadcast the leading axes to the batch and make one of them."""
    if tensor is None:
        return None
    sizes = tensor.shape[tensor.dim() - own :]
    if tensor.dim() == own:
        return tensor.expand(math.prod(batch), *sizes)
    return tensor.expand(*batch, *sizes).reshape(math.prod(batch), *sizes)


def agem_project(grad: Tensor, reference: Tensor, *, backend: str = "auto") -> Tensor:
    r"""Project a gradient onto the half space of one reference gradient.

    .. math:: v = g - \frac{\min(g \cdot a, 0)}{a \cdot a}\, a

    Args:
        grad: g, [..., P], of any floating type.
        reference: a, [..., P], of grad's type; leading axes are grad's or broadcast to them.
        backend: as in :func:`gem_project`.

    Returns:
        v with the shape and type of grad: g itself where g . a is not negative, or where a number
        is not finite. Differentiable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types or devices do not fit together.
        RuntimeError: the forced backend cannot run.

    Notes:
        :func:`gem_project` with one row, and all that is said there.

    Source:
        A-GEM, arXiv 1812.00420, equation 11.

    >>> import torch
    >>> agem_project(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 4.0]))
    tensor([1., 0.])
    """
    _checks.floating_tensor("reference", reference)
    if reference.dim() < 1:
        raise ValueError("reference must have rank 1 [P] or more, got a scalar.")
    return gem_project(grad, reference.unsqueeze(-2), backend=backend)


@torch.no_grad()
def gem_project_(
    grads: Sequence[Tensor | None],
    memory: Tensor | Sequence[Sequence[Tensor | None]],
    *,
    memory_strength: float = 0.0,
    slack: Tensor | float | None = None,
    ridge: float = 0.0,
    valid: Tensor | None = None,
    trigger: str = "violation",
    return_dual: bool = False,
    backend: str = "auto",
) -> Sequence[Tensor | None] | tuple[Sequence[Tensor | None], Tensor, Tensor]:
    r"""Project the gradients of many parameters in place, as if they were one vector.

    .. math:: v^\star = g + G^\top \lambda^\star

    Nothing is flattened or copied: every tensor is read and written where it lies.

    Args:
        grads: tensors of one type, usually `[p.grad for p in model.parameters()]`. They are
            overwritten. A parameter whose gradient is None does not move, so its part of the
            memories is left out.
        memory: a tensor [t, P] over the numbers of all gradients in their order (none of which is
            None then); or t rows, each a list with a tensor or None, which is zeros, for every
            gradient.
        memory_strength: as in :func:`gem_project`.
        slack: a number or [t].
        ridge: as in :func:`gem_project`.
        valid: bool [t].
        trigger: as in :func:`gem_project`.
        return_dual: also return lambda and the status. Default False.
        backend: as in :func:`gem_project`.

    Returns:
        grads; with return_dual also lambda [t] in float64 and the status in int32, a scalar.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: numbers of tensors, shapes, types, devices or values do not fit together.
        RuntimeError: the forced backend cannot run.

    Notes:
        No graph is recorded. Tensors that are not contiguous, or of a half type on the CPU, are
        copied there and back. The rungs "triton" and "reference" flatten.

    Source:
        GEM, arXiv 1706.08840, equations 8 to 12.

    >>> import torch
    >>> grads = [torch.tensor([1.0]), None, torch.tensor([[-1.0, 3.0]])]
    >>> gem_project_(grads, [[None, None, torch.tensor([[2.0, 0.0]])]])
    [tensor([1.]), None, tensor([[0., 3.]])]
    """
    kept, entries, t, stacked = _arguments.parameter_lists(grads, memory)
    strength = _arguments.at_least_zero("memory_strength", memory_strength)
    epsilon = _arguments.at_least_zero("ridge", ridge)
    always = _arguments.is_always(trigger)
    if t == 0 or not kept:
        like = kept[0] if kept else torch.empty(0)
        nothing = like.new_zeros((t,), dtype=torch.float64)
        # solved, or untouched
        status = like.new_full((), 0 if always else 1, dtype=torch.int32)
        return (grads, nothing, status) if return_dual else grads
    widths = _arguments.slack_of_rows(slack, valid, t, (), kept[0])
    w = None if widths is None else widths.reshape(1, t)

    rung = select("gem", backend, entries[0] if stacked else kept[0].reshape(1, -1).expand(t, -1))
    if rung in ("cpu", "cuda"):
        op = kernel(rung, "gem_project_")
        dual, code = op(kept, entries, t, w, strength, epsilon, always)
    else:
        flat = torch.cat([grad.reshape(1, -1) for grad in kept], dim=1)
        rows = _flat_rows(kept, entries, t, stacked)
        v, dual, code = gem_project(
            flat, rows, memory_strength=strength, slack=w, ridge=epsilon, trigger=trigger,
            return_dual=True, backend=rung,
        )  # fmt: skip
        for grad, part in zip(kept, v[0].split([g.numel() for g in kept]), strict=True):
            grad.copy_(part.view(grad.shape))
    return (grads, dual[0], code[0]) if return_dual else grads


def _flat_rows(kept: list[Tensor], entries: list[Tensor], t: int, stacked: bool) -> Tensor:
    if stacked:
        return torch.cat(entries, dim=1)
    columns = []
    for k, grad in enumerate(kept):
        rows = entries[k :: len(kept)]
        empty = grad.new_zeros(grad.numel())
        columns.append(torch.stack([r.reshape(-1) if r.numel() else empty for r in rows]))
    return torch.cat(columns, dim=1)
