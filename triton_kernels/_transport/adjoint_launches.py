"""From tensors to launches of the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._transport.adjoint import (
    TOLERANCE,
    differentiate_weights,
    solve_kept,
    step_descent,
)
from saccade.triton_kernels._transport.launches import Costs, Options, padded, pass_launch, warps_of
from saccade.triton_kernels._transport.plans import (
    differentiate_costs,
    differentiate_points,
    multiply_plan,
    weigh_plan,
)

MOST_STEPS = 500


def _turned(matrix: Tensor | None, rows: bool) -> tuple[Any, ...] | None:
    """A matrix [B, n, m] as one side sees it: with its strides, or None."""
    if matrix is None:
        return None
    whole, row, column = matrix.stride()
    return (matrix, whole, row, column) if rows else (matrix, whole, column, row)


@dataclass
class Adjoint:
    """What a backward pass has been given, and the vectors that it makes.

    Gradients of plan, f, g, value and value_linear are None where they are zero; plan is None for
    points.
    """

    costs: Costs
    a: Tensor
    b: Tensor
    f: Tensor
    g: Tensor
    plan: Tensor | None
    of_plan: Tensor | None
    of_f: Tensor | None
    of_g: Tensor | None
    of_value: Tensor | None
    of_linear: Tensor | None
    options: Options

    def __post_init__(self) -> None:
        """Make room for sums and solutions of both sides."""
        batch, n, m = self.costs.batch, self.costs.n, self.costs.m
        self.sums_a, self.x = self.costs.new(batch, n), self.costs.new(batch, n)
        self.sums_b, self.y = self.costs.new(batch, m), self.costs.new(batch, m)

    @property
    def system(self) -> bool:
        """Whether there is a system to solve: the gradient of the value needs none."""
        given = (self.of_plan, self.of_f, self.of_g, self.of_linear)
        return any(grad is not None for grad in given)

    @property
    def alphas(self) -> tuple[float, float]:
        """1 + eps / rho of the rows and of the columns, 1 where they are balanced."""
        return 1 + self.options.eps / self.options.rho_a, 1 + self.options.eps / self.options.rho_b

    @property
    def most(self) -> int:
        """Steps of the descent; in exact arithmetic m are enough."""
        return min(2 * self.costs.m + 20, MOST_STEPS)

    def plan_arguments(self, rows: bool) -> dict[str, Any]:
        """Where a pass over one side finds the plan."""
        return {
            "plan": _turned(self.plan, rows),
            "own_potential": self.f if rows else self.g,
            "other_potential": self.g if rows else self.f,
            "inverse": 1 / self.options.eps,
        }


def weigh_launch(s: Adjoint, rows: bool, weighted: Tensor) -> Launch:
    """Sums of the plan, and of the plan times what is upstream, over one side."""
    arguments = {
        **s.plan_arguments(rows), "upstream": _turned(s.of_plan, rows), "of_linear": s.of_linear,
        "sums": s.sums_a if rows else s.sums_b, "weighted": weighted,
    }  # fmt: skip
    return pass_launch(s.costs, rows, weigh_plan, arguments)


def multiply_launch(
    s: Adjoint, rows: bool, vector: Tensor, scale: Tensor | None, out: Tensor, descent: Tensor
) -> Launch:
    """The product scale * (P vector), or P' for the columns, into out."""
    arguments = {
        **s.plan_arguments(rows), "vector": vector, "scale": scale, "out": out,
        "descent": descent,
    }  # fmt: skip
    return pass_launch(s.costs, rows, multiply_plan, arguments)


def step_launch(s: Adjoint, r: Tensor, d: Tensor, applied: Tensor, descent: Tensor) -> Launch:
    """A step of conjugate gradients, once P' diag(inverse) P d is there."""
    arguments = {
        "y": s.y, "r": r, "d": d, "s": applied, "sums": s.sums_b, "descent": descent,
        "m": s.costs.m, "alpha": s.alphas[1],
    }  # fmt: skip
    constants = {"BALANCED": all(s.options.balanced)}
    return Launch(step_descent, s.costs.batch, arguments, constants, num_warps=4, num_stages=1)


def kept_launch(s: Adjoint, grad_cost: Tensor) -> Launch:
    """Sums, solutions and the gradient of the cost of problems that fit into registers."""
    costs = s.costs
    alpha_a, alpha_b = s.alphas
    arguments = {
        "cost": costs.of_rows, "plan": _turned(s.plan, True),
        "upstream": _turned(s.of_plan, True), "of_f": s.of_f, "of_g": s.of_g,
        "of_linear": s.of_linear, "of_value": s.of_value, "grad_cost": grad_cost,
        "sums_a": s.sums_a, "sums_b": s.sums_b, "x_out": s.x, "y_out": s.y, "n": costs.n,
        "m": costs.m, "most": s.most, "eps": s.options.eps, "inverse_eps": 1 / s.options.eps,
        "alpha_a": alpha_a, "alpha_b": alpha_b,
    }  # fmt: skip
    constants = {
        "BALANCED": all(s.options.balanced), "SYSTEM": s.system, "N": padded(costs.n),
        "M": padded(costs.m),
    }  # fmt: skip
    return Launch(
        solve_kept, costs.batch, arguments, constants, num_warps=warps_of(costs.n, costs.m),
        num_stages=1,
    )  # fmt: skip


