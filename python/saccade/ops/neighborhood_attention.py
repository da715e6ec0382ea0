"""Neighborhood attention in 1, 2 and 3 dimensions: every token attends to the window around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import _checks
from saccade.ops import _neighborhood_attention_checks as _arguments
from saccade.ops._autocast import autocast
from saccade.ops._kernels import wanted
from saccade.ops._neighborhood_attention_op import Attention, accumulation_dtype, call
from saccade.ops._select import cuda_obstacle, offer, select_reverse_mode, triton_obstacle

Ints: TypeAlias = int | Sequence[int]
Bools: TypeAlias = bool | Sequence[bool]

MAX_CUDA_HEAD_DIM = 256


def _limits(query: Tensor) -> str | None:
    if query.dtype == torch.float64:
        return "the GPU kernels compute in float32, float64 needs the reference"
    if query.shape[-1] > MAX_CUDA_HEAD_DIM:
        return f"the GPU kernels take at most D = {MAX_CUDA_HEAD_DIM}, got {query.shape[-1]}"
    return None


def _cpu(query: Tensor) -> str | None:
    if query.device.type not in ("cpu", "meta"):
        return f"the tensors are on {query.device}"
    return None if _load.has("_C") else _load.reason("_C")


def _cuda(query: Tensor) -> str | None:
    return cuda_obstacle(query) or _limits(query)


def _triton(query: Tensor) -> str | None:
    return triton_obstacle("neighborhood_attention", query) or _limits(query)


offer("neighborhood_attention", cpu=_cpu, cuda=_cuda, triton=_triton)


@overload
def neighborhood_attention(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: Ints, *, stride: Ints = ...,
    dilation: Ints = ..., is_causal: Bools = ..., scale: float | None = ...,
    bias: Tensor | None = ..., additional_keys: Tensor | None = ...,
    additional_values: Tensor | None = ..., clamp: bool = ...,
    return_lse: Literal[False] = ..., backend: str = ...,
) -> Tensor: ...  # fmt: skip


@overload
def neighborhood_attention(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: Ints, *, stride: Ints = ...,
    dilation: Ints = ..., is_causal: Bools = ..., scale: float | None = ...,
    bias: Tensor | None = ..., additional_keys: Tensor | None = ...,
    additional_values: Tensor | None = ..., clamp: bool = ...,
    return_lse: bool, backend: str = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools = False,
    scale: float | None = None,
    bias: Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    clamp: bool = False,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Softmax attention of every token to the window of keys around it, in 1, 2 or 3 dimensions.

    .. math:: \ell_{ij} = s\, q_i \cdot k_j + b_{j - i}, \quad
              L_i = \log \sum_{j \in \rho(i)} e^{\ell_{ij}}, \quad
              o_i = \sum_{j \in \rho(i)} e^{\ell_{ij} - L_i} v_j

    The window :math:`\rho(i)` is the product of one window per axis. At a border it shifts inwards
    and keeps exactly K keys; on a causal axis it ends at the query and early tokens see fewer.
    Dilation d splits an axis into d interleaved groups, and a query sees keys of its own group;
    stride s lets s neighbouring queries of a group share one window. Stride 1 is neighborhood
    attention, stride = kernel_size is window attention, and a window as long as every axis is self
    attention.

    Args:
        query: [B, X, h, D], [B, X, Y, h, D] or [B, X, Y, Z, h, D] in float64, float32, float16 or
            bfloat16, any strides.
        key: the shape of query, or with fewer heads h_kv that divide h: consecutive query heads
            share one.
        value: the shape of key.
        kernel_size: K >= 1, an int or one per axis; kernel_size * dilation is at most the length of
            the axis.
        stride: 1 <= stride <= kernel_size, an int or one per axis. Default 1.
        dilation: >= 1, an int or one per axis. Default 1.
        is_causal: a bool or one per axis. Default False.
        scale: s, any finite number, 0 included; None: D ** -0.5.
        bias: [h, 2*K0 - 1, ...], one axis per spatial axis, added by key minus query in steps of
            the dilation, plus K - 1.
        additional_keys: [B, S, h_kv, D], keys that every query sees in the same softmax, without
            bias.
        additional_values: [B, S, h_kv, D], given together with additional_keys.
        clamp: shrink a window that does not fit its axis of length L: K = min(K, L), then d =
            min(d, L // K) and s = min(s, K). The bias keeps the size of the original K, its centre
            is used. Default False: such a window is an error.
        return_lse: also return the log-sum-exp L. Default False.
        backend: "auto" takes the fastest rung that can run (:func:`saccade.ops.explain` says which
            and why); "cpu", "cuda", "triton" and "reference" are taken or refused, never replaced.

    Returns:
        out with the shape and type of query; with return_lse also lse [B, *dims, h], natural
        logarithm, additional keys included, in float32 (float64 for float64). Both are
        differentiable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or sizes do not fit together.
        NotImplementedError: sparse and nested tensors; forward-mode derivatives with a forced
            backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: 4 B N h D W flops for N tokens and windows of W keys; the backward pass recomputes and
        costs 3.5 times that. Compiled rungs hold no [N, W] tensor: their memory is inputs, outputs
        and gradients. The reference gathers the windows, O(B N W h D).

        Deterministic, backward included; on the CPU the bits do not depend on the number of
        threads. Half types are computed in float32 and rounded once. Under autocast every input but
        float64 is cast to the autocast type; lse stays float32.

        Double backward recomputes the reference formula, with its memory, and only where
        create_graph=True asks for it. Forward-mode derivatives (torch.func.jvp) run on the
        reference. vmap folds the mapped axis into the heads. torch.compile traces one graph; batch
        and lengths may be dynamic, the window is static.

    Source:
        NAT, arXiv 2204.07143, equations 1 to 3; DiNAT, arXiv 2209.15001, section 3; generalized
        neighborhood attention (stride, causal, even windows), arXiv 2504.16922, section 3.

    >>> import torch
    >>> x = torch.randn(1, 14, 14, 2, 16)
    >>> out, lse = neighborhood_attention(x, x, x, kernel_size=7, dilation=2, return_lse=True)
    >>> out.shape, lse.shape
    (torch.Size([1, 14, 14, 2, 16]), torch.Size([1, 14, 14, 2]))
    """
    tensors: tuple[Any, ...] = (query, key, value, bias, additional_keys, additional_values)
    if isinstance(query, Tensor):
        tensors = autocast(query.device.type, tensors)
    query, key, value, bias, additional_keys, additional_values = tensors
    _arguments.attention_tensors(query, key, value)
    dims = query.shape[1:-2]
    axes = len(dims)
    kernel = _checks.positive_ints("kernel_size", kernel_size, axes)
    steps = _checks.positive_ints("stride", stride, axes)
    gaps = _checks.positive_ints("dilation", dilation, axes)
    causal = tuple(int(flag) for flag in _checks.bools("is_causal", is_causal, axes))
    scale = query.shape[-1] ** -0.5 if scale is None else _checks.finite_number("scale", scale)
    if bias is not None:
        _arguments.bias_tensor(bias, query, kernel)
    if additional_keys is not None or additional_values is not None:
        _arguments.additional_tensors(additional_keys, additional_values, key)
    if clamp:
        kernel, steps, gaps, bias = _arguments.shrink(dims, kernel, steps, gaps, bias)
    _arguments.window_fits(dims, kernel, steps, gaps)

    rung = select_reverse_mode("neighborhood_attention", backend, query)
    tensors = (query, key, value, bias, additional_keys, additional_values)
    # there is nothing to launch on an empty batch
    if rung == "reference" or query.shape[0] == 0:
        out, lse = reference.neighborhood_attention(
            *tensors[:3], kernel, steps, gaps, causal, scale, *tensors[3:]
        )
    elif wanted(*tensors):
        if torch.compiler.is_dynamo_compiling():
            # Dynamo refuses one tensor in two places, and query may be key
            tensors = tuple(None if t is None else t.view_as(t) for t in tensors)
        out, lse = Attention.apply(*tensors, kernel, steps, gaps, causal, scale, rung)
    else:
        out, lse = call(rung, *tensors, kernel, steps, gaps, causal, scale)
    return (out, lse) if return_lse else out


