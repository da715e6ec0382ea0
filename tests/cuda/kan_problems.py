"""Layers that the CUDA kernels are tested on, and what the reference says of them in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.ops._kan_op import reference_forward
from saccade.reference.kan import spline_knots

BSPLINE, GAUSSIAN, RSWAF, CHEBYSHEV, FOURIER, WAVELET = range(6)
NAMES = ("x", "weight", "base_weight", "bias", "points", "scales")


@dataclass(frozen=True)
class Case:
    """Sizes h, M, I, O, n; parameters a function (or an input) where `own`; spread of x."""

    name: str
    basis: int
    options: tuple[int, ...] = ()
    sizes: tuple[int, int, int, int, int] = (2, 5, 3, 4, 8)
    own: bool = False
    base: bool = True
    bias: bool = True
    spread: float = 1.5

    @property
    def wanted(self) -> list[int]:
        fixed = self.basis == RSWAF and self.options[0] == 1
        extended = self.basis == BSPLINE and self.options[1] == 2
        points = self.basis in (BSPLINE, GAUSSIAN, RSWAF, WAVELET) and not fixed and not extended
        scales = self.basis in (GAUSSIAN, RSWAF, WAVELET) and not fixed
        return [1, 1, int(self.base), int(self.bias), int(points), int(scales)]


def _splines() -> list[Case]:
    return [
        Case(f"bspline-{order}-{name}", BSPLINE, (order, code), own=order == 2)
        for order in range(6)
        for code, name in enumerate(("zero", "clamp", "extend"))
        if order in (0, 2, 3, 5)
    ]


CASES = [
    *_splines(),
    Case("bspline-many-functions", BSPLINE, (3, 1), (1, 33, 1, 3, 150), own=True),
    Case("bspline-far", BSPLINE, (3, 0), spread=50.0),
    Case("gaussian", GAUSSIAN, (), base=False),
    Case("gaussian-widths", GAUSSIAN, (), (1, 13, 5, 3, 8), own=True, bias=False),
    Case("gaussian-many-functions", GAUSSIAN, (), (1, 9, 2, 5, 131)),
    Case("rswaf", RSWAF, (0,), base=False, bias=False),
    Case("rswaf-widths", RSWAF, (0,), (1, 7, 9, 5, 11), own=True),
    Case("fasterkan", RSWAF, (1,)),
    Case("chebyshev", CHEBYSHEV, (), (1, 9, 9, 5, 5)),
    Case("chebyshev-far", CHEBYSHEV, (), (1, 9, 3, 2, 12), spread=20.0),
    Case("fourier", FOURIER, (0,), (1, 3, 4, 130, 6)),
    Case("fourier-constant", FOURIER, (1,), (2, 5, 3, 4, 19)),
    *(
        Case(name, WAVELET, (code,), (2, 37, 18, 5, 1), base=code % 2 == 0)
        for code, name in enumerate(("mexican-hat", "morlet", "dog", "meyer", "shannon"))
    ),
    Case("one-of-everything", GAUSSIAN, (), (1, 1, 1, 1, 1)),
    Case("split-inputs", CHEBYSHEV, (), (1, 2, 30, 3, 8), base=False),
    Case("split-rows", GAUSSIAN, (), (1, 230, 2, 3, 8)),
]


def ids(case: Case) -> str:
    return case.name


def make(case: Case, dtype: torch.dtype, x_dtype: torch.dtype | None = None) -> list[Tensor | None]:
    """x, weight, base_weight, bias, points, scales; None where there is none."""
    heads, rows, inputs, outputs, count = case.sizes
    x = (torch.randn(heads, rows, inputs) * case.spread).to(x_dtype or dtype)
    weight = torch.randn(heads, outputs, inputs, count).to(dtype)
    base = torch.randn(heads, outputs, inputs).to(dtype) if case.base else None
    bias = torch.randn(heads, outputs).to(dtype) if case.bias else None
    points = scales = None
    if case.basis == BSPLINE:
        order = case.options[0]
        points = spline_knots(count - order, order).float().unsqueeze(0)
        if case.own:
            points = points.repeat(inputs, 1) + 0.3 / count * torch.rand(inputs, points.shape[1])
            # knots that coincide, in one input
            points[0, order + 1] = points[0, order]
    elif case.basis in (GAUSSIAN, RSWAF):
        points = torch.linspace(-2, 2, count)
        scales = torch.rand(count if case.own else 1) + 0.5
    elif case.basis == WAVELET:
        points = torch.randn(heads, outputs, inputs)
        scales = torch.rand(heads, outputs, inputs) + 0.5
    return [x, weight, base, bias, points, scales]


def expected(
    case: Case, tensors: list[Tensor | None], grad_out: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """The output and the wanted gradients, None for the others."""
    leaves = [None if t is None else t.double().requires_grad_() for t in tensors]
    y = reference_forward(*leaves, case.basis, case.options)
    places = [i for i, flag in enumerate(case.wanted) if flag]
    found = torch.autograd.grad(
        y, [leaves[i] for i in places], grad_out.double(), allow_unused=True
    )
    grads: list[Tensor | None] = [None] * len(NAMES)
    for i, grad in zip(places, found, strict=True):
        grads[i] = torch.zeros_like(leaves[i]) if grad is None else grad
    return y.detach(), grads
