"""What torch does to the assignment: opcheck, compile, export, autocast, vmap, torch.func."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: str, dtype: torch.dtype) -> None:
    cost = LAYOUTS[layout](torch.randn(2, 5, 9).to(dtype))
    mask = LAYOUTS[layout](torch.rand(2, 5, 9) < 0.8)
    for arguments in ((cost, None, False), (cost, mask, True)):
        torch.library.opcheck(torch.ops.saccade.assignment_forward.default, arguments)


def function(cost: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    best = ops.assignment(2 * cost, maximize=True, mask=mask, backend="cpu")
    return best.cost, best.row_to_col, best.col_to_row, best.row_dual + 1, best.col_dual


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize(
    "backend_name", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_compiles_once_for_all_sizes(train: bool, backend_name: str) -> None:
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend_name)
    for i, (batch, n, m) in enumerate([(7, 5, 23), (3, 40, 4), (10, 11, 17)]):
        cost = torch.rand(batch, n, m, requires_grad=train)
        mask = torch.rand(batch, n, m) < 0.9
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = compiled(cost, mask)
        expected = function(cost, mask)
        if train:
            got += torch.autograd.grad(got[0].square().sum(), cost)
            expected += torch.autograd.grad(expected[0].square().sum(), cost)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


class Match(torch.nn.Module):
    def forward(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        best = ops.assignment(cost)
        return best.row_to_col, best.cost


@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_sizes(strict: bool) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Match(),
        (torch.rand(4, 9, 5),),
        dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
        strict=strict,
    )
    given = torch.rand(3, 6, 17)
    for a, b in zip(program.module()(given), Match()(given), strict=True):
        assert torch.equal(a, b)
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    assert any("saccade.assignment_forward" in graph.code for graph in graphs)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_changes_nothing(backend: str) -> None:
    cost = torch.rand(9, 9, requires_grad=True)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            best = ops.assignment(cost, backend=backend)
        results.append((*best, torch.autograd.grad(best.cost, cost)[0]))
    for plain, cast in zip(*results, strict=True):
        assert plain.dtype == cast.dtype
        assert torch.equal(plain, cast)


@pytest.mark.parametrize("in_dims", [(0, 0), (1, None), (2, 1)], ids=str)
def test_vmap(in_dims: tuple[int, int | None]) -> None:
    whole = torch.rand(3, 2, 6, 8), torch.rand(3, 6, 8) < 0.9
    given = [
        whole[0].movedim(0, in_dims[0]),
        whole[1][0] if in_dims[1] is None else whole[1].movedim(0, in_dims[1]),
    ]

    def match(cost: Tensor, mask: Tensor) -> ops.Assignment:
        return ops.assignment(cost, mask=mask)

    got = torch.vmap(match, in_dims)(*given)
    for i in range(3):
        one = match(whole[0][i], whole[1][0 if in_dims[1] is None else i])
        for a, b in zip(got, one, strict=True):
            assert torch.equal(a[i], b)


def test_gradients_by_torch_func() -> None:
    cost = torch.rand(5, 4, 4)

    def loss(one: Tensor) -> Tensor:
        return ops.assignment(one).cost.square()

    each = torch.vmap(torch.func.grad(loss))(cost)
    leaf = cost.clone().requires_grad_()
    whole = torch.autograd.grad(ops.assignment(leaf).cost.square().sum(), leaf)[0]
    torch.testing.assert_close(each, whole)


def test_forward_mode_runs_on_the_reference() -> None:
    cost, tangent = torch.rand(4, 4), torch.rand(4, 4)
    columns = ops.assignment(cost).row_to_col
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(cost, tangent)
        _, change = forward_ad.unpack_dual(ops.assignment(dual).cost)
        with pytest.raises(NotImplementedError, match="forward-mode derivatives on the reference"):
            ops.assignment(dual, backend="cpu")
    assert change.item() == pytest.approx(tangent[torch.arange(4), columns].sum().item())


def test_meta_tensors_have_shapes() -> None:
    best = ops.assignment(torch.empty(2, 3, 5, device="meta"))
    assert (best.row_to_col.shape, best.col_to_row.shape) == ((2, 3), (2, 5))
    assert (best.cost.shape, best.row_dual.shape, best.col_dual.shape) == ((2,), (2, 3), (2, 5))


def test_threads_do_not_change_the_bits() -> None:
    cost = torch.rand(9, 33, 33)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(ops.assignment(cost))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
