"""The Triton kernels of KAN layers in Triton's interpreter, against the reference in float64.

Run as a process of its own: TRITON_INTERPRET=1 pytest tests/triton
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "needs TRITON_INTERPRET=1 before triton's import: TRITON_INTERPRET=1 pytest tests/triton",
        allow_module_level=True,
    )

import saccade
from saccade.reference.kan import group_rational

from ..cuda.kan_problems import BSPLINE, CASES, CHEBYSHEV, NAMES, Case, expected, ids, make

triton_rung = importlib.import_module("saccade.triton_kernels.kan")

# Largest error by largest value, of results and of gradients. A half type rounds the features for
# the product, and the sum once more.
TOLERANCES = {torch.float32: (2e-6, 4e-6), torch.float16: (1.3e-3, 1.3e-3)}
# The terms of a width's gradient cancel.
FLOAT32_PARAMETER = 1e-5
HALVES = [
    case
    for case in CASES
    if case.name in ("bspline-2-clamp", "bspline-3-zero", "rswaf-widths", "fourier", "meyer")
]


def run(case: Case, tensors: list[Tensor | None], grad_out: Tensor) -> tuple[Tensor, list[Tensor]]:
    x, weight, base, bias, points, scales = tensors
    layer = (points, scales, case.basis, list(case.options))
    y = triton_rung.forward(x, weight, base, bias, *layer)
    return y, triton_rung.backward(grad_out, x, weight, base, *layer, case.wanted)


def error(found: Tensor, truth: Tensor) -> float:
    assert found.shape == truth.shape
    return float((found.double() - truth).abs().max() / (1e-3 + truth.abs().max()))


def grad_like(case: Case, dtype: torch.dtype) -> Tensor:
    heads, rows, _, outputs, _ = case.sizes
    return torch.randn(heads, rows, outputs).to(dtype)


def check(case: Case, dtype: torch.dtype) -> None:
    tensors, grad_out = make(case, dtype), grad_like(case, dtype)
    y, grads = run(case, tensors, grad_out)
    true_y, true_grads = expected(case, tensors, grad_out)
    limit, grad_limit = TOLERANCES[dtype]
    assert y.dtype == dtype
    assert y.is_contiguous()
    assert error(y, true_y) < limit
    for name, given, grad, truth in zip(NAMES, tensors, grads, true_grads, strict=True):
        if truth is None:
            assert grad.shape == (0,), name
            continue
        assert grad.dtype == given.dtype, name
        parameter = dtype == torch.float32 and name in ("points", "scales")
        assert error(grad, truth) < (FLOAT32_PARAMETER if parameter else grad_limit), name


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_float32(case: Case) -> None:
    check(case, torch.float32)


@pytest.mark.parametrize("case", HALVES, ids=ids)
def test_float16(case: Case) -> None:
    check(case, torch.float16)


def test_float32_x_with_a_half_weight() -> None:
    case = Case("autocast", CHEBYSHEV)
    tensors, grad_out = make(case, torch.float16, torch.float32), grad_like(case, torch.float16)
    y, grads = run(case, tensors, grad_out)
    true_y, true_grads = expected(case, tensors, grad_out)
    assert (y.dtype, grads[0].dtype, grads[1].dtype) == (
        torch.float16, torch.float32, torch.float16,
    )  # fmt: skip
    assert error(y, true_y) < 1.3e-3
    # nothing but grad_out and weight is rounded on the way to grad_x
    assert error(grads[0], true_grads[0]) < 4e-6


def test_reads_any_strides_and_keeps_the_weight_s_layout() -> None:
    case = Case("strides", BSPLINE, (3, 0))
    tensors, grad_out = make(case, torch.float32), grad_like(case, torch.float32)
    x, weight, base, bias, points, _ = tensors
    laid_out = [
        x.transpose(0, 1).contiguous().transpose(0, 1),
        weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        base.transpose(1, 2).contiguous().transpose(1, 2),
        bias.t().contiguous().t(),
        points.t().contiguous().t(),
        None,
    ]
    y, grads = run(case, tensors, grad_out)
    other_y, other_grads = run(case, laid_out, grad_out.mT.contiguous().mT)
    assert torch.equal(y, other_y)
    assert all(map(torch.equal, grads, other_grads))
    assert other_grads[1].stride() == laid_out[1].stride()


def test_shares_of_rows_are_added_up() -> None:
    launches = importlib.import_module("saccade.triton_kernels._kan.launches")
    case = Case("shares", CHEBYSHEV, (), (1, 600, 2, 3, 8))
    tensors, grad_out = make(case, torch.float32), grad_like(case, torch.float32)
    assert launches._shares(1, 600, 32) > 1
    _, grads = run(case, tensors, grad_out)
    _, truth = expected(case, tensors, grad_out)
    assert error(grads[1], truth[1]) < 4e-6
    assert error(grads[2], truth[2]) < 4e-6


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.sizes[1] in (5, 37) and c.name != "bspline-far"], ids=ids
)
def test_nan_reaches_its_row_alone(case: Case) -> None:
    x, weight, base, bias, points, scales = make(case, torch.float32)
    x[0, 2, 1] = torch.nan
    y = triton_rung.forward(x, weight, base, bias, points, scales, case.basis, list(case.options))
    rows = y.isnan().all(-1)
    assert rows.nonzero().tolist() == [[0, 2]]
    assert not y[~rows].isnan().any()


@pytest.mark.parametrize(
    ("shape", "numerator", "denominator"),
    [
        ((5, 3, 7), (1, 6), (3, 4)),
        ((2, 1, 3000), (1, 1), (1, 1)),
        ((3, 2, 16), (2, 9), (2, 8)),
        ((3, 2, 5), (2, 4), (1, 0)),
    ],
    ids=["kat", "long", "highest-orders", "polynomial"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_rational(
    shape: tuple[int, ...],
    numerator: tuple[int, int],
    denominator: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    tensors = [torch.randn(size).to(dtype) for size in (shape, numerator, denominator)]
    tensors[0][0, 0, 0] = 0
    grad_out = torch.randn(shape).to(dtype)
    results = [
        triton_rung.rational_forward(*tensors),
        *triton_rung.rational_backward(grad_out, *tensors),
    ]
    leaves = [tensor.double().requires_grad_() for tensor in tensors]
    y = group_rational(*leaves)
    truths = [y.detach(), *torch.autograd.grad(y, leaves, grad_out.double(), allow_unused=True)]
    limit = 2e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    for result, truth in zip(results, truths, strict=True):
        assert result.dtype == dtype
        if result.numel():
            assert error(result, truth) < limit


def test_ops_pass_opcheck() -> None:
    case = Case("opcheck", BSPLINE, (3, 1), (1, 3, 2, 2, 5))
    x, weight, base, bias, points, _ = make(case, torch.float32)
    x = x.transpose(1, 2).contiguous().transpose(1, 2)
    layer = [points, None, case.basis, list(case.options)]
    utilities = ("test_schema", "test_faketensor")
    arguments = [x, weight, base, bias, *layer]
    torch.library.opcheck(triton_rung.forward_op, arguments, test_utils=utilities)
    grad_out = grad_like(case, torch.float32)
    for wanted in ([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]):
        arguments = [grad_out, x, weight, base, *layer, wanted]
        torch.library.opcheck(triton_rung.backward_op, arguments, test_utils=utilities)
    rational = [torch.randn(2, 2, 3), torch.randn(1, 3), torch.randn(2, 2)]
    torch.library.opcheck(triton_rung.rational_forward_op, rational, test_utils=utilities)
    arguments = [torch.randn(2, 2, 3), *rational]
    torch.library.opcheck(triton_rung.rational_backward_op, arguments, test_utils=utilities)


def test_public_functions_differentiate_twice_and_compile() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    weight = torch.randn(4, 2, 6, requires_grad=True)

    def layer(x: Tensor, weight: Tensor, backend: str = "triton") -> Tensor:
        return saccade.ops.kan_linear(x, weight, basis="gaussian", backend=backend)

    y = layer(x, weight)
    torch.testing.assert_close(y, layer(x, weight, "reference"))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, weight)
    assert torch.equal(compiled, y)
    first = torch.autograd.grad(y.square().sum(), (x, weight), create_graph=True)
    truth = torch.autograd.grad(layer(x, weight, "reference").square().sum(), (x, weight),
                                create_graph=True)  # fmt: skip
    for ours, true in zip(first, truth, strict=True):
        torch.testing.assert_close(ours, true)
    second = torch.autograd.grad(first[0].square().sum(), weight)
    torch.testing.assert_close(second, torch.autograd.grad(truth[0].square().sum(), weight))
    coefficients = torch.randn(2, 4), torch.randn(2, 3)
    torch.testing.assert_close(
        saccade.ops.group_rational(x, *coefficients, backend="triton"),
        saccade.ops.group_rational(x, *coefficients, backend="reference"),
    )


def test_import_again_keeps_the_ops() -> None:
    assert importlib.reload(triton_rung).forward_op is triton_rung.forward_op


@dataclass(frozen=True)
class Wrong:
    error: type[Exception]
    text: str
    change: dict[str, Any] = field(default_factory=dict)


WRONG = {
    "float64": Wrong(
        NotImplementedError, "x in torch.float64", {"x": torch.ones(1, 2, 3).double()}
    ),
    "bfloat16": Wrong(NotImplementedError, "interpreter", {"x": torch.ones(1, 2, 3).bfloat16()}),
    "empty": Wrong(ValueError, "neither empty", {"x": torch.ones(1, 0, 3)}),
    "inputs": Wrong(ValueError, r"x must have shape \(1, 2, 3\)", {"x": torch.ones(1, 2, 4)}),
    "base": Wrong(ValueError, r"\(1, 4, 3\)", {"base_weight": torch.ones(1, 4, 2)}),
    "bias": Wrong(ValueError, r"\(1, 4\)", {"bias": torch.ones(4)}),
    "centres": Wrong(ValueError, r"points must have shape \(5,\)", {"points": torch.ones(4)}),
    "widths": Wrong(ValueError, r"\[1\] or \[5\]", {"scales": torch.ones(2)}),
    "no-widths": Wrong(ValueError, "takes 2 of points and scales", {"scales": None}),
    "basis": Wrong(ValueError, "basis 6", {"basis": 6}),
    "options": Wrong(ValueError, "0 options", {"options": [1]}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_refuses_in_a_sentence(wrong: Wrong) -> None:
    arguments: dict[str, Any] = {
        "x": torch.ones(1, 2, 3), "weight": torch.ones(1, 4, 3, 5), "base_weight": None,
        "bias": None, "points": torch.ones(5), "scales": torch.ones(1), "basis": 1, "options": [],
    }  # fmt: skip
    with pytest.raises(wrong.error, match=wrong.text):
        triton_rung.forward(**(arguments | wrong.change))
