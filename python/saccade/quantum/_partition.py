"""Cutting a circuit: which wires belong together, and what crosses between them."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from saccade.ops._statevector_program import Program
from saccade.quantum._kak import PAULI, kak
from saccade.quantum._operation import BARRIER, CUT, Operation, constant_matrix, make
from saccade.quantum._qpd import Decomposition, of_gate, of_rotation, of_wire
from saccade.quantum._standard import once
from saccade.quantum.circuit import Circuit

Labels = Sequence[Any]


@dataclass(frozen=True)
class End:
    """A side of a cut in a subcircuit."""

    cut: int
    side: int
    wires: tuple[int, ...]


@dataclass
class Part:
    """A subcircuit: the pieces of wires that it holds, and its steps.

    Attributes:
        label: its name.
        pieces: (wire, number of the piece), in the order of its qubits.
        steps: gates and ends, gates first wherever they can be.
        segments: the same as programs and ends, but for the last gates.
        last: the program of the last gates, whose results are measured.
        reads: whether it reads inputs.
    """

    label: Hashable
    pieces: list[tuple[int, int]] = field(default_factory=list)
    steps: list[Operation | End] = field(default_factory=list)
    segments: list[Program | End] = field(init=False)
    last: Program = field(init=False)
    reads: bool = field(init=False)

    @property
    def ends(self) -> list[End]:
        """The ends, in the order of the steps."""
        return [step for step in self.steps if isinstance(step, End)]

    def schedule(self) -> None:
        """Put gates first: states multiply at ends."""
        waiting, ordered = self.steps, []
        while waiting:
            for kind in (Operation, End):
                blocked: set[int] = set()
                left = []
                for step in waiting:
                    wires = set(step.all_wires if isinstance(step, Operation) else step.wires)
                    if isinstance(step, kind) and not wires & blocked:
                        ordered.append(step)
                    else:
                        blocked |= wires
                        left.append(step)
                waiting = left
        self.steps = ordered

    def compile(self, circuit: Circuit) -> None:
        """Make programs of the runs of gates; `circuit` knows the places of the parameters."""
        gates = [step for step in self.steps if isinstance(step, Operation)]
        symbols = [s for gate in gates for a in gate.angles for s, _ in a.terms]
        self.reads = any(symbol.source == "input" for symbol in symbols)
        n = len(self.pieces)
        self.segments = []
        self.last = circuit.piece(n, (), inputs=self.reads)
        for is_end, run in itertools.groupby(self.steps, lambda step: isinstance(step, End)):
            steps = list(run)
            if is_end:
                self.segments += [step for step in steps if isinstance(step, End)]
            else:
                gates = [step for step in steps if isinstance(step, Operation)]
                self.segments.append(circuit.piece(n, gates, inputs=self.reads))
        if self.segments and isinstance(self.segments[-1], Program):
            self.last = self.segments[-1]
            self.segments.pop()


class Cutter:
    """Deals the steps of a circuit to parts, cutting those that cross."""

    def __init__(self, circuit: Circuit, labels: Labels | None) -> None:
        if circuit.amplitudes is not None:
            raise NotImplementedError("a circuit with amplitude encoding cannot be cut.")
        self.circuit = circuit
        self.pieces = _pieces(circuit)
        self.label = _labels(circuit, self.pieces, labels)
        self.parts: dict[Hashable, Part] = {}
        self.place: dict[tuple[int, int], int] = {}
        for piece, label in self.label.items():
            part = self.parts.setdefault(label, Part(label))
            self.place[piece] = len(part.pieces)
            part.pieces.append(piece)
        self.current = [0] * circuit.n_wires
        self.cuts: list[Decomposition] = []

    def run(self) -> None:
        """Deal everything."""
        for operation in self.circuit.operations:
            if operation.name == CUT:
                (wire,) = operation.wires
                self.cuts.append(of_wire())
                self.end(0, (wire,))
                self.current[wire] += 1
                self.end(1, (wire,))
            elif operation.name != BARRIER:
                self.deal(operation)
        for part in self.parts.values():
            part.schedule()
            part.compile(self.circuit)

    def of(self, wire: int) -> Hashable:
        """Label of the wire's present piece."""
        return self.label[wire, self.current[wire]]

    def local(self, wires: Sequence[int]) -> list[int]:
        """Places in their part."""
        return [self.place[w, self.current[w]] for w in wires]

    def end(self, side: int, wires: tuple[int, ...]) -> None:
        """Note a side of the latest cut."""
        ends = End(len(self.cuts) - 1, side, tuple(self.local(wires)))
        self.parts[self.of(wires[0])].steps.append(ends)

    def deal(self, o: Operation) -> None:
        """Append an operation to its part, or cut it."""
        labels = list(dict.fromkeys(self.of(w) for w in o.all_wires))
        if not labels:
            return  # a global phase
        if len(labels) == 1:
            where = dict(zip(o.all_wires, self.local(o.all_wires), strict=True))
            moved = replace(
                o,
                wires=tuple(where[w] for w in o.wires),
                controls=tuple(where[w] for w in o.controls),
            )
            self.parts[labels[0]].steps.append(moved)
        elif len(labels) > 2:
            raise NotImplementedError(
                f"a gate must cross between two subcircuits at most, got {o.title} on wires "
                f"{o.all_wires} of subcircuits {labels}."
            )
        else:
            self.cross(o, labels)

    def cross(self, o: Operation, labels: list[Hashable]) -> None:
        sides = tuple(tuple(w for w in o.all_wires if self.of(w) == label) for label in labels)
        if o.name == "pauli_rot" and not o.controls:
            letters = dict(zip(o.wires, o.pauli, strict=True))
            words = [_word("".join(letters[w] for w in side)) for side in sides]
            self.cut(of_rotation(words[0], words[1], o.angles[0]), sides)
        elif o.name == "p":
            self.phase(o, sides)
        elif o.name in ("rx", "ry", "rz", "pauli_rot") and set(o.controls) in map(set, sides):
            self.controlled(o)
        elif o.name in ("u3", "rot") and any(a.terms for a in o.angles):
            self.three_angles(o)
        elif len(o.all_wires) == 2 and o.name in ("unitary", "swap", "iswap", "ecr", "u3", "rot"):
            self.two_qubits(o)
        elif o.name == "unitary" and len(o.wires) > 1:
            raise NotImplementedError(
                f"a matrix that crosses between subcircuits must have 2 wires, got {o.all_wires}."
            )
        else:
            for step in once(o):
                self.deal(step)

    def cut(self, found: Decomposition, sides: tuple[tuple[int, ...], ...]) -> None:
        self.cuts.append(found)
        for side, wires in enumerate(sides):
            self.end(side, wires)

    def phase(self, o: Operation, sides: tuple[tuple[int, ...], ...]) -> None:
        """exp(i t P x Q) of projectors P = (1 - R)/2 on all ones: R x R' rotates by -t/2."""
        (t,) = o.angles
        for side in sides:
            self.deal(Operation("p", side[-1:], (t * 0.5,), side[:-1]))
        words = [_reflection(len(side)) for side in sides]
        self.cut(of_rotation(words[0], words[1], t * -0.5), sides)

    def controlled(self, o: Operation) -> None:
        """exp(-i t P x W / 2) of the projector P = (1 - R)/2 of the controls and a word W."""
        (t,) = o.angles
        self.deal(replace(o, controls=(), angles=(t * 0.5,)))
        word = _word(o.pauli or o.name[1].upper())
        self.cut(of_rotation(_reflection(len(o.controls)), word, t * -0.5), (o.controls, o.wires))

    def three_angles(self, o: Operation) -> None:
        """RZ(p) RY(t) RZ(l) under controls is RZ(p) C[RY(t)] C[RZ(p + l)] RZ(-p)."""
        first, second, third = o.angles
        if o.name == "u3":
            t, p, q = first, second, third
            self.deal(Operation("p", o.controls[-1:], ((p + q) / 2,), o.controls[:-1]))
        else:
            q, t, p = first, second, third
        self.deal(Operation("rz", o.wires, (-p,)))
        self.deal(Operation("rz", o.wires, (p + q,), o.controls))
        self.deal(Operation("ry", o.wires, (t,), o.controls))
        self.deal(Operation("rz", o.wires, (p,)))

    def two_qubits(self, o: Operation) -> None:
        after, weights, before = kak(constant_matrix(o))
        wires = o.all_wires
        for wire, matrix in zip(wires, before, strict=True):
            self.deal(make("unitary", wire, matrix=matrix))
        self.cut(of_gate(weights), tuple((w,) for w in wires))
        for wire, matrix in zip(wires, after, strict=True):
            self.deal(make("unitary", wire, matrix=matrix))


