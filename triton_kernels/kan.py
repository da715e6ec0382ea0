"""Kolmogorov-Arnold layers in Triton: forward and backward, and the ops `saccade_triton::kan_*`.

    y[h, b, o] = sum_i sum_n Phi_n(x[h, b, i]) W[h, o, i, n]
                 (+ sum_i silu(x[h, b, i]) W0[h, o, i]) (+ bias[h, o])

Arguments and results are those of `saccade::kan_*`. Features are made tile by tile in registers, as
an operand of the product, in the forward and again in both products of the backward: none reaches
memory. Basis functions and sums are float32; a half type rounds the features once, to multiply
them. float32 is multiplied in full, not in TF32. Every sum has a fixed order, so that a backward
gives the same bits each time.

Source: Liu et al., arXiv 2404.19756, equation 2.10; the bases as in `saccade.ops.kan_basis`.
    Rational functions: Yang and Wang, arXiv 2409.10594, equation 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saccade.triton_kernels._kan.checks import check_layer, check_rational, check_shape, check_types
from saccade.triton_kernels._kan.launches import (
    backward_launches,
    forward_launch,
    rational_backward_launch,
    rational_forward_launch,
)
from saccade.triton_kernels._launch import device_of

__all__ = [
    "backward",
    "backward_op",
    "forward",
    "forward_op",
    "rational_backward",
    "rational_backward_op",
    "rational_forward",
    "rational_forward_op",
]

_LAYER = "Tensor? points, Tensor? scales, int basis, int[] options"
_SCHEMAS = {
    "kan_forward": (
        f"(Tensor x, Tensor weight, Tensor? base_weight, Tensor? bias, {_LAYER}) -> Tensor"
    ),
    "kan_backward": (
        f"(Tensor grad_out, Tensor x, Tensor weight, Tensor? base_weight, {_LAYER}, int[] wanted) "
        "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_base_weight, Tensor grad_bias, "
        "Tensor grad_points, Tensor grad_scales)"
    ),
    "kan_rational_forward": "(Tensor x, Tensor numerator, Tensor denominator) -> Tensor",
    "kan_rational_backward": (
        "(Tensor grad_out, Tensor x, Tensor numerator, Tensor denominator) "
        "-> (Tensor grad_x, Tensor grad_numerator, Tensor grad_denominator)"
    ),
}


def forward(
    x: Tensor,
    weight: Tensor,
    base_weight: Tensor | None,
    bias: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
) -> Tensor:
    """Expand x in a basis and map it.

    Args:
        x: [h, M, I], any strides; float32, float16 or bfloat16.
        weight: [h, O, I, n], any strides.
        base_weight: [h, O, I], of the silu term, or None.
        bias: [h, O], or None.
        points: knots [1 | I, n + k + 1], centres [n], or a wavelet's shift [h, O, I]; float32.
        scales: width or inverse width [1 | n], or a wavelet's scale [h, O, I]; float32.
        basis: 0 bspline, 1 gaussian, 2 rswaf, 3 chebyshev, 4 fourier, 5 wavelet.
        options: [order, out_of_range] of a spline, [mode] of rswaf, [include_dc] of fourier, [kind]
            of a wavelet.

    Returns:
        [h, M, O] in the dtype of weight, contiguous.

    Raises:
        ValueError: shapes, devices or options do not fit.
        NotImplementedError: the dtype or device has no kernel; the sentence says which.
    """
    check_layer(x, weight, base_weight, bias, points, scales, basis, options)
    launch, out = forward_launch(x, weight, base_weight, bias, points, scales, basis, options)
    with device_of(x):
        launch.run()
    return out


def backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    base_weight: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
    wanted: Sequence[int],
) -> tuple[Tensor, ...]:
    """Gradients of `forward` with respect to its tensors.

    The last argument, `wanted`, has a 0 or a 1 for x, weight, base_weight, bias, points and scales.

    Returns:
        Their gradients: shape and dtype of the input; of shape [0] where not wanted or not there.

    Notes:
        The features are made again. Sums over rows that are shared by programs go to float32
        tables, whose number depends on the sizes alone, and are added in a fixed order. A wanted
        gradient of the knots with out_of_range "extend" raises NotImplementedError.
    """
    check_layer(x, weight, base_weight, None, points, scales, basis, options)
    check_types(grad_out=grad_out)
    check_shape("grad_out", grad_out, (*x.shape[:2], weight.shape[1]))
    if basis == 0 and options[1] == 2 and wanted[4]:
        raise NotImplementedError(
            'The Triton kernels have no gradient of the knots with out_of_range "extend".'
        )
    launches, gradients = backward_launches(
        grad_out, x, weight, base_weight, points, scales, basis, options, wanted
    )
    inputs = {
        "x": x, "weight": weight, "base_weight": base_weight, "bias": None, "points": points,
        "scales": scales,
    }  # fmt: skip
    with device_of(x):
        for launch in launches:
            launch.run()
        return gradients.collect(inputs, weight)


def rational_forward(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """Evaluate P / Q of every group.

    Args:
        x: [N, G, L], any strides; float32, float16 or bfloat16.
        numerator: [1 | G, m], a_0 .. a_{m-1}.
        denominator: [1 | G, n], b_1 .. b_n.

    Returns:
        The shape and dtype of x, contiguous.
    """
    check_rational(x, numerator, denominator)
    launch, out = rational_forward_launch(x, numerator, denominator)
    with device_of(x):
        launch.run()
    return out


def rational_backward(
    grad_out: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of `rational_forward`; those of coefficients are summed over tiles in a fixed
    order.
    """
    check_rational(x, numerator, denominator)
    check_types(grad_out=grad_out)
    check_shape("grad_out", grad_out, x.shape)
    launch, gradients = rational_backward_launch(grad_out, x, numerator, denominator)
    with device_of(x):
        launch.run()
        return gradients.collect({"x": x, "numerator": numerator, "denominator": denominator}, x)


def _fake_forward(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return weight.new_empty((*x.shape[:-1], weight.shape[1]))


def _fake_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    base_weight: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
    wanted: Sequence[int],
) -> tuple[Tensor, ...]:
    def empty(like: Tensor | None, place: int) -> Tensor:
        if like is None or not wanted[place]:
            return (weight if like is None else like).new_empty(0)
        return like.new_empty(like.shape)

    return (
        empty(x, 0),
        torch.empty_like(weight) if wanted[1] else weight.new_empty(0),
        empty(base_weight, 2),
        weight.new_empty(weight.shape[:2] if wanted[3] else (0,)),
        empty(points, 4),
        empty(scales, 5),
    )


def _fake_rational_forward(x: Tensor, *_: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _fake_rational_backward(grad_out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in inputs)


def _register() -> None:
    """Define the ops once in a process: a second import of this module finds them."""
    implementations = {
        "kan_forward": (forward, _fake_forward),
        "kan_backward": (backward, _fake_backward),
        "kan_rational_forward": (rational_forward, _fake_rational_forward),
        "kan_rational_backward": (rational_backward, _fake_rational_backward),
    }
    for name, (function, fake) in implementations.items():
        if not hasattr(torch.ops.saccade_triton, name):
            operator = f"saccade_triton::{name}"
            torch.library.define(operator, _SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(operator, ("cpu", "cuda"), function)
            torch.library.register_fake(operator, fake)


_register()
forward_op = torch.ops.saccade_triton.kan_forward.default
backward_op = torch.ops.saccade_triton.kan_backward.default
rational_forward_op = torch.ops.saccade_triton.kan_rational_forward.default
rational_backward_op = torch.ops.saccade_triton.kan_rational_backward.default
