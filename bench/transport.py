"""Benchmark of optimal transport: entropic plans, their gradients, points, exact solvers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import saccade
from saccade.bench._suite import (
    FORWARD,
    TRAINING,
    Case,
    Function,
    Inputs,
    Ours,
    SpeedTarget,
    Suite,
    Work,
)
from saccade.bench.peers.transport import PEERS

SWEEPS = 100


class Saccade(Ours):
    """The operator itself, on a backend; "auto" is what users get."""

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say that one problem has no kernel for GPUs."""
        on_gpu = device.type != "cpu" and case.kwargs["problem"] == "emd"
        return "runs on the CPU" if on_gpu else None

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""
        if case.kwargs["problem"] == "assignment":
            return lambda x: saccade.ops.assignment(x["cost"], backend=self.backend).cost
        if case.kwargs["problem"] == "emd":
            return lambda x: saccade.ops.emd(**x, backend=self.backend).value
        options: dict[str, Any] = {
            "eps": case.kwargs["eps"], "max_iter": SWEEPS, "backend": self.backend,
        }  # fmt: skip
        if case.kwargs["problem"] == "points":
            return lambda x: saccade.ops.sinkhorn_points(x["x"], x["y"], **options).value_linear

        def plan(x: Inputs) -> Tensor:
            result = saccade.ops.sinkhorn(x["cost"], **options).plan
            assert result is not None
            return result

        return plan


def _draw(name: str, normal: Tensor) -> Tensor:
    """Costs uniform in [0, 1]; points whose squared distances are about 2."""
    if name == "cost":
        return torch.special.ndtr(normal)
    shift = 0.5 if name == "y" else 0.0
    return (normal + shift) / normal.shape[-1] ** 0.5


def make_plan(name: str, origin: str, shape: tuple[int, ...], training: bool = False) -> Case:
    """One plan or a batch, eps 0.05 of the largest cost.

    Work: a sweep multiplies and adds every entry twice, and costs and plan pass through memory
    once; the gradient is counted as the solution of its system in ten steps, each like a sweep.
    """
    entries = 1.0
    for size in shape:
        entries *= size
    work = {FORWARD: Work(4.0 * SWEEPS * entries, 2 * entries)}
    if training:
        work[TRAINING] = Work(4.0 * (SWEEPS + 10) * entries, 6 * entries)
    kwargs = {"problem": "plan", "eps": 0.05}
    return Case(name, origin, {"cost": shape}, kwargs, work, _draw)


def make_points(name: str, origin: str, n: int, dim: int) -> Case:
    """Two clouds of n points. Work: in every sweep all costs anew, 2 D flops each."""
    flops = SWEEPS * (2.0 * dim + 20.0) * n * n
    return Case(
        name,
        origin,
        {"x": (n, dim), "y": (n, dim)},
        {"problem": "points", "eps": 0.1},
        {FORWARD: Work(flops, 2.0 * n * dim)},
        _draw,
    )


def _draw_exact(kind: str) -> Callable[[str, Tensor], Tensor]:
    """Costs that are uniform, whole numbers, or squared distances of points; weights of sum 1."""

    def draw(name: str, normal: Tensor) -> Tensor:
        if name != "cost":
            return (normal.abs() + 0.1) / (normal.abs() + 0.1).sum()
        if kind == "integers":
            return (1000 * torch.special.ndtr(normal)).floor()
        if kind == "points":
            x, y = normal[..., :2], normal.mT[..., 2:4]
            return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
        return torch.special.ndtr(normal)

    return draw


def make_exact(
    name: str,
    origin: str,
    problem: str,
    shape: tuple[int, ...],
    kind: str = "uniform",
    weighted: bool = False,
) -> Case:
    """An assignment or a transport problem, one or a batch.

    Work: every cost is read once, which is all that the sizes determine. Equal means that the
    least totals are.
    """
    *batch, n, m = shape
    shapes: dict[str, tuple[int, ...]] = {"cost": shape}
    if weighted:
        shapes |= {"a": (*batch, n), "b": (*batch, m)}
    work = {FORWARD: Work(0.0, float(math.prod(shape)))}
    kwargs = {"problem": problem, "costs": kind}
    return Case(name, origin, shapes, kwargs, work, _draw_exact(kind), tolerance=1e-6)


CASES = (
    make_plan("n512", "one plan, 512 x 512", (512, 512), training=True),
    make_plan("batch64", "64 plans, 64 x 64", (64, 64, 64), training=True),
    make_plan("n128", "one plan, 128 x 128", (128, 128), training=True),
    make_plan("n1024", "one plan, 1024 x 1024", (1024, 1024)),
    make_points("points1k", "two clouds of 1000 points in 64 dimensions", 1000, 64),
    make_exact("lap64", "256 assignments, 64 x 64", "assignment", (256, 64, 64)),
    make_exact("lap1024", "one assignment, 1024 x 1024", "assignment", (1024, 1024)),
    make_exact(
        "lap1024-integers", "whole numbers below 1000", "assignment", (1024, 1024), "integers"
    ),
    make_exact(
        "lap1024-points", "squared distances in the plane", "assignment", (1024, 1024), "points"
    ),
    make_exact("emd256", "uniform weights, 256 x 256", "emd", (256, 256)),
    make_exact("emd256-weights", "other weights", "emd", (256, 300), weighted=True),
)
EXACT = tuple(case.name for case in CASES if case.kwargs["problem"] in ("assignment", "emd"))
LAPX = ("lapx", "lapx-float32")

# The largest error allowed, relative to the largest entry; peers update the sides in another order.
TOLERANCE = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The error that the gate allows."""
    return TOLERANCE[dtype]


SUITE = Suite(
    operator="transport",
    cases=CASES,
    default_cases=("n512", "batch64", *EXACT),
    small=make_plan("small", "warm-up and tests", (2, 9, 11), training=True),
    ours=Saccade,
    peers=PEERS,
    quick_peers=("torch-log", "pot-log", "pot-batch-log", "pot-emd", "lapx"),
    truth=Saccade("reference"),
    tolerance=tolerance,
    speed_targets=(
        SpeedTarget("n512", FORWARD, ("pot-log",), 6.0),
        SpeedTarget("n512", TRAINING, ("pot-log",), 8.0),
        SpeedTarget("batch64", FORWARD, ("pot-batch-log",), 10.0),
        SpeedTarget("batch64", TRAINING, ("pot-batch-log",), 8.0),
        SpeedTarget("lap64", FORWARD, LAPX, 2.0),
        SpeedTarget("lap1024", FORWARD, LAPX, 1.0),
        SpeedTarget("lap1024-integers", FORWARD, LAPX, 1.0),
        SpeedTarget("lap1024-points", FORWARD, LAPX, 1.0),
        SpeedTarget("emd256", FORWARD, ("pot-emd",), 2.0),
    ),
)
