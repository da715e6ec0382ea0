"""Data sets by a string: `load_data("digits")`, and the Lightning data module that feeds them to a
model.

Images are uint8 tensors until the batch is on the model's device; nothing here touches the network.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade.data._specs import list_data, load_data

if TYPE_CHECKING:
    from saccade.data._images import ImageData, Images
    from saccade.data.corruptions import CORRUPTIONS, corrupt
    from saccade.data.datamodule import ImageDataModule
    from saccade.data.transforms import AUGMENTATIONS, Jitter

__all__ = [
    "AUGMENTATIONS",
    "CORRUPTIONS",
    "ImageData",
    "ImageDataModule",
    "Images",
    "Jitter",
    "corrupt",
    "list_data",
    "load_data",
]

_LAZY = {
    "AUGMENTATIONS": "saccade.data.transforms",
    "CORRUPTIONS": "saccade.data.corruptions",
    "ImageData": "saccade.data._images",
    "ImageDataModule": "saccade.data.datamodule",
    "Images": "saccade.data._images",
    "Jitter": "saccade.data.transforms",
    "corrupt": "saccade.data.corruptions",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'saccade.data' has no attribute {name!r}")
