"""The CUDA kernels of state vectors on a GPU: right, repeatable, in graphs, not waiting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saccade import ops
from saccade.ops import Program, pauli_sums

from ..ops.statevector_circuits import random_program, random_state, random_sums, random_values

pytestmark = pytest.mark.cuda

# samples share a block, a block has a state, many blocks have one
SIZES = pytest.mark.parametrize(("n", "batch"), [(4, 37), (10, 5), (14, 2)])
DTYPES = pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)


def make(n: int, batch: int, dtype: torch.dtype) -> tuple[Program, list[Tensor]]:
    real = torch.float64 if dtype == torch.complex128 else torch.float32
    given = [*random_values(batch, seed=n, dtype=real), random_state(batch, n, seed=1).to(dtype)]
    return random_program(n, 75, seed=n), [t.cuda() for t in given]


def differentiate(
    program: Program, given: list[Tensor], dtype: torch.dtype, backend: str = "cuda"
) -> list[Tensor]:
    """States, expectation values and the gradients of both."""
    leaves = [t.detach().requires_grad_() for t in given]
    params, inputs, state = leaves
    n = program.n_wires
    psi = ops.statevector(program, params, inputs, state=state, dtype=dtype, backend=backend)
    values = ops.statevector_expval(
        program, params, inputs, pauli_sums(random_sums(n, 3, seed=n), n), state=state,
        dtype=dtype, backend=backend,
    )  # fmt: skip
    loss = psi.real.pow(3).sum() + psi.imag.sum() + values.square().sum()
    return [psi.detach(), values.detach(), *torch.autograd.grad(loss, leaves)]


@SIZES
@DTYPES
def test_as_the_reference_in_complex128(n: int, batch: int, dtype: torch.dtype) -> None:
    program, given = make(n, batch, dtype)
    wide = [t.to(torch.complex128 if t.is_complex() else torch.float64) for t in given]
    found = differentiate(program, given, dtype)
    true = differentiate(program, wide, torch.complex128, "reference")
    atol = 1e-3 if dtype == torch.complex64 else 1e-10
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one.to(other.dtype), other, rtol=0, atol=atol)


@SIZES
def test_same_bits_every_run(n: int, batch: int) -> None:
    program, given = make(n, batch, torch.complex64)
    first, second = (differentiate(program, given, torch.complex64) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@SIZES
def test_nothing_waits_for_the_device(n: int, batch: int) -> None:
    program, given = make(n, batch, torch.complex64)
    torch.cuda.set_sync_debug_mode("error")
    try:
        differentiate(program, given, torch.complex64)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@SIZES
def test_cuda_graph_replays(n: int, batch: int) -> None:
    program, given = make(n, batch, torch.complex64)
    sums = pauli_sums(random_sums(n, 3, seed=n), n)

    def run() -> Tensor:
        return ops.statevector_expval(program, given[0], given[1], sums, backend="cuda")

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values = run()
    given[0].add_(0.5)
    expected = run()
    graph.replay()
    assert torch.equal(values, expected)


def test_bad_plans_are_refused() -> None:
    params, inputs = torch.zeros(1, device="cuda"), torch.zeros(2, 0, device="cuda")
    numbers = torch.tensor([31, 0, 0, 0, 0, 0, 0, 0], dtype=torch.int32)
    constants = torch.zeros(0, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="plan must hold a number from 1 to 30, got 31"):
        torch.ops.saccade.statevector_forward(params, inputs, None, numbers, constants, 2)
