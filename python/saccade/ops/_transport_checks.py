"""Checks and shapes of entropic transport: sentences before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saccade.ops import _checks
from saccade.reference.transport import mass_tolerance

GRADS = ("implicit", "unroll", "envelope", "none")
REG_TYPES = ("kl", "entropy")
METRICS: dict[Any, int] = {2: 0, 1: 1, "cos": 2}


class Settings(NamedTuple):
    """The numbers of a solver, as the kernels take them."""

    eps: float
    rho_a: float
    rho_b: float
    kl: bool
    max_iter: int
    tol: float
    eps_scaling: float

    @property
    def balanced(self) -> bool:
        """Whether both marginals are met exactly."""
        return self.rho_a == math.inf and self.rho_b == math.inf


def positive(name: str, given: Any) -> float:
    """A finite number above 0."""
    if given is None:
        raise TypeError(f"{name} must be a number, got None.")
    number = _checks.finite_number(name, given)
    if number <= 0:
        raise ValueError(f"{name} must be above 0, got {number}.")
    return number


def relaxation(rho: Any) -> tuple[float, float]:
    """Both sides' rho; None and inf are balanced."""
    entries = tuple(rho) if isinstance(rho, (tuple, list)) else (rho, rho)
    if len(entries) != 2:
        raise ValueError(f"rho must be a number, None, or a pair of them, got {rho!r}.")
    numbers = []
    for entry in entries:
        balanced = entry is None or (isinstance(entry, float) and entry == math.inf)
        numbers.append(math.inf if balanced else positive("rho", entry))
    return numbers[0], numbers[1]


def settings(
    eps: Any, rho: Any, max_iter: Any, tol: Any, eps_scaling: Any, reg_type: Any
) -> Settings:
    """Check every number of a solver."""
    rho_a, rho_b = relaxation(rho)
    if isinstance(max_iter, bool) or not isinstance(max_iter, int):
        raise TypeError(f"max_iter must be an int, got {type(max_iter).__name__}.")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter}.")
    tolerance = _checks.finite_number("tol", tol)
    if tolerance < 0:
        raise ValueError(f"tol must be at least 0, got {tolerance}.")
    scaling = 0.0 if eps_scaling is None else _checks.finite_number("eps_scaling", eps_scaling)
    if eps_scaling is not None and not 0 < scaling < 1:
        raise ValueError(f"eps_scaling must be above 0 and below 1, or None, got {eps_scaling}.")
    one_of("reg_type", reg_type, REG_TYPES)
    return Settings(
        positive("eps", eps), rho_a, rho_b, reg_type == "kl", max_iter, tolerance, scaling
    )


def one_of(name: str, given: Any, known: Sequence[Any]) -> None:
    """One of a few values."""
    if not any(type(given) is type(k) and given == k for k in known):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {given!r}.")


def compute_dtype(main: Tensor) -> torch.dtype:
    """What a plan is computed in."""
    return torch.float64 if main.dtype == torch.float64 else torch.float32


def cost_matrix(cost: Any) -> None:
    """A floating tensor [..., n, m]."""
    _checks.floating_tensor("cost", cost)
    if cost.dim() < 2:
        raise ValueError(f"cost must have rank 2 [n, m] or more, got shape {tuple(cost.shape)}.")


def points(x: Any, y: Any, p: Any) -> int:
    """Check x [..., n, D] and y [..., m, D]; return the metric's number."""
    for name, given in (("x", x), ("y", y)):
        _checks.floating_tensor(name, given)
        if given.dim() < 2:
            raise ValueError(
                f"{name} must have rank 2 [n, D] or more, got shape {tuple(given.shape)}."
            )
    _checks.like("y", y, "x", x)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x and y must have points of the same dimension, got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    one_of("p", p, tuple(METRICS))
    return METRICS[p]


def weights(name: str, given: Any, count: Any, axis: str, main: Tensor) -> Tensor | None:
    """A side's weights [..., count] in the type that is computed in, or None."""
    if given is None:
        return None
    _checks.floating_tensor(name, given)
    if given.dim() < 1 or given.shape[-1] != count:
        raise ValueError(f"{name} has shape {tuple(given.shape)} but there are {count} {axis}.")
    if given.device != main.device:
        raise ValueError(
            f"{name} must be on the device of the cost, {main.device}, got {given.device}."
        )
    not_negative(name, given)
    weight: Tensor = given.to(compute_dtype(main))
    return weight


