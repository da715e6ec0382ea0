"""Log-polar sampling and its inverse in Triton: the ops `saccade_triton::logpolar_*`.

Layouts, arguments and results are those of the operators of the same names in `saccade`.
Coordinates and sums are float32. A backward gives the same bits each time: every pixel and every
cell of a map gathers what belongs to it, in a fixed order.

Source: Foveated retinotopy, arXiv 2402.15480, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saccade.triton_kernels._launch import device_of, interpreted
from saccade.triton_kernels._logpolar import checks
from saccade.triton_kernels._logpolar.launches import (
    Inversion,
    Sampling,
    inverse_backward_launches,
    inverse_launch,
    sample_backward_launches,
    sample_launch,
)
from saccade.triton_kernels._logpolar.sample import sample

__all__ = ["inverse_backward", "inverse_forward", "sample_backward", "sample_forward"]

_POSE = "Tensor fixation, Tensor theta0, Tensor scale, Tensor radii"
_POSE_GRADS = "Tensor grad_fixation, Tensor grad_theta0, Tensor grad_scale"
_SAMPLE = f"Tensor image, Tensor? pyramid, {_POSE}, Tensor edges"
_SAMPLE_OPTIONS = "bool normalized, int padding, int antialias"
_INVERSE_OPTIONS = "bool normalized, int law, float offset, bool mean"
_SCHEMAS = {
    "logpolar_sample_forward": f"({_SAMPLE}, SymInt rays, {_SAMPLE_OPTIONS}) -> Tensor",
    "logpolar_sample_backward": (
        f"(Tensor grad_out, {_SAMPLE}, {_SAMPLE_OPTIONS}, bool image_grad, bool pose_grad) "
        f"-> (Tensor grad_image, Tensor grad_pyramid, {_POSE_GRADS})"
    ),
    "logpolar_inverse_forward": (
        f"(Tensor logpolar, {_POSE}, SymInt height, SymInt width, {_INVERSE_OPTIONS}, float fill) "
        "-> (Tensor out, Tensor count)"
    ),
    "logpolar_inverse_backward": (
        f"(Tensor grad_out, Tensor count, Tensor logpolar, {_POSE}, {_INVERSE_OPTIONS}, "
        f"bool logpolar_grad, bool pose_grad) -> (Tensor grad_logpolar, {_POSE_GRADS})"
    ),
}


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Say why these inputs have no kernel here, in a sentence, or None when they have one."""
    if dtype not in checks.DTYPES:
        return f"The Triton kernels take float32, float16, bfloat16 and uint8, got {dtype}."
    if interpreted(sample):
        if dtype == torch.bfloat16:
            return "Triton's interpreter computes bfloat16 wrongly: use float32 or float16 there."
    elif device.type != "cuda":
        return (
            f"The Triton kernels run on a GPU, got tensors on {device}; with TRITON_INTERPRET=1 "
            "set before the first import they run on the CPU, in Triton's interpreter."
        )
    return None


def _refuse(tensor: Tensor) -> None:
    why = why_not(tensor.device, tensor.dtype)
    if why is not None:
        raise NotImplementedError(why)


def sample_forward(*arguments: Any) -> Tensor:
    """The samples; the arguments are those of the schema."""
    given = Sampling(*arguments)
    _refuse(given.image)
    checks.sampling(given)
    launch, out = sample_launch(given)
    with device_of(given.image):
        launch.run()
    return out


