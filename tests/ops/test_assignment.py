"""Every rung of the assignment: scipy, all permutations, the conditions of an optimum."""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import saccade
from saccade import ops

pytestmark = pytest.mark.rungs("reference", "cpu", "cuda")

# What totals and dual variables may be off, relative to the largest cost.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}
DTYPES = list(TOLERANCE)

SIZES = {
    "one": (1, 1),
    "row": (1, 7),
    "column": (7, 1),
    "two": (2, 2),
    "vector-and-one": (17, 17),
    "wide": (5, 23),
    "tall": (31, 12),
    "nearly-square": (19, 20),
    "prime": (37, 37),
    "warp": (64, 64),
}

# name: (rng, n, m) -> costs, integers where totals must be exact
COSTS = {
    "uniform": lambda rng, n, m: rng.random((n, m)),
    "integers": lambda rng, n, m: rng.integers(-50, 1000, (n, m)).astype(float),
    "ties": lambda rng, n, m: rng.integers(0, 3, (n, m)).astype(float),
    "constant": lambda rng, n, m: np.full((n, m), 2.0),
    "duplicates": lambda rng, n, m: np.repeat(rng.integers(0, 99, (n, 1)).astype(float), m, 1),
    "product": lambda rng, n, m: np.outer(np.arange(1.0, n + 1), np.arange(1.0, m + 1)),
    "points": lambda rng, n, m: (
        (rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2))) ** 2
    ).sum(-1),
    "large-and-small": lambda rng, n, m: 10.0 ** rng.uniform(-6, 6, (n, m)),
}


def check_optimum(cost: Tensor, result: ops.Assignment, sign: float, limit: float) -> None:
    """A matching, dual variables that fit, and no pair that could be had in addition."""
    c = sign * cost.double()
    n, m = c.shape
    row_to_col, col_to_row = result.row_to_col, result.col_to_row
    u, v = sign * result.row_dual.double(), sign * result.col_dual.double()
    matched = row_to_col >= 0
    assert torch.equal(col_to_row[row_to_col[matched]], matched.nonzero()[:, 0])
    assert (col_to_row >= 0).sum() == matched.sum()
    assert torch.isfinite(c[matched, row_to_col[matched]]).all()
    finite = torch.isfinite(c)
    slack = torch.where(finite, c, math.inf) - u[:, None] - v
    assert (slack >= -limit).all(), f"duals are infeasible by {-slack.min().item():.2e}"
    assert (slack[matched, row_to_col[matched]].abs() <= limit).all()
    assert (v[col_to_row < 0].abs() <= limit).all() or n > m
    assert (u[~matched].abs() <= limit).all() or n <= m
    assert (v <= limit).all() or n >= m
    assert (u <= limit).all() or n <= m
    alone, duals = (~matched, u) if n <= m else (col_to_row < 0, v)
    if alone.any():
        # the price of staying alone, which makes the dual variables a proof
        assert (duals[alone] >= duals.max() - limit).all()
    total = result.cost.double().item()
    assert abs(total - cost.double()[matched, row_to_col[matched]].sum().item()) <= limit * n


@pytest.mark.parametrize("maximize", [False, True], ids=["least", "largest"])
@pytest.mark.parametrize("kind", COSTS)
@pytest.mark.parametrize("size", SIZES)
def test_totals_are_scipys(
    size: str, kind: str, maximize: bool, backend: str, device: torch.device
) -> None:
    n, m = SIZES[size]
    cost = torch.from_numpy(COSTS[kind](np.random.default_rng(0), n, m)).float()
    result = ops.assignment(cost.to(device), maximize=maximize, backend=backend)
    result = ops.Assignment(*(t.cpu() for t in result))
    exact = cost.double().numpy()
    total = exact[linear_sum_assignment(exact, maximize)].sum()
    if (exact == np.round(exact)).all():
        assert result.cost.item() == total
    scale = float(np.abs(exact).max())
    assert abs(result.cost.item() - total) <= 2e-7 * max(abs(total), 1e-3 * scale)
    check_optimum(cost, result, -1.0 if maximize else 1.0, TOLERANCE[torch.float32] * scale)
    assert (result.row_to_col >= 0).sum() == min(n, m)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_every_type(dtype: torch.dtype, backend: str, device: torch.device) -> None:
    cost = (10 * torch.randn(3, 13, 13)).to(device, dtype)
    result = ops.assignment(cost, backend=backend)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    assert (result.cost.dtype, result.row_dual.dtype, result.col_dual.dtype) == (kept,) * 3
    assert (result.row_to_col.dtype, result.col_to_row.dtype) == (torch.int64,) * 2
    for b in range(3):
        one = ops.Assignment(*(t[b].cpu() for t in result))
        check_optimum(cost[b].cpu(), one, 1.0, 40 * TOLERANCE[dtype])
        exact = cost[b].double().cpu().numpy()
        total = exact[linear_sum_assignment(exact)].sum()
        assert one.cost.item() == pytest.approx(total, rel=1e-6)


