"""Bad input to exact transport: sentences with numbers, before any kernel runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from saccade import _load, ops

COST = torch.rand(2, 3, 4)

FRONT: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no-tensor": (
        lambda: ops.emd([[1.0]]),  # type: ignore[arg-type]
        TypeError,
        "cost must be a torch.Tensor, got list.",
    ),
    "vector": (
        lambda: ops.emd(torch.rand(3)),
        ValueError,
        "cost must have rank 2 [n, m] or more, got shape (3,).",
    ),
    "weights-list": (
        lambda: ops.emd(COST, [0.5]),  # type: ignore[arg-type]
        TypeError,
        "a must be a torch.Tensor, got list.",
    ),
    "weights-type": (
        lambda: ops.emd(COST, torch.full((3,), 1 / 3, dtype=torch.float64)),
        ValueError,
        "a must have the type of cost, torch.float32, got torch.float64",
    ),
    "rows": (
        lambda: ops.emd(COST, torch.full((4,), 0.25)),
        ValueError,
        "a must have an entry for each of the n = 3 rows of cost, got shape (4,).",
    ),
    "columns": (
        lambda: ops.emd(COST, None, torch.tensor(1.0)),
        ValueError,
        "b must have an entry for each of the m = 4 columns of cost, got shape ().",
    ),
    "batch": (
        lambda: ops.emd(COST, torch.full((5, 3), 1 / 3)),
        ValueError,
        "the leading axes of a must broadcast to those of cost, (2,), got (5,).",
    ),
    "more-batch": (
        lambda: ops.emd(COST, torch.full((1, 2, 3), 1 / 3)),
        ValueError,
        "the leading axes of a must broadcast to those of cost, (2,), got (1, 2).",
    ),
    "negative": (
        lambda: ops.emd(COST, torch.tensor([[0.5, 0.5, 0.0], [0.5, -0.25, 0.75]])),
        ValueError,
        "a must not be negative, got -0.25 at (1, 1).",
    ),
    "negative-expanded": (
        lambda: ops.emd(COST, None, torch.tensor([0.5, 0.5, 1.0, -1.0])),
        ValueError,
        "b must not be negative, got -1 at (3,).",
    ),
    "total": (
        lambda: ops.emd(COST, torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.25, 0.75]])),
        ValueError,
        "a and b must have the same total, got 1.5 and 1.",
    ),
    "totals": (
        lambda: ops.emd(COST, torch.full((2, 3), 1 / 3), torch.full((4,), 0.3)),
        ValueError,
        "a and b must have the same total, got 1 and 1.2.",
    ),
    "total-of-nothing": (
        lambda: ops.emd(COST[..., :0], torch.full((3,), 1 / 3)),
        ValueError,
        "a and b must have the same total, got 1 and 0.",
    ),
    "total-half": (
        lambda: ops.emd(COST.bfloat16(), torch.tensor([0.5, 0.5, 0.25]).bfloat16()),
        ValueError,
        "a and b must have the same total, got 1.25 and 1",
    ),
    "backend": (
        lambda: ops.emd(COST, backend="gpu"),
        ValueError,
        "backend must be one of auto, cpu, cuda, triton, reference, got 'gpu'.",
    ),
    "no-cuda": (
        lambda: ops.emd(COST, backend="cuda"),
        RuntimeError,
        "emd cannot run with backend='cuda': emd has no cuda kernel.",
    ),
}


@pytest.mark.parametrize("case", FRONT)
def test_the_front_says_what_is_wrong(case: str) -> None:
    call, error, text = FRONT[case]
    with pytest.raises(error, match=re.escape(text)):
        call()


@pytest.mark.cuda
def test_a_gpu_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="emd runs on the CPU and cost is on cuda:0"):
        ops.emd(COST.cuda())


OPERATOR: dict[str, tuple[tuple[Any, ...], str]] = {
    "rank": ((torch.rand(3, 4), None, None), "cost must have shape [B, n, m], got [3, 4]."),
    "type": (
        (torch.ones(1, 3, 4, dtype=torch.int64), None, None),
        "cost must be float16, bfloat16, float32 or float64.",
    ),
    "rows": (
        (COST, torch.rand(2, 4), None),
        "a must have shape [2, 3] and the device of cost, got [2, 4].",
    ),
    "columns": (
        (COST, None, torch.rand(4)),
        "b must have shape [2, 4] and the device of cost, got [4].",
    ),
}


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
@pytest.mark.parametrize("case", OPERATOR)
def test_the_operator_checks_again(case: str) -> None:
    arguments, text = OPERATOR[case]
    with pytest.raises(RuntimeError, match=re.escape(text)):
        torch.ops.saccade.emd_forward(*arguments)
