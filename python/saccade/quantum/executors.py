"""Running circuits elsewhere: on qiskit-aer, or on any primitive of Qiskit, devices included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade._extras import require
from saccade.ops._statevector_program import PauliSums, Program, pauli_sums
from saccade.quantum._angle import Angle, feature
from saccade.quantum._operation import Operation
from saccade.quantum._standard import once
from saccade.quantum._to_qiskit import preparation, to_qiskit
from saccade.quantum.circuit import Circuit

# fmt: off
BASIS = [
    "id", "h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "rx", "ry", "rz", "p", "cx", "cz", "cp",
    "swap", "rzz",
]
# fmt: on
MAX_PREPARED = 32


class PrimitiveExecutor:
    """Expectation values from a V2 primitive of Qiskit, in place of statevector_expval.

    An instance is called as saccade.ops.statevector_expval is, and `QuantumLayer` takes it as its
    executor, so that a model trained on state vectors runs on a device, or trains on it: gradients
    come from the parameter-shift rule, exact for every gate, with two circuits an angle.

    Args:
        primitive: an EstimatorV2 or SamplerV2, of whatever provider; None (default): qiskit-aer's
            estimator, exact.
        precision: for an estimator, the standard error to aim at; None: the primitive's default.
        shots: for a sampler, likewise.
        pass_manager: compiles circuits for a device, as
            qiskit.transpiler.generate_preset_pass_manager makes it; None (default): to gates that
            every simulator knows.

    Raises:
        ImportError: Qiskit, or without a primitive qiskit-aer, is missing.
        TypeError: primitive is neither an estimator nor a sampler.

    Notes: A backward pass runs 2 G circuits a sample for G gates with angles that are not constant.

    >>> from saccade.quantum import Circuit, PrimitiveExecutor
    >>> from qiskit.primitives import StatevectorEstimator
    >>> run = PrimitiveExecutor(StatevectorEstimator())
    >>> t = torch.tensor([0.5], requires_grad=True)
    >>> run(Circuit(1).ry(0, "t"), t, None, ["Z"]).detach()  # cos t
    tensor([[0.8776]])
    """

    def __init__(
        self,
        primitive: Any = None,
        *,
        precision: float | None = None,
        shots: int | None = None,
        pass_manager: Any = None,
    ) -> None:
        base = require("qiskit.primitives", extra="quantum", purpose="PrimitiveExecutor")
        if primitive is None:
            aer = require("qiskit_aer.primitives", extra="quantum", purpose="PrimitiveExecutor")
            primitive = aer.EstimatorV2()
        self.samples = isinstance(primitive, base.BaseSamplerV2)
        if not self.samples and not isinstance(primitive, base.BaseEstimatorV2):
            raise TypeError(
                f"primitive must be an EstimatorV2 or a SamplerV2, got {type(primitive).__name__}."
            )
        self.primitive, self.precision, self.shots = primitive, precision, shots
        self._pass_manager = pass_manager
        self._prepared: dict[Program, Prepared] = {}

    def __call__(
        self,
        program: Program | Circuit,
        params: Tensor | None = None,
        inputs: Tensor | None = None,
        observables: Any = (),
        *,
        state: Tensor | None = None,
        dtype: torch.dtype = torch.complex64,
        grad: str = "adjoint",
        backend: str = "auto",
    ) -> Tensor:
        """Return the expectation values [B, K].

        Args:
            program: a Program or a Circuit.
            params: [P], shared.
            inputs: [..., Pb], per sample.
            observables: K Pauli strings or {string: coefficient}, letter 0 for wire 0.
            state: amplitudes [..., 2**n] to start from, without gradients.
            dtype: complex64 gives float32, complex128 float64.
            grad: "none" for no gradients; anything else is the shift rule.
            backend: ignored: it names kernels.

        Raises:
            ValueError: shapes do not fit.
            NotImplementedError: state asks for a gradient.
        """
        if isinstance(program, Circuit):
            state = program.initial_state(inputs) if state is None else state
            program = program.program()
        _check(program, params, inputs, state, grad)
        sums = pauli_sums(observables, program.n_wires)
        lead = torch.broadcast_shapes(
            *(t.shape[:-1] for t in (inputs, state) if t is not None)
        ) or (() if inputs is not None or state is not None else (1,))
        if inputs is not None:
            inputs = inputs.expand(*lead, -1).reshape(math.prod(lead), inputs.shape[-1])
        if state is not None:
            state = state.expand(*lead, -1).reshape(math.prod(lead), state.shape[-1])
        prepared = self._prepare(program)
        angles = prepared.angles(params, inputs).expand(math.prod(lead), -1)
        given = next((t for t in (params, inputs, state) if t is not None), torch.zeros(()))
        real = torch.float64 if dtype == torch.complex128 else torch.float32
        if not sums or not len(angles):
            return torch.zeros(*lead, len(sums), dtype=real, device=given.device)
        if grad == "none":
            angles = angles.detach()
        values: Tensor = _Shift.apply(angles, self, prepared, sums, state)
        return values.reshape(*lead, len(sums)).to(device=given.device, dtype=real)

    def _prepare(self, program: Program) -> Prepared:
        found = self._prepared.get(program)
        if found is None:
            if len(self._prepared) >= MAX_PREPARED:
                self._prepared.pop(next(iter(self._prepared)))
            found = self._prepared[program] = prepare(program)
        return found

    def run(
        self, prepared: Prepared, angles: Tensor, sums: PauliSums, state: Tensor | None
    ) -> Tensor:
        """Values [..., B, K] of angles [..., B, S], float64."""
        numbers = angles.detach().double().cpu()
        if state is None:
            return self._batch(prepared, prepared.circuit, numbers, sums)
        columns = []
        for b, amplitudes in enumerate(state):
            whole = prepared.circuit.copy_empty_like()
            whole.append(preparation(amplitudes), whole.qubits)
            whole.compose(prepared.circuit, inplace=True)
            columns.append(self._batch(prepared, whole, numbers[..., b : b + 1, :], sums))
        return torch.cat(columns, -2)

    def _compile(self, prepared: Prepared, circuit: Any, basis: str = "") -> Any:
        """Compile a circuit that is measured in a basis; only the program's own is kept."""
        if circuit is prepared.circuit and basis in prepared.compiled:
            return prepared.compiled[basis]
        if self._pass_manager is None:
            q = require("qiskit.transpiler", extra="quantum", purpose="PrimitiveExecutor")
            make = q.generate_preset_pass_manager
            self._pass_manager = make(optimization_level=0, basis_gates=BASIS)
        compiled = self._pass_manager.run(_measured(circuit, basis) if basis else circuit)
        if circuit is prepared.circuit:
            prepared.compiled[basis] = compiled
        return compiled

    def _batch(self, prepared: Prepared, circuit: Any, numbers: Tensor, sums: PauliSums) -> Tensor:
        names = prepared.parameters
        # all under one key: an array of one parameter alone may have lost its last axis
        values = {tuple(p.name for p in names): numbers.numpy()} if names else None
        run = self._sampler if self.samples else self._estimator
        found = run(prepared, circuit, values, sums)
        if values is None:
            found = found.expand(*numbers.shape[:-1], -1)
        return found

    def _estimator(self, prepared: Prepared, circuit: Any, values: Any, sums: PauliSums) -> Tensor:
        info = require("qiskit.quantum_info", extra="quantum", purpose="PrimitiveExecutor")
        compiled = self._compile(prepared, circuit)
        lead = 0 if values is None else next(iter(values.values())).ndim - 1
        operators = []
        for terms in sums:
            pairs = [(word[::-1], coefficient) for coefficient, word in terms]
            empty = [("I" * circuit.num_qubits, 0.0)]
            operator = info.SparsePauliOp.from_list(pairs or empty)
            operators.append(operator.apply_layout(compiled.layout))
        grid = [_nested(operator, lead) for operator in operators]
        job = self.primitive.run([(compiled, grid, values)], precision=self.precision)
        return torch.as_tensor(job.result()[0].data.evs, dtype=torch.float64).movedim(0, -1)

    def _sampler(self, prepared: Prepared, circuit: Any, values: Any, sums: PauliSums) -> Tensor:
        info = require("qiskit.quantum_info", extra="quantum", purpose="PrimitiveExecutor")
        words = list(dict.fromkeys(word for terms in sums for _, word in terms))
        groups = commuting(words)
        pubs = [(self._compile(prepared, circuit, basis), values) for basis, _ in groups]
        results = self.primitive.run(pubs, shots=self.shots).result()
        found: dict[str, Tensor] = {}
        for (_, members), result in zip(groups, results, strict=True):
            for word in members:
                label = "".join("I" if letter == "I" else "Z" for letter in word[::-1])
                mean = result.data.meas.expectation_values(info.SparsePauliOp(label))
                found[word] = torch.as_tensor(mean, dtype=torch.float64)
        zero = next(iter(found.values())) * 0 if found else torch.zeros(())
        return torch.stack([sum((c * found[w] for c, w in t), zero) for t in sums], -1)


