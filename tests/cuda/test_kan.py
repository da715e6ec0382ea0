"""KAN layers on a GPU, CUDA and Triton kernels, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import saccade
from saccade import _load
from saccade.ops._kan_op import KanLinear
from saccade.reference.kan import group_rational

from .kan_problems import CASES, NAMES, Case, expected, ids, make

pytestmark = pytest.mark.cuda

# Largest error by largest value: of y and the gradients of x and the weights; of parameters, whose
# terms cancel.
TOLERANCES = {torch.float32: 4e-6, torch.float16: 1.3e-3, torch.bfloat16: 1e-2}
LARGE = [
    Case("large-bspline", 0, (3, 0), (1, 1000, 130, 150, 8), own=True),
    Case("large-gaussian", 1, (), (2, 700, 65, 100, 8)),
    Case("large-wavelet", 5, (0,), (1, 300, 70, 90, 1)),
]


@pytest.fixture(params=["cuda", "triton"])
def rung(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not _load.has("_C_cuda"):
        pytest.skip(_load.reason("_C_cuda"))
    if request.param == "triton":
        pytest.importorskip("triton")
    return str(request.param)


def run(
    rung: str, case: Case, tensors: list[Tensor | None], grad_out: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    leaves = [
        None if t is None else t.cuda().requires_grad_(bool(flag))
        for t, flag in zip(tensors, case.wanted, strict=True)
    ]
    y = KanLinear.apply(*leaves, case.basis, case.options, rung)
    y.backward(grad_out.cuda())
    return y.detach().cpu(), [None if t is None or t.grad is None else t.grad.cpu() for t in leaves]


def error(found: Tensor, truth: Tensor) -> float:
    assert found.shape == truth.shape
    return float((found.double() - truth).abs().max() / (1e-3 + truth.abs().max()))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=ids)
def test_matches_the_reference(rung: str, case: Case, dtype: torch.dtype) -> None:
    tensors = make(case, dtype)
    heads, rows, _, outputs, _ = case.sizes
    grad_out = torch.randn(heads, rows, outputs).to(dtype)
    y, grads = run(rung, case, tensors, grad_out)
    true_y, true_grads = expected(case, tensors, grad_out)
    assert error(y, true_y) < TOLERANCES[dtype]
    for name, grad, truth in zip(NAMES, grads, true_grads, strict=True):
        if truth is not None:
            parameter = name in ("points", "scales")
            assert error(grad, truth) < TOLERANCES[dtype] * (5 if parameter else 1), name


def test_same_bits_twice(rung: str) -> None:
    for case in LARGE:
        tensors = make(case, torch.bfloat16)
        grad_out = torch.randn(case.sizes[0], case.sizes[1], case.sizes[3]).bfloat16()
        (y, grads), (other_y, other_grads) = (run(rung, case, tensors, grad_out) for _ in range(2))
        assert torch.equal(y, other_y)
        for one, other in zip(grads, other_grads, strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_rational(rung: str, dtype: torch.dtype) -> None:
    tensors = [torch.randn(size).to(dtype) for size in ((700, 8, 96), (1, 6), (8, 4))]
    grad_out = torch.randn(700, 768).to(dtype)
    leaves = [t.cuda().requires_grad_() for t in tensors]
    y = saccade.ops.group_rational(leaves[0].flatten(1), *leaves[1:], backend=rung)
    found = [y, *torch.autograd.grad(y, leaves, grad_out.cuda())]
    doubles = [t.double().requires_grad_() for t in tensors]
    true_y = group_rational(*doubles)
    grad = grad_out.double().view(true_y.shape)
    truths = [true_y.detach(), *torch.autograd.grad(true_y, doubles, grad)]
    for ours, truth in zip(found, truths, strict=True):
        assert error(ours.detach().cpu().view(truth.shape), truth) < TOLERANCES[dtype]


def test_autocast_keeps_the_basis_in_float32(rung: str) -> None:
    x = torch.randn(64, 32, device="cuda", requires_grad=True)
    weight = torch.randn(48, 32, 8, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        y = saccade.ops.kan_linear(x, weight, basis="bspline", backend=rung)
    y.float().sum().backward()
    assert (y.dtype, x.grad.dtype, weight.grad.dtype) == (
        torch.bfloat16, torch.float32, torch.float32,
    )  # fmt: skip
    truth = saccade.ops.kan_linear(x, weight, basis="bspline", backend="reference")
    assert error(y.detach(), truth.detach()) < 1e-2
