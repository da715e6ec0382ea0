"""Cases of entropic transport for tools/triton_compile_check.py."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from saccade.triton_kernels._launch import Launch
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
    "sweeps": Case(2, 1000, 1500, RELAXED),
    "points": Case(2, 1000, 1500, BALANCED, SQUARED),
    "points-distance": Case(2, 1000, 1500, ENTROPY, DISTANCE, dim=3),
    "points-cosine": Case(2, 1000, 1500, RELAXED, ONE_MINUS_DOT, dim=100),
}


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""

    def tensor(*shape: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device="meta")

    a, b = tensor(case.batch, case.n), tensor(case.batch, case.m)
    plan = None
    if case.metric is None:
        costs = Costs.of_matrix(tensor(case.batch, case.n, case.m, kind=dtype))
        plan = tensor(case.batch, case.n, case.m, kind=dtype)
    else:
        x = tensor(case.batch, case.n, case.dim, kind=dtype)
        y = tensor(case.batch, case.m, case.dim, kind=dtype)
        costs = Costs.of_points(x, y, case.metric)
    s = start(costs, a, b, None, case.options, plan)
    conclude, _ = conclude_launch(s, 1e-5, s.states[0])
    if costs.kept:
        return [solve_launch(s), conclude]
    ranges, *_ = range_launch(costs)
    return [
        ranges,
        update_launch(s, True, 0),
        update_launch(s, False, 0),
        finish_launch(s),
        conclude,
    ]
