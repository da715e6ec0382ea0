"""Kolmogorov-Arnold layers: a basis of every input feature, then one linear map.

    y[b, o] = sum_i sum_n Phi_n(x[b, i]) W[o, i, n]   (+ sum_i silu(x[b, i]) W0[o, i])   (+ bias[o])

Source: Liu et al., "KAN: Kolmogorov-Arnold Networks" (arXiv 2404.19756), equation 2.10, with the
    splines exchanged for
other bases as FastKAN (arXiv 2405.06721) and FasterKAN do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

RSWAF_RANGE = (-1.2, 0.2)
RSWAF_INV_WIDTH = 0.5


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
    centres: Tensor | Sequence[float] | None = None,
    inv_width: float | Tensor = RSWAF_INV_WIDTH,
    mode: str = "exact",
    num_basis: int = 8,
) -> Tensor:
    """Reflectional switch activations, Phi_n(x) = 1 - tanh^2((x - c_n) s).

    `mode="fasterkan"` repeats a slip of FasterKAN's code: the forward leaves s out, and the
    backward multiplies the derivative of that function by s.
    """
    if isinstance(inv_width, Tensor):
        inv_width = inv_width.to(x)
    if centres is None:
        centres = torch.linspace(*RSWAF_RANGE, num_basis, dtype=x.dtype, device=x.device)
    c = torch.as_tensor(centres, dtype=x.dtype, device=x.device)
    if mode == "fasterkan":
        x, inv_width = _ScaleGradient.apply(x, inv_width), 1.0
    return 1 - torch.tanh((x.unsqueeze(-1) - c) * inv_width).square()


BASES: dict[str, Callable[..., Tensor]] = {"rswaf": rswaf}


def kan_basis(x: Tensor, basis: str, **options: Any) -> Tensor:
    """The features Phi_n(x[..., i]), [..., I, n]; half types are computed in float32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return BASES[basis](x.to(wide), **options).to(x.dtype)


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
    features = BASES[basis](u, num_basis=weight.shape[-1], **options)
    y = features.flatten(-2) @ weight.to(wide).flatten(-2).mT
    if base_weight is not None:
        y = y + F.silu(u) @ base_weight.to(wide).mT
    if bias is not None:
        y = y + (bias if bias.dim() == 1 else bias.unsqueeze(-2)).to(y.dtype)
    # under autocast a float32 x gives the autocast dtype, as nn.Linear does
    return y if x.dtype == wide else y.to(x.dtype)
