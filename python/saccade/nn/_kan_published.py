"""Published Kolmogorov-Arnold layers over `saccade.ops.kan_linear`, with their states' names.

A module's state_dict has the keys and shapes of the package that it is named after, so that trained
weights load as they are: efficient-kan (7b6ce1c), fast-kan (17b6540), ChebyKAN, FourierKAN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saccade.ops.kan import kan_basis, kan_linear
from saccade.reference.kan import spline_knots


def _stack(layer: type[nn.Module], features: Sequence[int], options: dict[str, Any]) -> Any:
    if len(features) < 2:
        raise ValueError(
            f"features must name at least an input and an output width, got {list(features)}."
        )
    return nn.ModuleList(
        layer(wide_in, wide_out, **options) for wide_in, wide_out in itertools.pairwise(features)
    )


class BSplineKANLinear(nn.Module):
    r"""A silu branch and a spline on every edge, as efficient-kan has them.

    .. math:: y_o = \sum_i W^0_{oi} \mathrm{silu}(x_i) + c_{oi} \sum_n N_n(x_i) W_{oin}

    Args:
        in_features: I.
        out_features: O.
        grid_size: G intervals of the grid; default 5.
        spline_order: k; default 3.
        grid_range: [a, b]; default (-1, 1).
        scale_noise: of the splines at the start; default 0.1.
        scale_base: a = sqrt(5) * scale_base of the base weights' Kaiming draw; default 1.
        scale_spline: the same of the scaler's; default 1.
        spline_scaler: have one factor c an edge; default True.
        grid_eps: share of equal steps in `update_grid`, the rest being quantiles; default 0.02.
        out_of_range: see `saccade.ops.kan_basis`; default "zero", as published.
        backend: see `saccade.ops.kan_linear`.

    Shape:
        [..., I] -> [..., O].

    Source: efficient-kan; arXiv 2404.19756, equations 2.10 to 2.12.

    >>> BSplineKANLinear(16, 32)(torch.randn(2, 7, 16)).shape
    torch.Size([2, 7, 32])
    """

    grid: Tensor
    spline_weight: nn.Parameter
    spline_scaler: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        *,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        spline_scaler: bool = True,
        grid_eps: float = 0.02,
        out_of_range: str = "zero",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if min(in_features, out_features, grid_size) < 1 or spline_order < 0:
            raise ValueError(
                "in_features, out_features and grid_size must be at least 1 and spline_order at "
                f"least 0, got {in_features}, {out_features}, {grid_size} and {spline_order}."
            )
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order, self.grid_eps = grid_size, spline_order, grid_eps
        self.out_of_range, self.backend = out_of_range, backend
        self._scales = (scale_noise, scale_base, scale_spline)
        knots = spline_knots(grid_size, spline_order, *grid_range).to(torch.get_default_dtype())
        self.register_buffer("grid", knots.repeat(in_features, 1))
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(
            torch.empty(out_features, in_features, grid_size + spline_order)
        )
        self.spline_scaler = (
            nn.Parameter(torch.empty(out_features, in_features)) if spline_scaler else None
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew; the splines are a fit of noise U(-1/2, 1/2) scale_noise / G."""
        noise_scale, base, spline = self._scales
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5) * base)
        k = self.spline_order
        points = self.grid.mT[k : self.grid.shape[1] - k]
        noise = torch.rand(*points.shape, self.out_features, dtype=points.dtype) - 0.5
        noise = noise.to(points.device) * (noise_scale / self.grid_size)
        fitted = self.fit(points, noise)
        self.spline_weight.copy_(fitted if self.spline_scaler is not None else spline * fitted)
        if self.spline_scaler is not None:
            nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5) * spline)

    @property
    def weight(self) -> Tensor:
        """The splines' coefficients with their factors, [O, I, n]."""
        weight: Tensor = self.spline_weight
        if self.spline_scaler is not None:
            weight = weight * self.spline_scaler.unsqueeze(-1)
        return weight

    def _basis(self, x: Tensor) -> Tensor:
        return kan_basis(
            x, "bspline", grid=self.grid, order=self.spline_order, out_of_range=self.out_of_range
        )

    def fit(self, x: Tensor, values: Tensor) -> Tensor:
        """Coefficients [O, I, n] of the splines nearest to values [B, I, O] at x [B, I]."""
        # the minimum-norm solution, so that functions without data stay finite
        bases = self._basis(x).transpose(0, 1).double()
        solution: Tensor = torch.linalg.pinv(bases) @ values.transpose(0, 1).double()
        return solution.permute(2, 0, 1).to(x.dtype)

    @torch.no_grad()
    def update_grid(self, x: Tensor, margin: float = 0.01) -> None:
        """Move each input's knots to the quantiles of x [..., I], and refit its splines there.

        The grid is grid_eps times equal steps plus the rest quantiles, `margin` wider than the
        data; the coefficients are the least-squares fit of the old curves at x.
        """
        x = x.reshape(-1, self.in_features)
        if x.shape[0] < 1:
            raise ValueError("x must have at least 1 row to place a grid, got 0.")
        curves = torch.einsum("bin,oin->bio", self._basis(x), self.spline_weight)
        ordered = x.sort(0).values
        rows = torch.linspace(0, x.shape[0] - 1, self.grid_size + 1, device=x.device).long()
        low, high = ordered[0] - margin, ordered[-1] + margin
        step = (high - low) / self.grid_size
        ramp = torch.arange(self.grid_size + 1, dtype=x.dtype, device=x.device).unsqueeze(1)
        inner = self.grid_eps * (low + ramp * step) + (1 - self.grid_eps) * ordered[rows]
        reach = torch.arange(1, self.spline_order + 1, dtype=x.dtype, device=x.device).unsqueeze(1)
        grid = torch.cat([inner[:1] - step * reach.flip(0), inner, inner[-1:] + step * reach])
        self.grid.copy_(grid.mT)
        self.spline_weight.copy_(self.fit(x, curves))

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        return kan_linear(
            x,
            self.weight,
            basis="bspline",
            base_weight=self.base_weight,
            grid=self.grid,
            order=self.spline_order,
            out_of_range=self.out_of_range,
            backend=self.backend,
        )


