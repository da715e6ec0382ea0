"""Circuits built gate by gate, with shared parameters and per-sample inputs, run by saccade.ops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from saccade.ops import _statevector_program as gates
from saccade.ops import statevector, statevector_expval
from saccade.ops._statevector_program import Program, Value
from saccade.quantum._amplitudes import Amplitudes
from saccade.quantum._angle import Angle, AngleLike, Symbol, angle, feature
from saccade.quantum._draw import draw
from saccade.quantum._gates import GateMethods
from saccade.quantum._operation import BARRIER, CUT, Operation, entry, make

if TYPE_CHECKING:
    from qiskit import QuantumCircuit


class Circuit(GateMethods):
    r"""A circuit of n qubits; gates are appended by methods that return the circuit.

    .. math:: \psi(\theta, x) = U_G(\theta, x) \ldots U_1(\theta, x) \psi_0

    An angle is a number in radians, the name of a shared parameter, or made of :func:`param` and
    :func:`feature`: an affine expression such as `2 * param("a") - feature(0) / 2 + 0.1`. Shared
    parameters have names or indices, not both in one circuit. Names get their places in the tensor
    params in the order in which they first appear.

    Args:
        n_wires: n, 1 to 30.
        operations: to begin with, those of another circuit.

    Raises:
        TypeError, ValueError: a wire or an angle is not one.

    Notes: Wire 0 is the most significant bit of a state's index; Qiskit's qubit k is wire k.

    >>> from saccade.quantum import feature, param
    >>> circuit = Circuit(2).ry(0, feature(0)).rx(1, "a").cx(0, 1).rz(1, 2 * param("a"))
    >>> circuit.parameters, circuit.n_inputs, len(circuit)
    (('a',), 1, 4)
    >>> program = circuit.program()  # for saccade.ops.statevector_expval and nn.QuantumLayer
    """

    def __init__(self, n_wires: int, operations: Iterable[Operation] = ()) -> None:
        Program(n_wires)  # checks the number
        self.n_wires = n_wires
        self.amplitudes: Amplitudes | None = None
        self._operations: list[Operation] = []
        self._slots: dict[str | int, int] = {}
        self._n_inputs = 0
        self._program: Program | None = None
        for operation in operations:
            self.append(operation)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The steps, in time's order."""
        return tuple(self._operations)

    @property
    def parameters(self) -> tuple[str | int, ...]:
        """Names of the shared parameters in the order of params; indices of indexed ones."""
        named = any(isinstance(key, str) for key in self._slots)
        return tuple(self._slots) if named else tuple(range(self.n_params))

    @property
    def n_params(self) -> int:
        """Length of params."""
        return max(self._slots.values(), default=-1) + 1

    @property
    def n_inputs(self) -> int:
        """Numbers of a sample."""
        stop = 0 if self.amplitudes is None else self.amplitudes.stop
        return max(self._n_inputs, stop)

    def append(self, operation: Operation) -> Circuit:
        """Append a step that was taken from another circuit; the other methods call it."""
        wires = operation.all_wires
        for wire in wires:
            if isinstance(wire, bool) or not isinstance(wire, int):
                raise TypeError(f"a wire must be an int, got {wire!r} in {operation.title}.")
            if not 0 <= wire < self.n_wires:
                raise ValueError(
                    f"wires must be from 0 to {self.n_wires - 1}, got {wire} in {operation.title}."
                )
        for symbol in dict.fromkeys(s for a in operation.angles for s, _ in a.terms):
            self._note(symbol)
        self._operations.append(operation)
        self._program = None
        return self

    def _note(self, symbol: Symbol) -> None:
        if symbol.source == "input":
            self._n_inputs = max(self._n_inputs, cast("int", symbol.key) + 1)
            return
        if symbol.key in self._slots:
            return
        other = next(iter(self._slots), symbol.key)
        if isinstance(other, str) != isinstance(symbol.key, str):
            raise ValueError(
                f"a circuit's parameters must have names or indices, not both, "
                f"got {other!r} and {symbol.key!r}."
            )
        self._slots[symbol.key] = (
            len(self._slots) if isinstance(symbol.key, str) else int(symbol.key)
        )

    def gate(
        self,
        name: str,
        wires: int | Sequence[int],
        *angles: AngleLike,
        controls: Sequence[int] = (),
        pauli: str = "",
        matrix: Any = None,
    ) -> Circuit:
        """Append any gate by its name, with up to 3 further controls."""
        return self.append(make(name, wires, angles, controls=controls, pauli=pauli, matrix=matrix))

    def barrier(self, *wires: int) -> Circuit:
        """Append a barrier on these wires, or on all: drawn and kept, it does nothing."""
        return self.append(Operation(BARRIER, wires or tuple(range(self.n_wires))))

    def cut_wire(self, wire: int) -> Circuit:
        """Mark where :func:`saccade.quantum.cut` cuts the wire; elsewhere it does nothing."""
        return self.append(Operation(CUT, (wire,)))

    def basis_state(self, bits: str | Sequence[int]) -> Circuit:
        """Append X where a bit is 1; bits of all wires, wire 0 first."""
        given = [str(bit) for bit in bits]
        if len(given) != self.n_wires or set(given) - {"0", "1"}:
            raise ValueError(f"bits must be {self.n_wires} times 0 or 1, got {bits!r}.")
        for wire, bit in enumerate(given):
            if bit == "1":
                self.x(wire)
        return self

    def angle_encoding(
        self,
        wires: Sequence[int] | None = None,
        *,
        rotation: str = "Y",
        start: int = 0,
        scale: float = 1.0,
    ) -> Circuit:
        """Append a rotation by scale * inputs[:, start + i] on the i-th of the wires.

        Args:
            wires: default all.
            rotation: "X", "Y" or "Z", or several of them: a layer each, of further columns.
            start: first column.
            scale: factor of the inputs, in radians a unit.
        """
        if not rotation or set(rotation) - set("XYZ"):
            raise ValueError(f"rotation must be made of X, Y and Z, got {rotation!r}.")
        column = start
        for letter in rotation:
            for wire in range(self.n_wires) if wires is None else wires:
                self.gate(f"r{letter.lower()}", wire, scale * feature(column))
                column += 1
        return self

    def amplitude_encoding(
        self,
        start: int = 0,
        length: int | None = None,
        *,
        pad: bool = False,
        normalize: bool = True,
    ) -> Circuit:
        """Begin with the state whose amplitudes are inputs[:, start : start + length].

        Args:
            start: first column.
            length: default 2**n; less needs `pad`.
            pad: fill up with zeros.
            normalize: divide by the norm; otherwise the norm must be 1.

        Raises:
            ValueError: gates stand before it, or a length does not fit.
        """
        if self.amplitudes is not None or any(o.is_gate for o in self._operations):
            raise ValueError("amplitude_encoding must come first, before any gate.")
        self.amplitudes = Amplitudes.of(self.n_wires, start, length, pad, normalize)
        self._program = None
        return self

    def initial_state(self, inputs: Tensor | None) -> Tensor | None:
        """Return the amplitudes [B, 2**n] that amplitude encoding makes of inputs [B, Pb], or None.

        Hand it as `state` where the program runs outside of this class.
        """
        return None if self.amplitudes is None else self.amplitudes.state(inputs)

    def compose(self, other: Circuit, wires: Sequence[int] | None = None) -> Circuit:
        """Return this circuit followed by another one, whose wire w is wires[w].

        Shared parameters of the same name are the same; indices and features are kept.
        """
        wires = range(other.n_wires) if wires is None else wires
        if len(wires) != other.n_wires or len(set(wires)) != len(wires):
            raise ValueError(f"wires must be {other.n_wires} different ones, got {tuple(wires)}.")
        result = self.copy()
        if other.amplitudes is not None:
            if tuple(wires) != tuple(range(self.n_wires)):
                raise ValueError("amplitude encoding must cover all wires in their order.")
            a = other.amplitudes
            result.amplitude_encoding(a.start, a.length, pad=a.pad, normalize=a.normalize)
        for operation in other.operations:
            result.append(operation.moved(wires))
        return result

    def inverse(self) -> Circuit:
        """Return the adjoint circuit. Parameters keep their places."""
        if self.amplitudes is not None:
            raise ValueError("amplitude encoding has no inverse: it replaces the state.")
        result = Circuit(self.n_wires)
        result._slots.update(self._slots)
        for operation in reversed(self._operations):
            result.append(operation.inverse())
        return result

    def copy(self) -> Circuit:
        """Return a circuit of the same steps."""
        result = Circuit(self.n_wires)
        result.amplitudes = self.amplitudes
        result._slots.update(self._slots)
        result._n_inputs = self._n_inputs
        for operation in self._operations:
            result.append(operation)
        return result

    def assign(self, values: Mapping[str | int, AngleLike]) -> Circuit:
        """Return the circuit with shared parameters replaced by numbers or other angles."""
        unknown = [key for key in values if key not in self._slots]
        if unknown:
            raise ValueError(
                f"values must name parameters of the circuit, {list(self._slots)}, got {unknown}."
            )
        given = {key: angle(value) for key, value in values.items()}
        result = Circuit(self.n_wires)
        result.amplitudes = self.amplitudes
        result._n_inputs = self._n_inputs
        for o in self._operations:
            angles = tuple(_substitute(a, given) for a in o.angles)
            result.append(Operation(o.name, o.wires, angles, o.controls, o.pauli, o.matrix))
        return result

    def pack(self, values: Mapping[str | int, Any], dtype: torch.dtype | None = None) -> Tensor:
        """Return params [P] made of a value for each parameter; tensors keep their gradients."""
        missing = [key for key in self.parameters if key not in values]
        if missing or len(values) != self.n_params:
            raise ValueError(
                f"values must be those of {list(self.parameters)}, got {list(values)}."
            )
        entries = [torch.as_tensor(values[key], dtype=dtype) for key in self.parameters]
        return torch.stack(entries) if entries else torch.zeros(0, dtype=dtype)

    def program(self) -> Program:
        """Return the circuit as saccade.ops and saccade.nn.QuantumLayer run it.

        Sums of several symbols become several gates; barriers and marks are left out. Amplitude
        encoding is not part of a program: hand :meth:`initial_state` to it.
        """
        if self._program is None:
            self._program = self.piece(self.n_wires, self._operations)
        return self._program

    def piece(
        self, n_wires: int, operations: Iterable[Operation], *, inputs: bool = True
    ) -> Program:
        """Return a program of other steps that reads the same params, and inputs or none."""
        entries = []
        for operation in operations:
            if operation.is_gate:
                for part in operation.split():
                    entries.append(entry(part, tuple(self.value(a) for a in part.angles)))
        n_inputs = self.n_inputs if inputs else 0
        return Program(n_wires, tuple(entries), n_params=self.n_params, n_inputs=n_inputs)

    def statevector(
        self, params: Tensor | None = None, inputs: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Run the circuit by :func:`saccade.ops.statevector`, amplitude encoding included."""
        state = _complex(self.initial_state(inputs))
        return statevector(self.program(), params, inputs, **{"state": state, **options})

    def expval(
        self,
        params: Tensor | None = None,
        inputs: Tensor | None = None,
        observables: Any = (),
        **options: Any,
    ) -> Tensor:
        """Run it by :func:`saccade.ops.statevector_expval`: [B, K], differentiable.

        >>> Circuit(2).ry(0, 1.0).cx(0, 1).expval(observables=["ZI", "IX"])
        tensor([[0.5403, 0.0000]])
        """
        state = _complex(self.initial_state(inputs))
        options = {"state": state, **options}
        return statevector_expval(self.program(), params, inputs, observables, **options)

    def value(self, given: Angle) -> Value:
        """Return an angle of at most one symbol as programs hold it."""
        if not given.terms:
            return gates.fixed_angle(given.constant)
        ((symbol, coefficient),) = given.terms
        if symbol.source == "input":
            return gates.input_angle(int(symbol.key), coefficient, given.constant)
        return gates.param_angle(self._slots[symbol.key], coefficient, given.constant)

    @classmethod
    def from_program(cls, program: Program) -> Circuit:
        """Return the circuit of a program; its parameters have indices."""
        result = cls(program.n_wires)
        for e in program.instructions:
            angles = tuple(_angle(v) for v in e.values)
            result.append(Operation(e.name, e.wires, angles, e.controls, e.pauli, e.matrix))
        if program.n_params:  # unused ones keep their places
            result._slots.setdefault(program.n_params - 1, program.n_params - 1)
        result._n_inputs = program.n_inputs or 0
        return result

    def to_qiskit(self, state: Tensor | None = None) -> QuantumCircuit:
        """Return the circuit as Qiskit's, qubit k being wire k; phases and parameters are kept.

        Named parameters keep their names; indexed ones and features are elements of the vectors
        theta and x. An amplitude encoding, or the `state` [2**n] given here, is prepared first.

        Raises:
            ImportError: Qiskit is missing; the sentence names the extra.
            ValueError: amplitude encoding without a state.
        """
        from saccade.quantum._to_qiskit import to_qiskit

        return to_qiskit(self, state).circuit

    def to_qasm3(self) -> str:
        """Return the circuit in OpenQASM 3, with its global phase and its parameters as inputs.

        Gates outside of stdgates.inc are written by those inside. Matrices of two and more qubits
        are synthesised by Qiskit; nothing else needs it.
        """
        from saccade.quantum._qasm import to_qasm3

        return to_qasm3(self)

    def __len__(self) -> int:
        return sum(o.is_gate for o in self._operations)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        mine, theirs = (
            (c.n_wires, c._operations, c._slots, c.n_inputs, c.amplitudes) for c in (self, other)
        )
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]  # circuits change

    def __str__(self) -> str:
        return draw(self)

    def __repr__(self) -> str:
        """A line of numbers, then the drawing."""
        start = "" if self.amplitudes is None else ", amplitude encoding"
        head = (
            f"Circuit of {self.n_wires} wires: {len(self)} gates, {self.n_params} parameters, "
            f"{self.n_inputs} inputs{start}"
        )
        return f"{head}\n{draw(self)}"


def _complex(state: Tensor | None) -> Tensor | None:
    return state if state is None or state.is_complex() else torch.complex(state, state * 0)


def _angle(value: Value) -> Angle:
    if value.source == "constant":
        return Angle(value.offset)
    term = (Symbol(value.source, value.index), value.coefficient)
    return Angle(value.offset, (term,) if value.coefficient else ())


def _substitute(given: Angle, values: Mapping[str | int, Angle]) -> Angle:
    result = Angle(given.constant)
    for symbol, coefficient in given.terms:
        if symbol.source == "param" and symbol.key in values:
            result = result + coefficient * values[symbol.key]
        else:
            result = result + Angle(0.0, ((symbol, coefficient),))
    return result
