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
