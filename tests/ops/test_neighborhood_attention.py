"""Every rung against the reference in float64: results, log-sum-exp and every gradient."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

import saccade
from saccade import ops, reference

pytestmark = pytest.mark.rungs("reference", "cpu", "cuda", "triton")

# One place for what a type may be off, absolute and relative, against float64 on the same inputs.
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 3e-5,
    torch.float16: 6e-3,
    torch.bfloat16: 5e-2,
}

# name: dims, kernel, stride, dilation, causal, heads, kv_heads, head_dim, bias, additional keys
CASES = {
    "1d": ((13,), (5,), (1,), (1,), (False,), 2, 2, 8, False, 0),
    "1d-one-token": ((1,), (1,), (1,), (1,), (False,), 1, 1, 1, True, 1),
    "1d-even-stride": ((17,), (6,), (4,), (2,), (False,), 2, 1, 5, True, 0),
    "1d-causal": ((19,), (7,), (3,), (2,), (True,), 3, 3, 7, True, 2),
    "1d-long": ((301,), (64,), (1,), (3,), (False,), 1, 1, 16, True, 0),
    "1d-wide-window": ((150,), (149,), (1,), (1,), (True,), 1, 1, 4, False, 5),
    "2d": ((9, 11), (7, 7), (1, 1), (1, 1), (False, False), 2, 2, 32, True, 0),
    "2d-dilated": ((14, 14), (7, 7), (1, 1), (2, 2), (False, False), 2, 2, 32, False, 0),
    "2d-uneven-groups": ((11, 17), (3, 5), (1, 1), (3, 2), (False, False), 2, 2, 8, True, 0),
    "2d-mixed": ((7, 13), (4, 3), (2, 3), (1, 4), (True, False), 4, 2, 9, True, 3),
    "2d-thin": ((1, 23), (1, 4), (1, 2), (1, 5), (False, True), 2, 2, 24, True, 0),
    "2d-tall": ((23, 1), (5, 1), (1, 1), (2, 1), (False, False), 5, 1, 3, True, 1),
    "2d-kernel-one": ((5, 7), (1, 1), (1, 1), (5, 3), (False, False), 2, 2, 8, True, 0),
    "2d-full": ((5, 6), (5, 6), (1, 1), (1, 1), (False, False), 2, 2, 8, True, 2),
    "2d-wide-head": ((5, 7), (3, 3), (1, 1), (1, 1), (False, False), 1, 1, 131, True, 0),
    "3d": ((5, 6, 7), (3, 3, 5), (1, 1, 1), (1, 2, 1), (False, False, False), 2, 2, 8, True, 0),
    "3d-mixed": ((4, 5, 7), (2, 5, 3), (2, 1, 3), (2, 1, 2), (True, False, True), 4, 1, 5, True, 2),
    "3d-thin": ((3, 1, 8), (2, 1, 3), (1, 1, 1), (1, 1, 2), (False, True, False), 1, 1, 8, True, 0),
}  # fmt: skip

DTYPES = list(TOLERANCE)


def make_inputs(case: str, dtype: torch.dtype, device: torch.device) -> list[Tensor | None]:
    """Inputs of a case: query, key, value, bias, additional keys, additional values."""
    dims, kernel, _, _, _, heads, kv_heads, head_dim, bias, extra = CASES[case]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(device, dtype).requires_grad_()

    return [
        draw(2, *dims, heads, head_dim),
        draw(2, *dims, kv_heads, head_dim),
        draw(2, *dims, kv_heads, head_dim),
        draw(heads, *(2 * k - 1 for k in kernel)) if bias else None,
        draw(2, extra, kv_heads, head_dim) if extra else None,
        draw(2, extra, kv_heads, head_dim) if extra else None,
    ]


def attend(
    case: str, inputs: list[Tensor | None], backend: str, scale: float = 0.4
) -> tuple[Tensor, Tensor]:
    """The public function on a case."""
    _, kernel, stride, dilation, causal, *_ = CASES[case]
    query, key, value, bias, additional_keys, additional_values = inputs
    return ops.neighborhood_attention(
        query,
        key,
        value,
        kernel,
        stride=stride,
        dilation=dilation,
        is_causal=causal,
        scale=scale,
        bias=bias,
        additional_keys=additional_keys,
        additional_values=additional_values,
        return_lse=True,
        backend=backend,
    )


def check_case(case: str, dtype: torch.dtype, backend: str, device: torch.device) -> None:
    """Results and every gradient of a rung against the reference in float64."""
    inputs = make_inputs(case, dtype, device)
    exact = [None if t is None else t.detach().double().requires_grad_() for t in inputs]
    out, lse = attend(case, inputs, backend)
    expected, expected_lse = attend(case, exact, "reference")
    assert (out.dtype, lse.dtype) == (dtype, torch.promote_types(dtype, torch.float32))
    assert out.is_contiguous()
    assert lse.is_contiguous()

    weight, weight_lse = torch.randn_like(out), torch.randn_like(lse)
    torch.autograd.backward((out, lse), (weight, weight_lse))
    torch.autograd.backward((expected, expected_lse), (weight.double(), weight_lse.double()))
    pairs = {"out": (out, expected), "lse": (lse, expected_lse)}
    names = ("query", "key", "value", "bias", "additional_keys", "additional_values")
    for name, got, true in zip(names, inputs, exact, strict=True):
        if got is not None and true is not None:
            assert got.grad is not None
            assert got.grad.dtype == dtype
            pairs[f"gradient of {name}"] = (got.grad, true.grad)
    limit = TOLERANCE[dtype]
    for name, (got, true) in pairs.items():
        # sums over many queries grow with their terms: relative to the largest entry
        size = max(1.0, true.abs().max().item())
        torch.testing.assert_close(
            got.double(),
            true,
            rtol=limit,
            atol=limit * size,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(
    case: str, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    if device.type == "cuda" and dtype == torch.float64:
        pytest.skip("the GPU kernels have no float64")
    check_case(case, dtype, backend, device)


@pytest.mark.skipif("SACCADE_ISA" not in os.environ, reason="SACCADE_ISA is not set")
def test_the_instruction_set_is_the_one_asked_for() -> None:
    assert saccade.info()["isa"]["chosen"] == os.environ["SACCADE_ISA"]


def _layouts(tensor: Tensor) -> dict[str, Tensor]:
    permuted = tensor.movedim(-2, 1).contiguous().movedim(1, -2)
    padded = torch.cat([tensor, tensor], dim=-1)[..., : tensor.shape[-1]]
    backwards = tensor.movedim(-1, 0).contiguous().movedim(0, -1)
    return {
        "heads-first": permuted,
        "padded": padded,
        "channels-first": backwards,
        "expanded": tensor[:1].expand_as(tensor),
    }


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("layout", ["heads-first", "padded", "channels-first", "expanded"])
def test_strides_do_not_matter(layout: str, backend: str, device: torch.device) -> None:
    plain = make_inputs("2d-mixed", torch.float32, device)
    with torch.no_grad():
        strided = [
            None if t is None else _layouts(t)[layout] if i != 3 else t.mT.contiguous().mT
            for i, t in enumerate(plain)
        ]
    given = [None if t is None else t.requires_grad_() for t in strided]
    plain = [None if t is None else t.detach().contiguous().requires_grad_() for t in strided]
    results = []
    for inputs in (given, plain):
        out, lse = attend("2d-mixed", inputs, backend)
        # a sum gives an expanded gradient of the output
        grads = torch.autograd.grad(out.sum() + lse.sum(), [t for t in inputs if t is not None])
        results.append((out, lse, *grads))
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("wanted", range(6))
def test_one_gradient_alone(wanted: int, backend: str, device: torch.device) -> None:
    case = "2d-mixed"
    inputs = make_inputs(case, torch.float32, device)
    out, _ = attend(case, inputs, backend)
    given = [t for t in inputs if t is not None]
    expected = torch.autograd.grad(out.square().sum(), given)[wanted]
    alone = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(given)]
    out, _ = attend(case, list(alone), backend)
    assert torch.equal(torch.autograd.grad(out.square().sum(), alone[wanted])[0], expected)


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("case", ["1d-causal", "2d-thin", "2d-tall", "3d-mixed"])
def test_gradcheck(case: str, backend: str, device: torch.device) -> None:
    given = make_inputs(case, torch.float64, device)

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        feed = iter(tensors)
        return attend(case, [None if t is None else next(feed) for t in given], backend)

    inputs = tuple(t for t in given if t is not None)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.rungs("cpu")
def test_gradcheck_entry_by_entry(backend: str) -> None:
    query, key, value, bias, more_keys, more_values = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((1, 2, 3, 2, 2), *[(1, 2, 3, 1, 2)] * 2, (2, 3, 3), *[(1, 1, 1, 2)] * 2)
    )

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value, bias, more_keys, more_values = tensors
        return ops.neighborhood_attention(
            query,
            key,
            value,
            2,
            bias=bias,
            additional_keys=more_keys,
            additional_values=more_values,
            return_lse=True,
            backend=backend,
        )

    inputs = (query, key, value, bias, more_keys, more_values)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.rungs("cpu")
def test_third_derivative(backend: str) -> None:
    grads = []
    for rung in (backend, "reference"):
        torch.manual_seed(0)
        x = torch.randn(1, 5, 1, 2, dtype=torch.float64, requires_grad=True)
        result = ops.neighborhood_attention(x, 2 * x, x.sin(), 3, backend=rung)
        for _ in range(3):
            (result,) = torch.autograd.grad(result.square().sum(), x, create_graph=True)
        grads.append(result)
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("poisoned", ["query", "key", "value"])
def test_nan_goes_where_it_is_attended(poisoned: str, backend: str, device: torch.device) -> None:
    tensors = {
        name: torch.randn(1, 13, 14, 2, 16, device=device) for name in ("query", "key", "value")
    }
    tensors[poisoned][0, 6, 7, 1, 3] = float("nan")
    out = ops.neighborhood_attention(**tensors, kernel_size=3, dilation=2, backend=backend)
    expected = torch.zeros(13, 14, 2, dtype=torch.bool, device=device)
    if poisoned == "query":
        expected[6, 7, 1] = True
    else:
        # the middle of its dilation group, which is far enough from the borders for plain windows
        expected[4:9:2, 5:10:2, 1] = True
    assert torch.equal(out.isnan().any(-1)[0], expected)


def test_minus_infinity_in_the_bias_masks(backend: str, device: torch.device) -> None:
    query, key, value = (
        torch.randn(1, 8, 1, 4, device=device, requires_grad=True) for _ in range(3)
    )
    bias = torch.zeros(1, 5, device=device)
    bias[0, 3:] = float("-inf")
    masked = ops.neighborhood_attention(query, key, value, 3, bias=bias, backend=backend)
    causal = ops.neighborhood_attention(query, key, value, 2, is_causal=True, backend=backend)
    # the last window is shifted to the left and keeps three keys
    torch.testing.assert_close(masked[:, :-1], causal[:, :-1], rtol=1e-5, atol=1e-6)
    grads = torch.autograd.grad(masked.square().sum(), (query, key, value))
    assert all(grad.isfinite().all() for grad in grads)


def test_empty_batch(backend: str, device: torch.device) -> None:
    query = torch.randn(0, 5, 6, 2, 8, device=device, requires_grad=True)
    bias = torch.randn(2, 5, 5, device=device, requires_grad=True)
    more = torch.randn(0, 3, 2, 8, device=device, requires_grad=True)
    out, lse = ops.neighborhood_attention(
        query,
        query,
        query,
        3,
        bias=bias,
        additional_keys=more,
        additional_values=more,
        return_lse=True,
        backend=backend,
    )
    assert (out.shape, lse.shape) == (query.shape, query.shape[:-1])
    grads = torch.autograd.grad(out.sum() + lse.sum(), (query, bias, more))
    assert [grad.shape for grad in grads] == [query.shape, bias.shape, more.shape]
    assert not grads[1].any()


@pytest.mark.rungs("reference", "cpu")
def test_meta_tensors_have_shapes(backend: str) -> None:
    x = torch.empty(2, 5, 6, 4, 8, device="meta", dtype=torch.bfloat16)
    out, lse = ops.neighborhood_attention(x, x, x, 3, return_lse=True, backend=backend)
    assert (out.shape, out.dtype) == (x.shape, torch.bfloat16)
    assert (lse.shape, lse.dtype) == (x.shape[:-1], torch.float32)


@pytest.mark.rungs("reference", "cpu")
def test_no_additional_keys_at_all(backend: str) -> None:
    x = torch.randn(1, 6, 2, 8)
    none = torch.randn(1, 0, 2, 8, requires_grad=True)
    out = ops.neighborhood_attention(
        x, x, x, 3, additional_keys=none, additional_values=none, backend=backend
    )
    torch.testing.assert_close(out, ops.neighborhood_attention(x, x, x, 3, backend=backend))
    assert torch.autograd.grad(out.sum(), none)[0].shape == none.shape


@pytest.mark.parametrize("scale", [0.0, -1.5, 3, 1e-30])
def test_scale_is_the_number_itself(scale: float, backend: str, device: torch.device) -> None:
    inputs = make_inputs("2d", torch.float32, device)
    got = attend("2d", inputs, backend, scale)
    query, key, value, bias, *_ = inputs
    expected = reference.neighborhood_attention(
        query, key, value, (7, 7), (1, 1), (1, 1), (0, 0), scale, bias
    )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("case", ["1d-long", "2d-mixed", "3d-mixed"])
def test_large_logits_do_not_overflow(case: str, backend: str, device: torch.device) -> None:
    inputs = [
        None if t is None else t.detach() * 40 for t in make_inputs(case, torch.float32, device)
    ]
    out, lse = attend(case, inputs, backend)
    exact, exact_lse = attend(
        case, [None if t is None else t.double() for t in inputs], "reference"
    )
    assert exact_lse.max() > 500
    torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(out.double(), exact, rtol=1e-3, atol=2e-2)
