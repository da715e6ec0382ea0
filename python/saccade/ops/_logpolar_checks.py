"""Checks of the log-polar operators' arguments: what comes out is ready for a kernel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from saccade.ops import _checks
from saccade.ops._logpolar_op import compute_dtype


def image(given: Any) -> None:
    """A dense image [B, C, H, W] of a floating type or uint8, with at least one pixel."""
    if isinstance(given, Tensor) and given.dtype == torch.uint8 and given.layout is torch.strided:
        pass
    elif isinstance(given, Tensor) and not given.is_floating_point() and not given.is_complex():
        raise TypeError(f"image must have a floating type or torch.uint8, got {given.dtype}.")
    else:
        _checks.floating_tensor("image", given)
    if given.dim() != 4:
        raise ValueError(f"image must have rank 4 [B, C, H, W], got shape {tuple(given.shape)}.")
    if given.shape[2] < 1 or given.shape[3] < 1:
        raise ValueError(f"image must have at least one pixel, got shape {tuple(given.shape)}.")


def logpolar(given: Any) -> None:
    """A dense floating map [B, N, C, R, T] with at least one ring and one ray."""
    _checks.floating_tensor("logpolar", given)
    if given.dim() != 5:
        raise ValueError(
            f"logpolar must have rank 5 [B, N, C, R, T], got shape {tuple(given.shape)}."
        )
    if given.shape[3] < 1 or given.shape[4] < 1:
        raise ValueError(
            f"logpolar must have at least one ring and one ray, got shape {tuple(given.shape)}."
        )


def pose(
    fixation: Any, theta0: Any, scale: Any, name: str, main: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Fixation [B, N, 2], theta0 and scale [B, N] in the type that coordinates are held in."""
    _checks.floating_tensor("fixation", fixation)
    batch = main.shape[0]
    if fixation.dim() != 3 or fixation.shape[2] != 2 or fixation.shape[0] != batch:
        raise ValueError(
            f"fixation must be [B, N, 2] with the B = {batch} of {name}, "
            f"got shape {tuple(fixation.shape)}."
        )
    _device("fixation", fixation, name, main)
    dtype = compute_dtype(main.dtype)
    turns, zooms = (
        _per_fixation(label, given, fixation, name, main, dtype)
        for label, given in (("theta0", theta0), ("scale", scale))
    )
    return fixation.to(dtype), turns, zooms


def _per_fixation(
    label: str, given: Any, fixation: Tensor, name: str, main: Tensor, dtype: torch.dtype
) -> Tensor:
    shape = fixation.shape[:2]
    if isinstance(given, Tensor):
        _checks.floating_tensor(label, given)
        _device(label, given, name, main)
        if given.dim() > 0:
            _checks.shape(label, given, shape, "[B, N]")
        return given.to(dtype).expand(shape)
    if isinstance(given, bool) or not isinstance(given, (int, float, torch.SymFloat)):
        raise TypeError(
            f"{label} must be a number or a tensor [B, N], got {given!r} ({type(given).__name__})."
        )
    if not -math.inf < given < math.inf:
        raise ValueError(f"{label} must be finite, got {given}.")
    return torch.full(shape, given, dtype=dtype, device=main.device)


def _device(label: str, given: Tensor, name: str, main: Tensor) -> None:
    if given.device != main.device:
        raise ValueError(
            f"{label} must be on the device of {name}, {main.device}, got {given.device}."
        )


def code(name: str, given: Any, choices: tuple[str, ...]) -> int:
    """The number of a choice."""
    # equality, not the membership of a dict: an unhashable value is an error like any other
    for number, choice in enumerate(choices):
        if isinstance(given, str) and given == choice:
            return number
    raise ValueError(f"{name} must be one of {', '.join(choices)}, got {given!r}.")
