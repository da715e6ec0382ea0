"""Launches of the gradient projection, for compilation without a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saccade.triton_kernels._gem.launches import (
    TOLERANCE,
    combine_launch,
    gradient_launch,
    number,
    outer_launch,
    products_launch,
    solve_active_launch,
    solve_launch,
)
from saccade.triton_kernels._launch import Launch


@dataclass(frozen=True)
class Case:
    """Batch, rows and columns; with slack where asked."""

    batch: int
    rows: int
    columns: int
    slack: bool = False


CASES = {
    "t10": Case(1, 10, 1_000_000),
    "agem": Case(1, 1, 1_000_000),
    "t20-slack": Case(4, 20, 100_003, slack=True),
    "t64": Case(1, 64, 1_000_000),
}


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""

    def tensor(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device="meta")

    memory, grad = tensor(case.batch, case.rows, case.columns), tensor(case.batch, case.columns)
    gram = tensor(case.batch, case.rows, case.rows, kind=torch.float64)
    linear = tensor(case.batch, case.rows, kind=torch.float64)
    numbers = (0.5, 1e-3, TOLERANCE[torch.float32])
    products, _ = products_launch(memory, grad)
    solve, dual, _ = solve_launch(gram, linear, linear if case.slack else None, numbers, False)
    combine, out = combine_launch(memory, grad, dual)
    gradient, _ = gradient_launch(memory, grad, dual, number(grad, 0.5))
    active, minus_y = solve_active_launch(gram, linear, dual, numbers)
    outer, *_ = outer_launch(memory, grad, dual, minus_y, out)
    return [products, solve, combine, gradient, active, outer]
