"""Kolmogorov-Arnold layers: a basis of every input feature, then one linear map.

    y[b, o] = sum_i sum_n Phi_n(x[b, i]) W[o, i, n]   (+ sum_i silu(x[b, i]) W0[o, i])   (+ bias[o])

Source: Liu et al., "KAN: Kolmogorov-Arnold Networks" (arXiv 2404.19756), equation 2.10; the splines
    may be exchanged for the bases of FastKAN (arXiv 2405.06721), FasterKAN, ChebyKAN
    (arXiv 2405.07200), FourierKAN and Wav-KAN (arXiv 2405.12832). The rational functions are those
    of the Kolmogorov-Arnold transformer (arXiv 2409.10594), equation 9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.reference._kan_bases import BASES, group_rational, psi, rswaf, spline_knots

__all__ = ["BASES", "group_rational", "kan_basis", "kan_linear", "psi", "rswaf", "spline_knots"]


def kan_basis(x: Tensor, basis: str, **options: Any) -> Tensor:
    """The features Phi_n(x[..., i]), [..., I, n]; half types are computed in float32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    expand: Callable[..., Tensor] = BASES[basis]
    return expand(x.to(wide), **options).to(x.dtype)


def kan_linear(
    x: Tensor,
    weight: Tensor,
    *,
    basis: str,
    base_weight: Tensor | None = None,
    bias: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The layer of this file's formula; weight [O, I, n], or [h, O, I, n] with x [..., h, M, I]."""
    wide = torch.promote_types(x.dtype, torch.float32)
    u = x.to(wide)
    if basis == "wavelet":
        # a function an edge, not a basis that the outputs share
        y = torch.einsum("...io,...oi->...o", BASES[basis](u, **options), _rows(weight.to(wide)))
    else:
        features = BASES[basis](u, num_basis=weight.shape[-1], **options)
        y = features.flatten(-2) @ weight.to(wide).flatten(-2).mT
    if base_weight is not None:
        y = y + F.silu(u) @ base_weight.to(wide).mT
    if bias is not None:
        y = y + (bias if bias.dim() == 1 else bias.unsqueeze(-2)).to(y.dtype)
    # under autocast a float32 x gives the autocast dtype, as nn.Linear does
    return y if x.dtype == wide else y.to(x.dtype)


def _rows(weight: Tensor) -> Tensor:
    """[O, I, 1] as [O, I]; [h, O, I, 1] as [h, 1, O, I], which goes along with x [h, M, I]."""
    edges = weight.squeeze(-1)
    return edges if edges.dim() == 2 else edges.unsqueeze(-3)
