"""The bases, each as the shortest formula, and the grouped rational function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

GAUSSIAN_RANGE = (-2.0, 2.0)
RSWAF_RANGE = (-1.2, 0.2)
RSWAF_INV_WIDTH = 0.5

Numbers = Tensor | Sequence[float]


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """The quotient a / b, 0 where b is 0: the convention for knots that coincide."""
    zero = b == 0
    return torch.where(zero, torch.zeros_like(a), a / torch.where(zero, torch.ones_like(b), b))


def spline_knots(intervals: int, order: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Equal knots low + (m - order) h, m = 0..intervals + 2 order, in float64."""
    step = (high - low) / intervals
    return low + step * torch.arange(-order, intervals + order + 1, dtype=torch.float64)


def _cox_de_boor(x: Tensor, t: Tensor, order: int, top: int, inside: bool) -> Tensor:
    """B-splines of an order at x [..., I] on knots t [..., m]; NaN for NaN.

    `inside`: x lies in [t[top], t[-1 - top]], whose last interval is closed.
    """
    x = x.unsqueeze(-1)
    low, high = t[..., :-1], t[..., 1:]
    within = (low <= x) & (x < high)
    if inside:
        index = torch.arange(t.shape[-1] - 1, device=t.device)
        last = t.shape[-1] - 2 - top
        within = (within | ((index == last) & (x == high))) & (top <= index) & (index <= last)
    b = within.to(x.dtype)
    for k in range(1, order + 1):
        left = _quotient(x - t[..., : -k - 1], t[..., k:-1] - t[..., : -k - 1])
        right = _quotient(t[..., k + 1 :] - x, t[..., k + 1 :] - t[..., 1:-k])
        b = left * b[..., :-1] + right * b[..., 1:]
    return torch.where(x.isnan(), x, b)


def bspline(
    x: Tensor,
    grid: Tensor | None = None,
    order: int = 3,
    out_of_range: str = "zero",
    num_basis: int | None = None,
) -> Tensor:
    """B-splines by the Cox-de Boor recursion on knots [m] or [I, m], n = m - 1 - order functions.

    Beyond [a, b] = [t_k, t_n]: "zero" lets the functions run out, "clamp" holds their values at the
    border, "extend" goes on along the tangents.
    """
    if grid is None:
        grid = spline_knots((num_basis or order + 5) - order, order)
    t = grid.to(x)
    if out_of_range == "zero":
        # an infinite input is beyond the knots like any other; 0 times infinity would be NaN
        x = torch.minimum(torch.maximum(x, t[..., 0] - 1), t[..., -1] + 1)
        return _cox_de_boor(x, t, order, order, inside=False)
    a, b = t[..., order], t[..., -1 - order]
    inner = torch.minimum(torch.maximum(x, a), b)
    value = _cox_de_boor(inner, t, order, order, inside=True)
    if out_of_range == "clamp" or order == 0:
        return value
    lower = _cox_de_boor(inner, t, order - 1, order, inside=True)
    slope = _quotient(lower, t[..., order:] - t[..., :-order])
    return value + (x - inner).unsqueeze(-1) * order * (slope[..., :-1] - slope[..., 1:])


def gaussian(
    x: Tensor,
    centres: Numbers | None = None,
    width: float | Tensor | None = None,
    num_basis: int | None = None,
) -> Tensor:
    """Phi_n(x) = exp(-((x - c_n) / w)^2); w is by default the mean distance of the centres."""
    c = _centres(x, centres, GAUSSIAN_RANGE, num_basis)
    if width is None:
        width = gaussian_width(c.detach())
    if isinstance(width, Tensor):
        width = width.to(x)
    return torch.exp(-(((x.unsqueeze(-1) - c) / width).square()))


def gaussian_width(centres: Tensor) -> Tensor:
    """The mean distance of neighbouring centres; 1 where there is one."""
    if centres.shape[0] == 1:
        return torch.ones_like(centres[0])
    return (centres.amax() - centres.amin()) / (centres.shape[0] - 1)


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by `factor`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: float | Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float | Tensor], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def rswaf(
    x: Tensor,
    centres: Numbers | None = None,
    inv_width: float | Tensor = RSWAF_INV_WIDTH,
    mode: str = "exact",
    num_basis: int | None = None,
) -> Tensor:
    """Reflectional switch activations, Phi_n(x) = 1 - tanh^2((x - c_n) s).

    `mode="fasterkan"` repeats a slip of FasterKAN's code: the forward leaves s out, and the
    backward multiplies the derivative of that function by s.
    """
    if isinstance(inv_width, Tensor):
        inv_width = inv_width.to(x)
    c = _centres(x, centres, RSWAF_RANGE, num_basis)
    if mode == "fasterkan":
        x, inv_width = _ScaleGradient.apply(x, inv_width), 1.0
    return 1 - torch.tanh((x.unsqueeze(-1) - c) * inv_width).square()


