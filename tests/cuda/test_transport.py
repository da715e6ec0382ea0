"""The kernels of entropic transport on a GPU: right, repeatable, in graphs; CUDA's never wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import ops

pytestmark = pytest.mark.cuda

# 64 x 64 has a block of its own, 300 x 200 a launch a side and sweep
SIZES = pytest.mark.parametrize(("n", "m"), [(64, 64), (300, 200)], ids=["block", "launches"])


@pytest.fixture(params=["cuda", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "triton":
        pytest.importorskip("triton")
    return str(request.param)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def make(n: int, m: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(3, n, m, device="cuda").to(dtype)


def differentiate(cost: Tensor, **options: Any) -> tuple[Tensor, ...]:
    leaf = cost.detach().requires_grad_()
    result = ops.sinkhorn(leaf, eps=0.1, max_iter=200, **options)
    loss = (result.plan * (leaf.detach() ** 2)).sum() + result.value.sum()  # type: ignore[operator]
    return result.plan, result.f, result.value, *torch.autograd.grad(loss, leaf)  # type: ignore[return-value]


@SIZES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_as_the_reference_in_float64(n: int, m: int, dtype: torch.dtype, backend: str) -> None:
    cost = make(n, m, dtype)
    limit = 1e-4 if dtype == torch.float32 else 2e-2
    for rho in (None, (0.5, 2.0)):
        found = differentiate(cost, rho=rho, backend=backend)
        true = differentiate(cost.double(), rho=rho, backend="reference")
        for index, (one, other) in enumerate(zip(found, true, strict=True)):
            if index == 1 and rho is None:
                one, other = one - one.mean(-1, True), other - other.mean(-1, True)
            scale = float(other.abs().max())
            torch.testing.assert_close(one.double(), other, rtol=limit, atol=limit * scale)


@SIZES
def test_same_bits_every_run(n: int, m: int, backend: str) -> None:
    cost = make(n, m)
    for one, other in zip(
        differentiate(cost, backend=backend), differentiate(cost, backend=backend), strict=True
    ):
        assert torch.equal(one, other)


@SIZES
def test_nothing_waits_for_the_device(n: int, m: int, no_waiting: None) -> None:
    cost = make(n, m).requires_grad_()
    result = ops.sinkhorn(cost, eps=0.1, tol=1e-3, eps_scaling=0.5, backend="cuda")
    torch.autograd.grad(result.value.sum() + result.plan.square().sum(), cost)  # type: ignore[union-attr]
    x = torch.randn(2, n, 5, device="cuda", requires_grad=True)
    y = torch.randn(2, m, 5, device="cuda")
    points = ops.sinkhorn_points(x, y, eps=0.5, backend="cuda")
    torch.autograd.grad(points.value.sum() + points.f.sum(), x)


def test_cuda_graph_replays(backend: str) -> None:
    cost = make(300, 200)
    other = make(300, 200)
    expected = ops.sinkhorn(other, eps=0.1, tol=1e-3, backend=backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ops.sinkhorn(cost, eps=0.1, tol=1e-3, backend=backend)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = ops.sinkhorn(cost, eps=0.1, tol=1e-3, backend=backend)
    cost.copy_(other)
    graph.replay()
    for one, true in zip(result, expected, strict=True):
        assert torch.equal(one, true)  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [2, 1, "cos"])
def test_points_as_with_their_cost(p: Any, backend: str) -> None:
    x = torch.randn(2, 150, 40, device="cuda")
    y = torch.randn(2, 260, 40, device="cuda")
    given = [z.detach().requires_grad_() for z in (x, y)]
    wide = [z.double().requires_grad_() for z in (x, y)]
    eps = 0.2 if p == "cos" else 10.0
    found = ops.sinkhorn_points(*given, eps=eps, p=p, max_iter=300, backend=backend)
    true = ops.sinkhorn_points(*wide, eps=eps, p=p, max_iter=300, backend="reference")
    torch.testing.assert_close(found.value.double(), true.value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.value_linear.double(), true.value_linear, rtol=1e-5, atol=1e-6)
    of_found = torch.autograd.grad(found.value_linear.sum() + found.value.sum(), given)
    of_true = torch.autograd.grad(true.value_linear.sum() + true.value.sum(), wide)
    for one, other in zip(of_found, of_true, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3 * scale)


def test_float64_is_refused(backend: str) -> None:
    with pytest.raises(RuntimeError, match="float64 needs the reference"):
        ops.sinkhorn(make(4, 5).double(), eps=0.1, backend=backend)
