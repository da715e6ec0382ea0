"""Every mistake gets a sentence with numbers before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from saccade import _load, ops


def x(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def project(**changes: Any) -> Callable[[], Any]:
    """gem_project of 2 gradients of 7 numbers with 3 memories, with one thing wrong."""
    arguments: dict[str, Any] = {"grad": x(2, 7), "memory": x(2, 3, 7)} | changes
    return lambda: ops.gem_project(**arguments)


def lists(grads: Any = None, memory: Any = None, **changes: Any) -> Callable[[], Any]:
    """gem_project_ of two parameters with 3 memories, with one thing wrong."""
    grads = [x(2, 3), x(4)] if grads is None else grads
    memory = [[x(2, 3), x(4)] for _ in range(3)] if memory is None else memory
    return lambda: ops.gem_project_(grads, memory, **changes)


def quadratic(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {"gram": x(2, 3, 3), "linear": x(2, 3)} | changes
    return lambda: ops.nnqp(**arguments)


# name: call, error, what its sentence says
MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "grad-list": (project(grad=[1.0]), TypeError, r"grad must be a torch.Tensor, got list"),
    "memory-none": (project(memory=None), TypeError, r"memory must be a torch.Tensor, got None"),
    "grad-int": (project(grad=x(2, 7).long()), TypeError, r"grad must have .*, got torch.int64"),
    "grad-sparse": (
        project(grad=x(2, 7).to_sparse()), NotImplementedError, r"grad must be a dense",
    ),
    "grad-scalar": (project(grad=x()), ValueError, r"grad must have rank 1 \[P\] or more"),
    "memory-vector": (
        project(memory=x(7)), ValueError, r"memory must have rank 2 \[t, P\] .* got shape \(7,\)",
    ),
    "memory-columns": (
        project(memory=x(2, 3, 6)), ValueError, r"P = 7, got shape \(2, 3, 6\)",
    ),
    "memory-batch": (
        project(memory=x(5, 3, 7)), ValueError, r"leading axes of memory .* \(2,\), got \(5,\)",
    ),
    "memory-more-axes": (
        project(memory=x(4, 2, 3, 7)), ValueError, r"leading axes of memory .* got \(4, 2\)",
    ),
    "memory-type": (
        project(memory=x(2, 3, 7).double()),
        ValueError, r"memory must have the type of grad, torch.float32, got torch.float64",
    ),
    "memory-device": (
        project(memory=x(2, 3, 7).to("meta")), ValueError, r"the device of grad, cpu, got meta",
    ),
    "strength-negative": (
        project(memory_strength=-0.5), ValueError, r"memory_strength must be at least 0, got -0.5",
    ),
    "strength-nan": (project(memory_strength=math.nan), ValueError, r"memory_strength must be fin"),
    "strength-tensor": (
        project(memory_strength=x(1)), TypeError, r"memory_strength must be a number",
    ),
    "ridge-negative": (project(ridge=-1), ValueError, r"ridge must be at least 0, got -1"),
    "ridge-inf": (project(ridge=math.inf), ValueError, r"ridge must be finite, got inf"),
    "trigger": (
        project(trigger="never"),
        ValueError, r"trigger must be one of violation, always, got 'never'",
    ),
    "trigger-bool": (project(trigger=True), ValueError, r"trigger must be one of .* got True"),
    "slack-rows": (
        project(slack=x(2, 4)), ValueError, r"slack must have shape .* t = 3, got \(2, 4\)",
    ),
    "slack-batch": (project(slack=x(5, 3)), ValueError, r"leading axes of slack .* got \(5,\)"),
    "slack-int": (project(slack=x(3).long()), TypeError, r"slack must have .*, got torch.int64"),
    "slack-text": (project(slack="none"), TypeError, r"slack must be a number .* got 'none'"),
    "slack-nan": (project(slack=math.nan), ValueError, r"slack must be finite"),
    "slack-device": (
        project(slack=x(3).to("meta")), ValueError, r"slack must be on the device of grad, cpu",
    ),
    "valid-list": (project(valid=[True] * 3), TypeError, r"valid must be .* torch.bool, got list"),
    "valid-float": (project(valid=x(3)), TypeError, r"torch.bool, got torch.float32"),
    "valid-rows": (
        project(valid=torch.ones(2, dtype=torch.bool)), ValueError, r"valid .* t = 3, got \(2,\)",
    ),
    "valid-device": (
        project(valid=torch.ones(3, dtype=torch.bool, device="meta")),
        ValueError, r"valid must be on the device of grad, cpu, got meta",
    ),
    "backend": (project(backend="gpu"), ValueError, r"backend must be one of .* got 'gpu'"),
    "backend-cuda": (
        project(backend="cuda"), RuntimeError, r"gem cannot run with backend='cuda': the tensors",
    ),
    "agem-shape": (
        lambda: ops.agem_project(x(7), x(6)), ValueError, r"P = 7, got shape \(1, 6\)",
    ),
    "agem-list": (
        lambda: ops.agem_project(x(7), [0.0] * 7), TypeError, r"reference must be a torch.Tensor",
    ),
    "agem-scalar": (lambda: ops.agem_project(x(7), x()), ValueError, r"reference must have rank 1"),
    "grads-tensor": (lists(grads=x(3)), TypeError, r"grads must be a list .* got Tensor"),
    "grads-text": (lists(grads=[x(2, 3), "a"]), TypeError, r"grads\[1\] must be a torch.Tensor"),
    "grads-types": (
        lists(grads=[x(2, 3), x(4).double()]),
        ValueError, r"grads\[1\] must have the type of grads\[0\]",
    ),
    "rows-number": (lists(memory=3), TypeError, r"memory must be a tensor .* got int"),
    "rows-short": (
        lists(memory=[[x(2, 3)]]), ValueError, r"memory\[0\] .* each of the 2 gradients, got 1",
    ),
    "rows-tensor": (lists(memory=[x(10)]), ValueError, r"memory\[0\] .* 2 gradients, got Tensor"),
    "rows-shape": (
        lists(memory=[[x(2, 3), x(5)]]),
        ValueError, r"memory\[0\]\[1\] must have the shape of grads\[1\], \(4,\), got \(5,\)",
    ),
    "rows-type": (
        lists(memory=[[x(2, 3), x(4).double()]]), ValueError, r"the type of grads\[1\]",
    ),
    "stacked-columns": (
        lists(memory=x(3, 9)), ValueError, r"\[t, P\] with the 10 numbers .* got \(3, 9\)",
    ),
    "stacked-rank": (lists(memory=x(10)), ValueError, r"\[t, P\] with the 10 numbers"),
    "stacked-none": (
        lists(grads=[x(6), None], memory=x(3, 10)), ValueError, r"the columns of grads\[1\]",
    ),
    "lists-slack": (lists(slack=x(2, 3)), ValueError, r"leading axes of slack .* got \(2,\)"),
    "lists-trigger": (lists(trigger="no"), ValueError, r"trigger must be one of"),
    "combine-rows": (
        lambda: ops.combine(x(7), x(3, 7), x(2)), ValueError, r"dual .* t = 3, got \(2,\)",
    ),
    "combine-device": (
        lambda: ops.combine(x(7), x(3, 7), x(3).to("meta")), ValueError, r"dual must be on the dev",
    ),
    "products-shape": (lambda: ops.gram_dot(x(3, 7), x(6)), ValueError, r"P = 6, got shape"),
    "gram-half": (
        quadratic(gram=x(2, 3, 3).half()), TypeError, r"gram must be float32 or float64, got",
    ),
    "gram-shape": (
        quadratic(gram=x(2, 3, 4)), ValueError, r"gram must have .* \(2, 3, 3\), got \(2, 3, 4",
    ),
    "linear-scalar": (quadratic(linear=x()), ValueError, r"linear must have rank 1"),
    "linear-type": (quadratic(linear=x(2, 3).double()), ValueError, r"the type of gram"),
    "lower-negative": (quadratic(lower=-1.0), ValueError, r"lower must be at least 0, got -1"),
    "quadratic-valid": (quadratic(valid=x(3)), TypeError, r"valid must be .* torch.bool"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_sentences(name: str) -> None:
    call, error, text = MISTAKES[name]
    with pytest.raises(error, match=text) as raised:
        call()
    assert str(raised.value).endswith(".")


def test_lists_stay_as_they_are_after_a_mistake() -> None:
    grads = [torch.randn(2, 3), torch.randn(4)]
    before = [grad.clone() for grad in grads]
    with pytest.raises(ValueError, match="shape of grads"):
        ops.gem_project_(grads, [[torch.randn(2, 3), torch.randn(5)]])
    assert all(torch.equal(a, b) for a, b in zip(grads, before, strict=True))


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
def test_forward_mode_needs_the_reference() -> None:
    grad, memory = torch.randn(5), torch.randn(2, 5)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(grad, torch.ones(5))
        tangent = forward_ad.unpack_dual(ops.gem_project(dual, memory, trigger="always")).tangent
        with pytest.raises(NotImplementedError, match="backend='cpu'"):
            ops.gem_project(dual, memory, backend="cpu")
    assert tangent is not None


def raw(name: str, *arguments: Any) -> Callable[[], Any]:
    return lambda: getattr(torch.ops.saccade, name)(*arguments)


# the second line of checks, for those who call the operators themselves
RAW: dict[str, tuple[Callable[[], Any], str]] = {
    "grad-rank": (raw("gem_forward", x(7), x(1, 3, 7), None, 0.0, 0.0, False), r"grad must have"),
    "memory-rank": (raw("gem_forward", x(1, 7), x(3, 7), None, 0.0, 0.0, False), r"memory must"),
    "memory-shape": (raw("gem_gram", x(1, 3, 6), x(1, 7)), r"memory must have .* \[1, 3, 6\]"),
    "memory-type": (raw("gem_gram", x(1, 3, 7).double(), x(1, 7)), r"memory must have the type"),
    "grad-type": (raw("gem_gram", x(1, 3, 7).int(), x(1, 7).int()), r"grad must be float16"),
    "slack": (
        raw("gem_forward", x(1, 7), x(1, 3, 7), x(1, 2), 0.0, 0.0, False), r"slack .* \[1, 3\]",
    ),
    "strength": (
        raw("gem_forward", x(1, 7), x(1, 3, 7), None, -1.0, 0.0, False), r"memory_strength .* -1",
    ),
    "ridge": (raw("gem_nnqp", x(1, 3, 3), x(1, 3), 0.0, math.inf), r"ridge must be finite"),
    "dual": (raw("gem_combine", x(1, 7), x(1, 3, 7), x(1, 4)), r"dual must have .* \[1, 4\]"),
    "gram": (raw("gem_nnqp", x(1, 3, 4), x(1, 3), 0.0, 0.0), r"gram must have .* \[1, 3, 4\]"),
    "gram-type": (raw("gem_nnqp", x(1, 3, 3).half(), x(1, 3).half(), 0.0, 0.0), r"float32 or"),
    "backward-out": (
        raw("gem_backward", x(1, 7), x(1, 3, 7), x(1, 6), x(1, 3).double(), x(1, 3, 3).double(),
            0.0, 0.0),
        r"memory must have .* \[1, 6\]",
    ),
    "no-rows": (raw("gem_project_", [x(3)], [x(3)], 0, None, 0.0, 0.0, False), r"at least 1"),
    "entries": (
        raw("gem_project_", [x(3), x(4)], [x(3)] * 3, 2, None, 0.0, 0.0, False), r"2 stacked",
    ),
    "entry": (
        raw("gem_project_", [x(3)], [x(3), x(4)], 2, None, 0.0, 0.0, False), r"row 1 .* got 4",
    ),
    "stacked": (
        raw("gem_project_", [x(3)], [x(2, 4)], 2, None, 0.0, 0.0, False), r"memory 0 .* \[2, 4\]",
    ),
}  # fmt: skip


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
@pytest.mark.parametrize("name", RAW)
def test_the_operators_check_too(name: str) -> None:
    call, text = RAW[name]
    with pytest.raises(RuntimeError, match=text):
        call()
