"""Costs of an architecture: parameters, multiply-accumulates, seconds; and budgets of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from saccade.compress.search.space import Architecture
from saccade.models.mixformer import ATTENTION, MixFormerConfig

# Of standard deviation over mean, from which on a measured latency is not used.
UNSTEADY = 0.015


def layer_parameters(cfg: MixFormerConfig, layer: int) -> int:
    """Parameters of one layer: 3 d a + 3 a, a d + d, 2 d f + f + d, 4 d; and its relative keys.

    Here d is the width, a = heads * head_dim and f the width of the feed-forward.
    """
    d, a, f = cfg.dim, cfg.heads[layer] * cfg.head_dim, cfg.hidden[layer]
    extra = ATTENTION[cfg.kinds[layer]].parameters_of_mix(cfg.head_dim)
    return 3 * d * a + 3 * a + a * d + d + 2 * d * f + f + d + 4 * d + extra


def parameters(cfg: MixFormerConfig) -> int:
    """Parameters of a model, in closed form.

    >>> parameters(MixFormerConfig())
    34238410
    """
    d, pixels = cfg.dim, cfg.in_chans * cfg.patch_size**2
    stem = pixels * d + d + d + cfg.tokens * d
    head = cfg.num_classes * (d + 1)
    return stem + sum(layer_parameters(cfg, n) for n in range(cfg.depth)) + 2 * d + head


def layer_macs(cfg: MixFormerConfig, layer: int, tokens: int | None = None) -> int:
    """Multiply-accumulates of one layer: projections 4 N d a, feed-forward 2 N d f, and attention.

    The attention takes 2 N^2 a by softmax, 3 N^2 a with relative keys and 4 N a D by cosFormer.
    """
    n = cfg.tokens if tokens is None else tokens
    d, a, f = cfg.dim, cfg.heads[layer] * cfg.head_dim, cfg.hidden[layer]
    mix = ATTENTION[cfg.kinds[layer]].macs(n, a, cfg.head_dim)
    return 4 * n * d * a + 2 * n * d * f + mix


def macs(cfg: MixFormerConfig, tokens: int | None = None) -> int:
    """Multiply-accumulates of a model for one image; twice this is the usual count of FLOPs.

    Args:
        cfg: the model.
        tokens: N, to extrapolate; default the model's own, the class token included.
    """
    n = cfg.tokens if tokens is None else tokens
    stem = (n - 1) * cfg.in_chans * cfg.patch_size**2 * cfg.dim
    layers = sum(layer_macs(cfg, layer, n) for layer in range(cfg.depth))
    return stem + layers + cfg.num_classes * cfg.dim


class Latency(NamedTuple):
    """Seconds of a forward pass: trimmed mean, deviation, and whether they can be relied on."""

    mean: float
    std: float
    steady: bool


@torch.no_grad()
def measure_latency(
    model: nn.Module,
    images: Tensor,
    warmup: int = 5,
    runs: int = 20,
    trim: float = 0.1,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time a model on the images it is given, as the latency predictor's data are made.

    Args:
        model: put into evaluation mode.
        images: [B, C, H, W], on the model's device; the published code takes B = 1.
        warmup: passes that are not timed.
        runs: passes that are.
        trim: share of the fastest, and of the slowest, left out.
        clock: seconds; for tests.

    Returns:
        Latency: unsteady where the deviation is at least 1.5 % of the mean.
    """
    if runs < 1 or warmup < 0 or not 0 <= trim < 0.5:
        raise ValueError(
            f"runs must be at least 1, warmup at least 0 and trim in [0, 0.5), got {runs}, "
            f"{warmup} and {trim}."
        )
    model.eval()

    def once() -> None:
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    for _ in range(warmup):
        once()
    seconds = []
    for _ in range(runs):
        started = clock()
        once()
        seconds.append(clock() - started)
    cut = int(trim * runs)
    kept = np.sort(seconds)[cut : runs - cut]
    mean, std = float(kept.mean()), float(kept.std())
    return Latency(mean, std, std < UNSTEADY * mean)


@dataclass(frozen=True)
class Budget:
    """Upper bounds that an architecture must keep, each of them or none.

    Args:
        config: configuration of an architecture, as `SearchSpace.config`.
        max_parameters, max_macs: exact counts.
        max_latency: in the unit of `latency`.
        latency: predicted latency of an architecture; needed for `max_latency`.

    Raises:
        ValueError: `max_latency` without a predictor.
    """

    config: Callable[[Architecture], MixFormerConfig]
    max_parameters: float | None = None
    max_macs: float | None = None
    max_latency: float | None = None
    latency: Callable[[Architecture], float] | None = None

    def __post_init__(self) -> None:
        if self.max_latency is not None and self.latency is None:
            raise ValueError(f"max_latency={self.max_latency} needs latency, a predictor.")

    def __call__(self, arch: Architecture) -> bool:
        """Whether the architecture keeps every bound."""
        cfg = self.config(arch)
        if self.max_parameters is not None and parameters(cfg) > self.max_parameters:
            return False
        if self.max_macs is not None and macs(cfg) > self.max_macs:
            return False
        if self.max_latency is None or self.latency is None:
            return True
        return self.latency(arch) <= self.max_latency
