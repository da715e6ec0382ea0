"""From tensors to launches of the state space dual scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._scan.layout import Strided, contiguous, sequences, strided
from saccade.triton_kernels._scan.ssd import ssd_backward, ssd_forward

# The chunk of an inference, which saves no states.
CHUNK = 64
CHUNKS = (16, 32, 64)
# Channels of a program.
_WIDTH = 64


@dataclass(frozen=True)
class Inputs:
    """The inputs of `ssd_scan_forward`, in the order of its schema."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    initial_states: Tensor | None
    seq_idx: Tensor | None
    dt_softplus: bool
    dt_min: float
    dt_max: float

    @property
    def state_shape(self) -> tuple[int, ...]:
        """[B, H, P, N]."""
        return (self.x.shape[0], *self.x.shape[2:], self.B.shape[-1])


def _rows(tensor: Tensor) -> Strided:
    """Batch, row, step and column of [B, L, rows, columns], or of [B, L, rows]."""
    return strided(tensor, "blrc" if tensor.dim() == 4 else "blr", "brlc")


def _width(inputs: Inputs) -> int:
    return int(min(_WIDTH, max(16, triton.next_power_of_2(inputs.x.shape[3]))))


def _blocks(inputs: Inputs) -> int:
    return int(triton.cdiv(inputs.x.shape[3], _width(inputs)))


def _programs(inputs: Inputs) -> int:
    return int(inputs.x.shape[0] * inputs.x.shape[2] * _blocks(inputs))


def _common(inputs: Inputs, chunk: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments and constants of both kernels."""
    heads, states = inputs.x.shape[2], inputs.B.shape[3]
    half = inputs.x.dtype != torch.float32
    arguments = {
        "x": _rows(inputs.x),
        "dt": _rows(inputs.dt),
        "A": contiguous(inputs.A),
        "b": _rows(inputs.B),
        "c": _rows(inputs.C),
        "D": contiguous(inputs.D),
        "z": None if inputs.z is None else _rows(inputs.z),
        "bias": contiguous(inputs.dt_bias),
        "seq": sequences(inputs.seq_idx),
        "length": inputs.x.shape[1],
        "heads": heads,
        "heads_of_group": heads // inputs.B.shape[2],
        "blocks": _blocks(inputs),
        "dt_min": float(inputs.dt_min),
        "dt_max": float(inputs.dt_max),
    }
    constants = {
        "SOFTPLUS": bool(inputs.dt_softplus),
        "P": inputs.x.shape[3],
        "N": states,
        "WIDTH": _width(inputs),
        "STATES": max(16, triton.next_power_of_2(states)),
        "Q": chunk or CHUNK,
        "PRECISION": "tf32" if half else "ieee",
    }
    return arguments, constants


def forward_launch(inputs: Inputs, chunk: int) -> tuple[Launch, tuple[Tensor, Tensor, Tensor]]:
    """The launch of the forward with the tensors that it fills."""
    batch, length = inputs.x.shape[:2]
    single = {"dtype": torch.float32}
    out = inputs.x.new_empty(inputs.x.shape)
    last = inputs.x.new_empty(inputs.state_shape, **single)
    times = triton.cdiv(length, chunk) if chunk else 0
    saved = inputs.x.new_empty([batch, times, *inputs.state_shape[1:]], **single)
    arguments, constants = _common(inputs, chunk)
    launch = Launch(
        ssd_forward,
        _programs(inputs),
        {
            **arguments,
            "initial": contiguous(inputs.initial_states),
            "out": out,
            "last": last,
            "checkpoints": saved,
        },
        {**constants, "SAVE": bool(chunk)},
        num_warps=8,
        num_stages=1,
    )
    return launch, (out, last, saved)


@dataclass(frozen=True)
class Gradients:
    """What the backward fills: finished tensors, and tables whose first axes are summed."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    initial_states: Tensor | None

    def collect(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Add the tables up; to be called after the launch."""
        none = inputs.x.new_empty([0])
        return (
            self.x,
            self.dt.sum(0).to(inputs.dt.dtype),
            self.A.sum((0, 1)),
            self.B.sum(0).to(inputs.B.dtype),
            self.C.sum(0).to(inputs.C.dtype),
            none if self.D is None else self.D.sum(0),
            none if self.z is None else self.z,
            none if self.dt_bias is None else self.dt_bias.sum((0, 1)),
            none if self.initial_states is None else self.initial_states,
        )


def backward_launch(
    inputs: Inputs, grad_out: Tensor, grad_last: Tensor, checkpoints: Tensor, chunk: int
) -> tuple[Launch, Gradients]:
    """The launch of the backward with the tensors that it fills."""
    batch, length, heads, _ = inputs.x.shape
    groups, states = inputs.B.shape[2:]
    blocks = _blocks(inputs)

    def table(*shape: int) -> Tensor:
        return inputs.x.new_empty(shape, dtype=torch.float32)

    of_inputs = (blocks * (heads // groups), batch, length, groups, states)
    gradients = Gradients(
        x=inputs.x.new_empty(inputs.x.shape),
        dt=table(blocks, batch, length, heads),
        A=table(blocks, batch, heads),
        B=table(*of_inputs),
        C=table(*of_inputs),
        D=None if inputs.D is None else table(batch, *inputs.x.shape[2:]),
        z=None if inputs.z is None else inputs.z.new_empty(inputs.z.shape),
        dt_bias=None if inputs.dt_bias is None else table(blocks, batch, heads),
        initial_states=None if inputs.initial_states is None else table(*inputs.state_shape),
    )
    arguments, constants = _common(inputs, chunk)
    launch = Launch(
        ssd_backward,
        _programs(inputs),
        {
            **arguments,
            "grad_out": _rows(grad_out),
            "grad_last": contiguous(grad_last),
            "checkpoints": contiguous(checkpoints),
            "grad_x": gradients.x,
            "grad_dt": gradients.dt,
            "grad_A": gradients.A,
            "grad_b": gradients.B,
            "grad_c": gradients.C,
            "grad_D": gradients.D,
            "grad_z": gradients.z,
            "grad_bias": gradients.dt_bias,
            "grad_initial": gradients.initial_states,
            "batches": batch,
        },
        constants,
        num_warps=8,
        num_stages=1,
    )
    return launch, gradients
