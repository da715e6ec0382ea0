"""Smaller models from larger ones, and one from two: progressive distillation into an ensemble that
answers at any time, fusion by optimal transport.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade.compress._weights import MarginWeights
from saccade.compress.ensemble import AnytimeEnsemble, EarlyExit
from saccade.compress.fusion import align, fuse
from saccade.compress.losses import distillation_loss, margin_loss
from saccade.compress.macs import count_macs

if TYPE_CHECKING:
    from saccade.compress.progressive import (
        DistillConfig,
        Distilled,
        ProgressiveModule,
        distill,
    )

__all__ = [
    "AnytimeEnsemble",
    "DistillConfig",
    "Distilled",
    "EarlyExit",
    "MarginWeights",
    "ProgressiveModule",
    "align",
    "count_macs",
    "distill",
    "distillation_loss",
    "fuse",
    "margin_loss",
]

# these need Lightning, of the extra "train"
_LAZY = ("DistillConfig", "Distilled", "ProgressiveModule", "distill")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module("saccade.compress.progressive"), name)
    raise AttributeError(f"module 'saccade.compress' has no attribute {name!r}")
