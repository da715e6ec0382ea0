"""The C interface of emulation/transport.cpp: tensors in, tensors out."""

from __future__ import annotations

import ctypes
import math
from ctypes import c_bool, c_double, c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

METRICS = {2: 0, 1: 1, "cos": 2}


class Cost(ctypes.Structure):
    """DeviceCost."""

    _fields_ = [
        ("matrix", c_void_p), ("x", c_void_p), ("y", c_void_p), ("dim", c_int),
        ("metric", c_int64),
    ]  # fmt: skip


class Options(ctypes.Structure):
    """DeviceOptions."""

    _fields_ = [
        ("eps", c_double), ("rho_a", c_double), ("rho_b", c_double), ("kl", c_bool),
        ("max_iter", c_int64), ("tol", c_double), ("scaling", c_double),
        ("mass_tolerance", c_double),
    ]  # fmt: skip


OUTPUTS = ("plan", "f", "g", "value", "linear", "err", "n_iter", "status")
SCRATCH = ("lse_a", "lse_b", "first_a", "second_a", "progress")


class Entropic(ctypes.Structure):
    """As in csrc/transport/cuda_sinkhorn.cuh."""

    _fields_ = [
        ("batch", c_int64), ("n", c_int64), ("m", c_int64), ("cost", Cost), ("a", c_void_p),
        ("b", c_void_p), ("init_f", c_void_p), ("init_g", c_void_p), ("options", Options),
        *((name, c_void_p) for name in OUTPUTS + SCRATCH),
    ]  # fmt: skip


UPSTREAM = ("of_plan", "of_f", "of_g", "of_value", "of_linear")


class Adjoint(ctypes.Structure):
    """AdjointProblem."""

    _fields_ = [
        ("batch", c_int64), ("n", c_int64), ("m", c_int64), ("cost", Cost),
        *((name, c_void_p) for name in ("a", "b", "f", "g", "plan", *UPSTREAM)),
        ("options", Options),
        *((name, c_void_p) for name in ("grad_cost", "grad_x", "grad_y", "grad_a", "grad_b")),
        *((name, c_void_p) for name in ("rows", "columns", "descent")),
    ]  # fmt: skip


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def options_of(
    eps: float, rho: tuple[float, float] = (math.inf, math.inf), kl: bool = True,
    max_iter: int = 100, tol: float = 0.0, eps_scaling: float = 0.0,
) -> Options:  # fmt: skip
    return Options(eps, *rho, kl, max_iter, tol, eps_scaling, 1e-5)


def numbers(*shape: int) -> Tensor:
    return torch.full(shape, torch.nan)


def cost_of(given: Tensor | tuple[Tensor, Tensor], p: int | str) -> Cost:
    if isinstance(given, Tensor):
        return Cost(given.data_ptr(), None, None, 0, 0)
    x, y = given
    return Cost(None, x.data_ptr(), y.data_ptr(), x.shape[-1], METRICS[p])


def forward(
    library: ctypes.CDLL, given: Tensor | tuple[Tensor, Tensor], a: Tensor, b: Tensor,
    init: tuple[Tensor, Tensor] | None = None, p: int | str = 2, **options: Any,
) -> dict[str, Tensor | None]:  # fmt: skip
    """The outputs by name, from a cost or a pair of sets of points."""
    (batch, n), m = a.shape, b.shape[1]
    out: dict[str, Tensor | None] = {
        "plan": numbers(batch, n, m) if isinstance(given, Tensor) else None,
        "f": numbers(batch, n), "g": numbers(batch, m),
        **{name: numbers(batch) for name in ("value", "linear", "err")},
        **{name: torch.full((batch,), -1, dtype=torch.int32) for name in ("n_iter", "status")},
    }  # fmt: skip
    scratch = [numbers(batch, n), numbers(batch, m), numbers(batch, n), numbers(batch, n),
               torch.full((batch, 2), torch.nan, dtype=torch.float64)]  # fmt: skip
    f, g = (None, None) if init is None else init
    problem = Entropic(
        batch, n, m, cost_of(given, p), pointer(a), pointer(b), pointer(f), pointer(g),
        options_of(**options), *(pointer(out[name]) for name in OUTPUTS), *map(pointer, scratch),
    )  # fmt: skip
    assert library.run_forward(ctypes.byref(problem)) == 0
    return out


