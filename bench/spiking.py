"""The suite of the spiking neurons: leaky integrate-and-fire, atan, hard reset, float spikes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import saccade
from saccade.bench._suite import (
    FORWARD,
    TRAINING,
    Case,
    Function,
    Inputs,
    Ours,
    SpeedTarget,
    Suite,
    Work,
)
from saccade.bench.peers.spiking import PEERS


class Saccade(Ours):
    """The operator itself, on a backend; "auto" is what users get."""

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""

        def run(x: Inputs) -> Tensor:
            spikes: Tensor = saccade.ops.lif(x["x"], backend=self.backend, **case.kwargs)[0]
            return spikes

        return run


def draw(name: str, normal: Tensor) -> Tensor:
    """Eighths: with tau = 2 every type computes the potentials exactly, so spikes must be equal."""
    return (normal * 8).round() / 8


def make_case(name: str, origin: str, shape: tuple[int, ...]) -> Case:
    """A case with tau = 2.

    Work: forward reads x and writes spikes; the backward pass reads x and the gradient of the
    spikes and writes that of x.
    """
    elements = float(math.prod(shape))
    neurons = elements / shape[0]
    work = {
        FORWARD: Work(8 * elements, 2 * elements, 4 * neurons),
        TRAINING: Work(33 * elements, 5 * elements, 4 * neurons),
    }
    return Case(name, origin, {"x": shape}, {"tau": 2.0}, work, draw)


CASES = (
    make_case("S1", "a spiking ResNet's second stage, 4 steps", (4, 32, 128, 16, 16)),
    make_case("S2", "16 steps of an event stream", (16, 8, 64, 16, 16)),
)


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The error that the gate allows."""
    return {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]


SUITE = Suite(
    operator="spiking",
    cases=CASES,
    default_cases=("S1", "S2"),
    small=make_case("small", "warm-up and tests", (4, 2, 3, 5, 5)),
    ours=Saccade,
    peers=PEERS,
    quick_peers=("loop",),
    truth=Saccade("reference"),
    tolerance=tolerance,
    speed_targets=(
        SpeedTarget("S1", FORWARD, ("spikingjelly",), 20.0),
        SpeedTarget("S1", TRAINING, ("spikingjelly",), 12.0),
        SpeedTarget("S1", FORWARD, ("compile",), 0.9),
        SpeedTarget("S1", TRAINING, ("compile",), 2.0),
        SpeedTarget("S2", FORWARD, ("compile",), 1.3),
        SpeedTarget("S2", TRAINING, ("compile",), 4.0),
    ),
)
