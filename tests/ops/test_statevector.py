"""The kernels against the reference: states, expectation values and every gradient."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import (
    Program,
    instruction,
    param_angle,
    pauli_sums,
    probabilities,
    sample,
    statevector,
    statevector_expval,
)

from .statevector_circuits import (
    N_INPUTS,
    N_PARAMS,
    NAMES,
    inverse,
    random_program,
    random_state,
    random_sums,
    random_values,
    ring,
)

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

# absolute: amplitudes are at most 1
TOLERANCE = {torch.complex64: 2e-5, torch.complex128: 1e-11}
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class Case(NamedTuple):
    n: int
    batch: int
    dtype: torch.dtype
    start: bool = False
    order: str = "big"


CASES = [
    Case(n, batch, dtype, start=(n + batch) % 2 == 0, order=("big", "little")[n % 2])
    for dtype in (torch.complex64, torch.complex128)
    for n, batch in [
        (1, 1), (1, 7), (2, 3), (3, 1), (4, 16), (5, 2), (6, 33), (7, 1), (8, 1), (8, 17), (9, 2),
        (10, 1), (11, 3), (12, 1), (13, 2), (14, 1),
    ]
]  # fmt: skip


def name(case: Case) -> str:
    start = "given" if case.start else "zero"
    return f"n{case.n}-B{case.batch}-{str(case.dtype)[6:]}-{start}-{case.order}"


def draw(case: Case) -> tuple[Program, Tensor, Tensor, Tensor | None]:
    program = random_program(case.n, 75 if case.n < 12 else 45, seed=case.n * 100 + case.batch)
    params, inputs = random_values(case.batch, seed=case.n, dtype=REAL[case.dtype])
    state = random_state(case.batch, case.n, seed=1).to(case.dtype) if case.start else None
    return program, params, inputs, state


def leaves(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.clone().requires_grad_() for t in tensors]


def gradients(loss: Tensor, inputs: list[Tensor | None]) -> list[Tensor]:
    used = [t for t in inputs if t is not None]
    return list(torch.autograd.grad(loss, used, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_states_and_their_gradients(case: Case) -> None:
    program, *tensors = draw(case)
    results = []
    weight = random_state(case.batch, case.n, seed=3).to(case.dtype)
    for backend in ("cpu", "reference"):
        own = leaves(*tensors)
        psi = statevector(
            program, own[0], own[1], state=own[2], dtype=case.dtype, bit_order=case.order,
            backend=backend,
        )  # fmt: skip
        loss = (weight.conj() * psi).sum().real + (weight * psi * psi).sum().imag
        results.append([psi.detach(), *gradients(loss, own)])
    tolerance = TOLERANCE[case.dtype]
    for k, (got, expected) in enumerate(zip(*results, strict=True)):
        atol = tolerance if k == 0 else 20 * tolerance
        torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_expectation_values_and_their_gradients(case: Case) -> None:
    program, *tensors = draw(case)
    sums = random_sums(case.n, 3, seed=case.n)
    results = []
    weight = torch.randn(case.batch, 3, generator=torch.Generator().manual_seed(4))
    for backend in ("cpu", "reference"):
        own = leaves(*tensors)
        values = statevector_expval(
            program, own[0], own[1], sums, state=own[2], dtype=case.dtype, backend=backend
        )
        loss = (weight.to(values.dtype) * values).sum()
        results.append([values.detach(), *gradients(loss, own)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=20 * TOLERANCE[case.dtype])


# 1000 gates round 1000 times
DRIFT = {torch.complex64: 1e-5, torch.complex128: 1e-12}


@pytest.mark.parametrize("dtype", DRIFT, ids=str)
@pytest.mark.parametrize("n", [4, 7, 10])
def test_the_norm_after_1000_gates(n: int, dtype: torch.dtype) -> None:
    program = random_program(n, 1000, seed=n)
    params, inputs = random_values(5, seed=n, dtype=REAL[dtype])
    psi = statevector(program, params, inputs, dtype=dtype, backend="cpu")
    norms = psi.to(torch.complex128).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=DRIFT[dtype])


@pytest.mark.parametrize("dtype", DRIFT, ids=str)
@pytest.mark.parametrize("n", [1, 4, 7, 10])
def test_a_circuit_and_its_inverse_give_the_initial_state(n: int, dtype: torch.dtype) -> None:
    program = random_program(n, 150, seed=n)
    both = Program(n, program.instructions + inverse(program).instructions, N_PARAMS, N_INPUTS)
    params, inputs = random_values(5, seed=n, dtype=REAL[dtype])
    state = random_state(5, n, seed=n).to(dtype)
    psi = statevector(both, params, inputs, state=state, dtype=dtype, backend="cpu")
    torch.testing.assert_close(psi, state, rtol=0, atol=DRIFT[dtype])
    from_zero = statevector(both, params, inputs, dtype=dtype, backend="cpu")
    expected = torch.zeros_like(from_zero)
    expected[:, 0] = 1
    torch.testing.assert_close(from_zero, expected, rtol=0, atol=DRIFT[dtype])


@pytest.mark.parametrize("gate", NAMES)
@pytest.mark.parametrize("n", [4, 7], ids=["samples", "amplitudes"])
def test_every_gate_alone(gate: str, n: int) -> None:
    """With a layer before it and one behind, on one sample and on lanes of samples."""
    batch = 9 if n == 4 else 1
    around = ring(n, 1).instructions
    middle = random_program(n, 4, seed=2, names=[gate]).instructions
    program = Program(n, (*around, *middle, *around), 3 * n, n)
    seed = torch.Generator().manual_seed(7)
    params = torch.randn(3 * n, generator=seed, dtype=torch.float64)
    inputs = torch.randn(batch, n, generator=seed, dtype=torch.float64)
    results = []
    for backend in ("cpu", "reference"):
        own = leaves(params, inputs)
        values = statevector_expval(
            program, own[0], own[1], random_sums(n, 2, seed=1), dtype=torch.complex128,
            backend=backend,
        )  # fmt: skip
        results.append([values.detach(), *gradients(values.square().sum(), own)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("n", range(1, 13))
def test_states_are_those_of_qiskit(n: int) -> None:
    pytest.importorskip("qiskit")
    from .statevector_circuits import qiskit_state

    program = random_program(n, 60, seed=50 + n)
    params, inputs = random_values(1, seed=n)
    expected = torch.from_numpy(qiskit_state(program, params, inputs[0]))
    for dtype, tolerance in TOLERANCE.items():
        psi = statevector(program, params, inputs, dtype=dtype, bit_order="little", backend="cpu")
        torch.testing.assert_close(psi[0].to(torch.complex128), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("n", [3, 6, 10])
def test_gradients_are_those_of_the_parameter_shift(n: int) -> None:
    """Every parameter is in one rotation: its derivative is a difference of two values."""
    program = ring(n, 2)
    seed = torch.Generator().manual_seed(n)
    params = torch.randn(6 * n, generator=seed, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(1, n, generator=seed, dtype=torch.float64)
    sums = random_sums(n, 1, seed=n)

    def value(p: Tensor) -> Tensor:
        return statevector_expval(
            program, p, inputs.expand(len(p) if p.dim() > 1 else 1, n), sums,
            dtype=torch.complex128, backend="cpu",
        ).sum()  # fmt: skip

    (got,) = torch.autograd.grad(value(params), params)
    half = torch.pi / 2
    with torch.no_grad():
        shifts = half * torch.eye(6 * n, dtype=torch.float64)
        expected = torch.stack([(value(params + s) - value(params - s)) / 2 for s in shifts])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 6])
@pytest.mark.parametrize("start", [False, True], ids=["zero", "given"])
def test_gradcheck(n: int, start: bool) -> None:
    program = random_program(n, 40, seed=9)
    params, inputs = random_values(2, seed=8)
    state = random_state(2, n, seed=8) if start else None
    sums = random_sums(n, 2, seed=8)
    own = leaves(params, inputs, state)

    def values(p: Tensor, x: Tensor, s: Tensor | None) -> Tensor:
        return statevector_expval(
            program, p, x, sums, state=s, dtype=torch.complex128, backend="cpu"
        )

    def psi(p: Tensor, x: Tensor, s: Tensor | None) -> Tensor:
        return statevector(program, p, x, state=s, dtype=torch.complex128, backend="cpu")

    torch.autograd.gradcheck(values, own, fast_mode=True)
    torch.autograd.gradcheck(psi, own, fast_mode=True)


@pytest.mark.parametrize("n", [3, 11])
def test_probabilities_of_some_wires(n: int) -> None:
    program, (params, inputs) = random_program(n, 40, seed=3), random_values(2, seed=3)
    options = {"dtype": torch.complex128}
    psi = reference.statevector(program, params, inputs, None, torch.complex128)
    full = psi.abs().square().reshape(2, *(2,) * n)
    for wires in ([0], [n - 1, 0], list(range(n))):
        rest = [w + 1 for w in range(n) if w not in wires]
        kept = full.sum(rest) if rest else full
        order = sorted(wires)
        expected = kept.permute(0, *(1 + order.index(w) for w in wires)).reshape(2, -1)
        for bit_order in ("big", "little"):
            p = probabilities(program, params, inputs, wires, bit_order=bit_order, **options)  # type: ignore[arg-type]
            if bit_order == "little":
                m = len(wires)
                p = p.reshape(2, *(2,) * m).permute(0, *range(m, 0, -1)).reshape(2, -1)
            torch.testing.assert_close(p, expected, rtol=0, atol=1e-12)


def test_samples_have_the_probabilities() -> None:
    program, (params, inputs) = random_program(4, 40, seed=3), random_values(2, seed=3)
    shots = 40_000
    draws = sample(
        program, params, inputs, shots, [2, 0], generator=torch.Generator().manual_seed(1)
    )
    p = probabilities(program, params, inputs, [2, 0])
    for b in range(2):
        counts = torch.bincount(draws[b], minlength=4).double() / shots
        # five standard deviations
        torch.testing.assert_close(counts, p[b].double(), rtol=0, atol=5 * 0.5 / shots**0.5)
    # a result without a probability is never drawn
    flipped = Program(3, (instruction("x", 0), instruction("x", 2)))
    assert sample(flipped, None, None, 1000).unique().tolist() == [5]


def test_shared_and_own_angles_agree() -> None:
    """The gradient of a shared parameter is the sum of those of its copies in every sample."""
    from saccade.ops import input_angle

    n, batch = 5, 6
    shared = ring(n, 2)
    own_steps = []
    for entry in shared.instructions:
        values = [
            input_angle(v.index + n, v.coefficient, v.offset) if v.source == "param" else v
            for v in entry.values
        ]
        own_steps.append(instruction(entry.name, entry.wires, values, controls=entry.controls))
    own = Program(n, tuple(own_steps))
    seed = torch.Generator().manual_seed(0)
    params = torch.randn(6 * n, generator=seed, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(batch, n, generator=seed, dtype=torch.float64)
    both = torch.cat([inputs, params.detach().expand(batch, -1)], 1).requires_grad_()
    sums, options = random_sums(n, 2, seed=1), {"dtype": torch.complex128, "backend": "cpu"}
    a = statevector_expval(shared, params, inputs, sums, **options)  # type: ignore[arg-type]
    b = statevector_expval(own, None, both, sums, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    (of_params,) = torch.autograd.grad(a.square().sum(), params)
    (of_both,) = torch.autograd.grad(b.square().sum(), both)
    torch.testing.assert_close(of_params, of_both[:, n:].sum(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 6, 11])
def test_samples_do_not_see_one_another(n: int) -> None:
    program, (params, inputs) = random_program(n, 40, seed=1), random_values(19, seed=1)
    sums = random_sums(n, 2, seed=1)
    options = {"dtype": torch.complex128, "backend": "cpu"}
    inputs[3, :] = torch.nan
    values = statevector_expval(program, params, inputs, sums, **options)  # type: ignore[arg-type]
    assert values[3].isnan().all()
    for b in (0, 2, 4, 18):
        alone = statevector_expval(program, params, inputs[b], sums, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(values[b], alone, rtol=0, atol=1e-13)


def test_leading_axes_are_the_batch() -> None:
    program, (params, inputs) = random_program(3, 30, seed=1), random_values(6, seed=1)
    sums = ["ZZZ", "XII"]
    flat = statevector_expval(program, params, inputs, sums)
    folded = statevector_expval(program, params, inputs.reshape(2, 3, N_INPUTS), sums)
    assert torch.equal(folded, flat.reshape(2, 3, 2))
    state = random_state(3, 3, seed=1)
    both = statevector(program, params, inputs.reshape(2, 3, N_INPUTS), state=state)
    assert both.shape == (2, 3, 8)
    alone = statevector(program, params, inputs[4], state=state[1])
    torch.testing.assert_close(both[1, 1], alone)


@pytest.mark.parametrize("n", [2, 9])
def test_empty_batches_and_empty_programs(n: int) -> None:
    program = random_program(n, 30, seed=1)
    params = torch.randn(N_PARAMS, requires_grad=True)
    inputs = torch.randn(0, N_INPUTS, requires_grad=True)
    values = statevector_expval(program, params, inputs, ["Z" * n], backend="cpu")
    assert values.shape == (0, 1)
    for gradient in torch.autograd.grad(values.sum(), (params, inputs)):
        assert not gradient.any()
    nothing = Program(n)
    assert statevector(nothing)[0].tolist() == [1] + [0] * (2**n - 1)
    assert statevector_expval(nothing, None, None, ["Z" + "I" * (n - 1), "X" * n]).tolist() == [
        [1, 0]
    ]
    assert statevector_expval(nothing, None, None, []).shape == (1, 0)
    assert statevector_expval(nothing, None, None, [{}, "I" * n]).tolist() == [[0, 1]]


def test_strided_and_half_inputs() -> None:
    program, (params, inputs) = random_program(4, 30, seed=1), random_values(5, seed=1)
    sums = ["ZZZZ"]
    dense = statevector_expval(program, params, inputs, sums)
    strided = statevector_expval(
        program, params.repeat_interleave(2)[::2], inputs.T.contiguous().T, sums
    )
    assert torch.equal(dense, strided)
    row = statevector_expval(program, params, inputs[:1].expand(3, -1), sums)
    torch.testing.assert_close(row, dense[:1].expand(3, -1))
    half = statevector_expval(program, params.bfloat16(), inputs.half(), sums)
    again = statevector_expval(program, params.bfloat16().float(), inputs.half().float(), sums)
    assert torch.equal(half, again)


@pytest.mark.parametrize(("n", "batch"), [(5, 40), (8, 33), (12, 3), (14, 1)])
def test_the_bits_do_not_depend_on_the_number_of_threads(n: int, batch: int) -> None:
    program = ring(n, 2)
    params = torch.randn(6 * n, requires_grad=True)
    inputs = torch.randn(batch, n, requires_grad=True)
    sums = pauli_sums(random_sums(n, 2, seed=1), n)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            values = statevector_expval(program, params, inputs, sums, backend="cpu")
            results.append([values, *torch.autograd.grad(values.sum(), (params, inputs))])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_grad_none_and_backprop() -> None:
    program = Program(2, (instruction("rx", 0, param_angle(0)), instruction("cx", (0, 1))))
    x = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    options = {"dtype": torch.complex128}
    assert not statevector_expval(program, x, None, ["IZ"], grad="none", **options).requires_grad  # type: ignore[arg-type]
    value = statevector_expval(program, x, None, ["IZ"], grad="backprop", **options)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(slope, -x.sin())
    torch.testing.assert_close(curvature, -x.cos())
