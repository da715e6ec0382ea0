"""Spiking neurons in Triton: forward and backward, and the ops `saccade_triton::lif_*`.

Layouts, arguments and results are those of `saccade::lif_forward` and `saccade::lif_backward`.
Potentials stay in registers for all time steps, the backward needs nothing but x, and T is a
run-time number. Spikes are those of the plain loop, bit by bit: nothing is contracted in these
kernels, and division is IEEE division. Sums have a fixed order.

Source: PLIF, arXiv 2007.05785; surrogate gradients, arXiv 1901.09948.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saccade.triton_kernels._launch import device_of, interpreted
from saccade.triton_kernels._spiking.forward import fire
from saccade.triton_kernels._spiking.launches import (
    BITS,
    BYTES,
    WANTED,
    Neurons,
    backward_launch,
    collect,
    forward_launch,
)

__all__ = ["backward", "backward_op", "forward", "forward_op"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_GIVEN = (
    "Tensor x, Tensor? v0, Tensor? tau, Tensor? v_threshold, Tensor? weight, Tensor? bias, "
    "Tensor? residual, float tau_value, float v_threshold_value, float v_reset, float alpha, "
    "int charge, bool hard_reset, bool detach_reset, int surrogate, bool smooth, "
)
_SCHEMAS = {
    "lif_forward": (
        f"({_GIVEN}bool store_v, int spike_code, SymInt row) "
        "-> (Tensor spikes, Tensor v_last, Tensor v_seq)"
    ),
    "lif_backward": (
        "(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, "
        f"{_GIVEN}int wanted) "
        "-> (Tensor grad_x, Tensor grad_v0, Tensor grad_tau, Tensor grad_v_threshold, "
        "Tensor grad_weight, Tensor grad_bias, Tensor grad_residual)"
    ),
}


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Run T steps of [T, A, C, I] neurons; the arguments are those of `reference.lif`.

    Returns:
        spikes, v_last [A, C, I] and v_seq [T, A, C, I] or [0].

    Raises:
        ValueError: shapes or devices do not fit.
        TypeError: dtypes do not fit.
        NotImplementedError: the dtype or device has no kernel, or smooth is asked for.
    """
    *given, smooth, store_v, kind, row = arguments
    neurons = _check(given, smooth)
    if kind not in (0, BYTES, BITS):
        raise ValueError(f"spike_code must be 0, 1 or 2, got {kind}.")
    if kind == BITS and neurons.count and (row < 1 or neurons.count % row):
        raise ValueError(f"row must divide the {neurons.count} neurons, got {row}.")
    launch, *results = forward_launch(neurons, store_v, kind, row)
    with device_of(neurons.x):
        launch.run()
    spikes, v_last, v_seq = results
    return spikes, v_last, v_seq


