"""From tensors to launches of the forward pass: which kernel, how many programs, which tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._transport.costs import DISTANCE, MATRIX, ONE_MINUS_DOT, SQUARED
from saccade.triton_kernels._transport.solver import solve_problems
from saccade.triton_kernels._transport.sweeps import (
    conclude,
    find_range,
    finish_rows,
    update_potentials,
)

METRICS = (SQUARED.value, DISTANCE.value, ONE_MINUS_DOT.value)
# numbers of a padded matrix that one program keeps in registers
MOST_KEPT = 16384
DEPTH = 32
# largest spread of finite float32
WIDEST = 6.9e38


@dataclass(frozen=True)
class Options:
    """The numbers of a solver; rho is inf where the side is balanced."""

    eps: float
    rho_a: float
    rho_b: float
    kl: bool
    max_iter: int = 1
    tol: float = 0.0
    scaling: float = 0.0

    @property
    def balanced(self) -> tuple[bool, bool]:
        """Whether the rows and the columns are."""
        return math.isinf(self.rho_a), math.isinf(self.rho_b)

    @property
    def finite(self) -> tuple[float, float]:
        """Both rho for kernels: a balanced side does not read its own."""
        first, second = self.balanced
        return 1.0 if first else self.rho_a, 1.0 if second else self.rho_b


@dataclass(frozen=True)
class Costs:
    """B problems of n rows and m columns, whose costs are a matrix or lie between points."""

    batch: int
    n: int
    m: int
    metric: int
    of_rows: tuple[Any, ...]
    of_columns: tuple[Any, ...]
    like: Tensor
    tile: tuple[tuple[int, int], tuple[int, int]] = field(default=((64, 64), (64, 64)))

    @classmethod
    def of_matrix(cls, cost: Tensor) -> Costs:
        """Costs [B, n, m], read where they lie."""
        (batch, n, m), (whole, row, column) = cost.shape, cost.stride()
        # a tile is long along the axis that is dense
        along, across = (8, 256), (32, 128)
        tile = (across, along) if row == 1 and column != 1 else (along, across)
        return cls(
            batch, n, m, MATRIX.value, (cost, whole, row, column), (cost, whole, column, row), cost,
            tile,
        )  # fmt: skip

    @classmethod
    def of_points(cls, x: Tensor, y: Tensor, metric: int) -> Costs:
        """Points [B, n, D] and [B, m, D]; those of squared distances are centred."""
        x, y = x.float(), y.float()
        if metric == SQUARED.value:
            # products of numbers of the size of the distances
            centre = y.mean(1, keepdim=True)
            x, y = x - centre, y - centre
        x, y = x.contiguous(), y.contiguous()
        of_x, of_y = x.square().sum(-1), y.square().sum(-1)
        (batch, n, dim), m = x.shape, y.shape[1]
        tile = ((32, 64), (32, 64)) if metric == DISTANCE.value else ((64, 64), (64, 64))
        return cls(
            batch, n, m, metric, (x, y, of_x, of_y, dim), (y, x, of_y, of_x, dim), x, tile
        )  # fmt: skip

    def side(self, rows: bool) -> tuple[int, dict[str, Any], dict[str, Any]]:
        """Programs of a problem, arguments and constants of a pass over one side."""
        own, other = (self.n, self.m) if rows else (self.m, self.n)
        height, width = self.tile[0 if rows else 1]
        blocks = max(1, -(-own // height))
        arguments = {
            "source": self.of_rows if rows else self.of_columns, "own_count": own,
            "other_count": other, "blocks": blocks,
        }  # fmt: skip
        constants = {"METRIC": self.metric, "OWN": height, "OTHER": width, "DEPTH": DEPTH}
        return blocks, arguments, constants

    def new(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Room for numbers on the same device."""
        return self.like.new_empty(shape, dtype=dtype)

    @property
    def warps(self) -> int:
        """Warps of a program of a pass: three products of TF32 take registers."""
        return 8 if self.metric in (SQUARED.value, ONE_MINUS_DOT.value) else 4

    @property
    def kept(self) -> bool:
        """Whether a program may keep a problem in its registers."""
        return self.metric == MATRIX.value and padded(self.n) * padded(self.m) <= MOST_KEPT


def padded(count: int) -> int:
    """The power of two that holds so many numbers."""
    return max(16, int(triton.next_power_of_2(max(count, 1))))


def warps_of(n: int, m: int) -> int:
    """Warps of a program that keeps a matrix: at most 32 of its numbers a thread."""
    return 8 if padded(n) * padded(m) <= MOST_KEPT // 2 else 16


def pass_launch(
    costs: Costs, rows: bool, kernel: Any, arguments: dict[str, Any],
    constants: dict[str, Any] | None = None, times: int = 1,
) -> Launch:  # fmt: skip
    """A launch over the tiles of one side, each taken a number of times."""
    blocks, sizes, tiles = costs.side(rows)
    grid = costs.batch * blocks * times
    return Launch(
        kernel, grid, {**sizes, **arguments}, {**tiles, **(constants or {})},
        num_warps=costs.warps, num_stages=2,
    )  # fmt: skip


@dataclass
class Solving:
    """The tensors of a forward pass."""

    costs: Costs
    a: Tensor
    b: Tensor
    f: Tensor
    g: Tensor
    options: Options
    plan: Tensor | None
    states: tuple[Tensor, Tensor]
    lse_a: Tensor
    lse_b: Tensor
    linear: Tensor
    moved: Tensor

    @property
    def constants(self) -> dict[str, Any]:
        """What every kernel of the sweeps is compiled for."""
        return {"KL": self.options.kl, "CHECK": self.options.tol > 0}


