"""Checks of the spiking operators' arguments."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from saccade.ops import _checks
from saccade.reference.spiking import SURROGATES, state_dtype


def input_tensor(x: Any) -> None:
    """A floating tensor of steps and samples."""
    _checks.floating_tensor("x", x)
    if x.dim() < 2:
        raise ValueError(
            f"x must have rank 2 or more, [T, B, ...], got rank {x.dim()} "
            f"with shape {tuple(x.shape)}."
        )


def state_tensor(name: str, tensor: Any, x: Tensor) -> Tensor:
    """A tensor that stands beside the potentials, in their type; x's own type is converted."""
    _checks.floating_tensor(name, tensor)
    state = state_dtype(x.dtype)
    if tensor.dtype not in (x.dtype, state):
        raise ValueError(
            f"{name} must have the type of the potentials, {state}"
            + (f", or of x, {x.dtype}" if x.dtype != state else "")
            + f", got {tensor.dtype}."
        )
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}, got {tensor.device}.")
    converted: Tensor = tensor.to(state)
    return converted


def start(v0: Any, x: Tensor) -> Tensor | None:
    """The potential before the first step."""
    if v0 is None:
        return None
    tensor = state_tensor("v0", v0, x)
    _checks.shape("v0", tensor, x.shape[1:], "[B, ...] of x")
    return tensor


def per_channel(name: str, given: Any, x: Tensor, one_for_all: bool) -> Tensor:
    """[C], or a tensor without axes where one number may serve all channels."""
    tensor = state_tensor(name, given, x)
    if one_for_all and tensor.dim() == 0:
        return tensor.reshape(1)
    if x.dim() < 3:
        raise ValueError(
            f"{name} per channel needs x of rank 3 or more, [T, B, C, ...], "
            f"got shape {tuple(x.shape)}."
        )
    _checks.shape(name, tensor, (x.shape[2],), "[C]")
    return tensor


def number_or_tensor(name: str, given: Any, x: Tensor) -> tuple[float, Tensor | None]:
    """A number, or one or C learnable ones."""
    if isinstance(given, Tensor):
        return 1.0, per_channel(name, given, x, one_for_all=True)
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor, got {given!r}.")
    return float(given), None


def time_constant(tau: Any, x: Tensor) -> tuple[float, Tensor | None]:
    """At least 1; infinite: no leak. A tensor's entries are not looked at."""
    value, tensor = number_or_tensor("tau", tau, x)
    if not value >= 1:
        raise ValueError(f"tau must be at least 1 step, or math.inf, got {tau}.")
    return value, tensor


def threshold(v_threshold: Any, x: Tensor) -> tuple[float, Tensor | None]:
    """A finite number, or a tensor whose entries are not looked at."""
    value, tensor = number_or_tensor("v_threshold", v_threshold, x)
    if not -math.inf < value < math.inf:
        raise ValueError(f"v_threshold must be finite, got {v_threshold}.")
    return value, tensor


def surrogate_code(surrogate: Any, alpha: Any) -> tuple[int, float]:
    """The code and the width of a surrogate."""
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {surrogate!r}.")
    width = SURROGATES[surrogate][0] if alpha is None else _checks.finite_number("alpha", alpha)
    if not width > 0:
        raise ValueError(f"alpha must be positive, got {alpha}.")
    return list(SURROGATES).index(surrogate), width


def spike_kind(spike_dtype: Any, smooth: bool) -> int:
    """The code of what spikes come as."""
    kinds = (None, torch.uint8, "bits")
    if spike_dtype not in kinds:
        raise ValueError(
            f'spike_dtype must be None (the type of x), torch.uint8 or "bits", got {spike_dtype!r}.'
        )
    code = kinds.index(spike_dtype)
    if smooth and code:
        raise ValueError(
            f"smooth spikes are floating numbers: spike_dtype must be None, got {spike_dtype!r}."
        )
    return code


def flag(name: str, given: Any) -> bool:
    """A bool."""
    if not isinstance(given, bool):
        raise TypeError(f"{name} must be a bool, got {given!r}.")
    return given
