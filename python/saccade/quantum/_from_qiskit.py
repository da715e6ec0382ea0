"""Qiskit's circuits as ours."""

from __future__ import annotations

import cmath
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from saccade._extras import require
from saccade.quantum._angle import Angle, AngleLike, angle, param
from saccade.quantum._operation import Operation, make
from saccade.quantum._to_qiskit import CLASSES, PAIRS, library
from saccade.quantum.circuit import Circuit

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

MAX_MATRIX_QUBITS = 4
ParamMap = Mapping[Any, Any]


def from_qiskit(circuit: QuantumCircuit, param_map: ParamMap | None = None) -> Circuit:
    """Read a circuit of Qiskit's; qubit k becomes wire k, global phase and barriers are kept.

    Parameters become shared parameters of the same names, in the order of circuit.parameters, so
    that params is what assign_parameters takes. Gates that have no method here enter as their
    matrix on at most 4 qubits, and by their definition where they have parameters or more qubits.

    Measurements after which nothing happens to the qubit are dropped, and so are resets at the
    beginning and delays. Initialize is read at the beginning of its qubits alone.

    Args:
        circuit: of Qiskit 2.
        param_map: for a Parameter or its name, another angle: a number, a name, or made of
            :func:`param` and :func:`feature`. For a ParameterVector or its name, a function of the
            element's index, such as `feature` itself, or a sequence.

    Raises:
        ImportError: Qiskit is missing; the sentence names the extra.
        TypeError: circuit is none of Qiskit's.
        ValueError: an expression of parameters is not affine; param_map names no parameter.
        NotImplementedError: measurements or resets in the middle, control flow.

    Notes: Affine expressions of parameters are kept as such. A circuit without qubits gets one.

    >>> from qiskit import QuantumCircuit
    >>> bell = QuantumCircuit(2)
    >>> _ = bell.h(0), bell.cx(0, 1), bell.measure_all()
    >>> [operation.title for operation in from_qiskit(bell).operations]
    ['h', 'cx', 'barrier']
    """
    q = require("qiskit.circuit", extra="quantum", purpose="from_qiskit")
    if not isinstance(circuit, q.QuantumCircuit):
        raise TypeError(f"circuit must be a QuantumCircuit, got {type(circuit).__name__}.")
    angles = _angles(circuit.parameters, {} if param_map is None else param_map)
    reader = _Reader(circuit, angles, q)
    return reader.read()


def _angles(parameters: Iterable[Any], param_map: ParamMap) -> dict[Any, Angle]:
    """What each parameter becomes."""
    names = {(key if isinstance(key, str) else key.name): v for key, v in param_map.items()}
    used = set()
    found = {}
    for parameter in parameters:
        vector = getattr(parameter, "vector", None)
        if parameter.name in names:
            used.add(parameter.name)
            found[parameter] = angle(names[parameter.name])
        elif vector is not None and vector.name in names:
            used.add(vector.name)
            found[parameter] = _element(names[vector.name], parameter.index)
        else:
            found[parameter] = param(parameter.name)
    if set(names) - used:
        raise ValueError(
            f"param_map must name parameters of the circuit, {[p.name for p in found]}, "
            f"got {sorted(set(names) - used)}."
        )
    return found


def _element(given: Callable[[int], AngleLike] | Any, index: int) -> Angle:
    return angle(given(index) if callable(given) else given[index])


