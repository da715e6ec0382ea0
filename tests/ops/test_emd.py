"""Exact transport on every rung: POT's simplex, the conditions of an optimum, closed forms."""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch import Tensor

import saccade
from saccade import ops, reference
from saccade.ops._transport_result import OTResult

pytestmark = pytest.mark.rungs("reference", "cpu")

# What plans, potentials and values may be off, relative to the largest cost or to all mass.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}

SIZES = {
    "one": (1, 1),
    "row": (1, 5),
    "column": (6, 1),
    "two": (2, 2),
    "square": (16, 16),
    "wide": (7, 23),
    "tall": (19, 8),
    "prime": (29, 31),
}

COSTS: dict[str, Any] = {
    "uniform": lambda rng, n, m: rng.random((n, m)),
    "integers": lambda rng, n, m: rng.integers(-4, 9, (n, m)).astype(float),
    "constant": lambda rng, n, m: np.full((n, m), 3.0),
    "points": lambda rng, n, m: (
        (rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2))) ** 2
    ).sum(-1),
}


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


def _some_zero(rng: Any, count: int) -> np.ndarray:
    weights = rng.integers(0, 3, count).astype(float)
    weights[rng.integers(count)] += 1
    return _normalised(weights)


WEIGHTS: dict[str, Any] = {
    "default": lambda rng, n, m: (None, None),
    "random": lambda rng, n, m: (_normalised(rng.random(n)), _normalised(rng.random(m))),
    "one-default": lambda rng, n, m: (None, _normalised(rng.random(m))),
    "degenerate": lambda rng, n, m: (_normalised(np.ones(n)), _normalised(np.ones(m))),
    "zeros": lambda rng, n, m: (_some_zero(rng, n), _some_zero(rng, m)),
    "heavy": lambda rng, n, m: (
        7.0 * _normalised(10.0 ** rng.uniform(-9, 0, n)),
        7.0 * _normalised(10.0 ** rng.uniform(-9, 0, m)),
    ),
}


def tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def check_optimum(
    cost: Tensor, a: Tensor | None, b: Tensor | None, result: OTResult, limit: float, basic: bool
) -> None:
    """Marginals, feasible duals, no gap, and the value in equal parts on both sides."""
    n, m = cost.shape
    c = cost.double()
    a = torch.full((n,), 1 / n, dtype=torch.float64) if a is None else a.double()
    b = torch.full((m,), 1 / m, dtype=torch.float64) if b is None else b.double()
    mass, size = a.sum().item(), max(c[c.isfinite()].abs().max().item(), 1e-30)
    assert result.plan is not None
    plan, f, g = result.plan.double(), result.f.double(), result.g.double()
    assert (plan >= 0).all()
    assert (plan.sum(1) - a).abs().max() <= limit * mass
    assert (plan.sum(0) - b).abs().max() <= limit * mass
    assert (plan != 0).sum() <= n + m - 1 or not basic
    assert (f[:, None] + g <= c + 4 * limit * size).all()
    value = result.value.double().item()
    assert abs((plan * torch.where(plan == 0, 0.0, c)).sum().item() - value) <= (
        4 * limit * mass * size
    )
    for dual, weight in ((f, a), (g, b)):
        half = torch.where(weight == 0, 0.0, weight * dual).sum().item()
        assert abs(half - value / 2) <= 8 * limit * mass * size
    assert torch.equal(result.value, result.value_linear)
    assert result.err.item() <= limit * mass
    assert result.status.item() == 0


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", COSTS)
@pytest.mark.parametrize("size", SIZES)
def test_values_are_pots(size: str, kind: str, weights: str, backend: str) -> None:
    rng = np.random.default_rng(1)
    n, m = SIZES[size]
    cost = COSTS[kind](rng, n, m)
    a, b = WEIGHTS[weights](rng, n, m)
    result = ops.emd(torch.from_numpy(cost), tensor(a), tensor(b), backend=backend)
    check_optimum(torch.from_numpy(cost), tensor(a), tensor(b), result, 1e-12, backend == "cpu")
    mass = 1.0 if a is None else a.sum()
    true = mass * ot.emd2(
        np.full(n, 1 / n) if a is None else a / a.sum(),
        np.full(m, 1 / m) if b is None else b / b.sum(),
        cost,
    )
    assert result.value.item() == pytest.approx(true, abs=1e-11 * mass * np.abs(cost).max())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("size", [(12, 12), (9, 14)], ids=str)
