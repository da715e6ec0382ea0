"""A quantum circuit as a layer of a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from saccade.ops._statevector_program import Program, pauli_sums
from saccade.ops.statevector import statevector_expval


class QuantumLayer(nn.Module):
    """Expectation values of a circuit whose inputs are the layer's and whose parameters it learns.

    Args:
        program: the circuit, or what has a method program() that makes one, such as
            saccade.quantum.Circuit without amplitude encoding; its n_inputs are the layer's inputs,
            its n_params its parameters.
        observables: K Pauli strings or sums of them, as in
            :func:`saccade.ops.statevector_expval`. Default: Z on every wire.
        dtype: complex64 (default) or complex128.
        grad: "adjoint" (default), "backprop" or "none".
        backend: as in :func:`saccade.ops.statevector`. Default "auto".
        generator: of the first parameters. Default: torch's own.
        executor: runs the circuit in place of :func:`saccade.ops.statevector_expval` and is called
            as that is, such as saccade.quantum.PrimitiveExecutor. Default None.

    Attributes:
        weight: the angles, [n_params] in radians, drawn uniformly from [0, 2 pi).

    Raises:
        TypeError, ValueError: an argument does not fit the program.

    Notes:
        The input [..., n_inputs] gives [..., K] in the input's type; it must be there also where
        n_inputs is 0, its leading axes being the batch. Deterministic.

    Source:
        Schuld et al., Circuit-centric quantum classifiers, arXiv 1804.00633.

    >>> from saccade.ops import input_angle, instruction, param_angle
    >>> steps = [instruction("ry", q, input_angle(q)) for q in range(2)]
    >>> steps += [instruction("rx", 0, param_angle(0)), instruction("cx", (0, 1))]
    >>> QuantumLayer(Program(2, tuple(steps)))(torch.rand(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        program: Any,
        observables: Any = None,
        *,
        dtype: torch.dtype = torch.complex64,
        grad: str = "adjoint",
        backend: str = "auto",
        generator: torch.Generator | None = None,
        executor: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        if getattr(program, "amplitudes", None) is not None:
            raise ValueError("a layer's circuit must have no amplitude encoding.")
        if hasattr(program, "program"):
            program = program.program()
        if not isinstance(program, Program):
            raise TypeError(f"program must be a saccade.ops.Program, got {type(program).__name__}.")
        n = program.n_wires
        if observables is None:
            observables = ["I" * q + "Z" + "I" * (n - 1 - q) for q in range(n)]
        self.program = program
        self.observables = pauli_sums(observables, n)
        self.dtype, self.grad, self.backend = dtype, grad, backend
        self.executor = executor
        angles = torch.rand(program.n_params or 0, generator=generator)
        self.weight = nn.Parameter(2 * math.pi * angles)

    def forward(self, x: Tensor) -> Tensor:
        """Return the expectation values [..., K] of inputs [..., n_inputs]."""
        run = statevector_expval if self.executor is None else self.executor
        values = run(
            self.program, self.weight, x, self.observables,
            dtype=self.dtype, grad=self.grad, backend=self.backend,
        )  # fmt: skip
        return values.to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes for repr."""
        return (
            f"n_wires={self.program.n_wires}, n_inputs={self.program.n_inputs}, "
            f"n_params={self.program.n_params}, observables={len(self.observables)}"
        )
