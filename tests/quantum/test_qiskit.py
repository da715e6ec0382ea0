"""To Qiskit and back: states against quantum_info.Statevector, round trips, parameters, phases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from samples import (
    CONTROLLED,
    ONE_GATE,
    PAULIS,
    around,
    every,
    random_unitary,
    single,
    state,
    values,
)

from saccade.quantum import Circuit, feature, from_qiskit, param

qiskit = pytest.importorskip("qiskit")
pytest.importorskip("qiskit_qasm3_import")  # the quantum extra brings it
from qiskit import QuantumCircuit  # noqa: E402
from qiskit.circuit import Gate, Parameter, ParameterVector  # noqa: E402
from qiskit.circuit.library import get_standard_gate_name_mapping  # noqa: E402
from qiskit.quantum_info import Operator, Statevector  # noqa: E402

TOLERANCE = 1e-12


def bound(circuit: Circuit, params, sample):
    """Qiskit's circuit with the numbers of one sample."""
    from saccade.quantum._to_qiskit import to_qiskit

    exported = to_qiskit(circuit)
    numbers = {
        parameter: float((params if source == "param" else sample)[index])
        for parameter, source, index in exported.columns
    }
    return exported.circuit.assign_parameters(numbers)


def close(ours, theirs) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=TOLERANCE, rtol=0)


def controlled(name: str, count: int) -> Circuit:
    def middle(c: Circuit) -> None:
        own = 2 if name in ("swap", "iswap", "ecr") else 1
        angles = {"u3": 3, "rot": 3, "rx": 1, "ry": 1, "rz": 1, "p": 1}.get(name, 0)
        wires = [2, 0, 3, 1][: own + count]
        c.gate(name, wires[count:], *(0.3 + 0.9 * i for i in range(angles)), controls=wires[:count])

    return around(middle)


def matrices(kind: str) -> Circuit:
    k = int(kind[0])
    controls = [3] if kind.endswith("c") else []
    wires = [2, 0, 1, 3][:k]
    matrix = random_unitary(k, k)
    return around(lambda c: c.gate("unitary", wires, controls=controls, matrix=matrix))


CASES = {
    **{name: single(name) for name in ONE_GATE},
    **{f"c{count}-{name}": controlled(name, count) for name, count in CONTROLLED},
    **{f"pauli-{p}": around(lambda c, p=p: c.pauli_rot(p, range(len(p)), 0.8)) for p in PAULIS},
    "pauli-I": around(lambda c: c.pauli_rot("II", (0, 1), 0.8)),
    "pauli-controlled": around(
        lambda c: c.gate("pauli_rot", (3, 0), 0.8, controls=(1,), pauli="YX")
    ),
    **{f"unitary-{kind}": matrices(kind) for kind in ("1", "2", "3", "4", "1c", "2c")},
    "phase": around(lambda c: c.global_phase(0.9)),
    "basis": Circuit(3).basis_state("011"),
    "empty": Circuit(2),
}


@pytest.mark.parametrize("name", CASES)
def test_states_are_qiskits_and_circuits_come_back(name: str) -> None:
    circuit = CASES[name]
    ours = state(circuit)[0]
    exported = circuit.to_qiskit()
    close(ours, Statevector(exported).data)
    close(ours, state(from_qiskit(exported))[0])
    close(ours, state(from_qiskit(qiskit.qasm3.loads(circuit.to_qasm3())))[0])
    back = circuit.copy().compose(circuit.inverse())
    assert abs(state(back)[0, 0] - 1) < 1e-11


@pytest.mark.parametrize("n", range(1, 13))
def test_random_circuits_over_every_gate(n: int) -> None:
    circuit = every(n, 40 if n < 9 else 25, seed=n)
    params, inputs = values(circuit, 2)
    ours = state(circuit, params, inputs)
    for sample, found in zip(inputs, ours, strict=True):
        close(found, Statevector(bound(circuit, params, sample)).data)
    big = state(circuit, params, inputs, "big").reshape(2, *(2,) * n)
    close(big.permute(0, *range(n, 0, -1)).reshape(2, -1), ours)
    if n <= 6:
        again = from_qiskit(circuit.to_qiskit(), {"x": feature})
        places = [circuit.parameters.index(name) for name in again.parameters]
        close(state(again, params[places], inputs), ours)


