"""Every rung against the reference in float64: v, dual variables, status and every gradient."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

import saccade
from saccade import ops, reference

pytestmark = pytest.mark.rungs("reference", "cpu", "cuda", "triton")

# What a type may be off against float64 on the same inputs, relative to the largest entry; inputs
# are standard normal, so what cancels is measured against 0.1.
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
DTYPES = list(TOLERANCE)

# name: batch, t, P, options; slack and valid are drawn where they are named
CASES: dict[str, tuple[tuple[int, ...], int, int, dict[str, Any]]] = {
    "one-row": ((), 1, 1, {}),
    "two-columns": ((), 3, 2, {"trigger": "always"}),
    "plain": ((), 5, 101, {}),
    "prime": ((2,), 7, 997, {"memory_strength": 0.5}),
    "vectors": ((3,), 8, 64, {"memory_strength": 0.5, "ridge": 1e-3}),
    "long": ((), 10, 33_333, {}),
    "blocks": ((), 13, 1031, {"slack": True, "valid": True}),
    "more-rows-than-columns": ((2, 3), 12, 5, {"memory_strength": 0.25, "trigger": "always"}),
    "many-rows": ((), 40, 300, {"slack": True}),
    "most-rows": ((), 64, 257, {"memory_strength": 0.5}),
    "batch": ((2, 3), 4, 33, {"slack": True, "valid": True, "memory_strength": 0.5}),
    "ridge": ((4,), 6, 50, {"ridge": 3.0, "valid": True}),
}


def make(
    case: str, dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a case, and its other options."""
    batch, t, p, options = CASES[case]
    memory = torch.randn(*batch, t, p)
    # against the mean of the memories, so that many of them are violated
    grad = torch.randn(*batch, p) - 1.5 * memory.mean(-2)
    tensors = {"grad": grad.to(device, dtype), "memory": memory.to(device, dtype)}
    options = dict(options)
    if options.pop("slack", False):
        tensors["slack"] = (0.3 * p**0.5 * torch.rand(*batch, t)).to(device, dtype)
    if options.pop("valid", False):
        tensors["valid"] = (torch.rand(t) < 0.7).to(device)
    return tensors, options


def leaves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in tensors.items()}


