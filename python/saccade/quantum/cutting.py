"""Circuit cutting: expectation values of a large circuit from those of small ones."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from saccade.ops._statevector_program import PauliSums, pauli_sums
from saccade.quantum._angle import Angle
from saccade.quantum._partition import Cutter, Labels, Part
from saccade.quantum._reconstruct import Evaluation
from saccade.quantum.circuit import Circuit


def cut(circuit: Circuit, labels: Labels | None = None) -> CutCircuit:
    """Cut a circuit into subcircuits, at the gates between them and at marked wires.

    A gate between two subcircuits becomes a signed sum of local operations: six for CX, CZ, RZZ,
    CRX, CP, and for any Pauli rotation, controlled rotation or phase with all controls of a side
    together; matrices of two qubits by Cartan's decomposition. A wire is cut where
    :meth:`Circuit.cut_wire` marks it: measured there, and prepared as a new qubit.

    Args:
        circuit: without amplitude encoding.
        labels: a label for each wire, wire 0 first, such as "AAB"; of a wire with marks a tuple of
            labels, one a piece. None (default): pieces that gates connect belong together, so that
            only marked wires are cut.

    Raises:
        ValueError: not one label a wire and piece.
        NotImplementedError: a gate crosses between more than two subcircuits, or is a matrix of
            more than two wires.

    Source: Mitarai and Fujii, New J. Phys. 23, 023021 (2021); Peng et al., arXiv 1904.00102.

    >>> from saccade.quantum import Circuit
    >>> ghz = Circuit(3).h(0).cx(0, 1).cx(1, 2)
    >>> halves = cut(ghz, "AAB")
    >>> halves.sizes, halves.num_subexperiments, round(halves.overhead)
    ({'A': 2, 'B': 1}, 12, 9)
    >>> halves.expval(observables=["ZZI", "ZIZ", "XXX"]).round(decimals=4).abs()
    tensor([[1., 1., 1.]])
    """
    cutter = Cutter(circuit, labels)
    cutter.run()
    return CutCircuit(cutter)


class CutCircuit:
    """Subcircuits and the signed sums that join them; :func:`cut` makes one.

    Attributes:
        circuit: the circuit that was cut.
        parts: the subcircuits.
        cuts: the decompositions, in time's order.
        pieces: how many pieces each wire has.
    """

    def __init__(self, cutter: Cutter) -> None:
        self.circuit = cutter.circuit
        self.parts: tuple[Part, ...] = tuple(cutter.parts.values())
        self.cuts = tuple(cutter.cuts)
        self.pieces = cutter.pieces

    @property
    def sizes(self) -> dict[Hashable, int]:
        """Qubits of each subcircuit, by its label."""
        return {part.label: len(part.pieces) for part in self.parts}

    @property
    def overhead(self) -> float:
        """Product of the squares of the gammas: how many times more shots the same error needs.

        A cut whose angle is a parameter counts with its worst angle, gamma 3.
        """
        return math.prod(c.gamma**2 for c in self.cuts)

    @property
    def num_subexperiments(self) -> int:
        """Circuits to run on devices for every term: a product over the cuts of each subcircuit."""
        return sum(
            math.prod(len(self.cuts[k].terms) for k in {end.cut for end in part.ends})
            for part in self.parts
        )

    @property
    def num_variants(self) -> int:
        """State vectors that the exact mode runs a sample: local operations share some."""
        return sum(
            math.prod(len(self.cuts[end.cut].tables[end.side]) for end in part.ends)
            for part in self.parts
        )

    def gammas(self, params: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        """Sum of absolute coefficients of each cut, [number of cuts], or [B, number of cuts]."""
        found = [self.coefficients(k, params, inputs) for k in range(len(self.cuts))]
        sums = [c.abs().sum(-1) for c in found]
        return torch.stack(torch.broadcast_tensors(*sums), -1) if sums else torch.ones(0)

    def expval(
        self,
        params: Tensor | None = None,
        inputs: Tensor | None = None,
        observables: Any = (),
        *,
        dtype: torch.dtype = torch.complex64,
        num_samples: int | None = None,
        shots: int | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Return the expectation values [B, K] of the whole circuit.

        Every subcircuit runs once, with its variants along the batch axis: before the first cut
        there is one state a sample, and states multiply where cuts are met. The exact mode sums all
        terms; gradients reach params and inputs through states and coefficients.

        Args:
            params: [P], shared.
            inputs: [B, Pb], per sample; None: B = 1.
            observables: K Pauli strings or {string: coefficient}, letter 0 for wire 0.
            dtype: complex64 (default) or complex128.
            num_samples: draw this many terms, in proportion to their coefficients, instead of
                summing all; unbiased, values and gradients.
            shots: measure each subcircuit this many times instead of taking its expectation value;
                without gradients.
            generator: of the two arguments above.
            options: for saccade.ops.statevector, such as `backend`.

        Raises:
            ValueError: shapes do not fit, or a number is not positive.

        Notes: Exact mode: R**k states for a subcircuit with k cuts, R = 4 for a wire or a gate with
            six terms. Deterministic.
        """
        for name, number in (("num_samples", num_samples), ("shots", shots)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}.")
        params, inputs = _check(self.circuit, params, inputs)
        sums = pauli_sums(observables, self.circuit.n_wires)
        words = list(dict.fromkeys(word for terms in sums for _, word in terms))
        batch = 1 if inputs is None else inputs.shape[0]
        if not words or not batch:
            return torch.zeros(batch, len(sums), dtype=_real(dtype))
        run = Evaluation(self, params, inputs, words, dtype, options)
        if num_samples is None and shots is None:
            values = run.exact()
        else:
            chosen, weights = run.draw(num_samples, generator)
            values = run.some(chosen, weights, shots, generator)
        if inputs is not None:
            values = values.expand(inputs.shape[0], -1)
        return values @ _columns(sums, words, values)

    def coefficients(self, k: int, params: Tensor | None, inputs: Tensor | None) -> Tensor:
        """Return those of the terms of a cut: [number of terms], or [B, number of terms]."""
        found = self.cuts[k]
        return found.coefficients(self.functions(k, params, inputs))

    def functions(self, k: int, params: Tensor | None, inputs: Tensor | None) -> Tensor:
        """Return what the coefficients of a cut are multiples of, [F] or [B, F]."""
        angle = self.cuts[k].angle
        t = None if angle is None else self._value(angle, params, inputs)
        return self.cuts[k].functions(t)

    def _value(self, angle: Angle, params: Tensor | None, inputs: Tensor | None) -> Tensor:
        total: Any = angle.constant
        for symbol, coefficient in angle.terms:
            value = self.circuit.value(Angle(0.0, ((symbol, coefficient),)))
            source = params if value.source == "param" else inputs
            if source is None:
                raise ValueError(f"the angle {angle} needs params and inputs.")
            total = total + coefficient * source[..., value.index]
        return torch.as_tensor(total, dtype=torch.float64 if isinstance(total, float) else None)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{label}: {size}" for label, size in self.sizes.items())
        return (
            f"CutCircuit({self.circuit.n_wires} wires, {len(self.cuts)} cuts, qubits {{{sizes}}}, "
            f"overhead {self.overhead:.4g}, {self.num_subexperiments} subexperiments)"
        )


def _real(dtype: torch.dtype) -> torch.dtype:
    return torch.zeros((), dtype=dtype).real.dtype


def _check(
    circuit: Circuit, params: Tensor | None, inputs: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    shape = None if params is None else tuple(params.shape)
    if (shape or (0,)) != (circuit.n_params,):
        raise ValueError(f"params must have shape ({circuit.n_params},), got {shape}.")
    shape = None if inputs is None else tuple(inputs.shape)
    if shape is None and circuit.n_inputs:
        raise ValueError(f"inputs must have shape (B, {circuit.n_inputs}), got None.")
    if shape is not None and (len(shape) != 2 or shape[1] != circuit.n_inputs):
        raise ValueError(f"inputs must have shape (B, {circuit.n_inputs}), got {shape}.")
    return params, inputs


def _columns(sums: PauliSums, words: list[str], like: Tensor) -> Tensor:
    """Coefficients of words in observables, [T, K]."""
    matrix = torch.zeros(len(words), len(sums), dtype=torch.float64)
    for k, terms in enumerate(sums):
        for coefficient, word in terms:
            matrix[words.index(word), k] += coefficient
    return matrix.to(like)