def all_matchings(cost: np.ndarray) -> tuple[int, float]:
    """The most pairs of finite cost, and the least total that as many can have."""
    wide = cost if cost.shape[0] <= cost.shape[1] else cost.T
    best = (0, 0.0)
    for columns in itertools.permutations(range(wide.shape[1]), wide.shape[0]):
        costs = wide[np.arange(len(columns)), list(columns)]
        costs = costs[np.isfinite(costs)]
        found = (len(costs), -float(costs.sum()))
        best = max(best, found) if found[0] else best
    return best[0], -best[1]


@pytest.mark.parametrize("maximize", [False, True], ids=["least", "largest"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 1.0], ids=lambda share: f"{share}-forbidden")
@pytest.mark.parametrize("by", ["infinity", "mask"])
def test_forbidden_pairs(
    by: str, share: float, maximize: bool, backend: str, device: torch.device
) -> None:
    rng = np.random.default_rng(3)
    sign = -1.0 if maximize else 1.0
    for n, m in [(1, 1), (2, 3), (3, 2), (4, 4), (5, 5), (5, 3), (3, 6)] * 3:
        cost = rng.integers(-9, 10, (n, m)).astype(float)
        forbidden = rng.random((n, m)) < share
        barred = np.where(forbidden, sign * math.inf, cost)
        if by == "infinity":
            given, mask = torch.from_numpy(barred), None
        else:
            given, mask = torch.from_numpy(np.where(forbidden, math.nan, cost)), ~forbidden
        result = ops.assignment(
            given.float().to(device),
            maximize=maximize,
            mask=None if mask is None else torch.from_numpy(mask).to(device),
            backend=backend,
        )
        result = ops.Assignment(*(t.cpu() for t in result))
        pairs, total = all_matchings(sign * barred)
        assert (result.row_to_col >= 0).sum() == pairs
        assert result.cost.item() == sign * total
        check_optimum(torch.from_numpy(barred), result, sign, 1e-4)


@pytest.mark.rungs("cpu", "cuda")
@pytest.mark.parametrize("size", [(30, 30), (25, 40), (70, 65)], ids=str)
def test_forbidden_pairs_of_larger_problems(
    size: tuple[int, int], backend: str, device: torch.device
) -> None:
    rng = np.random.default_rng(5)
    for share in (0.5, 0.9, 0.97):
        cost = rng.integers(0, 100, size).astype(float)
        forbidden = rng.random(size) < share
        barred = np.where(forbidden, math.inf, cost)
        result = ops.assignment(torch.from_numpy(barred).float().to(device), backend=backend)
        result = ops.Assignment(*(t.cpu() for t in result))
        price = 1e6
        priced = np.where(forbidden, price, cost)
        total = priced[linear_sum_assignment(priced)].sum()
        alone = min(size) - int((result.row_to_col >= 0).sum())
        assert result.cost.item() + alone * price == total
        check_optimum(torch.from_numpy(barred), result, 1.0, 1e-3)


