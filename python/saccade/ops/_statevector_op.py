"""Between the public functions and the kernels: plans, fakes, vmap rules, autograd."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade import _load
from saccade.ops import _statevector_vmap
from saccade.ops._select import with_signature
from saccade.ops._statevector_program import PauliSums, Program

# States of at most so many bits may lie in the lanes of vectors, 16 samples at a time.
LANE_BITS = 8
LANES = 16


class Plan(NamedTuple):
    """What the planner made of a program: streams, the bits left of its wires, and K."""

    ints: Tensor
    floats: Tensor
    bits: int
    observables: int


@functools.lru_cache(maxsize=256)
def plan(program: Program, zero: bool, little: bool, sums: PauliSums | None) -> Plan:
    """The passes of a program that starts at |0...0> (zero) or at a given state.

    With Pauli sums only their light cone is left, and of |0...0> only its wires.
    """
    ints, floats = program.encode()
    owners, letters, coefficients = [], [], []
    for k, terms in enumerate(sums or ()):
        for coefficient, word in terms:
            owners.append(k)
            letters += ["IXYZ".index(letter) for letter in word]
            coefficients.append(coefficient)
    streams = _load.host.statevector_plan(
        program.n_wires, ints.tolist(), floats.tolist(), zero, little, sums is not None,
        owners, letters, coefficients,
    )  # fmt: skip
    numbers = torch.tensor(streams[0], dtype=torch.int32)
    floats = torch.tensor(streams[1], dtype=torch.float64)
    return Plan(numbers, floats, streams[0][0], len(sums or ()))


def _forward_fake(
    params: Tensor, inputs: Tensor, state: Any, plan: Tensor, constants: Tensor, bits: int
) -> Tensor:
    return params.new_empty((inputs.shape[0], 2**bits, 2))


def _gradients_fake(
    params: Tensor, inputs: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        params.new_empty(params.shape),
        params.new_empty(inputs.shape),
        params.new_empty((0,) if state is None else state.shape),
    )


def _backward_fake(
    grad_out: Tensor, params: Tensor, inputs: Tensor, state: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients_fake(params, inputs, state)


def _kept_rows(batch: int, bits: int) -> int:
    """How many rows of states are kept for the backward pass."""
    return (batch + LANES - 1) // LANES * LANES if bits <= LANE_BITS else batch


def _expval_forward_fake(
    params: Tensor, inputs: Tensor, state: Any, plan: Tensor, constants: Tensor, bits: int,
    observables: int, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch = inputs.shape[0]
    return (
        params.new_empty((batch, observables)),
        params.new_empty((_kept_rows(batch, bits), 2**bits, 2) if keep else (0,)),
    )


FAKES: dict[str, Callable[..., Any]] = {
    "statevector_backward": _backward_fake,
    "statevector_expval_backward": _backward_fake,
    "statevector_expval_forward": _expval_forward_fake,
    "statevector_forward": _forward_fake,
}

if _load.has("_C"):
    for _name, _fake in FAKES.items():
        torch.library.register_fake(f"saccade::{_name}", _fake)
    _statevector_vmap.register(_kept_rows)


def kernel(rung: str, name: str) -> Callable[..., Any]:
    """The operator of a rung."""
    space = torch.ops.saccade_triton if rung == "triton" else torch.ops.saccade
    op: Callable[..., Any] = getattr(space, name).default
    return op


def wanted(*tensors: Tensor | None) -> bool:
    """Whether a gradient will be asked for."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _given(ctx: Any, gradients: Sequence[Tensor]) -> list[Tensor | None]:
    return [g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=False)]


class Expectations(torch.autograd.Function):
    """(values [B, K], kept); backward goes through the circuit in reverse with two states."""

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(
        params: Tensor, inputs: Tensor, state: Tensor | None, plan: Plan, rung: str
    ) -> tuple[Tensor, Tensor]:
        results: tuple[Tensor, Tensor] = kernel(rung, "statevector_expval_forward")(
            params, inputs, state, plan.ints, plan.floats, plan.bits, plan.observables, True
        )
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *given, ctx.plan, ctx.rung = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_values: Tensor | None, _: Any) -> tuple[Any, ...]:
        if grad_values is None:
            return (None,) * 5
        params, inputs, state, kept = ctx.saved_tensors
        gradients = kernel(ctx.rung, "statevector_expval_backward")(
            grad_values, params, inputs, state, kept, ctx.plan.ints, ctx.plan.floats, ctx.plan.bits
        )
        return *_given(ctx, gradients), None, None


class States(torch.autograd.Function):
    """psi [B, 2**n, 2]."""

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(
        params: Tensor, inputs: Tensor, state: Tensor | None, plan: Plan, rung: str
    ) -> Tensor:
        out: Tensor = kernel(rung, "statevector_forward")(
            params, inputs, state, plan.ints, plan.floats, plan.bits
        )
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *given, ctx.plan, ctx.rung = inputs
        ctx.save_for_backward(*given, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
        params, inputs, state, out = ctx.saved_tensors
        gradients = kernel(ctx.rung, "statevector_backward")(
            grad_out, params, inputs, state, out, ctx.plan.ints, ctx.plan.floats, ctx.plan.bits
        )
        return *_given(ctx, gradients), None, None
