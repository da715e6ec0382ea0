"""What torch does to the spiking operators: opcheck, compile, export, autocast, vmap."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import _load, ops

needs_kernels = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
BACKENDS = ["reference", pytest.param("cpu", marks=needs_kernels)]
STATIC = (2.5, 1.0, -0.2, 2.0, 1, True, False, 1, False)


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("full", [False, True], ids=["plain", "everything"])
@pytest.mark.parametrize("spike_code", [0, 1, 2])
def test_opcheck(spike_code: int, full: bool, dtype: torch.dtype) -> None:
    state = torch.promote_types(dtype, torch.float32)
    x = torch.randn(3, 4, 3, 2).to(dtype).transpose(1, 3).contiguous().transpose(1, 3)
    channels = [torch.rand(3).to(state) + 1 for _ in range(4)]
    rest = (torch.randn(4, 3, 2).to(state), *channels, x + 1) if full else (None,) * 6
    arguments = (x, *rest, *STATIC, full, spike_code, 6)
    torch.library.opcheck(torch.ops.saccade.lif_forward.default, arguments)
    grads = (torch.randn_like(x), torch.randn(4, 3, 2).to(state) if full else None, None)
    wanted = 0b1111111 if full else 0b11
    torch.library.opcheck(
        torch.ops.saccade.lif_backward.default, (*grads, x, *rest, *STATIC, wanted)
    )


@needs_kernels
def test_opcheck_of_the_linear_layer() -> None:
    spikes = torch.randint(0, 256, (5, 2), dtype=torch.uint8)
    op = torch.ops.saccade.spike_linear.default
    torch.library.opcheck(op, (spikes, torch.randn(3, 11), torch.randn(3)))
    torch.library.opcheck(op, (spikes, torch.randn(11, 3).T.double(), None))


# at most 8 spikes on the last axis are one byte, and torch compiles anew for a size of 1
SIZES = [(4, 3, 5, 17), (9, 2, 11, 18), (2, 10, 6, 13)]


@needs_kernels
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("kind", ["plain", "per-channel", "bits"])
def test_compiles_once_for_all_sizes(kind: str, compiler: str) -> None:
    if compiler == "inductor" and kind != "plain":
        pytest.skip("one kind through the C++ compiler is enough")

    def function(x: Tensor, w: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        if kind == "per-channel":
            return ops.affine_lif(x, w, w, residual=x.sin(), tau=tau, backend="cpu")
        return ops.lif(x, spike_dtype="bits" if kind == "bits" else None, backend="cpu")

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=compiler)
    for i, (steps, batch, channels, length) in enumerate(SIZES):
        inputs = [
            torch.randn(steps, batch, channels, length).requires_grad_(),
            (torch.rand(channels) + 0.5).requires_grad_(),
            (torch.rand(channels) + 1.5).requires_grad_(),
        ]
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = compiled(*inputs)
        expected: tuple[Tensor, ...] = function(*inputs)
        wanted = inputs if kind == "per-channel" else inputs[:1]
        for results in (got, expected):
            loss = results[1].square().sum()
            if kind != "bits":
                loss = loss + results[0].sum()
            if results is got:
                got_grads = torch.autograd.grad(loss, wanted)
            else:
                expected_grads = torch.autograd.grad(loss, wanted)
        assert torch.equal(got[0], expected[0])
        torch.testing.assert_close((got[1], got_grads), (expected[1], expected_grads))


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_sizes(strict: bool) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            spikes: Tensor = ops.lif(x, tau=3.0)[0]
            return spikes

    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Net(),
        (torch.randn(4, 2, 3),),
        dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
        strict=strict,
    )
    x = torch.randn(7, 3, 5)
    assert torch.equal(program.module()(x), Net()(x))
    if _load.has("_C"):
        graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
        assert any("saccade.lif_forward" in graph.code for graph in graphs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_leaves_it_alone(backend: str) -> None:
    x = torch.randn(4, 3, 5, requires_grad=True)
    tau = torch.tensor(2.3, requires_grad=True)
    results = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            spikes, v = ops.lif(x, tau=tau, backend=backend)
            assert (spikes.dtype, v.dtype) == (torch.float32, torch.float32)
            halves = ops.lif(x.bfloat16(), tau=tau, backend=backend)
            assert (halves[0].dtype, halves[1].dtype) == (torch.bfloat16, torch.float32)
        grads = torch.autograd.grad(spikes.sum() + v.sum(), (x, tau))
        results.append((spikes, v, *halves, *grads))
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spike_dtype", [None, "bits"], ids=str)
def test_vmap_over_everything(spike_dtype: Any, backend: str) -> None:
    x, v0 = torch.randn(4, 3, 2, 5, 9), torch.randn(2, 5, 9)
    tau, weight = torch.rand(5, 3) + 1.5, torch.rand(3, 5) + 0.5

    def function(x: Tensor, v0: Tensor, tau: Tensor, weight: Tensor) -> Any:
        return ops.affine_lif(
            x, weight, weight, v0=v0, tau=tau, v_threshold=torch.tensor(0.8),
            spike_dtype=spike_dtype, store_v=True, backend=backend,
        )  # fmt: skip

    got = torch.vmap(function, in_dims=(1, None, 1, 0))(x, v0, tau, weight)
    apart = [function(x[:, i], v0, tau[:, i], weight[i]) for i in range(3)]
    for a, b in zip(got, map(torch.stack, zip(*apart, strict=True)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_every_sample(backend: str) -> None:
    x = torch.randn(3, 4, 2, 5)
    tau, threshold = torch.tensor(2.2), torch.rand(5) + 0.5

    def loss(x: Tensor, tau: Tensor, threshold: Tensor) -> Tensor:
        spikes, v = ops.lif(x, tau=tau, v_threshold=threshold, backend=backend)
        return spikes.sum() + v.square().sum()

    gradient = torch.func.grad(loss, argnums=(0, 1, 2))
    got = torch.vmap(gradient, in_dims=(0, None, None))(x, tau, threshold)
    apart = [gradient(sample, tau, threshold) for sample in x]
    for a, b in zip(got, map(torch.stack, zip(*apart, strict=True)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_forward_mode_runs_on_the_reference() -> None:
    x, tangent = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4).double()

    def loss(x: Tensor) -> Tensor:
        spikes, v = ops.lif(x)
        return (spikes * v.sum()).sum()

    _, forward = torch.func.jvp(loss, (x,), (tangent,))
    torch.testing.assert_close(forward, (torch.func.grad(loss)(x) * tangent).sum())
    if _load.has("_C"):
        with pytest.raises(NotImplementedError, match="forward-mode"):
            torch.func.jvp(lambda x: ops.lif(x, backend="cpu")[1], (x,), (tangent,))


def test_meta_tensors_have_shapes() -> None:
    x = torch.empty(4, 2, 3, 9, device="meta", dtype=torch.bfloat16)
    spikes, v, v_seq = ops.lif(x, store_v=True, tau=math.inf)
    assert (spikes.shape, spikes.dtype) == (x.shape, torch.bfloat16)
    assert (v.shape, v_seq.shape, v.dtype) == (x.shape[1:], x.shape, torch.float32)
    assert ops.lif(x, spike_dtype="bits")[0].shape == (4, 2, 3, 2)
