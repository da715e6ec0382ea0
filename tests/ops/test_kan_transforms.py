"""What torch does to `kan_linear`: opcheck, compile, export, vmap, forward mode, autocast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn

from saccade import _load
from saccade.ops import group_rational, kan_linear
from saccade.ops._kan_checks import options as schema_options

from .kan_cases import CASES, draw

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

SOME = ["bspline-3-zero", "gaussian", "rswaf", "chebyshev", "fourier-constant", "morlet"]


@pytest.fixture
def _dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def schema_arguments(name: str, extra: bool, layout: str) -> tuple[Any, ...]:
    problem = draw(CASES[name], 6, 3, 4, extra)
    tensors = {k: t.float() for k, t in problem.tensors.items()}
    constants = dict(problem.constants)
    basis = constants.pop("basis")
    x, weight = tensors.pop("x"), tensors.pop("weight")
    base, bias = tensors.pop("base_weight", None), tensors.pop("bias", None)
    found = schema_options(x, basis, {**tensors, **constants}, weight.shape)
    points, scales = found.points, found.scales
    if basis == "wavelet":
        assert points is not None and scales is not None  # noqa: PT018
        points, scales = points[None], scales[None]
    x, weight = x[None], weight[None]
    if layout == "permuted":
        x = x.mT.contiguous().mT
        weight = weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    base = None if base is None else base[None]
    bias = None if bias is None else bias[None]
    return x, weight, base, bias, points, scales, found.basis, list(found.options)


@pytest.mark.parametrize("layout", ["contiguous", "permuted"])
@pytest.mark.parametrize("extra", [False, True], ids=["plain", "base-and-bias"])
@pytest.mark.parametrize("name", SOME)
def test_opcheck(name: str, extra: bool, layout: str) -> None:
    arguments = schema_arguments(name, extra, layout)
    torch.library.opcheck(torch.ops.saccade.kan_forward.default, arguments)
    x, weight, base, bias, points, scales, basis, options = arguments
    grad_out = torch.randn_like(torch.ops.saccade.kan_forward(*arguments))
    present = (x, weight, base, bias, points, scales)
    for wanted in ([int(t is not None) for t in present], [1, 0, 0, 0, 0, 0]):
        torch.library.opcheck(
            torch.ops.saccade.kan_backward.default,
            (grad_out, x, weight, base, points, scales, basis, options, wanted),
        )


def test_opcheck_of_rational_functions() -> None:
    x, a, b = torch.randn(3, 2, 5), torch.randn(1, 6), torch.randn(2, 4)
    torch.library.opcheck(torch.ops.saccade.kan_rational_forward.default, (x, a, b))
    torch.library.opcheck(torch.ops.saccade.kan_rational_backward.default, (x, x, a, b))


@pytest.mark.usefixtures("_dynamo")
@pytest.mark.parametrize("name", SOME)
def test_compiles_in_one_graph_with_dynamic_rows(name: str) -> None:
    case = CASES[name]
    _, *rest = draw(case, 4, 3, 5, True).tensors.items()
    leaves = {k: t.requires_grad_() for k, t in rest}
    constants = draw(case, 1, 1, 1, True).constants

    def layer(x: Tensor) -> Tensor:
        return kan_linear(x, **leaves, **constants).sin() + group_rational(
            x, torch.ones(1, 6, dtype=x.dtype), torch.ones(1, 4, dtype=x.dtype)
        ).sum(-1, keepdim=True)

    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    for rows in (4, 9, 17):
        x = torch.randn(rows, 3, dtype=torch.float64, requires_grad=True)
        inputs = (x, *leaves.values())
        found = torch.autograd.grad(compiled(x).sum(), inputs)
        wanted = torch.autograd.grad(layer(x).sum(), inputs)
        torch.testing.assert_close(found, wanted)
    assert counter.frame_count == 1


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return kan_linear(x, self.weight, basis="bspline")


def test_export_with_dynamic_rows() -> None:
    layer = _Layer()
    program = torch.export.export(
        layer, (torch.randn(4, 3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    x = torch.randn(11, 3)
    torch.testing.assert_close(program.module()(x), layer(x))
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    assert any("saccade.kan_forward" in graph.code for graph in graphs)


def test_vmap_over_inputs_and_over_weights() -> None:
    x, weight = torch.randn(4, 6, 3), torch.randn(4, 5, 3, 8)

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return kan_linear(x, weight, basis="gaussian")

    found = torch.func.vmap(layer)(x, weight)
    torch.testing.assert_close(found, torch.stack([layer(*p) for p in zip(x, weight, strict=True)]))
    shared = torch.func.vmap(layer, in_dims=(1, None))(x, weight[0])
    torch.testing.assert_close(shared, layer(x, weight[0]).transpose(0, 1))
    gradient = torch.func.grad(lambda w, x: layer(x, w).square().sum())
    each = torch.stack([gradient(weight[0], row) for row in x])
    torch.testing.assert_close(torch.func.vmap(gradient, in_dims=(None, 0))(weight[0], x), each)


def test_forward_mode_runs_on_the_reference() -> None:
    x, weight = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, 8, dtype=torch.float64)
    tangent = torch.randn_like(x)
    found = torch.func.jvp(lambda x: kan_linear(x, weight, basis="rswaf"), (x,), (tangent,))[1]
    step = 1e-6
    ahead, behind = (kan_linear(x + s * step * tangent, weight, basis="rswaf") for s in (1, -1))
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)


def test_autocast_keeps_the_basis_wide_and_its_gradients() -> None:
    x = torch.randn(9, 16, requires_grad=True)
    weight = torch.randn(8, 16, 8, requires_grad=True)
    centres = torch.linspace(-2, 2, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = kan_linear(x, weight, basis="gaussian", centres=centres, backend="cpu")
    assert y.dtype == torch.bfloat16
    grads = torch.autograd.grad(y.float().sum(), (x, weight, centres))
    assert [g.dtype for g in grads] == [torch.float32] * 3
    exact = kan_linear(x.double(), weight.bfloat16().double(), basis="gaussian", centres=centres)
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-4)