def test_qasm_keeps_parameters() -> None:
    circuit = every(4, 30, seed=3)
    params, inputs = values(circuit, 2)
    text = circuit.to_qasm3()
    assert "input float[64] a;" in text
    assert "input float[64] x_0;" in text
    names = {f"x_{i}": feature(i) for i in range(circuit.n_inputs)}
    loaded = qiskit.qasm3.loads(text)
    used = {p.name for p in loaded.parameters}
    again = from_qiskit(loaded, {k: v for k, v in names.items() if k in used})
    places = [circuit.parameters.index(name) for name in again.parameters]
    inputs = inputs[:, : again.n_inputs]
    close(state(again, params[places], inputs), state(circuit, params, inputs))


def test_qasm_names_are_identifiers() -> None:
    circuit = Circuit(1).rx(0, "θ").ry(0, "theta[0]").rz(0, "h").p(0, "1 a").rx(0, "theta_0")
    text = circuit.to_qasm3()
    declared = [line.split()[-1].rstrip(";") for line in text.splitlines() if "input" in line]
    assert declared == ["θ", "theta_0", "p_h", "p_1_a", "theta_0_"]
    assert len(qiskit.qasm3.loads(text).parameters) == 5


@pytest.mark.parametrize("name", list(get_standard_gate_name_mapping()))
def test_every_standard_gate_is_read(name: str) -> None:
    gate = get_standard_gate_name_mapping()[name]
    if name in ("measure", "delay", "reset"):
        pytest.skip("no unitary")
    circuit = QuantumCircuit(5)
    for qubit in range(5):
        circuit.u(0.3 + qubit, 0.2, 0.5 * qubit, qubit)
    circuit.append(gate, [3, 0, 2, 1][: gate.num_qubits])
    numbers = np.linspace(0.4, 1.3, len(circuit.parameters))
    ours = from_qiskit(circuit)
    got = state(ours, torch.from_numpy(numbers), None)[0]
    close(got, Statevector(circuit.assign_parameters(numbers)).data)
    # with numbers in place of parameters, another way in
    got = state(from_qiskit(circuit.assign_parameters(numbers)))[0]
    close(got, Statevector(circuit.assign_parameters(numbers)).data)


def special() -> dict[str, QuantumCircuit]:
    from qiskit.circuit.library import (
        HGate,
        PauliEvolutionGate,
        PauliGate,
        QFTGate,
        RYGate,
        XGate,
    )
    from qiskit.quantum_info import SparsePauliOp

    found = {}

    def case(name: str, n: int = 4) -> QuantumCircuit:
        circuit = QuantumCircuit(n)
        for qubit in range(n):
            circuit.u(0.3 + qubit, 0.2, 0.5 * qubit, qubit)
        found[name] = circuit
        return circuit

    case("open-control").append(XGate().control(2, ctrl_state="01"), [0, 3, 1])
    case("open-cx").cx(0, 2, ctrl_state=0)
    case("mcx-5", 6).mcx([0, 1, 2, 3, 4], 5)
    case("mcp").mcp(0.7, [0, 1, 2], 3)
    case("mcp-4", 5).mcp(0.7, [0, 1, 2, 4], 3)
    case("qft").append(QFTGate(4), [2, 0, 1, 3])
    case("qft-5", 6).append(QFTGate(5), [2, 0, 1, 3, 5])
    case("pauli").append(PauliGate("XYZ"), [3, 1, 0])
    word = SparsePauliOp.from_list([("XIZ", 0.5)])
    case("evolution").append(PauliEvolutionGate(word, 0.7), [3, 1, 0])
    words = SparsePauliOp.from_list([("XZ", 0.5), ("YY", 0.2)])
    case("evolution-sum").append(PauliEvolutionGate(words, 0.7), [3, 1])
    case("annotated").append(HGate().control(2, annotated=True), [3, 1, 0])
    case("power").append(RYGate(0.3).power(3), [2])
    case("inverse").append(QFTGate(3).inverse(), [2, 0, 3])
    case("prepare").prepare_state(Statevector(np.array([0.6, 0, 0, 0.8j])), [1, 3])
    inner = QuantumCircuit(2, global_phase=0.3)
    inner.h(0)
    inner.cx(0, 1)
    case("nested").append(inner.to_gate(), [3, 1])
    case("nested-controlled").append(inner.to_gate().control(1), [3, 1, 2])
    case("unitary").unitary(random_unitary(3, 5), [3, 0, 1])
    circuit = case("phase")
    circuit.global_phase = 1.1
    circuit = case("reset")
    found["reset"] = QuantumCircuit(4)
    found["reset"].reset([0, 1])
    found["reset"].compose(circuit, inplace=True)
    return found


