"""Every rung against the reference in float64: plans, potentials, values and every gradient."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import ops

from .transport_problems import CASES, TOLERANCE, centred, close, make

pytestmark = pytest.mark.rungs("reference", "cpu")
DTYPES = list(TOLERANCE)
NAMES = ("plan", "f", "g", "value", "value_linear")


def leaves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}


def is_balanced(options: dict[str, Any]) -> bool:
    return options.get("rho") is None


def backward(result: ops.OTResult, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Gradients of a function of all that is differentiable, the same for every type."""
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for name in NAMES:
        given = getattr(result, name)
        if given is None:
            continue
        weight = torch.randn(given.shape, generator=generator, dtype=torch.float64)
        # potentials of rows that take no part are -inf
        counts = torch.where(given.isfinite(), given.double(), 0.0)
        total = total + (weight * counts).sum()
    return list(torch.autograd.grad(total, list(inputs.values())))


def compare_gradients(
    got: list[Tensor], true: list[Tensor], inputs: dict[str, Tensor], balanced: bool, limit: float
) -> None:
    for ours, exact, (name, tensor) in zip(got, true, inputs.items(), strict=True):
        assert ours.dtype == tensor.dtype
        ours, exact = ours.double(), exact.double()
        if balanced and name in ("a", "b"):
            ours, exact = centred(ours, tensor), centred(exact, tensor)
        close(ours, exact, limit, f"the gradient of {name}")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(case: str, dtype: torch.dtype, backend: str) -> None:
    tensors, options = make(case, dtype)
    ours = leaves(tensors)
    exact = leaves({name: tensor.double() for name, tensor in tensors.items()})
    got = ops.sinkhorn(**ours, **options, backend=backend)
    true = ops.sinkhorn(**exact, **options, backend="reference")
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    assert (got.plan.dtype, got.f.dtype, got.value.dtype) == (dtype, compute, compute)
    limit = TOLERANCE[dtype] * (10 if case == "small-eps" else 1)
    for name in NAMES:
        # what is small in a half type is not small in float32
        close(getattr(got, name), getattr(true, name), limit, name)
    # err is what is left of sums near 1
    assert (got.err.double() - true.err).abs().max() < max(TOLERANCE[compute], 1e-12)
    if "tol" not in options or dtype == torch.float64:
        assert torch.equal(got.n_iter, true.n_iter)
        assert torch.equal(got.status, true.status)
    if case == "small-eps" and dtype != torch.float64:
        return  # a plan close to a vertex: its system is singular to float32
    # conjugate gradients stop at a residual; potentials of a half type are of other costs
    factor = 10 if dtype == torch.float64 else 20
    compare_gradients(
        backward(got, ours), backward(true, exact), ours, is_balanced(options), factor * limit
    )


