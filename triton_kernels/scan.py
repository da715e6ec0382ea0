"""Selective scans and the causal convolution in Triton: the ops `saccade_triton::selective_scan_*`,
`saccade_triton::ssd_scan_*` and `saccade_triton::causal_conv1d_*`.

Layouts, arguments and results are those of the operators of the same names in `saccade`. Signals
are read where they lie, through strides; states and sums are float32. Every sum has a fixed order,
so that a backward gives the same bits each time.

Source: Gu and Dao, arXiv 2312.00752; Dao and Gu, arXiv 2405.21060.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saccade.triton_kernels._launch import device_of
from saccade.triton_kernels._scan import (
    checks,
    convolution_launches,
    selective_launches,
    ssd_launches,
)
from saccade.triton_kernels._scan.layout import empty_like, intervals

__all__ = [
    "causal_conv1d_backward",
    "causal_conv1d_forward",
    "selective_scan_backward",
    "selective_scan_forward",
    "ssd_scan_backward",
    "ssd_scan_forward",
]

_CONVOLUTION = "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_states, Tensor? seq_idx"
_SELECTIVE = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? initial_state, Tensor? seq_idx"
)
_SELECTIVE_OPTIONS = "bool delta_softplus, int[] directions, SymInt height, int chunk"
_SSD = (
    "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? dt_bias, "
    "Tensor? initial_states, Tensor? seq_idx"
)
_SSD_OPTIONS = "bool dt_softplus, float dt_min, float dt_max, int chunk"
_SCHEMAS = {
    "causal_conv1d_forward": f"({_CONVOLUTION}, bool silu) -> Tensor out",
    "causal_conv1d_backward": (
        f"(Tensor grad_out, {_CONVOLUTION}, bool silu) -> (Tensor grad_x, Tensor grad_weight, "
        "Tensor grad_bias, Tensor grad_initial_states)"
    ),
    "selective_scan_forward": (
        f"({_SELECTIVE}, {_SELECTIVE_OPTIONS}) -> "
        "(Tensor out, Tensor last_state, Tensor checkpoints)"
    ),
    "selective_scan_backward": (
        f"(Tensor grad_out, Tensor grad_last_state, {_SELECTIVE}, Tensor checkpoints, "
        f"{_SELECTIVE_OPTIONS}) -> (Tensor grad_u, Tensor grad_delta, Tensor grad_A, "
        "Tensor grad_B, Tensor grad_C, Tensor grad_D, Tensor grad_z, Tensor grad_delta_bias, "
        "Tensor grad_initial_state)"
    ),
    "ssd_scan_forward": (
        f"({_SSD}, {_SSD_OPTIONS}) -> (Tensor out, Tensor final_states, Tensor checkpoints)"
    ),
    "ssd_scan_backward": (
        f"(Tensor grad_out, Tensor grad_final_states, {_SSD}, Tensor checkpoints, {_SSD_OPTIONS}) "
        "-> (Tensor grad_x, Tensor grad_dt, Tensor grad_A, Tensor grad_B, Tensor grad_C, "
        "Tensor grad_D, Tensor grad_z, Tensor grad_dt_bias, Tensor grad_initial_states)"
    ),
}


def _selective(*arguments: Any) -> selective_launches.Inputs:
    inputs = selective_launches.Inputs(*arguments)
    u = inputs.u
    checks.runs("u", u, 3)
    checks.at_most("numbers of directions", inputs.paths, checks.MAX_PATHS)
    checks.at_most("states", inputs.states, checks.MAX_STATES)
    batch, channels, length = u.shape
    parameters = (inputs.paths, channels, inputs.states)
    checks.real("A", inputs.A)
    checks.shape("A", inputs.A, parameters, u.device)
    checks.like("delta", inputs.delta, (batch, inputs.paths, channels, length), u)
    for name, x in (("B", inputs.B), ("C", inputs.C)):
        if x.dim() == 3:
            checks.shape(name, x, parameters, u.device)
        else:
            expected = (batch, inputs.paths, inputs.groups, inputs.states, length)
            checks.like(name, x, expected, u)
    checks.shape("D", inputs.D, parameters[:2], u.device)
    checks.shape("delta_bias", inputs.delta_bias, parameters[:2], u.device)
    checks.like("z", inputs.z, u.shape, u)
    checks.shape("initial_state", inputs.initial_state, (batch, *parameters), u.device)
    checks.shape("seq_idx", inputs.seq_idx, (batch, length), u.device)
    if length % inputs.height or channels % inputs.groups:
        raise ValueError(
            f"height must divide the length {length} and groups the {channels} channels, "
            f"got {inputs.height} and {inputs.groups}."
        )
    return inputs


def _check_chunk(chunk: int, sizes: tuple[int, ...]) -> None:
    if chunk not in (0, *sizes):
        raise NotImplementedError(
            f"The Triton kernels take chunks of {', '.join(map(str, sizes))}, got {chunk}."
        )


def selective_scan_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """out, last_state and checkpoints; arguments: those of the schema."""
    inputs, chunk = _selective(*arguments[:-1]), arguments[-1]
    _check_chunk(chunk, (selective_launches.STEPS,))
    launch, outputs = selective_launches.forward_launch(inputs, chunk)
    with device_of(inputs.u):
        launch.run()
        return outputs.collect(inputs)


def selective_scan_backward(
    grad_out: Tensor, grad_last_state: Tensor, *arguments: Any
) -> tuple[Tensor, ...]:
    """The gradients of the inputs; arguments: those of the schema."""
    *tensors, checkpoints, softplus, directions, height, chunk = arguments
    inputs = _selective(*tensors, softplus, directions, height)
    checks.like("grad_out", grad_out, inputs.u.shape, inputs.u)
    if not chunk:
        raise ValueError("chunk must be that of the forward, got 0.")
    _check_chunk(chunk, (selective_launches.STEPS,))
    batch, channels, length = inputs.u.shape
    expected = (batch, inputs.paths, intervals(length, chunk), inputs.states, channels)
    checks.shape("checkpoints", checkpoints, expected, inputs.u.device)
    launch, gradients = selective_launches.backward_launch(
        inputs, grad_out, grad_last_state, checkpoints
    )
    with device_of(inputs.u):
        launch.run()
        return gradients.collect(inputs, grad_out)


def _ssd(*arguments: Any) -> ssd_launches.Inputs:
    inputs = ssd_launches.Inputs(*arguments)
    x = inputs.x
    checks.runs("x", x, 4)
    batch, length, heads, width = x.shape
    checks.shape("A", inputs.A, (heads,), x.device)
    checks.like("dt", inputs.dt, x.shape[:3], x)
    groups, states = inputs.B.shape[2:]
    checks.at_most("states", states, checks.MAX_STATES)
    if groups < 1 or heads % groups:
        raise ValueError(f"The groups of B must divide the {heads} heads, got {groups}.")
    checks.like("B", inputs.B, (batch, length, groups, states), x)
    checks.like("C", inputs.C, (batch, length, groups, states), x)
    checks.shape("D", inputs.D, (heads, width), x.device)
    checks.like("z", inputs.z, x.shape, x)
    checks.shape("dt_bias", inputs.dt_bias, (heads,), x.device)
    checks.shape("initial_states", inputs.initial_states, inputs.state_shape, x.device)
    checks.shape("seq_idx", inputs.seq_idx, (batch, length), x.device)
    return inputs


def ssd_scan_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """out, final_states and checkpoints; arguments: those of the schema."""
    inputs, chunk = _ssd(*arguments[:-1]), arguments[-1]
    _check_chunk(chunk, ssd_launches.CHUNKS)
    launches, outputs = ssd_launches.forward_launches(inputs, chunk)
    with device_of(inputs.x):
        for launch in launches:
            launch.run()
    return outputs


def ssd_scan_backward(
    grad_out: Tensor, grad_final_states: Tensor, *arguments: Any
) -> tuple[Tensor, ...]:
    """The gradients of the inputs; arguments: those of the schema."""
    *tensors, checkpoints, softplus, dt_min, dt_max, chunk = arguments
    inputs = _ssd(*tensors, softplus, dt_min, dt_max)
    checks.like("grad_out", grad_out, inputs.x.shape, inputs.x)
    if not chunk:
        raise ValueError("chunk must be that of the forward, got 0.")
    _check_chunk(chunk, ssd_launches.CHUNKS)
    times = intervals(inputs.x.shape[1], chunk)
    expected = (inputs.x.shape[0], times, *inputs.state_shape[1:])
    checks.shape("checkpoints", checkpoints, expected, inputs.x.device)
    launches, gradients = ssd_launches.backward_launches(
        inputs, grad_out, grad_final_states, checkpoints, chunk
    )
    with device_of(inputs.x):
        for launch in launches:
            launch.run()
        return gradients.collect(inputs)


def _convolution(*arguments: Any) -> convolution_launches.Inputs:
    inputs = convolution_launches.Inputs(*arguments)
    x = inputs.x
    checks.runs("x", x, 3)
    width = inputs.weight.shape[-1]
    checks.at_most("widths", width, checks.MAX_WIDTH)
    checks.shape("weight", inputs.weight, (x.shape[1], width), x.device)
    checks.shape("bias", inputs.bias, (x.shape[1],), x.device)
    checks.like("initial_states", inputs.initial_states, (*x.shape[:2], width - 1), x)
    checks.shape("seq_idx", inputs.seq_idx, (x.shape[0], x.shape[2]), x.device)
    return inputs


def causal_conv1d_forward(*arguments: Any) -> Tensor:
    """out; arguments: those of the schema."""
    inputs = _convolution(*arguments)
    launch, out = convolution_launches.forward_launch(inputs)
    with device_of(inputs.x):
        launch.run()
    return out


def causal_conv1d_backward(grad_out: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The gradients of the inputs; arguments: those of the schema."""
    inputs = _convolution(*arguments)
    checks.like("grad_out", grad_out, inputs.x.shape, inputs.x)
    launches, gradients = convolution_launches.backward_launches(inputs, grad_out)
    with device_of(inputs.x):
        for launch in launches:
            launch.run()
        return gradients.collect()


