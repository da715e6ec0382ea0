"""The kernels of `kan_linear` and `group_rational` against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saccade import _load
from saccade.ops import group_rational, kan_linear

from .kan_cases import CASES, Problem, draw

pytestmark = [
    pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C")),
    pytest.mark.rungs("cpu"),
]

# relative to the largest entry
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11, torch.float16: 4e-3, torch.bfloat16: 3e-2}
SIZES = {"one": (1, 1, 1), "odd": (37, 11, 19), "blocks": (203, 17, 70), "wide": (9, 150, 33)}


def solve(
    problem: Problem, dtype: torch.dtype, backend: str, cotangent: Tensor
) -> dict[str, Tensor]:
    """The output, and the gradient of every tensor; the basis's stay in the wider type."""
    wide = torch.promote_types(dtype, torch.float32)
    basis_tensors = ("grid", "centres", "width", "inv_width", "scale", "shift")
    leaves = {
        name: t.to(wide if name in basis_tensors else dtype).requires_grad_()
        for name, t in problem.tensors.items()
    }
    given = dict(leaves)
    y = kan_linear(
        given.pop("x"), given.pop("weight"), backend=backend, **given, **problem.constants
    )
    grads = torch.autograd.grad(y, list(leaves.values()), cotangent.to(y), allow_unused=True)
    named = {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
    }
    return {"y": y.detach(), **named}


def assert_agree(found: dict[str, Tensor], truth: dict[str, Tensor], dtype: torch.dtype) -> None:
    assert found.keys() == truth.keys()
    for name, true in truth.items():
        scale = true.abs().max().clamp_min(1e-2)
        error = ((found[name].double() - true).abs().max() / scale).item()
        assert error < TOLERANCE[dtype], (name, error)


