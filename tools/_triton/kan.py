"""What is compiled of the KAN layers' Triton kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saccade.triton_kernels._kan.launches import (
    backward_launches,
    forward_launch,
    rational_backward_launch,
    rational_forward_launch,
)
from saccade.triton_kernels._launch import Launch


@dataclass(frozen=True)
class Case:
    """One layer 512 -> 512, or a rational function where basis is None; with base term and bias,
    and the gradients of points and scales where the basis has them.
    """

    basis: int | None
    options: tuple[int, ...] = ()
    count: int = 8
    points: bool = False
    scales: bool = False


CASES = {
    "bspline": Case(0, (3, 0), points=True),
    "bspline-clamp": Case(0, (3, 1), count=23, points=True),
    "bspline-extend": Case(0, (3, 2)),
    "bspline-order-5": Case(0, (5, 1), count=10, points=True),
    "gaussian": Case(1, points=True, scales=True),
    "rswaf": Case(2, (0,), points=True, scales=True),
    "fasterkan": Case(2, (1,)),
    "chebyshev": Case(3),
    "fourier": Case(4, (0,)),
    "mexican-hat": Case(5, (0,), count=1, points=True, scales=True),
    "morlet": Case(5, (1,), count=1, points=True, scales=True),
    "meyer": Case(5, (3,), count=1, points=True, scales=True),
    "shannon": Case(5, (4,), count=1, points=True, scales=True),
    "rational": Case(None),
}
HEADS, ROWS, WIDTH = 1, 8192, 512


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""

    def tensor(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device="meta")

    if case.basis is None:
        x, numerator, denominator = tensor(4096, 8, 96), tensor(1, 6), tensor(8, 4)
        forward, out = rational_forward_launch(x, numerator, denominator)
        backward, _ = rational_backward_launch(out, x, numerator, denominator)
        return [forward, backward]
    x = tensor(HEADS, ROWS, WIDTH)
    weight = tensor(HEADS, WIDTH, WIDTH, case.count)
    base_weight = tensor(HEADS, WIDTH, WIDTH)
    bias = tensor(HEADS, WIDTH)
    points = scales = None
    if case.basis == 0:
        points = tensor(WIDTH, case.count + case.options[0] + 1, kind=torch.float32)
    elif case.basis in (1, 2):
        points = tensor(case.count, kind=torch.float32)
        scales = tensor(case.count, kind=torch.float32)
    elif case.basis == 5:
        points = scales = tensor(HEADS, WIDTH, WIDTH, kind=torch.float32)
    layer = (points, scales, case.basis, case.options)
    wanted = (1, 1, 1, 1, int(case.points), int(case.scales))
    call, out = forward_launch(x, weight, base_weight, bias, *layer)
    backward_calls, _ = backward_launches(out, x, weight, base_weight, *layer, wanted)
    return [call, *backward_calls]
