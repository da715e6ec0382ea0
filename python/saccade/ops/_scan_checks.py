"""Checks of the scans' arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saccade.ops import _checks
from saccade.ops._scan_op import computation_dtype

DIRECTIONS = {"lr": 0, "rl": 1, "tb": 2, "bt": 3}
MAX_STATE = 256


def flag(name: str, given: Any) -> bool:
    """True or False and nothing else."""
    if not isinstance(given, bool):
        raise TypeError(f"{name} must be a bool, got {given!r} ({type(given).__name__}).")
    return given


def rank(name: str, tensor: Tensor, ranks: Sequence[int], letters: str) -> None:
    """One of some numbers of axes."""
    if tensor.dim() not in ranks:
        raise ValueError(f"{name} must have shape {letters}, got {tuple(tensor.shape)}.")


def signal(name: str, tensor: Any, first: str, like: Tensor) -> None:
    """A tensor of the first one's type and device."""
    _checks.floating_tensor(name, tensor)
    _checks.like(name, tensor, first, like)


def parameter(
    name: str, tensor: Any, first: str, like: Tensor, shape: Sequence[int], letters: str
) -> Tensor:
    """A tensor of any floating type, converted to the type of computation."""
    _checks.floating_tensor(name, tensor)
    if tensor.device != like.device:
        raise ValueError(
            f"{name} must be on the device of {first}, {like.device}, got {tensor.device}."
        )
    _checks.shape(name, tensor, shape, letters)
    converted: Tensor = tensor.to(computation_dtype(like.dtype))
    return converted


def seq_idx(tensor: Any, first: str, like: Tensor, shape: Sequence[int]) -> Tensor:
    """Sequence numbers of an integer type, converted to int32."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"seq_idx must be a torch.Tensor, got {type(tensor).__name__}.")
    if tensor.dtype not in (torch.int32, torch.int64, torch.int16, torch.uint8):
        raise TypeError(f"seq_idx must have an integer type, got {tensor.dtype}.")
    if tensor.device != like.device:
        raise ValueError(
            f"seq_idx must be on the device of {first}, {like.device}, got {tensor.device}."
        )
    _checks.shape("seq_idx", tensor, shape, "[B, L]")
    return tensor.to(torch.int32)


def groups(name: str, count: int, of: str, size: int) -> None:
    """A number of groups that divides a number of channels or heads."""
    if count < 1 or size % count != 0:
        raise ValueError(
            f"the groups of {name} must be at least 1 and divide {of} = {size}, got {count}."
        )


def state(name: str, size: int) -> None:
    """A size of the state that the kernels know."""
    if not 1 <= size <= MAX_STATE:
        raise ValueError(f"the state N of {name} must be between 1 and {MAX_STATE}, got {size}.")


def paths(given: Any, reverse: bool, has_seq_idx: bool) -> list[int]:
    """Codes of the directions, which are given for a map alone."""
    if given is None:
        return [int(reverse)]
    if isinstance(given, str) or not isinstance(given, (tuple, list)) or not given:
        raise TypeError(
            "directions must be None or a tuple of at least 1 name out of "
            f"{', '.join(DIRECTIONS)}, got {given!r}."
        )
    for name in given:
        if name not in DIRECTIONS:
            raise ValueError(f"directions must be among {', '.join(DIRECTIONS)}, got {name!r}.")
    if reverse:
        raise ValueError('reverse=True is for sequences; directions has "rl" and "bt".')
    if has_seq_idx:
        raise ValueError("seq_idx is for sequences and cannot be given together with directions.")
    return [DIRECTIONS[name] for name in given]


def limits(given: Any) -> tuple[float, float]:
    """A lower and an upper limit of the step, the upper one possibly infinite."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"dt_limit must be a pair of numbers, got {given!r}.")
    for number in given:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"dt_limit must be a pair of numbers, got {given!r}.")
    low, high = float(given[0]), float(given[1])
    if not 0 <= low <= high:
        raise ValueError(f"dt_limit must satisfy 0 <= lower <= upper, got {given!r}.")
    return low, high


def activation(given: Any) -> bool:
    """Whether the activation is silu (also called swish) or none."""
    if given not in (None, "silu", "swish"):
        raise ValueError(f'activation must be None, "silu" or "swish", got {given!r}.')
    return given is not None
