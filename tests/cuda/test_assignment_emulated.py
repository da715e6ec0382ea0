"""The assignment's CUDA source, run on the CPU: scipy's totals, and the CPU kernels' very bits."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from saccade import _load, reference

from . import transport_emulation as emulated


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return emulate("transport")


# a warp has up to 128 columns; 160 x 170 costs, and the vectors of 3500 columns, do not fit into
# shared memory
SIZES = {
    "one": (3, 1, 1),
    "row": (2, 1, 7),
    "column": (2, 7, 1),
    "warp": (3, 64, 64),
    "wide": (2, 5, 23),
    "tall": (2, 31, 12),
    "prime": (2, 37, 37),
    "widest-warp": (1, 128, 128),
    "block": (1, 40, 131),
    "block-tall": (1, 150, 33),
    "costs-outside": (1, 160, 170),
    "all-outside": (1, 2, 3500),
}
COSTS: dict[str, Callable[[Any, tuple[int, ...]], np.ndarray]] = {
    "uniform": lambda rng, shape: rng.random(shape),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape).astype(float),
    "points": lambda rng, shape: (
        (rng.normal(size=(*shape[:2], 1, 2)) - rng.normal(size=(shape[0], 1, shape[2], 2))) ** 2
    ).sum(-1),
}


def check(
    found: tuple[Tensor, ...], cost: Tensor, mask: Tensor | None = None, maximize: bool = False
) -> None:
    """The reference's total and number of pairs, and all of the CPU kernel's result."""
    row_to_col, col_to_row, total, *_ = found
    true = reference.assignment(cost.double(), maximize, mask)
    torch.testing.assert_close(total.double(), true[2], rtol=2e-7, atol=1e-9, equal_nan=True)
    assert torch.equal((row_to_col >= 0).sum(-1), (true[0] >= 0).sum(-1))
    assert torch.equal((col_to_row >= 0).sum(-1), (true[1] >= 0).sum(-1))
    if _load.has("_C"):
        own = torch.ops.saccade.assignment_forward(cost, mask, maximize)
        for name, one, other in zip(emulated.MATCHING, found, own, strict=True):
            if name == "total" and cost.dtype == torch.float64:  # whose sum has another order
                torch.testing.assert_close(one, other, rtol=1e-14, atol=0, equal_nan=True)
            else:
                torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


# points take many steps, and a sign makes no other path
MATRIX = [
    pytest.param(size, kind, maximize, id=f"{size}-{kind}{'-largest' * maximize}")
    for size, (_, n, m) in SIZES.items()
    for kind in COSTS
    for maximize in (False, True)
    if kind != "points" or n * m < (5000 if maximize else 20000)
]


@pytest.mark.parametrize(("size", "kind", "maximize"), MATRIX)
def test_totals_are_scipys(library: ctypes.CDLL, size: str, kind: str, maximize: bool) -> None:
    cost = COSTS[kind](np.random.default_rng(0), SIZES[size])
    given = torch.from_numpy(cost).float()
    found = emulated.assignment(library, given, maximize=maximize)
    for b, one in enumerate(given.double().numpy()):
        expected = one[linear_sum_assignment(one, maximize)].sum()
        assert found[2][b].item() == pytest.approx(expected, rel=2e-7, abs=1e-6)
    check(found, given, maximize=maximize)


@pytest.mark.parametrize("size", ["warp", "tall", "block", "costs-outside"])
def test_float64(library: ctypes.CDLL, size: str) -> None:
    cost = torch.from_numpy(COSTS["points"](np.random.default_rng(1), SIZES[size]))
    check(emulated.assignment(library, cost), cost)


@pytest.mark.parametrize("maximize", [False, True], ids=["least", "largest"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9, 1.0], ids=lambda share: f"{share}-forbidden")
@pytest.mark.parametrize("size", [(3, 9, 9), (3, 6, 13), (3, 14, 8), (1, 40, 140)], ids=str)
def test_forbidden_pairs(
    library: ctypes.CDLL, size: tuple[int, ...], share: float, dtype: torch.dtype, maximize: bool
) -> None:
    cost = torch.rand(size, dtype=dtype)
    mask = torch.rand(size) >= share
    cost[:, 0, ::2] = -math.inf if maximize else math.inf
    check(emulated.assignment(library, cost, mask, maximize), cost, mask, maximize)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda c: c.mT.contiguous().mT,
    "every-other": lambda c: c.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda c: c[:1].expand_as(c),
    "rows-before-batch": lambda c: c.transpose(0, 1).contiguous().transpose(0, 1),
}


@pytest.mark.parametrize("size", [(3, 9, 13), (3, 13, 9)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(library: ctypes.CDLL, layout: str, size: tuple[int, ...]) -> None:
    cost = LAYOUTS[layout](torch.rand(size))
    mask = LAYOUTS[layout](torch.rand(size) < 0.9)
    check(emulated.assignment(library, cost, mask), cost, mask)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 4, 0), (2, 0, 0)], ids=str)
def test_nothing_to_match(library: ctypes.CDLL, shape: tuple[int, ...]) -> None:
    found = emulated.assignment(library, torch.ones(shape))
    assert (found[0] == -1).all()
    assert (found[1] == -1).all()
    for numbers in found[2:]:
        assert (numbers == 0).all()


@pytest.mark.parametrize("value", [math.nan, -math.inf], ids=str)
@pytest.mark.parametrize("size", [(3, 5, 6), (3, 3, 130)], ids=str)
def test_nan_stays_in_its_problem(
    library: ctypes.CDLL, size: tuple[int, ...], value: float
) -> None:
    cost = torch.rand(size)
    cost[1, 2, 4] = value
    found = emulated.assignment(library, cost)
    check(found, cost)
    assert (found[0][1] == -1).all()
    assert found[2].isnan().tolist() == [False, True, False]


def test_float32_that_cancels_is_solved_in_float64(library: ctypes.CDLL) -> None:
    # steps of one rounding of the costs: potentials in float32 alone lose them
    steps = np.random.default_rng(0).integers(0, 64, (40, 40))
    cost = torch.from_numpy((1.0 + steps * 2.0**-23).astype(np.float32))
    exact = cost.double().numpy()
    total = exact[linear_sum_assignment(exact)].sum()
    assert emulated.assignment(library, cost[None])[2].item() == np.float32(total)


@pytest.mark.parametrize("size", ["warp", "block", "costs-outside"])
def test_same_bits_whatever_the_order_of_threads_and_blocks(
    library: ctypes.CDLL, size: str
) -> None:
    cost = torch.rand(SIZES[size])
    mask = torch.rand(SIZES[size]) < 0.3
    runs = []
    for order in (0, 1):
        library.set_reversed(order)
        try:
            runs.append(emulated.assignment(library, cost, mask))
        finally:
            library.set_reversed(0)
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)
