"""What is compiled of the Triton kernels of log-polar sampling and its inverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._logpolar.launches import (
    MIP,
    Inversion,
    Sampling,
    inverse_backward_launches,
    inverse_launch,
    sample_backward_launches,
    sample_launch,
)


@dataclass(frozen=True)
class Case:
    """One input: its kernels are those of forward and backward."""

    inverse: bool = False
    normalized: bool = False
    padding: int = 0
    antialias: int = 0
    law: int = 0
    mean: bool = True
    uint8: bool = False


CASES = {
    "none": Case(),
    "area-border": Case(padding=1, antialias=1),
    "area-normalized": Case(normalized=True, antialias=1),
    "mip-reflection": Case(padding=2, antialias=MIP),
    "uint8": Case(antialias=1, uint8=True),
    "inverse": Case(inverse=True),
    "inverse-linear": Case(inverse=True, normalized=True, law=1),
    "inverse-table": Case(inverse=True, law=2, mean=False),
}


def _tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""
    batch, fixations, channels, side, cells = 4, 8, 3, 224, 64
    pose = (_tensor(batch, fixations, 2), *(_tensor(batch, fixations) for _ in range(2)))
    radii, edges = _tensor(cells), _tensor(cells + 1)
    if case.inverse:
        logpolar = _tensor(batch, fixations, channels, cells, cells, dtype=dtype)
        given = Inversion(
            logpolar, *pose, radii, side, side, case.normalized, case.law, 0.0, case.mean
        )
        forward, out, count = inverse_launch(given, 0.0)
        backward, *_ = inverse_backward_launches(given, out, count, True, True)
        return [forward, *backward]
    image = _tensor(batch, channels, side, side, dtype=torch.uint8 if case.uint8 else dtype)
    pyramid = None
    if case.antialias == MIP:
        pyramid = _tensor(batch, channels, sum((-(-side // 2**n)) ** 2 for n in range(1, 7)))
    sampling = Sampling(
        image, pyramid, *pose, radii, edges, cells, case.normalized, case.padding, case.antialias
    )
    first, out = sample_launch(sampling)
    backward, *_ = sample_backward_launches(sampling, out, not case.uint8, True)
    # the levels of a pyramid have one kernel for all, the image one of its own type
    return [first, *backward[:2], *backward[-1:]] if pyramid is not None else [first, *backward]
