"""Optimal transport: entropic plans, points without a cost matrix, low rank."""

from __future__ import annotations

from torch import Tensor

from saccade import _load
from saccade.ops._select import offer
from saccade.ops._transport_result import OTResult

__all__ = ["OTResult"]


def _cpu(cost: Tensor) -> str | None:
    if cost.device.type not in ("cpu", "meta"):
        return f"the tensors are on {cost.device}"
    return None if _load.has("_C") else _load.reason("_C")


offer("transport", cpu=_cpu)
