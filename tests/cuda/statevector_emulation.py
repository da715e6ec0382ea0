"""The C interface of emulation/statevector.cpp: tensors in, tensors out."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from saccade.ops._statevector_op import Plan


class Problem(ctypes.Structure):
    """As in emulation/statevector.cpp."""

    _fields_ = [
        ("is_double", c_int), ("ints", c_void_p), ("n_ints", c_int64), ("floats", c_void_p),
        ("n_floats", c_int64), ("batch", c_int64), ("n_params", c_int64), ("n_inputs", c_int64),
        ("observables", c_int64), ("params", c_void_p), ("inputs", c_void_p), ("state", c_void_p),
    ]  # fmt: skip


def pointer(tensor: Tensor | None) -> c_void_p:
    return c_void_p(None if tensor is None else tensor.data_ptr())


def problem(plan: Plan, params: Tensor, inputs: Tensor, state: Tensor | None) -> Any:
    given = Problem(
        params.dtype == torch.float64, plan.ints.data_ptr(), plan.ints.numel(),
        plan.floats.data_ptr(), plan.floats.numel(), inputs.shape[0], params.numel(),
        inputs.shape[1], plan.observables, params.data_ptr(), inputs.data_ptr(),
        None if state is None else state.data_ptr(),
    )  # fmt: skip
    return ctypes.byref(given)


def nothing(like: Tensor, *shape: int) -> Tensor:
    return like.new_full(shape, torch.nan)


def states(
    library: ctypes.CDLL, plan: Plan, params: Tensor, inputs: Tensor, state: Tensor | None
) -> Tensor:
    """Psi [B, 2**bits, 2]."""
    out = nothing(params, inputs.shape[0], 2**plan.bits, 2)
    assert library.run_state(problem(plan, params, inputs, state), pointer(out)) == 0
    return out


def expectations(
    library: ctypes.CDLL, plan: Plan, params: Tensor, inputs: Tensor, state: Tensor | None,
    keep: bool = True,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Values [B, K], and the states for the backward pass."""
    values = nothing(params, inputs.shape[0], plan.observables)
    kept = nothing(params, inputs.shape[0], 2**plan.bits, 2) if keep else None
    given = problem(plan, params, inputs, state)
    assert library.run_expectations(given, pointer(values), pointer(kept)) == 0
    return values, kept


def backward(
    library: ctypes.CDLL, plan: Plan, params: Tensor, inputs: Tensor, state: Tensor | None,
    saved: Tensor, grad: Tensor,
) -> list[Tensor]:  # fmt: skip
    """Gradients of params, inputs and state, from those of states [B, 2**bits, 2] or values."""
    run = library.run_state_backward if grad.dim() == 3 else library.run_expectations_backward
    results = [torch.zeros_like(params), torch.zeros_like(inputs)]
    if state is not None:
        results.append(nothing(params, *state.shape))
    places = [*map(pointer, results), c_void_p(None)][:3]
    given = problem(plan, params, inputs, state)
    assert run(given, pointer(saved), pointer(grad), *places) == 0
    return results
