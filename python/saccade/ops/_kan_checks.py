"""Checks of `kan_linear`, `kan_basis` and `group_rational`, and their options in the schema's form.

Options become two tensors, points and scales, and a list of ints; `saccade.ops._kan_op` has the
codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saccade.ops import _checks
from saccade.ops._autocast import autocast_dtype
from saccade.ops._kan_op import BASES, KINDS, MODES, OUT_OF_RANGE
from saccade.reference import _kan_bases as defaults

OPTIONS = {
    "bspline": ("grid", "order", "out_of_range"),
    "gaussian": ("centres", "width"),
    "rswaf": ("centres", "inv_width", "mode"),
    "chebyshev": ("num_basis",),
    "fourier": ("include_dc", "num_basis"),
    "wavelet": ("kind", "scale", "shift"),
}
MAX_ORDER = 5
MAX_RATIONAL_ORDER = 8


class Options(NamedTuple):
    """A basis as the schema has it, and how many functions it has."""

    basis: int
    points: Tensor | None
    scales: Tensor | None
    options: tuple[int, ...]
    num_basis: int


def features(x: Tensor) -> None:
    """The input: [..., I]."""
    _checks.floating_tensor("x", x)
    if x.dim() < 1:
        raise ValueError("x must be [..., I] with at least 1 axis, got a tensor of rank 0.")


def weights(x: Tensor, weight: Tensor, base_weight: Tensor | None, bias: Tensor | None) -> None:
    """The weights fit x and each other."""
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
        _checks.floating_tensor("base_weight", base_weight)
        _checks.shape(
            "base_weight", base_weight, [*heads, out_features, in_features], f"{letters}, I]"
        )
    if bias is not None:
        _checks.floating_tensor("bias", bias)
        _checks.shape("bias", bias, [*heads, out_features], f"{letters}]")
    # autocast decides the type of the product, whatever types come in
    autocast = autocast_dtype(x.device.type) is not None
    for name, tensor in (("weight", weight), ("base_weight", base_weight), ("bias", bias)):
        if tensor is not None and (not autocast or tensor.device != x.device):
            _checks.like(name, tensor, "x", x)


def options(
    x: Tensor, basis: str, given: dict[str, Any], weight_shape: Sequence[int] | None
) -> Options:
    """The options of a basis, checked; weight_shape [..., O, I, n] is None for `kan_basis`."""
    if basis not in OPTIONS:
        raise ValueError(f"basis must be one of {', '.join(sorted(OPTIONS))}, got {basis!r}.")
    known = OPTIONS[basis]
    if weight_shape is not None:
        # the weight says how many functions there are
        known = tuple(name for name in known if name != "num_basis")
    unknown = sorted(set(given) - set(known))
    if unknown:
        listed = ", ".join(known) or "none"
        raise TypeError(f'basis "{basis}" has no option {", ".join(unknown)}; it has {listed}.')
    count = None if weight_shape is None else weight_shape[-1]
    code = BASES.index(basis)
    if basis == "bspline":
        return _bspline(code, x, count, **given)
    if basis == "gaussian":
        return _gaussian(code, x, count, **given)
    if basis == "rswaf":
        return _rswaf(code, x, count, **given)
    if basis == "wavelet":
        return _wavelet(code, x, weight_shape, **given)
    if basis == "chebyshev":
        return Options(code, None, None, (), _count(given.get("num_basis"), count, 8))
    return _fourier(code, count, **given)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that the basis is evaluated in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _count(given: Any, from_weight: int | None, default: int) -> int:
    if from_weight is not None:
        return from_weight
    if given is None:
        return default
    return _checks.positive_ints("num_basis", given, 1)[0]


def _choice(name: str, given: Any, among: Sequence[str]) -> int:
    if given not in among:
        quoted = [f'"{value}"' for value in among]
        listed = ", ".join(quoted[:-1]) + f" or {quoted[-1]}"
        raise ValueError(f"{name} must be {listed}, got {given!r}.")
    return among.index(given)


def _numbers(name: str, given: Any, x: Tensor) -> Tensor:
    if isinstance(given, Tensor):
        _checks.floating_tensor(name, given)
        if given.device != x.device:
            raise ValueError(f"{name} must be on the device of x, {x.device}, got {given.device}.")
        return given.to(compute_dtype(x))
    if not isinstance(given, (list, tuple)):
        raise TypeError(
            f"{name} must be a tensor or a sequence of numbers, got {type(given).__name__}."
        )
    for i, number in enumerate(given):
        _checks.finite_number(f"{name}[{i}]", number)
    return torch.tensor(given, dtype=compute_dtype(x), device=x.device)


def _centres(
    x: Tensor, given: Any, count: int | None, default: tuple[float, float]
) -> tuple[Tensor, int]:
    if given is None:
        steps = count or 8
        line = torch.linspace(*default, steps, dtype=compute_dtype(x), device=x.device)
        return line, steps
    centres = _numbers("centres", given, x)
    shape = tuple(centres.shape)
    if len(shape) != 1 or shape[0] < 1 or count not in (None, shape[0]):
        raise ValueError(f"centres must have shape ({count or 'n'},), got {shape}.")
    return centres, shape[0]


def _scales(name: str, given: Any, x: Tensor, count: int, single: bool = False) -> Tensor:
    """A positive number, or a tensor of one or (unless single) count of them, as a tensor."""
    if isinstance(given, Tensor):
        allowed = [(), (1,)] if single else [(), (1,), (count,)]
        if tuple(given.shape) not in allowed:
            raise ValueError(
                f"{name} must have one of the shapes {allowed}, got {tuple(given.shape)}."
            )
        return _numbers(name, given, x).reshape(-1)
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor, got {type(given).__name__}.")
    # comparisons, because torch.compile traces them
    if not 0 < given < math.inf:
        raise ValueError(f"{name} must be finite and above 0, got {given}.")
    return torch.full((1,), float(given), dtype=compute_dtype(x), device=x.device)


def _bspline(
    code: int,
    x: Tensor,
    count: int | None,
    grid: Any = None,
    order: Any = 3,
    out_of_range: Any = "zero",
) -> Options:
    if type(order) is not int:
        raise TypeError(f"order must be an int, got {type(order).__name__}.")
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order must be between 0 and {MAX_ORDER}, got {order}.")
    beyond = _choice("out_of_range", out_of_range, OUT_OF_RANGE)
    if grid is None:
        functions = order + 5 if count is None else count
        if functions <= order:
            raise ValueError(
                f"a spline of order {order} has at least {order + 1} functions, got {functions}."
            )
        knots = defaults.spline_knots(functions - order, order)
        knots = knots.to(device=x.device, dtype=compute_dtype(x))
    else:
        knots = _numbers("grid", grid, x)
        functions = knots.shape[-1] - order - 1 if knots.dim() else 0
        if knots.dim() != 1 and (knots.dim() != 2 or knots.shape[0] not in (1, x.shape[-1])):
            raise ValueError(
                f"grid must be [m] or [I, m] with I = {x.shape[-1]}, got shape "
                f"{tuple(knots.shape)}."
            )
        if functions <= order or count not in (None, functions):
            needed = (
                f"n + order + 1 = {count + order + 1}" if count else f"at least {2 * order + 2}"
            )
            raise ValueError(f"grid must have {needed} knots, got {knots.shape[-1]}.")
    if knots.dim() == 1:
        knots = knots.unsqueeze(0)
    return Options(code, knots, None, (order, beyond), functions)


def _gaussian(
    code: int, x: Tensor, count: int | None, centres: Any = None, width: Any = None
) -> Options:
    points, count = _centres(x, centres, count, defaults.GAUSSIAN_RANGE)
    if width is None:
        scales = defaults.gaussian_width(points.detach()).reshape(1)
    else:
        scales = _scales("width", width, x, count)
    return Options(code, points, scales, (), count)


def _rswaf(
    code: int,
    x: Tensor,
    count: int | None,
    centres: Any = None,
    inv_width: Any = defaults.RSWAF_INV_WIDTH,
    mode: Any = "exact",
) -> Options:
    flag = _choice("mode", mode, MODES)
    published = mode == "fasterkan"
    for name, value in (("centres", centres), ("inv_width", inv_width)):
        if published and isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(
                f'{name} cannot want a gradient in mode "fasterkan", whose published gradient for '
                'it is no derivative; use mode="exact".'
            )
    points, count = _centres(x, centres, count, defaults.RSWAF_RANGE)
    scales = _scales("inv_width", inv_width, x, count, single=published)
    return Options(code, points, scales, (flag,), count)


def _fourier(
    code: int, count: int | None, include_dc: Any = False, num_basis: Any = None
) -> Options:
    if not isinstance(include_dc, bool):
        raise TypeError(f"include_dc must be a bool, got {type(include_dc).__name__}.")
    constant = 1 if include_dc else 0
    functions = _count(num_basis, count, 8 + constant)
    if functions <= constant or (functions - constant) % 2:
        odd = "odd, at least 3" if include_dc else "even, at least 2"
        raise ValueError(
            f"a Fourier basis has as many sines as cosines: n must be {odd} with "
            f"include_dc={include_dc}, got {functions}."
        )
    return Options(code, None, None, (constant,), functions)


def _wavelet(
    code: int,
    x: Tensor,
    weight_shape: Sequence[int] | None,
    kind: Any = "mexican_hat",
    scale: Any = None,
    shift: Any = None,
) -> Options:
    flag = _choice("kind", kind, KINDS)
    if weight_shape is None:
        if not isinstance(scale, Tensor) or not isinstance(shift, Tensor):
            raise TypeError('basis "wavelet" needs scale and shift, tensors [O, I].')
        edges: tuple[int, ...] = tuple(scale.shape)
        if scale.dim() not in (2, 3) or edges[-1] != x.shape[-1]:
            raise ValueError(f"scale must be [O, I] with I = {x.shape[-1]}, got {edges}.")
    else:
        edges = tuple(weight_shape[:-1])
        if weight_shape[-1] != 1:
            raise ValueError(
                f"a wavelet is one function an edge: n must be 1, got {weight_shape[-1]}."
            )
    tensors = []
    for name, given, value in (("shift", shift, 0.0), ("scale", scale, 1.0)):
        if given is None:
            tensor = torch.full(edges, value, dtype=compute_dtype(x), device=x.device)
        elif not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(given).__name__}.")
        else:
            tensor = _numbers(name, given, x)
        _checks.shape(name, tensor, edges, "[O, I]" if len(edges) == 2 else "[h, O, I]")
        tensors.append(tensor)
    return Options(code, tensors[0], tensors[1], (flag,), 1)


def rational(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: Any) -> int:
    """The arguments of `group_rational` fit together; returns the axis, counted from 0."""
    features(x)
    if type(channel_dim) is not int:
        raise TypeError(f"channel_dim must be an int, got {type(channel_dim).__name__}.")
    if not -x.dim() <= channel_dim < x.dim():
        raise ValueError(
            f"channel_dim must be between {-x.dim()} and {x.dim() - 1}, got {channel_dim}."
        )
    axis = channel_dim % x.dim()
    for name, tensor, least in (("numerator", numerator, 1), ("denominator", denominator, 0)):
        _checks.floating_tensor(name, tensor)
        most = MAX_RATIONAL_ORDER + least
        if tensor.dim() != 2 or not least <= tensor.shape[1] <= most or tensor.shape[0] < 1:
            raise ValueError(
                f"{name} must be [1 or G, {least} to {most}], got shape {tuple(tensor.shape)}."
            )
        if autocast_dtype(x.device.type) is None or tensor.device != x.device:
            _checks.like(name, tensor, "x", x)
    groups = max(numerator.shape[0], denominator.shape[0])
    for name, tensor in (("numerator", numerator), ("denominator", denominator)):
        if tensor.shape[0] not in (1, groups):
            raise ValueError(
                f"{name} must have 1 row or one a group, {groups}, got {tensor.shape[0]}."
            )
    if x.shape[axis] % groups:
        raise ValueError(
            f"the number of groups, {groups}, must divide the channels, got {x.shape[axis]}."
        )
    return axis
