"""What is compiled of the spiking neurons' Triton kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._spiking.launches import Neurons, backward_launch, forward_launch


@dataclass(frozen=True)
class Case:
    """One input: its kernels are the forward's and the backward's."""

    steps: int = 4
    tau: float = 2.0
    hard: bool = True
    charge: int = 1
    surrogate: int = 1
    parameters: bool = False
    kind: int = 0
    store_v: bool = False


CASES = {
    "plain": Case(),
    "division": Case(steps=16, tau=3.0, surrogate=0),
    "soft": Case(steps=8, hard=False, charge=2, store_v=True),
    "parameters": Case(steps=16, parameters=True),
    "bits": Case(kind=2),
}


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""

    def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    shape = (case.steps, 32, 64, 784)
    x = tensor(*shape, dtype=dtype)
    of_channel = tensor(64) if case.parameters else None
    residual = x if case.parameters else None
    given = Neurons(
        x, tensor(*shape[1:]), of_channel, of_channel, of_channel, of_channel, residual,
        case.tau, 1.0, 0.0, 2.0, case.charge, case.hard, True, case.surrogate,
    )  # fmt: skip
    forward, *_ = forward_launch(given, case.store_v, case.kind, 28)
    of_spikes = x if case.kind == 0 else None
    of_seq = tensor(*shape) if case.store_v else None
    wanted = 0b1111111 if case.parameters else 0b11
    backward, *_ = backward_launch(given, of_spikes, tensor(*shape[1:]), of_seq, wanted)
    return [forward, backward]
