"""Strided tensors as the kernels take them, and the layouts of results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

Strided = tuple[Any, ...]


def strided(tensor: Tensor, axes: str, order: str) -> Strided:
    """(tensor, strides): `axes` names the tensor's axes, `order` the strides wanted; 0: no axis."""
    stride = dict(zip(axes, tensor.stride(), strict=True))
    return (tensor, *(stride.get(axis, 0) for axis in order))


def signal(tensor: Tensor, axes: str) -> Strided:
    """Batch, path, row and step of a signal."""
    return strided(tensor, axes, "bkdl")


def coefficients(tensor: Tensor) -> Strided:
    """Batch, path, row, step and state of B or C."""
    return strided(tensor, "kdn" if tensor.dim() == 3 else "bkdnl", "bkdln")


def sequences(seq_idx: Tensor | None) -> Strided | None:
    """Batch and step of the numbers of sequences."""
    return None if seq_idx is None else strided(seq_idx, "bl", "bl")


def empty_like(tensor: Tensor) -> Tensor:
    """Uninitialised, of the tensor's shape: contiguous, or channels-last where the tensor is."""
    if tensor.stride(-2) == 1 and tensor.stride(-1) != 1:
        shape = (*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2])
        return tensor.new_empty(shape).transpose(-1, -2)
    return tensor.new_empty(tensor.shape)


def laid_out_like(values: Tensor, tensor: Tensor) -> Tensor:
    """The values in the tensor's type and layout."""
    return empty_like(tensor).copy_(values)


def intervals(length: int, chunk: int) -> int:
    """Room for the states in front of every chunk and one more, as csrc/scan/kernel.h says."""
    return (length + chunk - 1) // chunk + 1 if chunk else 0


def contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(torch.float32).contiguous()