def merge_attentions(outputs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    r"""Join attentions over disjoint sets of keys into the attention over all of them.

    .. math:: L = \log \sum_m e^{L_m}, \quad o = \sum_m e^{L_m - L} o_m

    Args:
        outputs: at least one tensor [..., h, D], all of one shape and type.
        lses: as many log-sum-exps [..., h].

    Returns:
        out [..., h, D] in the type of the outputs and lse [..., h] in float32 (float64 for
        float64).

    Raises:
        TypeError: not sequences of floating tensors.
        ValueError: numbers, shapes, types or devices differ.

    Notes:
        Plain torch, differentiable, deterministic; the work is one pass over the outputs.

    Source:
        Online softmax, arXiv 1805.02867, section 3; as in generalized neighborhood attention, arXiv
        2504.16922.

    >>> import torch
    >>> o, l = torch.zeros(1, 4, 2, 8), torch.zeros(1, 4, 2)
    >>> merge_attentions([o, o + 1], [l, l])[0].unique()
    tensor([0.5000])
    """
    for name, given in (("outputs", outputs), ("lses", lses)):
        if not isinstance(given, (list, tuple)):
            raise TypeError(
                f"{name} must be a list or tuple of tensors, got {type(given).__name__}."
            )
    if not outputs or len(outputs) != len(lses):
        raise ValueError(
            "outputs and lses must be equally many and at least 1, "
            f"got {len(outputs)} and {len(lses)}."
        )
    first = outputs[0]
    for i, (out, lse) in enumerate(zip(outputs, lses, strict=True)):
        _checks.floating_tensor(f"outputs[{i}]", out)
        _checks.floating_tensor(f"lses[{i}]", lse)
        _checks.like(f"outputs[{i}]", out, "outputs[0]", first)
        _checks.like(f"lses[{i}]", lse, "lses[0]", lses[0])
        _checks.shape(f"outputs[{i}]", out, first.shape, "that of outputs[0]")
        _checks.shape(f"lses[{i}]", lse, first.shape[:-1], "[..., h] of outputs[0]")
    dtype = accumulation_dtype(first.dtype)
    parts = torch.stack([lse.to(dtype) for lse in lses])
    joint = parts.logsumexp(0)
    weights = (parts - joint).exp().unsqueeze(-1)
    merged = (weights * torch.stack([out.to(dtype) for out in outputs])).sum(0)
    return merged.to(first.dtype), joint
