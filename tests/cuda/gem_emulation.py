"""The C interface of emulation/gem.cpp: tensors in, tensors out."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from saccade.reference.gem import TOLERANCE

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class Batch(ctypes.Structure):
    """As in emulation/gem.cpp."""

    _fields_ = [
        ("dtype", c_int), ("batch", c_int), ("rows", c_int), ("columns", c_int64),
        ("memory", c_void_p), ("memory_batch", c_int64), ("memory_row", c_int64),
        ("stride", c_int64), ("grad", c_void_p), ("grad_batch", c_int64),
    ]  # fmt: skip


class Lists(ctypes.Structure):
    """As in emulation/gem.cpp."""

    _fields_ = [
        ("dtype", c_int), ("rows", c_int), ("count", c_int), ("columns", c_void_p),
        ("pointers", c_void_p),
    ]  # fmt: skip


class Options(ctypes.Structure):
    """As in emulation/gem.cpp."""

    _fields_ = [
        ("slack", c_void_p), ("lower", c_double), ("ridge", c_double), ("tolerance", c_double),
        ("always", c_int),
    ]  # fmt: skip


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def batch_of(memory: Tensor, grad: Tensor) -> Batch:
    batch, rows, columns = memory.shape
    return Batch(
        DTYPES[grad.dtype], batch, rows, columns, memory.data_ptr(), *memory.stride(),
        grad.data_ptr(), grad.stride(0),
    )  # fmt: skip


def options_of(
    slack: Tensor | None = None, lower: float = 0.0, ridge: float = 0.0, always: bool = False,
    tolerance: float = TOLERANCE[torch.float32],
) -> Options:  # fmt: skip
    return Options(pointer(slack), lower, ridge, tolerance, int(always))


def doubles(*shape: int) -> Tensor:
    return torch.full(shape, torch.nan, dtype=torch.float64)


def call(function: Any, *arguments: Any) -> None:
    def convert(given: Any) -> Any:
        if isinstance(given, Tensor):
            return c_void_p(given.data_ptr())
        return ctypes.byref(given) if isinstance(given, ctypes.Structure) else given

    assert function(*(convert(a) for a in arguments)) == 0


def forward(library: ctypes.CDLL, grad: Tensor, memory: Tensor, **options: Any) -> list[Tensor]:
    """v, dual, status, gram."""
    batch, rows, _ = memory.shape
    results = [
        torch.full(grad.shape, torch.nan, dtype=grad.dtype), doubles(batch, rows),
        torch.full((batch,), -1, dtype=torch.int32), doubles(batch, rows, rows),
    ]  # fmt: skip
    call(library.run_forward, batch_of(memory, grad), options_of(**options), *results)
    return results


def gram(library: ctypes.CDLL, memory: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    batch, rows, _ = memory.shape
    results = doubles(batch, rows, rows), doubles(batch, rows)
    call(library.run_gram, batch_of(memory, grad), *results)
    return results


def nnqp(
    library: ctypes.CDLL, square: Tensor, linear: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    batch, rows = linear.shape
    results = doubles(batch, rows), torch.full((batch,), -1, dtype=torch.int32)
    call(
        library.run_nnqp, c_int(batch), c_int(rows), square, linear, options_of(**options), *results
    )
    return results


def backward(
    library: ctypes.CDLL, grad_out: Tensor, memory: Tensor, v: Tensor, dual: Tensor,
    square: Tensor, **options: Any,
) -> list[Tensor]:  # fmt: skip
    """Gradients of grad, memory and slack."""
    results = [
        torch.full(grad_out.shape, torch.nan, dtype=grad_out.dtype),
        torch.full(memory.shape, torch.nan, dtype=grad_out.dtype),
        doubles(*dual.shape),
    ]
    call(
        library.run_backward, batch_of(memory, grad_out), options_of(**options), dual, square, v,
        c_int64(v.stride(0)), *results,
    )  # fmt: skip
    return results


def lists(
    library: ctypes.CDLL, grads: list[Tensor], rows: list[list[Tensor | None]], **options: Any
) -> tuple[Tensor, Tensor, int]:
    """Projects the gradients in place; dual, status, launches of a pass."""
    table: list[int | None] = []
    for k, grad in enumerate(grads):
        table += [pointer(row[k]) for row in rows] + [grad.data_ptr()]
    pointers = (c_void_p * len(table))(*table)
    columns = (c_int64 * len(grads))(*(grad.numel() for grad in grads))
    given = Lists(
        DTYPES[grads[0].dtype], len(rows), len(grads), ctypes.addressof(columns),
        ctypes.addressof(pointers),
    )  # fmt: skip
    dual, status, launched = doubles(len(rows)), torch.full((1,), -1, dtype=torch.int32), c_int()
    call(library.run_lists, given, options_of(**options), dual, status, ctypes.byref(launched))
    return dual, status, launched.value


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    for name in ("forward", "gram", "nnqp", "backward", "lists"):
        getattr(library, f"run_{name}").restype = c_int32
    return library
