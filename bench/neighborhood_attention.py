"""Benchmark of neighborhood attention: forward and training step at shapes of real models."""

from __future__ import annotations

from typing import Any

import torch

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
from saccade.bench.peers.neighborhood_attention import PEERS, Windows


class Saccade(Ours):
    """The operator itself, on a backend; "auto" is what users get."""

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""
        arguments: dict[str, Any] = {**case.kwargs, "backend": self.backend}
        return lambda x: saccade.ops.neighborhood_attention(
            x["query"], x["key"], x["value"], bias=x.get("bias"), **arguments
        )


def make_case(
    name: str, origin: str, shape: tuple[int, ...], *, bias: bool = False, **kwargs: Any
) -> Case:
    """A case with equal query, key and value.

    Work: two products forward, five more backward, where the scores are recomputed.
    """
    batch, *_, heads, width = shape
    shapes = dict.fromkeys(("query", "key", "value"), shape)
    windows = Windows(Case(name, origin, shapes, kwargs, {}))
    if bias:
        shapes["bias"] = (heads, *(2 * kernel - 1 for kernel in windows.kernel))
    forward = 4.0 * batch * heads * width * windows.pairs
    elements = batch * heads * width * len(windows.index)
    lse_bytes = 4.0 * batch * heads * len(windows.index)
    work = {
        # Reads query, key, value; writes the output.
        FORWARD: Work(forward, 4 * elements),
        # Backward reads those and the output's gradient, writes three gradients; the
        # log-sum-exp goes out and in.
        TRAINING: Work(3.5 * forward, 12 * elements, 2 * lse_bytes),
    }
    return Case(name, origin, shapes, kwargs, work)


CASES = (
    make_case("S1", "NAT / MedViTV2 stage 1 at 224 px", (4, 56, 56, 2, 32), kernel_size=7),
    make_case(
        "S2", "DiNAT / MedViTV2 stage 3 at 224 px", (16, 14, 14, 8, 32), kernel_size=7, dilation=2
    ),
    make_case(
        "bias",
        "MedViTV2 stage 2 with its relative position bias",
        (4, 28, 28, 4, 32),
        bias=True,
        kernel_size=7,
    ),
    make_case(
        "causal",
        "1D sliding window of a sequence model",
        (2, 1024, 4, 32),
        kernel_size=63,
        is_causal=True,
    ),
    make_case("volume", "3D block of a video model", (1, 8, 16, 16, 4, 32), kernel_size=(3, 5, 5)),
)

# The largest error allowed, relative to the largest entry of the tensor.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
# Peers may use TF32 products for float32 on CUDA: 10 bits of mantissa.
TOLERANCE_TF32 = 5e-3


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The error that the gate allows."""
    return TOLERANCE_TF32 if device.type == "cuda" and dtype == torch.float32 else TOLERANCE[dtype]


FLEX = ("flex", "flex-arithmetic")

SUITE = Suite(
    operator="neighborhood_attention",
    cases=CASES,
    default_cases=("S1", "S2"),
    small=make_case("small", "warm-up and tests", (2, 8, 9, 2, 8), kernel_size=3, dilation=2),
    ours=Saccade,
    peers=PEERS,
    quick_peers=("sdpa", "gather"),
    truth=Saccade("reference"),
    tolerance=tolerance,
    speed_targets=(
        SpeedTarget("S1", FORWARD, FLEX, 20.0),
        SpeedTarget("S1", FORWARD, ("sdpa",), 35.0),
        SpeedTarget("S1", TRAINING, ("sdpa",), 35.0),
        SpeedTarget("S2", FORWARD, ("sdpa",), 3.0),
        SpeedTarget("S2", TRAINING, ("sdpa",), 3.0),
    ),
    memory_targets=(MemoryTarget("S1", 1.5), MemoryTarget("S2", 1.5)),
)
