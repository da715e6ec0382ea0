"""Benchmark of Kolmogorov-Arnold layers: one layer 512 -> 512 of every basis, batch 1024."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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
from saccade.bench.peers.kan import PEERS


class Saccade(Ours):
    """The operator itself, on a backend; "auto" is what users get."""

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""
        backend = self.backend
        if case.kwargs["basis"] == "rational":

            def activate(x: Inputs) -> Tensor:
                z = saccade.ops.group_rational(
                    x["x"], x["numerator"], x["denominator"], backend=backend
                )
                return F.linear(z, x["weight"], x["bias"])

            return activate
        arguments: dict[str, Any] = {**case.kwargs, "backend": backend}
        return lambda x: saccade.ops.kan_linear(**x, **arguments)


def draw(name: str, normal: Tensor) -> Tensor:
    """Scales are positive, and weights such that outputs are of order 1."""
    if name == "scale":
        return 0.5 + normal.abs()
    if name == "weight":
        return normal / normal.shape[1] ** 0.5
    return normal


def make_case(
    name: str,
    origin: str,
    basis: str,
    rows: int,
    inputs: int,
    outputs: int,
    *,
    num_basis: int = 8,
    base: bool = False,
    **options: Any,
) -> Case:
    """A layer; work: its products, splines with the functions that do not vanish alone.

    Of those four one needs no product: they add up to one.
    """
    shapes = {"x": (rows, inputs), "weight": (outputs, inputs, num_basis)}
    if base:
        shapes["base_weight"] = (outputs, inputs)
    if basis == "wavelet":
        shapes["scale"] = shapes["shift"] = (outputs, inputs)
    touched = min(num_basis, 4) - 1 if basis == "bspline" else num_basis
    flops = 2.0 * rows * inputs * outputs * (touched + base)
    weights = float(outputs * inputs * (num_basis + base + 2 * (basis == "wavelet")))
    elements = rows * (inputs + outputs) + weights
    work = {
        FORWARD: Work(flops, elements),
        TRAINING: Work(3 * flops, 3 * elements),
    }
    return Case(name, origin, shapes, {"basis": basis, **options}, work, draw=draw)


def make_rational(name: str, rows: int, width: int) -> Case:
    """KAT's activation, 8 groups of degrees 5 and 4, and the linear map behind it."""
    shapes = {
        "x": (rows, width),
        "numerator": (1, 6),
        "denominator": (8, 4),
        "weight": (width, width),
        "bias": (width,),
    }
    flops = 2.0 * rows * width * width
    elements = 2.0 * rows * width + width * width
    work = {FORWARD: Work(flops, elements), TRAINING: Work(3 * flops, 3 * elements)}
    kwargs = {"basis": "rational"}
    return Case(name, "KAT's feed-forward, one layer", shapes, kwargs, work, draw=draw)


LAYER = (1024, 512, 512)
CASES = (
    make_case("bspline", "efficient-kan, 5 intervals of order 3", "bspline", *LAYER, base=True),
    make_case("bspline-plain", "the same without the silu branch", "bspline", *LAYER),
    make_case("gaussian", "fast-kan's 8 centres", "gaussian", *LAYER),
    make_case("rswaf", "faster-kan's 8 centres", "rswaf", *LAYER),
    make_case("chebyshev", "ChebyKAN of degree 7", "chebyshev", *LAYER),
    make_case("fourier", "FourierKAN of 4 frequencies", "fourier", *LAYER),
    make_case("wavelet", "Wav-KAN, mexican hat", "wavelet", 256, 256, 256, num_basis=1),
    make_rational("rational", 1024, 512),
)
DENSE = ("gaussian", "rswaf", "chebyshev", "fourier")

# The largest error allowed, relative to the largest entry of the tensor.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
# Peers may use TF32 products for float32 on CUDA: 10 bits of mantissa.
TOLERANCE_TF32 = 5e-3


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The error that the gate allows."""
    return TOLERANCE_TF32 if device.type == "cuda" and dtype == torch.float32 else TOLERANCE[dtype]


SUITE = Suite(
    operator="kan",
    cases=CASES,
    default_cases=("bspline", "bspline-plain", "gaussian", "rational"),
    small=make_case("small", "warm-up and tests", "bspline", 16, 5, 7, base=True),
    ours=Saccade,
    peers=PEERS,
    quick_peers=("published", "product"),
    truth=Saccade("reference"),
    tolerance=tolerance,
    speed_targets=(
        SpeedTarget("bspline", FORWARD, ("published",), 6.0),
        SpeedTarget("bspline", TRAINING, ("published",), 3.5),
        SpeedTarget("bspline-plain", FORWARD, ("product",), 1.0),
        SpeedTarget("bspline-plain", TRAINING, ("product",), 1.0),
        *(
            SpeedTarget(name, phase, ("product",), 0.909)
            for name in DENSE
            for phase in (FORWARD, TRAINING)
        ),
        SpeedTarget("rational", FORWARD, ("published",), 1.8),
        SpeedTarget("rational", TRAINING, ("published",), 1.8),
    ),
)
