"""Bases and layers against closed forms, scipy, and what the published packages compute."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.interpolate
import torch
from torch import Tensor

from saccade.ops import group_rational, kan_basis, kan_linear

D = torch.float64


def knots(intervals: int = 5, order: int = 3) -> np.ndarray:
    return -1 + 2 / intervals * (np.arange(intervals + 2 * order + 1) - order)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, 5])
def test_splines_are_scipys(order: int) -> None:
    x = torch.linspace(-0.999, 0.999, 77, dtype=D, requires_grad=True)
    t = np.sort(np.concatenate([knots(5, order)[:-2], [1.3, 1.7]]))
    phi = kan_basis(x.unsqueeze(-1), "bspline", grid=torch.tensor(t), order=order).squeeze(1)
    for n in range(phi.shape[1]):
        spline = scipy.interpolate.BSpline.basis_element(t[n : n + order + 2], extrapolate=False)
        inside = np.nan_to_num(spline(x.detach().numpy()))
        torch.testing.assert_close(phi[:, n].detach(), torch.tensor(inside))
        if order > 1:
            slope = np.nan_to_num(spline.derivative()(x.detach().numpy()))
            (grad,) = torch.autograd.grad(phi[:, n].sum(), x, retain_graph=True)
            torch.testing.assert_close(grad, torch.tensor(slope))


def test_splines_sum_to_one_and_run_out() -> None:
    x = torch.tensor([-1.0, -0.3, 0.999, 1.0, 1.5, 2.2, -2.2, 3.0], dtype=D)
    phi = kan_basis(x, "bspline")
    assert phi.shape == (8, 8)
    sums = torch.tensor([1, 1, 1, 1, 0.682, 0, 0, 0], dtype=D)
    torch.testing.assert_close(phi.sum(-1), sums, atol=5e-4, rtol=0)
    assert (phi != 0).sum(-1).max() <= 4
    assert (phi[3] != 0).sum() == 3


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_greville_coefficients_give_the_identity(backend: str) -> None:
    t = torch.tensor(knots())
    greville = torch.stack([t[n + 1 : n + 4].mean() for n in range(8)])
    x = torch.linspace(-3, 3, 101, dtype=D)[:, None]
    weight = greville.reshape(1, 1, 8)
    inside = (x.abs() < 1).squeeze()
    for beyond, expected in (("zero", x), ("clamp", x.clamp(-1, 1)), ("extend", x)):
        y = kan_linear(x, weight, basis="bspline", out_of_range=beyond, backend=backend)
        rows = inside if beyond == "zero" else slice(None)
        torch.testing.assert_close(y[rows], expected[rows])


def test_coinciding_knots_are_no_nan() -> None:
    grid = torch.tensor([-1.0, -1, -1, -1, 0, 0, 1, 1, 1, 1])
    x = torch.linspace(-1.2, 1.2, 25)[:, None].requires_grad_()
    weight = torch.randn(3, 1, 6)
    for backend in ("reference", "cpu"):
        y = kan_linear(x, weight, basis="bspline", grid=grid, backend=backend)
        assert y.isfinite().all()
        assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()
    clamped = kan_basis(x, "bspline", grid=grid, out_of_range="clamp")
    torch.testing.assert_close(clamped.sum(-1), torch.ones(25, 1))


def test_chebyshev_is_the_cosine_of_a_multiple() -> None:
    angle = torch.linspace(0.1, 3.0, 31, dtype=D)
    phi = kan_basis(torch.atanh(angle.cos()), "chebyshev", num_basis=12)
    torch.testing.assert_close(phi, torch.cos(angle[:, None] * torch.arange(12)))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_chebyshev_has_finite_gradients_where_arccos_has_none(backend: str) -> None:
    x = torch.tensor([[12.0, -12.0, 20.0, -20.0, 0.0]], requires_grad=True)
    y = kan_linear(x, torch.randn(3, 5, 8), basis="chebyshev", backend=backend)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_fourier_has_period_two_pi(backend: str) -> None:
    x, weight = torch.randn(7, 3, dtype=D), torch.randn(4, 3, 8, dtype=D)
    here = kan_linear(x, weight, basis="fourier", backend=backend)
    there = kan_linear(x + 2 * math.pi, weight, basis="fourier", backend=backend)
    torch.testing.assert_close(here, there)
    k = torch.arange(1, 5)
    phi = torch.cat([torch.cos(x[..., None] * k), torch.sin(x[..., None] * k)], -1)
    torch.testing.assert_close(kan_basis(x, "fourier"), phi)
    torch.testing.assert_close(here, torch.einsum("bin,oin->bo", phi, weight))


def test_gaussian_is_fast_kans() -> None:
    x = torch.randn(6, dtype=D)
    centres = torch.linspace(-2, 2, 8, dtype=D)
    truth = torch.exp(-(((x[:, None] - centres) / (4 / 7)) ** 2))
    torch.testing.assert_close(kan_basis(x, "gaussian"), truth)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("inv_width", [0.5, 0.25, 3.0])
def test_fasterkan_scales_the_gradient_of_its_forward(inv_width: float, backend: str) -> None:
    x, weight = torch.randn(6, 5, dtype=D, requires_grad=True), torch.randn(4, 5, 8, dtype=D)
    grads = []
    for mode, scale in (("fasterkan", inv_width), ("exact", 1.0)):
        y = kan_linear(x, weight, basis="rswaf", mode=mode, inv_width=scale, backend=backend)
        grads.append(torch.autograd.grad(y.square().sum(), x)[0])
    torch.testing.assert_close(grads[0], inv_width * grads[1])


MOTHERS = {
    "mexican_hat": lambda z: 2 / (3**0.5 * math.pi**0.25) * (z * z - 1) * math.exp(-z * z / 2),
    "morlet": lambda z: math.cos(5 * z) * math.exp(-z * z / 2),
    "dog": lambda z: -z * math.exp(-z * z / 2),
    "shannon": lambda z: math.sin(z) / z if z else 1.0,
}


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind", MOTHERS)
def test_wavelets_are_the_sum_over_edges(kind: str, backend: str) -> None:
    x, weight = torch.randn(3, 2, dtype=D), torch.randn(4, 2, 1, dtype=D)
    scale, shift = torch.rand(4, 2, dtype=D) + 0.5, torch.randn(4, 2, dtype=D)
    x[0, 0] = shift[1, 0]
    y = kan_linear(x, weight, basis="wavelet", kind=kind, scale=scale, shift=shift, backend=backend)
    for b in range(3):
        for o in range(4):
            total = sum(
                weight[o, i, 0] * MOTHERS[kind](((x[b, i] - shift[o, i]) / scale[o, i]).item())
                for i in range(2)
            )
            torch.testing.assert_close(y[b, o], total)


GELU = (
    (-0.00153969, 0.51692871, 0.44075827, 0.0972553, -0.00884418, -0.00378675),
    (-0.14171056, -0.06481231, -0.0444695, 0.01283776),
)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rational_functions_take_absolute_powers(backend: str) -> None:
    a, b = (torch.tensor([row], dtype=D) for row in GELU)
    x = torch.tensor([3.0, 1.0, -1.0], dtype=D)
    y = group_rational(x, a, b, backend=backend)
    expected = torch.tensor([1.5311, 0.8235, -0.1424], dtype=D)
    torch.testing.assert_close(y, expected, atol=5e-5, rtol=0)
    torch.testing.assert_close(group_rational(x, a, -b, backend=backend), y)
    identity = torch.tensor([[0.0, 1, 0, 0]], dtype=D), torch.zeros(1, 4, dtype=D)
    torch.testing.assert_close(group_rational(x, *identity, backend=backend), x)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_sign_of_zero_counts_as_plus_one(backend: str) -> None:
    x = torch.zeros(1, dtype=D, requires_grad=True)
    a = torch.tensor([[1.0, 0.5]], dtype=D)
    b = torch.tensor([[2.0]], dtype=D, requires_grad=True)
    (grad,) = torch.autograd.grad(group_rational(x, a, b, backend=backend).sum(), x)
    assert grad.item() == pytest.approx(0.5 - 2.0)
    zero = torch.zeros(1, 1, dtype=D, requires_grad=True)
    y = group_rational(torch.ones(1, dtype=D), a, zero, backend=backend)
    assert torch.autograd.grad(y.sum(), zero)[0].item() == pytest.approx(-1.5)


def test_every_basis_alone_is_what_the_layer_sums() -> None:
    x = torch.randn(5, 3, dtype=D)
    for basis, n in (("bspline", 8), ("gaussian", 8), ("rswaf", 8), ("chebyshev", 8)):
        weight = torch.randn(2, 3, n, dtype=D)
        phi: Tensor = kan_basis(x, basis)
        torch.testing.assert_close(
            kan_linear(x, weight, basis=basis), torch.einsum("bin,oin->bo", phi, weight)
        )
