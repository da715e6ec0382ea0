"""The published layers: their state loads by its own names, and computes what the formulas say.

The formulas are written here from the packages' definitions, without Saccade's operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import saccade.nn as kan
from saccade.nn._group_rational import INITIAL

I, O = 6, 5  # noqa: E741


def de_boor(x: Tensor, grid: Tensor, order: int) -> Tensor:
    """efficient-kan's b_splines."""
    x = x.unsqueeze(-1)
    b = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
    for k in range(1, order + 1):
        left = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
        right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k])
        b = left * b[:, :, :-1] + right * b[:, :, 1:]
    return b


def knots() -> Tensor:
    return torch.arange(-3, 9).float() * 0.4 - 1


def efficient_kan(x: Tensor, s: dict[str, Tensor]) -> Tensor:
    weight = s["layers.0.spline_weight"] * s["layers.0.spline_scaler"].unsqueeze(-1)
    spline = F.linear(de_boor(x, s["layers.0.grid"], 3).flatten(1), weight.flatten(1))
    return F.linear(F.silu(x), s["layers.0.base_weight"]) + spline


def fast_kan(x: Tensor, s: dict[str, Tensor]) -> Tensor:
    u = F.layer_norm(x, (I,), s["layers.0.layernorm.weight"], s["layers.0.layernorm.bias"])
    phi = torch.exp(-(((u[..., None] - s["layers.0.rbf.grid"]) / (4 / 7)) ** 2))
    y = F.linear(phi.flatten(1), s["layers.0.spline_linear.weight"])
    base = F.linear(F.silu(x), s["layers.0.base_linear.weight"], s["layers.0.base_linear.bias"])
    return y + base


def faster_kan(x: Tensor, s: dict[str, Tensor]) -> Tensor:
    u = F.layer_norm(x, (I,), s["layers.0.layernorm.weight"], s["layers.0.layernorm.bias"])
    phi = 1 - torch.tanh(u[..., None] - s["layers.0.rbf.grid"]) ** 2
    return F.linear(phi.flatten(1), s["layers.0.spline_linear.weight"])


def cheby_kan(x: Tensor, s: dict[str, Tensor]) -> Tensor:
    angle = torch.tanh(x).acos()[..., None] * torch.arange(5)
    return torch.einsum("bid,iod->bo", angle.cos(), s["cheby_coeffs"])


def fourier_kan(x: Tensor, s: dict[str, Tensor]) -> Tensor:
    angle = x[..., None] * torch.arange(1, 6)
    c = s["fouriercoeffs"]
    cos, sin = (
        torch.einsum("big,oig->bo", f, w) for f, w in ((angle.cos(), c[0]), (angle.sin(), c[1]))
    )
    return cos + sin + s["bias"]


NORM = {"layers.0.layernorm.weight": (I,), "layers.0.layernorm.bias": (I,)}
LOADED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], Callable[..., Tensor]]] = {
    "efficient-kan": (
        lambda: kan.BSplineKAN([I, O]),
        {
            "layers.0.grid": knots().repeat(I, 1),
            "layers.0.base_weight": (O, I),
            "layers.0.spline_weight": (O, I, 8),
            "layers.0.spline_scaler": (O, I),
        },
        efficient_kan,
    ),
    "fast-kan": (
        lambda: kan.FastKAN([I, O]),
        {
            **NORM,
            "layers.0.rbf.grid": torch.linspace(-2, 2, 8),
            "layers.0.spline_linear.weight": (O, 8 * I),
            "layers.0.base_linear.weight": (O, I),
            "layers.0.base_linear.bias": (O,),
        },
        fast_kan,
    ),
    "faster-kan": (
        lambda: kan.FasterKAN([I, O], mode="fasterkan"),
        {
            **NORM,
            "layers.0.rbf.grid": torch.linspace(-1.2, 0.2, 8),
            "layers.0.rbf.inv_denominator": torch.tensor(0.5),
            "layers.0.spline_linear.weight": (O, 8 * I),
        },
        faster_kan,
    ),
    "ChebyKAN": (lambda: kan.ChebyKANLayer(I, O, 4), {"cheby_coeffs": (I, O, 5)}, cheby_kan),
    "FourierKAN": (
        lambda: kan.FourierKANLayer(I, O),
        {"fouriercoeffs": (2, O, I, 5), "bias": (1, O)},
        fourier_kan,
    ),
}