def _word(letters: str) -> Tensor:
    found = torch.ones((1, 1), dtype=torch.complex128)
    for letter in letters:
        found = torch.kron(found, PAULI[letter])
    return found


def _reflection(wires: int) -> Tensor:
    """-1 where all bits are 1."""
    diagonal = torch.ones(2**wires, dtype=torch.complex128)
    diagonal[-1] = -1
    return torch.diag(diagonal)


def _pieces(circuit: Circuit) -> list[int]:
    """Number of pieces of each wire."""
    count = [1] * circuit.n_wires
    for operation in circuit.operations:
        if operation.name == CUT:
            count[operation.wires[0]] += 1
    return count


def _labels(
    circuit: Circuit, pieces: list[int], labels: Labels | None
) -> dict[tuple[int, int], Hashable]:
    every = [(w, k) for w, count in enumerate(pieces) for k in range(count)]
    if labels is None:
        return _components(circuit, every)
    if len(labels) != circuit.n_wires:
        raise ValueError(f"labels must be {circuit.n_wires}, one a wire, got {len(labels)}.")
    found: dict[tuple[int, int], Hashable] = {}
    for wire, count in enumerate(pieces):
        own = labels[wire]
        listed = list(own) if isinstance(own, (tuple, list)) else [own] * count
        if len(listed) != count:
            raise ValueError(
                f"labels[{wire}] must be one label or {count}, a label for each piece between "
                f"cuts, got {own!r}."
            )
        found |= {(wire, k): label for k, label in enumerate(listed)}
    return found


def _components(circuit: Circuit, every: list[tuple[int, int]]) -> dict[tuple[int, int], Hashable]:
    """Pieces that gates connect, numbered from 0."""
    group = {piece: {piece} for piece in every}
    current = [0] * circuit.n_wires
    for operation in circuit.operations:
        if operation.name == CUT:
            current[operation.wires[0]] += 1
        elif operation.name != BARRIER:
            joined = set().union(*(group[w, current[w]] for w in operation.all_wires))
            for piece in joined:
                group[piece] = joined
    numbers: dict[int, int] = {}
    return {piece: numbers.setdefault(id(group[piece]), len(numbers)) for piece in every}