@pytest.mark.parametrize("name", special())
def test_special_gates_are_read(name: str) -> None:
    circuit = special()[name]
    expected = circuit.copy()
    expected.data = [s for s in circuit.data if s.operation.name != "reset"]
    close(state(from_qiskit(circuit))[0], Statevector(expected).data)


def test_parametrised_definitions_are_read() -> None:
    t = Parameter("t")
    inner = QuantumCircuit(2, global_phase=t / 2)
    inner.rx(2 * t, 0)
    inner.cx(0, 1)
    inner.r(t, 0.4, 1)
    circuit = QuantumCircuit(3)
    circuit.append(inner.to_gate(), [2, 0])
    circuit.mcp(t, [0, 1], 2)
    got = state(from_qiskit(circuit), torch.tensor([0.7], dtype=torch.float64), None)[0]
    close(got, Statevector(circuit.assign_parameters([0.7])).data)


def test_initialize_is_read_at_the_beginning() -> None:
    circuit = QuantumCircuit(2)
    circuit.initialize([0.6, 0.8j], 1)
    circuit.cx(1, 0)
    close(state(from_qiskit(circuit))[0], [0.6, 0, 0, 0.8j])


def test_parameters_are_in_qiskits_order_and_affine() -> None:
    b, v = Parameter("b"), ParameterVector("a", 11)
    circuit = QuantumCircuit(1)
    circuit.rx(b - v[10] / 3 + 0.5, 0)
    circuit.ry(2 * v[2] - v[2] + b, 0)
    circuit.global_phase = v[2]
    ours = from_qiskit(circuit)
    assert ours.parameters == ("a[2]", "a[10]", "b")
    numbers = np.array([0.4, -0.9, 1.2])
    got = state(ours, torch.from_numpy(numbers), None)[0]
    close(got, Statevector(circuit.assign_parameters(numbers)).data)


def test_param_map() -> None:
    x, w, c = ParameterVector("x", 2), ParameterVector("w", 3), Parameter("c")
    circuit = QuantumCircuit(2)
    circuit.ry(x[0], 0)
    circuit.ry(2 * x[1], 1)
    circuit.rx(w[1] + c, 0)
    circuit.rz(w[2], 1)
    ours = from_qiskit(circuit, {x: feature, "w": param, c: 0.25})
    assert (ours.n_params, ours.n_inputs, ours.parameters) == (3, 2, (0, 1, 2))
    params, inputs = values(ours, 1)
    numbers = {x: inputs[0].tolist(), c: 0.25, w[1]: float(params[1]), w[2]: float(params[2])}
    close(state(ours, params, inputs)[0], Statevector(circuit.assign_parameters(numbers)).data)
    renamed = from_qiskit(circuit, {"c": "b", "x": [feature(1), "b"]})
    assert renamed.parameters == ("b", "w[1]", "w[2]")