def _check(
    program: Program, params: Tensor | None, inputs: Tensor | None, state: Tensor | None, grad: str
) -> None:
    """Shapes that a program does not fit, as sentences."""
    shape = None if params is None else tuple(params.shape)
    if (shape or (0,)) != (program.n_params,):
        raise ValueError(f"params must have shape ({program.n_params},), got {shape}.")
    columns = program.n_inputs
    shape = None if inputs is None else tuple(inputs.shape)
    if (shape is None and columns) or (shape is not None and shape[-1:] != (columns,)):
        raise ValueError(f"inputs must have shape [..., {columns}], got {shape}.")
    shape = None if state is None else tuple(state.shape)
    if shape is not None and shape[-1:] != (2**program.n_wires,):
        raise ValueError(f"state must have shape [..., {2**program.n_wires}], got {shape}.")
    if state is not None and state.requires_grad and grad != "none":
        raise NotImplementedError("primitives give no gradient to state: detach it.")


def _measured(circuit: Any, basis: str) -> Any:
    """With the measurement of all qubits, letter 0 of the basis for qubit 0."""
    result = circuit.copy()
    for wire, letter in enumerate(basis):
        if letter == "Y":
            result.sdg(wire)
        if letter in "XY":
            result.h(wire)
    result.measure_all()
    return result


