"""What torch does to exact transport: opcheck, compile, export, autocast, vmap, torch.func."""

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
    def draw(*shape: int) -> Tensor:
        return LAYOUTS[layout](torch.rand(shape).to(dtype))

    cost, a = draw(2, 4, 8), LAYOUTS[layout](torch.full((2, 4), 0.25).to(dtype))
    for weights in (None, a):
        torch.library.opcheck(torch.ops.saccade.emd_forward.default, (cost, weights, None))


def function(cost: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    result = ops.emd(2 * cost, a.softmax(-1), backend="cpu")
    assert result.plan is not None
    return result.value, result.plan + 1, result.f, result.g, result.n_iter, result.status


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
        inputs = (
            torch.rand(batch, n, m, requires_grad=train),
            torch.randn(batch, n, requires_grad=train),
        )
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = compiled(*inputs)
        expected = function(*inputs)
        if train:
            got += torch.autograd.grad(got[0].square().sum(), inputs)
            expected += torch.autograd.grad(expected[0].square().sum(), inputs)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


class Move(torch.nn.Module):
    def forward(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        result = ops.emd(cost)
        assert result.plan is not None
        return result.plan, result.value


@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_sizes(strict: bool) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Move(),
        (torch.rand(4, 9, 5),),
        dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
        strict=strict,
    )
    given = torch.rand(3, 6, 17)
    for a, b in zip(program.module()(given), Move()(given), strict=True):
        assert torch.equal(a, b)
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    assert any("saccade.emd_forward" in graph.code for graph in graphs)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_changes_nothing(backend: str) -> None:
    cost = torch.rand(6, 9, requires_grad=True)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            result = ops.emd(cost, backend=backend)
        results.append((*result, torch.autograd.grad(result.value, cost)[0]))
    for plain, cast in zip(*results, strict=True):
        assert plain.dtype == cast.dtype
        assert torch.equal(plain, cast)


@pytest.mark.parametrize("in_dims", [(0, 0), (1, None), (2, 1)], ids=str)
def test_vmap(in_dims: tuple[int, int | None]) -> None:
    whole = torch.rand(3, 2, 5, 6), torch.rand(3, 5).softmax(-1)
    given = [
        whole[0].movedim(0, in_dims[0]),
        whole[1][0] if in_dims[1] is None else whole[1].movedim(0, in_dims[1]),
    ]
    got = torch.vmap(ops.emd, in_dims)(*given)
    for i in range(3):
        one = ops.emd(whole[0][i], whole[1][0 if in_dims[1] is None else i])
        for a, b in zip(got, one, strict=True):
            assert torch.equal(a[i], b)


def test_gradients_by_torch_func() -> None:
    cost, a = torch.rand(5, 4, 3), torch.randn(5, 4)

    def loss(c: Tensor, x: Tensor) -> Tensor:
        return ops.emd(c, x.softmax(-1)).value.square()

    each = torch.vmap(torch.func.grad(loss, argnums=(0, 1)))(cost, a)
    leaves = cost.clone().requires_grad_(), a.clone().requires_grad_()
    whole = torch.autograd.grad(loss(*leaves).sum(), leaves)
    for x, y in zip(each, whole, strict=True):
        torch.testing.assert_close(x, y)


def test_forward_mode_runs_on_the_reference() -> None:
    cost, a = torch.rand(4, 5), torch.full((4,), 0.25)
    of_cost, of_a = torch.rand(4, 5), torch.tensor([0.1, -0.1, 0.2, -0.2])
    plain = ops.emd(cost, a)
    assert plain.plan is not None
    with forward_ad.dual_level():
        inputs = forward_ad.make_dual(cost, of_cost), forward_ad.make_dual(a, of_a)
        _, change = forward_ad.unpack_dual(ops.emd(*inputs).value)
        with pytest.raises(NotImplementedError, match="forward-mode derivatives on the reference"):
            ops.emd(*inputs, backend="cpu")
    expected = (plain.plan * of_cost).sum() + (plain.f * of_a).sum()
    assert change.item() == pytest.approx(expected.item(), rel=1e-5)


def test_meta_tensors_have_shapes() -> None:
    result = ops.emd(torch.empty(2, 3, 5, device="meta"))
    assert result.plan is not None
    assert (result.plan.shape, result.f.shape, result.g.shape) == ((2, 3, 5), (2, 3), (2, 5))
    assert (result.value.shape, result.n_iter.shape, result.status.shape) == ((2,),) * 3


def test_threads_do_not_change_the_bits() -> None:
    cost = torch.rand(9, 33, 20)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(ops.emd(cost))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
