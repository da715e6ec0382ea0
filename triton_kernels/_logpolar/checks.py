"""What the kernels ask of their inputs; a kernel that runs reads nothing outside of them."""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.triton_kernels._logpolar.launches import LEVELS, MIP, Inversion, Sampling

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)
MOST = 2**31 - 1
MAX_RAYS = MOST // 4096  # the taps of a ring, up to 64 x 64 a ray, are numbered in 32 bits


def table(name: str, tensor: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """A float32 tensor of this shape on the main tensor's device."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}.")
    if tensor.dtype != torch.float32:
        raise TypeError(f"{name} must be torch.float32, got {tensor.dtype}.")
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}.")


def gradient(grad_out: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    if tuple(grad_out.shape) != shape:
        raise ValueError(f"grad_out must have shape {shape}, got {tuple(grad_out.shape)}.")
    if not grad_out.is_floating_point() or grad_out.device != like.device:
        raise ValueError(
            f"grad_out must be floating and on {like.device}, got {grad_out.dtype} on "
            f"{grad_out.device}."
        )


def sampling(given: Sampling) -> None:
    image, pyramid, fixation = given.image, given.pyramid, given.fixation
    if image.dim() != 4 or 0 in image.shape[2:]:
        raise ValueError(f"image must be [B, C, H, W] with pixels, got shape {tuple(image.shape)}.")
    _code("padding", given.padding)
    _code("antialias", given.antialias)
    _poses(given, image)
    table("edges", given.edges, (given.radii.shape[0] + 1,), image.device)
    if (pyramid is not None) != (given.antialias == MIP):
        raise ValueError(f"pyramid belongs to antialias 2 alone, got antialias {given.antialias}.")
    if pyramid is not None:
        height, width = image.shape[2:]
        places = sum(-(-height // 2**n) * -(-width // 2**n) for n in range(1, LEVELS + 1))
        table("pyramid", pyramid, (*image.shape[:2], places), image.device)
    if not 1 <= given.rays <= MAX_RAYS:
        raise ValueError(f"rays must be from 1 to {MAX_RAYS}, got {given.rays}.")
    if image[0, 0].numel() > MOST if image.numel() else False:
        raise ValueError(f"An image may have {MOST} pixels, got {image[0, 0].numel()}.")
    if fixation.shape[0] != image.shape[0]:
        raise ValueError(
            f"fixation must have the {image.shape[0]} batch entries of image, "
            f"got {fixation.shape[0]}."
        )


def inversion(given: Inversion) -> None:
    logpolar = given.logpolar
    if logpolar.dim() != 5 or 0 in logpolar.shape[3:]:
        raise ValueError(
            f"logpolar must be [B, N, C, R, T] with cells, got shape {tuple(logpolar.shape)}."
        )
    if not logpolar.is_floating_point():
        raise TypeError(f"logpolar must be floating, got {logpolar.dtype}.")
    _code("law", given.law)
    _poses(given, logpolar)
    if tuple(given.fixation.shape[:2]) != tuple(logpolar.shape[:2]):
        raise ValueError(
            f"fixation must be [B, N, 2] with the [B, N] = {tuple(logpolar.shape[:2])} of "
            f"logpolar, got shape {tuple(given.fixation.shape)}."
        )
    if given.radii.shape[0] != logpolar.shape[3]:
        raise ValueError(
            f"radii must be the {logpolar.shape[3]} of logpolar, got {given.radii.shape[0]}."
        )
    if min(given.height, given.width) < 1 or given.height * given.width > MOST:
        raise ValueError(
            f"An image may have 1 to {MOST} pixels, got {given.height} x {given.width}."
        )


def _code(name: str, value: int) -> None:
    if not 0 <= value <= 2:
        raise ValueError(f"{name} must be 0, 1 or 2, got {value}.")


def _poses(given: Sampling | Inversion, main: Tensor) -> None:
    fixation = given.fixation
    if fixation.dim() != 3 or given.radii.dim() != 1 or not given.radii.numel():
        raise ValueError(
            f"fixation must be [B, N, 2] and radii [R], got shapes {tuple(fixation.shape)} and "
            f"{tuple(given.radii.shape)}."
        )
    table("fixation", fixation, (*fixation.shape[:2], 2), main.device)
    for name in ("theta0", "scale"):
        table(name, getattr(given, name), tuple(fixation.shape[:2]), main.device)
    table("radii", given.radii, tuple(given.radii.shape), main.device)
