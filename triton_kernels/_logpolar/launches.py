"""The launches of a call, with the tensors that they fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._logpolar.inverse import (
    differentiate_inverse_poses,
    differentiate_map,
    invert,
)
from saccade.triton_kernels._logpolar.sample import differentiate_poses, sample
from saccade.triton_kernels._logpolar.splat import differentiate_image

BLOCK = 64  # rays, positions or pixels of a program
CHANNELS = 4  # that share the positions of a program, at most
TILE = 16  # pixels on a side that gather their samples
NEAR = 16  # samples, or pixels, that a tile, or a ring, looks at at once
LEVELS, MIP = 6, 2


@dataclass(frozen=True)
class Sampling:
    """What forward and backward have in common; the fields are arguments of the schema."""

    image: Tensor
    pyramid: Tensor | None
    fixation: Tensor
    theta0: Tensor
    scale: Tensor
    radii: Tensor
    edges: Tensor
    rays: int
    normalized: bool
    padding: int
    antialias: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.fixation.shape[:2], self.image.shape[1], self.radii.shape[0], self.rays)

    def arguments(self) -> dict[str, Any]:
        _, fixations, channels, rings, rays = self.shape
        return {
            **_dense(self, "fixation", "theta0", "scale", "radii", "edges"),
            "fixations": fixations,
            "channels": channels,
            "height": self.image.shape[2],
            "width": self.image.shape[3],
            "rings": rings,
            "rays": rays,
        }

    def pixels(self) -> dict[str, Any]:
        return {
            "image": self.image.contiguous(),
            "pyramid": None if self.pyramid is None else self.pyramid.contiguous(),
            "pyramid_size": 0 if self.pyramid is None else self.pyramid.shape[2],
        }

    def constants(self) -> dict[str, Any]:
        return {
            "NORMALIZED": self.normalized,
            "PADDING": self.padding,
            "ANTIALIAS": self.antialias,
            "CHANNELS": _together(self.shape[2]),
        }


def sample_launch(given: Sampling) -> tuple[Launch, Tensor]:
    """The launch of the forward and out."""
    batch, fixations, channels, rings, rays = given.shape
    image = given.image
    dtype = image.dtype if image.is_floating_point() else torch.float32
    out = image.new_empty(given.shape, dtype=dtype)
    block = _block(rays)
    groups = triton.cdiv(channels, _together(channels))
    grid = batch * fixations * rings * groups * triton.cdiv(rays, block)
    arguments = {**given.arguments(), **given.pixels(), "out": out}
    return _launch(sample, grid, arguments, {**given.constants(), "BLOCK": block}), out


def sample_backward_launches(
    given: Sampling, grad_out: Tensor, image_grad: bool, pose_grad: bool
) -> tuple[list[Launch], Tensor, Tensor, Tensor | None]:
    """The launches of the backward, the gradients of image and pyramid, and parts of the poses'."""
    batch, fixations, channels, rings, _ = given.shape
    height, width = given.image.shape[2:]
    grad_out, launches = grad_out.contiguous(), []
    grad_image = grad_out.new_empty(given.image.shape if image_grad else [0])
    layered = image_grad and given.pyramid is not None
    grad_pyramid = given.fixation.new_empty(
        given.pyramid.shape if layered and given.pyramid is not None else [0]
    )
    begin = 0
    for level in range(1 + LEVELS if layered else 1):
        size = (triton.cdiv(height, 2**level), triton.cdiv(width, 2**level))
        target = grad_pyramid if level else grad_image
        if image_grad:
            arguments = {
                **given.arguments(),
                "grad_out": grad_out,
                "grad_level": target,
                "level": level,
                "level_height": size[0],
                "level_width": size[1],
                "begin": begin,
                "plane_size": target[0, 0].numel() if target.numel() else 0,
            }
            constants = {**given.constants(), "TILE": TILE, "BLOCK": NEAR}
            tiles = triton.cdiv(size[0], TILE) * triton.cdiv(size[1], TILE)
            grid = batch * triton.cdiv(channels, constants["CHANNELS"]) * tiles
            launches.append(_launch(differentiate_image, grid, arguments, constants, num_warps=8))
        if level:
            begin += size[0] * size[1]
    partial = None
    if pose_grad:
        partial = given.fixation.new_empty([batch, fixations, rings, 4])
        arguments = {
            **given.arguments(),
            **given.pixels(),
            "grad_out": grad_out,
            "partial": partial,
        }
        constants = {**given.constants(), "BLOCK": BLOCK}
        grid = batch * fixations * rings
        launches.append(_launch(differentiate_poses, grid, arguments, constants))
    return launches, grad_image, grad_pyramid, partial


