"""Checks of neighborhood attention's arguments: what comes out is ready for a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from saccade.ops import _checks

_DIMS = {4: "X", 5: "X, Y", 6: "X, Y, Z"}
Ints = tuple[int, ...]


def attention_tensors(query: Any, key: Any, value: Any) -> None:
    """Three dense floating tensors of one type, on one device, with one layout."""
    _checks.floating_tensor("query", query)
    _checks.floating_tensor("key", key)
    _checks.floating_tensor("value", value)
    rank = query.dim()
    if rank not in _DIMS:
        raise ValueError(
            "query must have rank 4 [B, X, h, D], 5 [B, X, Y, h, D] or 6 [B, X, Y, Z, h, D], "
            f"got rank {rank} with shape {tuple(query.shape)}."
        )
    _checks.like("key", key, "query", query)
    _checks.like("value", value, "query", query)
    if key.shape != query.shape:
        _key_shape(query, key)
    if value.shape != key.shape:
        raise ValueError(
            f"value must have the shape of key, {tuple(key.shape)}, got {tuple(value.shape)}."
        )
    heads, head_dim = query.shape[-2], query.shape[-1]
    if heads < 1 or head_dim < 1:
        raise ValueError(
            "query must have at least 1 head of at least 1 channel, "
            f"got h = {heads} and D = {head_dim}."
        )


def _key_shape(query: Tensor, key: Tensor) -> None:
    if key.dim() != query.dim():
        raise ValueError(
            f"key must have the rank of query, {query.dim()}, got shape {tuple(key.shape)}."
        )
    if key.shape[:-2] != query.shape[:-2] or key.shape[-1] != query.shape[-1]:
        raise ValueError(
            f"key must have the shape of query, [B, {_DIMS[query.dim()]}, h, D] = "
            f"{tuple(query.shape)}, but for the number of heads, got {tuple(key.shape)}."
        )
    heads, kv_heads = query.shape[-2], key.shape[-2]
    if kv_heads < 1 or heads % kv_heads != 0:
        raise ValueError(
            "the number of heads of key must divide that of query: "
            f"query has {heads}, key has {kv_heads}."
        )


def bias_tensor(bias: Any, query: Tensor, kernel_size: Ints) -> None:
    """One number for every head and every key-minus-query offset."""
    _checks.floating_tensor("bias", bias)
    _checks.like("bias", bias, "query", query)
    letters = "[h, " + ", ".join(f"2*K{i}-1" for i in range(len(kernel_size))) + "]"
    _checks.shape("bias", bias, (query.shape[-2], *(2 * k - 1 for k in kernel_size)), letters)


def additional_tensors(additional_keys: Any, additional_values: Any, key: Tensor) -> None:
    """Extra keys and values come together."""
    if additional_values is None:
        raise ValueError("additional_keys was given without additional_values: give both or none.")
    if additional_keys is None:
        raise ValueError("additional_values was given without additional_keys: give both or none.")
    named = (("additional_keys", additional_keys), ("additional_values", additional_values))
    for name, given in named:
        _checks.floating_tensor(name, given)
        _checks.like(name, given, "query", key)
        if given.dim() != 4:
            raise ValueError(
                f"{name} must have rank 4 [B, S, h_kv, D], got shape {tuple(given.shape)}."
            )
        expected = (key.shape[0], additional_keys.shape[1], key.shape[-2], key.shape[-1])
        _checks.shape(name, given, expected, "[B, S, h_kv, D]")


def shrink(
    dims: Sequence[int], kernel_size: Ints, stride: Ints, dilation: Ints, bias: Tensor | None
) -> tuple[Ints, Ints, Ints, Tensor | None]:
    """Clamp to the axis: K = min(K, L), then d = min(d, L // K), s = min(s, K).

    Of the bias the centre is left.
    """
    # comparisons, not min(): a length that torch.compile holds symbolic must not leak into the
    # window's static ints
    kernel = tuple(k if k <= n else int(n) for k, n in zip(kernel_size, dims, strict=True))
    dilation = tuple(
        d if k * d <= n else int(n // k) for k, d, n in zip(kernel, dilation, dims, strict=True)
    )
    stride = tuple(min(s, k) for s, k in zip(stride, kernel, strict=True))
    if bias is not None:
        for axis, (old, new) in enumerate(zip(kernel_size, kernel, strict=True)):
            if new != old:
                bias = bias.narrow(axis + 1, old - new, 2 * new - 1)
    return kernel, stride, dilation, bias


def window_fits(dims: Sequence[int], kernel_size: Ints, stride: Ints, dilation: Ints) -> None:
    """Every window lies within its axis, and no stride jumps over keys."""
    for axis, (n, k, s, d) in enumerate(zip(dims, kernel_size, stride, dilation, strict=True)):
        if k * d > n:
            raise ValueError(
                "kernel_size times dilation must be at most the length of its axis: "
                f"axis {axis} has {n}, got {k} * {d} = {k * d}. clamp=True shrinks the window."
            )
        if s > k:
            raise ValueError(f"stride must be at most kernel_size: axis {axis} has {k}, got {s}.")
