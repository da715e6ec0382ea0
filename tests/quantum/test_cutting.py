"""Cutting: equal to the uncut circuit for every gate, to qiskit-addon-cutting, and on average."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from samples import ONE_GATE, random_unitary, values

from saccade.quantum import Circuit, cut, feature, param
from saccade.quantum._kak import PAULI, kak
from saccade.quantum._operation import constant_matrix
from saccade.quantum._reconstruct import Evaluation
from saccade.quantum.circuit import make

# largest difference of an expectation value
TOLERANCE = {torch.complex64: 1e-6, torch.complex128: 1e-10}
WORDS = ["ZII", "IXY", "YZX", "III", {"ZZZ": 0.5, "XIX": -2.0, "IYI": 0.3}]


def between(middle, n: int = 3) -> Circuit:
    circuit = Circuit(n)
    for wire in range(n):
        circuit.u(wire, 0.4 + 0.5 * wire, 0.8 - wire, 0.3 * wire)
    middle(circuit)
    for wire in range(n):
        circuit.u(wire, 0.9 - 0.3 * wire, 0.2 * wire, 0.6)
    return circuit


def gate(name: str) -> Circuit:
    wires, angles = ONE_GATE[name]
    numbers = (0.3 + 0.9 * i for i in range(angles))
    return between(lambda c: getattr(c, name)(*range(wires), *numbers))


def symbolic(c: Circuit) -> None:
    c.crx(0, 1, "a").cu3(1, 0, "b", feature(0), param("a") + 0.3)
    c.rzz(0, 1, feature(0) - 2 * param("a")).cp(2, 0, feature(1))


def wires(c: Circuit) -> None:
    c.cx(0, 1).cut_wire(1).u(1, 0.2, "a", 0.4).cx(1, 2)


def both(c: Circuit) -> None:
    c.crz(0, 1, "a").cut_wire(1).ry(1, feature(0)).cx(1, 2).cut_wire(1).cz(0, 1).rzz(1, 2, 0.3)


# name: circuit, labels, number of cuts, gammas
CASES = {
    **{
        f"{name}": (gate(name), "ABB", 1, None)
        for name, (count, _) in ONE_GATE.items()
        if count > 1
    },
    **{f"{name}-target": (gate(name), "AAB", 1, None) for name in ("ccx", "ccz")},
    "cswap-target": (gate("cswap"), "AAB", 3, [3, 3, 3]),
    **{
        f"unitary-{k}": (
            between(lambda c, k=k: c.unitary(random_unitary(2, k), (2, 0))),
            "ABB",
            1,
            None,
        )
        for k in range(3)
    },
    "unitary-controlled": (
        between(lambda c: c.gate("unitary", 2, controls=(0,), matrix=random_unitary(1, 1))),
        "ABB",
        1,
        None,
    ),
    "word": (between(lambda c: c.pauli_rot("XYZ", (2, 0, 1), "a")), "AAB", 1, [3]),
    "word-controlled": (
        between(lambda c: c.gate("pauli_rot", (1, 2), 0.7, controls=(0,), pauli="XY")),
        "ABB",
        1,
        [1 + 2 * math.sin(0.35)],
    ),
    "rx-controls": (
        between(lambda c: c.gate("rx", 2, "a", controls=(0, 1))),
        "AAB",
        1,
        [3],
    ),
    "rx-controls-apart": (between(lambda c: c.gate("rx", 2, 0.8, controls=(0, 1))), "ABB", 2, None),
    "symbolic": (between(symbolic), "ABA", 4, [3] * 4),
    "inside": (between(lambda c: c.cx(0, 1).cx(1, 2)), "AAA", 0, []),
    "components": (between(lambda c: c.cx(0, 1)), None, 0, []),
    "wire": (between(wires), None, 1, [4]),
    "wire-same-part": (between(wires), "AAA", 1, [4]),
    "wire-and-gates": (
        between(both),
        ["A", ("A", "B", "A"), "B"],
        3,
        [4, 4, 1 + 2 * math.sin(0.3)],
    ),
    "wire-first": (Circuit(3).cut_wire(0).h(0).cx(0, 1).cx(1, 2).ry(2, 0.3), None, 1, [4]),
    "wire-last": (between(lambda c: c.cx(0, 2)).cut_wire(2), None, 1, [4]),
    "three-parts": (between(lambda c: c.cx(0, 1).cz(1, 2).rzz(0, 2, 0.4)), "ABC", 3, None),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_cut_equals_uncut(name: str, dtype: torch.dtype) -> None:
    circuit, labels, count, gammas = CASES[name]
    params, inputs = values(circuit, 2)
    pieces = cut(circuit, labels)
    assert len(pieces.cuts) == count
    if gammas is not None:
        assert [c.gamma for c in pieces.cuts] == pytest.approx(gammas)
    expected = circuit.expval(params, inputs, WORDS, dtype=torch.complex128)
    got = pieces.expval(params, inputs, WORDS, dtype=dtype)
    torch.testing.assert_close(got.double(), expected, atol=TOLERANCE[dtype], rtol=0)
    for part in pieces.parts:
        assert "Circuit" in repr(pieces)
        assert len(part.pieces) == pieces.sizes[part.label]


@pytest.mark.parametrize(
    ("middle", "gamma", "terms"),
    [
        (lambda c: c.cx(0, 1), 3, 6),
        (lambda c: c.cz(0, 1), 3, 6),
        (lambda c: c.ecr(0, 1), 3, 6),
        (lambda c: c.ccx(0, 1, 2), 3, 6),
        (lambda c: c.crx(0, 1, 0.7), 1.6858, 6),
        (lambda c: c.rzz(0, 1, 0.7), 2.2884, 6),
        (lambda c: c.cp(0, 1, 0.7), 1.6858, 6),
        (lambda c: c.rzz(0, 1, math.pi), 1, 6),
        (lambda c: c.swap(0, 1), 7, 34),
        (lambda c: c.iswap(0, 1), 7, 30),
        (lambda c: c.rzz(0, 1, "a"), 3, 6),
        (lambda c: c.cut_wire(0), 4, 8),
    ],
    ids=["cx", "cz", "ecr", "ccx", "crx", "rzz", "cp", "rzz-pi", "swap", "iswap", "param", "wire"],
)
def test_overheads(middle, gamma: float, terms: int) -> None:
    circuit = Circuit(3)
    middle(circuit)
    (only,) = cut(circuit, None if terms == 8 else "ABB").cuts
    assert only.gamma == pytest.approx(gamma, abs=1e-4)
    assert len(only.terms) == terms


def test_numbers_of_a_cut_circuit() -> None:
    pieces = cut(Circuit(4).cx(0, 1).cx(1, 2).cx(2, 3).rzz(0, 3, 0.7), "AABB")
    assert pieces.sizes == {"A": 2, "B": 2}
    assert pieces.overhead == pytest.approx(9 * 2.28844**2, rel=1e-4)
    assert (pieces.num_subexperiments, pieces.num_variants) == (2 * 36, 2 * 16)
    angles = cut(Circuit(2).rzz(0, 1, feature(0)).crx(0, 1, "a"), "AB")
    x = torch.tensor([[0.7], [0.1]], dtype=torch.float64)
    found = angles.gammas(torch.tensor([0.7], dtype=torch.float64), x)
    other = 1 + 2 * math.sin(0.35)
    expected = [[1 + 2 * math.sin(0.7), other], [1 + 2 * math.sin(0.1), other]]
    np.testing.assert_allclose(found, expected)


def test_eight_qubits_on_five() -> None:
    circuit = Circuit(8).angle_encoding()
    for wire in range(7):
        circuit.cx(wire, wire + 1)
        if wire == 3:
            circuit.cut_wire(4)
    for wire in range(8):
        circuit.ry(wire, f"w{wire}")
    pieces = cut(circuit)
    assert max(pieces.sizes.values()) == 5
    params, inputs = values(circuit, 4)
    words = ["I" * w + "Z" + "I" * (7 - w) for w in range(8)]
    expected = circuit.expval(params, inputs, words)
    torch.testing.assert_close(pieces.expval(params, inputs, words), expected, atol=2e-6, rtol=0)


def slopes(run, params, inputs):
    p, x = params.clone().requires_grad_(), inputs.clone().requires_grad_()
    value = run(p, x)
    weights = torch.arange(1.0, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    return torch.autograd.grad((value * weights).sum(), (p, x))


@pytest.mark.parametrize("name", ["symbolic", "wire-and-gates"])
def test_gradients_are_those_of_the_uncut_circuit(name: str) -> None:
    circuit, labels, *_ = CASES[name]
    params, inputs = values(circuit, 2)
    pieces = cut(circuit, labels)
    options = {"dtype": torch.complex128}
    expected = slopes(lambda p, x: circuit.expval(p, x, WORDS, **options), params, inputs)
    got = slopes(lambda p, x: pieces.expval(p, x, WORDS, **options), params, inputs)
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


def test_gradcheck() -> None:
    circuit = between(lambda c: c.rzz(0, 1, "a").crx(1, 2, feature(0)).ry(1, "b"))
    pieces = cut(circuit, "ABB")
    params, inputs = values(circuit, 2)

    def run(p, x):
        return pieces.expval(p, x, ["ZZI", "XIY"], dtype=torch.complex128)

    assert torch.autograd.gradcheck(run, (params.requires_grad_(), inputs.requires_grad_()))


@pytest.mark.parametrize("name", ["symbolic", "wire-and-gates", "swap", "unitary-0"])
def test_the_terms_sum_up_to_the_exact_value(name: str) -> None:
    """The way of the sampled mode, with every term once."""
    circuit, labels, *_ = CASES[name]
    if name == "symbolic":
        circuit = between(lambda c: c.crx(0, 1, "a").rzz(1, 0, feature(0)))
        labels = "ABA"
    params, inputs = values(circuit, 2)
    pieces = cut(circuit, labels)
    words = ["ZII", "IXY", "YZX"]
    run = Evaluation(pieces, params, inputs, words, torch.complex128, {})
    chosen, weights = run.draw(None, None)
    assert len(chosen) == math.prod(len(c.terms) for c in pieces.cuts)
    torch.testing.assert_close(
        run.some(chosen, weights, None, None), run.exact(), atol=1e-10, rtol=0
    )


def test_sampled_terms_are_right_on_average() -> None:
    circuit = between(lambda c: c.cx(0, 1).rzz(0, 2, "a"))
    pieces = cut(circuit, "ABB")
    params, _ = values(circuit)
    params = params.requires_grad_()
    generator = torch.Generator().manual_seed(3)
    exact = pieces.expval(params, None, ["ZZI", "XIY"], dtype=torch.complex128)
    (slope,) = torch.autograd.grad(exact.sum(), params)
    runs, rate = [], []
    for _ in range(40):
        value = pieces.expval(
            params, None, ["ZZI", "XIY"], dtype=torch.complex128, num_samples=100,
            generator=generator,
        )  # fmt: skip
        runs.append(value.detach())
        rate += torch.autograd.grad(value.sum(), params)
    for found, target in ((torch.stack(runs), exact), (torch.stack(rate), slope)):
        error = found.std(0) / math.sqrt(40)
        assert (error > 0).all()
        assert ((found.mean(0) - target).abs() < 4 * error).all()
    # gamma / sqrt(samples) bounds the error of one run
    assert torch.stack(runs).std(0).max() < math.sqrt(pieces.overhead / 100)


def test_shots_are_right_on_average() -> None:
    circuit = between(lambda c: c.cx(0, 1))
    pieces = cut(circuit, "ABB")
    words = ["ZZI", "XIY"]
    exact = pieces.expval(observables=words)
    generator = torch.Generator().manual_seed(3)
    runs = torch.stack(
        [
            pieces.expval(observables=words, shots=400, generator=generator, num_samples=number)
            for number in (None, 50)
            for _ in range(30)
        ]
    )
    for found in runs.chunk(2):
        error = found.std(0) / math.sqrt(30)
        assert ((found.mean(0) - exact).abs() < 4 * error).all()
    again = torch.Generator().manual_seed(3)
    first = pieces.expval(observables=words, shots=400, generator=again)
    torch.testing.assert_close(first, runs[0], atol=0, rtol=0)


@pytest.mark.parametrize(
    "case",
    [
        (lambda c: c.cx(1, 2), "AABB"),
        (lambda c: c.rzz(1, 2, 0.7).cx(0, 1), "AABB"),
        (lambda c: c.crx(1, 2, 0.7).cz(2, 1).swap(0, 1), "AABB"),
    ],
    ids=["cx", "rzz", "two"],
)
def test_addon_gives_the_same(case) -> None:
    addon = pytest.importorskip("qiskit_addon_cutting")
    from qiskit.quantum_info import PauliList
    from qiskit_addon_cutting.utils.simulation import ExactSampler

    middle, labels = case
    circuit = between(middle, 4)
    words = ["ZZZZ", "ZIIZ"]
    problem = addon.partition_problem(
        circuit=circuit.to_qiskit(),
        partition_labels=labels,
        observables=PauliList([word[::-1] for word in words]),
    )
    experiments, coefficients = addon.generate_cutting_experiments(
        circuits=problem.subcircuits, observables=problem.subobservables, num_samples=np.inf
    )
    results = {
        label: ExactSampler().run(list(group)).result() for label, group in experiments.items()
    }
    theirs = addon.reconstruct_expectation_values(results, coefficients, problem.subobservables)
    pieces = cut(circuit, labels)
    ours = pieces.expval(observables=words, dtype=torch.complex128)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-10)
    assert pieces.num_subexperiments == sum(map(len, experiments.values()))
    overhead = math.prod(basis.overhead for basis in problem.bases)
    assert pieces.overhead == pytest.approx(overhead)


def test_addon_cuts_wires_alike() -> None:
    addon = pytest.importorskip("qiskit_addon_cutting")
    from qiskit.quantum_info import PauliList
    from qiskit_addon_cutting.instructions import CutWire
    from qiskit_addon_cutting.utils.simulation import ExactSampler

    circuit = between(lambda c: c.cx(0, 1).cut_wire(1).ry(1, 0.3).cx(1, 2))
    marked = between(lambda c: c.cx(0, 1).barrier().ry(1, 0.3).cx(1, 2)).to_qiskit()
    (at,) = [k for k, step in enumerate(marked.data) if step.operation.name == "barrier"]
    marked.data[at] = marked.data[at].replace(operation=CutWire(), qubits=[marked.qubits[1]])
    words = ["ZZZ", "IXY", "ZII"]
    labels = PauliList([word[::-1] for word in words])
    whole = addon.cut_wires(marked)
    observables = addon.expand_observables(labels, marked, whole)
    problem = addon.partition_problem(circuit=whole, observables=observables)
    experiments, coefficients = addon.generate_cutting_experiments(
        circuits=problem.subcircuits, observables=problem.subobservables, num_samples=np.inf
    )
    results = {k: ExactSampler().run(list(group)).result() for k, group in experiments.items()}
    theirs = addon.reconstruct_expectation_values(results, coefficients, problem.subobservables)
    pieces = cut(circuit)
    ours = pieces.expval(observables=words, dtype=torch.complex128)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-10)
    assert pieces.overhead == pytest.approx(math.prod(b.overhead for b in problem.bases))


@pytest.mark.parametrize("seed", range(3))
def test_overheads_of_matrices_are_the_addons(seed: int) -> None:
    qpd = pytest.importorskip("qiskit_addon_cutting.qpd")
    from qiskit.circuit.library import UnitaryGate

    matrix = random_unitary(2, seed)
    basis = qpd.QPDBasis.from_instruction(UnitaryGate(matrix))
    (only,) = cut(Circuit(2).unitary(matrix, (1, 0)), "AB").cuts
    assert only.gamma == pytest.approx(basis.kappa)


@pytest.mark.parametrize("name", ["cx", "swap", "iswap", "ecr", "id", "local", *"0123456789"])
def test_kak(name: str) -> None:
    if name.isdigit():
        matrix = torch.from_numpy(random_unitary(2, int(name)))
    elif name == "id":
        matrix = torch.eye(4, dtype=torch.complex128)
    elif name == "local":
        one, two = (torch.from_numpy(random_unitary(1, k)) for k in range(2))
        matrix = torch.kron(one, two)
    else:
        matrix = constant_matrix(make(name, (0, 1)))
    (a1, a2), weights, (b1, b2) = kak(matrix)
    middle = sum(u * torch.kron(PAULI[p], PAULI[p]) for p, u in weights.items())
    found = torch.kron(a1, a2) @ middle @ torch.kron(b1, b2)
    overlap = torch.trace(found.mH @ matrix) / 4
    assert abs(overlap) == pytest.approx(1, abs=1e-12)
    assert sum(abs(u) ** 2 for u in weights.values()) == pytest.approx(1, abs=1e-12)
    for factor in (a1, a2, b1, b2):
        torch.testing.assert_close(factor @ factor.mH, torch.eye(2, dtype=factor.dtype))


def many() -> Circuit:
    circuit = Circuit(2)
    for _ in range(12):
        circuit.cx(0, 1)
    return circuit


@pytest.mark.parametrize(
    ("run", "error", "sentence"),
    [
        (lambda: cut(Circuit(2), "ABC"), ValueError, "labels must be 2, one a wire, got 3"),
        (
            lambda: cut(Circuit(2).cut_wire(0), [("A", "B", "C"), "A"]),
            ValueError,
            "labels\\[0\\] must be one label or 2",
        ),
        (lambda: cut(Circuit(3).ccx(0, 1, 2), "ABC"), NotImplementedError, "two subcircuits"),
        (
            lambda: cut(Circuit(3).unitary(random_unitary(3, 0), (0, 1, 2)), "ABB"),
            NotImplementedError,
            "must have 2 wires",
        ),
        (lambda: cut(Circuit(2).amplitude_encoding(), "AB"), NotImplementedError, "amplitude"),
        (lambda: cut(Circuit(2).rx(0, "a"), "AB").expval(), ValueError, "shape \\(1,\\), got None"),
        (
            lambda: cut(Circuit(2).rx(0, feature(1)), "AB").expval(None, torch.ones(3)),
            ValueError,
            "shape \\(B, 2\\), got \\(3,\\)",
        ),
        (
            lambda: cut(Circuit(2), "AB").expval(observables=["ZZ"], num_samples=0),
            ValueError,
            "num_samples must be at least 1, got 0",
        ),
        (lambda: cut(Circuit(2), "AB").expval(observables=["Z"]), ValueError, "each of 2 wires"),
        (lambda: cut(many(), "AB").expval(observables=["ZZ"]), ValueError, "give num_samples"),
        (
            lambda: cut(many(), "AB").expval(observables=["ZZ"], shots=1),
            ValueError,
            "give num_samples",
        ),
    ],
)
def test_bad_input(run, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        run()


def test_many_cuts_can_be_sampled() -> None:
    found = cut(many(), "AB").expval(observables=["ZZ"], num_samples=20)
    assert found.shape == (1, 1)
    assert torch.isfinite(found).all()


def test_empty() -> None:
    pieces = cut(Circuit(2).cx(0, 1).rx(0, feature(0)), "AB")
    assert pieces.expval(None, torch.zeros(0, 1), ["ZZ"]).shape == (0, 1)
    assert pieces.expval(None, torch.zeros(2, 1), []).shape == (2, 0)
