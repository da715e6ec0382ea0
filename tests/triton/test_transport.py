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

transport = importlib.import_module("saccade.triton_kernels.transport")
launches = importlib.import_module("saccade.triton_kernels._transport.launches")

pytestmark = pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")

# Largest error relative to the largest entry; gradients may be off ten times as much.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3}
# a problem in the registers of one program, or a launch a side and sweep
PATHS = {"kept": launches.MOST_KEPT, "sweeps": 0}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(launches, "MOST_KEPT", PATHS[request.param])
    return str(request.param)


# name: batch, n, m, options
CASES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "one": (1, 1, 1, {}),
    "row": (1, 1, 9, {"rho": 0.5}),
    "odd": (2, 17, 13, {}),
    "entropy": (1, 7, 10, {"reg_type": "entropy", "rho": (0.3, 0.7)}),
    "rows-relaxed": (1, 9, 20, {"rho": (0.3, None)}),
    "columns-relaxed": (1, 9, 20, {"rho": (None, 0.2), "reg_type": "entropy"}),
    "scaling": (2, 9, 8, {"eps": 0.2, "eps_scaling": 0.4, "max_iter": 3}),
    "tolerance": (2, 8, 8, {"tol": 2e-2, "max_iter": 12, "rho": 0.5}),
    "masked": (2, 12, 14, {"mask": True}),
    "zero-weights": (1, 10, 11, {"zeros": True}),
    "forbidden": (1, 10, 11, {"forbidden": True}),
}


def draw_weights(batch: int, count: int, zeros: bool) -> Tensor:
    weight = torch.rand(batch, count, dtype=torch.float64) + 0.1
    if zeros:
        weight[..., 1::4] = 0.0
    return (weight / weight.sum(-1, keepdim=True)).float()


def make(case: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Any]]:
    batch, n, m, options = CASES[case]
    options = {"eps": 0.1, "max_iter": 4, **options}
    tensors = {"cost": torch.rand(batch, n, m).to(dtype)}
    zeros = options.pop("zeros", False)
    if options.pop("mask", False):
        rows, columns = torch.arange(n), torch.arange(m)
        sizes = [(12, 14), (7, 5)]
        options["mask"] = torch.stack([(rows < i)[:, None] & (columns < j) for i, j in sizes])
    else:
        tensors["a"], tensors["b"] = draw_weights(batch, n, zeros), draw_weights(batch, m, zeros)
    if options.pop("forbidden", False):
        tensors["cost"][..., 1:, 1:][torch.rand(batch, n - 1, m - 1) < 0.3] = math.inf
    return tensors, options


def close(got: Tensor, true: Tensor, limit: float, name: str) -> None:
    """Equal relative to the largest finite entry; infinities in the same places."""
    got, true = got.detach().double(), true.detach().double()
    finite = true.isfinite()
    assert torch.equal(got.isfinite(), finite), f"{name} is finite elsewhere"
    assert torch.equal(got[~finite], true[~finite]), name
    if finite.any():
        error = (got - true)[finite].abs().max().item()
        size = max(true[finite].abs().max().item(), 0.1)
        assert error <= limit * size, f"{name} is off by {error:.1e} of {size:.1e}"