class BSplineKAN(nn.Module):
    """A stack of `BSplineKANLinear`; loads efficient-kan's `layers.N.*`.

    Args:
        features: widths, [in, hidden ..., out].
        layer_options: the keyword arguments of `BSplineKANLinear`.

    Shape:
        [..., features[0]] -> [..., features[-1]].

    >>> sum(p.numel() for p in BSplineKAN([512, 512]).parameters())
    2621440
    """

    def __init__(self, features: Sequence[int], **layer_options: Any) -> None:
        super().__init__()
        self.layers = _stack(BSplineKANLinear, features, layer_options)

    def forward(self, x: Tensor, update_grid: bool = False) -> Tensor:
        """[..., features[0]] -> [..., features[-1]]; update_grid moves each layer's grid first."""
        for layer in self.layers:
            if update_grid:
                layer.update_grid(x)
            x = layer(x)
        return x


class _Centres(nn.Module):
    """Holds `grid`, the centres, where fast-kan's state has them."""

    def __init__(self, low: float, high: float, count: int) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.linspace(low, high, count), requires_grad=False)


class FastKANLayer(nn.Module):
    r"""Gaussians of the normalised input, and a Linear of its silu, as fast-kan has them.

    Args:
        in_features: I.
        out_features: O.
        num_basis: n centres; default 8.
        centre_range: first and last; default (-2, 2).
        width: default the distance of two centres.
        base: have the silu branch, with a bias, on the input before the norm; default True.
        layer_norm: default True.
        init_std: of the truncated normal that the coefficients start from; default 0.1.
        backend: see `saccade.ops.kan_linear`.

    Shape:
        [..., I] -> [..., O].

    Source: fast-kan; arXiv 2405.06721.

    >>> FastKANLayer(16, 32)(torch.randn(2, 7, 16)).shape
    torch.Size([2, 7, 32])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_basis: int = 8,
        *,
        centre_range: tuple[float, float] = (-2.0, 2.0),
        width: float | None = None,
        base: bool = True,
        layer_norm: bool = True,
        init_std: float = 0.1,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1 or num_basis < 2:
            raise ValueError(
                "in_features and out_features must be at least 1 and num_basis at least 2, "
                f"got {in_features}, {out_features} and {num_basis}."
            )
        low, high = centre_range
        self.num_basis, self.backend = num_basis, backend
        self.width = (high - low) / (num_basis - 1) if width is None else float(width)
        self.layernorm = nn.LayerNorm(in_features) if layer_norm else None
        self.rbf = _Centres(low, high, num_basis)
        self.spline_linear = nn.Linear(in_features * num_basis, out_features, bias=False)
        nn.init.trunc_normal_(self.spline_linear.weight, std=init_std)
        self.base_linear = nn.Linear(in_features, out_features) if base else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        u = x if self.layernorm is None else self.layernorm(x)
        y = kan_linear(
            u,
            self.spline_linear.weight.unflatten(1, (-1, self.num_basis)),
            basis="gaussian",
            centres=self.rbf.grid,
            width=self.width,
            backend=self.backend,
        )
        return y if self.base_linear is None else y + self.base_linear(nn.functional.silu(x))


class FastKAN(nn.Module):
    """A stack of `FastKANLayer`; loads fast-kan's `layers.N.*`.

    Args:
        features: widths, [in, hidden ..., out].
        layer_options: the keyword arguments of `FastKANLayer`.

    Shape:
        [..., features[0]] -> [..., features[-1]].

    >>> sum(p.numel() for p in FastKAN([512, 512]).parameters())
    2360840
    """

    def __init__(self, features: Sequence[int], **layer_options: Any) -> None:
        super().__init__()
        self.layers = _stack(FastKANLayer, features, layer_options)

    def forward(self, x: Tensor) -> Tensor:
        """[..., features[0]] -> [..., features[-1]]."""
        for layer in self.layers:
            x = layer(x)
        return x


class ChebyKANLayer(nn.Module):
    """Chebyshev polynomials of tanh x, finite in every gradient; loads ChebyKAN's `cheby_coeffs`.

    Args:
        in_features: I.
        out_features: O.
        degree: of the highest polynomial, n - 1 >= 0.
        backend: see `saccade.ops.kan_linear`.

    Shape:
        [..., I] -> [..., O].

    Source: ChebyKAN; arXiv 2405.07200.

    >>> ChebyKANLayer(16, 32, 4).cheby_coeffs.shape
    torch.Size([16, 32, 5])
    """

    def __init__(
        self, in_features: int, out_features: int, degree: int, *, backend: str = "auto"
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1 or degree < 0:
            raise ValueError(
                "in_features and out_features must be at least 1 and degree at least 0, "
                f"got {in_features}, {out_features} and {degree}."
            )
        self.backend = backend
        self.cheby_coeffs = nn.Parameter(torch.empty(in_features, out_features, degree + 1))
        nn.init.normal_(self.cheby_coeffs, std=1 / (in_features * (degree + 1)))

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        weight = self.cheby_coeffs.transpose(0, 1)
        return kan_linear(x, weight, basis="chebyshev", backend=self.backend)


class FourierKANLayer(nn.Module):
    """Cosines and sines of 1..g times x; loads FourierKAN's `fouriercoeffs` and `bias`.

    Args:
        in_features: I.
        out_features: O.
        frequencies: g >= 1; default 5.
        bias: default True.
        smooth: start frequency k with 1 / k^2 of the first one's deviation; default False.
        backend: see `saccade.ops.kan_linear`.

    Shape:
        [..., I] -> [..., O].

    Source: FourierKAN (GistNoesis).

    >>> FourierKANLayer(16, 32).fouriercoeffs.shape
    torch.Size([2, 32, 16, 5])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        frequencies: int = 5,
        *,
        bias: bool = True,
        smooth: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if min(in_features, out_features, frequencies) < 1:
            raise ValueError(
                "in_features, out_features and frequencies must be at least 1, "
                f"got {in_features}, {out_features} and {frequencies}."
            )
        self.backend = backend
        k = torch.arange(1, frequencies + 1)
        norm = k.float().square() if smooth else math.sqrt(frequencies)
        drawn = torch.randn(2, out_features, in_features, frequencies)
        self.fouriercoeffs = nn.Parameter(drawn / (math.sqrt(in_features) * norm))
        self.bias = nn.Parameter(torch.zeros(1, out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        weight = torch.cat([self.fouriercoeffs[0], self.fouriercoeffs[1]], -1)
        bias = None if self.bias is None else self.bias[0]
        return kan_linear(x, weight, basis="fourier", bias=bias, backend=self.backend)


class WavKANLayer(nn.Module):
    """One wavelet an edge with a scale and a shift of its own, then a batch norm, as Wav-KAN.

    Args:
        in_features: I.
        out_features: O.
        kind: see `saccade.ops.kan_basis`; default "mexican_hat".
        batch_norm: default True; it takes [B, I] inputs.
        backend: see `saccade.ops.kan_linear`.

    Shape:
        [..., I] -> [..., O].

    Source: Wav-KAN, arXiv 2405.12832, whose Hamming window of "shannon" is left out.

    >>> WavKANLayer(16, 32)(torch.randn(7, 16)).shape
    torch.Size([7, 32])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kind: str = "mexican_hat",
        *,
        batch_norm: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(
                "in_features and out_features must be at least 1, "
                f"got {in_features} and {out_features}."
            )
        self.kind, self.backend = kind, backend
        self.scale = nn.Parameter(torch.ones(out_features, in_features))
        self.translation = nn.Parameter(torch.zeros(out_features, in_features))
        self.wavelet_weights = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_uniform_(self.wavelet_weights, a=math.sqrt(5))
        self.bn = nn.BatchNorm1d(out_features) if batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        y = kan_linear(
            x,
            self.wavelet_weights.unsqueeze(-1),
            basis="wavelet",
            kind=self.kind,
            scale=self.scale,
            shift=self.translation,
            backend=self.backend,
        )
        if self.bn is None:
            return y
        normed: Tensor = self.bn(y)
        return normed