def project(
    tensors: dict[str, Tensor], options: dict[str, Any], backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    return ops.gem_project(**tensors, **options, return_dual=True, backend=backend)


def close(got: Tensor, true: Tensor, tolerance: float, name: str) -> None:
    error = (got.double() - true.double()).abs().max().item() if got.numel() else 0.0
    size = true.double().abs().max().item() if true.numel() else 0.0
    assert error <= tolerance * max(size, 0.1), f"{name} is off by {error:.2e} of {size:.2e}"


def skip_float64_on_gpu(dtype: torch.dtype, device: torch.device) -> None:
    if device.type == "cuda" and dtype == torch.float64:
        pytest.skip("the GPU kernels have no float64")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(
    case: str, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    skip_float64_on_gpu(dtype, device)
    tensors, options = make(case, dtype, device)
    ours = leaves(tensors)
    exact = leaves({k: v.double() if v.is_floating_point() else v for k, v in tensors.items()})
    v, dual, status = project(ours, options, backend)
    true, true_dual, true_status = project(exact, options, "reference")
    assert (v.dtype, dual.dtype, status.dtype) == (dtype, torch.float64, torch.int32)
    assert (v.shape, dual.shape) == (tensors["grad"].shape, tensors["memory"].shape[:-1])
    assert torch.equal(status, true_status)
    assert (status == 0).any(), "the case solves nothing"
    limit = TOLERANCE[dtype]
    close(v, true, limit, "v")
    if CASES[case][1] <= CASES[case][2]:
        # with dependent rows v alone is unique; sums of float32 meet the condition of K
        close(dual, true_dual, max(limit, 1e-8) * (10 if dtype != torch.float64 else 1), "dual")
    weight = torch.randn_like(v)
    v.backward(weight)
    true.backward(weight.double())
    for name, tensor in ours.items():
        if tensor.requires_grad:
            assert tensor.grad is not None
            assert tensor.grad.dtype == dtype
            close(tensor.grad, exact[name].grad, 10 * limit, f"the gradient of {name}")


@pytest.mark.skipif("SACCADE_ISA" not in os.environ, reason="SACCADE_ISA is not set")
def test_the_instruction_set_is_the_one_asked_for() -> None:
    assert saccade.info()["isa"]["chosen"] == os.environ["SACCADE_ISA"]


LAYOUTS = {
    "columns-first": lambda m: m.mT.contiguous().mT,
    "padded-rows": lambda m: torch.cat([m, m], -1)[..., : m.shape[-1]],
    "every-other-row": lambda m: m.repeat_interleave(2, -2)[..., ::2, :],
    "every-third-column": lambda m: m.repeat_interleave(3, -1)[..., ::3],
    "backwards": lambda m: m.flip(-1).contiguous().flip(-1),
    "rows-before-batch": lambda m: m.transpose(0, 1).contiguous().transpose(0, 1),
}


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_do_not_matter(layout: str, backend: str, device: torch.device) -> None:
    tensors, options = make("prime", torch.float32, device)
    strided = tensors | {"memory": LAYOUTS[layout](tensors["memory"])}
    assert torch.equal(strided["memory"], tensors["memory"])
    results = []
    for given in (tensors, strided):
        inputs = {k: v.detach().requires_grad_() for k, v in given.items()}
        v, dual, status = project(inputs, options, backend)
        grads = torch.autograd.grad(v.square().sum(), list(inputs.values()))
        results.append((v, dual, status, *grads))
    for expected, got in zip(*results, strict=True):
        assert torch.equal(got, expected)


def test_memory_is_shared_by_a_batch(backend: str, device: torch.device) -> None:
    memory = torch.randn(4, 57, device=device)
    grad = torch.randn(3, 2, 57, device=device)
    slack = torch.rand(2, 4, device=device)
    got = ops.gem_project(grad, memory, slack=slack, memory_strength=0.1, backend=backend)
    for i in range(3):
        for j in range(2):
            alone = ops.gem_project(
                grad[i, j], memory, slack=slack[j], memory_strength=0.1, backend=backend
            )
            close(got[i, j], alone, 1e-6, "v")


EMPTY = {
    "no-rows": ((2, 5), (0, 5), 1),
    "no-columns": ((2, 0), (3, 0), 1),
    "no-batch": ((0, 5), (3, 5), 1),
    "nothing": ((0, 0), (0, 0), 1),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty(name: str, backend: str, device: torch.device) -> None:
    shape, rows, code = EMPTY[name]
    grad = torch.randn(shape, device=device, requires_grad=True)
    memory = torch.randn(rows, device=device, requires_grad=True)
    v, dual, status = ops.gem_project(grad, memory, return_dual=True, backend=backend)
    assert torch.equal(v, grad)
    assert dual.shape == (*shape[:-1], rows[0])
    assert (status == code).all()
    of_grad, of_memory = torch.autograd.grad(v.sum(), (grad, memory))
    assert torch.equal(of_grad, torch.ones_like(grad))
    assert not of_memory.any()


NOT_FINITE = {
    "grad-nan": ("grad", math.nan),
    "grad-inf": ("grad", math.inf),
    "memory-nan": ("memory", math.nan),
    "memory-inf": ("memory", -math.inf),
    "slack-nan": ("slack", math.nan),
    "slack-minus-inf": ("slack", -math.inf),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_gets_a_status(name: str, backend: str, device: torch.device) -> None:
    where, value = NOT_FINITE[name]
    tensors, options = make("batch", torch.float32, device)
    del tensors["valid"]
    tensors[where][1, 2, ..., 2] = value
    v, dual, status = project(tensors, options, backend)
    assert status[1, 2] == 3
    assert (status == 3).sum() == 1
    assert torch.equal(v[1, 2].nan_to_num(), tensors["grad"][1, 2].nan_to_num())
    assert not dual[1, 2].any()
    assert v.flatten(0, 1)[:5].isfinite().all()


def test_a_row_that_takes_no_part_may_hold_anything(backend: str, device: torch.device) -> None:
    tensors, options = make("blocks", torch.float32, device)
    valid = tensors.pop("valid")
    slack = tensors.pop("slack")
    rows = {"memory": tensors["memory"][valid], "slack": slack[valid]}
    expected = project(tensors | rows, options, backend)
    rubbish = torch.where(valid[:, None], tensors["memory"], math.nan)
    inputs = {"grad": tensors["grad"].clone().requires_grad_(), "memory": rubbish.requires_grad_()}
    v, dual, status = project(inputs | {"slack": slack, "valid": valid}, options, backend)
    close(v, expected[0], 1e-6, "v")
    close(dual[valid], expected[1], 1e-6, "dual")
    assert not dual[~valid].any()
    assert status == 0
    of_memory = torch.autograd.grad(v.sum(), inputs["memory"])[0]
    assert of_memory.isfinite().all()
    assert not of_memory[~valid].any()


@pytest.mark.parametrize("name", ["zero-row", "opposite", "sum-of-two"])
def test_impossible_progress_is_infeasible(name: str, backend: str, device: torch.device) -> None:
    a, b = torch.randn(2, 30, device=device)
    third = {"zero-row": torch.zeros_like(a), "opposite": -a, "sum-of-two": -a - b}[name]
    grad = torch.randn(30, device=device, requires_grad=True)
    v, dual, status = ops.gem_project(
        grad, torch.stack([a, b, third]), slack=-1.0, return_dual=True, backend=backend
    )
    assert status == 2
    assert torch.equal(v, grad)
    assert not dual.any()
    assert torch.equal(torch.autograd.grad(v.sum(), grad)[0], torch.ones_like(grad))


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("case", ["two-columns", "vectors", "blocks", "batch", "ridge"])
def test_gradcheck(case: str, backend: str, device: torch.device) -> None:
    _, t, p, _ = CASES[case]
    if p > 100:
        pytest.skip("finite differences of so many numbers take long")
    tensors, options = make(case, torch.float64, device)
    valid = tensors.pop("valid", None)
    tensors.setdefault("slack", torch.zeros(t, dtype=torch.float64))
    names = list(tensors)

    def function(*given: Tensor) -> Tensor:
        inputs = dict(zip(names, given, strict=True))
        return ops.gem_project(**inputs, **options, valid=valid, backend=backend)

    inputs = tuple(v.requires_grad_() for v in tensors.values())
    if p < t:
        # dependent rows: which of them are active is a tie, v is still a function
        inputs = inputs[:1]
        function_of_grad = function
        fixed = [v.detach() for v in tensors.values()][1:]

        def function(*given: Tensor) -> Tensor:
            return function_of_grad(*given, *fixed)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.rungs("cpu", "cuda")
@pytest.mark.parametrize("wanted", ["grad", "memory", "slack"])
def test_one_gradient_alone(wanted: str, backend: str, device: torch.device) -> None:
    tensors, options = make("batch", torch.float32, device)
    every = leaves(tensors)
    names = [name for name in every if every[name].requires_grad]
    v, *_ = project(every, options, backend)
    expected = torch.autograd.grad(v.square().sum(), [every[name] for name in names])
    alone = {k: v.clone().requires_grad_(k == wanted) for k, v in tensors.items()}
    v, *_ = project(alone, options, backend)
    got = torch.autograd.grad(v.square().sum(), alone[wanted])[0]
    assert torch.equal(got, expected[names.index(wanted)])


@pytest.mark.rungs("cpu", "cuda", "triton")
def test_no_double_backward_on_kernels(backend: str, device: torch.device) -> None:
    tensors, options = make("plain", torch.float32, device)
    inputs = leaves(tensors)
    v, *_ = project(inputs, options, backend)
    (of_grad,) = torch.autograd.grad(v.square().sum(), inputs["grad"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        of_grad.sum().backward()


def test_the_reference_has_double_backward() -> None:
    grad = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 3, dtype=torch.float64)
    memory = (-memory * (memory @ grad.detach()).sign()[:, None]).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda g, m: reference.gem_project(g, m, memory_strength=0.1)[0], (grad, memory)
    )


@pytest.mark.rungs("cpu", "cuda", "triton")
def test_same_bits_twice(backend: str, device: torch.device) -> None:
    tensors, options = make("long", torch.float32, device)
    runs = []
    for _ in range(2):
        inputs = leaves(tensors)
        v, dual, _ = project(inputs, options, backend)
        runs.append((v, dual, *torch.autograd.grad(v.square().sum(), list(inputs.values()))))
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("case", ["long", "batch", "many-rows"])
def test_same_bits_for_any_number_of_threads(case: str, backend: str, device: torch.device) -> None:
    tensors, options = make(case, torch.float32, device)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            inputs = leaves(tensors)
            v, dual, _ = project(inputs, options, backend)
            floating = [x for x in inputs.values() if x.requires_grad]
            runs.append((v, dual, *torch.autograd.grad(v.square().sum(), floating)))
    finally:
        torch.set_num_threads(before)
    for one, *others in zip(*runs, strict=True):
        assert all(torch.equal(one, other) for other in others)
