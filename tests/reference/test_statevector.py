"""The reference against Qiskit and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from saccade.ops._statevector_program import Program, fixed_angle, instruction, param_angle
from saccade.reference import statevector, statevector_expval

from ..ops.statevector_circuits import random_program, random_values

C128 = torch.complex128


@pytest.mark.parametrize("n", range(1, 13))
def test_random_circuits_over_every_gate_have_the_states_of_qiskit(n: int) -> None:
    pytest.importorskip("qiskit")
    from ..ops.statevector_circuits import qiskit_state

    program = random_program(n, 90, seed=n)
    params, inputs = random_values(2, seed=n)
    for order in ("little", "big"):
        psi = statevector(program, params, inputs, None, C128, order)
        for b in range(2):
            expected = torch.from_numpy(qiskit_state(program, params, inputs[b]))
            if order == "big":
                expected = expected.reshape((2,) * n).permute(*reversed(range(n))).reshape(-1)
            torch.testing.assert_close(psi[b], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("x", [0.0, 0.7, -2.5])
def test_a_rotated_qubit_has_the_expectation_cos_x_and_the_derivative_minus_sin_x(x: float) -> None:
    params = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    program = Program(1, (instruction("ry", 0, param_angle(0)),))
    value = statevector_expval(program, params, None, (((1.0, "Z"),),), None, C128)
    (slope,) = torch.autograd.grad(value.sum(), params)
    assert value.item() == pytest.approx(math.cos(x), abs=1e-15)
    assert slope.item() == pytest.approx(-math.sin(x), abs=1e-15)


def test_the_fourier_transform_is_its_matrix() -> None:
    n = 4
    steps = []
    for a in range(n):
        steps.append(instruction("h", a))
        steps += [
            instruction("cp", (b, a), fixed_angle(math.pi / 2 ** (b - a))) for b in range(a + 1, n)
        ]
    steps += [instruction("swap", (q, n - 1 - q)) for q in range(n // 2)]
    basis = torch.eye(2**n, dtype=C128)
    out = statevector(Program(n, tuple(steps)), None, None, basis, C128)
    k = torch.arange(2**n, dtype=torch.float64)
    angle = 2 * math.pi * torch.outer(k, k) / 2**n
    torch.testing.assert_close(out, torch.complex(angle.cos(), angle.sin()) / 2 ** (n / 2))


def test_the_expectation_of_pauli_sums_is_that_of_their_matrices() -> None:
    n = 3
    program, (params, inputs) = random_program(n, 40, seed=5), random_values(2, seed=5)
    one = {
        "I": torch.eye(2, dtype=C128),
        "X": torch.tensor([[0, 1], [1, 0]], dtype=C128),
        "Y": torch.tensor([[0, -1j], [1j, 0]], dtype=C128),
        "Z": torch.tensor([[1, 0], [0, -1]], dtype=C128),
    }
    sums = (((0.5, "XYZ"), (-1.5, "ZIY")), ((2.0, "IXI"),), ())
    values = statevector_expval(program, params, inputs, sums, None, C128)
    psi = statevector(program, params, inputs, None, C128)
    for k, terms in enumerate(sums):
        dense = torch.zeros(2**n, 2**n, dtype=C128)
        for coefficient, word in terms:
            a, b, c = (one[letter] for letter in word)
            dense += coefficient * torch.kron(torch.kron(a, b), c)
        expected = torch.einsum("bi,ij,bj->b", psi.conj(), dense, psi).real
        torch.testing.assert_close(values[:, k], expected)
