"""Every mistake gets a sentence with numbers before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

from saccade import _load, ops


def solve(**changes: Any) -> Callable[[], Any]:
    """A problem of 4 rows and 5 columns with one thing wrong."""
    arguments: dict[str, Any] = {"cost": torch.zeros(2, 4, 5), "eps": 0.1} | changes
    return lambda: ops.sinkhorn(**arguments)


def points(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {"x": torch.zeros(4, 3), "y": torch.zeros(5, 3), "eps": 0.1}
    arguments |= changes
    return lambda: ops.sinkhorn_points(**arguments)


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "cost-list": (solve(cost=[[1.0]]), TypeError, r"cost must be a torch.Tensor, got list"),
    "cost-int": (solve(cost=torch.zeros(4, 5).long()), TypeError, r"cost must have .*int64"),
    "cost-sparse": (solve(cost=torch.zeros(4, 5).to_sparse()), NotImplementedError, r"dense"),
    "cost-vector": (solve(cost=torch.zeros(4)), ValueError, r"rank 2 \[n, m\] .* \(4,\)"),
    "a-length": (
        solve(a=torch.ones(3)), ValueError, r"a has shape \(3,\) but there are 4 rows of cost",
    ),
    "b-length": (
        solve(b=torch.ones(2, 4)), ValueError, r"b has shape \(2, 4\) but there are 5 columns",
    ),
    "a-int": (solve(a=torch.ones(4).long()), TypeError, r"a must have one of the types"),
    "a-batch": (
        solve(a=torch.full((3, 4), 0.25)), ValueError, r"leading axes must broadcast.*\(3,\)",
    ),
    "a-negative": (
        solve(a=torch.tensor([1.0, 0.25, -0.25, 0.0])),
        ValueError, r"a must not be negative, got -0.25 at \(2,\)",
    ),
    "b-negative": (
        points(b=torch.full((2, 5), -0.2), rho=1.0),
        ValueError, r"b must not be negative, got -0.2 at \(0, 0\)",
    ),
    "totals": (
        solve(a=torch.ones(4)), ValueError, r"same total .* got 4 and 1; rho relaxes",
    ),
    "eps-none": (solve(eps=None), TypeError, r"eps must be a number, got None"),
    "eps-zero": (solve(eps=0.0), ValueError, r"eps must be above 0, got 0"),
    "eps-inf": (solve(eps=math.inf), ValueError, r"eps must be finite, got inf"),
    "rho-zero": (solve(rho=0), ValueError, r"rho must be above 0, got 0"),
    "rho-triple": (solve(rho=(1, 2, 3)), ValueError, r"rho must be a number, None, or a pair"),
    "rho-text": (solve(rho="big"), TypeError, r"rho must be a number"),
    "max-iter-zero": (solve(max_iter=0), ValueError, r"max_iter must be at least 1, got 0"),
    "max-iter-float": (solve(max_iter=1.5), TypeError, r"max_iter must be an int, got float"),
    "tol-negative": (solve(tol=-1e-3), ValueError, r"tol must be at least 0, got -0.001"),
    "scaling-one": (solve(eps_scaling=1.0), ValueError, r"eps_scaling must be above 0 and below 1"),
    "grad": (solve(grad="exact"), ValueError, r"grad must be one of .*'implicit'.* got 'exact'"),
    "reg-type": (solve(reg_type="l2"), ValueError, r"reg_type must be one of 'kl', 'entropy'"),
    "init-one": (solve(init=torch.zeros(4)), TypeError, r"init must be a pair \(f, g\)"),
    "init-shape": (
        solve(init=(torch.zeros(4), torch.zeros(4))),
        ValueError, r"init g .* \[..., 5\], got \(4,\)",
    ),
    "mask-type": (solve(mask=torch.ones(4, 5)), TypeError, r"mask must be a torch.bool tensor"),
    "mask-shape": (
        solve(mask=torch.ones(5, 4, dtype=torch.bool)),
        ValueError, r"n, m = \(4, 5\), got \(5, 4\)",
    ),
    "backend": (solve(backend="tpu"), ValueError, r"backend must be one of"),
    "unroll-cpu": (
        solve(grad="unroll", backend="cpu"), NotImplementedError, r"runs on the reference alone",
    ),
    "x-scalar": (points(x=torch.zeros(3)), ValueError, r"x must have rank 2"),
    "dimension": (
        points(y=torch.zeros(5, 2)), ValueError, r"same dimension.*\(4, 3\) and \(5, 2\)",
    ),
    "y-type": (points(y=torch.zeros(5, 3).double()), ValueError, r"y must have the type of x"),
    "metric": (points(p=3), ValueError, r"p must be one of 2, 1, 'cos', got 3"),
    "points-mask": (
        points(mask=torch.ones(4, 5, dtype=torch.bool)), TypeError, r"pair of bool tensors",
    ),
    "points-mask-length": (
        points(mask=(torch.ones(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool))),
        ValueError, r"with m = 5, got \(4,\)",
    ),
    "divergence-rho": (
        lambda: ops.sinkhorn_divergence(torch.zeros(2, 1), torch.zeros(2, 1), eps=0.1, rho=(1, 2)),
        TypeError, r"both sides of a divergence are alike",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    call, error, sentence = MISTAKES[name]
    with pytest.raises(error, match=sentence):
        call()


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
def test_forward_mode_is_the_references() -> None:
    cost, tangent = torch.rand(3, 4, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(cost, tangent)
        plan = ops.sinkhorn(dual, eps=0.2, max_iter=300).plan
        moved = forward_ad.unpack_dual(plan).tangent
        with pytest.raises(NotImplementedError, match="forward-mode"):
            ops.sinkhorn(dual, eps=0.2, backend="cpu")
    step = 1e-6
    near = [ops.sinkhorn(cost + s * tangent, eps=0.2, max_iter=300).plan for s in (step, -step)]
    torch.testing.assert_close(moved, (near[0] - near[1]) / (2 * step), rtol=1e-5, atol=1e-7)


COMPILED: dict[str, tuple[dict[str, Any], str]] = {
    "cost-rank": ({"cost": torch.zeros(4, 5)}, r"cost must have shape \[B, n, m\]"),
    "a-shape": ({"a": torch.ones(2, 3)}, r"a must have shape \[B, n\] = \[2, 4\]"),
    "b-shape": ({"b": torch.ones(2, 4)}, r"b must have shape \[B, m\] = \[2, 5\]"),
    "a-type": ({"a": torch.ones(2, 4).double()}, r"a and b must have the type"),
    "init-one": ({"init_f": torch.ones(2, 4)}, r"both potentials or none"),
    "init-shape": (
        {"init_f": torch.ones(2, 4), "init_g": torch.ones(2, 4)}, r"init g must have shape",
    ),
    "eps": ({"eps": 0.0}, r"eps must be finite and above 0"),
    "rho": ({"rho_a": -1.0}, r"rho must be above 0"),
    "max-iter": ({"max_iter": 0}, r"max_iter must be at least 1"),
    "tol": ({"tol": -1.0}, r"tol must be at least 0"),
    "scaling": ({"eps_scaling": 1.0}, r"eps_scaling must be at least 0 and below 1"),
    "cost-int": ({"cost": torch.zeros(2, 4, 5).long()}, r"the cost must be float16"),
}  # fmt: skip


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
@pytest.mark.parametrize("name", COMPILED)
def test_the_kernels_check_too(name: str) -> None:
    changes, sentence = COMPILED[name]
    arguments: dict[str, Any] = {
        "cost": torch.zeros(2, 4, 5), "a": torch.ones(2, 4), "b": torch.ones(2, 5),
        "init_f": None, "init_g": None, "eps": 0.1, "rho_a": math.inf, "rho_b": math.inf,
        "kl": True, "max_iter": 5, "tol": 0.0, "eps_scaling": 0.0,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=sentence):
        torch.ops.saccade.sinkhorn_forward(**(arguments | changes))
