"""Log-polar sampling as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from saccade.ops import _checks
from saccade.ops._logpolar_op import compute_dtype
from saccade.ops.logpolar import Radial, logpolar_inverse, logpolar_sample


class _Rings(nn.Module):
    """Where the rings of a layer are, and what one fixation an image is."""

    radii: Tensor | None

    def __init__(
        self, r_min: float, r_max: float | None, radial: Radial, units: str, layout: str
    ) -> None:
        super().__init__()
        self.r_min, self.r_max, self.units, self.layout = r_min, r_max, units, layout
        self.radial = None if isinstance(radial, Tensor) else radial
        self.register_buffer("radii", radial if isinstance(radial, Tensor) else None)

    def _radial(self) -> Radial:
        given = self.radii if self.radial is None else self.radial
        return cast(Radial, given)

    def _center(self, like: Tensor, height: int, width: int) -> Tensor:
        pixel = self.units == "pixel"
        middle = ((width - 1) / 2, (height - 1) / 2) if pixel else (0.0, 0.0)
        dtype = compute_dtype(like.dtype)
        sides = [torch.full((like.shape[0],), x, dtype=dtype, device=like.device) for x in middle]
        return torch.stack(sides, dim=-1)

    def extra_repr(self) -> str:
        radial = "table" if self.radial is None else repr(self.radial)
        return (
            f"r_min={self.r_min}, r_max={self.r_max}, radial={radial}, units={self.units!r}, "
            f"layout={self.layout!r}"
        )


def _of_one(given: float | Tensor) -> float | Tensor:
    """[B] as [B, 1]; a number or [] as it is."""
    return given[:, None] if isinstance(given, Tensor) and given.dim() == 1 else given


class LogPolar(_Rings):
    """Foveated view of an image: :func:`saccade.ops.logpolar_sample` with fixed rings.

    A rotation about the fixation shifts the view along the rays, a zoom along the rings, so a
    convolution over it, padded circularly along the rays, is equivariant to both.

    Args:
        out_size: (R, T), rings and rays, or one int for both.
        r_min: first radius. Default 1.
        r_max: last radius; None: min(H, W) / 2.
        radial: "log", "log1p", "linear", ("cmf", a), or a tensor [R], which becomes a buffer.
        antialias: "none", "area" or "mip". Default "area".
        padding_mode: "zeros", "border" or "reflection". Default "zeros".
        units: "pixel" or "normalized". Default "pixel".
        layout: "rt" or "tr". Default "rt".

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: sizes do not fit together.

    Source:
        Foveated retinotopy, arXiv 2402.15480, section 2.

    >>> import torch
    >>> view, image = LogPolar((16, 32)), torch.rand(2, 3, 64, 64)
    >>> view(image).shape, view(image, torch.full((2, 5, 2), 20.0)).shape
    (torch.Size([2, 3, 16, 32]), torch.Size([2, 5, 3, 16, 32]))
    """

    def __init__(
        self,
        out_size: int | Sequence[int],
        r_min: float = 1.0,
        r_max: float | None = None,
        radial: Radial = "log",
        antialias: str = "area",
        padding_mode: str = "zeros",
        units: str = "pixel",
        layout: str = "rt",
    ) -> None:
        super().__init__(r_min, r_max, radial, units, layout)
        self.out_size = _checks.positive_ints("out_size", out_size, 2)
        self.antialias, self.padding_mode = antialias, padding_mode

    def forward(
        self,
        image: Tensor,
        fixation: Tensor | None = None,
        theta0: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        """Sample image [B, C, H, W] around fixation [B, N, 2]: [B, N, C, R, T].

        With fixation [B, 2], or None for the centre of the image, [B, C, R, T]; theta0 and scale
        may then be [B].
        """
        single = fixation is None or fixation.dim() == 2
        if fixation is None:
            fixation = self._center(image, image.shape[-2], image.shape[-1])
        if single:
            fixation, theta0, scale = fixation[:, None], _of_one(theta0), _of_one(scale)
        out = logpolar_sample(
            image,
            fixation,
            out_size=self.out_size,
            r_min=self.r_min,
            r_max=self.r_max,
            theta0=theta0,
            scale=scale,
            radial=self._radial(),
            antialias=self.antialias,
            padding_mode=self.padding_mode,
            units=self.units,
            layout=self.layout,
        )
        return out[:, 0] if single else out

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f"out_size={self.out_size}, {super().extra_repr()}, antialias={self.antialias!r}, "
            f"padding_mode={self.padding_mode!r}"
        )


class LogPolarInverse(_Rings):
    """The image behind log-polar views: :func:`saccade.ops.logpolar_inverse` with fixed rings.

    Args:
        size: (H, W) of the image, or one int for both.
        r_min: as the views were sampled, like the following. Default 1.
        r_max: None: min(H, W) / 2.
        radial: "log", "log1p", "linear", ("cmf", a), or a tensor [R], which becomes a buffer.
        units: "pixel" or "normalized". Default "pixel".
        layout: "rt" or "tr". Default "rt".
        blend: "mean" or "none". Default "mean".
        fill: value of pixels that no view covers. Default 0.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: sizes do not fit together.

    Source:
        Foveated retinotopy, arXiv 2402.15480, section 2.

    >>> import torch
    >>> LogPolarInverse(64)(torch.rand(2, 3, 16, 32)).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        size: int | Sequence[int],
        r_min: float = 1.0,
        r_max: float | None = None,
        radial: Radial = "log",
        units: str = "pixel",
        layout: str = "rt",
        blend: str = "mean",
        fill: float = 0.0,
    ) -> None:
        super().__init__(r_min, r_max, radial, units, layout)
        self.size = _checks.positive_ints("size", size, 2)
        self.blend, self.fill = blend, fill

    def forward(
        self,
        logpolar: Tensor,
        fixation: Tensor | None = None,
        theta0: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        """Join views [B, N, C, R, T] around fixation [B, N, 2] into [B, C, H, W].

        Blend "none" gives [B, N, C, H, W]. With fixation [B, 2], or None for the centre, views are
        [B, C, R, T] and images [B, C, H, W].
        """
        single = fixation is None or fixation.dim() == 2
        if fixation is None:
            fixation = self._center(logpolar, *self.size)
        if single:
            logpolar, fixation = logpolar[:, None], fixation[:, None]
            theta0, scale = _of_one(theta0), _of_one(scale)
        out = logpolar_inverse(
            logpolar,
            fixation,
            self.size,
            r_min=self.r_min,
            r_max=self.r_max,
            theta0=theta0,
            scale=scale,
            radial=self._radial(),
            units=self.units,
            layout=self.layout,
            blend=self.blend,
            fill=self.fill,
        )
        return out[:, 0] if single and self.blend == "none" else out

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"size={self.size}, {super().extra_repr()}, blend={self.blend!r}, fill={self.fill}"
