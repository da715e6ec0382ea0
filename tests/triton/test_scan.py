"""The Triton kernels of the scans in Triton's interpreter, against the reference in float64.

Run as a process of its own: TRITON_INTERPRET=1 pytest tests/triton
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "needs TRITON_INTERPRET=1 before triton's import: TRITON_INTERPRET=1 pytest tests/triton",
        allow_module_level=True,
    )

from ..cuda.scan_problems import (
    ALL,
    CONVOLUTIONS,
    SSDS,
    Case,
    ConvCase,
    SsdCase,
    Tensors,
    ids,
    largest_error,
    make_convolution,
    make_scan,
    make_ssd,
    true_convolution,
    true_scan,
    true_ssd,
)

triton_rung = importlib.import_module("saccade.triton_kernels.scan")

# Largest error relative to the largest element of a result.
TOLERANCES = {torch.float32: 5e-6, torch.float16: 2e-3}

# Smaller than those of the CUDA kernels: the interpreter scans an element at a time.
SCANS = [
    Case("plain", 1, 3, 18, 3, softplus=False),
    Case("everything", 2, 4, 18, 2, groups=2, options=ALL),
    Case("length-1", 1, 3, 1, 4, options=ALL),
    Case("reverse", 1, 2, 33, 3, directions=(1,), options=ALL),
    Case("one-state", 1, 5, 19, 1, options=ALL),
    Case("constant", 2, 3, 17, 4, constant="BC", options=ALL),
    Case("constant-b", 1, 3, 17, 4, constant="B", options=ALL),
    Case("constant-c", 1, 3, 17, 2, constant="C"),
    Case("sequences", 1, 2, 50, 3, options=(*ALL, "seq_idx")),
    Case("sequences-reverse", 1, 2, 40, 2, directions=(1,), options=("seq_idx",)),
    Case("four-directions", 1, 2, 20, 2, directions=(0, 1, 2, 3), height=4, options=ALL),
    Case("columns", 1, 3, 35, 2, directions=(3,), height=5, options=ALL),
    Case("channels-last", 2, 3, 17, 2, channels_last=True, options=ALL),
    Case("many-states", 1, 2, 17, 70, options=("D",)),
    Case("several-tiles", 1, 5, 9, 64),
]


def given(tensors: Tensors, names: Sequence[str]) -> list[Tensor | None]:
    return [tensors.get(name) for name in names]


def named(names: Sequence[str], results: Sequence[Tensor], like: Tensors) -> Tensors:
    """The gradients of the inputs that are there; the others must be empty."""
    for name, result in zip(names, results, strict=True):
        assert name in like or result.shape == (0,), name
    return {name: result for name, result in zip(names, results, strict=True) if name in like}


def check(
    found: tuple[Tensors, Tensors], expected: tuple[Tensors, Tensors], tolerance: float
) -> None:
    for mine, true in zip(found, expected, strict=True):
        for name, error in largest_error(mine, {k: true[k] for k in mine}).items():
            assert error < tolerance, f"{name}: {error}"
        assert mine.keys() == true.keys()


SELECTIVE = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def run_scan(case: Case, tensors: Tensors) -> tuple[Tensors, Tensors]:
    inputs = given(tensors, (*SELECTIVE, "seq_idx"))
    options: tuple[Any, ...] = (case.softplus, list(case.directions), case.height, 16)
    ops = torch.ops.saccade_triton
    out, last, checkpoints = ops.selective_scan_forward(*inputs, *options)
    gradients = ops.selective_scan_backward(
        tensors["grad_out"], tensors["grad_last_state"], *inputs, checkpoints, *options
    )
    for gradient, tensor in zip(gradients, inputs, strict=False):
        assert tensor is None or gradient.dtype == tensor.dtype
    inference, *_ = ops.selective_scan_forward(*inputs, *options[:-1], 0)
    assert torch.equal(inference, out)
    return {"out": out, "last_state": last}, named(SELECTIVE, gradients, tensors)


SSD = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_states")


def run_ssd(case: SsdCase, tensors: Tensors, chunk: int) -> tuple[Tensors, Tensors]:
    inputs = given(tensors, (*SSD, "seq_idx"))
    options: tuple[Any, ...] = (case.softplus, *case.limit, chunk)
    ops = torch.ops.saccade_triton
    out, last, checkpoints = ops.ssd_scan_forward(*inputs, *options)
    gradients = ops.ssd_scan_backward(
        tensors["grad_out"], tensors["grad_final_states"], *inputs, checkpoints, *options
    )
    return {"out": out, "final_states": last}, named(SSD, gradients, tensors)


CONVOLUTION = ("x", "weight", "bias", "initial_states")


def run_convolution(case: ConvCase, tensors: Tensors) -> tuple[Tensors, Tensors]:
    inputs = (*given(tensors, (*CONVOLUTION, "seq_idx")), case.silu)
    ops = torch.ops.saccade_triton
    out = ops.causal_conv1d_forward(*inputs)
    gradients = ops.causal_conv1d_backward(tensors["grad_out"], *inputs)
    return {"out": out}, named(CONVOLUTION, gradients, tensors)


@pytest.mark.parametrize("case", SCANS, ids=ids)
def test_selective_scan(case: Case) -> None:
    tensors = make_scan(case, torch.float32)
    check(run_scan(case, tensors), true_scan(case, tensors), TOLERANCES[torch.float32])


@pytest.mark.parametrize("chunk", [16, 64])
@pytest.mark.parametrize("case", SSDS, ids=ids)
def test_ssd_scan(case: SsdCase, chunk: int) -> None:
    tensors = make_ssd(case, torch.float32)
    check(run_ssd(case, tensors, chunk), true_ssd(case, tensors), TOLERANCES[torch.float32])


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=ids)
def test_causal_conv1d(case: ConvCase) -> None:
    tensors = make_convolution(case, torch.float32)
    expected = true_convolution(case, tensors)
    check(run_convolution(case, tensors), expected, TOLERANCES[torch.float32])
