"""The state-vector operator, as circuits and their parts call it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saccade.ops._statevector_program import Program, pauli_sums
from saccade.reference.statevector import statevector as _statevector
from saccade.reference.statevector import statevector_expval as _expval


def _real(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(torch.zeros((), dtype=dtype).real.dtype)


def statevector(
    program: Program,
    params: Tensor | None,
    inputs: Tensor | None,
    state: Tensor | None,
    dtype: torch.dtype,
    **options: Any,
) -> Tensor:
    """[B, 2**n]; a state is taken as it is, whatever its norm."""
    p, x = _real(params, dtype), _real(inputs, dtype)
    return _statevector(program, p, x, state, dtype)


def expvals(
    program: Program,
    params: Tensor | None,
    inputs: Tensor | None,
    observables: Any,
    state: Tensor | None,
    dtype: torch.dtype,
    **options: Any,
) -> Tensor:
    """[B, K]."""
    p, x = _real(params, dtype), _real(inputs, dtype)
    sums = pauli_sums(observables, program.n_wires)
    return _expval(program, p, x, sums, state, dtype)
