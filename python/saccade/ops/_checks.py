"""Checks that operators share: each raises a sentence with numbers before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def floating_tensor(name: str, tensor: Any) -> None:
    """A dense tensor of a floating type that the kernels know."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}.")
    if tensor.is_nested or tensor.layout is not torch.strided:
        kind = "a nested tensor" if tensor.is_nested else f"layout {tensor.layout}"
        raise NotImplementedError(f"{name} must be a dense (strided) tensor, got {kind}.")
    if tensor.dtype not in FLOATING:
        known = ", ".join(str(dtype) for dtype in FLOATING)
        raise TypeError(f"{name} must have one of the types {known}, got {tensor.dtype}.")


def like(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """The same type and device as another tensor."""
    if tensor.dtype != other.dtype:
        raise ValueError(
            f"{name} must have the type of {other_name}, {other.dtype}, got {tensor.dtype}; "
            "convert one of them, or call under torch.autocast."
        )
    if tensor.device != other.device:
        raise ValueError(
            f"{name} must be on the device of {other_name}, {other.device}, got {tensor.device}."
        )


def shape(name: str, tensor: Tensor, expected: Sequence[int], letters: str) -> None:
    """Exactly the expected shape; `letters` says what its numbers mean."""
    if tensor.shape != tuple(expected):
        raise ValueError(
            f"{name} must have shape {letters} = {tuple(expected)}, got {tuple(tensor.shape)}."
        )


def positive_ints(name: str, given: Any, axes: int) -> tuple[int, ...]:
    """One positive int for every axis; a single int serves all of them."""
    if type(given) is int:
        entries: tuple[Any, ...] = (given,) * axes
    elif isinstance(given, (tuple, list)):
        entries = tuple(given)
    elif isinstance(given, torch.SymInt):
        entries = (int(given),) * axes
    else:
        raise TypeError(f"{name} must be an int or a tuple of {axes} ints, got {_typed(given)}.")
    if len(entries) != axes:
        raise ValueError(
            f"{name} must be an int or have {axes} entries, one per spatial axis, got {given!r}."
        )
    for entry in entries:
        if type(entry) is not int and not isinstance(entry, torch.SymInt):
            raise TypeError(f"{name} must hold ints, got {_typed(entry)} in {given!r}.")
        if entry < 1:
            raise ValueError(f"{name} must be at least 1 on every axis, got {given!r}.")
    return entries


def bools(name: str, given: Any, axes: int) -> tuple[bool, ...]:
    """One bool for every axis; a single bool serves all of them."""
    if isinstance(given, bool):
        return (given,) * axes
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"{name} must be a bool or a tuple of {axes} bools, got {_typed(given)}.")
    if len(given) != axes:
        raise ValueError(
            f"{name} must be a bool or have {axes} entries, one per spatial axis, got {given!r}."
        )
    for entry in given:
        if not isinstance(entry, bool):
            raise TypeError(f"{name} must hold bools, got {_typed(entry)} in {given!r}.")
    return tuple(given)


def finite_number(name: str, given: Any) -> float:
    """A finite number, not a tensor."""
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"{name} must be a number or None, got {_typed(given)}.")
    # comparisons, because torch.compile traces them and not math.isfinite
    if not -math.inf < given < math.inf:
        raise ValueError(f"{name} must be finite, got {given}.")
    return float(given)


def _typed(given: Any) -> str:
    if isinstance(given, Tensor):
        return f"a tensor of shape {tuple(given.shape)}"
    return f"{given!r} ({type(given).__name__})"
