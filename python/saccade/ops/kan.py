"""Kolmogorov-Arnold layers: `kan_basis` and `kan_linear`, on the reference rung so far."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from saccade.ops import _checks
from saccade.ops._select import offer, select
from saccade.reference import kan as reference

offer("kan_linear")

PLANNED_BASES = ("bspline", "gaussian", "chebyshev", "fourier", "wavelet")
OPTIONS = {"rswaf": ("centres", "inv_width", "mode")}
RSWAF_MODES = ("exact", "fasterkan")


def kan_basis(x: Tensor, basis: str, **options: Any) -> Tensor:
    r"""Expand every feature of x in a basis of functions.

    rswaf: :math:`\Phi_n(x) = 1 - \tanh^2((x - c_n) s)`, centres c and inverse width s.

    Args:
        x: [..., I], any floating dtype, any strides.
        basis: "rswaf".
        options: `centres` [n], tensor (may want a gradient) or numbers, default 8 from -1.2 to 0.2;
            `inv_width`, above 0, a number or a tensor (one, or [n]; may want a gradient), default
            0.5; `mode`, "exact" (default) or "fasterkan".

    Returns:
        [..., I, n] in the dtype of x.

    Raises:
        ValueError: an option's value or shape is wrong, or the basis is unknown.
        TypeError: x is not a floating tensor, or the basis has no such option.
        NotImplementedError: a basis that has not landed.

    Notes:
        One tensor of the output's size is kept for the backward pass (tanh, in at least float32).
        Deterministic; differentiable to any order in mode "exact". Mode "fasterkan" repeats
        FasterKAN's published code: the forward leaves inv_width out, the gradient of x is
        multiplied by it; centres and inv_width are constants there.

    Source: FasterKAN's reflectional switch activation functions; MedViTV2 (arXiv 2502.13693) uses
        mode "exact" with centres linspace(-2, 2, 8) and inv_width 1 / 0.33.

    >>> kan_basis(torch.zeros(3), "rswaf", centres=[-1.0, 0.0, 1.0], inv_width=1.0)[0]
    tensor([0.4200, 1.0000, 0.4200])
    """
    _check_x(x)
    _check_options(basis, options, num_basis=None)
    return reference.kan_basis(x, basis, **options)


def kan_linear(
    x: Tensor,
    weight: Tensor,
    *,
    basis: str,
    base_weight: Tensor | None = None,
    bias: Tensor | None = None,
    backend: str = "auto",
    **options: Any,
) -> Tensor:
    r"""Apply a learnable sum of basis functions on every edge from input i to output o.

    .. math::
        y_o = \sum_i \sum_n \Phi_n(x_i) W_{oin} \; (+ \sum_i \mathrm{silu}(x_i) W^0_{oi})
        \; (+ b_o)

    Args:
        x: [..., I]; or [..., h, M, I] for one map a head.
        weight: [O, I, n], n >= 1; or [h, O, I, n].
        basis: "rswaf".
        base_weight: [O, I] ([h, O, I]), the silu branch; default none.
        bias: [O] ([h, O]); default none.
        backend: "auto" or "reference": this operator has no kernels yet.
        options: those of `kan_basis`; centres default to n from -1.2 to 0.2.

    Returns:
        [..., O] ([..., h, M, O]) in the dtype of x; under autocast in the autocast dtype, the basis
        in float32.

    Raises:
        ValueError: shapes, dtypes, devices, option values or the backend's name are wrong.
        TypeError: a tensor is not floating, or the basis has no such option.
        NotImplementedError: a basis that has not landed.
        RuntimeError: a backend whose kernel has not landed.

    Notes:
        2 * B * I * O * n flops for B rows, and B * I * n features in memory, twice while gradients
        are wanted (the features, and tanh). Deterministic where torch's matmul is.

    Source: arXiv 2404.19756, equation 2.10; the bases as in `kan_basis`.

    >>> x, weight = torch.randn(4, 5, 16), torch.randn(32, 16, 8)
    >>> kan_linear(x, weight, basis="rswaf").shape
    torch.Size([4, 5, 32])
    """
    _check_x(x)
    _check_weights(x, weight, base_weight, bias)
    _check_options(basis, options, num_basis=weight.shape[-1])
    select("kan_linear", backend, x)
    return reference.kan_linear(
        x, weight, basis=basis, base_weight=base_weight, bias=bias, **options
    )


def _check_x(x: Tensor) -> None:
    _checks.floating_tensor("x", x)
    if x.dim() < 1:
        raise ValueError("x must be [..., I] with at least 1 axis, got a tensor of rank 0.")


def _check_weights(
    x: Tensor, weight: Tensor, base_weight: Tensor | None, bias: Tensor | None
) -> None:
    _checks.floating_tensor("weight", weight)
    if weight.dim() not in (3, 4):
        raise ValueError(
            f"weight must be [O, I, n] or [h, O, I, n], got shape {tuple(weight.shape)}."
        )
    *heads, out_features, in_features, num_basis = weight.shape
    if num_basis < 1:
        raise ValueError(
            f"weight must hold at least 1 basis function, got shape {tuple(weight.shape)}."
        )
    if x.shape[-1] != in_features:
        raise ValueError(
            f"the last axis of x must be I = {in_features} as in weight, got {x.shape[-1]}."
        )
    if heads and (x.dim() < 3 or x.shape[-3] != heads[0]):
        raise ValueError(
            f"x must be [..., h = {heads[0]}, M, I] as weight has heads, "
            f"got shape {tuple(x.shape)}."
        )
    letters = "[h, O" if heads else "[O"
    if base_weight is not None:
        _checks.shape(
            "base_weight", base_weight, [*heads, out_features, in_features], f"{letters}, I]"
        )
    if bias is not None:
        _checks.shape("bias", bias, [*heads, out_features], f"{letters}]")
    # autocast decides the type of the product, whatever types come in
    kind = x.device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    for name, tensor in (("weight", weight), ("base_weight", base_weight), ("bias", bias)):
        if tensor is not None:
            _checks.floating_tensor(name, tensor)
            if not autocast or tensor.device != x.device:
                _checks.like(name, tensor, "x", x)


def _check_options(basis: str, options: dict[str, Any], num_basis: int | None) -> None:
    if basis in PLANNED_BASES:
        raise NotImplementedError(f'basis "{basis}" has not landed; this version has "rswaf".')
    if basis not in OPTIONS:
        raise ValueError(f'basis must be "rswaf", got {basis!r}.')
    unknown = sorted(set(options) - set(OPTIONS[basis]))
    if unknown:
        raise TypeError(
            f'basis "{basis}" has no option {", ".join(unknown)}; '
            f"it has {', '.join(OPTIONS[basis])}."
        )
    _check_rswaf(num_basis, **options)


def _check_rswaf(
    num_basis: int | None,
    centres: Any = None,
    inv_width: Any = reference.RSWAF_INV_WIDTH,
    mode: str = "exact",
) -> None:
    if mode not in RSWAF_MODES:
        raise ValueError(f'mode must be "exact" or "fasterkan", got {mode!r}.')
    count = num_basis or 8
    if centres is not None:
        shape = tuple(centres.shape) if isinstance(centres, Tensor) else (len(centres),)
        if len(shape) != 1 or shape[0] < 1 or num_basis not in (None, shape[0]):
            raise ValueError(f"centres must have shape ({num_basis or 'n'},), got {shape}.")
        count = shape[0]
    if isinstance(inv_width, Tensor):
        allowed = [(), (1,)] if mode == "fasterkan" else [(), (1,), (count,)]
        if tuple(inv_width.shape) not in allowed:
            raise ValueError(
                f"inv_width must have one of the shapes {allowed}, got {tuple(inv_width.shape)}."
            )
    elif not 0 < inv_width < math.inf:
        raise ValueError(f"inv_width must be finite and above 0, got {inv_width}.")
    for name, value in (("centres", centres), ("inv_width", inv_width)):
        if mode == "fasterkan" and isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(
                f'{name} cannot want a gradient in mode "fasterkan", whose published gradient for '
                'it is no derivative; use mode="exact".'
            )
