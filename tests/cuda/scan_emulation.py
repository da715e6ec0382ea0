"""Runs the kernels of the scans and of the causal convolution in their emulation on the CPU."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .scan_problems import Case, ConvCase, SsdCase, Tensors

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
int32, int64, pointer, boolean = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_bool


def _struct(struct_name: str, **fields: object) -> type[ctypes.Structure]:
    return type(struct_name, (ctypes.Structure,), {"_fields_": list(fields.items())})


View = _struct(
    "View", data=pointer, dtype=int32,
    **dict.fromkeys(("batch", "path", "row", "state", "step"), int64),
)  # fmt: skip
Checkpoints = _struct(
    "Checkpoints", data=pointer, **dict.fromkeys(("batch", "path", "time", "row", "state"), int64)
)
Problem = _struct(
    "Problem",
    **dict.fromkeys(
        ("batch", "paths", "channels", "groups", "states", "length", "height", "share"), int32
    ),
    scalar=boolean, softplus=boolean, least=ctypes.c_float, most=ctypes.c_float,
    directions=int32 * 8, interval=int32,
    **dict.fromkeys(("u", "delta", "z", "b", "c"), View),
    constant_b=boolean, constant_c=boolean,
    **dict.fromkeys(("a", "d", "bias", "sequence"), pointer),
    sequence_batch=int64, sequence_step=int64,
)  # fmt: skip
Forward = _struct(
    "Forward", problem=Problem, initial=pointer, out=View, checkpoints=Checkpoints,
    **dict.fromkeys(("last", "scratch", "decay", "inflow"), pointer),
)  # fmt: skip
Backward = _struct(
    "Backward", problem=Problem, grad_out=View, checkpoints=Checkpoints, grad_last=pointer,
    **dict.fromkeys(("grad_u", "grad_delta", "grad_z", "grad_b", "grad_c"), View),
    **dict.fromkeys(("grad_a", "grad_d", "grad_bias", "grad_initial", "scratch"), pointer),
    y=View,
    **dict.fromkeys(
        ("slots_a", "slots_d", "slots_bias", "slots_b", "slots_c", "decay", "inflow", "restart"),
        pointer,
    ),
)  # fmt: skip
Convolution = _struct(
    "Convolution",
    **dict.fromkeys(("batch", "channels", "length", "width"), int32),
    silu=boolean, x=View, weight=pointer, bias=pointer, initial=View, sequence=pointer,
    sequence_batch=int64, sequence_step=int64,
)  # fmt: skip
ConvolutionForward = _struct("ConvolutionForward", problem=Convolution, out=View)
ConvolutionBackward = _struct(
    "ConvolutionBackward", problem=Convolution,
    **dict.fromkeys(("grad_out", "grad_x", "grad_initial"), View),
    **dict.fromkeys(("grad_weight", "grad_bias", "scratch"), pointer),
)  # fmt: skip


def declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types that ctypes would guess wrong."""
    loaded.scratch.restype = int64
    loaded.convolution_floats.restype = int64
    return loaded


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def view(tensor: Tensor | None, axes: str) -> ctypes.Structure:
    """A tensor's view; letters name its axes: b, k (path), d, g or h (row), n (state), l (step)."""
    if tensor is None:
        return View()
    stride = dict(zip(axes, tensor.stride(), strict=True))
    row = next((stride[letter] for letter in "dgh" if letter in stride), 0)
    return View(
        tensor.data_ptr(), DTYPES[tensor.dtype], stride.get("b", 0), stride.get("k", 0), row,
        stride.get("n", 0), stride.get("l", 0),
    )  # fmt: skip


