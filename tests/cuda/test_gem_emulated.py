"""The CUDA kernels' source, run on the CPU, against the reference in float64."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import ops, reference

from . import gem_emulation as emulated


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return emulated.declare(emulate("gem"))


# name: batch, t, P, options
CASES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "one": (1, 1, 1, {}),
    "few": (2, 3, 65, {"lower": 0.5, "always": True}),
    "eight": (1, 8, 300, {"lower": 0.5, "ridge": 1e-3}),
    "blocks": (1, 17, 257, {"slack": True}),
    "slots": (1, 5, 20_001, {"lower": 0.1}),
    "dependent": (1, 12, 5, {"lower": 0.25, "always": True}),
    "most": (1, 64, 100, {}),
}


def make(case: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, dict[str, Any]]:
    batch, t, p, options = CASES[case]
    memory = torch.randn(batch, t, p)
    grad = torch.randn(batch, p) - 1.5 * memory.mean(1)
    options = dict(options)
    if options.get("slack"):
        slack = torch.rand(batch, t, dtype=torch.float64)
        slack[:, ::5] = math.inf
        options["slack"] = slack
    return grad.to(dtype), memory.to(dtype), options


def truth(grad: Tensor, memory: Tensor, options: dict[str, Any]) -> tuple[Tensor, ...]:
    return reference.gem_project(
        grad, memory, options.get("lower", 0.0), options.get("slack"), options.get("ridge", 0.0),
        options.get("always", False),
    )  # fmt: skip


def error(found: Tensor, true: Tensor) -> float:
    true = true.detach()
    return float((found.double() - true).abs().max() / true.abs().max().clamp(min=0.1))


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)],
    ids=["float32", "float16", "bfloat16"],
)
@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward(
    library: ctypes.CDLL, case: str, dtype: torch.dtype, limit: float
) -> None:
    grad, memory, options = make(case, dtype)
    v, dual, status, square = emulated.forward(library, grad, memory, **options)
    exact = [x.double().requires_grad_() for x in (grad, memory)]
    if "slack" in options:
        exact.append(options["slack"].clone().requires_grad_())
        true = truth(exact[0], exact[1], options | {"slack": exact[2]})
    else:
        true = truth(exact[0], exact[1], options)
    assert torch.equal(status, true[2])
    assert error(v, true[0]) < limit
    if CASES[case][1] <= CASES[case][2]:
        assert error(dual, true[1]) < 1e-4
    weight = torch.randn_like(v)
    options.pop("always", None)
    grads = emulated.backward(library, weight, memory, v, dual, square, **options)
    expected = torch.autograd.grad(true[0], exact, weight.double())
    for found, right in zip(grads, expected, strict=False):
        assert error(found, right) < 10 * limit


@pytest.mark.parametrize("case", ["few", "blocks", "slots"])
def test_same_bits_whatever_the_order_of_threads_and_blocks(
    library: ctypes.CDLL, case: str
) -> None:
    grad, memory, options = make(case)
    runs = []
    for order in (0, 1):
        library.set_reversed(order)
        try:
            out = emulated.forward(library, grad, memory, **options)
            v, dual, _, square = out
            rest = {k: x for k, x in options.items() if k != "always"}
            runs.append((*out, *emulated.backward(library, v, memory, v, dual, square, **rest)))
        finally:
            library.set_reversed(0)
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


def test_products_with_strides(library: ctypes.CDLL) -> None:
    memory = torch.randn(2, 700, 9).mT
    grad = torch.randn(2, 800)[:, :700]
    square, dot = emulated.gram(library, memory, grad)
    torch.testing.assert_close(square, memory.double() @ memory.double().mT, rtol=1e-5, atol=1e-4)
    true = (memory.double() @ grad.double()[..., None])[..., 0]
    torch.testing.assert_close(dot, true, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("t", [1, 2, 7, 33, 64])
def test_quadratic_problem_as_on_the_cpu(library: ctypes.CDLL, t: int) -> None:
    factor = torch.randn(6, t, t + 3, dtype=torch.float64)
    square, linear = factor @ factor.mT, 4 * torch.randn(6, t, dtype=torch.float64)
    dual, status = emulated.nnqp(library, square, linear, lower=0.1, ridge=0.2, tolerance=1e-12)
    true, codes = ops.nnqp(square, linear, lower=0.1, ridge=0.2, backend="reference")
    torch.testing.assert_close(dual, true, rtol=1e-9, atol=1e-9)
    assert torch.equal(status, codes)


STATUSES = {
    "untouched": ([[1.0, 0.0]], [2.0, 1.0], 0.0, 1),
    "solved": ([[1.0, 0.0]], [-2.0, 1.0], 0.0, 0),
    "infeasible": ([[1.0, 0.0], [-1.0, 0.0]], [2.0, 1.0], -1.0, 2),
    "not-finite": ([[1.0, 0.0], [math.nan, 0.0]], [2.0, 1.0], 0.0, 3),
    "zero-row": ([[0.0, 0.0], [1.0, 0.0]], [-2.0, 1.0], 0.0, 0),
}


@pytest.mark.parametrize("name", STATUSES)
def test_statuses(library: ctypes.CDLL, name: str) -> None:
    rows, grad, slack, code = STATUSES[name]
    given = torch.tensor([grad])
    width = torch.full((1, len(rows)), slack, dtype=torch.float64)
    v, dual, status, _ = emulated.forward(library, given, torch.tensor([rows]), slack=width)
    assert status.item() == code
    assert code == 0 or (torch.equal(v, given) and not dual.any())


@pytest.mark.parametrize("parameters", [3, 70], ids=["one-launch", "many-launches"])
def test_lists_are_one_vector(library: ctypes.CDLL, parameters: int) -> None:
    sizes = [1 + 37 * k % 300 for k in range(parameters)]
    grads = [torch.randn(n) for n in sizes]
    rows: list[list[Tensor | None]] = [[torch.randn(n) for n in sizes] for _ in range(6)]
    rows[2][1] = None
    filled = [
        torch.cat([torch.zeros(n) if x is None else x for n, x in zip(sizes, row, strict=True)])
        for row in rows
    ]
    options = {"lower": 0.2, "always": True}
    true, true_dual, code = truth(
        torch.cat(grads).double()[None], torch.stack(filled).double()[None], options
    )
    dual, status, launched = emulated.lists(library, grads, rows, **options)
    assert (launched == 1) == (parameters == 3)
    assert torch.equal(status, code)
    assert error(dual, true_dual[0]) < 1e-5
    assert error(torch.cat(grads), true[0]) < 1e-5


def test_gradients_without_a_violation_are_not_written(library: ctypes.CDLL) -> None:
    row: list[Tensor | None] = [torch.ones(10)]
    grads = [torch.rand(10)]
    before = grads[0].clone()
    _, status, _ = emulated.lists(library, grads, [row])
    assert status.item() == 1
    assert torch.equal(grads[0], before)