def backward(
    library: ctypes.CDLL, grads: tuple[Tensor | None, ...], given: Tensor | tuple[Tensor, Tensor],
    a: Tensor, b: Tensor, out: dict[str, Tensor | None], p: int | str = 2, **options: Any,
) -> list[Tensor]:  # fmt: skip
    """Gradients of the cost or of the points, and of the weights; grads as in `UPSTREAM`."""
    (batch, n), m = a.shape, b.shape[1]
    is_matrix = isinstance(given, Tensor)
    results = [numbers(*z.shape) for z in (given if isinstance(given, tuple) else (given,))]
    weights = [numbers(batch, n), numbers(batch, m)]
    scratch = [numbers(5, batch, n), numbers(6, batch, m),
               torch.full((batch, 3), torch.nan, dtype=torch.float64)]  # fmt: skip
    places = [*results, None, None] if is_matrix else [None, *results]
    options = {k: x for k, x in options.items() if k in ("eps", "rho", "kl")}
    problem = Adjoint(
        batch, n, m, cost_of(given, p), pointer(a), pointer(b), pointer(out["f"]),
        pointer(out["g"]), pointer(out["plan"]), *map(pointer, grads), options_of(**options),
        *map(pointer, places), *map(pointer, weights), *map(pointer, scratch),
    )  # fmt: skip
    assert library.run_backward(ctypes.byref(problem)) == 0
    return [*results, *weights]


class Costs(ctypes.Structure):
    """As in csrc/transport/exact.h."""

    _fields_ = [
        ("data", c_void_p), ("row", c_int64), ("column", c_int64), ("mask", c_void_p),
        ("mask_row", c_int64), ("mask_column", c_int64),
    ]  # fmt: skip


MATCHING = ("row_to_col", "col_to_row", "total", "row_dual", "col_dual")


class Assignments(ctypes.Structure):
    """As in csrc/transport/cuda_assignment.cuh."""

    _fields_ = [
        ("batch", c_int64), ("n", c_int64), ("m", c_int64), ("costs", Costs),
        ("cost_batch", c_int64), ("mask_batch", c_int64), ("maximize", c_bool),
        *((name, c_void_p) for name in (*MATCHING, "workspace")),
    ]  # fmt: skip


def assignment(
    library: ctypes.CDLL, cost: Tensor, mask: Tensor | None = None, maximize: bool = False
) -> tuple[Tensor, ...]:
    """What assignment_forward returns; cost [B, n, m] with any strides."""
    batch, n, m = cost.shape
    kind = "double" if cost.dtype == torch.float64 else "float"
    space = getattr(library, f"workspace_{kind}")
    space.argtypes, space.restype = (c_int64, c_int64), c_int64
    workspace = torch.full((batch * space(n, m),), 255, dtype=torch.uint8)
    results = (
        torch.full((batch, n), -9), torch.full((batch, m), -9),
        *(torch.full(shape, torch.nan, dtype=cost.dtype) for shape in ((batch,), (batch, n))),
        torch.full((batch, m), torch.nan, dtype=cost.dtype),
    )  # fmt: skip
    strides = (0, 0, 0) if mask is None else mask.stride()
    problem = Assignments(
        batch, n, m, Costs(pointer(cost), *cost.stride()[1:], pointer(mask), *strides[1:]),
        cost.stride(0), strides[0], maximize, *map(pointer, results), pointer(workspace),
    )  # fmt: skip
    assert getattr(library, f"run_assignment_{kind}")(ctypes.byref(problem)) == 0
    return results