def differentiate(result: ops.OTResult, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a loss of every result; potentials of -inf are left out."""
    parts = [result.value, result.value_linear]
    parts += [torch.where(x.isfinite(), x, 0.0) for x in (result.f, result.g)]
    parts += [] if result.plan is None else [result.plan]
    weights = (torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view(x.shape) for x in parts)
    loss = torch.stack([(x * w).sum() for x, w in zip(parts, weights, strict=True)]).sum()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def compare(
    got: ops.OTResult, true: ops.OTResult, grads: tuple[dict[str, Tensor], dict[str, Tensor]],
    limit: float, balanced: bool,
) -> None:  # fmt: skip
    assert torch.equal(got.n_iter, true.n_iter)
    assert torch.equal(got.status, true.status)
    for name in ("f", "g", "value", "value_linear", "err"):
        close(getattr(got, name), getattr(true, name), limit, name)
    if got.plan is not None and true.plan is not None:
        close(got.plan, true.plan, limit, "plan")
    for name, right in grads[1].items():
        found = grads[0][name].double()
        if balanced and name in "ab":
            # up to a constant, over the weights that are not 0
            some = right != 0
            found, right = (
                torch.where(some, x - (x * some).sum(-1, True) / some.sum(-1, True), 0.0)
                for x in (found, right)
            )
        close(found, right, 10 * limit, f"the gradient of {name}")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float32) for case in CASES),
        *((case, torch.float16) for case in ("odd", "forbidden")),
    ],
    ids=lambda given: str(given).removeprefix("torch."),
)
def test_equals_the_reference(case: str, dtype: torch.dtype, path: str) -> None:
    tensors, options = make(case, dtype)
    results = []
    for backend, kind in (("triton", None), ("reference", torch.float64)):
        leaves = {k: v.to(kind or v.dtype).requires_grad_() for k, v in tensors.items()}
        result = ops.sinkhorn(**leaves, **options, backend=backend)
        results.append((result, differentiate(result, leaves)))
    (got, ours), (true, exact) = results
    assert got.plan is not None
    assert got.plan.dtype == ours["cost"].dtype == dtype
    compare(got, true, (ours, exact), TOLERANCES[dtype], "rho" not in options)


POINTS: dict[str, dict[str, Any]] = {
    "squared": {"p": 2},
    "squared-relaxed": {"p": 2, "rho": (0.4, 0.7), "reg_type": "entropy", "tol": 0.1},
    "distance": {"p": 1, "eps_scaling": 0.3},
    "cosine": {"p": "cos", "rho": (None, 0.5)},
}


@pytest.mark.parametrize("name", POINTS)
def test_points_equal_the_reference(name: str) -> None:
    n, m, dim = (19, 70, 5) if name != "cosine" else (66, 9, 35)
    leaves = {"x": torch.randn(2, n, dim) + 3, "y": torch.randn(1, m, dim) + 3}
    leaves |= {"a": draw_weights(2, n, True), "b": draw_weights(2, m, False)}
    results = []
    for backend, kind in (("triton", torch.float32), ("reference", torch.float64)):
        given = {k: v.to(kind).requires_grad_() for k, v in leaves.items()}
        result = ops.sinkhorn_points(**given, eps=1.0, max_iter=3, **POINTS[name], backend=backend)
        results.append((result, differentiate(result, given)))
    (got, ours), (true, exact) = results
    assert got.plan is None
    compare(got, true, (ours, exact), 3e-5, "rho" not in POINTS[name])


def test_points_of_half_types_and_a_mask() -> None:
    x, y = torch.randn(2, 20, 4).half(), torch.randn(2, 30, 4).half()
    x[1, 7:] = math.nan
    mask = torch.ones(2, 20, dtype=torch.bool), torch.ones(2, 30, dtype=torch.bool)
    mask[0][1, 7:] = False
    x.requires_grad_()
    got = ops.sinkhorn_points(x, y, eps=1.0, max_iter=3, mask=mask, backend="triton")
    alone = ops.sinkhorn_points(
        x[1, :7].double(), y[1].double(), eps=1.0, max_iter=3, backend="reference"
    )
    close(got.f[1, :7], alone.f, 1e-5, "f")
    close(got.value[1], alone.value, 1e-5, "value")
    (grad,) = torch.autograd.grad(got.value.sum(), x)
    assert grad.dtype == torch.float16
    assert grad.isfinite().all()
    assert not grad[1, 7:].any()
    (expected,) = torch.autograd.grad(alone.value, x)
    close(grad[1, :7], expected[1, :7], 4e-3, "the gradient of x")


def test_a_small_eps_finds_the_matching(path: str) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    cost = torch.rand(5, 5) + 1.0
    cost[torch.arange(5), order] = 0.0
    got = ops.sinkhorn(cost, eps=1e-5, max_iter=4, backend="triton")
    assert got.plan is not None
    expected = torch.zeros(5, 5)
    expected[torch.arange(5), order] = 0.2
    torch.testing.assert_close(got.plan, expected, rtol=0, atol=2e-2)
    assert got.value.isfinite()


def test_problems_end_on_their_own(path: str) -> None:
    easy, hard = torch.zeros(9, 9), torch.rand(9, 9)
    options: dict[str, Any] = {"eps": 0.05, "tol": 1e-3, "max_iter": 25, "backend": "triton"}
    both = ops.sinkhorn(torch.stack([hard, easy]), **options)
    assert both.n_iter.tolist()[1] < both.n_iter.tolist()[0]
    for index, cost in enumerate((hard, easy)):
        alone = ops.sinkhorn(cost, **options)
        for together, single in zip(both, alone, strict=True):
            assert torch.equal(together[index], single)  # type: ignore[index, arg-type]


def test_starts_where_it_ended(path: str) -> None:
    cost = torch.rand(8, 9)
    options: dict[str, Any] = {"eps": 0.2, "tol": 1e-4, "max_iter": 40, "backend": "triton"}
    first = ops.sinkhorn(cost, **options)
    assert first.status == 0
    again = ops.sinkhorn(cost, **options, init=(first.f, first.g))
    assert again.n_iter == 1
    torch.testing.assert_close(again.plan, first.plan, rtol=1e-3, atol=1e-6)


A, B = torch.full((2,), 0.5), torch.full((3,), 1 / 3)
PLAIN = [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]
INF = math.inf
STATUSES = {
    "max-iter": (PLAIN, A, B, {}, 1),
    "converged": (PLAIN, A, B, {"tol": 0.5}, 0),
    "lonely-row": ([[INF, INF, INF], [1.0, 0.0, 1.0]], A, B, {"tol": 0.5}, 2),
    "lonely-row-relaxed": ([[INF, INF, INF], [1.0, 0.0, 1.0]], A, B, {"rho": 0.5}, 1),
    "nan-cost": ([[math.nan, 1.0, 1.0], [1.0, 0.0, 1.0]], A, B, {}, 3),
    "negative-cost": ([[-INF, 1.0, 1.0], [1.0, 0.0, 1.0]], A, B, {}, 3),
    "nan-weight": (PLAIN, torch.tensor([0.5, math.nan]), B, {}, 3),
}


@pytest.mark.parametrize("name", STATUSES)
def test_statuses(name: str, path: str) -> None:
    cost, a, b, options, code = STATUSES[name]
    got = ops.sinkhorn(torch.tensor(cost), a, b, eps=0.5, max_iter=3, **options, backend="triton")
    assert got.plan is not None
    assert got.status == code
    assert got.plan.isnan().all() == (code == 3)


@pytest.mark.parametrize(
    ("a", "code"), [((1.0, 1.0), 2), ((1.5, -0.5), 3)], ids=["totals-differ", "negative"]
)
def test_weights_that_the_front_does_not_see(a: tuple[float, ...], code: int, path: str) -> None:
    results = transport.forward(
        torch.rand(1, 2, 3), torch.tensor([a]), B[None], None, None, 0.5, INF, INF, True, 2, 0.0,
        0.0,
    )  # fmt: skip
    assert results[-1] == code
    assert results[0].isnan().all() == (code == 3)


def test_strides_do_not_matter(path: str) -> None:
    cost = torch.rand(2, 11, 14)
    plain = ops.sinkhorn(cost, eps=0.3, max_iter=3, backend="triton")
    for turned in (cost.mT.contiguous().mT, cost.repeat_interleave(2, 2)[:, :, ::2]):
        other = ops.sinkhorn(turned, eps=0.3, max_iter=3, backend="triton")
        torch.testing.assert_close(other.plan, plain.plan, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)], ids=str)
def test_empty(shape: tuple[int, ...], path: str) -> None:
    cost = torch.zeros(shape, requires_grad=True)
    got = ops.sinkhorn(cost, eps=0.5, eps_scaling=0.5, max_iter=2, backend="triton")
    true = ops.sinkhorn(cost, eps=0.5, max_iter=2, backend="reference")
    assert torch.equal(got.f, true.f)
    assert torch.equal(got.status, true.status)
    (grad,) = torch.autograd.grad(got.value.sum() + got.plan.sum(), cost)  # type: ignore[union-attr]
    assert grad.shape == shape


@pytest.mark.parametrize("n", [0, 3])
def test_points_that_are_not_there(n: int) -> None:
    x, y = torch.randn(2, n, 3, requires_grad=True), torch.randn(2, 3 - n, 3)
    got = ops.sinkhorn_points(x, y, eps=0.5, max_iter=2, backend="triton")
    (grad,) = torch.autograd.grad(got.value.sum(), x)
    assert grad.shape == x.shape


def test_same_bits_twice(path: str) -> None:
    tensors, options = make("odd", torch.float32)
    runs = []
    for _ in range(2):
        leaves = {k: v.clone().requires_grad_() for k, v in tensors.items()}
        result = ops.sinkhorn(**leaves, **options, backend="triton")
        runs.append((*result, *differentiate(result, leaves).values()))
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


def test_envelope_and_vmap() -> None:
    cost = torch.rand(3, 6, 7, requires_grad=True)
    options: dict[str, Any] = {"eps": 0.2, "max_iter": 3, "backend": "triton"}
    result = ops.sinkhorn(cost, grad="envelope", **options)
    (of_value,) = torch.autograd.grad(result.value.sum(), cost, retain_graph=True)
    (of_linear,) = torch.autograd.grad(result.value_linear.sum(), cost)
    torch.testing.assert_close(of_value, result.plan)
    torch.testing.assert_close(of_linear, result.plan)
    mapped = torch.vmap(lambda c: ops.sinkhorn(c, **options).plan)(cost.detach())
    assert torch.equal(mapped, result.plan)  # type: ignore[arg-type]


def test_compiles_as_one_graph() -> None:
    cost = torch.rand(2, 5, 6, requires_grad=True)

    def plan(cost: Tensor) -> Tensor:
        found = ops.sinkhorn(cost, eps=0.3, max_iter=2, backend="triton").plan
        assert found is not None
        return found

    eager = plan(cost)
    compiled = torch.compile(plan, fullgraph=True, backend="aot_eager")(cost)
    assert torch.equal(compiled, eager)
    for mine, true in zip(
        torch.autograd.grad(compiled.square().sum(), cost),
        torch.autograd.grad(eager.square().sum(), cost),
        strict=True,
    ):
        assert torch.equal(mine, true)


def z(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


SETTINGS = (None, None, 0.5, INF, INF, True, 2, 0.0, 0.0)
POINT_SETTINGS = (None, None, 0, *SETTINGS[2:])
MISTAKES = {
    "rank": (
        lambda: transport.forward(z(2, 3), z(1, 2), z(1, 3), *SETTINGS),
        ValueError, r"cost must have shape \[B, n, m\]",
    ),
    "weights": (
        lambda: transport.forward(z(1, 2, 3), z(1, 3), z(1, 3), *SETTINGS),
        ValueError, r"a must have shape \[B, n\] = \[1, 2\], got \(1, 3\)",
    ),
    "weights-dtype": (
        lambda: transport.forward(z(1, 2, 3), z(1, 2).half(), z(1, 3), *SETTINGS),
        TypeError, r"a must be float32, got torch.float16",
    ),
    "float64": (
        lambda: transport.forward(z(1, 2, 3).double(), z(1, 2), z(1, 3), *SETTINGS),
        NotImplementedError, r"got torch.float64",
    ),
    "bfloat16": (
        lambda: transport.forward(z(1, 2, 3).bfloat16(), z(1, 2), z(1, 3), *SETTINGS),
        NotImplementedError, r"bfloat16 wrongly",
    ),
    "points": (
        lambda: transport.points_forward(
            z(1, 2, 3), z(1, 2, 4), z(1, 2), z(1, 2), *POINT_SETTINGS
        ),
        ValueError, r"got \(1, 2, 3\) and \(1, 2, 4\)",
    ),
    "points-dtype": (
        lambda: transport.points_forward(
            z(1, 2, 3), z(1, 2, 3).half(), z(1, 2), z(1, 2), *POINT_SETTINGS
        ),
        TypeError, r"y must have x's dtype torch.float32",
    ),
    "metric": (
        lambda: transport.points_forward(
            z(1, 2, 3), z(1, 2, 3), z(1, 2), z(1, 2), None, None, 3, *SETTINGS[2:]
        ),
        ValueError, r"metric must be 0, 1 or 2, got 3",
    ),
    "front": (
        lambda: ops.sinkhorn(z(2, 3).double(), eps=0.5, backend="triton"),
        RuntimeError, r"float64 needs the reference",
    ),
    "unroll": (
        lambda: ops.sinkhorn(z(2, 3), eps=0.5, grad="unroll", backend="triton"),
        NotImplementedError, r"unroll.*triton",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_sentences(name: str) -> None:
    call, error, text = MISTAKES[name]
    with pytest.raises(error, match=text):
        call()


def test_opcheck() -> None:
    saccade = torch.ops.saccade_triton
    kinds = ("test_schema", "test_faketensor")

    def check(name: str, *arguments: object) -> None:
        torch.library.opcheck(getattr(saccade, name).default, arguments, test_utils=kinds)

    cost, a, b = torch.rand(2, 3, 4), torch.full((2, 3), 1 / 3), torch.full((2, 4), 0.25)
    numbers = (0.5, INF, 0.7, True)
    check("sinkhorn_forward", cost, a, b, a, b, *numbers, 2, 0.0, 0.0)
    plan, f, g, *_ = saccade.sinkhorn_forward(cost, a, b, None, None, *numbers, 2, 0.0, 0.0)
    one = torch.ones(2)
    check("sinkhorn_backward", plan, None, None, one, None, cost, a, b, plan, f, g, *numbers)
    x, y = torch.randn(2, 3, 2), torch.randn(2, 4, 2)
    check("sinkhorn_points_forward", x, y, a, b, None, None, 0, *numbers, 2, 0.0, 0.0)
    check("sinkhorn_points_backward", a, None, one, None, x, y, a, b, f, g, 0, *numbers)
