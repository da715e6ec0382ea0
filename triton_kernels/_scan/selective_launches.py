"""From tensors to launches of the selective scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._scan.layout import (
    coefficients,
    contiguous,
    empty_like,
    intervals,
    laid_out_like,
    sequences,
    signal,
)
from saccade.triton_kernels._scan.selective import scan_backward, scan_forward

STEPS = 16
# States of a step that a program works on: four warps of one each.
_STATES_OF_A_STEP = 128
# Programs that keep any device of today busy, and the same on all.
_PROGRAMS = 1024


@dataclass(frozen=True)
class Inputs:
    """The inputs of `selective_scan_forward`, in the order of its schema."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    seq_idx: Tensor | None
    delta_softplus: bool
    directions: Sequence[int]
    height: int

    @property
    def paths(self) -> int:
        return len(self.directions)

    @property
    def groups(self) -> int:
        return next((int(x.shape[2]) for x in (self.B, self.C) if x.dim() == 5), 1)

    @property
    def states(self) -> int:
        return int(self.A.shape[-1])

    @property
    def table_shape(self) -> tuple[int, ...]:
        """Of what has a value for every path: [K, B, D, L]."""
        return (self.paths, *self.u.shape)


@dataclass(frozen=True)
class _Tile:
    channels: int
    states: int
    count: int
    warps: int


