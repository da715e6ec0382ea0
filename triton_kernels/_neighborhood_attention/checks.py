"""Second line of checks, for callers that skip `saccade.ops`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.triton_kernels._launch import interpreted
from saccade.triton_kernels._neighborhood_attention.forward import attend

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 256


def why_not(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Say why these inputs have no kernel here, in a sentence, or None when they have one."""
    if not 1 <= head_dim <= MAX_HEAD_DIM:
        return f"The Triton kernels take head dimensions from 1 to {MAX_HEAD_DIM}, got {head_dim}."
    if dtype not in DTYPES:
        return f"The Triton kernels take float32, float16 and bfloat16, got {dtype}."
    if interpreted(attend):
        if dtype == torch.bfloat16:
            return "Triton's interpreter computes bfloat16 wrongly: use float32 or float16 there."
    elif device.type != "cuda":
        return (
            f"The Triton kernels run on a GPU, got tensors on {device}; with TRITON_INTERPRET=1 "
            "set before the first import they run on the CPU, in Triton's interpreter."
        )
    return None


def check_tensors(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
) -> None:
    """Raise ValueError, TypeError or NotImplementedError for tensors that do not go together."""
    if query.dim() not in (4, 5, 6):
        raise ValueError(f"query must have 4, 5 or 6 dimensions, got shape {tuple(query.shape)}.")
    why = why_not(query.device, query.dtype, query.shape[-1])
    if why is not None:
        raise NotImplementedError(why)
    heads, heads_kv = query.shape[-2], key.shape[-2]
    expected = (*query.shape[:-2], heads_kv, query.shape[-1])
    _check_shape("key", key, expected)
    _check_shape("value", value, expected)
    if heads_kv < 1 or heads < 1 or heads % heads_kv != 0:
        raise ValueError(
            f"The heads of key must divide those of query, got {heads_kv} and {heads}."
        )
    if (additional_keys is None) != (additional_values is None):
        raise ValueError("additional_keys and additional_values come together, got one of them.")
    if additional_keys is not None and additional_values is not None:
        expected = (query.shape[0], additional_keys.shape[1], heads_kv, query.shape[-1])
        _check_shape("additional_keys", additional_keys, expected)
        _check_shape("additional_values", additional_values, expected)
    for name, tensor in (
        ("key", key),
        ("value", value),
        ("additional_keys", additional_keys),
        ("additional_values", additional_values),
    ):
        if tensor is not None and tensor.dtype != query.dtype:
            raise TypeError(f"{name} must have query's dtype {query.dtype}, got {tensor.dtype}.")
        if tensor is not None and tensor.device != query.device:
            raise ValueError(
                f"{name} must be on query's device {query.device}, got {tensor.device}."
            )
    if bias is not None and bias.dtype not in DTYPES:
        raise TypeError(f"bias must be float32, float16 or bfloat16, got {bias.dtype}.")
    if bias is not None and bias.device != query.device:
        raise ValueError(f"bias must be on query's device {query.device}, got {bias.device}.")


def check_window(
    query: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    is_causal: Sequence[int],
) -> None:
    """Raise ValueError for windows that the input has no room for."""
    lengths = query.shape[1:-2]
    for name, values in (
        ("kernel_size", kernel_size),
        ("stride", stride),
        ("dilation", dilation),
        ("is_causal", is_causal),
    ):
        if len(values) != len(lengths):
            raise ValueError(f"{name} must have {len(lengths)} entries, one an axis, got {values}.")
    for axis, (n, k, s, d) in enumerate(zip(lengths, kernel_size, stride, dilation, strict=True)):
        if k < 1 or d < 1 or k * d > n:
            raise ValueError(
                "kernel_size and dilation must be at least 1, and their product at most the length "
                f"of the axis: axis {axis} has {n}, got {k} * {d}."
            )
        if not 1 <= s <= k:
            raise ValueError(
                f"stride must be from 1 to kernel_size: axis {axis} has kernel_size {k}, got {s}."
            )
    if bias is not None:
        _check_shape("bias", bias, (query.shape[-2], *(2 * k - 1 for k in kernel_size)))


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}.")
