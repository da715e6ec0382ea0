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
from saccade.reference.transport import point_costs

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
    "large": (2, 160, 170, {"max_iter": 4, "zeros": True, "forbidden": True}),
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


@pytest.mark.parametrize("case", ["odd", "large"])
def test_every_problem_stops_on_its_own(library: ctypes.CDLL, case: str) -> None:
    cost, a, b, options = make(case)
    cost[1:] *= 0.02
    options |= {"tol": 1e-3, "max_iter": 60}
    cost = cost.nan_to_num(posinf=1.0)
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
    runs = []
    for order in (0, 1):
        library.set_reversed(order)
        try:
            runs.append(emulated.forward(library, cost, a, b, **options))
        finally:
            library.set_reversed(0)
    for name, found in runs[0].items():
        assert torch.equal(found, runs[1][name]), name  # type: ignore[arg-type]
