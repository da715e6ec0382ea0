"""What autocast does to an operator's inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def autocast_dtype(device: str) -> torch.dtype | None:
    """The type that autocast computes in on a kind of device, or None where it is off."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def autocast(device: str, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast the tensors of a type below float64 to autocast's, where it is on; leave the rest."""
    dtype = autocast_dtype(device)
    if dtype is None:
        return tensors
    castable = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(
        t.to(dtype) if isinstance(t, Tensor) and t.dtype in castable else t for t in tensors
    )
