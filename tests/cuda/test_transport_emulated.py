"""The CUDA kernels' source, run on the CPU, against the reference in float64."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import reference
from saccade.reference.transport import point_costs, sinkhorn_gradients

from . import transport_emulation as emulated


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return emulate("transport")


INF = math.inf
# name: batch, n, m, options; 160 x 170 does not fit in a block's shared memory
CASES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "one": (1, 1, 1, {}),
    "row": (2, 1, 40, {}),
    "column": (1, 35, 1, {}),
    "odd": (3, 7, 33, {"zeros": True, "forbidden": True}),
    "descent": (1, 20, 17, {"eps_scaling": 0.3, "eps": 0.02}),
    "unbalanced": (2, 19, 24, {"rho": (0.7, INF)}),
    "relaxed": (2, 19, 24, {"rho": (0.7, 2.0), "kl": False, "zeros": True}),
    "warm": (1, 20, 30, {"warm": True}),
    "large": (2, 160, 170, {"max_iter": 4, "eps": 0.5, "zeros": True, "forbidden": True}),
    "large-descent": (1, 157, 161, {"max_iter": 2, "eps_scaling": 0.05}),
    "large-unbalanced": (1, 150, 175, {"max_iter": 4, "rho": (INF, 0.5)}),
}


def make(case: str) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    torch.manual_seed(0)
    batch, n, m, given = CASES[case]
    options: dict[str, Any] = {"eps": 0.1, "max_iter": 30} | given
    cost = torch.rand(batch, n, m)
    a, b = torch.rand(batch, n) + 0.1, torch.rand(batch, m) + 0.1
    if options.pop("zeros", False):
        a[:, ::5] = 0
        b[:, 1::7] = 0
    if options.pop("forbidden", False):
        cost[:, 2, : m // 2] = INF
        cost[:, 3] = INF
        cost[:, :, 4] = INF
    if options.pop("warm", False):
        options["init"] = torch.rand(batch, n), torch.rand(batch, m)
    if options.get("rho", (INF, INF)) == (INF, INF):
        a, b = a / a.sum(-1, True), b / b.sum(-1, True)
    return cost, a, b, options


def truth(cost: Tensor, a: Tensor, b: Tensor, options: dict[str, Any]) -> Any:
    options = dict(options)
    if "init" in options:
        options["init"] = tuple(x.double() for x in options["init"])
    return reference.sinkhorn(cost.double(), a.double(), b.double(), **options)


def check(found: dict[str, Tensor | None], true: Any, plan: bool = True) -> None:
    for name, limit in {"f": 2e-6, "g": 2e-6, "value": 1e-5, "err": 1e-5}.items():
        torch.testing.assert_close(found[name].double(), getattr(true, name), rtol=1e-5, atol=limit)  # type: ignore[union-attr]
    torch.testing.assert_close(found["linear"].double(), true.value_linear, rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]
    assert torch.equal(found["n_iter"], true.n_iter)  # type: ignore[arg-type]
    assert torch.equal(found["status"], true.status)  # type: ignore[arg-type]
    if plan:
        error = (found["plan"].double() - true.plan).abs().sum((-2, -1))  # type: ignore[union-attr]
        assert (error <= 1e-5 * true.plan.sum((-2, -1))).all()


@pytest.mark.parametrize("case", CASES)
def test_forward(library: ctypes.CDLL, case: str) -> None:
    cost, a, b, options = make(case)
    check(emulated.forward(library, cost, a, b, **options), truth(cost, a, b, options))


@pytest.mark.parametrize("p", [2, 1, "cos"])
@pytest.mark.parametrize(("n", "m", "dim"), [(3, 5, 2), (40, 130, 17)], ids=["few", "tiles"])
def test_points(library: ctypes.CDLL, n: int, m: int, dim: int, p: Any) -> None:
    x, y = torch.randn(2, n, dim), torch.randn(2, m, dim)
    if p == "cos":
        x, y = (z / z.norm(dim=-1, keepdim=True) for z in (x, y))
    a, b = torch.rand(2, n).softmax(-1), torch.rand(2, m).softmax(-1)
    options: dict[str, Any] = {"eps": 2.0, "max_iter": 4, "eps_scaling": 0.1}
    true = truth(point_costs(x.double(), y.double(), p), a, b, options)
    found = emulated.forward(library, (x, y), a, b, p=p, **options)
    for name in ("f", "g", "value"):
        scale = float(getattr(true, name).abs().max())
        torch.testing.assert_close(
            found[name].double(), getattr(true, name), rtol=1e-5, atol=3e-6 * max(scale, 1.0)
        )  # type: ignore[union-attr]
    torch.testing.assert_close(found["linear"].double(), true.value_linear, rtol=1e-5, atol=1e-5)  # type: ignore[union-attr]
    assert torch.equal(found["n_iter"], true.n_iter)  # type: ignore[arg-type]


def upstream(batch: int, n: int, m: int) -> dict[str, tuple[Tensor | None, ...]]:
    """Gradients of plan, f, g, value and value_linear by what asks for them."""
    plan, f, g = torch.randn(batch, n, m), torch.randn(batch, n), torch.randn(batch, m)
    value, linear = torch.randn(batch), torch.randn(batch)
    return {
        "value": (None, None, None, value, None),
        "plan": (plan, None, None, None, None),
        "all": (plan, f - f.mean(-1, True), g - g.mean(-1, True), value, linear),
        "points": (None, f - f.mean(-1, True), g - g.mean(-1, True), value, linear),
    }


def pinned(grads: Any, out: dict[str, Any], options: dict[str, Any]) -> list[Tensor]:
    """Gradients of balanced weights are unique but for what moves from one side to the other."""
    *others, of_a, of_b = (x.double() for x in grads)
    if options.get("rho", (INF, INF)) == (INF, INF):
        rows, columns = out["f"] > -INF, out["g"] > -INF
        mean = (of_a * rows).sum(-1, True) / rows.sum(-1, True)
        of_a, of_b = of_a - mean * rows, of_b + mean * columns
    return [*others, of_a, of_b]


def check_gradients(found: list[Tensor], true: Any) -> None:
    for one, other in zip(found, true, strict=True):
        scale = float(other.abs().max().clamp(min=0.1))
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=2e-4 * scale)


@pytest.mark.parametrize("asked", ["value", "plan", "all"])
@pytest.mark.parametrize("case", ["one", "odd", "unbalanced", "relaxed", "large"])
def test_backward(library: ctypes.CDLL, case: str, asked: str) -> None:
    cost, a, b, options = make(case)
    batch, n, m = cost.shape
    grads = upstream(batch, n, m)[asked]
    true = truth(cost, a, b, options)
    out: dict[str, Any] = {name: getattr(true, name).float() for name in ("plan", "f", "g")}
    found = emulated.backward(library, grads, cost, a, b, out, **options)
    wide = tuple(None if x is None else x.double() for x in grads)
    options = {k: x for k, x in options.items() if k in ("eps", "rho", "kl")}
    kept = (x.double() for x in (cost, a, b, *out.values()))
    expected = sinkhorn_gradients(wide, *kept, **options)  # type: ignore[arg-type]
    check_gradients(pinned(found, out, options), pinned(expected, out, options))


@pytest.mark.parametrize("p", [2, 1, "cos"])
@pytest.mark.parametrize(("n", "m", "dim"), [(3, 5, 2), (34, 130, 35)], ids=["few", "tiles"])
def test_points_backward(library: ctypes.CDLL, n: int, m: int, dim: int, p: Any) -> None:
    x, y = torch.randn(1, n, dim), torch.randn(1, m, dim)
    if p == "cos":
        x, y = (z / z.norm(dim=-1, keepdim=True) for z in (x, y))
    x[0, 0] = y[0, 1]
    a, b = torch.rand(1, n).softmax(-1), torch.rand(1, m).softmax(-1)
    options: dict[str, Any] = {"eps": 4.0, "max_iter": 50}
    points = [z.double().requires_grad_() for z in (x, y)]
    # as the kernels take it: a difference's cosine, whatever the points' lengths
    cost = 1 - points[0] @ points[1].mT if p == "cos" else point_costs(*points, p)
    true = truth(cost.detach(), a, b, options)
    out: dict[str, Any] = {"plan": None, "f": true.f.float(), "g": true.g.float()}
    grads = upstream(1, n, m)["points"]
    found = emulated.backward(library, grads, (x, y), a, b, out, p=p, **options)
    wide = tuple(None if z is None else z.double() for z in grads)
    kept = (z.double() for z in (cost.detach(), a, b, true.plan, true.f, true.g))
    of_cost, *of_weights = sinkhorn_gradients(wide, *kept, eps=4.0)  # type: ignore[arg-type]
    expected = [*torch.autograd.grad(cost, points, of_cost), *of_weights]
    check_gradients(pinned(found, out, options), pinned(expected, out, options))


@pytest.mark.parametrize("case", ["odd", "large"])
def test_every_problem_stops_on_its_own(library: ctypes.CDLL, case: str) -> None:
    cost, a, b, options = make(case)
    cost[1:] *= 0.02
    options |= {"tol": 1e-3, "max_iter": 60}
    cost = cost.nan_to_num(posinf=1.0)
    a, b = torch.full_like(a, 1 / a.shape[1]), torch.full_like(b, 1 / b.shape[1])
    true = truth(cost, a, b, options)
    assert len(set(true.n_iter.tolist())) > 1
    check(emulated.forward(library, cost, a, b, **options), true)


def test_tiny_eps_and_nan(library: ctypes.CDLL) -> None:
    cost = torch.rand(3, 9, 11)
    cost[1, 4, 5] = torch.nan
    a, b = torch.full((3, 9), 1 / 9), torch.full((3, 11), 1 / 11)
    found = emulated.forward(library, cost, a, b, eps=1e-6, max_iter=20)
    assert found["status"].tolist() == [1, 3, 1]  # type: ignore[union-attr]
    assert found["plan"][1].isnan().all()  # type: ignore[index]
    assert found["plan"][::2].isfinite().all()  # type: ignore[index]


@pytest.mark.parametrize("case", ["odd", "large"])
def test_same_bits_whatever_the_order_of_threads_and_blocks(
    library: ctypes.CDLL, case: str
) -> None:
    cost, a, b, options = make(case)
    options["max_iter"] = 3
    runs = []
    for order in (0, 1):
        library.set_reversed(order)
        try:
            out = emulated.forward(library, cost, a, b, **options)
            torch.manual_seed(1)
            grads = upstream(*cost.shape)["all"]
            results = emulated.backward(library, grads, cost, a, b, out, **options)
            runs.append(out | {str(i): result for i, result in enumerate(results)})
        finally:
            library.set_reversed(0)
    for name, found in runs[0].items():
        assert torch.equal(found, runs[1][name]), name  # type: ignore[arg-type]