def nan(tensor: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Like the tensor, or of another shape and type, and not yet computed."""
    if shape:
        return torch.full(shape, torch.nan, dtype=dtype or tensor.dtype)
    # channels-last where the tensor is
    if tensor.dim() > 1 and tensor.stride(-2) == 1 and tensor.stride(-1) != 1:
        return torch.full_like(tensor.mT.contiguous(), torch.nan).mT
    return torch.full_like(tensor.contiguous(), torch.nan)


def scratch(library: ctypes.CDLL, problem: ctypes.Structure, backwards: bool) -> Tensor:
    count = library.scratch(ctypes.byref(problem), int(backwards))
    return torch.full((max(count, 1),), torch.nan)


def _sequence(tensors: Tensors) -> tuple[int | None, int, int]:
    ids = tensors.get("seq_idx")
    return (None, 0, 0) if ids is None else (ids.data_ptr(), ids.stride(0), ids.stride(1))


def scan_problem(case: Case, tensors: Tensors, chunk: int) -> ctypes.Structure:
    t = tensors
    constant = {name: t[name].dim() == 3 for name in "BC"}
    return Problem(
        case.batch, len(case.directions), case.channels, case.groups, case.states, case.length,
        case.height, 1, False, case.softplus, -torch.inf, torch.inf,
        (int32 * 8)(*case.directions), chunk,
        view(t["u"], "bdl"), view(t["delta"], "bkdl"), view(t.get("z"), "bdl"),
        *(view(t[name], "kdn" if constant[name] else "bkgnl") for name in "BC"),
        constant["B"], constant["C"],
        *(address(t.get(name)) for name in ("A", "D", "delta_bias")), *_sequence(t),
    )  # fmt: skip


def run_scan(
    library: ctypes.CDLL, case: Case, tensors: Tensors, chunk: int = 16
) -> tuple[Tensors, Tensors]:
    """Outputs and gradients by the kernels."""
    t, batch, paths = tensors, case.batch, len(case.directions)
    problem = scan_problem(case, t, chunk)
    times = -(-case.length // chunk) + 1
    saved = nan(t["A"], batch, paths, times, case.states, case.channels)
    stride = saved.stride()
    checkpoints = Checkpoints(saved.data_ptr(), *stride[:3], stride[4], stride[3])
    outputs = {"out": nan(t["u"]), "last_state": nan(t["A"], batch, *t["A"].shape)}
    work = scratch(library, problem, False)
    forward = Forward(
        problem, address(t.get("initial_state")), view(outputs["out"], "bdl"), checkpoints,
        address(outputs["last_state"]), address(work),
    )  # fmt: skip
    assert library.run_forward(ctypes.byref(forward)) == 0
    grads = {
        name: nan(x) for name, x in t.items() if name != "seq_idx" and not name.startswith("grad_")
    }
    work = scratch(library, problem, True)
    backward = Backward(
        problem, view(t["grad_out"], "bdl"), checkpoints, address(t["grad_last_state"]),
        view(grads["u"], "bdl"), view(grads["delta"], "bkdl"), view(grads.get("z"), "bdl"),
        *(view(grads[name], "kdn" if t[name].dim() == 3 else "bkgnl") for name in "BC"),
        *(address(grads.get(name)) for name in ("A", "D", "delta_bias", "initial_state")),
        address(work),
    )  # fmt: skip
    assert library.run_backward(ctypes.byref(backward)) == 0
    return outputs, grads


def ssd_problem(case: SsdCase, tensors: Tensors, chunk: int) -> ctypes.Structure:
    t = tensors
    flat = {name: t[name].flatten(2) for name in ("x", "z") if name in t}
    return Problem(
        case.batch, 1, case.heads * case.width, case.groups, case.states, case.length, 1,
        case.width, True, case.softplus, *case.limit, (int32 * 8)(), chunk,
        view(flat["x"], "bld"), view(t["dt"], "blh"), view(flat.get("z"), "bld"),
        view(t["B"], "blgn"), view(t["C"], "blgn"), False, False,
        *(address(t.get(name)) for name in ("A", "D", "dt_bias")), *_sequence(t),
    )  # fmt: skip


def run_ssd(
    library: ctypes.CDLL, case: SsdCase, tensors: Tensors, chunk: int
) -> tuple[Tensors, Tensors]:
    """Outputs and gradients by the kernels."""
    t, state = tensors, (case.heads, case.width, case.states)
    problem = ssd_problem(case, t, chunk)
    saved = nan(t["A"], case.batch, -(-case.length // chunk) + 1, *state)
    stride = saved.stride()
    checkpoints = Checkpoints(saved.data_ptr(), stride[0], 0, stride[1], stride[3], stride[4])
    outputs = {"out": nan(t["x"]), "final_states": nan(t["A"], case.batch, *state)}
    work = scratch(library, problem, False)
    forward = Forward(
        problem, address(t.get("initial_states")), view(outputs["out"].flatten(2), "bld"),
        checkpoints, address(outputs["final_states"]), address(work),
    )  # fmt: skip
    assert library.run_forward(ctypes.byref(forward)) == 0
    grads = {
        name: torch.full_like(x, torch.nan)
        for name, x in t.items()
        if name != "seq_idx" and not name.startswith("grad_")
    }
    work = scratch(library, problem, True)
    grad_z = grads["z"].flatten(2) if "z" in grads else None
    backward = Backward(
        problem, view(t["grad_out"].flatten(2), "bld"), checkpoints,
        address(t["grad_final_states"]), view(grads["x"].flatten(2), "bld"),
        view(grads["dt"], "blh"), view(grad_z, "bld"),
        view(grads["B"], "blgn"), view(grads["C"], "blgn"),
        *(address(grads.get(name)) for name in ("A", "D", "dt_bias", "initial_states")),
        address(work),
    )  # fmt: skip
    assert library.run_backward(ctypes.byref(backward)) == 0
    return outputs, grads


def run_convolution(
    library: ctypes.CDLL, case: ConvCase, tensors: Tensors
) -> tuple[Tensors, Tensors]:
    """Outputs and gradients by the kernels."""
    t = tensors
    problem = Convolution(
        case.batch, case.channels, case.length, case.width, case.silu, view(t["x"], "bdl"),
        address(t["weight"]), address(t.get("bias")), view(t.get("initial_states"), "bdl"),
        *_sequence(t),
    )  # fmt: skip
    outputs = {"out": nan(t["x"])}
    forward = ConvolutionForward(problem, view(outputs["out"], "bdl"))
    assert library.run_convolution(ctypes.byref(forward)) == 0
    grads = {name: nan(x) for name, x in t.items() if name not in ("seq_idx", "grad_out")}
    work = torch.full((library.convolution_floats(ctypes.byref(problem)),), torch.nan)
    backward = ConvolutionBackward(
        problem, view(t["grad_out"], "bdl"), view(grads["x"], "bdl"),
        view(grads.get("initial_states"), "bdl"), address(grads["weight"]),
        address(grads.get("bias")), address(work),
    )  # fmt: skip
    assert library.run_convolution_backward(ctypes.byref(backward)) == 0
    return outputs, grads
