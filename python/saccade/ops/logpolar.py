"""Log-polar sampling around fixations, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import _checks
from saccade.ops import _logpolar_checks as _arguments
from saccade.ops import _logpolar_radii as _radii
from saccade.ops._kernels import wanted
from saccade.ops._logpolar_op import Inverse, Sample, compute_dtype, inverse, sample
from saccade.ops._select import cuda_obstacle, offer, select_reverse_mode, triton_obstacle
from saccade.reference.logpolar import MIP, pyramid

Radial: TypeAlias = str | tuple[str, float] | Tensor

PADDING_MODES = ("zeros", "border", "reflection")
ANTIALIAS = ("none", "area", "mip")
LAYOUTS = ("rt", "tr")


def _cpu(tensor: Tensor) -> str | None:
    if tensor.device.type not in ("cpu", "meta"):
        return f"the tensors are on {tensor.device}"
    return None if _load.has("_C") else _load.reason("_C")


def _cuda(tensor: Tensor) -> str | None:
    if tensor.dtype == torch.float64:
        return "the CUDA kernels compute in float32, float64 needs the reference"
    return cuda_obstacle(tensor)


def _triton(tensor: Tensor) -> str | None:
    if tensor.dtype == torch.float64:
        return "the Triton kernels compute in float32, float64 needs the reference"
    if tensor.dtype == torch.bfloat16 and not tensor.is_cuda:
        return "Triton's interpreter computes bfloat16 wrongly"
    return triton_obstacle("logpolar", tensor)


offer("logpolar", cpu=_cpu, cuda=_cuda, triton=_triton)


def logpolar_sample(
    image: Tensor,
    fixation: Tensor,
    *,
    out_size: int | Sequence[int],
    r_min: float = 1.0,
    r_max: float | None = None,
    theta0: float | Tensor = 0.0,
    scale: float | Tensor = 1.0,
    radial: Radial = "log",
    antialias: str = "area",
    padding_mode: str = "zeros",
    units: str = "pixel",
    layout: str = "rt",
    backend: str = "auto",
) -> Tensor:
    r"""Sample images on rings and rays around fixations: fine at the fixation, coarse far from it.

    .. math:: O_{kj} = I(p + s\, r_k (\cos\theta_j, \sin\theta_j)), \quad
              r_k = r_{min} (r_{max} / r_{min})^{k / (R - 1)}, \quad
              \theta_j = \theta_0 + 2 \pi j / T

    Both end radii belong to the map, the angle 2 pi does not: the rays are periodic. y points down,
    so angles run clockwise on the screen. A rotation about the fixation is a shift along the rays,
    a zoom a shift along the rings. I is bilinear between pixels; pixel centres are integers.

    Args:
        image: [B, C, H, W] in float64, float32, float16, bfloat16 or uint8, any strides.
        fixation: p [B, N, 2], floating, (x, y): N fixations an image, which is not copied for them.
        out_size: (R, T), rings and rays, or one int for both.
        r_min: the first radius, above 0 (at least 0 for "linear" and "cmf"). Default 1.
        r_max: the last radius, above r_min; None: min(H, W) / 2.
        theta0: the angle of ray 0 in radians, a number or a tensor [] or [B, N]. Default 0.
        scale: s, multiplies every radius, a number or a tensor [] or [B, N]. Default 1.
        radial: the radii. "log", above; "linear", r_min to r_max in equal steps; ("cmf", a), the
            cortical magnification 1 / (r + a): equal steps of ln(r + a); "log1p", the radii of
            OpenCV's warpPolar, r_max ** (k / R) - 1, which use no r_min; or a tensor [R] of radii
            that increase.
        antialias: "none" reads one point a sample. "area", the default, takes the mean over the
            sample's cell, which reaches half a step to every side, on a grid of taps about 4/3
            pixels apart (at most 64 a side). "mip" reads a pyramid of six halvings, which is made
            once an image.
        padding_mode: "zeros", "border" or "reflection" (about the outer edges of the border
            pixels), as in torch's grid_sample with align_corners=False. Default "zeros".
        units: "pixel", or "normalized": fixations in [-1, 1] between the outer edges of the image,
            radii in half widths along x and half heights along y.
        layout: "rt", the default, or "tr" with rays before rings.
        backend: "auto" takes the fastest rung that can run (:func:`saccade.ops.explain` says which
            and why); "cpu", "cuda", "triton" and "reference" are taken or refused, never replaced.

    Returns:
        [B, N, C, R, T], or [B, N, C, T, R], a view, for "tr"; in the type of image (float32 for
        uint8, from 0 to 255). Differentiable by image, fixation, theta0 and scale. All NaN, without
        gradients, where a fixation, its theta0 or its scale is not finite.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, devices or numbers do not fit together.
        NotImplementedError: sparse and nested tensors; a gradient by radial; forward-mode
            derivatives with a forced backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: B N R T positions of 4 taps a channel; with "area" about 0.6 positions a pixel of the
        disc, and at least 1 a sample. No grid of coordinates is made.

        Deterministic, backward included; on the CPU the bits do not depend on the number of
        threads. Half types are computed in float32 and rounded once. Coordinates are held in
        float32 (float64 for a float64 image), under autocast too: autocast casts nothing here.

        The gradients take the number of taps and the levels of the pyramid as constants.
        Forward-mode derivatives (torch.func.jvp) run on the reference. vmap folds the mapped axis
        into the batch. torch.compile traces one graph; batch and image sizes may be dynamic, with
        "mip" from 65 pixels a side on.

    Source:
        Foveated retinotopy, arXiv 2402.15480, section 2. "log1p": OpenCV, warpPolar with
        WARP_POLAR_LOG. "cmf": Schwartz, Biological Cybernetics 25 (1977), the complex logarithm of
        r + a along a ray.

    >>> import torch
    >>> image, fixation = torch.rand(2, 3, 64, 64), torch.tensor([[[32.0, 20.0]], [[8.0, 8.0]]])
    >>> logpolar_sample(image, fixation, out_size=(16, 32), r_max=24.0).shape
    torch.Size([2, 1, 3, 16, 32])
    """
    _arguments.image(image)
    rings, rays = _checks.positive_ints("out_size", out_size, 2)
    law = _radii.parse(radial, rings, r_min, r_max, image.shape[2], image.shape[3], units)
    padding = _arguments.code("padding_mode", padding_mode, PADDING_MODES)
    filtering = _arguments.code("antialias", antialias, ANTIALIAS)
    transposed = _arguments.code("layout", layout, LAYOUTS)
    pose = _arguments.pose(fixation, theta0, scale, "image", image)
    dtype = compute_dtype(image.dtype)
    radii, edges = _radii.tables(law, rings, dtype, image)
    levels = pyramid(image.to(dtype)) if filtering == MIP else None

    rung = select_reverse_mode("logpolar", backend, image)
    tensors = (image, levels, *pose, radii, edges)
    static = (rays, units == "normalized", padding, filtering)
    if rung == "reference":
        out = reference.logpolar_sample(*tensors, *static)
    elif wanted(*tensors):
        out = Sample.apply(*tensors, *static, rung)
    else:
        out = sample(rung, *tensors, *static)
    return out.transpose(-1, -2) if transposed else out


def logpolar_inverse(
    logpolar: Tensor,
    fixation: Tensor,
    size: int | Sequence[int],
    *,
    r_min: float = 1.0,
    r_max: float | None = None,
    theta0: float | Tensor = 0.0,
    scale: float | Tensor = 1.0,
    radial: Radial = "log",
    units: str = "pixel",
    layout: str = "rt",
    blend: str = "mean",
    fill: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    r"""Put log-polar maps back into an image: every pixel reads the map where it was sampled.

    .. math:: u = (R - 1) \frac{\log (r / r_{min})}{\log (r_{max} / r_{min})}, \quad
              v = \frac{T}{2 \pi} (\theta - \theta_0)

    A pixel at radius r s and angle theta from the fixation is the map at ring u and ray v, bilinear
    and around the circle. Within the first ring it is that ring, below half of its radius the
    ring's mean. Beyond the last ring the fixation does not cover it.

    Args:
        logpolar: [B, N, C, R, T] in float64, float32, float16 or bfloat16, any strides.
        fixation: p [B, N, 2], floating, (x, y).
        size: (H, W) of the image, or one int for both.
        r_min: as it was sampled, like the following. Default 1.
        r_max: None: min(H, W) / 2.
        theta0: a number or a tensor [] or [B, N]. Default 0.
        scale: a number or a tensor [] or [B, N]. Default 1.
        radial: "log", "linear", ("cmf", a), "log1p" or a tensor [R]; between the radii of a tensor
            the map is linear in r.
        units: "pixel" or "normalized".
        layout: "rt", or "tr": logpolar is [B, N, C, T, R].
        blend: "mean", the default: a pixel is the mean of the fixations that cover it; "none": an
            image for every fixation.
        fill: value of pixels that no fixation covers. Default 0.
        backend: as in :func:`logpolar_sample`.

    Returns:
        [B, C, H, W], or [B, N, C, H, W] for "none", in the type of logpolar. Differentiable by
        logpolar, fixation, theta0 and scale. A fixation that is not finite makes its image NaN;
        with "mean", the image of its batch entry.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, devices or numbers do not fit together.
        NotImplementedError: sparse and nested tensors; a gradient by radial; forward-mode
            derivatives with a forced backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: one logarithm, one arc tangent and 4 taps a channel for every pixel and fixation.

        Deterministic, backward included; on the CPU the bits do not depend on the number of
        threads. Half types are computed in float32 and rounded once; autocast casts nothing.
        Sampling and its inverse are not adjoint: :func:`logpolar_sample`'s backward is its adjoint.

    Source:
        Foveated retinotopy, arXiv 2402.15480, section 2, solved for the position in the map.

    >>> import torch
    >>> fixation = torch.tensor([[[32.0, 32.0]]])
    >>> logpolar_inverse(torch.rand(1, 1, 3, 16, 32), fixation, (64, 64)).shape
    torch.Size([1, 3, 64, 64])
    """
    _checks.floating_tensor("logpolar", logpolar)
    transposed = _arguments.code("layout", layout, LAYOUTS)
    if transposed and logpolar.dim() == 5:
        logpolar = logpolar.transpose(-1, -2)
    _arguments.logpolar(logpolar)
    height, width = _checks.positive_ints("size", size, 2)
    rings = logpolar.shape[3]
    law = _radii.parse(radial, rings, r_min, r_max, height, width, units)
    mean = _arguments.code("blend", blend, ("mean", "none")) == 0
    fill = _checks.finite_number("fill", fill)
    pose = _arguments.pose(fixation, theta0, scale, "logpolar", logpolar)
    if fixation.shape[1] != logpolar.shape[1]:
        raise ValueError(
            f"fixation must be [B, N, 2] with the N = {logpolar.shape[1]} of logpolar, "
            f"got shape {tuple(fixation.shape)}."
        )
    radii, _ = _radii.tables(law, rings, compute_dtype(logpolar.dtype), logpolar)

    rung = select_reverse_mode("logpolar", backend, logpolar)
    tensors = (logpolar, *pose, radii)
    code, offset = _radii.code_and_offset(law)
    static: tuple[Any, ...] = (height, width, units == "normalized", code, offset, mean, fill)
    if rung == "reference":
        out, _ = reference.logpolar_inverse(*tensors, *static)
    elif wanted(*tensors):
        out, _ = Inverse.apply(*tensors, *static, rung)
    else:
        out, _ = inverse(rung, *tensors, *static)
    return out
