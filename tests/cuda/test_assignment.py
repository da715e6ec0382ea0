"""The assignment's CUDA kernels on a GPU: the CPU's bits, in graphs, not waiting."""

from __future__ import annotations

import pytest
import torch

from saccade import ops

pytestmark = pytest.mark.cuda

# a warp, a block, costs that do not fit into shared memory, vectors that do not either
SIZES = pytest.mark.parametrize(
    "shape", [(64, 64, 64), (9, 200, 130), (2, 512, 512), (1, 30, 6000)], ids=str
)


@SIZES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_as_on_the_cpu(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    cost = torch.rand(shape).to(dtype)
    mask = torch.rand(shape) < 0.5
    own = ops.assignment(cost, mask=mask, backend="cpu")
    found = ops.assignment(cost.cuda(), mask=mask.cuda(), backend="cuda")
    for name, one, other in zip(own._fields, own, found, strict=True):
        rounding = 1e-14 if name == "cost" and dtype == torch.float64 else 0.0
        torch.testing.assert_close(other.cpu(), one, rtol=rounding, atol=0)


@SIZES
def test_nothing_waits_for_the_device(shape: tuple[int, int, int]) -> None:
    cost = torch.rand(shape, device="cuda", requires_grad=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        best = ops.assignment(cost, backend="cuda")
        torch.autograd.grad(best.cost.sum(), cost)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_graph_replays() -> None:
    cost, other = torch.rand(2, 3, 200, 190, device="cuda")
    expected = ops.assignment(other, backend="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ops.assignment(cost, backend="cuda")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = ops.assignment(cost, backend="cuda")
    cost.copy_(other)
    graph.replay()
    for one, true in zip(found, expected, strict=True):
        assert torch.equal(one, true)
