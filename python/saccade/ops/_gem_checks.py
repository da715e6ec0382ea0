"""Checks and shapes of the gradient projection: sentences before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saccade.ops import _checks

TRIGGERS = ("violation", "always")


def gradient_and_memory(grad: Any, memory: Any) -> None:
    """Check grad [..., P] and memory [..., t, P], whose leading axes broadcast to those of grad."""
    _checks.floating_tensor("grad", grad)
    _checks.floating_tensor("memory", memory)
    if grad.dim() < 1:
        raise ValueError("grad must have rank 1 [P] or more, got a scalar.")
    if memory.dim() < 2:
        raise ValueError(
            f"memory must have rank 2 [t, P] or more, got shape {tuple(memory.shape)}."
        )
    _checks.like("memory", memory, "grad", grad)
    if memory.shape[-1] != grad.shape[-1]:
        raise ValueError(
            f"memory must have as many columns as grad, P = {grad.shape[-1]}, "
            f"got shape {tuple(memory.shape)}."
        )
    leading("memory", memory.shape[:-2], grad.shape[:-1])


def leading(name: str, axes: Sequence[int], batch: Sequence[int]) -> None:
    """Leading axes are those of the batch, or 1, or absent."""
    fits = len(axes) <= len(batch)
    for axis, size in zip(reversed(axes), reversed(batch), strict=False):
        fits = fits and (axis == size or axis == 1)
    if not fits:
        raise ValueError(
            f"the leading axes of {name} must broadcast to those of grad, {tuple(batch)}, "
            f"got {tuple(axes)}."
        )


def rows(name: str, tensor: Tensor, count: int, batch: Sequence[int]) -> None:
    """One entry for each of the t rows."""
    if tensor.dim() < 1 or tensor.shape[-1] != count:
        raise ValueError(
            f"{name} must have shape [..., t] with t = {count}, got {tuple(tensor.shape)}."
        )
    leading(name, tensor.shape[:-1], batch)


def at_least_zero(name: str, given: Any) -> float:
    """A finite number that is not negative."""
    number = _checks.finite_number(name, given)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {number}.")
    return number


def is_always(trigger: Any) -> bool:
    """Whether the problem is solved where nothing is violated, too."""
    if trigger not in TRIGGERS:
        raise ValueError(f"trigger must be one of {', '.join(TRIGGERS)}, got {trigger!r}.")
    return bool(trigger == "always")


def slack_of_rows(
    slack: Any, valid: Any, count: int, batch: Sequence[int], like: Tensor
) -> Tensor | None:
    """The slack [..., t] in float64, +inf where a row is not valid; None where all of it is 0."""
    if slack is None or isinstance(slack, Tensor):
        widths: Tensor | None = slack
    else:
        number = _checks.finite_number("slack", slack)
        widths = torch.full((count,), number, dtype=torch.float64, device=like.device)
    if widths is not None:
        _checks.floating_tensor("slack", widths)
        rows("slack", widths, count, batch)
        _device("slack", widths, like)
        widths = widths.double()
    if valid is None:
        return widths
    valid_rows(valid, count, batch, like)
    if widths is None:
        widths = torch.zeros((count,), dtype=torch.float64, device=like.device)
    return torch.where(valid, widths, math.inf)


def valid_rows(valid: Any, count: int, batch: Sequence[int], like: Tensor) -> None:
    """Check a bool for each of the t rows."""
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
        got = valid.dtype if isinstance(valid, Tensor) else type(valid).__name__
        raise TypeError(f"valid must be a torch.Tensor of type torch.bool, got {got}.")
    rows("valid", valid, count, batch)
    _device("valid", valid, like)


def _device(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.device != like.device:
        raise ValueError(
            f"{name} must be on the device of grad, {like.device}, got {tensor.device}."
        )


def quadratic(gram: Any, linear: Any) -> None:
    """Check gram [..., t, t] and linear [..., t]."""
    for name, given in (("gram", gram), ("linear", linear)):
        _checks.floating_tensor(name, given)
        if given.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 or float64, got {given.dtype}.")
    if linear.dim() < 1:
        raise ValueError("linear must have rank 1 [t] or more, got a scalar.")
    _checks.like("linear", linear, "gram", gram)
    t = linear.shape[-1]
    _checks.shape("gram", gram, (*linear.shape, t), "[..., t, t]")


def parameter_lists(grads: Any, memory: Any) -> tuple[list[Tensor], list[Tensor], int, bool]:
    """Gradients that are there, the memories of each, the number of rows, and how they come.

    Returns:
        n gradients; n memories [t, numel] (stacked), or t times n tensors, row after row, of which
        an absent one is empty; t; whether they are stacked.
    """
    if not isinstance(grads, (list, tuple)):
        raise TypeError(f"grads must be a list of tensors or None, got {type(grads).__name__}.")
    present = [k for k, grad in enumerate(grads) if grad is not None]
    kept = [grads[k] for k in present]
    for k, grad in zip(present, kept, strict=True):
        _checks.floating_tensor(f"grads[{k}]", grad)
        _checks.like(f"grads[{k}]", grad, f"grads[{present[0]}]", kept[0])
    if isinstance(memory, Tensor):
        return kept, *_stacked(grads, kept, present, memory), True
    if not isinstance(memory, (list, tuple)):
        raise TypeError(
            "memory must be a tensor [t, P] or a list of rows, each a list of tensors or None, "
            f"got {type(memory).__name__}."
        )
    entries: list[Tensor] = []
    for i, row in enumerate(memory):
        if not isinstance(row, (list, tuple)) or len(row) != len(grads):
            got = len(row) if isinstance(row, (list, tuple)) else type(row).__name__
            raise ValueError(
                f"memory[{i}] must be a list with an entry for each of the {len(grads)} "
                f"gradients, got {got}."
            )
        for k, grad in zip(present, kept, strict=True):
            entries.append(_entry(f"memory[{i}][{k}]", row[k], f"grads[{k}]", grad))
    return kept, entries, len(memory), False


def _stacked(
    grads: Sequence[Any], kept: list[Tensor], present: list[int], memory: Tensor
) -> tuple[list[Tensor], int]:
    _checks.floating_tensor("memory", memory)
    if len(kept) != len(grads):
        absent = next(k for k in range(len(grads)) if grads[k] is None)
        raise ValueError(
            "memory must be a list of rows where a gradient is None, because the columns of "
            f"grads[{absent}] are not known."
        )
    sizes = [grad.numel() for grad in kept]
    if memory.dim() != 2 or memory.shape[1] != sum(sizes):
        raise ValueError(
            f"memory must have shape [t, P] with the {sum(sizes)} numbers of all gradients, "
            f"got {tuple(memory.shape)}."
        )
    if kept:
        _checks.like("memory", memory, f"grads[{present[0]}]", kept[0])
    return list(memory.split(sizes, dim=1)) if kept else [], memory.shape[0]


def _entry(name: str, given: Tensor | None, grad_name: str, grad: Tensor) -> Tensor:
    if given is None:
        return grad.new_empty(0)
    _checks.floating_tensor(name, given)
    _checks.like(name, given, grad_name, grad)
    if given.shape != grad.shape:
        raise ValueError(
            f"{name} must have the shape of {grad_name}, {tuple(grad.shape)}, "
            f"got {tuple(given.shape)}."
        )
    return given