def test_every_type(size: tuple[int, int], dtype: torch.dtype, backend: str) -> None:
    cost = torch.randn(3, *size).to(dtype)
    # dyadic weights, which every type holds exactly
    a = torch.full((size[0],), 1 / 128).to(dtype)
    a[0] += 1 - size[0] / 128
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    for given in (None, a):
        result = ops.emd(cost, given, backend=backend)
        assert {result.plan.dtype, result.f.dtype, result.g.dtype, result.value.dtype} == {kept}
        assert (result.n_iter.dtype, result.status.dtype) == (torch.int32, torch.int32)
        for k in range(3):
            one = OTResult(*(t[k] for t in result))
            check_optimum(cost[k], given, None, one, TOLERANCE[dtype], backend == "cpu")


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("weights", ["random", "zeros", "degenerate", "heavy"])
@pytest.mark.parametrize("size", [(150, 150), (300, 90)], ids=str)
def test_larger_problems(size: tuple[int, int], weights: str, backend: str) -> None:
    rng = np.random.default_rng(2)
    cost = COSTS["points"](rng, *size)
    a, b = WEIGHTS[weights](rng, *size)
    result = ops.emd(torch.from_numpy(cost), tensor(a), tensor(b), backend=backend)
    check_optimum(torch.from_numpy(cost), tensor(a), tensor(b), result, 1e-12, backend == "cpu")
    mass = a.sum()
    true = mass * ot.emd2(a / mass, b / b.sum(), cost, numItermax=10**6)
    assert result.value.item() == pytest.approx(true, rel=1e-10)
    assert (result.n_iter > 0).all() or weights == "degenerate"


def test_points_on_a_line_move_in_order(backend: str) -> None:
    x, y = torch.randn(2, 25, dtype=torch.float64)
    result = ops.emd((x[:, None] - y).square(), backend=backend)
    ordered = (x.sort().values - y.sort().values).square().mean()
    assert result.value.item() == pytest.approx(ordered.item(), rel=1e-12)


def test_uniform_squares_are_assignments(backend: str) -> None:
    cost = torch.rand(2, 14, 14, dtype=torch.float64)
    result = ops.emd(cost, backend=backend)
    best = ops.assignment(cost, backend=backend)
    pairs = torch.nn.functional.one_hot(best.row_to_col, 14)
    torch.testing.assert_close(result.plan, pairs.double() / 14)
    torch.testing.assert_close(result.value, best.cost / 14)


def test_a_constant_in_rows_and_columns_changes_no_plan(backend: str) -> None:
    cost = torch.rand(8, 11, dtype=torch.float64)
    a = torch.rand(8, dtype=torch.float64).softmax(0)
    u, v = torch.randn(8, 1, dtype=torch.float64), torch.randn(1, 11, dtype=torch.float64)
    plain, moved = (ops.emd(c, a, backend=backend) for c in (cost, cost + u + v))
    torch.testing.assert_close(plain.plan, moved.plan)


