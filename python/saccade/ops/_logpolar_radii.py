"""The radii of log-polar maps: radial laws as tables of rings and of the edges between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saccade.ops import _checks
from saccade.reference.logpolar import LINEAR, LOGARITHMIC, TABLE

LAWS = ("log", "log1p", "linear")

_CACHE: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
_CACHE_SIZE = 256


@dataclass(frozen=True)
class Law:
    """A radial law: ring k has g(r_k) = g(first) + k step, g(r) = ln(r + offset) or r."""

    code: int
    offset: float
    first: float
    last: float
    span: int
    """Steps from first to last."""

    def tables(self, rings: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Radii [R] and edges [R + 1], half a step to each side and at least 0."""
        half = torch.arange(-1, 2 * rings, dtype=torch.float64, device=device) / (2 * self.span)
        # Python numbers that torch.compile holds symbolic become tensors before any mathematics
        first, last = (
            torch.scalar_tensor(end, dtype=torch.float64, device=device)
            for end in (self.first, self.last)
        )
        if self.code == LINEAR:
            radii = first + (last - first) * half
        else:
            inner, outer = first + self.offset, last + self.offset
            radii = inner * (outer / inner) ** half - self.offset
        radii = radii.clamp(min=0).to(dtype)
        return radii[1::2].contiguous(), radii[::2].contiguous()


def parse(
    radial: Any, rings: int, r_min: Any, r_max: Any, height: int, width: int, units: str
) -> Law | Tensor:
    """Check the arguments that say where the rings are; a table is given back as it is."""
    if units not in ("pixel", "normalized"):
        raise ValueError(f"units must be one of pixel, normalized, got {units!r}.")
    if isinstance(radial, Tensor):
        _check_table(radial, rings)
        return radial
    r_min = _checks.finite_number("r_min", r_min)
    if r_max is None:
        if units == "normalized":
            raise ValueError("r_max must be given with units='normalized', got None.")
        r_max = min(height, width) / 2
    elif isinstance(r_max, bool) or not isinstance(r_max, (int, float, torch.SymFloat)):
        raise TypeError(f"r_max must be a number or None, got {type(r_max).__name__}.")
    elif not -math.inf < r_max < math.inf:
        raise ValueError(f"r_max must be finite, got {r_max}.")
    if radial == "log1p":
        # OpenCV's law: ring 0 on the fixation, and the ring after the last one at r_max - 1
        if units == "normalized":
            raise ValueError("radial='log1p' is a law of pixels, got units='normalized'.")
        if not r_max > 1:
            raise ValueError(f"r_max must be above 1 with radial='log1p', got {r_max}.")
        return Law(LOGARITHMIC, 1.0, 0.0, r_max - 1, rings)
    if not r_max > r_min:
        raise ValueError(f"r_max must be above r_min, got r_min = {r_min} and r_max = {r_max}.")
    span = max(rings - 1, 1)
    if radial == "log":
        if not r_min > 0:
            raise ValueError(f"r_min must be above 0 with radial='log', got {r_min}.")
        return Law(LOGARITHMIC, 0.0, r_min, r_max, span)
    if not r_min >= 0:
        raise ValueError(f"r_min must be at least 0, got {r_min}.")
    if radial == "linear":
        return Law(LINEAR, 0.0, r_min, r_max, span)
    if isinstance(radial, tuple) and len(radial) == 2 and radial[0] == "cmf":
        offset = _checks.finite_number("the a of radial=('cmf', a)", radial[1])
        if not offset > 0:
            raise ValueError(f"the a of radial=('cmf', a) must be above 0, got {offset}.")
        return Law(LOGARITHMIC, offset, r_min, r_max, span)
    raise ValueError(
        f"radial must be one of {', '.join(LAWS)}, ('cmf', a) or a tensor of radii, got {radial!r}."
    )


def _check_table(radial: Tensor, rings: int) -> None:
    _checks.floating_tensor("radial", radial)
    if radial.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError(
            "radial has no gradient: detach it, and learn scale, which multiplies every radius."
        )
    _checks.shape("radial", radial, (rings,), "[R]")
    # values are looked at where that neither waits for a device nor breaks a graph
    if not torch.compiler.is_compiling() and radial.device.type == "cpu" and _plain(radial):
        low = float(radial[0])
        if not (low >= 0 and float(radial[-1]) < math.inf and bool((radial.diff() > 0).all())):
            raise ValueError(
                "radial must hold finite radii of at least 0 that increase, "
                f"got {[round(r, 4) for r in radial.tolist()]}."
            )


def tables(
    law: Law | Tensor, rings: int, dtype: torch.dtype, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Radii [R] and edges [R + 1] on the device of a tensor; those of a law are kept."""
    if isinstance(law, Tensor):
        radii = law.to(device=like.device, dtype=dtype)
        return radii, _edges(radii)
    if torch.compiler.is_compiling() or not _plain(like):
        return law.tables(rings, dtype, like.device)
    key = (law, rings, dtype, like.device)
    found = _CACHE.get(key)
    if found is None:
        if len(_CACHE) >= _CACHE_SIZE:
            _CACHE.clear()
        # an inference tensor could not be saved for a later backward
        with torch.inference_mode(False):
            found = _CACHE[key] = law.tables(rings, dtype, like.device)
    return found


def _edges(radii: Tensor) -> Tensor:
    """Halfway between neighbours; the first and the last ring are as wide to both sides."""
    if len(radii) == 1:
        return radii.expand(2)
    middle = (radii[1:] + radii[:-1]) / 2
    first, last = 2 * radii[:1] - middle[:1], 2 * radii[-1:] - middle[-1:]
    return torch.cat([first.clamp(min=0), middle, last])


def code_and_offset(law: Law | Tensor) -> tuple[int, float]:
    """What the inverse needs to know of a law."""
    return (TABLE, 0.0) if isinstance(law, Tensor) else (law.code, law.offset)


def _plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, torch.nn.Parameter) and tensor.device.type != "meta"
