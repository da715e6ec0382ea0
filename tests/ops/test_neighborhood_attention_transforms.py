"""What torch does to the operator: opcheck, compile, export, autocast, vmap, torch.func."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from saccade import _load, nn, ops

pytestmark = pytest.mark.rungs("reference", "cpu")
needs_kernels = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "permuted": lambda t: t.movedim(-1, 1).contiguous().movedim(1, -1),
    "expanded": lambda t: t[:1].expand_as(t),
}


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("optional", [False, True], ids=["plain", "bias-and-additional"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: str, optional: bool, dtype: torch.dtype) -> None:
    def draw(*shape: int) -> Tensor:
        return LAYOUTS[layout](torch.randn(shape).to(dtype))

    tensors = (draw(2, 5, 6, 4, 3), draw(2, 5, 6, 2, 3), draw(2, 5, 6, 2, 3))
    more = (draw(4, 5, 3), draw(2, 2, 2, 3), draw(2, 2, 2, 3)) if optional else (None, None, None)
    static = ((3, 2), (2, 1), (1, 3), (0, 1), 0.5)
    torch.library.opcheck(torch.ops.saccade.na_forward.default, (*tensors, *more, *static))
    out, lse = torch.ops.saccade.na_forward(*tensors, *more, *static)
    grads = (LAYOUTS[layout](torch.randn_like(out)), torch.randn_like(lse))
    torch.library.opcheck(
        torch.ops.saccade.na_backward.default, (*grads, *tensors, out, lse, *more, *static)
    )


# batch, height, width, additional keys: Dynamo ties sizes that are equal in the first row
SIZES = [(7, 8, 9, 11), (3, 19, 12, 17), (10, 16, 6, 13)]


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def attend(backend: str) -> Callable[..., tuple[Tensor, Tensor]]:
    def function(x: Tensor, bias: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        return ops.neighborhood_attention(
            x,
            2 * x,
            x,
            (3, 2),
            dilation=2,
            bias=bias,
            additional_keys=more,
            additional_values=more,
            clamp=True,
            return_lse=True,
            backend=backend,
        )

    return function


def _compare(
    function: Callable[..., tuple[Tensor, Tensor]],
    compiled: Callable[..., tuple[Tensor, Tensor]],
    train: bool,
    mark: bool,
) -> None:
    for i, (batch, height, width, extra) in enumerate(SIZES):
        inputs = [
            torch.randn(shape, requires_grad=train)
            for shape in ((batch, height, width, 2, 4), (2, 5, 3), (batch, extra, 2, 4))
        ]
        if mark:
            for axis in range(3):
                torch._dynamo.mark_dynamic(inputs[0], axis)
            for axis in range(2):
                torch._dynamo.mark_dynamic(inputs[2], axis)
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = compiled(*inputs)
        expected: tuple[Tensor, ...] = function(*inputs)
        if train:
            got += torch.autograd.grad(got[0].square().sum() + got[1].sum(), inputs)
            expected += torch.autograd.grad(expected[0].square().sum() + expected[1].sum(), inputs)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_compiles_once_for_all_sizes(train: bool) -> None:
    function = attend("cpu")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    _compare(function, compiled, train, mark=False)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
def test_inductor_with_marked_sizes() -> None:
    function = attend("auto")
    _compare(function, torch.compile(function, fullgraph=True), train=True, mark=True)


@pytest.mark.usefixtures("dynamo")
def test_compiles_on_the_reference() -> None:
    x = torch.randn(2, 5, 6, 3, 4, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        return ops.neighborhood_attention(x, x, x, 3, backend="reference")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    grads = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (function, compiled)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("dynamo")
def test_compiled_layer_under_autocast() -> None:
    layer = nn.NeighborhoodAttention2d(16, 2, 3, dilation=2, rel_pos_bias=True)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for i, (batch, height, width, _) in enumerate(SIZES):
        x = torch.randn(batch, height, width, 16)
        with (
            torch._dynamo.config.patch(error_on_recompile=i > 0),
            torch.autocast("cpu", dtype=torch.bfloat16),
        ):
            got, expected = compiled(x), layer(x)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_batch_and_lengths(strict: bool) -> None:
    layer = nn.NeighborhoodAttention2d(16, 2, 3, dilation=2, rel_pos_bias=True)
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        layer,
        (torch.randn(2, 8, 9, 16),),
        dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
        strict=strict,
    )
    x = torch.randn(3, 17, 6, 16)
    torch.testing.assert_close(program.module()(x), layer(x))
    if _load.has("_C"):
        graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
        assert any("saccade.na_forward" in graph.code for graph in graphs)


def test_autocast_casts_all_but_float64(backend: str) -> None:
    x, bias = torch.randn(1, 6, 7, 2, 8, requires_grad=True), torch.randn(2, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, lse = ops.neighborhood_attention(
            x, x.half(), x.bfloat16(), 3, bias=bias, return_lse=True, backend=backend
        )
        double = ops.neighborhood_attention(*[x.double()] * 3, 3, backend=backend)
    assert (out.dtype, lse.dtype, double.dtype) == (torch.bfloat16, torch.float32, torch.float64)
    rounded = [t.bfloat16() for t in (x, x.half(), x, bias)]
    expected = ops.neighborhood_attention(*rounded[:3], 3, bias=rounded[3], backend=backend)
    assert torch.equal(out, expected)
    (grad,) = torch.autograd.grad(out.float().sum(), x)
    assert grad.dtype == torch.float32


def test_vmap_over_everything(backend: str) -> None:
    def function(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return ops.neighborhood_attention(
            query, key, value, 3, bias=bias, return_lse=True, backend=backend
        )

    query, key = torch.randn(3, 1, 4, 5, 4, 2), torch.randn(1, 4, 5, 3, 2, 2)
    value, bias = torch.randn(1, 4, 5, 2, 2), torch.randn(4, 5, 5, 3)
    got = torch.vmap(function, in_dims=(0, 3, None, 3))(query, key, value, bias)
    apart = [function(query[i], key[:, :, :, i], value, bias[..., i]) for i in range(3)]
    for a, b in zip(got, map(torch.stack, zip(*apart, strict=True)), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_of_every_sample(backend: str) -> None:
    def loss(query: Tensor, key: Tensor, bias: Tensor, more: Tensor) -> Tensor:
        out, lse = ops.neighborhood_attention(
            query,
            key,
            key,
            3,
            bias=bias,
            additional_keys=more,
            additional_values=more,
            return_lse=True,
            backend=backend,
        )
        return out.square().sum() + lse.sum()

    query, key = torch.randn(3, 1, 4, 5, 4, 2), torch.randn(1, 4, 5, 2, 2)
    bias, more = torch.randn(4, 5, 5), torch.randn(3, 1, 2, 2, 2)
    gradient = torch.func.grad(loss, argnums=(0, 1, 2, 3))
    got = torch.vmap(gradient, in_dims=(0, None, None, 0))(query, key, bias, more)
    apart = [gradient(query[i], key, bias, more[i]) for i in range(3)]
    for a, b in zip(got, map(torch.stack, zip(*apart, strict=True)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_functional_derivatives(backend: str) -> None:
    x = torch.randn(1, 4, 1, 2, dtype=torch.float64)

    def loss(rung: str) -> Callable[[Tensor], Tensor]:
        return lambda t: ops.neighborhood_attention(t, t, t, 3, backend=rung).square().sum()

    expected = torch.func.hessian(loss("reference"))(x)
    torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(loss(backend)))(x), expected)
    torch.testing.assert_close(torch.func.hessian(loss("auto"))(x), expected)
    tangent = torch.randn_like(x)
    _, forward = torch.func.jvp(loss("auto"), (x,), (tangent,))
    torch.testing.assert_close(forward, (torch.func.grad(loss(backend))(x) * tangent).sum())
