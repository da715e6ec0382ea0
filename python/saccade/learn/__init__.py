"""Supervised training on Lightning: a configuration, a module, and `fit`, which leaves a run folder
behind.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade.learn.config import TrainConfig

if TYPE_CHECKING:
    from saccade.learn._fit import FitResult, fit
    from saccade.learn._two_stage import TwoStage, TwoStageConfig, two_stage
    from saccade.learn.dual import DualInputOutput, UnionModule
    from saccade.learn.module import SupervisedModule
    from saccade.learn.unfreezing import ProgressiveUnfreezer

__all__ = [
    "DualInputOutput",
    "FitResult",
    "ProgressiveUnfreezer",
    "SupervisedModule",
    "TrainConfig",
    "TwoStage",
    "TwoStageConfig",
    "UnionModule",
    "fit",
    "two_stage",
]

_LAZY = {
    "DualInputOutput": "saccade.learn.dual",
    "FitResult": "saccade.learn._fit",
    "ProgressiveUnfreezer": "saccade.learn.unfreezing",
    "SupervisedModule": "saccade.learn.module",
    "TwoStage": "saccade.learn._two_stage",
    "TwoStageConfig": "saccade.learn._two_stage",
    "UnionModule": "saccade.learn.dual",
    "fit": "saccade.learn._fit",
    "two_stage": "saccade.learn._two_stage",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'saccade.learn' has no attribute {name!r}")