POINTS: dict[str, dict[str, Any]] = {
    "squared": {"p": 2, "eps": 0.2},
    "distance": {"p": 1, "eps": 0.1},
    "cosine": {"p": "cos", "eps": 0.1},
    "relaxed": {"p": 2, "eps": 0.2, "rho": (0.5, 0.3)},
    "entropy": {"p": 1, "eps": 0.1, "reg_type": "entropy", "rho": (None, 0.3)},
    "scaling": {"p": 2, "eps": 0.05, "eps_scaling": 0.7},
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(7, 5, 3), (23, 40, 17), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", POINTS)
def test_points_equal_the_reference(
    name: str, sizes: tuple[int, int, int], dtype: torch.dtype, backend: str
) -> None:
    n, m, dim = sizes
    options = {"max_iter": 80} | POINTS[name]
    drawn = {
        "x": torch.randn(2, n, dim) / dim**0.5,
        "y": (torch.randn(m, dim) + 0.5) / dim**0.5,
        "a": torch.rand(2, n, dtype=torch.float64) + 0.1,
        "b": torch.rand(2, m, dtype=torch.float64) + 0.1,
    }
    for side in ("a", "b"):
        drawn[side] = drawn[side] / drawn[side].sum(-1, keepdim=True)
    weights = torch.float64 if dtype == torch.float64 else torch.float32
    ours = {k: v.to(weights if k in "ab" else dtype) for k, v in drawn.items()}
    exact = leaves({k: v.double() for k, v in ours.items()})
    ours = leaves(ours)
    got = ops.sinkhorn_points(**ours, **options, backend=backend)
    true = ops.sinkhorn_points(**exact, **options, backend="reference")
    assert got.plan is None
    limit = TOLERANCE[weights]
    for field in NAMES[1:]:
        close(getattr(got, field), getattr(true, field), 5 * limit, field)
    limit = 10 * max(limit, TOLERANCE[dtype])
    compare_gradients(backward(got, ours), backward(true, exact), ours, is_balanced(options), limit)


LAYOUTS = {
    "columns-first": lambda c: c.mT.contiguous().mT,
    "padded": lambda c: torch.cat([c, c], -1)[..., : c.shape[-1]],
    "every-other": lambda c: c.repeat_interleave(2, -1)[..., ::2],
    "batch-last": lambda c: c.movedim(0, -1).contiguous().movedim(-1, 0),
}


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_do_not_matter(layout: str, backend: str) -> None:
    tensors, options = make("prime", torch.float32)
    results = []
    for cost in (tensors["cost"], LAYOUTS[layout](tensors["cost"])):
        inputs = leaves(tensors) | {"cost": cost.detach().requires_grad_()}
        result = ops.sinkhorn(**inputs, **options, backend=backend)
        results.append((*result, *backward(result, inputs)))
    for expected, got in zip(*results, strict=True):
        assert torch.equal(got, expected)


def test_leading_axes_broadcast(backend: str) -> None:
    cost = torch.rand(3, 1, 6, 5)
    a = torch.rand(2, 6).softmax(-1)
    result = ops.sinkhorn(cost, a, eps=0.2, backend=backend)
    assert result.plan.shape == (3, 2, 6, 5)
    assert (result.f.shape, result.g.shape, result.value.shape) == ((3, 2, 6), (3, 2, 5), (3, 2))
    for i in range(3):
        for j in range(2):
            alone = ops.sinkhorn(cost[i, 0], a[j], eps=0.2, backend=backend)
            close(result.plan[i, j], alone.plan, 1e-6, "plan")


EMPTY = {"no-batch": (0, 3, 4), "no-rows": (2, 0, 4), "no-columns": (2, 3, 0), "nothing": (2, 0, 0)}


@pytest.mark.parametrize("name", EMPTY)
def test_empty(name: str, backend: str) -> None:
    batch, n, m = EMPTY[name]
    cost = torch.rand(batch, n, m, requires_grad=True)
    result = ops.sinkhorn(cost, eps=0.1, tol=1e-3, rho=1.0, backend=backend)
    assert result.plan.shape == cost.shape
    assert (result.f == -math.inf).all()
    assert (result.g == -math.inf).all()
    assert (result.status == 0).all()
    (of_cost,) = torch.autograd.grad(result.value.sum() + result.plan.sum(), cost)
    assert of_cost.shape == cost.shape
    x, y = torch.rand(batch, n, 3, requires_grad=True), torch.rand(batch, m, 3)
    points = ops.sinkhorn_points(x, y, eps=0.1, rho=1.0, backend=backend)
    (of_x,) = torch.autograd.grad(points.value.sum(), x)
    assert of_x.shape == x.shape
    if batch and max(n, m) and not (n and m):
        balanced = ops.sinkhorn(cost, eps=0.1, backend=backend)
        assert (balanced.status == 2).all()


NOT_FINITE = {
    "cost-nan": ("cost", math.nan),
    "cost-minus-inf": ("cost", -math.inf),
    "a-nan": ("a", math.nan),
    "b-nan": ("b", math.nan),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_nan_makes_its_problem_nan(name: str, backend: str) -> None:
    where, value = NOT_FINITE[name]
    tensors, options = make("whole-vectors", torch.float32)
    clean = ops.sinkhorn(**tensors, **options, backend=backend)
    tensors[where][1].view(-1)[3] = value
    # relaxed sides have no totals to be compared
    options["rho"] = None if where == "cost" else 1e4
    got = ops.sinkhorn(**tensors, **options, backend=backend)
    assert got.status.tolist()[1] == 3
    assert got.status.tolist()[0] != 3
    assert got.plan[1].isnan().all()
    assert got.value[1].isnan()
    if where == "cost":
        assert torch.equal(got.plan[0], clean.plan[0])


def test_forbidden_rows_and_columns(backend: str) -> None:
    cost = torch.rand(3, 6, 5)
    cost[1, 2] = math.inf
    cost[2, :, 4] = math.inf
    cost.requires_grad_()
    result = ops.sinkhorn(cost, eps=0.1, backend=backend)
    assert result.status.tolist() == [1, 2, 2]
    assert not result.plan.isnan().any()
    assert not result.plan[1, 2].any()
    assert not result.plan[2, :, 4].any()
    assert result.value.isfinite().all()
    (of_cost,) = torch.autograd.grad(result.plan.square().sum() + result.value.sum(), cost)
    assert of_cost.isfinite().all()
    # who pays for a marginal may leave it
    relaxed = ops.sinkhorn(cost, eps=0.1, rho=1.0, tol=1e-4, max_iter=1000, backend=backend)
    assert relaxed.status.tolist() == [0, 0, 0]


def test_totals_that_differ(backend: str) -> None:
    a, b = torch.full((4,), 0.25), torch.full((5,), 0.25)
    with pytest.raises(ValueError, match=r"the same total .* got 1 and 1.25"):
        ops.sinkhorn(torch.rand(4, 5), a, b, eps=0.1, backend=backend)


# under vmap nobody looks at weights: first weight of the second problem, rho, status
UNSEEN = {"negative": (-0.5, 1e4, 3), "total": (0.45, None, 2)}


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("name", UNSEEN)
def test_weights_that_nobody_looks_at_have_a_status(name: str, backend: str) -> None:
    first, rho, status = UNSEEN[name]
    cost, a = torch.rand(3, 4, 5), torch.full((3, 4), 0.25)
    a[1, 0] = first
    result = torch.vmap(partial(ops.sinkhorn, eps=0.1, rho=rho, backend=backend))(cost, a)
    assert result.status.tolist() == [1, status, 1]
    assert result.value[1].isnan() == (status == 3)


@pytest.mark.parametrize("spread", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_no_eps_is_too_small(spread: float, dtype: torch.dtype, backend: str) -> None:
    # groups of columns that lie farther than any exponential reaches
    cost = torch.rand(2, 20, 24).to(dtype) + spread * torch.arange(24) * (torch.arange(24) % 3 == 0)
    cost.requires_grad_()
    result = ops.sinkhorn(cost, eps=1e-3, max_iter=60, backend=backend)
    for tensor in result:
        assert tensor.isfinite().all()
    if dtype == torch.float64 or spread == 1.0:
        # a cost of float32 is rounded by more than eps where it is large
        total = result.plan.sum((-2, -1))
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-4, atol=1e-4)
        exact = ops.sinkhorn(cost.double(), eps=1e-3, max_iter=60, backend="reference")
        close(result.plan, exact.plan, 1e-5 if dtype == torch.float64 else 2e-3, "plan")
    (of_cost,) = torch.autograd.grad(result.plan.square().sum(), cost)
    assert of_cost.isfinite().all()


def test_early_exit_is_per_problem(backend: str) -> None:
    cost = torch.rand(3, 10, 10, dtype=torch.float64)
    cost[0] = 0.5
    result = ops.sinkhorn(cost, eps=0.05, tol=1e-6, max_iter=300, backend=backend)
    assert (result.status == 0).all()
    assert (result.err <= 1e-6).all()
    assert result.n_iter[0] < result.n_iter[1:].min()
    one = ops.sinkhorn(cost[1], eps=0.05, tol=1e-6, max_iter=300, backend=backend)
    assert torch.equal(one.plan, result.plan[1])
    short = ops.sinkhorn(cost, eps=0.05, tol=1e-6, max_iter=3, backend=backend)
    assert short.status.tolist() == [0, 1, 1]
    assert short.n_iter.tolist() == [result.n_iter[0], 3, 3]


def test_a_warm_start_ends_at_once(backend: str) -> None:
    tensors, _ = make("odd", torch.float64)
    first = ops.sinkhorn(**tensors, eps=0.1, tol=1e-9, max_iter=2000, backend=backend)
    again = ops.sinkhorn(**tensors, eps=0.1, tol=1e-9, init=(first.f, first.g), backend=backend)
    assert first.n_iter > 5
    assert again.n_iter == 1
    close(again.plan, first.plan, 1e-8, "plan")


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("case", ["blocks", "prime", "both-relaxed", "small-eps"])
def test_same_bits_for_any_number_of_threads(case: str, backend: str) -> None:
    tensors, options = make(case, torch.float32)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            inputs = leaves(tensors)
            result = ops.sinkhorn(**inputs, **options, backend=backend)
            runs.append((*result, *backward(result, inputs)))
    finally:
        torch.set_num_threads(before)
    for one, *others in zip(*runs, strict=True):
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.rungs("cpu")
def test_same_bits_for_a_large_problem_in_and_out_of_a_batch(backend: str) -> None:
    cost = torch.rand(3, 1030, 1021)
    alone = ops.sinkhorn(cost[1], eps=0.05, max_iter=4, backend=backend)
    x, y = torch.rand(2, 1030, 2), torch.rand(2, 1021, 2)
    point = ops.sinkhorn_points(x[0], y[0], eps=0.05, max_iter=2, backend=backend)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        batch = ops.sinkhorn(cost, eps=0.05, max_iter=4, backend=backend)
        # fewer problems than threads: rows are shared
        single = ops.sinkhorn(cost[1], eps=0.05, max_iter=4, backend=backend)
        points = ops.sinkhorn_points(x, y, eps=0.05, max_iter=2, backend=backend)
    finally:
        torch.set_num_threads(before)
    for one, many, shared in zip(alone, batch, single, strict=True):
        assert torch.equal(one, many[1])
        assert torch.equal(one, shared)
    assert torch.equal(point.f, points.f[0])


@pytest.mark.parametrize(
    "case", ["odd", "entropy", "both-relaxed", "rows-relaxed", "columns-relaxed", "zero-weights"]
)
def test_gradcheck(case: str, backend: str) -> None:
    tensors, options = make(case, torch.float64)
    options |= {"eps": 0.5, "max_iter": 120}
    names, balanced = list(tensors), is_balanced(options)
    some = [tensors[name].clone() for name in names]

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(names, given, strict=True))
        # weights of 0 stay 0, and balanced totals stay the same
        for name in ("a", "b"):
            mass = inputs[name] * (tensors[name] != 0)
            inputs[name] = mass / mass.sum(-1, keepdim=True) if balanced else mass
        result = ops.sinkhorn(**inputs, **options, backend=backend)
        g = torch.where(result.g.isfinite(), result.g, 0.0)
        f = torch.where(result.f.isfinite(), result.f, 0.0)
        # potentials are unique up to a constant
        shift = (tensors["b"] * g).sum(-1, keepdim=True) if balanced else 0.0
        there = (result.f.isfinite(), result.g.isfinite())
        potentials = ((f + shift) * there[0], (g - shift) * there[1])
        return result.plan, *potentials, result.value, result.value_linear

    inputs = tuple(t.requires_grad_() for t in some)
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("p", [2, 1, "cos"])
def test_gradcheck_of_points(p: Any, backend: str) -> None:
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        result = ops.sinkhorn_points(x, y, eps=0.5, p=p, max_iter=500, backend=backend)
        shift = result.g.mean(-1, keepdim=True)
        return result.f + shift, result.g - shift, result.value, result.value_linear

    assert torch.autograd.gradcheck(function, (x, y), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("case", ["odd", "both-relaxed", "columns-relaxed", "masked"])
def test_unrolled_and_implicit_gradients_meet(case: str) -> None:
    tensors, options = make(case, torch.float64)
    options["max_iter"] = 600
    grads = []
    for grad in ("unroll", "implicit"):
        inputs = leaves(tensors)
        result = ops.sinkhorn(**inputs, **options, grad=grad)
        result = result._replace(f=result.f.detach(), g=result.g.detach())
        grads.append(backward(result, inputs))
    compare_gradients(grads[1], grads[0], inputs, is_balanced(options), 1e-7)


def test_envelope_and_none(backend: str) -> None:
    tensors, options = make("odd", torch.float64)
    inputs = leaves(tensors)
    result = ops.sinkhorn(**inputs, **options, grad="envelope", backend=backend)
    assert not any(tensor.requires_grad for tensor in (result.plan, result.f, result.g))
    (of_cost,) = torch.autograd.grad(result.value_linear, inputs["cost"], retain_graph=True)
    close(of_cost, result.plan, 1e-12, "the gradient of <C, P>")
    (of_cost,) = torch.autograd.grad(result.value, inputs["cost"])
    close(of_cost, result.plan, 1e-12, "the gradient of the value")
    nothing = ops.sinkhorn(**inputs, **options, grad="none", backend=backend)
    assert not any(tensor.requires_grad for tensor in nothing)
    x = torch.rand(5, 2, requires_grad=True)
    points = ops.sinkhorn_points(x, x + 1, eps=0.1, grad="none", backend=backend)
    assert not points.value.requires_grad
    points = ops.sinkhorn_points(x, x + 1, eps=0.1, grad="envelope", backend=backend)
    assert points.value.requires_grad
    assert not points.f.requires_grad


@pytest.mark.rungs("cpu")
def test_no_double_backward_on_kernels(backend: str) -> None:
    cost = torch.rand(4, 5, requires_grad=True)
    value = ops.sinkhorn(cost, eps=0.1, backend=backend).plan.square().sum()
    (of_cost,) = torch.autograd.grad(value, cost, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        of_cost.sum().backward()


def test_masked_points_may_hold_anything(backend: str) -> None:
    x, y = torch.randn(6, 2), torch.randn(5, 2)
    keep = torch.arange(6) < 4
    rubbish = torch.where(keep[:, None], x, math.nan).requires_grad_()
    got = ops.sinkhorn_points(
        rubbish, y, eps=0.3, mask=(keep, torch.ones(5, dtype=torch.bool)), backend=backend
    )
    alone = ops.sinkhorn_points(x[:4], y, eps=0.3, backend=backend)
    close(got.f[:4], alone.f, 1e-5, "f")
    close(got.value, alone.value, 1e-5, "value")
    (of_x,) = torch.autograd.grad(got.value, rubbish)
    assert of_x.isfinite().all()
    assert not of_x[4:].any()


def test_divergence(backend: str) -> None:
    x = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"eps": 3.0, "max_iter": 200, "backend": backend}
    same = ops.sinkhorn_divergence(x, x.detach(), **options)
    assert same.abs().max() < 1e-9
    moved = ops.sinkhorn_divergence(x, x.detach() + 0.5, **options)
    # a translation by t costs |t|^2, whatever eps
    torch.testing.assert_close(moved, torch.full_like(moved, 0.75), rtol=1e-6, atol=1e-6)
    (of_x,) = torch.autograd.grad(moved.sum(), x)
    torch.testing.assert_close(of_x, torch.full_like(of_x, -1.0 / 9), rtol=1e-5, atol=1e-5)
    light = torch.full((9,), 0.05, dtype=torch.float64)
    relaxed = ops.sinkhorn_divergence(x, x.detach(), light, 2 * light, rho=1.0, **options)
    assert (relaxed > 0).all()
