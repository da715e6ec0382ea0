"""Cases of entropic transport for tools/triton_compile_check.py."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._transport.adjoint_launches import (
    Adjoint,
    cost_launch,
    kept_launch,
    multiply_launch,
    points_launch,
    step_launch,
    weigh_launch,
    weights_launch,
)
from saccade.triton_kernels._transport.launches import (
    METRICS,
    Costs,
    Options,
    conclude_launch,
    finish_launch,
    range_launch,
    solve_launch,
    start,
    update_launch,
)

SQUARED, DISTANCE, ONE_MINUS_DOT = METRICS


@dataclass(frozen=True)
class Case:
    """Batch, rows and columns; points have a metric and coordinates."""

    batch: int
    n: int
    m: int
    options: Options
    metric: int | None = None
    dim: int = 64


RELAXED = Options(0.05, 0.5, math.inf, kl=True, max_iter=100, tol=1e-3, scaling=0.5)
BALANCED = Options(0.05, math.inf, math.inf, kl=True, max_iter=100)
ENTROPY = Options(0.05, 0.5, 0.7, kl=False, max_iter=100, tol=1e-3)
CASES = {
    "kept": Case(64, 64, 64, BALANCED),
    "kept-128-relaxed": Case(8, 128, 128, RELAXED),
    "sweeps": Case(2, 1024, 1536, RELAXED),
    "points": Case(2, 1000, 1500, BALANCED, SQUARED),
    "points-distance": Case(2, 1000, 1500, ENTROPY, DISTANCE, dim=3),
    "points-cosine": Case(2, 1000, 1500, RELAXED, ONE_MINUS_DOT, dim=100),
}


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""

    def tensor(*shape: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device="meta")

    def small(count: int) -> torch.Tensor:
        return tensor(case.batch, count)

    a, b = small(case.n), small(case.m)
    plan = grad_plan = None
    if case.metric is None:
        costs = Costs.of_matrix(tensor(case.batch, case.n, case.m, kind=dtype))
        plan = grad_plan = tensor(case.batch, case.n, case.m, kind=dtype)
    else:
        x = tensor(case.batch, case.n, case.dim, kind=dtype)
        y = tensor(case.batch, case.m, case.dim, kind=dtype)
        costs = Costs.of_points(x, y, case.metric)
    one = torch.empty(case.batch, device="meta")
    s = start(costs, a, b, None, case.options, plan)
    adjoint = Adjoint(costs, a, b, a, b, plan, grad_plan, a, b, one, one, case.options)
    conclude, _ = conclude_launch(s, 1e-5, s.states[0])
    weights = [weights_launch(adjoint, rows)[0] for rows in (True, False)]
    if costs.kept:
        return [
            solve_launch(s),
            conclude,
            kept_launch(adjoint, torch.empty_like(costs.like)),
            *weights,
        ]
    ranges, *_ = range_launch(costs)
    descent = tensor(case.batch, 3, kind=torch.float64)
    products = [
        multiply_launch(adjoint, rows, other, None if rows else own, own, descent)
        for rows, own, other in ((True, a, b), (False, b, a))
    ]
    if plan is None:
        outputs = [points_launch(adjoint, rows, dtype)[0] for rows in (True, False)]
    else:
        outputs = [cost_launch(adjoint, torch.empty_like(plan))]
    return [
        ranges,
        update_launch(s, True, 0),
        update_launch(s, False, 0),
        finish_launch(s),
        conclude,
        *(weigh_launch(adjoint, rows, a if rows else b) for rows in (True, False)),
        *products,
        step_launch(adjoint, b, b, b, descent),
        *outputs,
        *weights,
    ]
