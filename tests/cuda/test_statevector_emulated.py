"""The CUDA kernels' source, run on the CPU, against the reference in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import Program, pauli_sums
from saccade.ops._statevector_op import plan

from ..ops.statevector_circuits import (
    NAMES,
    random_program,
    random_state,
    random_sums,
    random_values,
    ring,
)
from . import statevector_emulation as emulated

pytestmark = pytest.mark.skipif(not _load.has("_host"), reason=_load.reason("_host"))


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return emulate("statevector")


class Case(NamedTuple):
    n: int
    batch: int
    dtype: torch.dtype = torch.float32
    start: bool = False
    order: str = "big"
    length: int = 75


# up to 7 bits samples share a block, to 12 a block has one, above a sample has 2 or 4
CASES = [
    Case(1, 1, start=True),
    Case(1, 37, order="little"),
    Case(2, 70),
    Case(3, 33, start=True),
    Case(4, 3, torch.float64, order="little"),
    Case(5, 9),
    Case(6, 5, start=True, order="little"),
    Case(7, 3),
    Case(8, 2, torch.float64, start=True),
    Case(9, 2, order="little"),
    Case(10, 1),
    Case(11, 1, torch.float64, order="little", length=40),
    Case(12, 1, start=True, length=40),
    Case(13, 2, torch.float64, length=40),
    Case(13, 1, start=True, order="little", length=60),
    Case(14, 1, order="little", length=40),
]
# absolute: amplitudes are at most 1
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def name(case: Case) -> str:
    start = "given" if case.start else "zero"
    return f"n{case.n}-B{case.batch}-{str(case.dtype)[6:]}-{start}-{case.order}"


def draw(case: Case) -> tuple[Program, Tensor, Tensor, Tensor | None]:
    program = random_program(case.n, case.length, seed=case.n * 100 + case.batch)
    params, inputs = random_values(case.batch, seed=case.n, dtype=case.dtype)
    state = None
    if case.start:
        state = torch.view_as_real(random_state(case.batch, case.n, seed=1)).to(case.dtype)
    return program, params, inputs, state


def wide(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.double().requires_grad_() for t in tensors]


def check(found: list[Tensor], loss: Tensor, own: list[Tensor | None], tolerance: float) -> None:
    used = [t for t in own if t is not None]
    true = torch.autograd.grad(loss, used, allow_unused=True, materialize_grads=True)
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=20 * tolerance)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_states_and_their_gradients(library: ctypes.CDLL, case: Case) -> None:
    program, *tensors = draw(case)
    params, inputs, state = tensors
    made = plan(program, state is None, case.order == "little", None)
    out = emulated.states(library, made, params, inputs, state)
    own = wide(*tensors)
    start = None if own[2] is None else torch.view_as_complex(own[2])
    psi = reference.statevector(
        program, own[0], own[1], start, torch.complex128, case.order
    ).expand(case.batch, -1)
    true = torch.view_as_real(psi)
    tolerance = TOLERANCE[case.dtype]
    torch.testing.assert_close(out.double(), true.detach(), rtol=0, atol=tolerance)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(case.dtype)
    found = emulated.backward(library, made, params, inputs, state, out, grad)
    check(found, (grad.double() * true).sum(), own, tolerance * max(1.0, float(grad.abs().max())))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_expectation_values_and_their_gradients(library: ctypes.CDLL, case: Case) -> None:
    program, *tensors = draw(case)
    params, inputs, state = tensors
    count = (3, 9)[case.n % 2]
    sums = pauli_sums(random_sums(case.n, count, seed=case.n), case.n)
    made = plan(program, state is None, False, sums)
    values, kept = emulated.expectations(library, made, params, inputs, state)
    assert kept is not None
    own = wide(*tensors)
    start = None if own[2] is None else torch.view_as_complex(own[2])
    true = reference.statevector_expval(program, own[0], own[1], sums, start, torch.complex128)
    tolerance = TOLERANCE[case.dtype]
    torch.testing.assert_close(values.double(), true.detach(), rtol=0, atol=20 * tolerance)
    again, _ = emulated.expectations(library, made, params, inputs, state, keep=False)
    assert torch.equal(again, values)
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(4)).to(case.dtype)
    before = kept.clone()
    found = emulated.backward(library, made, params, inputs, state, kept, weights)
    assert torch.equal(kept, before)
    check(found, (weights.double() * true).sum(), own, tolerance * count)


@pytest.mark.parametrize("gate", NAMES)
def test_every_gate_alone(library: ctypes.CDLL, gate: str) -> None:
    """With a layer before it and one behind."""
    turns = ring(5, 1)
    middle = random_program(5, 6, seed=len(gate), names=[gate])
    program = Program(
        5, turns.instructions + middle.instructions + turns.instructions, turns.n_params, 5
    )
    torch.manual_seed(0)
    params, inputs = torch.randn(turns.n_params).double(), torch.randn(3, 5).double()
    made = plan(program, True, False, None)
    out = emulated.states(library, made, params, inputs, None)
    own = wide(params, inputs)
    true = torch.view_as_real(
        reference.statevector(program, own[0], own[1], None, torch.complex128)
    )
    torch.testing.assert_close(out, true.detach(), rtol=0, atol=1e-12)
    grad = torch.randn_like(out)
    found = emulated.backward(library, made, params, inputs, None, out, grad)
    check(found, (grad * true).sum(), own, 1e-12)


def test_the_order_of_threads_changes_nothing(library: ctypes.CDLL) -> None:
    program, params, inputs, _ = draw(Case(9, 3, length=60))
    sums = pauli_sums(random_sums(9, 4, seed=9), 9)
    made = plan(program, True, False, sums)
    weights = torch.randn(3, 4)
    results = []
    for order in (0, 1):
        library.set_reversed(order)
        values, kept = emulated.expectations(library, made, params, inputs, None)
        assert kept is not None
        found = emulated.backward(library, made, params, inputs, None, kept, weights)
        results.append([values, kept, *found])
    library.set_reversed(0)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_circuit_too_long_for_one_launch_argument(library: ctypes.CDLL) -> None:
    program = random_program(4, 900, seed=5)
    params, inputs = random_values(2, seed=5)
    made = plan(program, True, False, None)
    out = emulated.states(library, made, params, inputs, None)
    true = reference.statevector(program, params, inputs, None, torch.complex128)
    torch.testing.assert_close(torch.view_as_complex(out), true, rtol=0, atol=1e-12)


def test_a_sample_with_a_nan_spoils_no_other(library: ctypes.CDLL) -> None:
    program = ring(3, 1)
    params, inputs = torch.randn(program.n_params), torch.randn(5, 3)
    made = plan(program, True, False, pauli_sums(["ZII", "IXI"], 3))
    expected, _ = emulated.expectations(library, made, params, inputs, None)
    inputs[2, 1] = torch.nan
    values, kept = emulated.expectations(library, made, params, inputs, None)
    assert kept is not None
    others = [0, 1, 3, 4]
    assert torch.equal(values[others], expected[others])
    assert bool(values[2].isnan().all())
    found = emulated.backward(library, made, params, inputs, None, kept, torch.ones(5, 2))
    assert bool(found[1][others].isfinite().all())
    assert bool(found[1][2].isnan().all())


@pytest.mark.parametrize("batch", [0, 2])
def test_nothing_to_do(library: ctypes.CDLL, batch: int) -> None:
    """No samples, and no gates."""
    program = ring(3, 1) if batch == 0 else Program(3, ())
    params, inputs = torch.randn(program.n_params), torch.randn(batch, program.n_inputs)
    made = plan(program, True, False, pauli_sums(["ZII", "IXI"], 3))
    values, kept = emulated.expectations(library, made, params, inputs, None)
    assert kept is not None
    torch.testing.assert_close(values, torch.tensor([[1.0, 0.0]]).expand(batch, 2))
    found = emulated.backward(library, made, params, inputs, None, kept, torch.ones(batch, 2))
    assert all(not bool(g.any()) for g in found)
