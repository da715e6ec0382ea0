"""Supervised training on Lightning: a configuration, a module, and `fit`, which leaves a run folder
behind.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade.learn.config import TrainConfig

if TYPE_CHECKING:
    from saccade.learn._fit import FitResult, fit
    from saccade.learn.module import SupervisedModule

__all__ = ["FitResult", "SupervisedModule", "TrainConfig", "fit"]

_LAZY = {
    "FitResult": "saccade.learn._fit",
    "SupervisedModule": "saccade.learn.module",
    "fit": "saccade.learn._fit",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'saccade.learn' has no attribute {name!r}")
