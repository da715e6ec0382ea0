"""vmap of the kernels: the mapped axis is folded into the batch.

Parameters that are mapped, or whose gradient must not be summed over the mapped axis, become inputs
of the samples: the plan says of every angle where it comes from, so this is another plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Of a plan's numbers (csrc/statevector/program.cpp): where the count of its factors stands, and
# where their pairs (source, index) begin.
N_FACTORS, FACTORS = 2, 8
PARAM, INPUT = 1, 2

Dims = Sequence[int | None]


def with_params_as_inputs(plan: Tensor, inputs: int) -> Tensor:
    """The plan of a circuit whose parameters stand behind so many inputs of every sample."""
    out = plan.clone()
    pairs = out[FACTORS : FACTORS + 2 * int(out[N_FACTORS])].view(-1, 2)
    moved = pairs[:, 0] == PARAM
    pairs[:, 1] += inputs * moved
    pairs[:, 0] += (INPUT - PARAM) * moved
    return out


def _front(given: Tensor, mapped: int | None, size: int) -> Tensor:
    """The mapped axis as the first one."""
    return given.expand(size, *given.shape) if mapped is None else given.movedim(mapped, 0)


def _fold(given: Tensor | None, mapped: int | None, size: int) -> Tensor | None:
    return None if given is None else _front(given, mapped, size).flatten(0, 1)


def _with_own_params(
    params: Tensor, inputs: Tensor, plan: Tensor, dims: Dims, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """No parameters, inputs [V * B, Pb + P], and their plan."""
    every = _front(inputs, dims[1], size)
    own = _front(params, dims[0], size).unsqueeze(1).expand(-1, every.shape[1], -1)
    rows = torch.cat([every, own], -1).flatten(0, 1)
    return params.new_empty(0), rows, with_params_as_inputs(plan, every.shape[-1])


def _forward_rule(
    op: Callable[..., Any], kept_rows: Callable[[int, int], int]
) -> Callable[..., Any]:
    def rule(info: Any, dims: Dims, *arguments: Any) -> tuple[Any, Any]:
        size = info.batch_size
        params, inputs, state, plan, *rest = arguments
        batch = _front(inputs, dims[1], size).shape[1]
        if dims[0] is None:
            rows = _fold(inputs, dims[1], size)
        else:
            params, rows, plan = _with_own_params(params, inputs, plan, dims, size)
        results = op(params, rows, _fold(state, dims[2], size), plan, *rest)
        if isinstance(results, Tensor):
            return results.unflatten(0, (size, batch)), 0
        values, kept = results
        if rest[-1]:
            # as many rows for every one as the operator keeps for its batch
            each = kept_rows(batch, rest[1])
            missing = size * each - kept.shape[0]
            kept = torch.cat([kept, kept.new_zeros(missing, *kept.shape[1:])])
            kept = kept.unflatten(0, (size, each))
        else:
            kept = kept.new_empty(size, 0)
        return (values.unflatten(0, (size, batch)), kept), (0, 0)

    return rule


def _backward_rule(
    op: Callable[..., Any], kept_rows: Callable[[int, int], int] | None
) -> Callable[..., Any]:
    """kept_rows: of the states between forward and backward, where they are kept in tiles."""

    def rule(info: Any, dims: Dims, *arguments: Any) -> tuple[Any, Any]:
        size = info.batch_size
        grad, params, inputs, state, out, plan, constants, bits = arguments
        if kept_rows is not None and dims[4] is None:
            # the tiles of one batch are not those of many
            each = [op(*_select(arguments, dims, v)) for v in range(size)]
            return tuple(torch.stack(g) for g in zip(*each, strict=True)), (0, 0, 0)
        batch, n_inputs = _front(inputs, dims[2], size).shape[1:]
        none, rows, plan = _with_own_params(params, inputs, plan, dims[1:], size)
        saved = _fold(out, dims[4], size)
        if kept_rows is not None and saved is not None:
            saved = saved[: kept_rows(size * batch, bits)]
        _, of_rows, of_state = op(
            _fold(grad, dims[0], size), none, rows, _fold(state, dims[3], size), saved, plan,
            constants, bits,
        )  # fmt: skip
        of_rows = of_rows.unflatten(0, (size, batch))
        if state is None:
            of_state = of_state.new_empty(size, 0)
        else:
            of_state = of_state.unflatten(0, (size, batch))
        return (of_rows[..., n_inputs:].sum(1), of_rows[..., :n_inputs], of_state), (0, 0, 0)

    return rule


def _select(arguments: Sequence[Any], dims: Dims, v: int) -> list[Any]:
    return [
        a if mapped is None else a.select(mapped, v)
        for a, mapped in zip(arguments, dims, strict=True)
    ]


def register(kept_rows: Callable[[int, int], int]) -> None:
    """Teach vmap the operators; kept_rows(B, bits) is how many rows of states are kept for B."""
    ops = torch.ops.saccade
    rules = {
        ops.statevector_forward: _forward_rule(ops.statevector_forward, kept_rows),
        ops.statevector_expval_forward: _forward_rule(ops.statevector_expval_forward, kept_rows),
        ops.statevector_backward: _backward_rule(ops.statevector_backward, None),
        ops.statevector_expval_backward: _backward_rule(ops.statevector_expval_backward, kept_rows),
    }
    for op, rule in rules.items():
        torch.library.register_vmap(op.default, rule)
