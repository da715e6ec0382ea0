"""Benchmark of the scans and the causal convolution: forward and training step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import saccade
from saccade.bench._suite import (
    FORWARD,
    TRAINING,
    Case,
    Function,
    Inputs,
    MemoryTarget,
    Ours,
    SpeedTarget,
    Suite,
    Work,
)
from saccade.bench.peers.scan import CONV, PEERS, SELECTIVE, SSD

# Operations of an exponential: argument reduction and a polynomial of degree 6.
EXP = 16.0


class Saccade(Ours):
    """The operators themselves, on a backend; "auto" is what users get."""

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""
        arguments: dict[str, Any] = {**case.kwargs, "backend": self.backend}
        operator = getattr(saccade.ops, arguments.pop("function"))
        return lambda x: operator(**x, **arguments)


def _draw(name: str, normal: Tensor) -> Tensor:
    """Decays below 1, and steps around 0.1 after the softplus."""
    if name == "A":
        return -normal.exp()
    return normal - 2 if name in ("delta_bias", "dt_bias") else normal


def selective_case(
    name: str, origin: str, batch: int, channels: int, dims: tuple[int, ...], state: int,
    directions: tuple[str, ...] | None = None,
) -> Case:  # fmt: skip
    """Selective scan with softplus, skip connection and gate.

    Work for each state: exponential and three multiply-adds; backward does that again and eight
    multiply-adds more.
    """
    k = (len(directions),) if directions else ()
    shapes: dict[str, tuple[int, ...]] = {
        "u": (batch, channels, *dims),
        "delta": (batch, *k, channels, *dims),
        "A": (*k, channels, state),
        "B": (batch, *k, state, *dims),
        "C": (batch, *k, state, *dims),
        "D": (*k, channels),
        "z": (batch, channels, *dims),
        "delta_bias": (*k, channels),
    }
    kwargs: dict[str, Any] = {"function": SELECTIVE, "delta_softplus": True}
    if directions:
        kwargs["directions"] = directions
    paths = len(directions) if directions else 1
    length = 1
    for size in dims:
        length *= size
    signal = float(batch * channels * length)
    coefficients = float(batch * paths * state * length)
    once = signal * paths * state * (EXP + 6)
    work = {
        # Reads u, z, delta, B, C; writes the output.
        FORWARD: Work(once, (3 + paths) * signal + 2 * coefficients),
        # Backward reads those and the output's gradient, writes five gradients.
        TRAINING: Work(
            2 * once + 16 * signal * paths * state,
            (8 + 3 * paths) * signal + 6 * coefficients,
        ),
    }
    return Case(name, origin, shapes, kwargs, work, _draw)


def ssd_case(
    name: str, origin: str, batch: int, length: int, heads: int, width: int, state: int, chunk: int
) -> Case:
    """SSD with softplus and skip connection.

    Work for each number of the state: two multiply-adds; backward does that again and four more.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "x": (batch, length, heads, width),
        "dt": (batch, length, heads),
        "A": (heads,),
        "B": (batch, length, 1, state),
        "C": (batch, length, 1, state),
        "D": (heads,),
        "dt_bias": (heads,),
    }
    kwargs = {"function": SSD, "chunk_size": chunk, "dt_softplus": True}
    signal, numbers = float(batch * length * heads * width), 2.0 * batch * length * state
    work = {
        FORWARD: Work(4 * signal * state, 2 * signal + numbers),
        TRAINING: Work(16 * signal * state, 5 * signal + 3 * numbers),
    }
    return Case(name, origin, shapes, kwargs, work, _draw)


def conv_case(name: str, origin: str, batch: int, channels: int, length: int, width: int) -> Case:
    """The convolution with bias and silu: one pass forward, one more backward."""
    shapes: dict[str, tuple[int, ...]] = {
        "x": (batch, channels, length),
        "weight": (channels, width),
        "bias": (channels,),
    }
    signal = float(batch * channels * length)
    work = {
        FORWARD: Work(signal * (2 * width + EXP), 2 * signal),
        TRAINING: Work(signal * (8 * width + 2 * EXP), 5 * signal),
    }
    return Case(name, origin, shapes, {"function": CONV, "activation": "silu"}, work)


CASES = (
    selective_case("S6", "Vim-Ti at 224 px", 4, 384, (196,), 16),
    selective_case("S6-long", "a sequence of 1024 tokens", 1, 384, (1024,), 16),
    selective_case(
        "four-ways", "VMamba, 28 x 28, four paths", 1, 192, (28, 28), 16, ("lr", "rl", "tb", "bt")
    ),
    ssd_case("SSD", "Mamba-2, a sequence of 1024 tokens", 1, 1024, 12, 64, 64, 64),
    conv_case("conv", "Mamba, a sequence of 1024 tokens", 4, 768, 1024, 4),
)

# The largest error allowed, relative to the largest entry of the tensor.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}
# Peers may use TF32 products for float32 on CUDA: 10 bits of mantissa.
TOLERANCE_TF32 = 5e-3


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The error that the gate allows."""
    return TOLERANCE_TF32 if device.type == "cuda" and dtype == torch.float32 else TOLERANCE[dtype]


SUITE = Suite(
    operator="scan",
    cases=CASES,
    default_cases=("S6", "S6-long", "SSD", "conv"),
    small=selective_case("small", "warm-up and tests", 2, 8, (20,), 4),
    ours=Saccade,
    peers=PEERS,
    quick_peers=("einsum", "grouped-conv"),
    truth=Saccade("reference"),
    tolerance=tolerance,
    speed_targets=(
        SpeedTarget("S6", FORWARD, ("loop",), 25.0),
        SpeedTarget("S6", TRAINING, ("mambapy",), 20.0),
        SpeedTarget("SSD", FORWARD, ("einsum",), 3.0),
        SpeedTarget("SSD", TRAINING, ("einsum",), 3.0),
        SpeedTarget("conv", FORWARD, ("grouped-conv",), 4.0),
        SpeedTarget("conv", TRAINING, ("grouped-conv",), 8.0),
    ),
    memory_targets=(MemoryTarget("S6", 1.5), MemoryTarget("conv", 1.5)),
)
