"""Second line of checks, for callers that skip `saccade.ops`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.triton_kernels._launch import interpreted
from saccade.triton_kernels._scan.layout import DTYPES
from saccade.triton_kernels._scan.selective import scan_forward

MAX_STATES = 256
MAX_PATHS = 8
MAX_WIDTH = 16


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Say why these inputs have no kernel here, in a sentence, or None when they have one."""
    if dtype not in DTYPES:
        return f"The Triton kernels take float32, float16 and bfloat16, got {dtype}."
    if interpreted(scan_forward):
        if dtype == torch.bfloat16:
            return "Triton's interpreter computes bfloat16 wrongly: use float32 or float16 there."
    elif device.type != "cuda":
        return (
            f"The Triton kernels run on a GPU, got tensors on {device}; with TRITON_INTERPRET=1 "
            "set before the first import they run on the CPU, in Triton's interpreter."
        )
    return None


def runs(name: str, tensor: Tensor, rank: int) -> None:
    """Raise unless there is a kernel for the main tensor."""
    if tensor.dim() != rank:
        raise ValueError(f"{name} must have {rank} dimensions, got shape {tuple(tensor.shape)}.")
    why = why_not(tensor.device, tensor.dtype)
    if why is not None:
        raise NotImplementedError(why)
    if tensor.numel() == 0:
        raise NotImplementedError(f"{name} must not be empty, got shape {tuple(tensor.shape)}.")


def shape(name: str, tensor: Tensor | None, expected: Sequence[int], device: torch.device) -> None:
    """Raise for a tensor of another shape or device; None passes."""
    if tensor is None:
        return
    if tensor.shape != torch.Size(expected):
        raise ValueError(f"{name} must have shape {tuple(expected)}, got {tuple(tensor.shape)}.")
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}.")


def like(name: str, tensor: Tensor | None, expected: Sequence[int], main: Tensor) -> None:
    """Raise for a tensor of another shape, device or type than the main tensor's."""
    shape(name, tensor, expected, main.device)
    if tensor is not None and tensor.dtype != main.dtype:
        raise TypeError(f"{name} must have dtype {main.dtype}, got {tensor.dtype}.")


def real(name: str, tensor: Tensor) -> None:
    """Raise for a complex tensor."""
    if tensor.is_complex():
        raise NotImplementedError(f"The Triton kernels take real tensors, got a complex {name}.")


def at_most(name: str, size: int, most: int) -> None:
    """Raise for a size that has no kernel."""
    if not 1 <= size <= most:
        raise NotImplementedError(f"The Triton kernels take {name} from 1 to {most}, got {size}.")
