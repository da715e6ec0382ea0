"""Expectation values by Qiskit's primitives, against the operator: values and shift gradients."""

from __future__ import annotations

import math

import pytest
import torch
from samples import random_unitary, values

from saccade.quantum import Circuit, PrimitiveExecutor, QuantumLayer, feature, param
from saccade.quantum.executors import commuting

primitives = pytest.importorskip("qiskit.primitives")

WORDS = ["ZII", "XXI", {"IYZ": 0.5, "III": 2.0, "ZZZ": -1.0}]


def every_angle() -> Circuit:
    circuit = Circuit(3).angle_encoding().cx(0, 1).ecr(1, 2).iswap(0, 2)
    circuit.u(0, "a", 0.3, feature(0)).crx(0, 1, "b").cu3(1, 2, "a", 0.2, 2 * param("b") + 0.1)
    circuit.pauli_rot("XYZ", (2, 0, 1), "a").cp(0, 2, -1 * feature(1)).global_phase("a")
    circuit.unitary(random_unitary(2, 0), (2, 0)).gate("rz", 0, "b", controls=(1, 2))
    return circuit


def estimator():
    return primitives.StatevectorEstimator()


def aer():
    pytest.importorskip("qiskit_aer")
    return None


def slopes(run, params, inputs):
    p, x = params.clone().requires_grad_(), inputs.clone().requires_grad_()
    value = run(p, x)
    weights = torch.arange(1.0, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    return value.detach(), *torch.autograd.grad((value * weights).sum(), (p, x))


def test_estimator_with_gradients() -> None:
    circuit = every_angle()
    params, inputs = values(circuit, 2)
    expected = slopes(
        lambda p, x: circuit.expval(p, x, WORDS, dtype=torch.complex128), params, inputs
    )
    run = PrimitiveExecutor(estimator())
    got = slopes(
        lambda p, x: run(circuit.program(), p, x, WORDS, dtype=torch.complex128), params, inputs
    )
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("make", [estimator, aer])
def test_values(make) -> None:
    circuit = every_angle()
    params, inputs = values(circuit, 2)
    run = PrimitiveExecutor(make())
    got = run(circuit.program(), params.float(), inputs.float(), WORDS)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, circuit.expval(params, inputs, WORDS), atol=1e-5, rtol=0)


def test_aer_gradient_is_minus_sine() -> None:
    pytest.importorskip("qiskit_aer")
    t = torch.tensor([0.5], requires_grad=True)
    value = PrimitiveExecutor()(Circuit(1).ry(0, "t"), t, None, ["Z"])
    value.sum().backward()
    assert value.item() == pytest.approx(math.cos(0.5), abs=1e-6)
    assert t.grad.item() == pytest.approx(-math.sin(0.5), abs=1e-6)


def test_sampler() -> None:
    circuit = every_angle()
    params, inputs = values(circuit, 2)
    run = PrimitiveExecutor(primitives.StatevectorSampler(seed=1), shots=4000)
    got = run(circuit, params, inputs, WORDS, grad="none")
    assert not got.requires_grad
    error = 4 * 3 / math.sqrt(4000)
    torch.testing.assert_close(got, circuit.expval(params, inputs, WORDS), atol=error, rtol=0)


def test_a_pass_manager_moves_qubits() -> None:
    from qiskit.transpiler import CouplingMap, generate_preset_pass_manager

    manager = generate_preset_pass_manager(
        2,
        coupling_map=CouplingMap.from_line(5),
        basis_gates=["sx", "rz", "cz"],
        initial_layout=[4, 1, 2],
        seed_transpiler=1,
    )
    circuit = Circuit(3).h(0).cx(0, 1).crx(1, 2, "a").ry(0, feature(0))
    params, inputs = values(circuit, 2)
    expected = circuit.expval(params, inputs, WORDS)
    run = PrimitiveExecutor(estimator(), pass_manager=manager)
    torch.testing.assert_close(run(circuit, params, inputs, WORDS), expected, atol=1e-5, rtol=0)
    sampler = primitives.StatevectorSampler(seed=1)
    run = PrimitiveExecutor(sampler, shots=4000, pass_manager=manager)
    torch.testing.assert_close(run(circuit, params, inputs, WORDS), expected, atol=0.2, rtol=0)