@pytest.mark.parametrize("extra", [False, True], ids=["plain", "base-and-bias"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_forward_and_every_gradient(name: str, size: str, extra: bool, backend: str) -> None:
    problem = draw(CASES[name], *SIZES[size], extra)
    rows, _, outputs = SIZES[size]
    cotangent = torch.randn(rows, outputs, generator=torch.Generator().manual_seed(1))
    for dtype in (torch.float32, torch.float64):
        rounded = Problem({k: t.to(dtype).double() for k, t in problem.tensors.items()}, problem[1])
        truth = solve(rounded, torch.float64, "reference", cotangent.double())
        assert_agree(solve(rounded, dtype, backend, cotangent), truth, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["bspline-3-zero", "gaussian", "morlet"])
def test_half_types_are_rounded_once(name: str, dtype: torch.dtype, backend: str) -> None:
    problem = draw(CASES[name], 23, 7, 9, True)
    rounded = Problem({k: t.to(dtype).double() for k, t in problem.tensors.items()}, problem[1])
    cotangent = torch.randn(23, 9).to(dtype)
    truth = solve(rounded, torch.float64, "reference", cotangent.double())
    assert_agree(solve(rounded, dtype, backend, cotangent), truth, dtype)


@pytest.mark.parametrize("name", CASES)
def test_heads_and_weights_stored_outputs_last(name: str, backend: str) -> None:
    case = CASES[name]
    problems = [draw(case, 12, 5, 6, False, seed) for seed in range(3)]
    names = problems[0].tensors
    shared = [k for k in ("grid", "centres", "width", "inv_width") if k in names]
    stacked = {k: torch.stack([p.tensors[k] for p in problems]) for k in names if k not in shared}
    stacked["weight"] = (
        stacked["weight"].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).requires_grad_()
    )
    same = {k: problems[0].tensors[k] for k in shared}
    constants = problems[0].constants
    x = stacked.pop("x").reshape(3, 2, 6, 5).transpose(0, 1)
    weight = stacked.pop("weight")
    y = kan_linear(x, weight, **stacked, **same, **constants, backend=backend)
    true = kan_linear(x, weight, **stacked, **same, **constants, backend="reference")
    torch.testing.assert_close(y, true)
    cotangent = torch.randn(y.shape, dtype=y.dtype)
    (found,) = torch.autograd.grad(y, weight, cotangent)
    torch.testing.assert_close(found, torch.autograd.grad(true, weight, cotangent)[0])
    assert found.stride() == weight.stride()


@pytest.mark.parametrize("name", ["bspline-3-clamp", "gaussian", "rswaf", "fourier", "morlet"])
def test_many_rows_are_cut_into_blocks(name: str, backend: str) -> None:
    problem = draw(CASES[name], 4500, 3, 5, True)
    cotangent = torch.randn(4500, 5, dtype=torch.float64)
    truth = solve(problem, torch.float64, "reference", cotangent)
    assert_agree(solve(problem, torch.float64, backend, cotangent), truth, torch.float64)


@pytest.mark.parametrize("name", ["bspline-3-clamp", "gaussian", "chebyshev", "dog"])
def test_the_same_bits_for_any_number_of_threads(name: str, backend: str) -> None:
    problem = draw(CASES[name], 4500, 10, 70, True)
    cotangent = torch.randn(4500, 70)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(solve(problem, torch.float32, backend, cotangent))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(results[0][key], other[key]) for key in other)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("x", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_numbers_that_are_not_or_are_far(name: str, x: float, backend: str) -> None:
    case = CASES[name]
    problem = draw(case, 9, 4, 5, False)
    rows = problem.tensors.pop("x")
    rows[3, 2] = x
    true = kan_linear(rows, **problem.tensors, **problem.constants, backend="reference")
    y = kan_linear(rows, **problem.tensors, **problem.constants, backend=backend)
    other = [i for i in range(9) if i != 3]
    torch.testing.assert_close(y[other], true[other])
    if x != x:
        assert y[3].isnan().all() or case.num_basis == 1
    elif case.basis != "fourier" and case.options.get("out_of_range") != "extend":
        torch.testing.assert_close(y[3], true[3], equal_nan=True)


GRADCHECKED = ["bspline-3-zero", "bspline-3-clamp", "gaussian", "rswaf", "chebyshev", "morlet"]


@pytest.mark.parametrize("name", GRADCHECKED)
def test_gradients_of_gradients(name: str, backend: str) -> None:
    problem = draw(CASES[name], 3, 2, 2, True)
    leaves = {k: t.requires_grad_() for k, t in problem.tensors.items()}

    def layer(*given: Tensor) -> Tensor:
        named = dict(zip(leaves, given, strict=True))
        x, weight = named.pop("x"), named.pop("weight")
        return kan_linear(x, weight, **named, **problem.constants, backend=backend)

    inputs = tuple(leaves.values())
    assert torch.autograd.gradcheck(layer, inputs)
    assert torch.autograd.gradgradcheck(layer, inputs)


def test_the_grid_of_extended_splines_is_the_references(backend: str) -> None:
    problem = draw(CASES["bspline-3-clamp"], 9, 4, 5, False)
    given = {**problem.tensors, **problem.constants, "out_of_range": "extend"}
    given["grid"].requires_grad_()
    with pytest.raises(NotImplementedError, match="extend"):
        kan_linear(**given, backend=backend)
    assert torch.autograd.grad(kan_linear(**given).sum(), given["grid"])[0].abs().max() > 0


RATIONALS = {
    "kat": ((7, 5, 16), 8, 8, -1, (6, 4)),
    "one function": ((3, 8), 1, 1, -1, (6, 4)),
    "shared numerator": ((2, 8, 5, 3), 1, 4, 1, (3, 2)),
    "polynomial": ((9,), 1, 1, -1, (2, 0)),
    "highest orders": ((40, 300, 33), 3, 1, 1, (9, 8)),
    "long groups": ((2, 2, 40000), 2, 2, 1, (6, 4)),
    "channels last": ((2, 8, 5, 3), 4, 4, 1, (6, 4)),
}


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", RATIONALS)
def test_rational_and_every_gradient(name: str, dtype: torch.dtype, backend: str) -> None:
    shape, rows_a, rows_b, axis, (m, n) = RATIONALS[name]
    generator = torch.Generator().manual_seed(0)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator).to(dtype)

    x, a, b = normal(*shape), normal(rows_a, m), normal(rows_b, n)
    if name == "channels last":
        x = x.to(memory_format=torch.channels_last)
    cotangent = normal(*shape)
    leaves = [t.requires_grad_() for t in (x, a, b)]
    wide = [t.detach().double().requires_grad_() for t in leaves]
    y = group_rational(*leaves, channel_dim=axis, backend=backend)
    true = group_rational(*wide, channel_dim=axis, backend="reference")
    found = torch.autograd.grad(y, leaves, cotangent)
    wanted = torch.autograd.grad(true, wide, cotangent.double(), allow_unused=True)
    assert y.dtype == dtype
    for given, truth in zip((y, *found), (true, *wanted), strict=True):
        if truth is None or truth.numel() == 0:
            continue
        error = (given.double() - truth).abs().max() / truth.abs().max().clamp_min(1e-6)
        assert error < TOLERANCE[dtype]


def test_rational_twice(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(
        torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_()
        for s in ((5, 4), (2, 3), (1, 2))
    )

    def function(*given: Tensor) -> Tensor:
        return group_rational(*given, backend=backend)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.slow
def test_coefficient_gradients_of_ten_million_numbers(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10_000, 1000, generator=generator)
    a = torch.rand(8, 6, generator=generator).requires_grad_()
    b = torch.rand(8, 4, generator=generator).requires_grad_()
    y = group_rational(x, a, b, backend=backend)
    found = torch.autograd.grad(y, (a, b), y.detach())
    again = torch.autograd.grad(group_rational(x, a, b, backend=backend), (a, b), y.detach())
    assert all(torch.equal(p, q) for p, q in zip(found, again, strict=True))
    totals = [torch.zeros(8, 6, dtype=torch.float64), torch.zeros(8, 4, dtype=torch.float64)]
    wide = [t.detach().double().requires_grad_() for t in (a, b)]
    for rows, grad in zip(x.split(500), y.detach().split(500), strict=True):
        part = group_rational(rows.double(), *wide, backend="reference")
        for total, of_part in zip(
            totals, torch.autograd.grad(part, wide, grad.double()), strict=True
        ):
            total += of_part
    for given, truth in zip(found, totals, strict=True):
        assert ((given.double() - truth).abs() / truth.abs()).max() < 1e-6