SHAPES = {
    "nothing": (0, 0),
    "no-rows": (0, 4),
    "no-columns": (4, 0),
    "no-problems": (0, 3, 4),
    "no-problems-and-no-rows": (2, 0, 0, 5),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_to_match(shape: str, backend: str, device: torch.device) -> None:
    cost = torch.ones(SHAPES[shape], device=device, requires_grad=True)
    result = ops.assignment(cost, backend=backend)
    *batch, n, m = cost.shape
    assert result.row_to_col.shape == result.row_dual.shape == (*batch, n)
    assert result.col_to_row.shape == result.col_dual.shape == (*batch, m)
    assert result.cost.shape == tuple(batch)
    assert (result.row_to_col == -1).all()
    assert (result.col_to_row == -1).all()
    assert (result.cost == 0).all()
    assert torch.autograd.grad(result.cost.sum(), cost)[0].shape == cost.shape


BAD = {"nan": (math.nan, False), "below": (-math.inf, False), "above": (math.inf, True)}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("size", [(1, 1), (6, 6), (3, 8), (9, 4)], ids=str)
def test_nan_comes_out_of_its_own_problem_alone(
    size: tuple[int, int], bad: str, backend: str, device: torch.device
) -> None:
    value, maximize = BAD[bad]
    cost = torch.rand(3, *size, device=device)
    cost[1, -1, -1] = value
    result = ops.assignment(cost, maximize=maximize, backend=backend)
    for tensor in (result.row_to_col, result.col_to_row):
        assert (tensor[1] == -1).all()
    for tensor in (result.cost, result.row_dual, result.col_dual):
        assert tensor[1].isnan().all()
        assert torch.isfinite(tensor[[0, 2]]).all()
    clean = ops.assignment(cost[[0, 2]], maximize=maximize, backend=backend)
    assert torch.equal(result.row_to_col[[0, 2]], clean.row_to_col)


@pytest.mark.parametrize("size", [(12, 12), (9, 14), (14, 9)], ids=str)
def test_permuted_costs_give_the_permuted_matching(
    size: tuple[int, int], backend: str, device: torch.device
) -> None:
    cost = torch.rand(size, device=device)
    rows = torch.randperm(size[0], device=device)
    columns = torch.randperm(size[1], device=device)
    plain = ops.assignment(cost, backend=backend)
    permuted = ops.assignment(cost[rows][:, columns], backend=backend)
    partners = plain.row_to_col[rows]
    back = torch.argsort(columns)
    expected = torch.where(partners < 0, -1, back[partners.clamp(min=0)])
    assert torch.equal(permuted.row_to_col, expected)
    assert permuted.cost.item() == pytest.approx(plain.cost.item(), rel=1e-6)


def test_the_transpose_has_the_transposed_matching(backend: str, device: torch.device) -> None:
    cost = torch.rand(11, 17, device=device)
    plain, turned = (ops.assignment(c, backend=backend) for c in (cost, cost.mT))
    assert torch.equal(plain.row_to_col, turned.col_to_row)
    assert torch.equal(plain.col_dual, turned.row_dual)


def test_adding_to_rows_and_columns_changes_no_partner(backend: str, device: torch.device) -> None:
    cost = torch.rand(16, 16, dtype=torch.float64).to(device)
    a, b = torch.randn_like(cost[:, :1]), torch.randn_like(cost[:1])
    plain, moved = (ops.assignment(c, backend=backend) for c in (cost, cost + a + b))
    assert torch.equal(plain.row_to_col, moved.row_to_col)
    assert moved.cost.item() == pytest.approx((plain.cost + a.sum() + b.sum()).item(), rel=1e-5)


def test_batches_are_their_problems(backend: str, device: torch.device) -> None:
    cost = torch.rand(2, 3, 8, 6, device=device)
    mask = torch.rand(3, 1, 6, device=device) < 0.8
    result = ops.assignment(cost, mask=mask, backend=backend)
    for i, j in itertools.product(range(2), range(3)):
        one = ops.assignment(cost[i, j], mask=mask[j].expand(8, 6), backend=backend)
        for batched, alone in zip(result, one, strict=True):
            assert torch.equal(batched[i, j], alone)


LAYOUTS = {
    "transposed": lambda c: c.mT.contiguous().mT,
    "every-other": lambda c: c.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda c: c[:1].expand_as(c),
    "rows-before-batch": lambda c: c.transpose(0, 1).contiguous().transpose(0, 1),
}


@pytest.mark.parametrize("size", [(9, 13), (13, 9)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_do_not_matter(
    layout: str, size: tuple[int, int], backend: str, device: torch.device
) -> None:
    cost = LAYOUTS[layout](torch.rand(3, *size, device=device))
    mask = LAYOUTS[layout](torch.rand(3, *size, device=device) < 0.9)
    strided = ops.assignment(cost, mask=mask, backend=backend)
    dense = ops.assignment(cost.contiguous(), mask=mask.contiguous(), backend=backend)
    for a, b in zip(strided, dense, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("maximize", [False, True], ids=["least", "largest"])
def test_the_gradient_is_the_matching(maximize: bool, backend: str, device: torch.device) -> None:
    cost = torch.rand(4, 5, 7, device=device, requires_grad=True)
    result = ops.assignment(cost, maximize=maximize, backend=backend)
    weight = torch.rand(4, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad((weight * result.cost).sum(), cost, create_graph=True)
    pairs = torch.nn.functional.one_hot(result.row_to_col, 7)
    assert torch.equal(grad, pairs * weight[:, None, None])
    (second,) = torch.autograd.grad(grad.sum(), weight)
    assert torch.equal(second, torch.full_like(second, 5.0))
    assert not result.row_dual.requires_grad


@pytest.mark.rungs("reference", "cpu")
def test_gradcheck(backend: str) -> None:
    cost = torch.randperm(24).double().reshape(2, 3, 4).requires_grad_()
    torch.autograd.gradcheck(lambda c: ops.assignment(c, backend=backend).cost, cost)


@pytest.mark.rungs("cpu")
def test_float32_that_cancels_is_solved_in_float64(backend: str) -> None:
    # steps of one rounding of the costs: potentials in float32 alone lose them
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 64, (40, 40))
    cost = (1.0 + steps * 2.0**-23).astype(np.float32)
    result = ops.assignment(torch.from_numpy(cost), backend=backend)
    exact = cost.astype(np.float64)
    total = exact[linear_sum_assignment(exact)].sum()
    assert result.cost.item() == np.float32(total)


@pytest.mark.skipif("SACCADE_ISA" not in os.environ, reason="SACCADE_ISA is not set")
@pytest.mark.rungs("cpu")
def test_the_instruction_set_is_the_one_asked_for(backend: str) -> None:
    assert saccade.info()["isa"]["chosen"] == os.environ["SACCADE_ISA"]