def test_amplitudes_are_prepared() -> None:
    circuit = Circuit(2).amplitude_encoding().cx(0, 1).ry(0, param(0))
    params, inputs = values(circuit, 3)
    expected = circuit.expval(params, inputs, ["ZI", "XX"])
    run = PrimitiveExecutor(estimator())
    got = run(circuit, params, inputs, ["ZI", "XX"])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    inputs.requires_grad_()
    with pytest.raises(NotImplementedError, match="no gradient to state"):
        run(circuit, params, inputs, ["ZI"])


@pytest.mark.parametrize("make", [estimator, lambda: primitives.StatevectorSampler(seed=1)])
def test_without_parameters(make) -> None:
    run = PrimitiveExecutor(make())
    bell = Circuit(2).h(0).cx(0, 1)
    assert run(bell, None, torch.zeros(3, 0), ["ZZ", "XX"]).tolist() == [[1.0, 1.0]] * 3
    assert run(bell, observables=[]).shape == (1, 0)
    assert run(Circuit(1).rx(0, feature(0)), None, torch.zeros(0, 1), ["Z"]).shape == (0, 1)


def test_leading_axes_are_the_batch() -> None:
    circuit = Circuit(2).ry(0, feature(0)).crx(0, 1, "a")
    params, inputs = values(circuit, 6)
    run = PrimitiveExecutor(estimator())
    flat = run(circuit, params, inputs, ["ZI", "IY"])
    stacked = run(circuit, params, inputs.reshape(2, 3, 1), ["ZI", "IY"])
    assert torch.equal(stacked.flatten(0, 1), flat)
    assert torch.equal(run(circuit, params, inputs[0], ["ZI", "IY"]), flat[0])


def test_a_layer_takes_an_executor() -> None:
    circuit = Circuit(2).angle_encoding().crx(0, 1, "a").ry(0, "b")
    x = torch.rand(3, 2)
    layers = [
        QuantumLayer(circuit, generator=torch.Generator().manual_seed(1), executor=executor)
        for executor in (None, PrimitiveExecutor(estimator()))
    ]
    outs = [layer(x) for layer in layers]
    torch.testing.assert_close(outs[1], outs[0], atol=1e-5, rtol=0)
    for out in outs:
        out.square().sum().backward()
    torch.testing.assert_close(layers[1].weight.grad, layers[0].weight.grad, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="no amplitude encoding"):
        QuantumLayer(Circuit(2).amplitude_encoding())


def test_programs_are_prepared_once() -> None:
    run = PrimitiveExecutor(estimator())
    bell = Circuit(2).h(0).cx(0, 1)
    run(bell, observables=["ZZ"])
    (kept,) = run._prepared.values()
    run(Circuit(2).h(0).cx(0, 1), observables=["ZZ"])
    assert run._prepared[bell.program()] is kept
    assert list(kept.compiled) == [""]


def test_words_that_commute_share_a_basis() -> None:
    groups = commuting(["ZI", "IX", "ZZ", "XX", "II"])
    assert groups == [("ZX", ["ZI", "IX", "II"]), ("ZZ", ["ZZ"]), ("XX", ["XX"])]


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: PrimitiveExecutor(3), TypeError, "an EstimatorV2 or a SamplerV2, got int"),
        (
            lambda: PrimitiveExecutor(estimator())(Circuit(1).rx(0, "a"), None, None, ["Z"]),
            ValueError,
            "params must have shape \\(1,\\), got None",
        ),
        (
            lambda: PrimitiveExecutor(estimator())(Circuit(1).rx(0, "a"), torch.ones(2)),
            ValueError,
            "params must have shape \\(1,\\), got \\(2,\\)",
        ),
        (
            lambda: PrimitiveExecutor(estimator())(Circuit(1), None, torch.ones(2)),
            ValueError,
            "inputs must have shape \\[..., 0\\], got \\(2,\\)",
        ),
    ],
)
def test_bad_input(call, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()
