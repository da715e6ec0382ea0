"""Runs the kernels of neighborhood attention in their emulation on the CPU."""

from __future__ import annotations

import ctypes

import torch

from .neighborhood_attention_problems import Case, Tensors

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
int64, pointer = ctypes.c_int64, ctypes.c_void_p


def _struct(struct_name: str, **fields: object) -> type[ctypes.Structure]:
    return type(struct_name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Axis = _struct(
    "Axis", **dict.fromkeys(("length", "kernel", "stride", "dilation", "causal"), ctypes.c_int)
)
Interval = _struct("Interval", lo=ctypes.c_int, hi=ctypes.c_int)
View = _struct("View", data=pointer, batch=int64, token=int64 * 3, head=int64)
Problem = _struct(
    "Problem",
    **dict.fromkeys(("dtype", "batch", "heads", "kv_heads", "dim", "extra"), ctypes.c_int),
    axis=Axis * 3, scale=ctypes.c_float, aligned=ctypes.c_bool,
    **dict.fromkeys(("query", "key", "value", "extra_key", "extra_value"), View), bias=pointer,
)  # fmt: skip
Forward = _struct("Forward", problem=Problem, out=pointer, lse=pointer)
Backward = _struct(
    "Backward", problem=Problem, grad_out=View, out=View,
    **dict.fromkeys(
        ("lse", "grad_lse", "delta", "bias_slots", "extra_slots", "grad_query", "grad_key",
         "grad_value", "grad_bias", "grad_extra_key", "grad_extra_value"), pointer),
)  # fmt: skip
Tiling = _struct(
    "Tiling", axis=Axis * 3, team=ctypes.c_int * 3, extent=ctypes.c_int * 3, count=ctypes.c_int * 3,
    chunk=ctypes.c_int * 3, rows=ctypes.c_int, items=int64,
)  # fmt: skip
Site = _struct(
    "Site",
    batch=ctypes.c_int,
    head=ctypes.c_int,
    group=ctypes.c_int * 3,
    length=ctypes.c_int * 3,
    tile=Interval * 3,
)


def declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types that ctypes would guess wrong."""
    loaded.sizes.restype = int64
    loaded.place.argtypes = [pointer, ctypes.c_int, int64, pointer]
    loaded.tiling.argtypes = [
        pointer,
        *[ctypes.c_int] * 3,
        int64,
        ctypes.c_int,
        ctypes.c_int,
        pointer,
    ]
    return loaded


def axes(case: Case) -> ctypes.Array:
    kernel, stride, dilation, causal, _ = case.sizes()
    rows = list(zip(case.dims, kernel, stride, dilation, causal, strict=True))
    return (Axis * 3)(*(Axis(*row) for row in [(1, 1, 1, 1, 0)] * (3 - len(rows)) + rows))


def view(tensor: torch.Tensor | None) -> ctypes.Structure:
    if tensor is None:
        return View()
    token = list(tensor.stride()[1:-2])
    return View(
        tensor.data_ptr(),
        tensor.stride(0),
        (int64 * 3)(*[0] * (3 - len(token)), *token),
        tensor.stride(-2),
    )


def address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def problem(case: Case, tensors: Tensors) -> ctypes.Structure:
    inputs = [
        tensors.get(k)
        for k in ("query", "key", "value", "additional_keys", "additional_values", "grad_out")
    ]
    step = 16 // tensors["query"].element_size()
    aligned = all(
        x.data_ptr() % 16 == 0
        and case.dim % step == 0
        and all(s % step == 0 for s in x.stride()[:-1])
        for x in inputs
        if x is not None
    )
    return Problem(
        DTYPES[tensors["query"].dtype], case.batch, case.heads, case.kv_heads or case.heads,
        case.dim, case.extra, axes(case), case.sizes()[-1], aligned, *map(view, inputs[:5]),
        address(tensors.get("bias")),
    )  # fmt: skip


def run(library: ctypes.CDLL, case: Case, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Outputs and gradients by the kernels."""
    p = problem(case, tensors)

    def nan(like: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.full(
            shape or tensors[like].shape, torch.nan, dtype=dtype or tensors["query"].dtype
        )

    outputs = {"out": nan("query"), "lse": nan("grad_lse", dtype=torch.float32)}
    assert library.run_forward(ctypes.byref(Forward(p, *map(address, outputs.values())))) == 0
    grads = {name: nan(name) for name in tensors if not name.startswith("grad_")}
    delta = nan("grad_lse", dtype=torch.float32)
    bias_slots = extra_slots = None
    if case.bias:
        bias_slots = nan(
            "", library.sizes(ctypes.byref(p), 0), tensors["bias"].numel(), dtype=torch.float32
        )
    if case.extra:
        size = tensors["additional_keys"].numel()
        extra_slots = nan("", 2, library.sizes(ctypes.byref(p), 1), size, dtype=torch.float32)
    backward = Backward(
        p, view(tensors["grad_out"]), view(outputs["out"]), address(outputs["lse"]),
        address(tensors["grad_lse"]), address(delta), address(bias_slots), address(extra_slots),
        *(address(grads.get(k))
          for k in ("query", "key", "value", "bias", "additional_keys", "additional_values")),
    )  # fmt: skip
    assert library.run_backward(ctypes.byref(backward)) == 0
    return outputs, grads