def test_final_measurements_are_dropped() -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.x(1)
    circuit.measure(1, 1)
    circuit.barrier()
    circuit.measure_all()
    expected = QuantumCircuit(2)
    expected.h(0)
    expected.x(1)
    close(state(from_qiskit(circuit))[0], Statevector(expected).data)


def middle_measurement() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    circuit.cx(0, 1)
    return circuit


def middle_reset() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.reset(0)
    return circuit


def control_flow() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    with circuit.if_test((0, 1)):
        circuit.x(0)
    return circuit


def late_initialize() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.initialize([0.6, 0.8], 0)
    return circuit


def opaque() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.append(Gate("mystery", 1, []), [0])
    return circuit


def measurement_inside() -> QuantumCircuit:
    inner = QuantumCircuit(1, 1)
    inner.measure(0, 0)
    circuit = QuantumCircuit(1, 1)
    circuit.append(inner.to_instruction(), [0], [0])
    return circuit


def not_affine() -> QuantumCircuit:
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(1)
    circuit.rx(a * b, 0)
    return circuit


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (middle_measurement, NotImplementedError, "cx acts on qubit 0 after it was measured"),
        (middle_reset, NotImplementedError, "reset at the beginning alone"),
        (late_initialize, NotImplementedError, "initialize at the beginning alone"),
        (opaque, NotImplementedError, "cannot read mystery on qubits \\(0,\\)"),
        (measurement_inside, NotImplementedError, "cannot read circuit"),
        (control_flow, NotImplementedError, "control flow"),
        (not_affine, ValueError, "must be affine in the parameters"),
        (lambda: "qc", TypeError, "must be a QuantumCircuit, got str"),
    ],
    ids=[
        "measurement",
        "reset",
        "initialize",
        "opaque",
        "inside",
        "control-flow",
        "product",
        "type",
    ],
)
def test_what_cannot_be_read(make, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        from_qiskit(make())


def test_param_map_must_name_parameters() -> None:
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("a"), 0)
    with pytest.raises(ValueError, match="must name parameters of the circuit, \\['a'\\]"):
        from_qiskit(circuit, {"b": 1.0})


def test_amplitudes_are_prepared() -> None:
    circuit = Circuit(2).amplitude_encoding().cx(0, 1)
    start = torch.tensor([0.6, 0.8j, 0.0, 0.0], dtype=torch.complex128)
    got = Statevector(circuit.to_qiskit(start)).data
    # |00>, |01> in our order; the second wire is Qiskit's qubit 1, index 2
    close(got, [0.6, 0, 0.8j, 0])
    with pytest.raises(ValueError, match="depends on the sample"):
        circuit.to_qiskit()
    with pytest.raises(ValueError, match="4 amplitudes, got shape \\(2,\\)"):
        circuit.to_qiskit(torch.ones(2))


def test_exported_names() -> None:
    circuit = Circuit(1).rx(0, param(2)).ry(0, feature(1))
    assert [p.name for p in circuit.to_qiskit().parameters] == ["theta[2]", "x[1]"]
    assert [p.name for p in Circuit(1).rx(0, "w").to_qiskit().parameters] == ["w"]


def test_qft_matrix() -> None:
    n = 3
    circuit = Circuit(n)
    for wire in range(n):
        circuit.h(wire)
        for later in range(wire + 1, n):
            circuit.cp(later, wire, math.pi / 2 ** (later - wire))
    circuit.swap(0, 2)
    rows = np.outer(np.arange(8), np.arange(8))
    expected = np.exp(2j * math.pi * rows / 8) / math.sqrt(8)
    eye = torch.eye(8, dtype=torch.complex128)
    from saccade.reference.statevector import statevector

    ours = statevector(circuit.program(), None, None, eye, torch.complex128)
    close(ours.mT, expected)
    reverse = circuit.to_qiskit().reverse_bits()
    close(Operator(reverse).data, expected)
