"""What torch does to the operators: opcheck, compile, export, autocast, vmap, torch.func."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import _load, ops

pytestmark = pytest.mark.rungs("reference", "cpu")
needs_kernels = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "permuted": lambda t: t.movedim(-1, 0).contiguous().movedim(0, -1),
    "expanded": lambda t: t[:1].expand_as(t),
}


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("with_slack", [False, True], ids=["plain", "slack"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: str, with_slack: bool, dtype: torch.dtype) -> None:
    def draw(*shape: int) -> Tensor:
        return LAYOUTS[layout](torch.randn(shape).to(dtype))

    grad, memory = draw(2, 9), draw(2, 3, 9)
    slack = draw(2, 3) if with_slack else None
    numbers = (0.5, 1e-3)
    saccade = torch.ops.saccade
    torch.library.opcheck(saccade.gem_forward.default, (grad, memory, slack, *numbers, True))
    out, dual, _, gram = saccade.gem_forward(grad, memory, slack, *numbers, True)
    backward = (draw(2, 9), memory, out, dual, gram, *numbers)
    torch.library.opcheck(saccade.gem_backward.default, backward)
    torch.library.opcheck(saccade.gem_gram.default, (memory, grad))
    torch.library.opcheck(saccade.gem_combine.default, (grad, memory, dual))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck_of_the_quadratic_problem(dtype: torch.dtype) -> None:
    gram = LAYOUTS["permuted"](torch.randn(4, 3, 3).to(dtype))
    arguments = (gram @ gram.mT, torch.randn(4, 3).to(dtype), 0.1, 0.2)
    torch.library.opcheck(torch.ops.saccade.gem_nnqp.default, arguments)


@needs_kernels
@pytest.mark.parametrize("stacked", [False, True], ids=["rows", "stacked"])
def test_opcheck_of_the_list_form(stacked: bool) -> None:
    grads = [torch.randn(2, 3), torch.randn(4)]
    rows = [torch.randn_like(grad) for _ in range(3) for grad in grads]
    memory = list(torch.randn(3, 10).split([6, 4], 1)) if stacked else rows
    arguments = (grads, memory, 3, None, 0.5, 0.0, True)
    torch.library.opcheck(torch.ops.saccade.gem_project_.default, arguments)


# batch, rows, columns
SIZES = [(7, 5, 23), (3, 4, 40), (10, 11, 17)]


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def function(grad: Tensor, memory: Tensor, slack: Tensor) -> tuple[Tensor, ...]:
    v, dual, status = ops.gem_project(
        grad,
        memory,
        memory_strength=0.2,
        slack=slack,
        valid=slack < 0.9,
        return_dual=True,
        backend="cpu",
    )
    gram, dot = ops.gram_dot(memory, grad, backend="cpu")
    other, _ = ops.nnqp(gram, dot, ridge=0.1, backend="cpu")
    return v, dual, status, ops.combine(grad, memory, other, backend="cpu")


@needs_kernels
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize(
    "backend_name", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_compiles_once_for_all_sizes(train: bool, backend_name: str) -> None:
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend_name)
    for i, (batch, t, p) in enumerate(SIZES):
        memory = torch.randn(batch, t, p, requires_grad=train)
        grad = (torch.randn(batch, p) - memory.detach().mean(1)).requires_grad_(train)
        inputs = (grad, memory, torch.rand(batch, t, requires_grad=train))
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = compiled(*inputs)
        expected = function(*inputs)
        if train:
            loss = [(r[0].square().sum() + r[3].square().sum()) for r in (got, expected)]
            got += torch.autograd.grad(loss[0], inputs)
            expected += torch.autograd.grad(loss[1], inputs)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
def test_the_list_form_compiles() -> None:
    def step(grads: list[Tensor], rows: list[list[Tensor]]) -> list[Tensor]:
        ops.gem_project_(grads, rows, memory_strength=0.3, trigger="always", backend="cpu")
        return [2 * grad for grad in grads]

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    grads = [torch.randn(2, 3), torch.randn(4)]
    rows = [[torch.randn_like(grad) for grad in grads] for _ in range(3)]
    copies = [grad.clone() for grad in grads]
    for got, expected in zip(compiled(copies, rows), step(grads, rows), strict=True):
        torch.testing.assert_close(got, expected)
    for got, expected in zip(copies, grads, strict=True):
        torch.testing.assert_close(got, expected)


class Project(torch.nn.Module):
    def forward(self, grad: Tensor, memory: Tensor) -> Tensor:
        return ops.gem_project(grad, memory, memory_strength=0.1)


@needs_kernels
@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_sizes(strict: bool) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Project(),
        (torch.randn(4, 9), torch.randn(4, 3, 9)),
        dynamic_shapes=({0: dynamic, 1: dynamic}, {0: dynamic, 1: dynamic, 2: dynamic}),
        strict=strict,
    )
    given = (torch.randn(3, 17), torch.randn(3, 5, 17))
    torch.testing.assert_close(program.module()(*given), Project()(*given))
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    assert any("saccade.gem_forward" in graph.code for graph in graphs)


def test_autocast_changes_nothing(backend: str) -> None:
    grad, memory = torch.randn(40, requires_grad=True), torch.randn(5, 40)
    results: list[Any] = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            v = ops.gem_project(grad, memory, backend=backend)
            parts = ops.gram_dot(memory, grad, backend=backend)
        results.append((v, *parts, torch.autograd.grad(v.sum(), grad)[0]))
    for plain, cast in zip(*results, strict=True):
        assert plain.dtype == cast.dtype
        assert torch.equal(plain, cast)


@needs_kernels
@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (1, 2), (None, 1)], ids=str)
def test_vmap(in_dims: tuple[int | None, ...]) -> None:
    shapes = [[2, 30], [2, 4, 30]]
    sizes = iter(shapes)
    given = []
    for axis in in_dims:
        shape = list(next(sizes))
        if axis is not None:
            shape.insert(axis, 3)
        given.append(torch.randn(shape))

    def project(grad: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
        gram, dot = ops.gram_dot(memory, grad)
        dual, _ = ops.nnqp(gram, dot)
        return ops.gem_project(grad, memory), ops.combine(grad, memory, dual)

    got = torch.vmap(project, in_dims)(*given)
    for i in range(3):
        one = [
            x if axis is None else x.select(axis, i) for x, axis in zip(given, in_dims, strict=True)
        ]
        for a, b in zip(got, project(*one), strict=True):
            torch.testing.assert_close(a[i], b)


@needs_kernels
def test_gradients_by_torch_func() -> None:
    grad, memory = torch.randn(6, 20), torch.randn(6, 3, 20)

    def loss(g: Tensor, m: Tensor) -> Tensor:
        return ops.gem_project(g, m, memory_strength=0.1).square().sum()

    each = torch.vmap(torch.func.grad(loss, argnums=(0, 1)))(grad, memory)
    inputs = grad.clone().requires_grad_(), memory.clone().requires_grad_()
    whole = torch.autograd.grad(loss(*inputs), inputs)
    for a, b in zip(each, whole, strict=True):
        torch.testing.assert_close(a, b)


def test_meta_tensors_have_shapes() -> None:
    grad, memory = torch.empty(2, 9, device="meta"), torch.empty(2, 3, 9, device="meta")
    if not _load.has("_C"):
        pytest.skip(_load.reason("_C"))
    v, dual, status = ops.gem_project(grad, memory, return_dual=True)
    assert (v.shape, dual.shape, status.shape) == ((2, 9), (2, 3), (2,))
    assert (dual.dtype, status.dtype) == (torch.float64, torch.int32)
