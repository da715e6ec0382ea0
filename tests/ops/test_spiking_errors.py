"""Every mistake gets a sentence with numbers before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from saccade import ops


def lif(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {"x": torch.zeros(4, 2, 3, 5)} | changes
    return lambda: ops.lif(**arguments)


def affine(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {
        "x": torch.zeros(4, 2, 3, 5),
        "weight": torch.ones(3),
        "bias": torch.ones(3),
    } | changes
    return lambda: ops.affine_lif(**arguments)


def linear(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {
        "spikes": torch.zeros(4, 2, dtype=torch.uint8),
        "weight": torch.zeros(3, 11),
    } | changes
    return lambda: ops.spike_linear(**arguments)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


# name: call, exception, what the sentence must say
MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "x-list": (lif(x=[1.0]), TypeError, "x must be a torch.Tensor, got list"),
    "x-int": (lif(x=torch.zeros(4, 2).int()), TypeError, "got torch.int32"),
    "x-rank": (lif(x=zeros(4)), ValueError, r"rank 2 or more, .* got rank 1 with shape \(4,\)"),
    "x-sparse": (lif(x=zeros(2, 2).to_sparse()), NotImplementedError, "dense"),
    "v0-shape": (lif(v0=zeros(2, 3)), ValueError, r"\(2, 3, 5\), got \(2, 3\)"),
    "v0-type": (
        lif(v0=zeros(2, 3, 5, dtype=torch.float64)), ValueError, "torch.float32, got torch.float64",
    ),
    "tau-small": (lif(tau=0.5), ValueError, "tau must be at least 1 step, or math.inf, got 0.5"),
    "tau-nan": (lif(tau=math.nan), ValueError, "got nan"),
    "tau-text": (lif(tau="2"), TypeError, "tau must be a number or a tensor, got '2'"),
    "tau-shape": (lif(tau=zeros(4)), ValueError, r"tau must have shape \[C\] = \(3,\), got \(4,\)"),
    "tau-rank": (lif(x=zeros(4, 2), tau=zeros(2)), ValueError, "rank 3 or more"),
    "threshold": (lif(v_threshold=math.inf), ValueError, "v_threshold must be finite, got inf"),
    "reset": (lif(v_reset=math.nan), ValueError, "v_reset must be finite, got nan"),
    "surrogate": (lif(surrogate="arctan"), ValueError, "one of sigmoid, atan, .* got 'arctan'"),
    "alpha": (lif(alpha=0.0), ValueError, "alpha must be positive, got 0.0"),
    "flag": (lif(decay_input=1), TypeError, "decay_input must be a bool, got 1"),
    "spike-type": (lif(spike_dtype=torch.int8), ValueError, "got torch.int8"),
    "smooth-bits": (lif(smooth=True, spike_dtype="bits"), ValueError, "got 'bits'"),
    "backend": (lif(backend="gpu"), ValueError, "backend must be one of"),
    "cuda": (lif(backend="cuda"), RuntimeError, "spiking cannot run with backend='cuda'"),
    "option": (affine(tua=2.0), TypeError, "tua"),
    "weight-none": (affine(weight=None), TypeError, "weight must be a torch.Tensor"),
    "bias-shape": (affine(bias=zeros(2)), ValueError, r"bias .* \(3,\), got \(2,\)"),
    "residual-shape": (affine(residual=zeros(4, 2, 3)), ValueError, r"got \(4, 2, 3\)"),
    "residual-type": (affine(residual=zeros(4, 2, 3, 5).half()), ValueError, "torch.float16"),
    "linear-list": (linear(spikes=[1]), TypeError, "got list"),
    "linear-weight": (linear(weight=zeros(3)), ValueError, r"rank 2, \[O, I\], got shape \(3,\)"),
    "linear-width": (
        linear(spikes=zeros(4, 3)), ValueError, r"11 spikes or 2 bytes of bits, got shape \(4, 3\)",
    ),
    "linear-bits": (linear(spikes=zeros(4, 2)), TypeError, "uint8, got torch.float32"),
    "linear-type": (linear(spikes=zeros(4, 11).half()), TypeError, "got torch.float16"),
    "linear-bias": (linear(bias=zeros(4)), ValueError, r"\(3,\), got \(4,\)"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(call: Callable[[], Any], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        call()
