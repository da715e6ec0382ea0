"""What is compiled of the Triton kernels of the scans and of the causal convolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._scan import (
    convolution_launches,
    selective_launches,
    ssd_launches,
)


@dataclass(frozen=True)
class Case:
    """One input of each of the three operators: its kernels are those of forward and backward."""

    operator: str
    states: int = 16
    groups: int = 1
    directions: tuple[int, ...] = (0,)
    constant: bool = False
    optional: bool = True
    sequences: bool = False
    width: int = 64


CASES = {
    "s6": Case("selective", optional=False),
    "s6-gate": Case("selective"),
    "s6-one-state": Case("selective", states=1, groups=2),
    "s6-many-states": Case("selective", states=256),
    "s6-constant": Case("selective", constant=True),
    "s6-directions": Case("selective", directions=(0, 1, 2, 3)),
    "s6-sequences": Case("selective", sequences=True),
    "ssd": Case("ssd", states=128, optional=False),
    "ssd-gate": Case("ssd", states=128),
    "ssd-n64": Case("ssd", states=64, groups=2, sequences=True),
    "ssd-small": Case("ssd", states=16, width=32),
    "ssd-n256": Case("ssd", states=256),
    "conv": Case("convolution", width=4),
    "conv-sequences": Case("convolution", width=3, sequences=True),
    "conv-w16": Case("convolution", width=16),
}


def _tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _sequences(case: Case, batch: int, length: int) -> torch.Tensor | None:
    return _tensor(batch, length, dtype=torch.int32) if case.sequences else None


def _selective(case: Case, dtype: torch.dtype) -> list[Launch]:
    batch, channels, length, paths = 2, 384, 224, len(case.directions)
    parameters = (paths, channels, case.states)
    signal = _tensor(batch, channels, length, dtype=dtype)
    steps = _tensor(batch, paths, channels, length, dtype=dtype)
    coefficients = (
        _tensor(*parameters)
        if case.constant
        else _tensor(batch, paths, case.groups, case.states, length, dtype=dtype)
    )
    row = _tensor(paths, channels) if case.optional else None
    initial = _tensor(batch, *parameters)
    inputs = selective_launches.Inputs(
        signal, steps, _tensor(*parameters), coefficients, coefficients, row,
        signal if case.optional else None, row, initial if case.optional else None,
        _sequences(case, batch, length), True, case.directions, 14,
    )  # fmt: skip
    forward, outputs = selective_launches.forward_launch(inputs, selective_launches.STEPS)
    backward, _ = selective_launches.backward_launch(inputs, signal, initial, outputs.checkpoints)
    return [forward, backward]


def _ssd(case: Case, dtype: torch.dtype) -> list[Launch]:
    batch, length, heads = 2, 512, 8
    x = _tensor(batch, length, heads, case.width, dtype=dtype)
    b = _tensor(batch, length, case.groups, case.states, dtype=dtype)
    initial = _tensor(batch, heads, case.width, case.states)
    head = _tensor(heads)
    chunk = ssd_launches.CHUNK
    inputs = ssd_launches.Inputs(
        x, _tensor(batch, length, heads, dtype=dtype), head, b, b,
        _tensor(heads, case.width) if case.optional else None, x if case.optional else None,
        head if case.optional else None, initial if case.optional else None,
        _sequences(case, batch, length), True, 0.0, float("inf"),
    )  # fmt: skip
    forward, (out, last, saved) = ssd_launches.forward_launches(inputs, chunk)
    backward, _ = ssd_launches.backward_launches(inputs, out, last, saved, chunk)
    return [*forward, *backward]


def _convolution(case: Case, dtype: torch.dtype) -> list[Launch]:
    batch, channels, length = 2, 768, 1024
    x = _tensor(batch, channels, length, dtype=dtype)
    initial = _tensor(batch, channels, case.width - 1, dtype=dtype)
    inputs = convolution_launches.Inputs(
        x, _tensor(channels, case.width), _tensor(channels),
        None if case.sequences else initial, _sequences(case, batch, length), True,
    )  # fmt: skip
    forward, out = convolution_launches.forward_launch(inputs)
    backward, _ = convolution_launches.backward_launches(inputs, out)
    return [forward, *backward]


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""
    make = {"selective": _selective, "ssd": _ssd, "convolution": _convolution}
    return make[case.operator](case, dtype)
