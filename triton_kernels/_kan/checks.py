"""Second line of checks, for callers that skip `saccade.ops`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.triton_kernels._kan.bases import BSPLINE, FOURIER, GAUSSIAN, RSWAF, WAVELET
from saccade.triton_kernels._kan.forward import transform
from saccade.triton_kernels._launch import interpreted

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_types(**tensors: Tensor | None) -> None:
    """Raise NotImplementedError where a type or a device has no kernel."""
    first = next(tensor for tensor in tensors.values() if tensor is not None)
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dtype not in DTYPES:
            raise NotImplementedError(
                f"The Triton kernels take float32, float16 and bfloat16, got {name} in "
                f"{tensor.dtype}."
            )
        if tensor.device != first.device:
            raise ValueError(f"{name} must be on {first.device}, got {tensor.device}.")
        if interpreted(transform):
            if tensor.dtype == torch.bfloat16:
                raise NotImplementedError(
                    "Triton's interpreter computes bfloat16 wrongly: use float32 or float16 there."
                )
        elif tensor.device.type != "cuda":
            raise NotImplementedError(
                f"The Triton kernels run on a GPU, got tensors on {tensor.device}; with "
                "TRITON_INTERPRET=1 set before the first import they run on the CPU, in Triton's "
                "interpreter."
            )


def check_layer(
    x: Tensor,
    weight: Tensor,
    base_weight: Tensor | None,
    bias: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
) -> None:
    """Raise ValueError or NotImplementedError for arguments that do not go together."""
    check_types(
        x=x, weight=weight, base_weight=base_weight, bias=bias, points=points, scales=scales
    )
    if x.dim() != 3 or weight.dim() != 4 or 0 in (*x.shape, *weight.shape):
        raise ValueError(
            "x must be [h, M, I] and weight [h, O, I, n], neither empty, got shapes "
            f"{tuple(x.shape)} and {tuple(weight.shape)}."
        )
    heads, outputs, inputs, count = weight.shape
    check_shape("x", x, (heads, x.shape[1], inputs))
    check_shape("base_weight", base_weight, (heads, outputs, inputs))
    check_shape("bias", bias, (heads, outputs))
    needs = {BSPLINE: 1, GAUSSIAN: 2, RSWAF: 2, WAVELET: 2}.get(basis, 0)
    present = (points is not None) + (scales is not None)
    ints = {BSPLINE: 2, RSWAF: 1, FOURIER: 1, WAVELET: 1}.get(basis, 0)
    if not 0 <= basis <= WAVELET or present != needs or len(options) != ints:
        raise ValueError(
            f"basis {basis} takes {needs} of points and scales and {ints} options, got {present} "
            f"and {list(options)}."
        )
    if points is not None:
        if basis == BSPLINE:
            rows = inputs if points.shape[0] != 1 else 1
            check_shape("points", points, (rows, count + options[0] + 1))
        else:
            check_shape("points", points, weight.shape[:3] if basis == WAVELET else (count,))
    if scales is not None and basis == WAVELET:
        check_shape("scales", scales, weight.shape[:3])
    elif scales is not None and tuple(scales.shape) not in ((1,), (count,)):
        raise ValueError(f"scales must be [1] or [{count}], got {tuple(scales.shape)}.")


def check_rational(x: Tensor, numerator: Tensor, denominator: Tensor) -> None:
    """Raise ValueError or NotImplementedError for a rational function's tensors."""
    check_types(x=x, numerator=numerator, denominator=denominator)
    if x.dim() != 3 or numerator.dim() != 2 or denominator.dim() != 2 or x.numel() == 0:
        raise ValueError(
            "x must be [N, G, L] and not empty, numerator and denominator of rank 2, got shapes "
            f"{tuple(x.shape)}, {tuple(numerator.shape)} and {tuple(denominator.shape)}."
        )
    for name, tensor in (("numerator", numerator), ("denominator", denominator)):
        if tensor.shape[0] not in (1, x.shape[1]):
            raise ValueError(
                f"{name} must have 1 row or {x.shape[1]}, one a group, got {tensor.shape[0]}."
            )


def check_shape(name: str, tensor: Tensor | None, expected: Sequence[int]) -> None:
    """Raise ValueError where a tensor that is there has another shape."""
    if tensor is not None and tuple(tensor.shape) != tuple(expected):
        raise ValueError(f"{name} must have shape {tuple(expected)}, got {tuple(tensor.shape)}.")
