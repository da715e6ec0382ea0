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

import saccade

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

importlib.import_module("saccade.triton_kernels.scan")

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


def test_half_types_round_once_or_twice() -> None:
    half = torch.float16
    for scan in SCANS:
        if scan.name in ("everything", "constant-b", "four-directions"):
            tensors = make_scan(scan, half)
            check(run_scan(scan, tensors), true_scan(scan, tensors), TOLERANCES[half])
    tensors = make_ssd(SSDS[1], half)
    check(run_ssd(SSDS[1], tensors, 64), true_ssd(SSDS[1], tensors), TOLERANCES[half])
    tensors = make_convolution(CONVOLUTIONS[2], half)
    expected = true_convolution(CONVOLUTIONS[2], tensors)
    check(run_convolution(CONVOLUTIONS[2], tensors), expected, TOLERANCES[half])


def test_same_bits_twice() -> None:
    scan, ssd, conv = SCANS[1], SSDS[1], CONVOLUTIONS[0]
    for run, case, tensors in (
        (run_scan, scan, make_scan(scan, torch.float32)),
        (lambda case, tensors: run_ssd(case, tensors, 16), ssd, make_ssd(ssd, torch.float32)),
        (run_convolution, conv, make_convolution(conv, torch.float32)),
    ):
        for one, other in zip(run(case, tensors), run(case, tensors), strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_border_between_sequences_stops_infinity() -> None:
    case = Case("inf", 1, 2, 20, 2, options=("seq_idx",))
    tensors = make_scan(case, torch.float32)
    tensors["seq_idx"] = (torch.arange(20) >= 11).int()[None]
    tensors["u"][0, 0, 5] = torch.inf
    inputs = given(tensors, (*SELECTIVE, "seq_idx"))
    out, *_ = torch.ops.saccade_triton.selective_scan_forward(*inputs, True, [0], 1, 0)
    finite = out.isfinite()[0]
    assert not finite[0, 5:11].any()
    assert finite[0, 11:].all()
    assert finite[1].all()


def test_a_short_interval_behind_a_long_decay_loses_no_digit() -> None:
    case = SsdCase("decay", 1, 1, 4, 64, 16, softplus=False)
    tensors = make_ssd(case, torch.float32)
    tensors["dt"][:, :32] = 40.0
    tensors["dt"][:, 32:] = 0.01
    check(run_ssd(case, tensors, 64), true_ssd(case, tensors), TOLERANCES[torch.float32])


def _leaves(tensors: Tensors, **renamed: str) -> Tensors:
    """Leaves of the inputs, with the names and shapes of the public functions."""
    return {
        renamed.get(name, name): x if name == "seq_idx" else x.clone().requires_grad_()
        for name, x in tensors.items()
        if not name.startswith("grad_")
    }


def test_the_public_functions_run_it() -> None:
    scan = make_scan(
        Case("front", 1, 2, 12, 2, directions=(0, 3), height=3, options=("D",)), torch.float32
    )
    maps = {
        name: x.unflatten(-1, (3, 4)) if name in ("u", "delta", "B", "C") else x
        for name, x in scan.items()
    }
    maps |= {name: maps[name].squeeze(2) for name in "BC"}
    ssd = make_ssd(SSDS[2], torch.float32)
    conv = make_convolution(CONVOLUTIONS[0], torch.float32)
    calls = (
        (saccade.ops.selective_scan, maps, {"delta_softplus": True, "directions": ("lr", "bt")}),
        (saccade.ops.ssd_scan, ssd, {"chunk_size": 16, "dt_limit": (0.2, 0.9)}),
        (saccade.ops.causal_conv1d, conv, {"activation": "silu"}),
    )
    for function, tensors, options in calls:
        results = []
        for backend in ("triton", "reference"):
            leaves = _leaves(tensors)
            out = function(**leaves, **options, backend=backend)
            results.append((out, *torch.autograd.grad(out.square().sum(), list(leaves.values()))))
        for mine, true in zip(*results, strict=True):
            torch.testing.assert_close(mine, true, rtol=1e-4, atol=1e-5)


SIGNAL = torch.zeros(1, 2, 4)
BAD = {
    "empty": (NotImplementedError, "must not be empty", {"u": torch.zeros(1, 2, 0)}),
    "float64": (NotImplementedError, "float64", {"u": SIGNAL.double()}),
    "bfloat16": (NotImplementedError, "bfloat16 wrongly", {"u": SIGNAL.bfloat16()}),
    "complex": (NotImplementedError, "complex A", {"A": torch.zeros(1, 2, 3) * 1j}),
    "states": (NotImplementedError, "1 to 256, got 257", {"A": torch.zeros(1, 2, 257)}),
    "delta": (ValueError, r"delta must have shape \(1, 1, 2, 4\)", {"delta": SIGNAL}),
    "type": (TypeError, "delta must have dtype", {"delta": torch.zeros(1, 1, 2, 4).half()}),
    "height": (ValueError, "height must divide the length 4", {"height": 3}),
    "chunk": (NotImplementedError, "chunks of 16, got 7", {"chunk": 7}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_a_sentence(name: str) -> None:
    error, sentence, changes = BAD[name]
    arguments: dict[str, Any] = {
        "u": SIGNAL, "delta": SIGNAL[None], "A": torch.zeros(1, 2, 3),
        "B": torch.zeros(1, 2, 3), "C": torch.zeros(1, 2, 3), "D": None, "z": None,
        "delta_bias": None, "initial_state": None, "seq_idx": None, "delta_softplus": True,
        "directions": [0], "height": 1, "chunk": 0,
    }  # fmt: skip
    with pytest.raises(error, match=sentence):
        torch.ops.saccade_triton.selective_scan_forward(*{**arguments, **changes}.values())
