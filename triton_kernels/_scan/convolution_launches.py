"""From tensors to launches of the causal convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._scan.convolution import (
    convolve,
    differentiate_filter,
    differentiate_signal,
)
from saccade.triton_kernels._scan.layout import contiguous, empty_like, sequences, signal

# A tile: long along the axis that is contiguous.
_SHORT, _LONG = 8, 128


@dataclass(frozen=True)
class Inputs:
    """The inputs of `causal_conv1d_forward`, in the order of its schema."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_states: Tensor | None
    seq_idx: Tensor | None
    silu: bool


def _common(inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Arguments and constants that kernels share, and the steps of a tile."""
    channels_last = inputs.x.stride(1) == 1 and inputs.x.stride(2) != 1
    channels, steps = (_LONG, _SHORT) if channels_last else (_SHORT, _LONG)
    channels = min(channels, triton.next_power_of_2(inputs.x.shape[1]))
    arguments = {
        "weight": contiguous(inputs.weight),
        "seq": sequences(inputs.seq_idx),
        "length": inputs.x.shape[2],
        "channels": inputs.x.shape[1],
    }
    constants = {"W": inputs.weight.shape[1], "CHANNELS": channels, "STEPS": steps}
    return arguments, constants, steps


def _signals(inputs: Inputs) -> dict[str, Any]:
    initial = inputs.initial_states
    if initial is not None and initial.shape[-1] == 0:
        initial = None
    return {
        "x": signal(inputs.x, "bdl"),
        "bias": contiguous(inputs.bias),
        "initial": None if initial is None else signal(initial, "bdl"),
    }


def _programs(inputs: Inputs, constants: dict[str, Any], length: int) -> int:
    batch, channels, _ = inputs.x.shape
    blocks = triton.cdiv(channels, constants["CHANNELS"])
    return int(batch * blocks * triton.cdiv(length, constants["STEPS"]))


def forward_launch(inputs: Inputs) -> tuple[Launch, Tensor]:
    """The launch of the forward with the tensor that it fills."""
    out = empty_like(inputs.x)
    arguments, constants, _ = _common(inputs)
    launch = Launch(
        convolve,
        _programs(inputs, constants, inputs.x.shape[2]),
        {**arguments, **_signals(inputs), "out": signal(out, "bdl")},
        {**constants, "SILU": bool(inputs.silu)},
        num_warps=4,
        num_stages=1,
    )
    return launch, out


@dataclass(frozen=True)
class Gradients:
    """What the backward fills: the filter's as a table of slots."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_states: Tensor | None

    def collect(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Add the slots up; to be called after the launches."""
        none = self.x.new_empty([0])
        return (
            self.x,
            self.weight.sum(0),
            none if self.bias is None else self.bias.sum(0),
            none if self.initial_states is None else self.initial_states,
        )


def backward_launches(inputs: Inputs, grad_out: Tensor) -> tuple[list[Launch], Gradients]:
    """The launches of the backward in their order, with the tensors that they fill."""
    batch, channels, length = inputs.x.shape
    width = inputs.weight.shape[1]
    arguments, constants, steps = _common(inputs)
    slots = batch * triton.cdiv(length, steps)
    single = {"dtype": torch.float32}
    initial = inputs.initial_states
    gradients = Gradients(
        x=empty_like(inputs.x),
        weight=inputs.x.new_empty([slots, channels, width], **single),
        bias=None if inputs.bias is None else inputs.x.new_empty([slots, channels], **single),
        initial_states=None if initial is None else initial.new_empty(initial.shape),
    )
    grad_sum = signal(torch.empty_like(gradients.x, **single), "bdl")
    of_filter = Launch(
        differentiate_filter,
        _programs(inputs, constants, length),
        {
            **arguments,
            **_signals(inputs),
            "grad_out": signal(grad_out, "bdl"),
            "grad_sum": grad_sum,
            "grad_weight": gradients.weight,
            "grad_bias": gradients.bias,
        },
        {**constants, "SILU": bool(inputs.silu)},
        num_warps=4,
        num_stages=1,
    )
    has_past = initial is not None and width > 1
    first = 1 - width if has_past else 0
    of_signal = Launch(
        differentiate_signal,
        _programs(inputs, constants, length - first),
        {
            **arguments,
            "grad_sum": grad_sum,
            "grad_x": signal(gradients.x, "bdl"),
            "grad_initial": signal(gradients.initial_states, "bdl")
            if has_past and gradients.initial_states is not None
            else None,
        },
        {**constants, "FIRST": first},
        num_warps=4,
        num_stages=1,
    )
    return [of_filter, of_signal], gradients
