"""Exact optimal transport: the earth mover's distance, with its plan and its dual variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import _checks
from saccade.ops import _transport_checks as _arguments
from saccade.ops._select import offer, select_reverse_mode
from saccade.ops._transport_assignment import cost_matrix, fold_batch, fold_mapped, kept_type
from saccade.ops._transport_result import OTResult


def _cpu(cost: Tensor) -> str | None:
    if cost.device.type not in ("cpu", "meta"):
        return f"the tensors are on {cost.device}"
    return None if _load.has("_C") else _load.reason("_C")


offer("emd", cpu=_cpu)


def _fake(cost: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, ...]:
    batch, n, m = cost.shape
    kept = kept_type(cost.dtype)
    return (
        cost.new_empty((batch, n, m), dtype=kept),
        cost.new_empty((batch, n), dtype=kept),
        cost.new_empty((batch, m), dtype=kept),
        cost.new_empty((batch,), dtype=kept),
        cost.new_empty((batch,), dtype=kept),
        cost.new_empty((batch,), dtype=torch.int32),
        cost.new_empty((batch,), dtype=torch.int32),
    )


def _vmap(info: Any, in_dims: Sequence[int | None], *given: Any) -> tuple[Any, Any]:
    results = torch.ops.saccade.emd_forward.default(*fold_mapped(info, in_dims, given))
    return tuple(r.unflatten(0, (info.batch_size, -1)) for r in results), (0,) * len(results)


if _load.has("_C"):
    torch.library.register_fake("saccade::emd_forward", _fake)
    torch.library.register_vmap("saccade::emd_forward", _vmap)


def _solve(cost: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, ...]:
    results: tuple[Tensor, ...] = torch.ops.saccade.emd_forward.default(cost, a, b)
    return results


class Transported(torch.autograd.Function):
    """emd_forward with the gradients of its value: plan, f and g, which have none themselves."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _solve(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        plan, f, g, _, err, pivots, status = output
        ctx.mark_non_differentiable(plan, f, g, err, pivots, status)
        ctx.save_for_backward(plan, f, g)
        ctx.types = [None if given is None else given.dtype for given in inputs]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, f, g = ctx.saved_tensors
        of_value = grads[3]
        return tuple(
            None if dtype is None or not needed else (of_value[(..., *axes)] * factor).to(dtype)
            for dtype, needed, factor, axes in zip(
                ctx.types,
                ctx.needs_input_grad,
                (plan, f, g),
                ((None, None), (None,), (None,)),
                strict=True,
            )
        )


