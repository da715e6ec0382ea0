"""Benchmark of gradient projection: whole projections, and the small quadratic problem alone."""

from __future__ import annotations

import torch
from torch import Tensor

import saccade
from saccade.bench._suite import FORWARD, Case, Function, Inputs, Ours, SpeedTarget, Suite, Work
from saccade.bench.peers.gem import PEERS


class Saccade(Ours):
    """The operator itself, on a backend; "auto" is what users get."""

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""
        if case.kwargs["problem"] == "quadratic":
            return lambda x: saccade.ops.nnqp(x["gram"], x["linear"], backend=self.backend)[0]
        return lambda x: saccade.ops.gem_project(x["grad"], x["memory"], backend=self.backend)


def _draw(name: str, normal: Tensor) -> Tensor:
    """Memories that agree and a gradient against them, so that every row takes part."""
    if name == "gram":
        return normal @ normal.mT / normal.shape[-1] + 0.1 * torch.eye(normal.shape[-1])
    if name == "linear":
        return 2 * normal
    # the golden ratio's multiples: a direction that all share, the same on every machine
    common = (torch.arange(normal.shape[-1], dtype=torch.float64) * 0.6180339887498949) % 1 - 0.5
    return normal + (common.float() if name == "memory" else -common.float())


def make_projection(name: str, origin: str, t: int, columns: int) -> Case:
    """One gradient against t memories.

    Work: every pair of rows once and every row with the gradient, then a sum of all rows; the data
    are read twice and the result is written.
    """
    flops = columns * (t * (t + 1.0) + 2 * t + 2 * t)
    return Case(
        name,
        origin,
        {"memory": (t, columns), "grad": (columns,)},
        {"problem": "projection"},
        {FORWARD: Work(flops, 2.0 * (t + 1) * columns, 4.0 * columns)},
        _draw,
    )


def make_quadratic(name: str, origin: str, batch: int, t: int) -> Case:
    """A batch of quadratic problems of t variables.

    Work: a step of the active set is an update of the table, and every variable enters once at
    most; half of them do.
    """
    return Case(
        name,
        origin,
        {"gram": (batch, t, t), "linear": (batch, t)},
        {"problem": "quadratic"},
        {FORWARD: Work(batch * t / 2 * 2.0 * t * t, float(batch * t * (t + 1)), 8.0 * batch * t)},
        _draw,
    )


CASES = (
    make_projection("t10", "10 tasks, a network of a million weights", 10, 1_000_000),
    make_projection("t5", "permuted MNIST: 5 tasks, a perceptron", 5, 100_000),
    make_projection("t20", "20 tasks, a network of a million weights", 20, 1_000_000),
    make_projection("agem", "A-GEM: one reference gradient", 1, 1_000_000),
    make_quadratic("qp10", "the dual of 10 tasks alone, 1024 problems", 1024, 10),
    make_quadratic("qp5", "the dual of 5 tasks alone, 1024 problems", 1024, 5),
)

# The largest error allowed, relative to the largest entry of the tensor.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The error that the gate allows."""
    return TOLERANCE[dtype]


SUITE = Suite(
    operator="gem",
    cases=CASES,
    default_cases=("t10", "agem", "qp10"),
    small=make_projection("small", "warm-up and tests", 3, 200),
    ours=Saccade,
    peers=PEERS,
    quick_peers=("torch-float32", "torch-agem", "quadprog"),
    truth=Saccade("reference"),
    tolerance=tolerance,
    speed_targets=(
        SpeedTarget("t10", FORWARD, ("gem-columns",), 18.0),
        SpeedTarget("t10", FORWARD, ("gem-rows",), 6.0),
        SpeedTarget("t10", FORWARD, ("torch-float32",), 4.0),
        SpeedTarget("qp10", FORWARD, ("quadprog",), 10.0),
    ),
)