def test_permuted_problems_have_the_permuted_plan(backend: str) -> None:
    cost = torch.rand(9, 12, dtype=torch.float64)
    a, b = torch.rand(9, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    a, b = a / a.sum(), b / b.sum()
    rows, columns = torch.randperm(9), torch.randperm(12)
    plain = ops.emd(cost, a, b, backend=backend)
    permuted = ops.emd(cost[rows][:, columns], a[rows], b[columns], backend=backend)
    torch.testing.assert_close(permuted.plan, plain.plan[rows][:, columns])


def test_batches_are_their_problems(backend: str) -> None:
    cost = torch.rand(2, 3, 6, 7)
    a = torch.rand(3, 6)
    a = a / a.sum(-1, keepdim=True)
    result = ops.emd(cost, a, backend=backend)
    for i in range(2):
        for j in range(3):
            one = ops.emd(cost[i, j], a[j], backend=backend)
            for batched, alone in zip(result, one, strict=True):
                assert torch.equal(batched[i, j], alone)


@pytest.mark.parametrize("layout", ["transposed", "every-other", "expanded"])
def test_strides_do_not_matter(layout: str, backend: str) -> None:
    change: dict[str, Any] = {
        "transposed": lambda t: t.mT.contiguous().mT,
        "every-other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
        "expanded": lambda t: t[:1].expand_as(t),
    }
    cost = change[layout](torch.rand(3, 5, 8))
    a = change["every-other" if layout == "transposed" else layout](torch.full((3, 5), 0.2))
    for strided, dense in zip(
        ops.emd(cost, a, backend=backend),
        ops.emd(cost.contiguous(), a.contiguous(), backend=backend),
        strict=True,
    ):
        assert torch.equal(strided, dense)


SHAPES = {
    "nothing": (0, 0),
    "no-problems": (0, 3, 4),
    "no-rows": (0, 4),
    "no-columns": (2, 4, 0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_to_move(shape: str, backend: str) -> None:
    cost = torch.ones(SHAPES[shape], requires_grad=True)
    result = ops.emd(cost, backend=backend)
    *batch, n, m = cost.shape
    assert result.plan.shape == cost.shape
    assert (result.f.shape, result.g.shape) == ((*batch, n), (*batch, m))
    assert (result.value == 0).all()
    # a side that is empty cannot take the mass of the other
    assert (result.status == (2 if (n == 0) != (m == 0) else 0)).all()
    assert torch.autograd.grad(result.value.sum(), cost)[0].shape == cost.shape


def test_no_mass_moves_nothing(backend: str) -> None:
    result = ops.emd(torch.rand(3, 4), torch.zeros(3), torch.zeros(4), backend=backend)
    assert (result.plan == 0).all()
    assert (result.value.item(), result.status.item()) == (0.0, 0)
    assert torch.isfinite(result.f).all()
    assert torch.isfinite(result.g).all()


BAD: dict[str, Any] = {
    "nan-cost": lambda c, a: c[1, 0].fill_(math.nan),
    "minus-infinity": lambda c, a: c[1, 0, 0].fill_(-math.inf),
    "nan-weight": lambda c, a: a[1, 0].fill_(math.nan),
    "infinite-weight": lambda c, a: a[1, 0].fill_(math.inf),
}


@pytest.mark.parametrize("bad", BAD)
def test_nan_comes_out_of_its_own_problem_alone(bad: str, backend: str) -> None:
    cost, a = torch.rand(3, 4, 5), torch.full((3, 4), 0.25)
    BAD[bad](cost, a)
    result = ops.emd(cost, a, backend=backend)
    assert result.status.tolist() == [0, 3, 0]
    for given in (result.plan, result.f, result.g, result.value, result.err):
        assert given[1].isnan().all()
        assert torch.isfinite(given[[0, 2]]).all()


# under vmap nobody looks at weights: name, first weight of the second problem, status
UNSEEN = {"negative": (-0.5, 3), "total": (0.45, 2)}


@pytest.mark.parametrize("name", UNSEEN)
def test_weights_that_nobody_looks_at_have_a_status(name: str, backend: str) -> None:
    first, status = UNSEEN[name]
    cost, a = torch.rand(3, 4, 5), torch.full((3, 4), 0.25)
    a[1, 0] = first
    if backend == "reference":  # which does not trace, so vmap cannot hide anything from it
        plan, *_, statuses = reference.emd(cost, a)
    else:
        result = torch.vmap(functools.partial(ops.emd, backend=backend))(cost, a)
        plan, statuses = result.plan, result.status
    assert statuses.tolist() == [0, status, 0]
    if status == 3:
        assert plan[1].isnan().all()
    else:
        # the columns are scaled to the total of the rows
        torch.testing.assert_close(plan[1].sum(0), torch.full((5,), 0.24))


def test_forbidden_pairs_are_not_taken(backend: str) -> None:
    rng = np.random.default_rng(4)
    for n, m in [(6, 6), (7, 9), (10, 4)]:
        cost = rng.random((n, m))
        forbidden = rng.random((n, m)) < 0.4
        forbidden[0], forbidden[:, 0] = False, False
        barred = torch.from_numpy(np.where(forbidden, math.inf, cost))
        a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
        # enough in row 0 and column 0 for everything to go
        a[0], b[0] = b.sum() + 1, a.sum() + 1
        a, b = torch.from_numpy(_normalised(a)), torch.from_numpy(_normalised(b))
        b[0] += a.sum() - b.sum()
        result = ops.emd(barred, a, b, backend=backend)
        priced = ot.emd2(a.numpy(), b.numpy(), np.where(forbidden, 1e3, cost))
        if priced < 10:
            check_optimum(barred, a, b, result, 1e-11, backend == "cpu")
            assert result.value.item() == pytest.approx(priced, rel=1e-9)
        else:
            assert result.status.item() == 2


@pytest.mark.parametrize("weights", ["default", "random"])
def test_as_much_as_possible_goes(weights: str, backend: str) -> None:
    # both rows may go to column 0 alone
    cost = torch.tensor([[1.0, math.inf], [3.0, math.inf]], dtype=torch.float64)
    a = None if weights == "default" else torch.tensor([0.4, 0.6], dtype=torch.float64)
    result = ops.emd(cost, a, backend=backend)
    kept = 0.4 if a is not None else 0.5
    expected = torch.tensor([[kept, 0.0], [0.5 - kept, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(result.plan, expected)
    assert (result.status.item(), result.err.item()) == (2, pytest.approx(0.5))


def test_rows_without_mass_have_feasible_duals(backend: str) -> None:
    cost = torch.rand(5, 6, dtype=torch.float64)
    a = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0], dtype=torch.float64)
    result = ops.emd(cost, a, backend=backend)
    assert (result.plan[[0, 2, 4]] == 0).all()
    slack = cost - result.f[:, None] - result.g
    assert (slack >= -1e-12).all()


@pytest.mark.parametrize("size", [(4, 4), (3, 5)], ids=str)
def test_gradcheck(size: tuple[int, int], backend: str) -> None:
    n, m = size
    cost = torch.rand(2, n, m, dtype=torch.float64, requires_grad=True)
    a, b = (torch.randn(2, k, dtype=torch.float64, requires_grad=True) for k in size)

    def value(c: Tensor, x: Tensor, y: Tensor) -> Tensor:
        # weights of total 1, whatever x and y are
        return ops.emd(c, x.softmax(-1), y.softmax(-1), backend=backend).value

    torch.autograd.gradcheck(value, (cost, a, b))


def test_the_gradient_of_cost_is_the_plan(backend: str) -> None:
    cost = torch.rand(3, 4, 6, requires_grad=True)
    result = ops.emd(cost, backend=backend)
    (grad,) = torch.autograd.grad(result.value.sum(), cost)
    torch.testing.assert_close(grad, result.plan)
    assert not result.plan.requires_grad


@pytest.mark.skipif("SACCADE_ISA" not in os.environ, reason="SACCADE_ISA is not set")
@pytest.mark.rungs("cpu")
def test_the_instruction_set_is_the_one_asked_for(backend: str) -> None:
    assert saccade.info()["isa"]["chosen"] == os.environ["SACCADE_ISA"]
