"""The CUDA kernels' source, run on the CPU, against the reference in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from saccade.reference.kan import group_rational

from .kan_emulation import backward, declare, forward, rational
from .kan_problems import CASES, CHEBYSHEV, NAMES, Case, expected, ids, make

# Largest error by largest value. float32 products are three of TF32; recurrences and angles of high
# functions lose some digits more.
FLOAT32, FLOAT32_GRADIENT = 2e-6, 4e-6
# The terms of a width's gradient cancel.
FLOAT32_PARAMETER = 1e-5
HALVES = [
    case
    for case in CASES
    if case.name in ("bspline-2-clamp", "bspline-3-zero", "rswaf-widths", "fourier", "meyer")
]


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return declare(emulate("kan"))


def run(
    library: ctypes.CDLL, case: Case, tensors: list[Tensor | None], grad_out: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    x, weight, base, bias, points, scales = tensors
    layer = (points, scales, case.basis, case.options)
    y = forward(library, x, weight, base, bias, *layer)
    return y, backward(library, grad_out, x, weight, base, *layer, case.wanted)


def error(found: Tensor, truth: Tensor) -> float:
    assert found.shape == truth.shape
    return float((found.double() - truth).abs().max() / (1e-3 + truth.abs().max()))


def grad_like(case: Case, dtype: torch.dtype) -> Tensor:
    heads, rows, _, outputs, _ = case.sizes
    return torch.randn(heads, rows, outputs).to(dtype)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_float32(library: ctypes.CDLL, case: Case) -> None:
    tensors, grad_out = make(case, torch.float32), grad_like(case, torch.float32)
    y, grads = run(library, case, tensors, grad_out)
    true_y, true_grads = expected(case, tensors, grad_out)
    assert error(y, true_y) < FLOAT32
    for name, grad, truth in zip(NAMES, grads, true_grads, strict=True):
        assert (grad is None) == (truth is None), name
        if grad is not None:
            limit = FLOAT32_PARAMETER if name in ("points", "scales") else FLOAT32_GRADIENT
            assert error(grad, truth) < limit, name


@pytest.mark.parametrize("case", HALVES, ids=ids)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_types(library: ctypes.CDLL, case: Case, dtype: torch.dtype) -> None:
    tensors, grad_out = make(case, dtype), grad_like(case, dtype)
    y, grads = run(library, case, tensors, grad_out)
    true_y, true_grads = expected(case, tensors, grad_out)
    # features are rounded for the product, and the sum once more
    unit = torch.finfo(dtype).eps / 2
    assert error(y, true_y) < 2.5 * unit
    for name, grad, truth in zip(NAMES, grads, true_grads, strict=True):
        if grad is not None:
            assert error(grad, truth) < 2.5 * unit, name


def test_float32_x_with_a_half_weight(library: ctypes.CDLL) -> None:
    case = Case("autocast", CHEBYSHEV)
    tensors, grad_out = make(case, torch.bfloat16, torch.float32), grad_like(case, torch.bfloat16)
    y, grads = run(library, case, tensors, grad_out)
    true_y, true_grads = expected(case, tensors, grad_out)
    assert (y.dtype, grads[0].dtype, grads[1].dtype) == (
        torch.bfloat16, torch.float32, torch.bfloat16,
    )  # fmt: skip
    assert error(y, true_y) < 1e-2
    # nothing but grad_out and weight is rounded on the way to grad_x
    assert error(grads[0], true_grads[0]) < FLOAT32_GRADIENT


def test_weights_in_kernel_layout(library: ctypes.CDLL) -> None:
    case = Case("layout", CHEBYSHEV, sizes=(2, 5, 3, 4, 5))
    tensors, grad_out = make(case, torch.bfloat16), grad_like(case, torch.bfloat16)
    y, grads = run(library, case, tensors, grad_out)
    permuted = list(tensors)
    permuted[1] = tensors[1].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    other_y, other_grads = run(library, case, permuted, grad_out)
    assert torch.equal(y, other_y)
    assert other_grads[1].stride() == permuted[1].stride()
    assert torch.equal(grads[1], other_grads[1])


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.name.startswith(("split", "bspline-3-clamp", "meyer"))],
    ids=ids,
)
def test_same_bits_whatever_the_order_of_threads_and_blocks(
    library: ctypes.CDLL, case: Case
) -> None:
    tensors, grad_out = make(case, torch.bfloat16), grad_like(case, torch.bfloat16)
    y, grads = run(library, case, tensors, grad_out)
    library.set_reversed(1)
    try:
        other_y, other_grads = run(library, case, tensors, grad_out)
    finally:
        library.set_reversed(0)
    assert torch.equal(y, other_y)
    for one, other in zip(grads, other_grads, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.sizes[1] in (5, 37) and c.name != "bspline-far"], ids=ids
)
def test_nan_reaches_its_row_alone(library: ctypes.CDLL, case: Case) -> None:
    tensors = make(case, torch.float32)
    tensors[0][0, 2, 1] = torch.nan
    x, weight, base, bias, points, scales = tensors
    y = forward(library, x, weight, base, bias, points, scales, case.basis, case.options)
    rows = y.isnan().all(-1)
    assert rows.nonzero().tolist() == [[0, 2]]
    assert not y[~rows].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "numerator", "denominator"),
    [
        ((5, 3, 7), (1, 6), (3, 4)),
        ((2, 1, 9000), (1, 1), (1, 1)),
        ((3, 2, 16), (2, 9), (2, 8)),
        ((3, 2, 5), (2, 4), (1, 0)),
    ],
    ids=["kat", "long", "highest-orders", "polynomial"],
)
def test_rational(
    library: ctypes.CDLL,
    shape: tuple[int, ...],
    numerator: tuple[int, int],
    denominator: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    tensors = [torch.randn(size).to(dtype) for size in (shape, numerator, denominator)]
    tensors[0][0, 0, 0] = 0
    grad_out = torch.randn(shape).to(dtype)
    results = rational(library, grad_out, *tensors)
    leaves = [tensor.double().requires_grad_() for tensor in tensors]
    y = group_rational(*leaves)
    truths = [y.detach(), *torch.autograd.grad(y, leaves, grad_out.double(), allow_unused=True)]
    limit = 2e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    for result, truth in zip(results, truths, strict=True):
        if result.numel():
            assert error(result, truth) < limit
