"""The causal depthwise convolution in front of a selective scan, and its single step."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.ops import _checks
from saccade.ops import _scan_checks as _arguments
from saccade.ops._autocast import autocast
from saccade.ops._scan_op import computation_dtype, run
from saccade.ops.scan import choose_rung

MAX_WIDTH = 16


@overload
def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = ..., *, activation: str | None = ...,
    seq_idx: Tensor | None = ..., initial_states: Tensor | None = ...,
    return_final_states: Literal[False] = ..., backend: str = ...,
) -> Tensor: ...  # fmt: skip


@overload
def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = ..., *, activation: str | None = ...,
    seq_idx: Tensor | None = ..., initial_states: Tensor | None = ...,
    return_final_states: bool = ..., backend: str = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Convolve every channel with a short filter that looks at the present and the past.

    .. math:: y_t = \phi\Big(b + \sum_{w=0}^{W-1} k_w\, x_{t - W + 1 + w}\Big)

    Before the start stand the initial states, or zeros.

    Args:
        x: [B, D, L] in float64, float32, float16 or bfloat16, any strides; channels-last memory is
            as fast.
        weight: [D, W], 1 <= W <= 16.
        bias: [D]. Default none.
        activation: None, "silu" or "swish" (the same). Default None.
        seq_idx: [B, L] integers: inputs of another number than the output's count as zero, so that
            several sequences share one row. Not together with initial_states. Default: one
            sequence.
        initial_states: [B, D, W - 1] in the type of x. Default zeros.
        return_final_states: also return the last W - 1 inputs, the initial states for what follows.
            Default False.
        backend: "auto" takes the fastest rung that can run (:func:`saccade.ops.explain` says which
            and why); "cpu", "cuda", "triton" and "reference" are taken or refused, never replaced.

    Returns:
        [B, D, L] with the type and memory layout (channels first or last) of x; with
        return_final_states also final_states [B, D, W - 1] in the type of x, with zeros for inputs
        of another sequence than the last. Both are differentiable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or options do not fit together.
        NotImplementedError: sparse and nested tensors; forward-mode derivatives with a forced
            backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: one pass over x and out, 2 B D L W flops; the backward pass reads x and the gradient
        once and recomputes what stands before the activation. Deterministic, backward included; on
        the CPU the bits do not depend on the number of threads. Half types are computed in float32
        and rounded once; weight and bias may have any floating type and are used in float32
        (float64 for float64). Autocast casts x and initial_states. Double backward recomputes the
        reference formula. vmap folds the mapped axis into the channels.

    Source:
        Mamba, arXiv 2312.00752, section 3.4 and figure 3.

    >>> import torch
    >>> x = torch.ones(1, 2, 5)
    >>> causal_conv1d(x, torch.ones(2, 3))[0, 0]
    tensor([1., 2., 3., 3., 3.])
    """
    signals: tuple[Any, ...] = (x, initial_states)
    if isinstance(x, Tensor):
        signals = autocast(x.device.type, signals)
    x, initial_states = signals
    silu = _arguments.activation(activation)
    _checks.floating_tensor("x", x)
    _arguments.rank("x", x, (3,), "[B, D, L]")
    batch, channels, length = x.shape
    weight, bias, width = _filter(x, weight, bias)
    if initial_states is not None:
        if seq_idx is not None:
            raise ValueError("seq_idx and initial_states cannot be given together.")
        _arguments.signal("initial_states", initial_states, "x", x)
        _checks.shape(
            "initial_states", initial_states, (batch, channels, width - 1), "[B, D, W - 1]"
        )
    if seq_idx is not None:
        seq_idx = _arguments.seq_idx(seq_idx, "x", x, (batch, length))

    rung = choose_rung("causal_conv1d", backend, x)
    out: Tensor = run("causal_conv1d", rung, (x, weight, bias, initial_states, seq_idx), silu)
    if not return_final_states:
        return out
    return out, _final_states(x, width - 1, initial_states, seq_idx)


def _filter(x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, Tensor | None, int]:
    """Weight and bias in the type of computation, and W."""
    _checks.floating_tensor("weight", weight)
    _arguments.rank("weight", weight, (2,), "[D, W]")
    channels, width = x.shape[1], weight.shape[1]
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"the width W of weight must be between 1 and {MAX_WIDTH}, got {width}.")
    weight = _arguments.parameter("weight", weight, "x", x, (channels, width), "[D, W]")
    if bias is not None:
        bias = _arguments.parameter("bias", bias, "x", x, (channels,), "[D]")
    return weight, bias, width