@pytest.mark.parametrize("name", LOADED)
def test_published_states_load_and_compute_the_same(name: str) -> None:
    make, shapes, formula = LOADED[name]
    torch.manual_seed(0)
    state = {k: s if isinstance(s, Tensor) else torch.randn(s) for k, s in shapes.items()}
    module = make()
    mapped = kan.FasterKAN.map_published(state) if name == "faster-kan" else state
    module.load_state_dict(mapped, strict=True)
    x = torch.randn(9, I)
    torch.testing.assert_close(module(x), formula(x, state), rtol=1e-5, atol=1e-5)
    assert module(x.reshape(3, 3, I)).shape == (3, 3, O)


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (lambda: kan.BSplineKAN([512, 512]), 2_621_440),
        (lambda: kan.FastKAN([512, 512]), 2_360_840),
        (lambda: kan.ChebyKANLayer(12, 7, 4), 12 * 7 * 5),
        (lambda: kan.FourierKANLayer(12, 7, 3), 2 * 12 * 7 * 3 + 7),
        (lambda: kan.WavKANLayer(12, 7), 3 * 12 * 7 + 2 * 7),
        (lambda: kan.GroupRational(8), 6 + 8 * 4),
    ],
    ids=["bspline", "fast", "chebyshev", "fourier", "wavelet", "rational"],
)
def test_parameters(module: Callable[[], nn.Module], count: int) -> None:
    assert sum(p.numel() for p in module().parameters()) == count


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    for module in (
        kan.BSplineKAN([I, 4, O]),
        kan.FastKAN([I, 4, O]),
        kan.ChebyKANLayer(I, O, 4),
        kan.FourierKANLayer(I, O),
        kan.WavKANLayer(I, O),
        nn.Sequential(kan.GroupRational(2), nn.Linear(I, O)),
    ):
        module(torch.randn(20, I)).square().sum().backward()
        for name, p in module.named_parameters():
            if p.requires_grad:
                assert p.grad is not None, name
                assert p.grad.isfinite().all(), name
                assert p.grad.abs().max() > 0, name


def test_a_grid_follows_the_data_and_keeps_the_curves() -> None:
    torch.manual_seed(0)
    layer = kan.BSplineKANLinear(3, 4, scale_noise=5.0)
    x = torch.rand(400, 3) * torch.tensor([1.0, 0.5, 1.8]) - 0.5
    before = layer(x)
    layer.update_grid(x)
    # inner knots: the ends are the data's, widened by the margin's share
    assert (layer.grid[:, 3] <= x.amin(0) + 1e-3).all()
    assert (layer.grid[:, 8] >= x.amax(0) - 1e-3).all()
    assert (layer.grid.diff(dim=1) > 0).all()
    torch.testing.assert_close(layer(x), before, atol=0.05 * before.abs().max().item(), rtol=0)
    # the fit is the least-squares one: refitting its own curves changes nothing
    curves = torch.einsum("bin,oin->bio", layer._basis(x), layer.spline_weight)
    torch.testing.assert_close(layer.fit(x, curves), layer.spline_weight, atol=1e-3, rtol=1e-3)


def test_a_grid_of_equal_inputs_stays_finite() -> None:
    layer = kan.BSplineKANLinear(2, 3)
    layer.update_grid(torch.zeros(50, 2), margin=0.0)
    y = layer(torch.zeros(4, 2))
    assert y.isfinite().all()


REACHED = {
    "identity": (lambda x: x, 1e-6),
    "gelu": (lambda x: F.gelu(x), 1.6e-3),
    "gelu_old": (lambda x: F.gelu(x), 5e-3),
    "swish": (lambda x: F.silu(x), 1e-4),
    "tanh": (torch.tanh, 1e-4),
}


@pytest.mark.parametrize("init", REACHED)
def test_rational_functions_start_as_known_ones(init: str) -> None:
    function, bound = REACHED[init]
    x = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    module = kan.GroupRational(1, init=init).double()
    assert (module(x) - function(x)).abs().max() < bound
    assert set(INITIAL) == {*REACHED, "gelu_published"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: kan.BSplineKANLinear(0, 3), "got 0, 3, 5 and 3"),
        (lambda: kan.BSplineKAN([5]), r"got \[5\]"),
        (lambda: kan.FastKANLayer(3, 3, 1), "got 3, 3 and 1"),
        (lambda: kan.ChebyKANLayer(3, 3, -1), "got 3, 3 and -1"),
        (lambda: kan.FourierKANLayer(3, 3, 0), "got 3, 3 and 0"),
        (lambda: kan.WavKANLayer(3, 0), "got 3 and 0"),
        (lambda: kan.GroupRational(0), "got 0"),
        (lambda: kan.GroupRational(init="relu"), "'relu'"),
        (lambda: kan.BSplineKANLinear(3, 3).update_grid(torch.zeros(0, 3)), "got 0"),
    ],
)
def test_mistakes_get_a_sentence(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_smooth_fourier_starts_fall_with_the_square() -> None:
    torch.manual_seed(0)
    layer = kan.FourierKANLayer(200, 200, 4, smooth=True)
    deviations = layer.fouriercoeffs.std(dim=(0, 1, 2)) * math.sqrt(200)
    torch.testing.assert_close(deviations, 1 / torch.arange(1, 5.0) ** 2, rtol=0.05, atol=0)