@dataclass(frozen=True)
class Inversion:
    """As Sampling, of the inverse."""

    logpolar: Tensor
    fixation: Tensor
    theta0: Tensor
    scale: Tensor
    radii: Tensor
    height: int
    width: int
    normalized: bool
    law: int
    offset: float
    mean: bool

    @property
    def out_shape(self) -> tuple[int, ...]:
        batch, fixations, channels = self.logpolar.shape[:3]
        lead = (batch, channels) if self.mean else (batch, fixations, channels)
        return (*lead, self.height, self.width)

    def arguments(self) -> dict[str, Any]:
        _, fixations, channels, rings, rays = self.logpolar.shape
        return {
            **_dense(self, "fixation", "theta0", "scale", "radii"),
            "fixations": fixations,
            "channels": channels,
            "height": self.height,
            "width": self.width,
            "rings": rings,
            "rays": rays,
            "steps": max(rings - 1, 1).bit_length(),
            "offset": float(self.offset),
        }

    def constants(self) -> dict[str, Any]:
        return {
            "NORMALIZED": self.normalized,
            "LAW": self.law,
            "MEAN": self.mean,
            "CHANNELS": _together(self.logpolar.shape[2]),
        }


def inverse_launch(given: Inversion, fill: float) -> tuple[Launch, Tensor, Tensor]:
    """The launch of the forward, out and count."""
    logpolar = given.logpolar
    batch, fixations, channels = logpolar.shape[:3]
    out = logpolar.new_empty(given.out_shape)
    counted = [batch, given.height, given.width] if given.mean else [0]
    count = logpolar.new_empty(counted, dtype=torch.float32)
    arguments = {
        **given.arguments(),
        "logpolar": logpolar.contiguous(),
        "out": out,
        "count": count if given.mean else None,
        "fill": float(fill),
    }
    constants = {**given.constants(), "BLOCK": BLOCK}
    images = batch if given.mean else batch * fixations
    groups = max(1, triton.cdiv(channels, constants["CHANNELS"]))
    grid = images * groups * triton.cdiv(given.height * given.width, BLOCK)
    return _launch(invert, grid, arguments, constants), out, count


def inverse_backward_launches(
    given: Inversion, grad_out: Tensor, count: Tensor, map_grad: bool, pose_grad: bool
) -> tuple[list[Launch], Tensor, Tensor | None]:
    """The launches of the backward, the gradient of the map and parts of the poses'."""
    batch, fixations, channels, rings, rays = given.logpolar.shape
    launches = []
    common = {
        **given.arguments(),
        "grad_out": grad_out.contiguous(),
        "count": count.contiguous() if given.mean else None,
    }
    grad_map = given.logpolar.new_empty(given.logpolar.shape if map_grad else [0])
    if map_grad:
        block = _block(rays)
        constants = {**given.constants(), "RAYS": block, "BLOCK": BLOCK}
        groups = triton.cdiv(channels, constants["CHANNELS"])
        grid = batch * fixations * rings * groups * triton.cdiv(rays, block)
        arguments = {**common, "grad_map": grad_map}
        launches.append(_launch(differentiate_map, grid, arguments, constants))
    partial = None
    if pose_grad:
        blocks = triton.cdiv(given.height * given.width, BLOCK)
        partial = given.fixation.new_empty([batch, fixations, blocks, 4])
        arguments = {**common, "logpolar": given.logpolar.contiguous(), "partial": partial}
        constants = {**given.constants(), "BLOCK": BLOCK}
        grid = batch * fixations * blocks
        launches.append(_launch(differentiate_inverse_poses, grid, arguments, constants))
    return launches, grad_map, partial


def _dense(given: Sampling | Inversion, *names: str) -> dict[str, Tensor]:
    return {name: getattr(given, name).contiguous() for name in names}


def _together(channels: int) -> int:
    return min(CHANNELS, triton.next_power_of_2(max(channels, 1)))


def _block(rays: int) -> int:
    return min(BLOCK, max(16, triton.next_power_of_2(rays)))


def _launch(
    kernel: Any,
    grid: int,
    arguments: dict[str, Any],
    constants: dict[str, Any],
    num_warps: int = 4,
) -> Launch:
    return Launch(kernel, grid, arguments, constants, num_warps=num_warps, num_stages=2)
