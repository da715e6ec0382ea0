"""What torch does to the operators: opcheck, compile, export, autocast, vmap, torch.func."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import _load, nn, ops
from saccade.reference.logpolar import pyramid

needs_kernels = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
ANTIALIAS = ("none", "area", "mip")

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "permuted": lambda t: t.movedim(1, -1).contiguous().movedim(-1, 1),
    "expanded": lambda t: t[:1].expand_as(t),
}


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("antialias", range(3), ids=ANTIALIAS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_of_sample(layout: str, antialias: int, dtype: torch.dtype) -> None:
    compute = torch.promote_types(dtype, torch.float32)
    image = LAYOUTS[layout](torch.randn(2, 3, 9, 8).to(dtype))
    levels = pyramid(image.to(compute)) if antialias == 2 else None
    pose = (torch.rand(2, 4, 2).to(compute) * 8, *torch.randn(2, 2, 4).to(compute).unbind(0))
    tables = (torch.arange(1, 6).to(compute), torch.arange(6).to(compute) + 0.5)
    static = (False, 0, antialias)
    forward = torch.ops.saccade.logpolar_sample_forward.default
    backward = torch.ops.saccade.logpolar_sample_backward.default
    torch.library.opcheck(forward, (image, levels, *pose, *tables, 7, *static))
    out = forward(image, levels, *pose, *tables, 7, *static)
    grad = LAYOUTS[layout](torch.randn_like(out))
    for wanted in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(backward, (grad, image, levels, *pose, *tables, *static, *wanted))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mean", [True, False], ids=["mean", "none"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_of_inverse(layout: str, mean: bool, dtype: torch.dtype) -> None:
    compute = torch.promote_types(dtype, torch.float32)
    view = LAYOUTS[layout](torch.randn(2, 4, 3, 5, 6).to(dtype))
    pose = (torch.rand(2, 4, 2).to(compute) * 8, *torch.randn(2, 2, 4).to(compute).unbind(0))
    radii = torch.arange(1, 6).to(compute)
    forward = torch.ops.saccade.logpolar_inverse_forward.default
    backward = torch.ops.saccade.logpolar_inverse_backward.default
    torch.library.opcheck(forward, (view, *pose, radii, 9, 8, False, 0, 0.5, mean, 0.0))
    out, count = forward(view, *pose, radii, 9, 8, False, 0, 0.5, mean, 0.0)
    grad = LAYOUTS[layout](torch.randn_like(out))
    for wanted in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(
            backward, (grad, count, view, *pose, radii, False, 0, 0.5, mean, *wanted)
        )


# B, N, C, H, W: Dynamo ties sizes that are equal in the first row
SIZES = [(7, 5, 3, 28, 33), (3, 6, 4, 39, 52), (10, 4, 6, 46, 26)]


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def there_and_back(antialias: str, **kwargs: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def function(image: Tensor, fixation: Tensor, theta0: Tensor) -> Tensor:
        view = ops.logpolar_sample(
            image, fixation, out_size=(6, 8), theta0=theta0, antialias=antialias, **kwargs
        )
        back = ops.logpolar_inverse(view, fixation, image.shape[2:], theta0=theta0, **kwargs)
        return back + image

    return function


def _compare(function: Any, compiled: Any, train: bool, more: int = 0) -> None:
    for i, (batch, fixations, channels, height, width) in enumerate(SIZES):
        height, width = height + more, width + more
        inputs = [
            torch.randn(batch, channels, height, width, requires_grad=train),
            (torch.rand(batch, fixations, 2) * 20).requires_grad_(train),
            torch.randn(batch, fixations, requires_grad=train),
        ]
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = (compiled(*inputs),)
        expected: tuple[Tensor, ...] = (function(*inputs),)
        if train:
            got += torch.autograd.grad(got[0].square().sum(), inputs)
            expected += torch.autograd.grad(expected[0].square().sum(), inputs)
        for a, b in zip(got, expected, strict=True):
            # a last bit of the radii may move a position by 1e-5 pixels
            torch.testing.assert_close(a, b, rtol=1e-3, atol=5e-3)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize(
    ("antialias", "train"), [("none", True), ("area", False), ("area", True), ("mip", False)]
)
def test_compiles_once_for_all_sizes(antialias: str, train: bool) -> None:
    function = there_and_back(antialias)
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    # the last level of a pyramid is one pixel for images of up to 64
    _compare(function, compiled, train, more=64 if antialias == "mip" else 0)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
def test_inductor() -> None:
    function = there_and_back("area")
    compiled = torch.compile(function, fullgraph=True, dynamic=True)
    _compare(function, compiled, train=True)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
def test_compiles_with_normalized_units_and_fixed_sizes() -> None:
    function = there_and_back("area", units="normalized", r_min=0.1, r_max=1.2)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    image, fixation, theta0 = torch.randn(2, 3, 16, 20), torch.rand(2, 4, 2), torch.randn(2, 4)
    torch.testing.assert_close(
        compiled(image, fixation, theta0), function(image, fixation, theta0), rtol=1e-3, atol=1e-3
    )


@needs_kernels
@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_batch_and_sizes(strict: bool) -> None:
    layer = nn.LogPolar((6, 8))
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        layer,
        (torch.randn(2, 3, 28, 33),),
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic}, None, None, None)[:1],
        strict=strict,
    )
    image = torch.randn(3, 3, 37, 26)
    torch.testing.assert_close(program.module()(image), layer(image), rtol=1e-3, atol=1e-3)
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    assert any("saccade.logpolar_sample_forward" in graph.code for graph in graphs)


@pytest.mark.rungs("reference", "cpu")
def test_autocast_casts_nothing(backend: str) -> None:
    image, fixation = torch.randn(1, 2, 9, 9), torch.rand(1, 3, 2) * 8
    plain = ops.logpolar_sample(image, fixation, out_size=4, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ops.logpolar_sample(image, fixation, out_size=4, backend=backend)
        half = ops.logpolar_sample(image.half(), fixation, out_size=4, backend=backend)
        back = ops.logpolar_inverse(out, fixation, 9, backend=backend)
    assert (out.dtype, half.dtype, back.dtype) == (torch.float32, torch.float16, torch.float32)
    assert torch.equal(out, plain)


@needs_kernels
def test_vmap_over_everything() -> None:
    def function(image: Tensor, fixation: Tensor, theta0: Tensor) -> tuple[Tensor, Tensor]:
        view = ops.logpolar_sample(image, fixation, out_size=(4, 5), theta0=theta0, r_max=5.0)
        return view, ops.logpolar_inverse(view, fixation, 9, theta0=theta0, r_max=5.0)

    image, fixation = torch.randn(2, 3, 9, 9, 4), torch.rand(2, 3, 2) * 8
    theta0 = torch.randn(4, 2, 3)
    got = torch.vmap(function, in_dims=(4, None, 0))(image, fixation, theta0)
    apart = [function(image[..., i], fixation, theta0[i]) for i in range(4)]
    for a, b in zip(got, map(torch.stack, zip(*apart, strict=True)), strict=True):
        torch.testing.assert_close(a, b)


@needs_kernels
@pytest.mark.parametrize("blend", ["mean", "none"])
def test_gradients_of_every_sample(blend: str) -> None:
    def loss(image: Tensor, fixation: Tensor, scale: Tensor) -> Tensor:
        view = ops.logpolar_sample(image, fixation, out_size=(4, 5), scale=scale, r_max=5.0)
        back = ops.logpolar_inverse(view, fixation, 9, scale=scale, r_max=5.0, blend=blend)
        return view.square().sum() + back.square().sum()

    image, fixation = torch.randn(3, 1, 2, 9, 9), torch.rand(3, 1, 2, 2) * 8
    scale = torch.rand(1, 2) + 0.5
    gradient = torch.func.grad(loss, argnums=(0, 1, 2))
    got = torch.vmap(gradient, in_dims=(0, 0, None))(image, fixation, scale)
    apart = [gradient(image[i], fixation[i], scale) for i in range(3)]
    for a, b in zip(got, map(torch.stack, zip(*apart, strict=True)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_forward_mode_runs_on_the_reference() -> None:
    image, fixation = torch.randn(1, 1, 7, 7).double(), torch.tensor([[[3.2, 3.4]]]).double()

    def loss(backend: str) -> Callable[[Tensor], Tensor]:
        return lambda t: ops.logpolar_sample(image, t, out_size=4, backend=backend).square().sum()

    tangent = torch.randn_like(fixation)
    _, forward = torch.func.jvp(loss("auto"), (fixation,), (tangent,))
    backward = (torch.func.grad(loss("cpu"))(fixation) * tangent).sum()
    torch.testing.assert_close(forward, backward)
    with pytest.raises(NotImplementedError, match="logpolar has forward-mode derivatives"):
        torch.func.jvp(loss("cpu"), (fixation,), (tangent,))


@needs_kernels
def test_tables_made_in_inference_mode_serve_training() -> None:
    kwargs = {"out_size": (5, 7), "r_max": 3.217}
    fixation = torch.full((1, 1, 2), 4.0)
    with torch.inference_mode():
        ops.logpolar_sample(torch.randn(1, 1, 9, 9), fixation, **kwargs)
    image = torch.randn(1, 1, 9, 9, requires_grad=True)
    ops.logpolar_sample(image, fixation, **kwargs).sum().backward()
    assert image.grad is not None
