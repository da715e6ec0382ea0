"""Runs the kernels of spiking neurons in their emulation on the CPU."""

from __future__ import annotations

import ctypes

import torch

from .spiking_problems import GRADIENTS, PARAMETERS, Case, Tensors

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
int64, pointer, number = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float


def _struct(struct_name: str, **fields: object) -> type[ctypes.Structure]:
    return type(struct_name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Parameter = _struct("Parameter", values=pointer, per_channel=ctypes.c_int, number=number)
Problem = _struct(
    "Problem",
    **dict.fromkeys(("dtype", "charge", "surrogate"), ctypes.c_int),
    **dict.fromkeys(("soft", "detach", "aligned"), ctypes.c_bool),
    **dict.fromkeys(("alpha", "v_reset", "inverse"), number),
    tau=Parameter, threshold=Parameter, weight=pointer, bias=pointer, steps=int64, rows=int64,
    columns=ctypes.c_int, inner=ctypes.c_int, x_step=int64, residual_step=int64, x=pointer,
    residual=pointer, v0=pointer,
)  # fmt: skip
Forward = _struct(
    "Forward", problem=Problem, kind=ctypes.c_int, last=ctypes.c_int, spikes=pointer,
    v_last=pointer, v_seq=pointer,
)  # fmt: skip
Backward = _struct(
    "Backward", problem=Problem, grad_step=int64,
    **dict.fromkeys(
        ("grad_spikes", "grad_v_last", "grad_v_seq", "checkpoints", "partial", "parts", "grad_x",
         "grad_residual", "grad_v0", "grad_tau", "grad_threshold", "grad_weight", "grad_bias"),
        pointer),
)  # fmt: skip


def declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types that ctypes would guess wrong."""
    for function in (loaded.kept_segments, loaded.slots_of, loaded.numbers_of_parts):
        function.restype = int64
    loaded.kept_segments.argtypes = [int64]
    return loaded


def address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


def problem(case: Case, tensors: Tensors, sums: bool, aligned: bool) -> ctypes.Structure:
    scalars = case.scalars()
    rows, channels, inner = case.sizes
    columns = channels * inner
    if not sums and not any(name in tensors for name in PARAMETERS):
        rows, columns, inner = 1, rows * columns, rows * columns

    def parameter(name: str) -> ctypes.Structure:
        tensor = tensors.get(name)
        per_channel = tensor is not None and tensor.numel() > 1
        return Parameter(address(tensor), per_channel, scalars[f"{name}_value"])

    tau = scalars["tau_value"]
    inverse = 1 / tau if "tau" not in tensors and tau in (2.0, 4.0) else 0.0
    residual = tensors.get("residual")
    return Problem(
        DTYPES[tensors["x"].dtype], case.charge, scalars["surrogate"], not case.hard, case.detach,
        aligned and columns % 4 == 0, scalars["alpha"], scalars["v_reset"], inverse,
        parameter("tau"), parameter("v_threshold"), address(tensors.get("weight")),
        address(tensors.get("bias")), case.steps, rows, columns, inner, tensors["x"].stride(0),
        residual.stride(0) if residual is not None else 0, address(tensors["x"]),
        address(residual), address(tensors.get("v0")),
    )  # fmt: skip


def run(
    library: ctypes.CDLL, case: Case, tensors: Tensors, *, aligned: bool = True
) -> tuple[Tensors, Tensors]:
    """Results and gradients by the kernels."""
    x = tensors["x"]
    if x[:1].numel() == 0 and case.steps > 0:
        raise ValueError("the binding launches nothing without neurons")

    def nan(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        fill = torch.nan if dtype.is_floating_point else 0xAA
        return torch.full(shape, fill, dtype=dtype)

    p = problem(case, tensors, sums=False, aligned=aligned and (case.kind < 2 or case.row % 4 == 0))
    neurons = x[0].numel() if case.steps else torch.Size(case.sizes).numel()
    outputs = {
        "spikes": nan(*x.shape, dtype=x.dtype if case.kind == 0 else torch.uint8)
        if case.kind < 2
        else nan(case.steps, neurons // case.row, -(-case.row // 8), dtype=torch.uint8),
        "v_last": nan(*case.sizes),
        "v_seq": nan(*(x.shape if case.store_v else (0,))),
    }
    last = case.row if case.kind == 2 else p.columns
    forward = Forward(p, case.kind, last, *map(address, outputs.values()))
    assert library.run_forward(ctypes.byref(forward)) == 0

    sums = any(name in tensors for name in PARAMETERS)
    p = problem(case, tensors, sums, aligned)
    grads = {
        name: nan(*tensors[name].shape, dtype=tensors[name].dtype)
        for name in GRADIENTS
        if name in tensors
    }
    of_spikes = tensors.get("grad_spikes")
    checkpoints = nan(max(library.kept_segments(case.steps) - 1, 0) * neurons)
    partial = parts = None
    if sums:
        partial = nan(4 * library.slots_of(ctypes.byref(p)) * p.columns)
        parts = nan(max(library.numbers_of_parts(ctypes.byref(p), k) for k in (0, 1)))
    backward = Backward(
        p, of_spikes.stride(0) if of_spikes is not None else 0, address(of_spikes),
        address(tensors.get("grad_v_last")), address(tensors.get("grad_v_seq")),
        address(checkpoints), address(partial), address(parts),
        *(address(grads.get(name))
          for name in ("x", "residual", "v0", "tau", "v_threshold", "weight", "bias")),
    )  # fmt: skip
    assert library.run_backward(ctypes.byref(backward)) == 0
    return outputs, grads