def _nested(entry: Any, depth: int) -> Any:
    """An axis of length 1 for each axis of the parameters."""
    return entry if depth == 0 else [_nested(entry, depth - 1)]


def commuting(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Groups of words that one basis measures: (the basis, its words), greedily."""
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        for k, (basis, members) in enumerate(groups):
            if all("I" in pair or pair[0] == pair[1] for pair in zip(basis, word, strict=True)):
                merged = "".join(a if a != "I" else b for a, b in zip(basis, word, strict=True))
                groups[k] = (merged, [*members, word])
                break
        else:
            groups.append((word, [word]))
    return groups


@dataclass(frozen=True)
class Prepared:
    """A program as Qiskit's circuit in which every angle is a parameter of its own.

    Attributes:
        circuit: the circuit.
        parameters: its parameters, in the order of the angles.
        symbols: what each angle is made of.
        source: the circuit whose slots the symbols name.
        compiled: what the pass manager made of it, by the basis that is measured.
    """

    circuit: Any
    parameters: tuple[Any, ...]
    symbols: tuple[Angle, ...]
    source: Circuit
    compiled: dict[str, Any] = field(default_factory=dict)

    def angles(self, params: Tensor | None, inputs: Tensor | None) -> Tensor:
        """Every angle [B, S], differentiable, float64."""
        batch = 1 if inputs is None else inputs.shape[0]
        columns = []
        for angle in self.symbols:
            value = self.source.value(angle)
            given = cast("Tensor", params if value.source == "param" else inputs)
            column = value.coefficient * given[..., value.index].double() + value.offset
            columns.append(column.cpu().expand(batch))
        if not columns:
            return torch.zeros(batch, 0, dtype=torch.float64)
        return torch.stack(columns, -1)


def prepare(program: Program) -> Prepared:
    """Give every angle that is not constant a place of its own."""
    source = Circuit.from_program(program)
    flat = Circuit(program.n_wires)
    symbols: list[Angle] = []
    for operation in source.operations:
        for step in shiftable(operation):
            if step.angles and step.angles[0].terms:
                symbols.append(step.angles[0])
                step = replace(step, angles=(feature(len(symbols) - 1),))
            flat.append(step)
    exported = to_qiskit(flat)
    order = sorted(exported.columns, key=lambda column: column[2])
    return Prepared(exported.circuit, tuple(c[0] for c in order), tuple(symbols), source)


def shiftable(o: Operation) -> list[Operation]:
    """The same with every symbol in a rotation or phase of one qubit, which all simulators take."""
    if all(not a.terms for a in o.angles):
        return [o]
    if o.name == "gphase":
        return []  # no expectation value sees it
    if not o.controls and o.name in ("rx", "ry", "rz", "p"):
        return o.split()
    if o.name in ("u3", "rot"):
        steps = o.factors()
    elif o.name == "p" and len(o.controls) == 1:
        steps = _controlled_phase(o)
    else:
        steps = once(o)
    return [part for step in steps for part in shiftable(step)]


def _controlled_phase(o: Operation) -> list[Operation]:
    """exp(i t (1 - Z)(1 - Z') / 4): phases of both and of their parity."""
    (t,) = o.angles
    flip = Operation("x", o.wires, (), o.controls)
    half = Operation("p", o.wires, (t * 0.5,))
    return [half, replace(half, wires=o.controls), flip, half.inverse(), flip]


class _Shift(torch.autograd.Function):
    """Values [B, K] of angles [B, S]; backwards by (f(t + pi/2) - f(t - pi/2)) / 2."""

    @staticmethod
    def forward(
        ctx: Any,
        angles: Tensor,
        executor: PrimitiveExecutor,
        prepared: Prepared,
        sums: PauliSums,
        state: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(angles)
        ctx.rest = (executor, prepared, sums, state)
        return executor.run(prepared, angles, sums, state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (angles,) = ctx.saved_tensors
        executor, prepared, sums, state = ctx.rest
        steps = torch.eye(angles.shape[-1], dtype=angles.dtype)[:, None] * (torch.pi / 2)
        shifted = torch.cat([angles + steps, angles - steps])
        values = executor.run(prepared, shifted, sums, state)
        plus, minus = values.chunk(2)
        slopes = ((plus - minus) / 2 * gradient).sum(-1)
        return slopes.mT, None, None, None, None
