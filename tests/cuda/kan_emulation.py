"""Runs the CUDA kernels of KAN layers in their emulation on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
WAVELET = 5
int64, pointer, number = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int


def _struct(struct_name: str, **fields: object) -> type[ctypes.Structure]:
    return type(struct_name, (ctypes.Structure,), {"_fields_": list(fields.items())})


def _all(kind: object, *names: str) -> dict[str, object]:
    return dict.fromkeys(names, kind)


Basis = _struct(
    "Basis", **_all(number, "code", "option", "range", "count", "knots"), stride=int64,
    scale_step=number, points=pointer, scales=pointer,
)  # fmt: skip
Edges = _struct("Edges", data=pointer, stride=int64 * 4)
Layer = _struct(
    "Layer", **_all(number, "dtype", "x_dtype", "heads", "rows", "inputs", "outputs"), basis=Basis,
    x=pointer, weight=Edges, base_weight=Edges,
)  # fmt: skip
Sizes = _struct(
    "Sizes",
    **_all(
        int64, "forward_weight", "forward_slots", "weight", "grad_rows", "grad_columns",
        "weight_slots", "base_slots", "bias_slots", "point_slots", "scale_slots", "base_grad",
    ),
)  # fmt: skip
Forward = _struct("Forward", layer=Layer, **_all(pointer, "bias", "weight", "slots", "y"))
Backward = _struct(
    "Backward", layer=Layer,
    **_all(
        pointer, "grad_out", "weight", "grad_rows", "grad_columns", "weight_slots", "base_slots",
        "bias_slots", "point_slots", "scale_slots", "base_grad", "grad_x",
    ),
    grad_weight=Edges, grad_base_weight=Edges,
    **_all(pointer, "grad_bias", "grad_points", "grad_scales"),
)  # fmt: skip
Rational = _struct(
    "Rational", dtype=number, batch=int64, length=int64,
    **_all(number, "groups", "numerator", "denominator"),
    **_all(ctypes.c_bool, "shared_numerator", "shared_denominator"),
    **_all(
        pointer, "x", "a", "b", "y", "grad_out", "grad_x", "grad_a", "grad_b", "slots_a", "slots_b"
    ),
)  # fmt: skip


def declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types that ctypes would guess wrong."""
    loaded.slots.restype = int64
    return loaded


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def edges(tensor: Tensor | None) -> ctypes.Structure:
    if tensor is None:
        return Edges()
    strides = [*tensor.stride(), *[0] * (4 - tensor.dim())]
    return Edges(tensor.data_ptr(), (int64 * 4)(*strides))


def layer(
    x: Tensor, weight: Tensor, base_weight: Tensor | None, points: Tensor | None,
    scales: Tensor | None, basis: int, options: Sequence[int],
) -> ctypes.Structure:  # fmt: skip
    options = [*options, 0, 0]
    knots = points.shape[1] if basis == 0 and points is not None else 0
    functions = Basis(
        basis, options[0], options[1] if basis == 0 else 0, weight.shape[3], knots,
        knots if knots and points.shape[0] > 1 else 0,
        int(scales is not None and scales.numel() > 1), address(points), address(scales),
    )  # fmt: skip
    return Layer(
        DTYPES[weight.dtype], DTYPES[x.dtype], *x.shape[:2], x.shape[2], weight.shape[1], functions,
        address(x), edges(weight), edges(base_weight),
    )  # fmt: skip


class Scratch:
    """Scratch tensors full of NaN, as large as the kernels say."""

    def __init__(self, library: ctypes.CDLL, of: ctypes.Structure, dtype: torch.dtype) -> None:
        self.sizes, self.dtype, self.kept = Sizes(), dtype, []
        library.scratch(ctypes.byref(of), ctypes.byref(self.sizes))

    def __call__(self, name: str, wanted: bool = True) -> int | None:
        size = getattr(self.sizes, name)
        if size == 0 or not wanted:
            return None
        typed = name in ("forward_weight", "weight", "grad_rows", "grad_columns")
        self.kept.append(_nan(size, dtype=self.dtype if typed else torch.float32))
        return self.kept[-1].data_ptr()


def _nan(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype)


def forward(
    library: ctypes.CDLL, x: Tensor, weight: Tensor, base_weight: Tensor | None,
    bias: Tensor | None, points: Tensor | None, scales: Tensor | None, basis: int,
    options: Sequence[int],
) -> Tensor:  # fmt: skip
    of = layer(x, weight, base_weight, points, scales, basis, options)
    scratch = Scratch(library, of, weight.dtype)
    y = _nan(*x.shape[:2], weight.shape[1], dtype=weight.dtype)
    call = Forward(
        of, address(bias), scratch("forward_weight"), scratch("forward_slots"), address(y)
    )
    assert library.run_forward(ctypes.byref(call)) == 0
    return y


def backward(
    library: ctypes.CDLL, grad_out: Tensor, x: Tensor, weight: Tensor, base_weight: Tensor | None,
    points: Tensor | None, scales: Tensor | None, basis: int, options: Sequence[int],
    wanted: Sequence[int],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, weight, base_weight, bias, points, scales; None where not wanted."""
    of = layer(x, weight, base_weight, points, scales, basis, options)
    scratch = Scratch(library, of, weight.dtype)
    bias = weight[:, :, 0, 0]
    grads = [
        torch.full_like(tensor, torch.nan) if flag and tensor is not None else None
        for tensor, flag in zip((x, weight, base_weight, bias, points, scales), wanted, strict=True)
    ]
    if grads[3] is not None:
        grads[3] = grads[3].contiguous()
    call = Backward(
        of, address(grad_out), scratch("weight"), scratch("grad_rows"), scratch("grad_columns"),
        scratch("weight_slots"), scratch("base_slots"), scratch("bias_slots"),
        scratch("point_slots", grads[4] is not None), scratch("scale_slots", grads[5] is not None),
        scratch("base_grad", grads[0] is not None), address(grads[0]), edges(grads[1]),
        edges(grads[2]), *map(address, grads[3:]),
    )  # fmt: skip
    assert library.run_backward(ctypes.byref(call)) == 0
    return grads


def rational(
    library: ctypes.CDLL, grad_out: Tensor, x: Tensor, a: Tensor, b: Tensor
) -> list[Tensor]:
    """The value, and the gradients of x, numerator and denominator."""
    results = [torch.full_like(tensor, torch.nan) for tensor in (x, x, a, b)]
    call = Rational(
        DTYPES[x.dtype], x.shape[0], x.shape[2], x.shape[1], a.shape[1], b.shape[1],
        a.shape[0] == 1, b.shape[0] == 1, address(x), address(a), address(b), address(results[0]),
        address(grad_out), *map(address, results[1:]),
    )  # fmt: skip
    slots = library.slots(ctypes.byref(call))
    tables = [
        _nan(slots, x.shape[1], max(1, tensor.shape[1]), dtype=torch.float32) for tensor in (a, b)
    ]
    call.slots_a, call.slots_b = map(address, tables)
    assert library.run_rational_forward(ctypes.byref(call)) == 0
    assert library.run_rational_backward(ctypes.byref(call)) == 0
    return results
