"""The Triton kernels in Triton's interpreter, against the reference in float64.

Run as a process of its own: TRITON_INTERPRET=1 pytest tests/triton
"""

from __future__ import annotations

import importlib
import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "needs TRITON_INTERPRET=1 before triton's import: TRITON_INTERPRET=1 pytest tests/triton",
        allow_module_level=True,
    )

from saccade import ops

gem = importlib.import_module("saccade.triton_kernels.gem")

# Largest error relative to the largest entry, of v; gradients may be off ten times as much.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3}

# name: batch, t, P, options
CASES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "one": (1, 1, 1, {}),
    "few": (2, 3, 65, {"memory_strength": 0.5, "trigger": "always"}),
    "ridge": (1, 8, 300, {"memory_strength": 0.5, "ridge": 1e-3}),
    "slack": (2, 17, 257, {"slack": True, "valid": True}),
    "slots": (1, 5, 5003, {"memory_strength": 0.1}),
    "dependent": (1, 12, 5, {"memory_strength": 0.25, "trigger": "always"}),
    "most": (1, 64, 100, {}),
}


def make(case: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Any]]:
    batch, t, p, options = CASES[case]
    memory = torch.randn(batch, t, p)
    grad = torch.randn(batch, p) - 1.5 * memory.mean(1)
    tensors = {"grad": grad.to(dtype), "memory": memory.to(dtype)}
    options = dict(options)
    if options.pop("slack", False):
        tensors["slack"] = torch.rand(batch, t).to(dtype)
    if options.pop("valid", False):
        options["valid"] = torch.rand(batch, t) < 0.7
    return tensors, options


def close(got: Tensor, true: Tensor, limit: float, name: str) -> None:
    error = (got.double() - true).abs().max().item()
    assert error <= limit * max(true.abs().max().item(), 0.1), f"{name} is off by {error:.1e}"


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float32) for case in CASES),
        *((case, torch.float16) for case in ("few", "slack")),
    ],
    ids=lambda given: str(given).removeprefix("torch."),
)
def test_equals_the_reference(case: str, dtype: torch.dtype) -> None:
    tensors, options = make(case, dtype)
    ours = {k: v.clone().requires_grad_() for k, v in tensors.items()}
    exact = {k: v.double().requires_grad_() for k, v in tensors.items()}
    v, dual, status = ops.gem_project(**ours, **options, return_dual=True, backend="triton")
    true, true_dual, codes = ops.gem_project(
        **exact, **options, return_dual=True, backend="reference"
    )
    assert torch.equal(status, codes)
    limit = TOLERANCES[dtype]
    close(v, true.detach(), limit, "v")
    if CASES[case][1] <= CASES[case][2]:
        close(dual, true_dual.detach(), 10 * limit, "dual")
    weight = torch.randn_like(v)
    grads = torch.autograd.grad(v, list(ours.values()), weight)
    expected = torch.autograd.grad(true, list(exact.values()), weight.double())
    for name, got, right in zip(ours, grads, expected, strict=True):
        assert got.dtype == dtype
        close(got, right, 10 * limit, f"the gradient of {name}")


def test_strides_do_not_matter() -> None:
    memory, grad = torch.randn(4, 90), torch.randn(90)
    plain = ops.gem_project(grad, memory, backend="triton")
    assert torch.equal(ops.gem_project(grad, memory.mT.contiguous().mT, backend="triton"), plain)
    assert torch.equal(
        ops.gem_project(grad.repeat_interleave(2)[::2], memory, backend="triton"), plain
    )


@pytest.mark.parametrize("lower", [0.0, 0.5])
@pytest.mark.parametrize("t", [1, 2, 5, 16, 33])
def test_quadratic_problem(t: int, lower: float) -> None:
    factor = torch.randn(3, t, t + 3, dtype=torch.float64)
    gram, linear = factor @ factor.mT, 4 * torch.randn(3, t, dtype=torch.float64)
    dual, status = ops.nnqp(gram, linear, lower=lower, ridge=0.1, backend="triton")
    true, codes = ops.nnqp(gram, linear, lower=lower, ridge=0.1, backend="reference")
    torch.testing.assert_close(dual, true, rtol=1e-9, atol=1e-9)
    assert torch.equal(status, codes)


STATUSES = {
    "untouched": ([[1.0, 0.0]], [2.0, 1.0], 0.0, 1),
    "solved": ([[1.0, 0.0]], [-2.0, 1.0], 0.0, 0),
    "infeasible": ([[1.0, 0.0], [-1.0, 0.0]], [2.0, 1.0], -1.0, 2),
    "impossible-zero-row": ([[0.0, 0.0], [1.0, 0.0]], [2.0, 1.0], -1.0, 2),
    "not-finite": ([[1.0, 0.0], [math.nan, 0.0]], [2.0, 1.0], 0.0, 3),
    "zero-row": ([[0.0, 0.0], [1.0, 0.0]], [-2.0, 1.0], 0.0, 0),
    "opposite": ([[1.0, 1.0], [-1.0, -1.0]], [-2.0, 1.0], 0.0, 0),
    "duplicate": ([[1.0, 1.0], [1.0, 1.0]], [-2.0, 1.0], 0.0, 0),
}


