"""The kernels' own window, visitor and tile arithmetic against the definition."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable

import pytest

from .neighborhood_attention_emulation import Axis, Site, Tiling, axes, declare
from .neighborhood_attention_problems import CASES, Case, ids, window

AXES = [
    (length, kernel, stride, dilation, causal)
    for length, dilation in ((1, 1), (2, 1), (7, 1), (12, 1), (13, 2), (23, 3))
    for kernel in range(1, length // dilation + 1)
    for stride in range(1, kernel + 1)
    for causal in (0, 1)
]


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return declare(emulate("neighborhood_attention"))


def test_windows_and_visitors(library: ctypes.CDLL) -> None:
    found = (ctypes.c_int * 4)()
    for length, kernel, stride, dilation, causal in AXES:
        for group in range(dilation):
            tokens = range(group, length, dilation)
            seen = [window(length, kernel, stride, dilation, causal, i) for i in tokens]
            for p, keys in enumerate(seen):
                axis = Axis(length, kernel, stride, dilation, causal)
                library.intervals(ctypes.byref(axis), len(tokens), p, found)
                start, end, first, last = found
                assert [tokens[j] for j in range(start, end)] == keys
                visitors = [q for q, visited in enumerate(seen) if tokens[p] in visited]
                assert list(range(first, last)) == visitors


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize(("teams", "rows", "capacity"), [(32, 4, 300), (16, 2, 40), (4, 2, 1)])
def test_tiles_cover_every_query_once(
    library: ctypes.CDLL, case: Case, teams: int, rows: int, capacity: int
) -> None:
    tiling, site = Tiling(), Site()
    library.tiling(
        axes(case), teams, rows, capacity, case.batch, case.heads, case.extra, ctypes.byref(tiling)
    )
    assert math.prod(tiling.team) == teams
    assert math.prod(tiling.chunk) <= tiling.rows <= capacity
    covered: list[tuple[int, ...]] = []
    for item in range(tiling.items):
        if not library.place(ctypes.byref(tiling), case.heads, item, ctypes.byref(site)):
            continue
        spans = [range(i.lo, i.hi) for i in site.tile]
        assert all(len(s) <= e for s, e in zip(spans, tiling.extent, strict=True))
        for at in itertools.product(*spans):
            token = [
                g + p * a.dilation for g, p, a in zip(site.group, at, tiling.axis, strict=True)
            ]
            covered.append((site.batch, site.head, *token))
    dims = (1,) * (3 - len(case.dims)) + case.dims
    everything = itertools.product(range(case.batch), range(case.heads), *map(range, dims))
    assert sorted(covered) == list(everything)