def _single(tensor: Tensor, *shape: Any) -> Tensor:
    return tensor.new_empty(shape, dtype=torch.float32)


def _gradient(tensor: Tensor | None, main: Tensor, layout: bool = False) -> Tensor:
    if tensor is None:
        return main.new_empty([0])
    return empty_like(tensor) if layout else tensor.new_empty(tensor.shape)


def _parameter(tensor: Tensor | None, main: Tensor) -> Tensor:
    return main.new_empty([0]) if tensor is None else _single(tensor, *tensor.shape)


def _fake_selective_forward(*arguments: Any) -> tuple[Tensor, ...]:
    u, A, chunk = arguments[0], arguments[2], arguments[-1]
    paths, channels, states = A.shape
    return (
        empty_like(u),
        _single(u, u.shape[0], *A.shape),
        _single(u, u.shape[0], paths, intervals(u.shape[2], chunk), states, channels),
    )


def _fake_selective_backward(_out: Tensor, _last: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    u, delta, A, B, C, D, z, delta_bias, initial_state = arguments[:9]
    return (
        empty_like(u),
        empty_like(delta),
        _parameter(A, u),
        *(_parameter(x, u) if x.dim() == 3 else empty_like(x) for x in (B, C)),
        _parameter(D, u),
        _gradient(z, u, layout=True),
        _parameter(delta_bias, u),
        _parameter(initial_state, u),
    )


def _fake_ssd_forward(*arguments: Any) -> tuple[Tensor, ...]:
    x, B, chunk = arguments[0], arguments[3], arguments[-1]
    state = (*x.shape[2:], B.shape[3])
    return (
        x.new_empty(x.shape),
        _single(x, x.shape[0], *state),
        _single(x, x.shape[0], intervals(x.shape[1], chunk), *state),
    )


def _fake_ssd_backward(_out: Tensor, _last: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    x, dt, A, B, C, D, z, dt_bias, initial_states = arguments[:9]
    return (
        *(_gradient(tensor, x) for tensor in (x, dt)),
        _parameter(A, x),
        *(_gradient(tensor, x) for tensor in (B, C)),
        _parameter(D, x),
        _gradient(z, x),
        *(_parameter(tensor, x) for tensor in (dt_bias, initial_states)),
    )


def _fake_convolution_forward(x: Tensor, *_: Any) -> Tensor:
    return empty_like(x)


def _fake_convolution_backward(
    _out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_states: Tensor | None,
    *_: Any,
) -> tuple[Tensor, ...]:
    return (
        empty_like(x),
        _parameter(weight, x),
        _parameter(bias, x),
        _gradient(initial_states, x),
    )


def _register() -> None:
    """Define the ops once in a process: a second import of this module finds them."""
    implementations: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "causal_conv1d_forward": (causal_conv1d_forward, _fake_convolution_forward),
        "causal_conv1d_backward": (causal_conv1d_backward, _fake_convolution_backward),
        "selective_scan_forward": (selective_scan_forward, _fake_selective_forward),
        "selective_scan_backward": (selective_scan_backward, _fake_selective_backward),
        "ssd_scan_forward": (ssd_scan_forward, _fake_ssd_forward),
        "ssd_scan_backward": (ssd_scan_backward, _fake_ssd_backward),
    }
    for name, (function, fake) in implementations.items():
        if not hasattr(torch.ops.saccade_triton, name):
            operator = f"saccade_triton::{name}"
            torch.library.define(operator, _SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(operator, ("cpu", "cuda"), function)
            torch.library.register_fake(operator, fake)


_register()
