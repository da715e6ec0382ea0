"""The CUDA kernels' source, run on the CPU, against the definition."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch

from .neighborhood_attention_emulation import declare, run
from .neighborhood_attention_problems import CASES, Case, Tensors, dense, ids, make

HALVES = [case for case in CASES if case.name in ("2d-bias", "2d-grouped-heads-extra", "3d-mixed")]


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return declare(emulate("neighborhood_attention"))


def _largest_error(found: Tensors, expected: Tensors) -> float:
    assert found.keys() == expected.keys()
    return max(
        float((found[k].double() - expected[k]).abs().max() / (1e-3 + expected[k].abs().max()))
        for k in expected
    )


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_float32(library: ctypes.CDLL, case: Case) -> None:
    tensors = make(case, torch.float32)
    outputs, grads = run(library, case, tensors)
    expected_outputs, expected_grads = dense(case, tensors)
    assert _largest_error(outputs, expected_outputs) < 2e-6
    assert _largest_error(grads, expected_grads) < 4e-6


@pytest.mark.parametrize("case", HALVES, ids=ids)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_types_round_once(library: ctypes.CDLL, case: Case, dtype: torch.dtype) -> None:
    tensors = make(case, dtype)
    outputs, grads = run(library, case, tensors)
    expected_outputs, expected_grads = dense(case, tensors)
    # delta is computed from the rounded output, which costs the gradients a second rounding
    unit = torch.finfo(dtype).eps / 2
    assert _largest_error(outputs, expected_outputs) < 1.01 * unit
    assert _largest_error(grads, expected_grads) < 4 * unit


@pytest.mark.parametrize("case", [c for c in CASES if c.bias and c.extra], ids=ids)
def test_same_bits_whatever_the_order_of_threads_and_blocks(
    library: ctypes.CDLL, case: Case
) -> None:
    tensors = make(case, torch.float32)
    forth = run(library, case, tensors)
    library.set_reversed(1)
    try:
        back = run(library, case, tensors)
    finally:
        library.set_reversed(0)
    for one, other in zip(forth, back, strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_nan_reaches_only_the_queries_that_see_it(library: ctypes.CDLL) -> None:
    case = Case("nan", (9, 10), (3, 3), dim=8)
    tensors = make(case, torch.float32)
    tensors["value"][0, 4, 5] = torch.nan
    outputs, _ = run(library, case, tensors)
    reached = outputs["out"].isnan().any(-1)[0, :, :, 0].nonzero().tolist()
    assert reached == [[x, y] for x in (3, 4, 5) for y in (4, 5, 6)]
    assert not outputs["lse"].isnan().any()