def _tile(inputs: Inputs) -> _Tile:
    per_group = inputs.u.shape[1] // inputs.groups
    states = triton.next_power_of_2(inputs.states)
    channels = min(max(1, _STATES_OF_A_STEP // states), triton.next_power_of_2(per_group))
    # with few states every tile of signals is as large as one of states: more threads hold them
    warps = min(8, max(1, channels * states // (16 if states <= 2 else 32)))
    return _Tile(channels, states, triton.cdiv(per_group, channels), warps)


def _common(inputs: Inputs, tile: _Tile) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments and constants of both kernels."""
    arguments = {
        "u": signal(inputs.u, "bdl"),
        "delta": signal(inputs.delta, "bkdl"),
        "A": contiguous(inputs.A),
        "b": coefficients(inputs.B),
        "c": coefficients(inputs.C),
        "D": contiguous(inputs.D),
        "z": None if inputs.z is None else signal(inputs.z, "bdl"),
        "bias": contiguous(inputs.delta_bias),
        "seq": sequences(inputs.seq_idx),
        "length": inputs.u.shape[2],
        "height": inputs.height,
        "directions": sum(code << (2 * k) for k, code in enumerate(inputs.directions)),
        "paths": inputs.paths,
        "groups": inputs.groups,
        "tiles": tile.count,
        "channels_of_group": inputs.u.shape[1] // inputs.groups,
    }
    constants = {
        "SOFTPLUS": bool(inputs.delta_softplus),
        "CONSTANT_B": inputs.B.dim() == 3,
        "CONSTANT_C": inputs.C.dim() == 3,
        "N": inputs.states,
        "STATES": tile.states,
        "CHANNELS": tile.channels,
        "STEPS": STEPS,
    }
    return arguments, constants


@dataclass(frozen=True)
class Outputs:
    """What the forward fills."""

    out: Tensor
    last: Tensor
    checkpoints: Tensor

    def collect(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Add the paths up; to be called after the launch."""
        if inputs.paths == 1:
            return self.out, self.last, self.checkpoints
        total = self.out.sum(0)
        if inputs.z is not None:
            total = total * F.silu(inputs.z.float())
        return laid_out_like(total, inputs.u), self.last, self.checkpoints


def forward_launch(inputs: Inputs, chunk: int) -> tuple[Launch, Outputs]:
    """The launch of the forward with the tensors that it fills."""
    batch, channels, length = inputs.u.shape
    tile, several = _tile(inputs), inputs.paths > 1
    single = {"dtype": torch.float32}
    out = inputs.u.new_empty(inputs.table_shape, **single) if several else empty_like(inputs.u)
    last = inputs.u.new_empty([batch, inputs.paths, channels, inputs.states], **single)
    times = intervals(length, chunk)
    saved = last.new_empty([batch, inputs.paths, times, inputs.states, channels])
    arguments, constants = _common(inputs, tile)
    launch = Launch(
        scan_forward,
        batch * inputs.paths * inputs.groups * tile.count,
        {
            **arguments,
            "initial": contiguous(inputs.initial_state),
            "out": signal(out, "kbdl" if several else "bdl"),
            "last": last,
            "checkpoints": saved,
        },
        {**constants, "GATED": inputs.z is not None and not several, "SAVE": bool(chunk)},
        num_warps=tile.warps,
        num_stages=1,
    )
    return launch, Outputs(out, last, saved)


@dataclass(frozen=True)
class Gradients:
    """What the backward fills: finished tensors, and tables whose first axis is summed."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    y: Tensor | None

    def collect(self, inputs: Inputs, grad_out: Tensor) -> tuple[Tensor, ...]:
        """Add the tables up; to be called after the launch."""
        grad_u, grad_z = self.u, self.z
        if inputs.paths > 1:
            grad_u = laid_out_like(self.u.sum(0), inputs.u)
        if self.y is not None and inputs.z is not None:
            z = inputs.z.float()
            gate = z.sigmoid()
            slope = gate * (1 + z * (1 - gate))
            grad_z = laid_out_like(grad_out.float() * self.y.sum(0) * slope, inputs.z)
        none = inputs.u.new_empty([0])
        return (
            grad_u,
            self.delta,
            self.A.sum(0),
            self._input(self.B, inputs.B),
            self._input(self.C, inputs.C),
            none if self.D is None else self.D.sum(0),
            none if grad_z is None else grad_z,
            none if self.delta_bias is None else self.delta_bias.sum(0),
            none if self.initial_state is None else self.initial_state,
        )

    def _input(self, table: Tensor, given: Tensor) -> Tensor:
        total = table.sum(0)
        return total if given.dim() == 3 else laid_out_like(total.transpose(-1, -2), given)


def backward_launch(
    inputs: Inputs, grad_out: Tensor, grad_last: Tensor, checkpoints: Tensor
) -> tuple[Launch, Gradients]:
    """The launch of the backward with the tensors that it fills."""
    batch, channels, length = inputs.u.shape
    tile, several = _tile(inputs), inputs.paths > 1
    work = batch * inputs.paths * inputs.groups
    slots = min(tile.count, max(1, triton.cdiv(_PROGRAMS, work)))
    tiles_a_program = triton.cdiv(tile.count, slots)
    slots = triton.cdiv(tile.count, tiles_a_program)

    def table(*shape: int) -> Tensor:
        return inputs.u.new_empty(shape, dtype=torch.float32)

    def of_input(given: Tensor) -> Tensor:
        if given.dim() == 3:
            return table(batch, *given.shape)
        return table(slots, batch, inputs.paths, inputs.groups, length, inputs.states)

    row = (batch, inputs.paths, channels)
    gradients = Gradients(
        u=table(*inputs.table_shape) if several else empty_like(inputs.u),
        delta=empty_like(inputs.delta),
        A=table(*row, inputs.states),
        B=of_input(inputs.B),
        C=of_input(inputs.C),
        D=None if inputs.D is None else table(*row),
        z=None if inputs.z is None or several else empty_like(inputs.z),
        delta_bias=None if inputs.delta_bias is None else table(*row),
        initial_state=None if inputs.initial_state is None else table(*row, inputs.states),
        y=table(*inputs.table_shape) if several and inputs.z is not None else None,
    )
    arguments, constants = _common(inputs, tile)
    launch = Launch(
        scan_backward,
        work * slots,
        {
            **arguments,
            "grad_out": signal(grad_out, "bdl"),
            "grad_last": contiguous(grad_last),
            "checkpoints": contiguous(checkpoints),
            "grad_u": signal(gradients.u, "kbdl" if several else "bdl"),
            "grad_delta": signal(gradients.delta, "bkdl"),
            "grad_A": gradients.A,
            "grad_b": gradients.B,
            "grad_c": gradients.C,
            "grad_D": gradients.D,
            "grad_z": None if gradients.z is None else signal(gradients.z, "bdl"),
            "grad_bias": gradients.delta_bias,
            "grad_initial": gradients.initial_state,
            "outputs": None if gradients.y is None else signal(gradients.y, "kbdl"),
            "tiles_a_program": tiles_a_program,
            "batches": batch,
        },
        constants,
        num_warps=tile.warps,
        num_stages=1,
    )
    return launch, gradients
