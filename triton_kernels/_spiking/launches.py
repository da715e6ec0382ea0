"""The launches of a call, with the tensors that they fill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._spiking.backward import differentiate
from saccade.triton_kernels._spiking.forward import fire

BLOCK = 512
AHEAD = 4
SEGMENT = 8  # steps whose potentials a backward holds in registers
SLOTS = 2048  # shares of the rows; by sizes alone, so that sums have one order on every device
BYTES, BITS = 1, 2
WANTED = ("x", "v0", "tau", "v_threshold", "weight", "bias", "residual")
SUMS = ("tau", "v_threshold", "weight", "bias")


@dataclass(frozen=True)
class Neurons:
    """What forward and backward have in common; the fields are arguments of the schema."""

    x: Tensor
    v0: Tensor | None
    tau: Tensor | None
    v_threshold: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    tau_value: float
    v_threshold_value: float
    v_reset: float
    alpha: float
    charge: int
    hard_reset: bool
    detach_reset: bool
    surrogate: int

    @property
    def count(self) -> int:
        return math.prod(self.x.shape[1:])

    def arguments(self) -> dict[str, Any]:
        """Run-time arguments that every kernel takes."""
        x, residual = _in_steps(self.x), self.residual
        residual = None if residual is None else _in_steps(residual)
        dense = {
            "v0": self.v0,
            "tau": self.tau,
            "threshold": self.v_threshold,
            "weight": self.weight,
            "bias": self.bias,
        }
        return {
            **{name: None if t is None else t.contiguous() for name, t in dense.items()},
            "x": x,
            "residual": residual,
            "steps": x.shape[0],
            "channels": x.shape[2],
            "inner": x.shape[3],
            "x_step": x.stride(0),
            "residual_step": 0 if residual is None else residual.stride(0),
            "tau_number": float(self.tau_value),
            "threshold_number": float(self.v_threshold_value),
            "inverse": 1.0 / self.tau_value if self._has_exact_inverse() else 0.0,
            "v_reset": float(self.v_reset),
        }

    def constants(self) -> dict[str, Any]:
        """Compile-time constants that every kernel takes."""
        return {
            "CHARGE": self.charge,
            "HARD": self.hard_reset,
            "EXACT_INVERSE": self._has_exact_inverse(),
            "TAU_PER_CHANNEL": self.tau is not None and self.tau.numel() > 1,
            "THRESHOLD_PER_CHANNEL": self.v_threshold is not None and self.v_threshold.numel() > 1,
        }

    def _has_exact_inverse(self) -> bool:
        # a product with the inverse has the bits of the quotient where tau is a power of two
        return self.tau is None and math.frexp(self.tau_value)[0] == 0.5


def forward_launch(
    given: Neurons, store_v: bool, kind: int, row: int
) -> tuple[Launch, Tensor, Tensor, Tensor]:
    """The launch of the forward and spikes, v_last, v_seq."""
    x, steps, neurons = given.x, given.x.shape[0], given.count
    places = neurons
    if kind == BITS:
        rows, width = (neurons // row, triton.cdiv(row, 8)) if row > 0 else (0, 0)
        spikes = x.new_empty([steps, rows, width], dtype=torch.uint8)
        places = rows * width * 8
    else:
        spikes = x.new_empty(x.shape, dtype=torch.uint8 if kind == BYTES else x.dtype)
    v_last = x.new_empty(x.shape[1:], dtype=torch.float32)
    v_seq = x.new_empty(x.shape if store_v else [0], dtype=torch.float32)
    arguments = {
        **given.arguments(),
        "spikes": spikes,
        "v_last": v_last,
        "v_seq": v_seq if store_v else None,
        "neurons": neurons,
        "last": row if kind == BITS else 1,
    }
    constants = {**given.constants(), "KIND": kind, "AHEAD": AHEAD, "BLOCK": BLOCK}
    grid = triton.cdiv(places, BLOCK)
    return _launch(fire, grid, arguments, constants), spikes, v_last, v_seq


def backward_launch(
    given: Neurons,
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    grad_v_seq: Tensor | None,
    wanted: int,
) -> tuple[Launch, dict[str, Tensor], Tensor | None]:
    """The launch of the backward, the gradients that it writes and the partial sums of others."""
    x = given.x
    steps, rows = x.shape[:2]
    columns = x.shape[2] * x.shape[3]
    asked = {name for bit, name in enumerate(WANTED) if wanted >> bit & 1}
    sums = not asked.isdisjoint(SUMS)
    if not sums:
        # without sums every block of neurons is a program
        rows, columns = min(rows, 1), rows * columns
    block = min(BLOCK, max(16, triton.next_power_of_2(columns)))
    blocks = triton.cdiv(columns, block)
    share = max(1, triton.cdiv(rows, max(1, SLOTS // max(blocks, 1))))
    slots = triton.cdiv(rows, share)
    segment = min(SEGMENT, triton.next_power_of_2(max(steps, 1)))
    segments = max(1, triton.cdiv(steps, segment))

    def result(name: str, shape: Any, dtype: torch.dtype) -> Tensor | None:
        return x.new_empty(shape, dtype=dtype) if name in asked else None

    grads = {
        "x": result("x", x.shape, x.dtype),
        "v0": result("v0", x.shape[1:], torch.float32),
        "residual": result("residual", x.shape, x.dtype),
    }
    partial = x.new_empty([4, slots, columns], dtype=torch.float32) if sums else None
    of_spikes = None if grad_spikes is None else _in_steps(grad_spikes)
    arguments = {
        **given.arguments(),
        "grad_spikes": of_spikes,
        "grad_v_last": None if grad_v_last is None else grad_v_last.contiguous(),
        "grad_v_seq": None if grad_v_seq is None else grad_v_seq.contiguous(),
        "checkpoints": x.new_empty([(segments - 1) * given.count], dtype=torch.float32),
        "partial": partial,
        **{f"grad_{name}": tensor for name, tensor in grads.items()},
        "rows": rows,
        "columns": columns,
        "share": share,
        "slots": slots,
        "grad_step": 0 if of_spikes is None else of_spikes.stride(0),
        "alpha": float(given.alpha),
    }
    constants = {
        **given.constants(),
        "DETACH": given.detach_reset,
        "SURROGATE": given.surrogate,
        "STEPS": segment,
        "BLOCK": block,
    }
    launch = _launch(differentiate, blocks * slots, arguments, constants)
    return launch, {name: t for name, t in grads.items() if t is not None}, partial


def collect(given: Neurons, partial: Tensor, wanted: int) -> dict[str, Tensor]:
    """Add the partial sums up, for each parameter whose gradient is wanted."""
    sums = {}
    for index, name in enumerate(SUMS):
        if wanted >> WANTED.index(name) & 1:
            parameter: Tensor = getattr(given, name)
            of_channel = parameter.numel() if name in ("tau", "v_threshold") else given.x.shape[2]
            slots, columns = partial.shape[1:]
            entries = partial[index].reshape(slots, of_channel, columns // of_channel)
            sums[name] = entries.sum((0, 2)).reshape(parameter.shape)
    return sums


def _launch(kernel: Any, grid: int, arguments: dict[str, Any], constants: dict[str, Any]) -> Launch:
    return Launch(kernel, grid, arguments, constants, num_warps=4, num_stages=2, contract=False)


def _in_steps(tensor: Tensor) -> Tensor:
    """[T, A, C, I] as it is where every time step is contiguous, else a contiguous copy."""
    if all(step.is_contiguous() for step in tensor[:1]):
        return tensor
    return tensor.contiguous()
