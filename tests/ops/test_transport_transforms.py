"""What torch does to the operators: opcheck, compile, export, autocast, vmap, torch.func."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from saccade import _load, ops

needs_kernels = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "permuted": lambda t: t.movedim(-1, 0).contiguous().movedim(0, -1),
    "expanded": lambda t: t[:1].expand_as(t),
}
NUMBERS = (0.2, math.inf, 0.5, True)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: str, dtype: torch.dtype) -> None:
    change, wide = LAYOUTS[layout], torch.float64 if dtype == torch.float64 else torch.float32

    def draw(*shape: int) -> Tensor:
        return change(torch.rand(shape, dtype=wide) + 0.1)

    saccade, loop = torch.ops.saccade, (5, 1e-3, 0.5)
    cost, a, b, value = draw(2, 4, 7).to(dtype), draw(2, 4), draw(2, 7), draw(2)
    for init in ((None, None), (draw(2, 4), draw(2, 7))):
        forward = (cost, a, b, *init, *NUMBERS, *loop)
        torch.library.opcheck(saccade.sinkhorn_forward.default, forward)
    plan, f, g, *_ = saccade.sinkhorn_forward(*forward)
    for grads in ((draw(2, 4, 7).to(dtype), draw(2, 4), None, value, value), (None,) * 5):
        arguments = (*grads, cost, a, b, plan, f, g, *NUMBERS)
        torch.library.opcheck(saccade.sinkhorn_backward.default, arguments)
    x, y = draw(2, 4, 3).to(dtype), draw(2, 7, 3).to(dtype)
    forward = (x, y, a, b, None, None, 0, *NUMBERS, *loop)
    torch.library.opcheck(saccade.sinkhorn_points_forward.default, forward)
    arguments = (None, draw(2, 7), value, None, x, y, a, b, f, g, 1, *NUMBERS)
    torch.library.opcheck(saccade.sinkhorn_points_backward.default, arguments)


# batch, n, m
SIZES = [(7, 5, 23), (3, 4, 40), (10, 11, 17)]


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def function(cost: Tensor, a: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    result = ops.sinkhorn(cost, a.softmax(-1), eps=0.2, mask=cost < 0.98, rho=(None, 1.0))
    points = ops.sinkhorn_points(x, y, eps=0.3, max_iter=20)
    return result.plan, result.f, result.value, result.status, points.value, points.g


@needs_kernels
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize(
    "backend_name", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_compiles_once_for_all_sizes(train: bool, backend_name: str) -> None:
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend_name)
    for i, (batch, n, m) in enumerate(SIZES):
        inputs = tuple(
            torch.rand(shape, requires_grad=train)
            for shape in ((batch, n, m), (batch, n), (batch, n, 3), (batch, m, 3))
        )
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = compiled(*inputs)
        expected = function(*inputs)
        if train:
            loss = [
                r[0].square().sum() + torch.where(r[1].isfinite(), r[1], 0.0).sum() + r[4].sum()
                for r in (got, expected)
            ]
            got += torch.autograd.grad(loss[0], inputs)
            expected += torch.autograd.grad(loss[1], inputs)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class Align(torch.nn.Module):
    def forward(self, cost: Tensor) -> Tensor:
        plan = ops.sinkhorn(cost, eps=0.1).plan
        assert plan is not None
        return plan


@needs_kernels
@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_sizes(strict: bool) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Align(), (torch.rand(4, 9, 8),), dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
        strict=strict,
    )  # fmt: skip
    given = torch.rand(3, 17, 12)
    torch.testing.assert_close(program.module()(given), Align()(given))
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    assert any("saccade.sinkhorn_forward" in graph.code for graph in graphs)


@pytest.mark.rungs("reference", "cpu")
def test_autocast_changes_nothing(backend: str) -> None:
    cost = torch.rand(5, 6, requires_grad=True)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            result = ops.sinkhorn(cost, eps=0.1, backend=backend)
        assert result.plan is not None
        (of_cost,) = torch.autograd.grad(result.plan.square().sum(), cost)
        results.append((*result, of_cost))
    for plain, cast in zip(*results, strict=True):
        assert plain.dtype == cast.dtype
        torch.testing.assert_close(plain, cast)


@needs_kernels
@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (2, 1), (None, 1)], ids=str)
def test_vmap(in_dims: tuple[int | None, ...]) -> None:
    shapes = [[2, 4, 6], [2, 4]]
    given = []
    for shape, axis in zip(shapes, in_dims, strict=True):
        sizes = list(shape)
        if axis is not None:
            sizes.insert(axis, 3)
        given.append(torch.rand(sizes))

    def solve(cost: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        result = ops.sinkhorn(cost, a.softmax(-1), eps=0.2)
        assert result.plan is not None
        return result.plan, result.value

    got = torch.vmap(solve, in_dims)(*given)
    for i in range(3):
        one = [t if d is None else t.select(d, i) for t, d in zip(given, in_dims, strict=True)]
        for a, b in zip(got, solve(*one), strict=True):
            torch.testing.assert_close(a[i], b)


@needs_kernels
def test_gradients_by_torch_func() -> None:
    cost, x = torch.rand(6, 4, 5), torch.rand(6, 4, 2)

    def loss(c: Tensor, p: Tensor) -> Tensor:
        result = ops.sinkhorn(c, eps=0.2)
        assert result.plan is not None
        return result.plan.square().sum() + ops.sinkhorn_points(p, p + 1, eps=0.2).value.sum()

    each = torch.vmap(torch.func.grad(loss, argnums=(0, 1)))(cost, x)
    inputs = cost.clone().requires_grad_(), x.clone().requires_grad_()
    for a, b in zip(each, torch.autograd.grad(loss(*inputs), inputs), strict=True):
        torch.testing.assert_close(a, b)


@needs_kernels
def test_meta_tensors_have_shapes() -> None:
    result = ops.sinkhorn(torch.empty(2, 9, 8, device="meta"), eps=0.1)
    assert result.plan is not None
    assert (result.plan.shape, result.f.shape, result.g.shape) == ((2, 9, 8), (2, 9), (2, 8))
    assert (result.value.shape, result.status.dtype) == ((2,), torch.int32)