@pytest.mark.parametrize("name", STATUSES)
def test_statuses(name: str) -> None:
    rows, grad, slack, code = STATUSES[name]
    given, memory = torch.tensor(grad), torch.tensor(rows)
    v, dual, status = ops.gem_project(
        given, memory, slack=slack, return_dual=True, backend="triton"
    )
    assert status == code
    if code == 0:
        assert (memory @ v > -1e-6).all()
    else:
        assert torch.equal(v, given)
        assert not dual.any()


def test_a_row_that_takes_no_part_may_hold_anything() -> None:
    grad, memory = torch.randn(40), torch.randn(5, 40)
    valid = torch.tensor([True, False, True, True, False])
    expected = ops.gem_project(grad, memory[valid], backend="triton")
    memory[~valid] = math.nan
    memory.requires_grad_()
    v = ops.gem_project(grad, memory, valid=valid, backend="triton")
    torch.testing.assert_close(v, expected)
    (of_memory,) = torch.autograd.grad(v.sum(), memory)
    assert of_memory.isfinite().all()
    assert not of_memory[~valid].any()


def test_parts_and_lists() -> None:
    grads = [torch.randn(3, 4), torch.randn(7)]
    rows = [[torch.randn_like(grad) for grad in grads] for _ in range(3)]
    memory = torch.stack([torch.cat([x.flatten() for x in row]) for row in rows])
    flat = torch.cat([grad.flatten() for grad in grads])
    gram, dot = ops.gram_dot(memory, flat, backend="triton")
    torch.testing.assert_close(gram, (memory @ memory.mT).double(), rtol=1e-5, atol=1e-5)
    dual, _ = ops.nnqp(gram, dot, lower=0.2, backend="triton")
    v = ops.combine(flat, memory, dual, backend="triton")
    ops.gem_project_(grads, rows, memory_strength=0.2, trigger="always", backend="triton")
    torch.testing.assert_close(torch.cat([grad.flatten() for grad in grads]), v)


@pytest.mark.parametrize("shapes", [((2, 0), (3, 0)), ((0, 5), (3, 5)), ((2, 5), (0, 5))], ids=str)
def test_empty(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    grad, memory = (torch.randn(shape, requires_grad=True) for shape in shapes)
    v = ops.gem_project(grad, memory, backend="triton")
    assert torch.equal(v, grad)
    grads = torch.autograd.grad(v.sum(), (grad, memory))
    assert [tuple(g.shape) for g in grads] == list(shapes)


def test_same_bits_twice() -> None:
    tensors, options = make("slots", torch.float32)
    runs = []
    for _ in range(2):
        inputs = {k: v.clone().requires_grad_() for k, v in tensors.items()}
        v = ops.gem_project(**inputs, **options, backend="triton")
        runs.append((v, *torch.autograd.grad(v.square().sum(), list(inputs.values()))))
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


def z(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


MISTAKES = {
    "rank": (lambda: gem.gram_dot(z(3, 7), z(7)), ValueError, r"memory must have shape \[B, t, P"),
    "shape": (lambda: gem.combine(z(1, 6), z(1, 3, 7), z(1, 3)), ValueError, r"\(1, 3, 7\) and"),
    "dtype": (lambda: gem.gram_dot(z(1, 3, 7).half(), z(1, 7)), TypeError, r"grad's dtype"),
    "float64": (
        lambda: gem.gram_dot(z(1, 3, 7).double(), z(1, 7).double()),
        NotImplementedError, r"got torch.float64",
    ),
    "bfloat16": (
        lambda: gem.gram_dot(z(1, 3, 7).bfloat16(), z(1, 7).bfloat16()),
        NotImplementedError, r"bfloat16 wrongly",
    ),
    "rows": (lambda: gem.gram_dot(z(1, 65, 7), z(1, 7)), NotImplementedError, r"at most 64 .* 65"),
    "front": (
        lambda: ops.gem_project(z(7), z(65, 7), backend="triton"),
        RuntimeError, r"at most t = 64 rows, got 65",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_sentences(name: str) -> None:
    call, error, text = MISTAKES[name]
    with pytest.raises(error, match=text):
        call()


def test_opcheck() -> None:
    saccade = torch.ops.saccade_triton
    memory, grad = torch.randn(2, 3, 20), torch.randn(2, 20)
    slack = torch.rand(2, 3)

    def check(name: str, *arguments: object) -> None:
        op = getattr(saccade, name).default
        kinds = ("test_schema", "test_faketensor")
        torch.library.opcheck(op, arguments, test_utils=kinds)

    check("gem_forward", grad, memory, slack, 0.5, 0.1, True)
    out, dual, _, gram = saccade.gem_forward(grad, memory, slack, 0.5, 0.1, True)
    check("gem_backward", torch.randn(2, 20), memory, out, dual, gram, 0.5, 0.1)
    check("gem_gram", memory, grad)
    check("gem_combine", grad, memory, dual)
    check("gem_nnqp", gram, dual, 0.1, 0.0)