def cost_launch(s: Adjoint, grad_cost: Tensor) -> Launch:
    """The gradient of a matrix."""
    arguments = {
        "plan": _turned(s.plan, True), "inverse": 1 / s.options.eps,
        "upstream": _turned(s.of_plan, True), "of_linear": s.of_linear, "of_value": s.of_value,
        "x": s.x, "y": s.y, "grad_cost": grad_cost,
    }  # fmt: skip
    return pass_launch(s.costs, True, differentiate_costs, arguments)


def points_launch(s: Adjoint, rows: bool, dtype: torch.dtype) -> tuple[Launch, Tensor]:
    """The launch that fills the gradient of one side's points."""
    points = s.costs.of_rows[0] if rows else s.costs.of_columns[0]
    dim = points.shape[-1]
    out = points.new_empty(points.shape, dtype=dtype)
    width = min(64, max(16, int(triton.next_power_of_2(max(dim, 1)))))
    chunks = max(1, -(-dim // width))
    arguments = {
        **s.plan_arguments(rows), "of_linear": s.of_linear, "of_value": s.of_value,
        "x": s.x if rows else s.y, "y": s.y if rows else s.x, "out": out, "chunks": chunks,
    }  # fmt: skip
    del arguments["plan"]
    return pass_launch(
        s.costs, rows, differentiate_points, arguments, {"WIDTH": width}, times=chunks
    ), out


def weights_launch(s: Adjoint, rows: bool) -> tuple[Launch, Tensor]:
    """The launch that fills the gradients of one side's weights."""
    side = 0 if rows else 1
    weights, others = ((s.a, s.b), (s.b, s.a))[side]
    out = torch.empty_like(weights)
    arguments = {
        "weights": weights, "other_weights": others, "potential": (s.f, s.g)[side],
        "sums": (s.sums_a, s.sums_b)[side], "solution": (s.x, s.y)[side], "of_value": s.of_value,
        "out": out, "own_count": weights.shape[1], "other_count": others.shape[1],
        "eps": s.options.eps, "rho": s.options.finite[side],
    }  # fmt: skip
    constants = {"BALANCED": s.options.balanced[side], "KL": s.options.kl}
    launch = Launch(
        differentiate_weights, s.costs.batch, arguments, constants, num_warps=4, num_stages=1
    )
    return launch, out


@dataclass
class Descent:
    """Conjugate gradients over launches: its vectors and what a problem's loop knows."""

    p: Tensor
    q: Tensor
    inverse: Tensor
    r: Tensor
    d: Tensor
    s: Tensor
    t: Tensor
    state: Tensor


def begin(s: Adjoint, p: Tensor, q: Tensor) -> Descent:
    """Right-hand sides p and q from their sums, 1 / (alpha_a r), and the first x."""
    eps, (alpha_a, _) = s.options.eps, s.alphas
    dead_a, dead_b = s.sums_a == 0, s.sums_b == 0
    inverse = torch.where(dead_a, 0.0, 1 / (alpha_a * s.sums_a))
    if s.of_f is not None:
        p = p + torch.where(dead_a, 0.0, eps * s.of_f)
    if s.of_g is not None:
        q = q + torch.where(dead_b, 0.0, eps * s.of_g)
    s.x = inverse * p
    s.y = torch.zeros_like(q)
    state = torch.zeros((s.costs.batch, 3), dtype=torch.float64, device=q.device)
    r, d, applied = (torch.empty_like(q) for _ in range(3))
    return Descent(p, q, inverse, r, d, applied, torch.empty_like(p), state)


def set_residual(s: Adjoint, way: Descent) -> None:
    """The first residual and direction, once way.s is P' x."""
    c = s.sums_b
    r = torch.where(c == 0, 0.0, way.q - way.s)
    if all(s.options.balanced):
        mass, total = c.sum(-1, True, dtype=torch.float64), r.sum(-1, True, dtype=torch.float64)
        mean = torch.where(mass == 0, 0.0, total / torch.where(mass == 0, 1.0, mass))
        r = r - mean.float() * c
    way.r.copy_(r)
    way.d.copy_(torch.where(r == 0, 0.0, r / (s.alphas[1] * c)))
    size = (r.double() * way.d).sum(-1)
    target = TOLERANCE.value**2 * size
    way.state.copy_(torch.stack([size, target, (~(size > target)).double()], -1))
