"""Neighborhood attention in Triton: forward and backward, and the ops `saccade_triton::na_*`.

    out[i] = sum_j softmax_j(scale * q_i . k_j + bias[j - i + K - 1]) v_j
    over the window of i and the additional keys

Layouts, arguments and results are those of `saccade::na_forward` and `saccade::na_backward`. The
kernels read tokens where they lie, heads last, through strides: nothing is permuted in memory and
no score reaches memory. All arithmetic is float32; float32 inputs are multiplied in full float32,
not in TF32. Every sum has a fixed order, so that a backward gives the same bits each time. A NaN in
a token may reach all tokens whose tiles meet its own.

Source: Hassani et al., arXiv 2204.07143 and 2504.16922; Dao et al., arXiv 2205.14135.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saccade.triton_kernels._launch import device_of
from saccade.triton_kernels._neighborhood_attention.checks import (
    check_tensors,
    check_window,
)
from saccade.triton_kernels._neighborhood_attention.launches import (
    backward_launches,
    forward_launch,
)

__all__ = ["backward", "backward_op", "forward", "forward_op"]

_INPUTS = "Tensor query, Tensor key, Tensor value"
_ARGUMENTS = (
    "Tensor? bias, Tensor? additional_keys, Tensor? additional_values, "
    "int[] kernel_size, int[] stride, int[] dilation, int[] is_causal, float scale"
)
_SCHEMAS = {
    "na_forward": f"({_INPUTS}, {_ARGUMENTS}) -> (Tensor out, Tensor lse)",
    "na_backward": (
        f"(Tensor grad_out, Tensor grad_lse, {_INPUTS}, Tensor out, Tensor lse, {_ARGUMENTS}) -> "
        "(Tensor grad_query, Tensor grad_key, Tensor grad_value, Tensor grad_bias, "
        "Tensor grad_additional_keys, Tensor grad_additional_values)"
    ),
}


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    is_causal: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attend each query to its window and to the additional keys.

    Args:
        query: [B, *dims, h, D] with one to three dims, any strides; float32, float16 or bfloat16; D
        at most 256.
        key: [B, *dims, h_kv, D], h_kv dividing h.
        value: like key.
        bias: [h, 2*K0-1, ...], added to the scaled scores, or None.
        additional_keys: [B, S, h_kv, D], seen by every query, or None.
        additional_values: like additional_keys.
        kernel_size: K of every axis, K * dilation at most the axis.
        stride: 1 to K of every axis.
        dilation: at least 1 for every axis.
        is_causal: 0 or 1 for every axis.
        scale: multiplies the scores, as it is.

    Returns:
        out [B, *dims, h, D] in the dtype of query and lse [B, *dims, h] in float32, both
        contiguous.

    Raises:
        ValueError: shapes, devices or windows do not fit.
        TypeError: dtypes differ.
        NotImplementedError: the dtype, device or D has no kernel; the sentence says which.
    """
    check_tensors(query, key, value, bias, additional_keys, additional_values)
    check_window(query, bias, kernel_size, stride, dilation, is_causal)
    launch, out, lse = forward_launch(
        query,
        key,
        value,
        bias,
        additional_keys,
        additional_values,
        (kernel_size, stride, dilation, is_causal),
        scale,
    )
    with device_of(query):
        launch.run()
    return out, lse


def backward(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    is_causal: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `forward` with respect to its tensors, from those of out and lse.

    Returns:
        Gradients of query, key, value, bias, additional_keys, additional_values: shape and dtype of
        the input, contiguous; of shape [0] for an input that is None.

    Notes:
        Two passes recompute the scores: one owns queries, one owns keys. Bias and additional keys
        add one each, with float32 tables of partial sums that are added in a fixed order.
    """
    check_tensors(query, key, value, bias, additional_keys, additional_values)
    check_window(query, bias, kernel_size, stride, dilation, is_causal)
    for name, tensor, shape in (
        ("grad_out", grad_out, query.shape),
        ("out", out, query.shape),
        ("lse", lse, query.shape[:-1]),
        ("grad_lse", grad_lse, query.shape[:-1]),
    ):
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}.")
    for name, tensor in (("grad_out", grad_out), ("out", out)):
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name} must have query's dtype {query.dtype}, got {tensor.dtype}.")
    launches, gradients = backward_launches(
        grad_out,
        grad_lse,
        query,
        key,
        value,
        out,
        lse,
        bias,
        additional_keys,
        additional_values,
        (kernel_size, stride, dilation, is_causal),
        scale,
    )
    with device_of(query):
        for launch in launches:
            launch.run()
        return gradients.collect()


def _fake_forward(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[:-1], dtype=torch.float32)


def _fake_backward(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    *_: Any,
) -> tuple[Tensor, ...]:
    optional = (bias, additional_keys, additional_values)
    return (
        *(x.new_empty(x.shape) for x in (query, key, value)),
        *(query.new_empty([0]) if x is None else x.new_empty(x.shape) for x in optional),
    )


def _register() -> None:
    """Define the ops once in a process: a second import of this module finds them."""
    implementations = {
        "na_forward": (forward, _fake_forward),
        "na_backward": (backward, _fake_backward),
    }
    for name, (function, fake) in implementations.items():
        if not hasattr(torch.ops.saccade_triton, name):
            operator = f"saccade_triton::{name}"
            torch.library.define(operator, _SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(operator, ("cpu", "cuda"), function)
            torch.library.register_fake(operator, fake)


_register()
forward_op = torch.ops.saccade_triton.na_forward.default
backward_op = torch.ops.saccade_triton.na_backward.default
