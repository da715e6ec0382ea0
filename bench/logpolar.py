"""Benchmark of log-polar sampling: plain and anti-aliased views of images and of feature maps."""

from __future__ import annotations

import math
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
    Ours,
    SpeedTarget,
    Suite,
    Work,
)
from saccade.bench.peers.logpolar import PEERS


class Saccade(Ours):
    """The operator itself, on a backend; "auto" is what users get."""

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""
        arguments: dict[str, Any] = {**case.kwargs, "backend": self.backend}
        return lambda x: saccade.ops.logpolar_sample(x["image"], x["fixation"], **arguments)


def taps(rings: int, rays: int, r_max: float) -> int:
    """Positions of one view with area anti-aliasing, by the operator's definition."""
    step = r_max ** (1 / max(rings - 1, 1))

    def count(side: float) -> int:
        return 1 if side < 0.25 else min(64, math.ceil(1 + 0.75 * side - 1e-3))

    total = 0
    for k in range(rings):
        r = step**k
        total += rays * count(r * (step**0.5 - step**-0.5)) * count(2 * math.pi * r / rays)
    return total


def make_case(
    name: str, origin: str, shape: tuple[int, ...], fixations: int, size: int, antialias: str
) -> Case:
    """A case with fixations around the middle of the images.

    The anti-aliased ones are forward only, on images without detail: there supersampling, which
    takes other taps, has the same result. Work: 20 operations and 8 a channel for a position; the
    training step asks for the gradient of the image.
    """
    batch, channels, height, width = shape
    r_max = min(height, width) / 2

    def draw(tensor: str, normal: Tensor) -> Tensor:
        if tensor == "fixation":
            return torch.tensor([width, height]) / 2 + 0.06 * min(height, width) * normal.clamp(
                -2, 2
            )
        if antialias == "none":
            return normal
        y, x = torch.arange(height)[:, None], torch.arange(width)
        phase = normal[..., :1, :1]
        return torch.sin(2 / width * x + phase) * torch.cos(2 / height * y + phase)

    positions = batch * fixations * size * size
    if antialias == "area":
        positions = batch * fixations * taps(size, size, r_max)
    image, out = math.prod(shape), batch * fixations * channels * size * size
    work = {FORWARD: Work((20 + 8 * channels) * positions, image + out)}
    if antialias == "none":
        # Backward reads the output's gradient and writes the image's.
        work[TRAINING] = Work((40 + 16 * channels) * positions, 2 * (image + out))
    return Case(
        name,
        origin,
        {"image": shape, "fixation": (batch, fixations, 2)},
        {
            "out_size": size,
            "antialias": antialias,
            # a step at the border would be seen differently by other taps
            "padding_mode": "zeros" if antialias == "none" else "border",
        },
        work,
        draw,
        ("fixation",),
    )


IMAGES = (16, 3, 224, 224)
CASES = (
    make_case("N1", "one fixation an image", IMAGES, 1, 64, "none"),
    make_case("N8", "eight fixations an image", IMAGES, 8, 64, "none"),
    make_case("area1", "one anti-aliased fixation an image", IMAGES, 1, 64, "area"),
    make_case("area8", "eight anti-aliased fixations an image", IMAGES, 8, 64, "area"),
    make_case("large", "one fixation of a large image", (4, 3, 512, 512), 1, 256, "none"),
    make_case("features", "maps of a network", (16, 64, 56, 56), 1, 32, "none"),
)

# The largest error allowed, relative to the largest entry of the tensor: float32 rounds positions,
# and supersampling has taps of its own.
TOLERANCE = {torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The error that the gate allows."""
    return TOLERANCE[dtype]


SUITE = Suite(
    operator="logpolar",
    cases=CASES,
    default_cases=("N1", "N8", "area1", "area8"),
    small=make_case("small", "warm-up and tests", (2, 3, 20, 24), 2, 8, "none"),
    ours=Saccade,
    peers=PEERS,
    quick_peers=("grid_sample", "supersample"),
    truth=Saccade("reference"),
    tolerance=tolerance,
    speed_targets=tuple(
        SpeedTarget(case, phase, (peer,), ratio)
        for case in ("N1", "N8")
        for phase, peer, ratio in (
            (FORWARD, "cv2.remap", 1.5),
            (FORWARD, "grid_sample", 4.0),
            (TRAINING, "grid_sample", 4.0),
        )
    )
    + tuple(SpeedTarget(case, FORWARD, ("supersample",), 12.0) for case in ("area1", "area8")),
)