def sample_backward(
    grad_out: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of image, pyramid, fixation, theta0 and scale; [0] where not wanted."""
    *tensors, normalized, padding, antialias, image_grad, pose_grad = arguments
    if grad_out.dim() != 5:
        raise ValueError(f"grad_out must be [B, N, C, R, T], got shape {tuple(grad_out.shape)}.")
    given = Sampling(*tensors, grad_out.shape[4], normalized, padding, antialias)
    _refuse(given.image)
    checks.sampling(given)
    checks.gradient(grad_out, given.shape, given.image)
    launches, grad_image, grad_pyramid, partial = sample_backward_launches(
        given, grad_out, image_grad, pose_grad
    )
    with device_of(given.image):
        for launch in launches:
            launch.run()
        return grad_image, grad_pyramid, *_collect(partial, given.fixation)


def inverse_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The image and count; the arguments are those of the schema."""
    *most, fill = arguments
    given = Inversion(*most)
    _refuse(given.logpolar)
    checks.inversion(given)
    launch, out, count = inverse_launch(given, fill)
    with device_of(given.logpolar):
        launch.run()
    return out, count


def inverse_backward(
    grad_out: Tensor, count: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of logpolar, fixation, theta0 and scale; [0] where not wanted."""
    *tensors, normalized, law, offset, mean, map_grad, pose_grad = arguments
    if grad_out.dim() != (4 if mean else 5):
        raise ValueError(f"grad_out must be that of out, got shape {tuple(grad_out.shape)}.")
    given = Inversion(*tensors, *grad_out.shape[-2:], normalized, law, offset, mean)
    logpolar = given.logpolar
    _refuse(logpolar)
    checks.inversion(given)
    checks.gradient(grad_out, given.out_shape, logpolar)
    if mean:
        expected = (logpolar.shape[0], given.height, given.width)
        checks.table("count", count, expected, logpolar.device)
    launches, grad_map, partial = inverse_backward_launches(
        given, grad_out, count, map_grad, pose_grad
    )
    with device_of(logpolar):
        for launch in launches:
            launch.run()
        return grad_map, *_collect(partial, given.fixation)


def _collect(partial: Tensor | None, fixation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Add the parts [B, N, parts, 4] of the gradients of fixation, theta0 and scale up."""
    if partial is None:
        return fixation.new_empty([0]), fixation.new_empty([0]), fixation.new_empty([0])
    sums = partial.sum(2)
    x_and_y, theta0, scale = sums.split([2, 1, 1], dim=2)
    return x_and_y.contiguous(), theta0.squeeze(2).contiguous(), scale.squeeze(2).contiguous()


def _fake_sample_forward(image: Tensor, *arguments: Any) -> Tensor:
    _, fixation, _, _, radii, _, rays = arguments[:7]
    dtype = image.dtype if image.is_floating_point() else torch.float32
    shape = (*fixation.shape[:2], image.shape[1], radii.shape[0], rays)
    return image.new_empty(shape, dtype=dtype)


def _fake_poses(wanted: bool, *pose: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape if wanted else [0]) for tensor in pose)


def _fake_sample_backward(grad_out: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    image, pyramid, fixation, theta0, scale = arguments[:5]
    image_grad, pose_grad = arguments[-2:]
    layered = image_grad and pyramid is not None
    return (
        grad_out.new_empty(image.shape if image_grad else [0]),
        fixation.new_empty(pyramid.shape if layered else [0]),
        *_fake_poses(pose_grad, fixation, theta0, scale),
    )


def _fake_inverse_forward(logpolar: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    height, width, *_, mean, _ = arguments[4:]
    batch, fixations, channels = logpolar.shape[:3]
    lead = (batch, channels) if mean else (batch, fixations, channels)
    counted = (batch, height, width) if mean else (0,)
    return (
        logpolar.new_empty((*lead, height, width)),
        logpolar.new_empty(counted, dtype=torch.float32),
    )


def _fake_inverse_backward(_out: Tensor, _count: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    logpolar, fixation, theta0, scale = arguments[:4]
    map_grad, pose_grad = arguments[-2:]
    return (
        logpolar.new_empty(logpolar.shape if map_grad else [0]),
        *_fake_poses(pose_grad, fixation, theta0, scale),
    )


def _register() -> None:
    """Define the ops once in a process: a second import of this module finds them."""
    implementations: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "logpolar_sample_forward": (sample_forward, _fake_sample_forward),
        "logpolar_sample_backward": (sample_backward, _fake_sample_backward),
        "logpolar_inverse_forward": (inverse_forward, _fake_inverse_forward),
        "logpolar_inverse_backward": (inverse_backward, _fake_inverse_backward),
    }
    for name, (function, fake) in implementations.items():
        if not hasattr(torch.ops.saccade_triton, name):
            operator = f"saccade_triton::{name}"
            torch.library.define(operator, _SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(operator, ("cpu", "cuda"), function)
            torch.library.register_fake(operator, fake)


_register()
