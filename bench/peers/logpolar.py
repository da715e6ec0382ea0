"""Other ways to a log-polar view: torch's grid_sample, OpenCV's remap, kornia's remap.

The positions are built here from the definition, not by Saccade's code. N fixations of an image are
folded into the rows of one grid, so that no peer has to copy the image. "cached" peers, OpenCV and
kornia build their positions before timing starts; OpenCV's images also lie in its own order of
axes, and so does its result.
"""

from __future__ import annotations

import importlib.util
import math
from importlib import metadata

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.bench._suite import TRAINING, Case, Function, Inputs, Peer


def positions(case: Case, fixation: Tensor, samples: int = 1) -> Tensor:
    """Pixels (x, y), `samples` a side for each cell: [B, N * R * samples, T * samples, 2]."""
    _, _, height, width = case.shapes["image"]
    size = case.kwargs["out_size"]
    cell = torch.arange(size * samples, dtype=fixation.dtype, device=fixation.device)
    cell = (cell + 0.5) / samples - 0.5
    radii = (min(height, width) / 2) ** (cell / (size - 1))
    angle = cell * (2 * math.pi / size)
    ray = torch.stack([angle.cos(), angle.sin()], -1)
    return (fixation[:, :, None, None] + radii[:, None, None] * ray).flatten(1, 2)


def grid_of(case: Case, at: Tensor) -> Tensor:
    """Pixels as grid_sample takes them."""
    _, _, height, width = case.shapes["image"]
    return (2 * at + 1) / torch.tensor([width, height], dtype=at.dtype, device=at.device) - 1


def unfold(case: Case, out: Tensor) -> Tensor:
    """[B, C, N * R, T] as [B, N, C, R, T]."""
    return out.unflatten(2, (case.shapes["fixation"][1], -1)).movedim(1, 2)


def plain(case: Case) -> str | None:
    """Why a peer that reads one point a sample cannot run a case, or None."""
    return None if case.kwargs["antialias"] == "none" else "there is no anti-aliasing"


class GridSample(Peer):
    """torch's grid_sample with the grid built from the fixations in every call."""

    name = "grid_sample"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        return plain(case)

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Return the callable."""

        def sample(x: Inputs) -> Tensor:
            grid = grid_of(case, positions(case, x["fixation"]))
            return unfold(case, F.grid_sample(x["image"], grid, align_corners=False))

        return sample


class CachedGridSample(GridSample):
    """torch's grid_sample alone, over a grid that is there already."""

    name = "grid_sample-cached"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the grid and return the callable."""
        grid = grid_of(case, positions(case, inputs["fixation"]))
        return lambda x: unfold(case, F.grid_sample(x["image"], grid, align_corners=False))


class Supersample(Peer):
    """torch's grid_sample at 4 x 4 points a cell, averaged: how users anti-alias."""

    name = "supersample"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say where this peer makes no sense."""
        return None if case.kwargs["antialias"] == "area" else "the case is not anti-aliased"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Return the callable."""

        def sample(x: Inputs) -> Tensor:
            grid = grid_of(case, positions(case, x["fixation"], 4))
            fine = F.grid_sample(
                x["image"],
                grid,
                padding_mode=case.kwargs["padding_mode"],
                align_corners=False,
            )
            return unfold(case, F.avg_pool2d(fine, 4))

        return sample


class OpenCV(Peer):
    """cv2.remap over maps that are there already, on images in OpenCV's order of axes."""

    name = "cv2.remap"

    def version(self) -> str:
        """The package and its release."""
        return f"opencv {metadata.version('opencv-python-headless')}" if _found("cv2") else "opencv"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if not _found("cv2"):
            return "opencv-python-headless is not installed"
        if device.type != "cpu":
            return "remap runs on the CPU"
        if phase == TRAINING:
            return "remap has no gradients"
        if case.shapes["image"][1] > 4:
            return "remap takes at most 4 channels"
        return plain(case)

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Lay out images, maps and results, and return the callable."""
        import cv2

        cv2.setNumThreads(torch.get_num_threads())
        images = inputs["image"].movedim(1, -1).contiguous().numpy()
        at = positions(case, inputs["fixation"]).numpy()
        maps = [[np.ascontiguousarray(one[..., axis]) for axis in (0, 1)] for one in at]
        out = np.empty((*at.shape[:3], images.shape[-1]), np.float32)
        result = unfold(case, torch.from_numpy(out).movedim(-1, 1))

        def sample(x: Inputs) -> Tensor:
            for image, (map_x, map_y), to in zip(images, maps, out, strict=True):
                cv2.remap(
                    image, map_x, map_y, cv2.INTER_LINEAR, dst=to, borderMode=cv2.BORDER_CONSTANT
                )
            return result

        return sample


class Kornia(Peer):
    """kornia's remap over maps that are there already."""

    name = "kornia"

    def version(self) -> str:
        """The package and its release."""
        return f"kornia {metadata.version('kornia')}" if _found("kornia") else "kornia"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if not _found("kornia") or not _found("kornia_rs"):
            return "kornia is not installed"
        return plain(case)

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the maps and return the callable."""
        from kornia.geometry.transform import remap

        x, y = positions(case, inputs["fixation"]).unbind(-1)
        x, y = x.contiguous(), y.contiguous()
        return lambda given: unfold(case, remap(given["image"], x, y, align_corners=True))


def _found(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


PEERS: tuple[Peer, ...] = (GridSample(), CachedGridSample(), Supersample(), OpenCV(), Kornia())
