"""The steps of a circuit: a checked gate of the operator with angles that may be sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from saccade.ops import _statevector_program as gates
from saccade.ops._statevector_program import Instruction, Value
from saccade.quantum._angle import Angle, AngleLike, angle
from saccade.reference.statevector import matrix as gate_matrix

BARRIER = "barrier"
CUT = "cut_wire"
# exp(-i t G): of one angle, so that RP(a + b) = RP(a) RP(b)
ADDITIVE = ("rx", "ry", "rz", "p", "pauli_rot", "gphase")
_ADJOINT = {"s": "sdg", "t": "tdg", "sx": "sxdg"}
_ADJOINT |= {after: before for before, after in _ADJOINT.items()}


@dataclass(frozen=True)
class Operation:
    """A gate in the operator's canonical form, a barrier, or the mark of a wire cut.

    Attributes:
        name: of saccade.ops' gates, "barrier" or "cut_wire".
        wires: the gate's own wires, most significant first.
        angles: affine expressions.
        controls: wires that must all be 1.
        pauli: letters of a "pauli_rot", one a wire.
        matrix: entries of a "unitary", row after row.
    """

    name: str
    wires: tuple[int, ...]
    angles: tuple[Angle, ...] = ()
    controls: tuple[int, ...] = ()
    pauli: str = ""
    matrix: tuple[complex, ...] = ()

    @property
    def is_gate(self) -> bool:
        """Neither a barrier nor a mark."""
        return self.name not in (BARRIER, CUT)

    @property
    def all_wires(self) -> tuple[int, ...]:
        """Controls, then the gate's own."""
        return (*self.controls, *self.wires)

    @property
    def title(self) -> str:
        """The usual name: "cx", "ccx", "rzz", "rxyz"."""
        name = f"r{self.pauli.lower()}" if self.name == "pauli_rot" else self.name
        return "c" * len(self.controls) + name

    def moved(self, wires: Sequence[int]) -> Operation:
        """The same with wire w at wires[w]."""
        return replace(
            self,
            wires=tuple(wires[w] for w in self.wires),
            controls=tuple(wires[w] for w in self.controls),
        )

    def inverse(self) -> Operation:
        """The adjoint gate."""
        if self.name in _ADJOINT:
            return replace(self, name=_ADJOINT[self.name])
        if self.name in ADDITIVE:
            return replace(self, angles=(-self.angles[0],))
        if self.name == "u3":
            t, p, q = self.angles
            return replace(self, angles=(-t, -q, -p))
        if self.name == "rot":
            return replace(self, angles=tuple(-a for a in reversed(self.angles)))
        if self.name in ("unitary", "iswap"):
            adjoint = constant_matrix(replace(self, controls=())).mH
            return make("unitary", self.wires, controls=self.controls, matrix=adjoint)
        return self  # barriers, marks and the gates that are their own inverse

    def split(self) -> list[Operation]:
        """The same as gates with at most one symbol an angle."""
        if all(len(a.terms) <= 1 for a in self.angles):
            return [self]
        if self.name in ADDITIVE:
            (whole,) = self.angles
            parts = [Angle(0.0, (term,)) for term in whole.terms]
            parts[0] = parts[0] + whole.constant
            return [replace(self, angles=(part,)) for part in parts]
        return [part for step in self.factors() for part in step.split()]

    def factors(self) -> list[Operation]:
        """A gate of three angles as three of one."""
        first, second, third = self.angles
        if self.name == "u3":  # diag(1, e^ip) RY(t) diag(1, e^il)
            steps = (("p", third), ("ry", first), ("p", second))
        else:
            steps = (("rz", first), ("ry", second), ("rz", third))
        return [replace(self, name=name, angles=(a,)) for name, a in steps]


def make(
    name: str,
    wires: int | Sequence[int],
    angles: Sequence[AngleLike] = (),
    *,
    controls: Sequence[int] = (),
    pauli: str = "",
    matrix: Any = None,
) -> Operation:
    """Check a gate as saccade.ops does; names and arguments are those of its `instruction`."""
    wires, controls = _plain(wires), _plain(controls)
    given = [angle(a) for a in angles]
    slots = [gates.param_angle(i) for i in range(len(given))]
    entry = gates.instruction(name, wires, slots, controls=controls, pauli=pauli, matrix=matrix)
    # the canonical gate may have other angles: multiples of those that were given
    own = tuple(given[v.index] * v.coefficient + v.offset for v in entry.values)
    return Operation(entry.name, entry.wires, own, entry.controls, entry.pauli, entry.matrix)


def _plain(wires: int | Sequence[int]) -> tuple[int, ...]:
    """Integers of numpy as Python's."""
    listed = [wires] if isinstance(wires, (int, Integral)) else list(wires)
    return tuple(int(w) if isinstance(w, Integral) and type(w) is not bool else w for w in listed)


def constant_matrix(operation: Operation) -> Tensor:
    """The matrix of a gate without symbols, complex128, controls as most significant wires."""
    values = tuple(gates.fixed_angle(a.constant) for a in operation.angles)
    return gate_matrix(entry(operation, values), None, None, torch.complex128)


def entry(operation: Operation, values: tuple[Value, ...]) -> Instruction:
    """The operator's instruction."""
    return Instruction(
        operation.name,
        operation.wires,
        values,
        operation.controls,
        operation.pauli,
        operation.matrix,
    )
