"""Modules over `saccade.ops.kan_linear`: one Kolmogorov-Arnold layer, and stacks of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saccade.nn._group_rational import GroupRational
from saccade.nn._kan_published import (
    BSplineKAN,
    BSplineKANLinear,
    ChebyKANLayer,
    FastKAN,
    FastKANLayer,
    FourierKANLayer,
    WavKANLayer,
)
from saccade.ops.kan import kan_linear

__all__ = [
    "BSplineKAN",
    "BSplineKANLinear",
    "ChebyKANLayer",
    "FastKAN",
    "FastKANLayer",
    "FasterKAN",
    "FourierKANLayer",
    "GroupRational",
    "KANLinear",
    "WavKANLayer",
]


class KANLinear(nn.Module):
    r"""A Kolmogorov-Arnold layer: LayerNorm, then a learnable sum of basis functions on every edge.

    .. math::
        y_o = \sum_i \sum_n \Phi_n(\mathrm{LN}(x)_i) W_{oin}
        \; (+ \sum_i \mathrm{silu}(x_i) W^0_{oi}) \; (+ b_o)

    Args:
        in_features: I.
        out_features: O.
        basis: "rswaf", whose centres and width are this module's; other bases have modules of their
            own.
        num_basis: n, functions an edge; default 8.
        layer_norm: normalise the basis branch's input; default True.
        base: add the silu branch, on the input before the norm; default False.
        bias: add a bias; default False.
        centre_range: first and last of the n equal steps of centres; default (-1.2, 0.2),
            FasterKAN's.
        inv_width: inverse width; default 0.5, FasterKAN's.
        mode: "exact" or "fasterkan", see `saccade.ops.kan_basis`.
        learnable_centres: make the centres a parameter (a buffer otherwise); mode "exact" only.
        learnable_width: make the inverse width a parameter; mode "exact" only.
        backend: see `saccade.ops.kan_linear`.

    Shape:
        [..., I] -> [..., O].

    Source: FasterKAN; MedViTV2 (arXiv 2502.13693). Weights start Xavier-uniform over [O, I * n] as
        FasterKAN's do.

    >>> layer = KANLinear(16, 32)
    >>> layer(torch.randn(2, 7, 16)).shape, layer.weight.shape
    (torch.Size([2, 7, 32]), torch.Size([32, 16, 8]))
    """

    centres: Tensor
    inv_width: float | nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: str = "rswaf",
        num_basis: int = 8,
        *,
        layer_norm: bool = True,
        base: bool = False,
        bias: bool = False,
        centre_range: tuple[float, float] = (-1.2, 0.2),
        inv_width: float = 0.5,
        mode: str = "exact",
        learnable_centres: bool = False,
        learnable_width: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, num_basis) < 1:
            raise ValueError(
                "in_features, out_features and num_basis must be at least 1, "
                f"got {in_features}, {out_features} and {num_basis}."
            )
        if mode == "fasterkan" and (learnable_centres or learnable_width):
            raise ValueError(
                'centres and width are constants in mode "fasterkan"; use mode="exact" '
                "to learn them."
            )
        self.in_features, self.out_features, self.num_basis = in_features, out_features, num_basis
        self.basis, self.mode, self.backend = basis, mode, backend
        self.centre_range = (float(centre_range[0]), float(centre_range[1]))
        self._inv_width = float(inv_width)

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.layernorm = (
            nn.LayerNorm(in_features, device=device, dtype=dtype) if layer_norm else None
        )
        self.weight = empty(out_features, in_features, num_basis)
        self.base_weight = empty(out_features, in_features) if base else None
        self.bias = empty(out_features) if bias else None
        self.inv_width = empty() if learnable_width else self._inv_width
        if learnable_centres:
            self.centres = empty(num_basis)
        else:
            self.register_buffer("centres", torch.empty(num_basis, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, and put centres and width back."""
        nn.init.xavier_uniform_(self.weight.flatten(1))
        if self.base_weight is not None:
            nn.init.xavier_uniform_(self.base_weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if isinstance(self.inv_width, nn.Parameter):
            self.inv_width.fill_(self._inv_width)
        self.centres.copy_(torch.linspace(*self.centre_range, self.num_basis))

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        u = x if self.layernorm is None else self.layernorm(x)
        y = kan_linear(
            u,
            self.weight,
            basis=self.basis,
            bias=self.bias,
            backend=self.backend,
            centres=self.centres,
            inv_width=self.inv_width,
            mode=self.mode,
        )
        if self.base_weight is None:
            return y
        return y + nn.functional.linear(nn.functional.silu(x), self.base_weight)

    def extra_repr(self) -> str:
        """The arguments, as they stand in `repr`."""
        return (
            f"{self.in_features}, {self.out_features}, basis={self.basis!r}, "
            f"num_basis={self.num_basis}, centre_range={self.centre_range}, "
            f"inv_width={self._inv_width:.4g}, mode={self.mode!r}"
        )


class FasterKAN(nn.Module):
    """A stack of `KANLinear` layers, each with its LayerNorm, as FasterKAN writes it.

    Args:
        features: widths, [in, hidden ..., out]; at least 2. [C, H, C] has 16 C H + 2 C + 2 H
            parameters at 8 functions.
        layer_options: the keyword arguments of `KANLinear`.

    Shape:
        [..., features[0]] -> [..., features[-1]].

    >>> sum(p.numel() for p in FasterKAN([32, 64, 32]).parameters())
    32960
    """

    def __init__(self, features: Sequence[int], **layer_options: Any) -> None:
        super().__init__()
        if len(features) < 2:
            raise ValueError(
                f"features must name at least an input and an output width, got {list(features)}."
            )
        pairs = itertools.pairwise(features)
        self.layers = nn.Sequential(
            *(KANLinear(wide_in, wide_out, **layer_options) for wide_in, wide_out in pairs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., features[0]] -> [..., features[-1]]."""
        y: Tensor = self.layers(x)
        return y

    @staticmethod
    def map_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state_dict of the package faster-kan with this module's names.

        | faster-kan (3bcabc2) | here |
        | --- | --- |
        | `layers.N.spline_linear.weight` [O, I * n] | `layers.N.weight` [O, I, n] |
        | `layers.N.rbf.grid` | `layers.N.centres` |
        | `layers.N.rbf.inv_denominator` | argument inv_width, mode="fasterkan" |
        | `layers.N.layernorm.*` | the same |
        """
        mapped = {}
        for key, value in state.items():
            if key.endswith("rbf.inv_denominator"):
                continue
            if key.endswith("spline_linear.weight"):
                count = state[key.replace("spline_linear.weight", "rbf.grid")].numel()
                mapped[key.replace("spline_linear.weight", "weight")] = value.unflatten(
                    1, (-1, count)
                )
            else:
                mapped[key.replace("rbf.grid", "centres")] = value
        return mapped
