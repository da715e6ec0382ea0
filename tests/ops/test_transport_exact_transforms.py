"""What torch does to the exact solvers: opcheck, compile, export, autocast, vmap, torch.func."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from saccade import _load, ops

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "permuted": lambda t: t.movedim(-1, 0).contiguous().movedim(0, -1),
    "expanded": lambda t: t[:1].expand_as(t),
}


def match(cost: Tensor, mask: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """An assignment behind and before other operations."""
    best = ops.assignment(2 * cost, maximize=True, mask=mask, **options)
    return best.cost, best.row_to_col, best.col_to_row, best.row_dual + 1, best.col_dual


def ship(cost: Tensor, a: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """A transport between other operations; weights of total 1, whatever a is."""
    result = ops.emd(2 * cost, a.softmax(-1), **options)
    return result.value, result.plan + 1, result.f, result.g, result.n_iter, result.status  # type: ignore[operator]


class Solver(NamedTuple):
    """An operator, a function around it, and the second input of that: [B, n, m] or [B, n]."""

    operator: str
    function: Callable[..., tuple[Tensor, ...]]
    second: Callable[[int, int, int], Tensor]
    # operator's arguments from a cost and a second input that it takes as it is
    arguments: Callable[[Tensor, Tensor], list[tuple[Any, ...]]]
    differentiable: bool  # the second input


SOLVERS = {
    "assignment": Solver(
        "assignment_forward",
        match,
        lambda batch, n, m: torch.rand(batch, n, m) < 0.9,
        lambda cost, mask: [(cost, None, False), (cost, mask, True)],
        False,
    ),
    "emd": Solver(
        "emd_forward",
        ship,
        lambda batch, n, m: torch.randn(batch, n),
        lambda cost, a: [(cost, None, None), (cost, a.softmax(-1).to(cost.dtype), None)],
        True,
    ),
}


@pytest.fixture(params=SOLVERS)
def solver(request: pytest.FixtureRequest) -> Solver:
    return SOLVERS[request.param]


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def problem(solver: Solver, batch: int, n: int, m: int, train: bool = False) -> list[Tensor]:
    cost, second = torch.rand(batch, n, m), solver.second(batch, n, m)
    return [cost.requires_grad_(train), second.requires_grad_(train and solver.differentiable)]


def gradients(value: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value.square().sum(), [t for t in inputs if t.requires_grad])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(solver: Solver, layout: str, dtype: torch.dtype) -> None:
    cost, second = (LAYOUTS[layout](t) for t in problem(solver, 2, 5, 9))
    operator = getattr(torch.ops.saccade, solver.operator).default
    for arguments in solver.arguments(cost.to(dtype), second):
        torch.library.opcheck(operator, arguments)


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize(
    "backend_name", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_compiles_once_for_all_sizes(solver: Solver, train: bool, backend_name: str) -> None:
    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        return solver.function(*inputs, backend="cpu")

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend_name)
    for i, sizes in enumerate([(7, 5, 23), (3, 40, 4), (10, 11, 17)]):
        inputs = problem(solver, *sizes, train=train)
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = compiled(*inputs)
        expected = function(*inputs)
        if train:
            got += gradients(got[0], inputs)
            expected += gradients(expected[0], inputs)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


class Solve(torch.nn.Module):
    def __init__(self, solver: Solver) -> None:
        super().__init__()
        self.function = solver.function

    def forward(self, cost: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        return self.function(cost, second)


@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_sizes(solver: Solver, strict: bool) -> None:
    batch, n, m = (torch.export.Dim(name, min=2, max=99) for name in ("batch", "n", "m"))
    given = problem(solver, 4, 9, 5)
    axes = [dict(enumerate((batch, n, m)[: t.dim()])) for t in given]
    program = torch.export.export(
        Solve(solver), tuple(given), dynamic_shapes=tuple(axes), strict=strict
    )
    other = problem(solver, 3, 6, 17)
    for a, b in zip(program.module()(*other), solver.function(*other), strict=True):
        assert torch.equal(a, b)
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    assert any(f"saccade.{solver.operator}" in graph.code for graph in graphs)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_changes_nothing(solver: Solver, backend: str) -> None:
    inputs = problem(solver, 2, 6, 9, train=True)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            result = solver.function(*inputs, backend=backend)
        results.append((*result, *gradients(result[0], inputs)))
    for plain, cast in zip(*results, strict=True):
        assert plain.dtype == cast.dtype
        assert torch.equal(plain, cast)


@pytest.mark.parametrize("in_dims", [(0, 0), (1, None), (2, 1)], ids=str)
def test_vmap(solver: Solver, in_dims: tuple[int, int | None]) -> None:
    cost, second = torch.rand(3, 2, 6, 8), solver.second(3, 6, 8)
    given = [
        cost.movedim(0, in_dims[0]),
        second[0] if in_dims[1] is None else second.movedim(0, in_dims[1]),
    ]
    got = torch.vmap(solver.function, in_dims)(*given)
    for i in range(3):
        one = solver.function(cost[i], second[0 if in_dims[1] is None else i])
        for a, b in zip(got, one, strict=True):
            assert torch.equal(a[i], b)


def test_gradients_by_torch_func(solver: Solver) -> None:
    inputs = problem(solver, 5, 4, 3)
    argnums = (0, 1) if solver.differentiable else (0,)

    def loss(*one: Tensor) -> Tensor:
        return solver.function(*one)[0].square().sum()

    each = torch.vmap(torch.func.grad(loss, argnums))(*inputs)
    leaves = [t.requires_grad_(t.is_floating_point()) for t in inputs]
    for x, y in zip(each, gradients(solver.function(*leaves)[0], leaves), strict=True):
        torch.testing.assert_close(x, y)


def _matched(best: ops.Assignment, of_cost: Tensor, _: Tensor) -> Tensor:
    return of_cost[torch.arange(4), best.row_to_col].sum()


def _shipped(result: Any, of_cost: Tensor, of_a: Tensor) -> Tensor:
    return (result.plan * of_cost).sum() + (result.f * of_a).sum()


# name: a call, its output, and the derivative of that from a result
FORWARD_MODE: dict[str, tuple[Callable[..., Any], str, Callable[..., Tensor]]] = {
    "assignment": (lambda cost, a, **options: ops.assignment(cost, **options), "cost", _matched),
    "emd": (lambda cost, a, **options: ops.emd(cost, a, **options), "value", _shipped),
}


@pytest.mark.parametrize("name", FORWARD_MODE)
def test_forward_mode_runs_on_the_reference(name: str) -> None:
    call, value, expected = FORWARD_MODE[name]
    cost, a = torch.rand(4, 5), torch.full((4,), 0.25)
    of_cost, of_a = torch.rand(4, 5), torch.tensor([0.1, -0.1, 0.2, -0.2])
    plain = call(cost, a)
    with forward_ad.dual_level():
        inputs = forward_ad.make_dual(cost, of_cost), forward_ad.make_dual(a, of_a)
        _, change = forward_ad.unpack_dual(getattr(call(*inputs), value))
        with pytest.raises(NotImplementedError, match="forward-mode derivatives on the reference"):
            call(*inputs, backend="cpu")
    assert change.item() == pytest.approx(expected(plain, of_cost, of_a).item(), rel=1e-5)


# an operator's outputs: axes of [B, n, m]
SHAPES: dict[str, tuple[Callable[[Tensor], Any], dict[str, tuple[int, ...]]]] = {
    "assignment": (
        ops.assignment,
        {"row_to_col": (2, 3), "col_to_row": (2, 5), "cost": (2,), "row_dual": (2, 3),
         "col_dual": (2, 5)},
    ),
    "emd": (
        ops.emd,
        {"plan": (2, 3, 5), "f": (2, 3), "g": (2, 5), "value": (2,), "n_iter": (2,),
         "status": (2,)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_meta_tensors_have_shapes(name: str) -> None:
    call, shapes = SHAPES[name]
    result = call(torch.empty(2, 3, 5, device="meta"))
    assert {field: tuple(getattr(result, field).shape) for field in shapes} == shapes


def test_threads_do_not_change_the_bits(solver: Solver) -> None:
    inputs = problem(solver, 9, 33, 20)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(solver.function(*inputs))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
