"""The assignment problem: the cheapest one-to-one matching, with its dual variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import _checks
from saccade.ops._select import cuda_obstacle, offer, select_reverse_mode


class Assignment(NamedTuple):
    """A matching of rows with columns, and the proof that none is cheaper.

    Attributes:
        row_to_col: int64 [..., n], the column of each row, -1 where it has none.
        col_to_row: int64 [..., m], the row of each column, -1 where it has none.
        cost: the total of the matching, [...].
        row_dual: u, [..., n].
        col_dual: v, [..., m].
    """

    row_to_col: Tensor
    col_to_row: Tensor
    cost: Tensor
    row_dual: Tensor
    col_dual: Tensor


def _cpu(cost: Tensor) -> str | None:
    if cost.device.type not in ("cpu", "meta"):
        return f"the tensors are on {cost.device}"
    return None if _load.has("_C") else _load.reason("_C")


offer("assignment", cpu=_cpu, cuda=cuda_obstacle)


def kept_type(dtype: torch.dtype) -> torch.dtype:
    """The type of totals and dual variables: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fake(cost: Tensor, mask: Tensor | None, maximize: bool) -> tuple[Tensor, ...]:
    batch, n, m = cost.shape
    kept = kept_type(cost.dtype)
    return (
        cost.new_empty((batch, n), dtype=torch.int64),
        cost.new_empty((batch, m), dtype=torch.int64),
        cost.new_empty((batch,), dtype=kept),
        cost.new_empty((batch, n), dtype=kept),
        cost.new_empty((batch, m), dtype=kept),
    )


def fold_mapped(info: Any, in_dims: Sequence[int | None], given: Sequence[Any]) -> list[Any]:
    """Arguments of an operator with the axis that vmap maps folded into their first axis."""

    def fold(argument: Any, mapped: int | None) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        if mapped is None:
            argument, mapped = argument.expand(info.batch_size, *argument.shape), 0
        return argument.movedim(mapped, 0).flatten(0, 1)

    return [fold(a, d) for a, d in zip(given, in_dims, strict=True)]


def _vmap(info: Any, in_dims: Sequence[int | None], *given: Any) -> tuple[Any, Any]:
    results = torch.ops.saccade.assignment_forward.default(*fold_mapped(info, in_dims, given))
    return tuple(r.unflatten(0, (info.batch_size, -1)) for r in results), (0,) * len(results)


if _load.has("_C"):
    torch.library.register_fake("saccade::assignment_forward", _fake)
    torch.library.register_vmap("saccade::assignment_forward", _vmap)


def _solve(cost: Tensor, mask: Tensor | None, maximize: bool) -> tuple[Tensor, ...]:
    results: tuple[Tensor, ...] = torch.ops.saccade.assignment_forward.default(cost, mask, maximize)
    return results