class _Reader:
    def __init__(self, circuit: Any, angles: dict[Any, Angle], q: Any) -> None:
        self.source, self.angles, self.q = circuit, angles, q
        self.result = Circuit(max(1, circuit.num_qubits))
        for value in angles.values():  # places in Qiskit's order
            for symbol, _ in value.terms:
                self.result._note(symbol)
        gates = library()
        self.direct = {getattr(gates, name): key for key, name in CLASSES.items()}
        self.direct[gates.U3Gate] = ("u3", 0)
        self.direct[gates.U1Gate] = ("p", 0)
        self.direct[gates.CU1Gate] = ("p", 1)
        self.pairs = {getattr(gates, name): pauli for pauli, name in PAIRS.items()}
        self.library = gates

    def read(self) -> Circuit:
        self.phase(self.source.global_phase)
        index = {bit: i for i, bit in enumerate(self.source.qubits)}
        touched: set[int] = set()
        measured: dict[int, str] = {}
        for step in self.source.data:
            wires = tuple(index[bit] for bit in step.qubits)
            name = step.operation.name
            if name == "barrier":
                self.result.barrier(*wires)
            elif name == "measure":
                measured[wires[0]] = name
            elif name == "delay" or (name == "reset" and not touched & set(wires)):
                continue
            elif name == "initialize" and not touched & set(wires):
                touched |= set(wires)
                self.definition(step.operation, wires)
            else:
                self.refuse(step.operation, wires, measured)
                touched |= set(wires)
                self.gate(step.operation, wires)
        return self.result

    def refuse(self, operation: Any, wires: tuple[int, ...], measured: dict[int, str]) -> None:
        name = operation.name
        if isinstance(operation, self.q.ControlFlowOp):
            raise NotImplementedError(
                f"from_qiskit takes no control flow, got {name} on qubits {wires}."
            )
        if name in ("reset", "initialize"):
            raise NotImplementedError(
                f"from_qiskit takes {name} at the beginning alone, got it on qubits {wires} after "
                f"other gates."
            )
        again = [w for w in wires if w in measured]
        if again:
            raise NotImplementedError(
                f"from_qiskit drops measurements at the end alone: {name} acts on qubit "
                f"{again[0]} after it was measured."
            )

    def phase(self, given: Any) -> None:
        value = self.angle(given)
        if value.terms or value.constant:
            self.result.global_phase(value)

    def gate(self, operation: Any, wires: tuple[int, ...]) -> None:
        kind = getattr(operation, "base_class", type(operation))
        full = getattr(operation, "ctrl_state", None)
        closed = full is None or full == 2**operation.num_ctrl_qubits - 1
        if kind in self.direct and closed:
            name, count = self.direct[kind]
            own, controls = wires[count:], wires[:count]
            self.add(make(name, own, self.affine(operation), controls=controls))
        elif kind in self.pairs:
            self.add(make("pauli_rot", wires, self.affine(operation), pauli=self.pairs[kind]))
        elif kind is self.library.GlobalPhaseGate:
            self.phase(operation.params[0])
        elif kind is self.library.MCPhaseGate and closed and 2 <= len(wires) <= 4:
            self.add(make("p", wires[-1:], self.affine(operation), controls=wires[:-1]))
        elif self.evolution(operation, wires):
            pass
        elif len(wires) <= MAX_MATRIX_QUBITS and not self.free(operation):
            self.matrix(operation, wires)
        else:
            self.definition(operation, wires)

    def add(self, operation: Operation) -> None:
        self.result.append(operation)

    def affine(self, operation: Any) -> tuple[Angle, ...]:
        return tuple(self.angle(p) for p in operation.params)

    def free(self, operation: Any) -> bool:
        return any(getattr(p, "parameters", None) for p in operation.params)

    def evolution(self, operation: Any, wires: tuple[int, ...]) -> bool:
        """exp(-i t P) of a single Pauli string is one rotation."""
        if not isinstance(operation, self.library.PauliEvolutionGate):
            return False
        terms = operation.operator
        if isinstance(terms, list) or not hasattr(terms, "to_list") or len(terms) != 1:
            return False
        ((label, coefficient),) = terms.to_list()
        if set(label) - set("IXYZ") or abs(complex(coefficient).imag) > 1e-12:
            return False
        t = self.angle(operation.time) * (2 * complex(coefficient).real)
        self.add(make("pauli_rot", wires, (t,), pauli=label[::-1]))
        return True

    def matrix(self, operation: Any, wires: tuple[int, ...]) -> None:
        info = require("qiskit.quantum_info", extra="quantum", purpose="from_qiskit")
        errors = require("qiskit.exceptions", extra="quantum", purpose="from_qiskit")
        try:
            data = info.Operator(operation).data
        except errors.QiskitError as error:
            raise NotImplementedError(
                f"from_qiskit cannot read {operation.name} on qubits {wires}: {error}"
            ) from error
        # first qubit least significant in Qiskit, most significant here
        if wires:
            self.result.unitary(data, wires[::-1])
        else:
            self.phase(cmath.phase(data[0, 0]))

    def definition(self, operation: Any, wires: tuple[int, ...]) -> None:
        inner = getattr(operation, "definition", None)
        if inner is None or operation.num_clbits:
            raise NotImplementedError(
                f"from_qiskit cannot read {operation.name} on qubits {wires}: it is no standard "
                f"gate, has no definition, and its matrix is not constant on at most "
                f"{MAX_MATRIX_QUBITS} qubits."
            )
        self.phase(inner.global_phase)
        for step in inner.data:
            inside = tuple(wires[inner.find_bit(bit).index] for bit in step.qubits)
            name = step.operation.name
            if name == "barrier" or (name == "reset" and operation.name == "initialize"):
                continue
            self.refuse(step.operation, inside, {})
            self.gate(step.operation, inside)

    def angle(self, given: Any) -> Angle:
        """An affine expression of Qiskit's parameters."""
        parameters = getattr(given, "parameters", None)
        if not parameters:
            return Angle(float(given))
        result = Angle(float(given.bind(dict.fromkeys(parameters, 0.0)).numeric()))
        for parameter in parameters:
            slope = given.gradient(parameter)
            if getattr(slope, "parameters", None):
                raise ValueError(
                    f"angles must be affine in the parameters, got {given}: assign a value to "
                    f"{parameter.name} first."
                )
            slope = slope.numeric() if hasattr(slope, "numeric") else slope
            result = result + float(slope) * self.angles[parameter]
        return result


def synthesise(matrix: Any, wires: tuple[int, ...]) -> list[Operation]:
    """Gates of Qiskit's synthesis for a matrix whose first wire is the most significant."""
    gate = library().UnitaryGate(matrix, check_input=False)
    q = require("qiskit", extra="quantum", purpose="to_qasm3 of a matrix")
    whole = q.QuantumCircuit(len(wires))
    whole.append(gate, range(len(wires)))
    basis = ["rx", "ry", "rz", "h", "cx", "p"]
    flat = q.transpile(whole, basis_gates=basis, optimization_level=1)
    return [o.moved(wires[::-1]) for o in from_qiskit(flat).operations]