def start(
    costs: Costs, a: Tensor, b: Tensor, init: tuple[Tensor, Tensor] | None, options: Options,
    plan: Tensor | None,
) -> Solving:  # fmt: skip
    """Potentials to start from, the first state and room for what the kernels write."""
    if init is None:
        f, g = torch.full_like(a, math.nan), torch.zeros_like(b)
    else:
        # a column that had no partner may have one now
        f, g = init[0].clone(), torch.where(init[1] == -math.inf, 0.0, init[1])
    g = torch.where(b == 0, -math.inf, g)
    state = torch.zeros((costs.batch, 4), dtype=torch.float64, device=a.device)
    state[:, 0] = state[:, 3] = options.eps
    blocks, *_ = costs.side(rows=True)
    return Solving(
        costs, a, b, f, g, options, plan, (state, torch.empty_like(state)),
        costs.new(costs.batch, costs.n), costs.new(costs.batch, costs.m),
        costs.new(costs.batch, costs.n), costs.new(costs.batch, blocks, dtype=torch.float64),
    )  # fmt: skip


def range_launch(costs: Costs) -> tuple[Launch, Tensor, Tensor]:
    """The launch that finds the least and the largest cost of every block of rows."""
    blocks, *_ = costs.side(rows=True)
    least, largest = costs.new(costs.batch, blocks), costs.new(costs.batch, blocks)
    return (
        pass_launch(costs, True, find_range, {"least": least, "largest": largest}),
        least,
        largest,
    )


def solve_launch(s: Solving) -> Launch:
    """All sweeps of problems that fit into registers, plan included."""
    costs, options = s.costs, s.options
    matrix, whole, row, column = costs.of_rows
    rho_a, rho_b = options.finite
    balanced_a, balanced_b = options.balanced
    arguments = {
        "matrix": matrix, "a": s.a, "b_weights": s.b, "f": s.f, "g": s.g, "state": s.states[0],
        "plan": s.plan, "lse_a": s.lse_a, "lse_b": s.lse_b, "linear": s.linear, "n": costs.n,
        "m": costs.m, "batch_stride": whole, "row_stride": row, "column_stride": column,
        "max_iter": options.max_iter, "rho_a": rho_a, "rho_b": rho_b,
        "scaling": options.scaling, "tol": options.tol,
    }  # fmt: skip
    constants = {
        **s.constants, "BALANCED_A": balanced_a, "BALANCED_B": balanced_b,
        "SCALES": options.scaling > 0, "N": padded(costs.n), "M": padded(costs.m),
    }  # fmt: skip
    return Launch(
        solve_problems, costs.batch, arguments, constants,
        num_warps=warps_of(costs.n, costs.m), num_stages=1,
    )  # fmt: skip


def update_launch(s: Solving, rows: bool, turn: int) -> Launch:
    """One side's half of a sweep; turn: which of the two states it reads."""
    potentials = ((s.g, s.f), (s.f, s.g))[0 if rows else 1]
    side = 0 if rows else 1
    arguments = {
        "other_potential": potentials[0], "potential": potentials[1],
        "weights": (s.a, s.b)[side], "lse": (s.lse_a, s.lse_b)[side], "moved": s.moved,
        "state": s.states[turn], "following": s.states[1 - turn],
        "moved_count": s.moved.shape[1], "max_iter": s.options.max_iter,
        "rho": s.options.finite[side], "scaling": s.options.scaling, "tol": s.options.tol,
    }  # fmt: skip
    constants = {**s.constants, "BALANCED": s.options.balanced[side], "ADVANCE": not rows}
    return pass_launch(s.costs, rows, update_potentials, arguments, constants)


def finish_launch(s: Solving) -> Launch:
    """The plan with the sums of its rows."""
    arguments = {
        "f": s.f, "g": s.g, "state": s.states[0], "plan": s.plan, "lse": s.lse_a,
        "linear": s.linear,
    }  # fmt: skip
    return pass_launch(s.costs, True, finish_rows, arguments)


def conclude_launch(s: Solving, tolerance: float, state: Tensor) -> tuple[Launch, list[Tensor]]:
    """The launch that fills value, value_linear, n_iter, err and status, [B] each."""
    costs, options = s.costs, s.options
    value, linear, err = (costs.new(costs.batch) for _ in range(3))
    n_iter, status = (costs.new(costs.batch, dtype=torch.int32) for _ in range(2))
    rho_a, rho_b = options.finite
    balanced_a, balanced_b = options.balanced
    arguments = {
        "a": s.a, "b_weights": s.b, "f": s.f, "g": s.g, "lse_a": s.lse_a, "lse_b": s.lse_b,
        "row_linear": s.linear, "state": state, "value": value, "linear": linear,
        "n_iter": n_iter, "err": err, "status": status, "n": costs.n, "m": costs.m,
        "rho_a": rho_a, "rho_b": rho_b, "tol": options.tol, "tolerance": tolerance,
    }  # fmt: skip
    constants = {"BALANCED_A": balanced_a, "BALANCED_B": balanced_b, "KL": options.kl}
    launch = Launch(conclude, costs.batch, arguments, constants, num_warps=4, num_stages=1)
    return launch, [value, linear, n_iter, err, status]


def most_sweeps(options: Options) -> int:
    """Sweeps that any problem may take: the descent from the widest range counts."""
    if options.scaling <= 0:
        return options.max_iter
    ratio = math.log(WIDEST / options.eps) / -math.log(options.scaling)
    return options.max_iter + max(0, math.ceil(ratio)) + 2
