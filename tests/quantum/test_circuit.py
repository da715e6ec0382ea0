"""The builder: angles, places of parameters, encodings, composition, drawing, errors."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from samples import ONE_GATE, every, random_unitary, single, state, values

from saccade.ops._statevector_program import Program, Value, instruction
from saccade.quantum import Angle, Circuit, feature, param


def close(ours, theirs, atol: float = 1e-12) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (param("a"), "a"),
        (-param("a"), "-a"),
        (2 * param(3) + 0.5, "2*theta[3] + 0.5"),
        (1 - feature(0) / 4, "-0.25*x[0] + 1"),
        (param("a") + feature(1) - param("a"), "x[1]"),
        (param("a") * 0 + math.pi / 2, "pi/2"),
        (Angle(-3 * math.pi / 4), "-3*pi/4"),
        (sum([param("a"), param("b")]), "a + b"),
    ],
    ids=str,
)
def test_angles(given: Angle, text: str) -> None:
    assert str(given) == text


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: param("a") * param("b"), TypeError, "angles are affine"),
        (lambda: 1.0 / param("a"), TypeError, "unsupported"),
        (lambda: param(-1), ValueError, "at least 0, got -1"),
        (lambda: param(1.5), TypeError, "a name or an index, got 1.5"),
        (lambda: feature("x"), TypeError, "has an index"),
        (lambda: Circuit(1).rx(0, math.nan), ValueError, "finite"),
        (lambda: Circuit(1).rx(0, 1j), TypeError, "an angle must be"),
        (lambda: Circuit(1).rx(0, None), TypeError, "an angle must be"),
        (lambda: Circuit(0), ValueError, "n_wires must be an int from 1"),
        (lambda: Circuit(2).h(2), ValueError, "wires must be from 0 to 1, got 2 in h"),
        (lambda: Circuit(2).barrier(2), ValueError, "wires must be from 0 to 1, got 2 in barrier"),
        (lambda: Circuit(2).cut_wire("a"), TypeError, "a wire must be an int"),
        (lambda: Circuit(2).cx(1, 1), ValueError, "distinct wires"),
        (lambda: Circuit(2).rx(0, "a").rx(0, param(0)), ValueError, "names or indices, not both"),
        (lambda: Circuit(2).gate("foo", 0), ValueError, "name must be one of"),
        (lambda: Circuit(2).gate("rx", 0), ValueError, "rx must have 1 angles, got 0"),
        (lambda: Circuit(2).pauli_rot("XW", (0, 1), 0.1), ValueError, "letter of IXYZ"),
        (lambda: Circuit(2).unitary(np.ones((2, 2)), [0]), ValueError, "must be unitary"),
        (lambda: Circuit(2).basis_state("012"), ValueError, "bits must be 2 times 0 or 1"),
        (lambda: Circuit(2).angle_encoding(rotation="A"), ValueError, "made of X, Y and Z"),
        (lambda: Circuit(2).h(0).amplitude_encoding(), ValueError, "must come first"),
        (lambda: Circuit(2).amplitude_encoding(length=3), ValueError, "unless pad=True, got 3"),
        (lambda: Circuit(2).amplitude_encoding(length=5), ValueError, "from 1 to 2\\*\\*2 = 4"),
        (lambda: Circuit(2).amplitude_encoding().inverse(), ValueError, "no inverse"),
        (lambda: Circuit(2).compose(Circuit(2), (0, 0)), ValueError, "2 different ones"),
        (lambda: Circuit(1).rx(0, "a").assign({"b": 1}), ValueError, "must name parameters"),
        (lambda: Circuit(1).rx(0, "a").pack({}), ValueError, "values must be those of"),
    ],
)
def test_bad_input(make, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make()


def test_parameters_have_places() -> None:
    circuit = Circuit(2).rx(0, "b").ry(1, 2 * param("a") + 1).rz(0, "b").rx(1, feature(4))
    assert (circuit.parameters, circuit.n_params, circuit.n_inputs) == (("b", "a"), 2, 5)
    values = [entry.values[0] for entry in circuit.program().instructions]
    assert values == [
        Value("param", 0, 1.0, 0.0),
        Value("param", 1, 2.0, 1.0),
        Value("param", 0, 1.0, 0.0),
        Value("input", 4, 1.0, 0.0),
    ]
    indexed = Circuit(1).rx(0, param(3))
    assert (indexed.parameters, indexed.n_params) == ((0, 1, 2, 3), 4)
    a = torch.tensor(0.3, requires_grad=True)
    packed = circuit.pack({"a": a, "b": 1.0})
    assert packed.tolist() == pytest.approx([1.0, 0.3])
    packed.sum().backward()
    assert a.grad == 1


def test_a_program_is_hashed_and_kept() -> None:
    circuit = Circuit(2).h(0)
    assert circuit.program() is circuit.program()
    before = circuit.program()
    assert circuit.x(1).program() != before
    assert hash(Circuit(2).h(0).program()) == hash(before)


@pytest.mark.parametrize("name", ["rx", "ry", "rz", "p", "u", "rot", "crx", "cp", "cu3", "rzz"])
def test_sums_of_symbols_are_split(name: str) -> None:
    wires, angles = ONE_GATE[name]
    whole = param("a") - 2 * feature(1) + param("b") / 3 + 0.4
    circuit = Circuit(2).u(0, 0.3, 0.2, 0.1).u(1, 1.3, 0.2, 0.1)
    plain = circuit.copy()
    getattr(circuit, name)(*range(wires), *[whole, 0.7, whole][:angles])
    params = torch.tensor([0.5, -1.1], dtype=torch.float64)
    inputs = torch.tensor([[0.0, 0.9]], dtype=torch.float64)
    number = 0.5 - 2 * 0.9 - 1.1 / 3 + 0.4
    getattr(plain, name)(*range(wires), *[number, 0.7, number][:angles])
    close(state(circuit, params, inputs), state(plain))


def test_global_phase_of_a_sum() -> None:
    circuit = Circuit(1).global_phase(param("a") + param("b"))
    params = torch.tensor([0.5, 0.3], dtype=torch.float64)
    close(state(circuit, params, None)[0, 0].angle(), torch.tensor(0.8, dtype=torch.float64))


@pytest.mark.parametrize("name", ONE_GATE)
def test_inverse_undoes(name: str) -> None:
    circuit = single(name)
    whole = state(circuit.compose(circuit.inverse()))
    close(whole[0, 0], torch.ones((), dtype=torch.complex128))
    close(state(circuit.inverse().inverse()), state(circuit))


def test_inverse_with_parameters() -> None:
    circuit = every(4, 40, seed=1)
    params, inputs = values(circuit)
    assert circuit.inverse().parameters == circuit.parameters
    whole = state(circuit.compose(circuit.inverse()), params, inputs)
    close(whole[:, 0], torch.ones(3, dtype=torch.complex128))


def test_compose_onto_other_wires() -> None:
    layer = Circuit(2).rx(0, "a").cx(0, 1).barrier().ry(1, "b")
    circuit = Circuit(3).rz(0, "b").compose(layer, (2, 0)).compose(layer, (1, 2))
    expected = Circuit(3).rz(0, "b").rx(2, "a").cx(2, 0).barrier(2, 0).ry(0, "b")
    expected.rx(1, "a").cx(1, 2).barrier(1, 2).ry(2, "b")
    assert circuit == expected
    assert layer == Circuit(2).rx(0, "a").cx(0, 1).barrier().ry(1, "b")
    assert circuit != layer


def test_assign() -> None:
    circuit = Circuit(1).rx(0, 2 * param("a") + param("b")).ry(0, "c")
    assert circuit.assign({"a": 0.5, "b": param("c") - 1}) == Circuit(1).rx(0, "c").ry(0, "c")


def test_basis_states_and_angles() -> None:
    assert state(Circuit(3).basis_state("110"), bit_order="big")[0, 6] == 1
    circuit = Circuit(2).angle_encoding(rotation="YZ", start=1, scale=math.pi)
    expected = Circuit(2)
    for column, (name, wire) in enumerate([("ry", 0), ("ry", 1), ("rz", 0), ("rz", 1)], start=1):
        expected.gate(name, wire, math.pi * feature(column))
    assert circuit == expected
    assert Circuit(3).angle_encoding((2, 0)) == Circuit(3).ry(2, feature(0)).ry(0, feature(1))


def test_amplitudes() -> None:
    x = torch.tensor([[9.0, 3.0, 0.0, 4.0], [9.0, 1.0, 2.0, 2.0]], dtype=torch.float64)
    circuit = Circuit(2).amplitude_encoding(1, 3, pad=True).cx(0, 1)
    assert circuit.n_inputs == 4
    expected = torch.tensor([[0.6, 0, 0.8, 0], [1 / 3, 2 / 3, 2 / 3, 0]], dtype=torch.float64)
    close(circuit.initial_state(x), expected)
    assert torch.autograd.gradcheck(circuit.initial_state, x.requires_grad_())
    assert Circuit(2).h(0).initial_state(x) is None
    raw = Circuit(2).amplitude_encoding(normalize=False)
    close(raw.initial_state(expected), expected)
    assert Circuit(2).compose(raw).amplitudes == raw.amplitudes


@pytest.mark.parametrize(
    ("normalize", "x", "sentence"),
    [
        (True, [[0.0] * 4], "norm 0"),
        (False, [[1.0] * 4], "norm 1 unless normalize=True, got a norm of 2"),
        (True, [[1.0] * 3], "at least 4 columns, got shape \\(1, 3\\)"),
        (True, None, "at least 4 columns, got None"),
    ],
    ids=["zero", "norm", "columns", "none"],
)
def test_bad_amplitudes(normalize: bool, x, sentence: str) -> None:
    circuit = Circuit(2).amplitude_encoding(normalize=normalize)
    with pytest.raises(ValueError, match=sentence):
        circuit.initial_state(None if x is None else torch.tensor(x))


def test_programs_come_back_as_circuits() -> None:
    circuit = every(4, 30, seed=2)
    params, inputs = values(circuit)
    again = Circuit.from_program(circuit.program())
    assert again.program() == circuit.program()
    close(state(again, params, inputs), state(circuit, params, inputs))
    entries = (instruction("rx", 0, [Value("param", 1)]),)
    kept = Circuit.from_program(Program(1, entries, n_params=5, n_inputs=3))
    assert (kept.n_params, kept.n_inputs) == (5, 3)


def test_drawing() -> None:
    circuit = Circuit(3).ry(0, feature(0)).rx(1, "a").cx(0, 2).cut_wire(1).swap(1, 2)
    assert str(circuit).splitlines() == [
        "0: -RY(x[0])---o---------",
        "               |",
        "1: --RX(a)-----|---//--x-",
        "               |       |",
        "2: -----------(+)------x-",
    ]
    assert repr(circuit).startswith("Circuit of 3 wires: 4 gates, 1 parameters, 1 inputs\n")
    long = Circuit(2)
    for _ in range(60):
        long.rzz(0, 1, 0.1)
    assert max(map(len, str(long).splitlines())) <= 100
    assert str(Circuit(1)) == "0:"


def test_import_needs_no_qiskit() -> None:
    code = (
        "import sys; sys.modules['qiskit'] = None; sys.modules['qiskit_aer'] = None\n"
        "from saccade.quantum import Circuit, from_qiskit\n"
        "c = Circuit(3).ccx(0, 1, 2).iswap(0, 1).rx(0, 'a'); c.program(); c.to_qasm3()\n"
        "try: c.to_qiskit()\n"
        "except ImportError as e: print(e)\n"
        "try: from_qiskit(None)\n"
        "except ImportError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count('pip install "saccade[quantum]"') == 2


def test_unitaries() -> None:
    matrix = random_unitary(2, 0)
    circuit = Circuit(2).x(1).unitary(matrix, (1, 0))
    # wires (1, 0) hold |10>
    column = torch.from_numpy(matrix)[:, 2].reshape(2, 2).T.reshape(-1)
    close(state(circuit, bit_order="big")[0], column)