def not_negative(name: str, given: Tensor) -> None:
    """Say at once that no measure has a weight below 0, where looking costs nothing."""
    if not _visible(given):
        return
    below = given.detach() < 0
    if bool(below.any()):
        at = tuple(below.nonzero()[0].tolist())
        raise ValueError(f"{name} must not be negative, got {given[at].item():.6g} at {at}.")


def uniform(count: Any, alive: Tensor | None, main: Tensor) -> Tensor:
    """Equal weights that sum to 1, over the rows that are alive."""
    dtype = compute_dtype(main)
    if alive is None:
        return torch.full((count,), 1.0 / max(count, 1), dtype=dtype, device=main.device)
    whole = alive.to(dtype)
    return whole / whole.sum(-1, keepdim=True).clamp(min=1)


def mask_matrix(mask: Any, cost: Tensor) -> None:
    """A bool tensor that broadcasts with cost."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a torch.bool tensor, got {kind}.")
    if mask.dim() < 2 or mask.shape[-2:] != cost.shape[-2:]:
        raise ValueError(
            f"mask must have shape [..., n, m] with n, m = {tuple(cost.shape[-2:])}, "
            f"got {tuple(mask.shape)}."
        )
    if mask.device != cost.device:
        raise ValueError(f"mask must be on the device of cost, {cost.device}, got {mask.device}.")


def mask_pair(mask: Any, n: Any, m: Any) -> tuple[Tensor, Tensor]:
    """Two bool tensors [..., n] and [..., m]: which points there are."""
    if not isinstance(mask, (tuple, list)) or len(mask) != 2:
        raise TypeError("mask must be a pair of bool tensors [..., n] and [..., m] for points.")
    for given, count, letter in zip(mask, (n, m), "nm", strict=True):
        if not isinstance(given, Tensor) or given.dtype != torch.bool:
            raise TypeError("mask must be a pair of bool tensors [..., n] and [..., m] for points.")
        if given.dim() < 1 or given.shape[-1] != count:
            raise ValueError(
                f"mask must hold tensors [..., n] and [..., m] with {letter} = {count}, "
                f"got {tuple(given.shape)}."
            )
    return mask[0], mask[1]


def potentials(init: Any, batch: Sequence[Any], n: Any, m: Any, main: Tensor) -> tuple[Any, Any]:
    """Potentials to start from, [..., n] and [..., m], in the type that is computed in."""
    if init is None:
        return None, None
    if not isinstance(init, (tuple, list)) or len(init) != 2:
        raise TypeError("init must be a pair (f, g) of potentials, or None.")
    given = []
    for name, tensor, count in (("f", init[0], n), ("g", init[1], m)):
        _checks.floating_tensor(f"init {name}", tensor)
        if tensor.dim() < 1 or tensor.shape[-1] != count:
            raise ValueError(
                f"init {name} must have shape [..., {count}], got {tuple(tensor.shape)}."
            )
        given.append(tensor.detach().to(main.device, compute_dtype(main)).expand(*batch, count))
    return given[0], given[1]


def batch_of(*shapes: Sequence[Any]) -> tuple[Any, ...]:
    """The leading axes, broadcast."""
    try:
        return tuple(torch.broadcast_shapes(*map(tuple, shapes)))
    except RuntimeError:
        listed = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"the leading axes must broadcast, got {listed}.") from None


def totals(a: Tensor, b: Tensor, main: Tensor, relaxable: bool = True) -> None:
    """Say at once that no plan has marginals of different totals, where looking costs nothing."""
    if not (_visible(a) and _visible(b)):
        return
    total_a, total_b = a.detach().double().sum(-1), b.detach().double().sum(-1)
    off = (total_a - total_b).abs() > mass_tolerance(main.dtype) * total_a.abs()
    if bool(off.any()):
        i = int(off.flatten().nonzero()[0])
        first, second = (t.expand(off.shape).flatten()[i].item() for t in (total_a, total_b))
        where, way_out = (
            (" where both sides are balanced", "; rho relaxes the marginals")
            if relaxable
            else ("", "")
        )
        raise ValueError(
            f"a and b must have the same total{where}, got {first:.6g} and {second:.6g}{way_out}."
        )


def _visible(tensor: Tensor) -> bool:
    """Whether the numbers are there to be looked at, without waiting for a device."""
    return not torch.compiler.is_compiling() and tensor.device.type == "cpu" and _plain(tensor)


def _plain(tensor: Tensor) -> bool:
    """Whether the numbers are there to be looked at."""
    return type(tensor) in (
        Tensor,
        torch.nn.Parameter,
    ) and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
