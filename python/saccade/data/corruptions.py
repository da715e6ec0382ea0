"""Four common corruptions of test images: noise, blur, brightness and pixelation, at one moderate
severity each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from saccade.data._seeds import generator

# Strengths are relative to the side of the image, so that they mean the same at every resolution.
NOISE_STD, BLUR_SIGMA, BRIGHTER, PIXEL_BLOCK = 0.15, 1 / 28, 0.3, 1 / 14


def _gaussian_noise(images: Tensor, seed: int) -> Tensor:
    noise = torch.randn(images.shape, generator=generator(seed, 0)).mul_(255 * NOISE_STD)
    return (images + noise.to(images.device)).round().clamp(0, 255).to(torch.uint8)


def _blur(images: Tensor, seed: int) -> Tensor:
    sigma = BLUR_SIGMA * images.shape[-1]
    kernel = 2 * int(3 * sigma) + 1
    blurred: Tensor = F.gaussian_blur(images, kernel_size=[kernel, kernel], sigma=[sigma, sigma])
    return blurred


def _brightness(images: Tensor, seed: int) -> Tensor:
    return (images + 255 * BRIGHTER).clamp(0, 255).to(torch.uint8)


def _pixelate(images: Tensor, seed: int) -> Tensor:
    height, width = images.shape[-2:]
    block = max(PIXEL_BLOCK * min(height, width), 1.0)
    blocks = [max(round(height / block), 1), max(round(width / block), 1)]
    small = F.resize(images, blocks, antialias=True)
    large: Tensor = F.resize(small, [height, width], interpolation=F.InterpolationMode.NEAREST)
    return large


CORRUPTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "gaussian_noise": _gaussian_noise,
    "blur": _blur,
    "brightness": _brightness,
    "pixelate": _pixelate,
}


def corrupt(images: Tensor, name: str, seed: int = 0) -> Tensor:
    """Corrupt images as a camera or a scanner would.

    Args:
        images: uint8 [B, C, H, W].
        name: "gaussian_noise" (std 0.15 of full range), "blur" (Gaussian, sigma 1/28 of the width),
            "brightness"
            (0.3 of full range added) or "pixelate" (blocks of 1/14 of the shorter side).
        seed: of the noise; the other three draw nothing.

    Returns:
        uint8 [B, C, H, W].

    Raises:
        ValueError: an unknown name.

    Source: the kinds, not the severities, of Hendrycks and Dietterich, arXiv 1903.12261.

    >>> corrupt(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "brightness").unique().tolist()
    [76]
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption must be one of {', '.join(CORRUPTIONS)}; got {name!r}")
    return CORRUPTIONS[name](images, seed)