def _final_states(
    x: Tensor, count: int, initial_states: Tensor | None, seq_idx: Tensor | None
) -> Tensor:
    length = x.shape[-1]
    tail = x[..., max(length - count, 0) :]
    if seq_idx is not None and length > 0:
        same = seq_idx[:, None, max(length - count, 0) :] == seq_idx[:, None, -1:]
        tail = torch.where(same, tail, torch.zeros_like(tail))
    if length >= count:
        return tail.clone(memory_format=torch.contiguous_format)
    if initial_states is None:
        return F.pad(tail, (count - length, 0))
    return torch.cat([initial_states[..., length:], tail], -1)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    r"""Take the next steps of a causal convolution and remember the inputs for the steps after.

    .. math:: y_t = \phi\Big(b + \sum_{w=0}^{W-1} k_w\, x_{t - W + 1 + w}\Big)

    Args:
        x: [B, D] for one step or [B, D, S] for S steps.
        conv_state: [B, D, M] with M >= W - 1 in the type of x: the last inputs, the latest at the
            end. It is changed in place.
        weight: [D, W], 1 <= W <= 16.
        bias: [D]. Default none.
        activation: None, "silu" or "swish". Default None.
        cache_seqlens: [B] integers, inputs seen so far: conv_state is then a ring in which input i
            stands at i modulo M. Default None: the inputs are shifted.

    Returns:
        The shape and type of x.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types or devices do not fit together.

    Notes:
        For inference: x and weight get gradients, conv_state has none. Plain torch on every device,
        B D (S + M) memory traffic.

    Source:
        Mamba, arXiv 2312.00752, section 3.4 and figure 3.

    >>> import torch
    >>> state = torch.zeros(1, 2, 2)
    >>> for _ in range(3):
    ...     out = causal_conv1d_update(torch.ones(1, 2), state, torch.ones(2, 3))
    >>> out
    tensor([[3., 3.]])
    """
    silu = _arguments.activation(activation)
    _checks.floating_tensor("x", x)
    _arguments.rank("x", x, (2, 3), "[B, D] or [B, D, S]")
    weight, bias, width = _filter(x, weight, bias)
    _arguments.signal("conv_state", conv_state, "x", x)
    _arguments.rank("conv_state", conv_state, (3,), "[B, D, M]")
    size = conv_state.shape[-1]
    if size < width - 1:
        raise ValueError(f"conv_state must hold at least W - 1 = {width - 1} inputs, got {size}.")
    _checks.shape("conv_state", conv_state, (*x.shape[:2], size), "[B, D, M]")
    steps = x.unsqueeze(-1) if x.dim() == 2 else x
    count = steps.shape[-1]
    past = conv_state.detach()
    if cache_seqlens is None:
        inputs = torch.cat([past, steps], -1)
        conv_state.copy_(inputs[..., inputs.shape[-1] - size :].detach())
        inputs = inputs[..., size - (width - 1) :]
    else:
        _check_cache_seqlens(cache_seqlens, x)
        position = cache_seqlens.long()[:, None] + torch.arange(1 - width, count, device=x.device)
        shape = (x.shape[0], x.shape[1], -1)
        before = (position[:, : width - 1] % max(size, 1))[:, None].expand(shape)
        # what a ring that has not been filled yet holds is not input
        there = (position[:, : width - 1] >= 0)[:, None]
        inputs = torch.where(there, past.gather(-1, before), torch.zeros_like(past[..., :1]))
        inputs = torch.cat([inputs, steps], -1)
        latest = min(count, size)
        slots = (position[:, position.shape[1] - latest :] % max(size, 1))[:, None].expand(shape)
        conv_state.scatter_(-1, slots, steps[..., count - latest :].detach())
    windows = inputs.to(computation_dtype(x.dtype)).unfold(-1, width, 1)
    out = (windows * weight[:, None]).sum(-1)
    if bias is not None:
        out = out + bias[:, None]
    out = (F.silu(out) if silu else out).to(x.dtype)
    return out.squeeze(-1) if x.dim() == 2 else out


def _check_cache_seqlens(tensor: Any, x: Tensor) -> None:
    if not isinstance(tensor, Tensor) or tensor.dtype not in (torch.int32, torch.int64):
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"cache_seqlens must be a tensor of int32 or int64, got {kind}.")
    if tensor.device != x.device:
        raise ValueError(
            f"cache_seqlens must be on the device of x, {x.device}, got {tensor.device}."
        )
    _checks.shape("cache_seqlens", tensor, x.shape[:1], "[B]")
