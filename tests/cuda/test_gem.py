"""The CUDA kernels on a GPU: in graphs, on streams, without waiting for the device, large."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from saccade import ops

pytestmark = pytest.mark.cuda


def make(*shape: int, columns: int = 30_001, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    memory = torch.randn(*shape, columns, device="cuda")
    grad = torch.randn(*shape[:-1], columns, device="cuda") - memory.mean(-2)
    return [grad.to(dtype), memory.to(dtype)]


@pytest.fixture
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_nothing_waits_for_the_device(backend: str, no_waiting: None) -> None:
    grad, memory = (x.requires_grad_() for x in make(2, 10))
    valid = torch.ones(10, dtype=torch.bool, device="cuda")
    v, dual, _ = ops.gem_project(
        grad, memory, memory_strength=0.5, slack=0.1, valid=valid, return_dual=True,
        backend=backend,
    )  # fmt: skip
    torch.autograd.grad(v.square().sum(), (grad, memory))
    gram, dot = ops.gram_dot(memory.detach(), grad.detach(), backend=backend)
    linear = dot.requires_grad_()
    torch.autograd.grad(ops.nnqp(gram, linear, backend=backend)[0].sum(), linear)
    ops.combine(grad, memory, dual, backend=backend)
    grads = [torch.randn(5, 7, device="cuda"), torch.randn(9, device="cuda")]
    ops.gem_project_(grads, [[torch.randn_like(g) for g in grads]], backend=backend)


def test_cuda_graph_replays() -> None:
    grad, memory = make(10)
    grads = [torch.randn(300, device="cuda"), torch.randn(40, 5, device="cuda")]
    rows = [[torch.randn_like(g) for g in grads] for _ in range(3)]
    expected = ops.gem_project(grad, memory, backend="cuda")
    in_place = [g.clone() for g in grads]
    ops.gem_project_(in_place, rows, backend="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        v = ops.gem_project(grad, memory, backend="cuda")
        ops.gem_project_(grads, rows, backend="cuda")
    v.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(v, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, in_place, strict=True))


def test_a_stream_of_ones_own() -> None:
    grad, memory = make(10)
    expected = ops.gem_project(grad, memory, backend="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        v = ops.gem_project(grad.clone(), memory.clone(), backend="cuda")
    stream.synchronize()
    assert torch.equal(v, expected)


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_float32_holds_the_conditions_over_many_columns(backend: str) -> None:
    memory = torch.randn(6, 10_000_003, device="cuda")
    memory += torch.randn(10_000_003, device="cuda")
    grad = torch.randn(10_000_003, device="cuda") - 0.4 * memory.sum(0)
    v, dual, status = ops.gem_project(grad, memory, return_dual=True, backend=backend)
    assert status == 0
    room = (memory.double() @ v.double()) / (memory.norm(dim=1) * grad.norm()).double()
    assert room.min() > -1e-5
    assert (dual * room)[dual > 0].abs().max() < 1e-5


def test_more_parameters_than_a_launch_holds() -> None:
    sizes = [1 + 37 * k % 3000 for k in range(200)]
    grads = [torch.randn(n, device="cuda") for n in sizes]
    rows = [[torch.randn(n, device="cuda") for n in sizes] for _ in range(7)]
    flat, memory = torch.cat(grads), torch.stack([torch.cat(row) for row in rows])
    expected = ops.gem_project(flat, memory, trigger="always", backend="cuda")
    ops.gem_project_(grads, rows, trigger="always", backend="cuda")
    torch.testing.assert_close(torch.cat(grads), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_more_than_2_to_31_elements() -> None:
    columns = 2**28 + 3
    memory = torch.randn(9, columns, device="cuda", dtype=torch.bfloat16)
    assert memory.numel() > 2**31
    grad = -memory.float().sum(0).bfloat16()
    v, dual, status = ops.gem_project(grad, memory, return_dual=True, backend="cuda")
    assert status == 0
    assert ((dual - 1).abs() < 0.02).all()
    assert v[-1000:].float().norm() < 0.1 * grad[-1000:].float().norm()
