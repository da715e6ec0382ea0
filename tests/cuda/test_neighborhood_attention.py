"""The CUDA kernels on a GPU: right, as accurate as SDPA, deterministic, in graphs, large, lean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from saccade import ops

from .neighborhood_attention_problems import CASES, Case, Tensors, dense, ids, make

pytestmark = pytest.mark.cuda

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def _dtype_id(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _attend(case: Case, tensors: Tensors, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    kernel, stride, dilation, causal, scale = case.sizes()
    names = ("bias", "additional_keys", "additional_values")
    return ops.neighborhood_attention(
        tensors["query"], tensors["key"], tensors["value"], tuple(kernel),
        stride=tuple(stride), dilation=tuple(dilation), is_causal=tuple(map(bool, causal)),
        scale=scale, **{name: tensors.get(name) for name in names},
        return_lse=True, backend="cuda", **options,
    )  # fmt: skip


def _run(case: Case, tensors: Tensors) -> tuple[Tensors, Tensors]:
    inputs = {
        k: v.clone().requires_grad_() for k, v in tensors.items() if not k.startswith("grad_")
    }
    out, lse = _attend(case, inputs)
    grads = torch.autograd.grad(
        (out, lse), list(inputs.values()), (tensors["grad_out"], tensors["grad_lse"])
    )
    return {"out": out.detach(), "lse": lse.detach()}, dict(zip(inputs, grads, strict=True))


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).abs().max() / (1e-3 + expected.abs().max()))


@pytest.mark.parametrize("dtype", DTYPES, ids=_dtype_id)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_agrees_with_the_definition(case: Case, dtype: torch.dtype) -> None:
    tensors = make(case, dtype, device="cuda")
    outputs, grads = _run(case, tensors)
    expected_outputs, expected_grads = dense(case, tensors)
    unit = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps / 2
    for name, expected in expected_outputs.items():
        assert _error(outputs[name], expected) < 3 * unit, name
    for name, expected in expected_grads.items():
        assert _error(grads[name], expected) < 6 * unit, name


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=_dtype_id)
def test_half_types_are_as_accurate_as_sdpa(dtype: torch.dtype) -> None:
    # the window is the whole image, so both compute the same attention
    case = Case("full", (14, 14), (14, 14), heads=4, batch=2, dim=64)
    tensors = make(case, dtype, device="cuda")
    tensors["grad_lse"] = torch.zeros_like(tensors["grad_lse"])
    outputs, grads = _run(case, tensors)

    def sdpa(kind: torch.dtype) -> tuple[torch.Tensor, ...]:
        inputs = [tensors[k].to(kind).clone().requires_grad_() for k in ("query", "key", "value")]
        flat = [x.flatten(1, 2).transpose(1, 2) for x in inputs]
        out = F.scaled_dot_product_attention(*flat).transpose(1, 2).unflatten(1, case.dims)
        grads = torch.autograd.grad(out, inputs, tensors["grad_out"].to(kind))
        return (out.detach(), *grads)

    truth, peer = sdpa(torch.float64), sdpa(dtype)
    ours = (outputs["out"], grads["query"], grads["key"], grads["value"])
    for mine, theirs, true in zip(ours, peer, truth, strict=True):
        assert _error(mine, true) <= 2 * _error(theirs, true)


@pytest.mark.parametrize("case", [c for c in CASES if c.bias or c.extra], ids=ids)
def test_same_bits_twice(case: Case) -> None:
    tensors = make(case, torch.bfloat16, device="cuda")
    for one, other in zip(_run(case, tensors), _run(case, tensors), strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_nan_reaches_only_the_queries_that_see_it() -> None:
    case = Case("nan", (9, 10), (3, 3), dim=8)
    tensors = make(case, torch.float32, device="cuda")
    tensors["value"][0, 4, 5] = torch.nan
    out, _ = _attend(case, tensors)
    reached = out.isnan().any(-1)[0, :, :, 0].nonzero().tolist()
    assert reached == [[x, y] for x in (3, 4, 5) for y in (4, 5, 6)]


def test_empty_batch() -> None:
    case = Case("empty", (6, 6), (3, 3), batch=0, dim=32, bias=True)
    outputs, grads = _run(case, make(case, torch.float32, device="cuda"))
    assert outputs["out"].shape == (0, 6, 6, 1, 32)
    assert not grads["bias"].any()


def test_cuda_graph_replays() -> None:
    case = Case("graph", (14, 14), (7, 7), heads=2, batch=2, dim=32)
    tensors = make(case, torch.bfloat16, device="cuda")
    expected, _ = _attend(case, tensors)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, _ = _attend(case, tensors)
    out.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, expected)


def test_a_stream_of_ones_own() -> None:
    case = Case("stream", (28, 28), (7, 7), heads=2, batch=2, dim=32)
    tensors = make(case, torch.float16, device="cuda")
    expected, _ = _attend(case, tensors)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        late = {name: tensor.clone() for name, tensor in tensors.items()}
        out, _ = _attend(case, late)
    stream.synchronize()
    assert torch.equal(out, expected)


def test_memory_is_of_the_order_of_the_inputs() -> None:
    # a tensor is 12.8 MB; the scores of all windows would be 39 MB even in float32
    case = Case("memory", (56, 56), (7, 7), heads=2, batch=32, dim=32)
    tensors = make(case, torch.bfloat16, device="cuda")
    inputs = [tensors[k].contiguous().requires_grad_() for k in ("query", "key", "value")]
    size = inputs[0].numel() * inputs[0].element_size()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = ops.neighborhood_attention(*inputs, (7, 7), backend="cuda")
    out.backward(tensors["grad_out"])
    torch.cuda.synchronize()
    # out, three gradients, and lse, its gradient and delta, which are 1/16 of it each
    assert torch.cuda.max_memory_allocated() - before < 5.5 * size


@pytest.mark.slow
def test_more_than_2_to_31_elements() -> None:
    length, heads, dim = 2**20 + 3, 33, 64
    shape = (1, length, heads, dim)
    assert length * heads * dim > 2**31
    query, key, value = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    value.requires_grad_()
    out = ops.neighborhood_attention(query, key, value, 5, backend="cuda")
    tail = [x[:, -64:].detach() for x in (query, key, value)]
    expected = ops.neighborhood_attention(*tail, 5, backend="cuda")
    # the last 62 tokens have the same windows in both; tiles begin elsewhere, and so do sums
    torch.testing.assert_close(out[:, -60:].detach(), expected[:, -60:], atol=1e-2, rtol=2e-2)
    out.backward(torch.ones_like(out))
    assert torch.isfinite(value.grad[:, -64:]).all()
    # rows of the softmax sum to one, so the gradients of value sum to the number of queries
    total = value.grad[:, -(2**15) :, -1, 0].float().sum()
    assert abs(float(total) - 2**15) < 2**15 * 1e-2
