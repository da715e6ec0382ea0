"""From tensors to launches of the state space dual scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._scan.layout import Strided, contiguous, sequences, strided
from saccade.triton_kernels._scan.ssd import (
    differentiate_decays,
    differentiate_inputs,
    differentiate_signals,
    differentiate_steps,
    ssd_adjoint,
    ssd_outputs,
    ssd_states,
    ssd_steps,
)

# The chunk of an inference, which saves no states.
CHUNK = 64
CHUNKS = (16, 32, 64)
# Channels of a program, and of one that sums gradients of B and C, by the bytes of an element:
# as many as fit into registers.
_WIDTH = {2: 64, 4: 32}
_WIDTH_OF_SUMS = {2: 64, 4: 16}
# Bytes of the states that a program multiplies by at a time, in the type of x.
_TILE_BYTES = 128
# Programs that keep any device of today busy, and the same on all.
_PROGRAMS = 512


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
    # offsets within a chunk take 32 bits
    if max(abs(stride) for stride in tensor.stride()) * 2 * CHUNK >= 2**31:
        tensor = tensor.contiguous()
    return strided(tensor, "blrc" if tensor.dim() == 4 else "blr", "brlc")


def _width(inputs: Inputs, widths: dict[int, int] = _WIDTH) -> int:
    most = widths[inputs.x.element_size()]
    return int(min(most, max(16, triton.next_power_of_2(inputs.x.shape[3]))))


def _blocks(inputs: Inputs, widths: dict[int, int] = _WIDTH) -> int:
    return int(triton.cdiv(inputs.x.shape[3], _width(inputs, widths)))


def _launch(
    kernel: Any, grid: int, arguments: dict[str, Any], constants: dict[str, Any], warps: int = 8
) -> Launch:
    """A launch with those of the arguments and constants that the kernel knows."""
    names = {parameter.name for parameter in kernel.params} if hasattr(kernel, "params") else None
    names = names or set(kernel.arg_names)
    return Launch(
        kernel,
        grid,
        {name: value for name, value in arguments.items() if name in names},
        {name: value for name, value in constants.items() if name in names},
        num_warps=warps,
        num_stages=1,
    )


@dataclass(frozen=True)
class _Plan:
    """Arguments and constants of all kernels of a call."""

    arguments: dict[str, Any]
    constants: dict[str, Any]
    chunks: int
    programs: int
    state_tiles: int

    def launch(self, kernel: Any, grid: int, warps: int = 8, **more: Any) -> Launch:
        return _launch(kernel, grid, {**self.arguments, **more}, self.constants, warps)


def _plan(inputs: Inputs, chunk: int) -> tuple[_Plan, Launch]:
    """The plan, and the launch that computes the decays."""
    batch, length, heads, width = inputs.x.shape
    states = inputs.B.shape[3]
    chunks = int(triton.cdiv(length, chunk))
    table = inputs.x.new_empty([3, batch, heads, chunks, chunk], dtype=torch.float32)
    numbers = None
    if inputs.seq_idx is not None:
        numbers = table.new_empty(table.shape[1:], dtype=torch.int32)
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
        "sizes": table[0],
        "high": table[1],
        "low": table[2],
        "numbers": numbers,
        "length": length,
        "heads": heads,
        "heads_of_group": heads // inputs.B.shape[2],
        "groups": inputs.B.shape[2],
        "blocks": _blocks(inputs),
        "batches": batch,
        "dt_min": float(inputs.dt_min),
        "dt_max": float(inputs.dt_max),
    }
    constants = {
        "SOFTPLUS": bool(inputs.dt_softplus),
        "P": width,
        "N": states,
        "WIDTH": _width(inputs),
        "STATES_TILE": min(
            _TILE_BYTES // inputs.x.element_size(), max(16, triton.next_power_of_2(states))
        ),
        "Q": chunk,
        "PRECISION": "tf32" if inputs.x.dtype != torch.float32 else "tf32x3",
    }
    programs = batch * heads * _blocks(inputs)
    state_tiles = int(triton.cdiv(states, constants["STATES_TILE"]))
    plan = _Plan(arguments, constants, chunks, programs, state_tiles)
    return plan, plan.launch(ssd_steps, batch * heads * chunks, warps=2)


def forward_launches(
    inputs: Inputs, chunk: int
) -> tuple[list[Launch], tuple[Tensor, Tensor, Tensor]]:
    """The launches of the forward in their order, with the tensors that they fill."""
    plan, steps = _plan(inputs, chunk or CHUNK)
    single = {"dtype": torch.float32}
    out = inputs.x.new_empty(inputs.x.shape)
    last = inputs.x.new_empty(inputs.state_shape, **single)
    shape = [inputs.x.shape[0], plan.chunks + 1, *inputs.state_shape[1:]]
    saved = inputs.x.new_empty(shape, **single)
    states = plan.launch(
        ssd_states,
        plan.programs * plan.state_tiles,
        initial=contiguous(inputs.initial_states),
        last=last,
        checkpoints=saved,
    )
    outputs = plan.launch(ssd_outputs, plan.programs * plan.chunks, out=out, checkpoints=saved)
    kept = saved if chunk else saved.new_empty([saved.shape[0], 0, *saved.shape[2:]])
    return [steps, states, outputs], (out, last, kept)


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
        """Add the tables up; to be called after the launches."""
        none = inputs.x.new_empty([0])
        return (
            self.x,
            self.dt,
            self.A.sum((0, 1, 2)),
            self.B.sum(0).to(inputs.B.dtype),
            self.C.sum(0).to(inputs.C.dtype),
            none if self.D is None else self.D.sum((0, 1)),
            none if self.z is None else self.z,
            none if self.dt_bias is None else self.dt_bias.sum((0, 1)),
            none if self.initial_states is None else self.initial_states,
        )


def backward_launches(
    inputs: Inputs, grad_out: Tensor, grad_last: Tensor, checkpoints: Tensor, chunk: int
) -> tuple[list[Launch], Gradients]:
    """The launches of the backward in their order, with the tensors that they fill."""
    batch, length, heads, width = inputs.x.shape
    groups, states = inputs.B.shape[2:]
    plan, steps = _plan(inputs, chunk)
    blocks, blocks_of_sums = _blocks(inputs), _blocks(inputs, _WIDTH_OF_SUMS)
    parts, sites = blocks_of_sums * (heads // groups), batch * groups * plan.chunks
    parts_a_program = int(triton.cdiv(parts, min(parts, triton.cdiv(_PROGRAMS, sites))))
    slots = int(triton.cdiv(parts, parts_a_program))

    def table(*shape: int) -> Tensor:
        return inputs.x.new_empty(shape, dtype=torch.float32)

    gradients = Gradients(
        x=inputs.x.new_empty(inputs.x.shape),
        dt=inputs.dt.new_empty(inputs.dt.shape),
        A=table(blocks + 1, batch, plan.chunks, heads),
        B=table(slots, batch, length, groups, states),
        C=table(slots, batch, length, groups, states),
        D=None if inputs.D is None else table(batch, plan.chunks, heads, width),
        z=None if inputs.z is None else inputs.z.new_empty(inputs.z.shape),
        dt_bias=None if inputs.dt_bias is None else table(batch, length, heads),
        initial_states=None if inputs.initial_states is None else table(*inputs.state_shape),
    )
    shared = {
        "grad_out": _rows(grad_out),
        "checkpoints": contiguous(checkpoints),
        "flows": torch.empty_like(checkpoints, memory_format=torch.contiguous_format),
        "grad_sizes": table(blocks + 1, batch, length, heads),
    }
    adjoint = plan.launch(
        ssd_adjoint,
        plan.programs * plan.state_tiles,
        **shared,
        grad_last=contiguous(grad_last),
        grad_initial=gradients.initial_states,
    )
    of_signals = plan.launch(
        differentiate_signals,
        plan.programs * plan.chunks,
        **shared,
        grad_x=gradients.x,
        grad_A=gradients.A,
        grad_D=gradients.D,
        grad_z=gradients.z,
    )
    of_decays = plan.launch(
        differentiate_decays,
        batch * heads * plan.chunks,
        **shared,
        grad_A=gradients.A,
    )
    of_inputs = plan.launch(
        differentiate_inputs,
        sites * slots * plan.state_tiles,
        **shared,
        grad_b=gradients.B,
        grad_c=gradients.C,
        parts_a_program=parts_a_program,
        blocks=blocks_of_sums,
    )
    of_inputs.constants["WIDTH"] = _width(inputs, _WIDTH_OF_SUMS)
    of_steps = plan.launch(
        differentiate_steps,
        batch * heads * plan.chunks,
        warps=2,
        **shared,
        grad_dt=gradients.dt,
        grad_pre=gradients.dt_bias,
    )
    return [steps, adjoint, of_signals, of_decays, of_inputs, of_steps], gradients
