"""Bad input to the assignment: sentences with numbers, before any kernel runs."""

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
        lambda: ops.assignment([[1.0]]),  # type: ignore[arg-type]
        TypeError,
        "cost must be a torch.Tensor, got list.",
    ),
    "integers": (
        lambda: ops.assignment(torch.ones(2, 2, dtype=torch.int64)),
        TypeError,
        "cost must have one of the types",
    ),
    "sparse": (
        lambda: ops.assignment(torch.eye(2).to_sparse()),
        NotImplementedError,
        "cost must be a dense (strided) tensor, got layout torch.sparse_coo.",
    ),
    "vector": (
        lambda: ops.assignment(torch.rand(3)),
        ValueError,
        "cost must have rank 2 [n, m] or more, got shape (3,).",
    ),
    "maximize": (
        lambda: ops.assignment(COST, maximize=1),  # type: ignore[arg-type]
        TypeError,
        "maximize must be a bool, got int.",
    ),
    "mask-type": (
        lambda: ops.assignment(COST, mask=torch.ones(3, 4)),
        TypeError,
        "mask must be a torch.Tensor of type torch.bool, got torch.float32.",
    ),
    "mask-list": (
        lambda: ops.assignment(COST, mask=[True]),  # type: ignore[arg-type]
        TypeError,
        "mask must be a torch.Tensor of type torch.bool, got list.",
    ),
    "mask-shape": (
        lambda: ops.assignment(COST, mask=torch.ones(4, 3, dtype=torch.bool)),
        ValueError,
        "mask must broadcast to the shape of cost, (2, 3, 4), got (4, 3).",
    ),
    "mask-rank": (
        lambda: ops.assignment(COST, mask=torch.ones(1, 2, 3, 4, dtype=torch.bool)),
        ValueError,
        "mask must broadcast to the shape of cost, (2, 3, 4), got (1, 2, 3, 4).",
    ),
    "mask-device": (
        lambda: ops.assignment(COST, mask=torch.ones(3, 4, dtype=torch.bool, device="meta")),
        ValueError,
        "mask must be on the device of cost, cpu, got meta.",
    ),
    "backend": (
        lambda: ops.assignment(COST, backend="gpu"),
        ValueError,
        "backend must be one of auto, cpu, cuda, triton, reference, got 'gpu'.",
    ),
    "no-triton": (
        lambda: ops.assignment(COST, backend="triton"),
        RuntimeError,
        "assignment cannot run with backend='triton': assignment has no triton kernel.",
    ),
}


@pytest.mark.parametrize("case", FRONT)
def test_the_front_says_what_is_wrong(case: str) -> None:
    call, error, text = FRONT[case]
    with pytest.raises(error, match=re.escape(text)):
        call()


OPERATOR: dict[str, tuple[tuple[Any, ...], str]] = {
    "rank": ((torch.rand(3, 4), None, False), "cost must have shape [B, n, m], got [3, 4]."),
    "type": (
        (torch.ones(1, 3, 4, dtype=torch.int64), None, False),
        "cost must be float16, bfloat16, float32 or float64.",
    ),
    "mask-type": (
        (COST, torch.ones(2, 3, 4), False),
        "mask must be bool and on the device of cost.",
    ),
    "mask-shape": (
        (COST, torch.ones(2, 4, 3, dtype=torch.bool), False),
        "mask must have the shape of cost, [2, 3, 4], got [2, 4, 3].",
    ),
}


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
@pytest.mark.parametrize("case", OPERATOR)
def test_the_operator_checks_again(case: str) -> None:
    arguments, text = OPERATOR[case]
    with pytest.raises(RuntimeError, match=re.escape(text)):
        torch.ops.saccade.assignment_forward(*arguments)