def _weights(name: str, given: Any, cost: Tensor, axis: int) -> Tensor | None:
    """Check weights of rows (axis -2) or columns (axis -1), and expand them to cost's batch."""
    if given is None:
        return None
    _checks.floating_tensor(name, given)
    _checks.like(name, given, "cost", cost)
    side, count = ("rows", "n") if axis == -2 else ("columns", "m")
    if given.dim() < 1 or given.shape[-1] != cost.shape[axis]:
        raise ValueError(
            f"{name} must have an entry for each of the {count} = {cost.shape[axis]} {side} of "
            f"cost, got shape {tuple(given.shape)}."
        )
    batch = cost.shape[:-2]
    missing = len(batch) - (given.dim() - 1)
    fits = missing >= 0 and all(
        have in (1, want) for have, want in zip(given.shape[:-1], batch[missing:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"the leading axes of {name} must broadcast to those of cost, {tuple(batch)}, "
            f"got {tuple(given.shape[:-1])}."
        )
    _arguments.not_negative(name, given)
    expanded: Tensor = given.expand([*batch, given.shape[-1]])
    return expanded


def emd(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    backend: str = "auto",
) -> OTResult:
    r"""Move weights a to weights b at the least cost: exact optimal transport.

    .. math:: \min_{P \ge 0,\ P 1 = a,\ P^\top 1 = b} \langle C, P \rangle
              = \max_{f_i + g_j \le C_{ij}} \langle f, a \rangle + \langle g, b \rangle

    Args:
        cost: C, [..., n, m], of any floating type. Any strides. A pair of infinite cost carries
            nothing.
        a: [..., n], of cost's type, at least 0; leading axes are those of cost or broadcast to
            them. Default 1 / n.
        b: [..., m], likewise. Default 1 / m. Its total must be that of a; what rounding leaves is
            scaled away.
        backend: "auto" takes the CPU's kernels, or the reference where they are missing; "cpu" and
            "reference" are taken or refused, never replaced.

    Returns:
        :class:`OTResult`. plan [..., n, m] has at most n + m - 1 entries that are not 0; f and g
        are feasible, tight where the plan is positive, and share the value in equal parts, <f, a> =
        <g, b>; value and value_linear are the cost of the plan; n_iter counts pivots, 0 where an
        assignment was solved; err is the mass that could not go. status: 0 solved, 1 too many
        pivots, 2 infeasible (forbidden pairs keep mass back: as much as possible goes), 3 NaN or an
        infinity that is not forbidden: everything is NaN. Where weights are not looked at (see
        Raises), totals that differ give 2 and a negative weight 3. float64 for float64, else
        float32.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types or devices do not fit together; on the CPU and not traced, a
            weight is negative, or the totals differ by more than a part of 1e-5, for half types
            1e-2.
        NotImplementedError: tensors on a GPU, sparse and nested tensors, forward-mode derivatives
            with a forced backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Where all weights are the same and n = m, this is :func:`assignment`, in float32 for
        float32. Otherwise the network simplex method in float64: the weights become integers, 60
        bits for the whole, so that flows are exact and degenerate pivots cannot cycle. A pivot
        reads some rows of cost and changes a part of the tree. Problems of a batch are spread over
        the threads.

        There is no kernel for GPUs: pivots follow each other, thousands of them, and one changes a
        path of the tree, which is less work than a launch or a barrier. Move cost to the CPU, or
        take :func:`sinkhorn` with a small eps.

        Deterministic. The value has the gradients P, f and g, which are constants to it; where the
        dual variables are not unique this is one subgradient, and f and g count up to a constant,
        which no change of weights of equal totals sees. Rows and columns without weight have the
        largest dual variables that are feasible. Autocast changes nothing. vmap folds the mapped
        axis into the batch.

    Source:
        Dantzig's simplex method on networks; strongly feasible trees: Cunningham, Mathematical
        Programming 11, 1976.

    >>> import torch
    >>> cost = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    >>> emd(cost, torch.tensor([0.25, 0.75])).plan
    tensor([[0.2500, 0.0000],
            [0.2500, 0.5000]])
    """
    cost_matrix(cost)
    rows, columns = _weights("a", a, cost, -2), _weights("b", b, cost, -1)
    if cost.is_cuda and backend == "auto":
        raise NotImplementedError(
            f"emd runs on the CPU and cost is on {cost.device}: pass cost.cpu(), or take sinkhorn "
            "with a small eps."
        )
    *batch, n, m = cost.shape
    if not (rows is None and columns is None):
        _arguments.totals(
            _arguments.uniform(n, None, cost) if rows is None else rows,
            _arguments.uniform(m, None, cost) if columns is None else columns,
            cost,
            relaxable=False,
        )
    rung = select_reverse_mode("emd", backend, cost)
    given = (
        fold_batch(cost, 2),
        None if rows is None else fold_batch(rows, 1),
        None if columns is None else fold_batch(columns, 1),
    )
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    if rung == "reference":
        results: tuple[Tensor, ...] = reference.emd(*given)
    elif wanted:
        results = Transported.apply(*given)
    else:
        results = _solve(*given)
    plan, f, g, value, err, pivots, status = results
    value = value.reshape(batch)
    return OTResult(
        plan.reshape([*batch, n, m]),
        f.reshape([*batch, n]),
        g.reshape([*batch, m]),
        value,
        value,
        pivots.reshape(batch),
        err.reshape(batch),
        status.reshape(batch),
    )