def _centres(
    x: Tensor, centres: Numbers | None, default: tuple[float, float], num_basis: int | None
) -> Tensor:
    if centres is None:
        return torch.linspace(*default, num_basis or 8, dtype=x.dtype, device=x.device)
    return torch.as_tensor(centres, dtype=x.dtype, device=x.device)


def chebyshev(x: Tensor, num_basis: int | None = None) -> Tensor:
    """Phi_n(x) = T_n(tanh x), n = 0, 1, ..., by T_{n+1} = 2 u T_n - T_{n-1}."""
    u = torch.tanh(x)
    t = [torch.ones_like(u), u]
    for _ in range(2, num_basis or 8):
        t.append(2 * u * t[-1] - t[-2])
    return torch.stack(t[: num_basis or 8], -1)


def fourier(x: Tensor, include_dc: bool = False, num_basis: int | None = None) -> Tensor:
    """(1,) cos x, ..., cos g x, sin x, ..., sin g x; n = 2 g, one more with the constant."""
    constants = 1 if include_dc else 0
    count = (num_basis or 8 + constants) - constants
    k = torch.arange(1, count // 2 + 1, dtype=x.dtype, device=x.device)
    angle = x.unsqueeze(-1) * k
    constant = [torch.ones_like(x).unsqueeze(-1)] if include_dc else []
    return torch.cat([*constant, angle.cos(), angle.sin()], -1)


def _meyer(z: Tensor) -> Tensor:
    v = z.abs()
    t = (2 * v - 1).clamp(0, 1)
    step = t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)
    # beyond 1 the cosine is that of pi / 2, which rounding does not make 0
    return torch.where(v < 1, torch.sin(math.pi * v) * torch.cos(math.pi / 2 * step), 0 * z)


PSI: dict[str, Callable[[Tensor], Tensor]] = {
    "mexican_hat": lambda z: (
        2 / (math.sqrt(3) * math.pi**0.25) * (z.square() - 1) * torch.exp(-z.square() / 2)
    ),
    "morlet": lambda z: torch.cos(5 * z) * torch.exp(-z.square() / 2),
    "dog": lambda z: -z * torch.exp(-z.square() / 2),
    "meyer": _meyer,
    "shannon": lambda z: torch.sinc(z / math.pi),
}


def psi(z: Tensor, kind: str) -> Tensor:
    """A mother wavelet."""
    return PSI[kind](z)


def wavelet(
    x: Tensor, scale: Tensor, shift: Tensor, kind: str = "mexican_hat", num_basis: int | None = None
) -> Tensor:
    """psi((x_i - t[o, i]) / s[o, i]), [..., I, O]; with heads [h, O, I] and x [..., h, M, I]."""
    s, t = (p.to(x).mT if p.dim() == 2 else p.to(x).mT.unsqueeze(-3) for p in (scale, shift))
    return psi((x.unsqueeze(-1) - t) / s, kind)


BASES: dict[str, Callable[..., Tensor]] = {
    "bspline": bspline,
    "chebyshev": chebyshev,
    "fourier": fourier,
    "gaussian": gaussian,
    "rswaf": rswaf,
    "wavelet": wavelet,
}


def group_rational(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """F(x) = (a_0 + a_1 x + ...) / (1 + |b_1 x| + |b_2 x^2| + ...) a group; x [N, G, L].

    numerator [1 | G, m], denominator [1 | G, n]; half types are computed in float32.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    u = x.to(wide)
    p = torch.zeros_like(u)
    for i in reversed(range(numerator.shape[-1])):
        p = p * u + numerator[:, i, None].to(wide)
    # |b| of a coefficient 0 has the derivative of its positive side, as the published kernels do
    b = denominator.to(wide)
    b = torch.where(b < 0, -b, b)
    size = torch.where(u < 0, -u, u)
    q = torch.zeros_like(u)
    for j in reversed(range(denominator.shape[-1])):
        q = (q + b[:, j, None]) * size
    return (p / (1 + q)).to(x.dtype)
