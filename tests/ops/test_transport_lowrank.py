"""Plans of low rank: marginals, rank, POT, and what the factors may not do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import ops


def clouds(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    x, y = torch.randn(n, 2, dtype=torch.float64), torch.randn(m, 2, dtype=torch.float64) + 1
    return (x[:, None] - y).square().sum(-1), x, y


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_marginals_and_rank(rank: int) -> None:
    cost, *_ = clouds(12, 9)
    a = (torch.rand(2, 12, dtype=torch.float64) + 0.1).softmax(-1)
    result = ops.sinkhorn_lowrank(cost, a, rank=rank, max_iter=30)
    plan = result.plan()
    torch.testing.assert_close(plan.sum(-1), a, rtol=1e-6, atol=1e-7)
    uniform = torch.full((2, 9), 1 / 9, dtype=torch.float64)
    torch.testing.assert_close(plan.sum(-2), uniform, rtol=1e-6, atol=1e-7)
    assert (torch.linalg.matrix_rank(plan, rtol=1e-9) <= rank).all()
    torch.testing.assert_close(result.value_linear, (plan * cost).sum((-2, -1)))
    if rank == 1:
        torch.testing.assert_close(plan, a.unsqueeze(-1) * uniform.unsqueeze(-2), rtol=1e-6, atol=0)


@pytest.mark.slow
def test_no_worse_than_pot_and_no_better_than_the_optimum() -> None:
    ot = pytest.importorskip("ot")
    cost, x, y = clouds(20, 15)
    ours = ops.sinkhorn_lowrank(cost, rank=3, max_iter=120).value_linear.item()
    q, r, w = ot.lowrank_sinkhorn(
        x.numpy(), y.numpy(), rank=3, init="deterministic", numItermax=60, warn=False
    )
    theirs = float((cost.numpy() * (q / w @ r.T)).sum())
    best = float(ot.emd2([], [], cost.numpy()))
    assert best <= ours <= 1.02 * theirs


def test_the_gradient_of_the_cost_is_the_plan() -> None:
    cost = torch.rand(2, 6, 5, requires_grad=True)
    result = ops.sinkhorn_lowrank(cost, rank=2, eps=0.05, max_iter=20)
    (of_cost,) = torch.autograd.grad(result.value_linear.sum(), cost)
    torch.testing.assert_close(of_cost, result.plan(), rtol=1e-4, atol=1e-6)
    assert not ops.sinkhorn_lowrank(
        cost, rank=2, max_iter=3, grad="none"
    ).value_linear.requires_grad


def test_status() -> None:
    cost = torch.rand(2, 6, 5)
    cost[1, 2, 3] = math.nan
    result = ops.sinkhorn_lowrank(cost, rank=2, max_iter=5)
    assert result.status.tolist() == [1, 3]
    done = ops.sinkhorn_lowrank(cost[0], rank=1, max_iter=50, tol=1e-3)
    assert done.status == 0
    assert done.n_iter < 50


def test_zero_weights() -> None:
    cost = torch.rand(6, 5)
    a = torch.tensor([0.0, 0.4, 0.1, 0.0, 0.3, 0.2])
    plan = ops.sinkhorn_lowrank(cost, a, rank=2, max_iter=20).plan()
    assert plan.isfinite().all()
    assert not plan[a == 0].any()


MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "rank-zero": ({"rank": 0}, ValueError, "rank must be at least 1, got 0"),
    "rank-float": ({"rank": 2.0}, TypeError, "rank must be an int, got float"),
    "eps": ({"eps": -1.0}, ValueError, "eps must be at least 0, got -1.0"),
    "grad": ({"grad": "implicit"}, ValueError, "grad must be one of 'envelope', 'none'"),
    "empty": ({"cost": torch.zeros(0, 3)}, ValueError, r"rows and columns, got shape \(0, 3\)"),
    "a": ({"a": torch.ones(3)}, ValueError, r"a has shape \(3,\) but there are 4 rows of cost"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    changes, error, sentence = MISTAKES[name]
    with pytest.raises(error, match=sentence):
        ops.sinkhorn_lowrank(**({"cost": torch.rand(4, 5), "rank": 2} | changes))