def backward(
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    grad_v_seq: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    """Gradients of `forward` with respect to its seven tensors.

    `wanted`, the last argument, is a mask: bit i asks for the gradient of tensor i; the others come
    back in shape [0].
    """
    *given, smooth, wanted = arguments
    neurons = _check(given, smooth)
    x = neurons.x
    for name, tensor, shape, dtype in (
        ("grad_spikes", grad_spikes, x.shape, x.dtype),
        ("grad_v_last", grad_v_last, x.shape[1:], torch.float32),
        ("grad_v_seq", grad_v_seq, x.shape, torch.float32),
    ):
        _check_tensor(name, tensor, x, tuple(shape), dtype)
    launch, grads, partial = backward_launch(neurons, grad_spikes, grad_v_last, grad_v_seq, wanted)
    with device_of(x):
        launch.run()
        if partial is not None:
            grads |= collect(neurons, partial, wanted)
    of_x = ("x", "residual")
    return tuple(
        grads[name]
        if name in grads
        else x.new_empty([0], dtype=x.dtype if name in of_x else torch.float32)
        for name in WANTED
    )


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Say why these inputs have no kernel here, in a sentence, or None when they have one."""
    if dtype not in DTYPES:
        return f"The Triton kernels take float32, float16 and bfloat16, got {dtype}."
    if interpreted(fire):
        if dtype == torch.bfloat16:
            return "Triton's interpreter computes bfloat16 wrongly: use float32 or float16 there."
    elif device.type != "cuda":
        return (
            f"The Triton kernels run on a GPU, got tensors on {device}; with TRITON_INTERPRET=1 "
            "set before the first import they run on the CPU, in Triton's interpreter."
        )
    return None


def _check(given: list[Any], smooth: bool) -> Neurons:
    neurons = Neurons(*given)
    x = neurons.x
    if x.dim() != 4:
        raise ValueError(f"x must be [T, A, C, I], got shape {tuple(x.shape)}.")
    why = why_not(x.device, x.dtype)
    if why is not None:
        raise NotImplementedError(why)
    if smooth:
        raise NotImplementedError("The Triton kernels have no smooth step in place of the spike.")
    if (neurons.weight is None) != (neurons.bias is None):
        raise ValueError("weight and bias come together, got one of them.")
    channels = (x.shape[2],)
    for name in ("tau", "v_threshold"):
        tensor = getattr(neurons, name)
        one = tensor is not None and tuple(tensor.shape) == (1,)
        _check_tensor(name, tensor, x, (1,) if one else channels, torch.float32)
    for name, shape in (("v0", tuple(x.shape[1:])), ("weight", channels), ("bias", channels)):
        _check_tensor(name, getattr(neurons, name), x, shape, torch.float32)
    _check_tensor("residual", neurons.residual, x, tuple(x.shape), x.dtype)
    if not 0 <= neurons.charge <= 2:
        raise ValueError(f"charge must be 0, 1 or 2, got {neurons.charge}.")
    if not 0 <= neurons.surrogate <= 7:
        raise ValueError(f"surrogate must be from 0 to 7, got {neurons.surrogate}.")
    return neurons


def _check_tensor(
    name: str, tensor: Tensor | None, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    if tensor is None:
        return
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}.")
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {tensor.dtype}.")
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on x's device {x.device}, got {tensor.device}.")


def _fake_forward(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    store_v, kind, row = arguments[-3:]
    steps, *sizes = x.shape
    if kind == BITS:
        rows, width = (sizes[0] * sizes[1] * sizes[2] // row, (row + 7) // 8) if row else (0, 0)
        spikes = x.new_empty([steps, rows, width], dtype=torch.uint8)
    else:
        spikes = x.new_empty(x.shape, dtype=torch.uint8 if kind == BYTES else x.dtype)
    v_seq = x.new_empty(x.shape if store_v else [0], dtype=torch.float32)
    return spikes, x.new_empty(sizes, dtype=torch.float32), v_seq


def _fake_backward(
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    grad_v_seq: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    x, *_ = arguments
    wanted = arguments[-1]
    return tuple(
        x.new_empty(
            tensor.shape if wanted >> bit & 1 else [0],
            dtype=x.dtype if name in ("x", "residual") else torch.float32,
        )
        for bit, (name, tensor) in enumerate(zip(WANTED, arguments[:7], strict=True))
    )


def _register() -> None:
    """Define the ops once in a process: a second import of this module finds them."""
    implementations = {
        "lif_forward": (forward, _fake_forward),
        "lif_backward": (backward, _fake_backward),
    }
    for name, (function, fake) in implementations.items():
        if not hasattr(torch.ops.saccade_triton, name):
            operator = f"saccade_triton::{name}"
            torch.library.define(operator, _SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(operator, ("cpu", "cuda"), function)
            torch.library.register_fake(operator, fake)


_register()
forward_op = torch.ops.saccade_triton.lif_forward.default
backward_op = torch.ops.saccade_triton.lif_backward.default