class Matched(torch.autograd.Function):
    """The assignment with the gradient of its total: a one for each pair."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _solve(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        row_to_col, col_to_row, _, row_dual, col_dual = output
        ctx.mark_non_differentiable(row_to_col, col_to_row, row_dual, col_dual)
        ctx.save_for_backward(row_to_col, inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        row_to_col, cost = ctx.saved_tensors
        columns = torch.arange(cost.shape[-1], device=cost.device)
        pairs = row_to_col.unsqueeze(-1) == columns
        return torch.where(pairs, grads[2][..., None, None].to(cost.dtype), 0.0), None, None


def cost_matrix(cost: Any) -> None:
    """Check cost [..., n, m]."""
    _checks.floating_tensor("cost", cost)
    if cost.dim() < 2:
        raise ValueError(f"cost must have rank 2 [n, m] or more, got shape {tuple(cost.shape)}.")


def allowed_pairs(mask: Any, cost: Tensor) -> Tensor | None:
    """Check a bool mask that broadcasts to cost; expand it."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a torch.Tensor of type torch.bool, got {got}.")
    if mask.device != cost.device:
        raise ValueError(f"mask must be on the device of cost, {cost.device}, got {mask.device}.")
    missing = cost.dim() - mask.dim()
    fits = missing >= 0 and all(
        have in (1, want) for have, want in zip(mask.shape, cost.shape[missing:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"mask must broadcast to the shape of cost, {tuple(cost.shape)}, "
            f"got {tuple(mask.shape)}."
        )
    return mask.expand(cost.shape)


def fold_batch(tensor: Tensor, own: int) -> Tensor:
    """All axes but the last `own` as one, without a copy where strides allow."""
    if tensor.dim() == own:
        return tensor.unsqueeze(0)
    axes = tensor.shape[: tensor.dim() - own]
    return tensor.reshape(math.prod(axes), *tensor.shape[tensor.dim() - own :])


def assignment(
    cost: Tensor,
    *,
    maximize: bool = False,
    mask: Tensor | None = None,
    backend: str = "auto",
) -> Assignment:
    r"""Match rows with columns one to one, as many as possible, at the least total cost.

    .. math:: \min_\pi \sum_i C_{i \pi(i)}
              = \max_{u, v} \sum_i u_i + \sum_j v_j, \quad u_i + v_j \le C_{ij}

    with :math:`v \le 0` where there are fewer rows than columns, :math:`u \le 0` where there are
    more; both sums are equal, and so are both sides for every pair that is matched.

    Args:
        cost: C, [..., n, m], of any floating type. Any strides. A pair of infinite cost (of -inf
            with `maximize`) is forbidden.
        maximize: look for the largest total instead: all inequalities turn. Default False.
        mask: bool, broadcast to cost; a pair that is False is forbidden, whatever its cost holds.
            So a problem of fewer rows or columns is padded with False. Default all True.
        backend: "auto" takes the fastest rung that can run on cost (:func:`saccade.ops.explain`);
            "cpu", "cuda" and "reference" are taken or refused, never replaced.

    Returns:
        :class:`Assignment` (row_to_col, col_to_row, cost, row_dual, col_dual). Partners are int64,
        -1 where there is none; the total and the dual variables are float64 for float64, else
        float32. Only the total is differentiable.

        Where forbidden pairs leave rows (of n <= m) without a partner although columns are left,
        the matching is the cheapest of those with the most pairs. The dual variables then belong to
        the problem in which a row may stay alone for a price: those that do have it as row_dual, no
        row has more. The same holds for columns where n > m.

        NaN, or an infinity that is not forbidden, leaves a problem without pairs: the total and
        its dual variables are NaN.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes or devices do not fit together.
        NotImplementedError: sparse and nested tensors; forward-mode derivatives with a forced
            backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: the method of Jonker and Volgenant, O(n^2 m) at worst, in practice 10 to 50 reads of
        each row of the shorter side. Problems of a batch are spread over the threads, one problem
        runs on one. On CUDA a problem has a warp (up to 128 rows and columns) or a block, and
        nothing waits for the device; costs that do not fit into shared memory, about 90 KB, are
        copied once. float32 is solved in float32; where the duality gap, in float64, leaves room
        for more than one rounding of the total, it is solved again in float64. Half types are
        converted first.

        Deterministic: minima go to the lowest index, so that all instruction sets and numbers of
        threads, and GPUs, give the same matching. The gradient of the total is 1 for each pair, of
        any order. Autocast changes nothing. vmap folds the mapped axis into the batch.

    Source:
        Jonker and Volgenant, Computing 38, 1987.

    >>> import torch
    >>> best = assignment(torch.tensor([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]))
    >>> best.row_to_col.tolist(), best.col_to_row.tolist(), best.cost.item()
    ([1, 0], [1, 0, -1], 3.0)
    """
    cost_matrix(cost)
    if not isinstance(maximize, bool):
        raise TypeError(f"maximize must be a bool, got {type(maximize).__name__}.")
    pairs = allowed_pairs(mask, cost)
    rung = select_reverse_mode("assignment", backend, cost)
    *batch, n, m = cost.shape
    problems = fold_batch(cost, 2)
    masks = None if pairs is None else fold_batch(pairs, 2)
    if rung == "reference":
        results: tuple[Tensor, ...] = reference.assignment(problems, maximize, masks)
    elif torch.is_grad_enabled() and cost.requires_grad:
        results = Matched.apply(problems, masks, maximize)
    else:
        results = _solve(problems, masks, maximize)
    row_to_col, col_to_row, total, row_dual, col_dual = results
    return Assignment(
        row_to_col.reshape([*batch, n]),
        col_to_row.reshape([*batch, m]),
        total.reshape(batch),
        row_dual.reshape([*batch, n]),
        col_dual.reshape([*batch, m]),
    )
