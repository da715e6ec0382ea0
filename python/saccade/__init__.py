"""Saccade: compiled operators for vision research, and the models and algorithms that use them.

>>> import torch, saccade
>>> x = torch.randn(1, 14, 14, 2, 16)
>>> saccade.ops.neighborhood_attention(x, x, x, kernel_size=7).shape
torch.Size([1, 14, 14, 2, 16])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade import nn, ops
from saccade._info import __version__, info

if TYPE_CHECKING:
    from saccade.models import create_model, list_models
    from saccade.systems import list_systems

__all__ = ["__version__", "create_model", "info", "list_models", "list_systems", "nn", "ops"]

_LAZY = {
    "create_model": "saccade.models",
    "list_models": "saccade.models",
    "list_systems": "saccade.systems",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'saccade' has no attribute {name!r}")
