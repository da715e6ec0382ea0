"""The CUDA kernels' source, run on the CPU, against the reference loop."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch

from .spiking_emulation import declare, run
from .spiking_problems import CASES, PACKED, PARAMETERS, Case, Tensors, expected, ids, make

RUN = [case for case in CASES if 0 not in case.sizes]
# Errors relative to the largest entry, of gradients and of those that are sums over neurons.
UNIT, SUMS = 3e-6, 3e-5
LARGE = Case("large", sizes=(5, 2, 5003), steps=2, tau="one", v_threshold="channel", affine=True)


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return declare(emulate("spiking"))


def _check(found: tuple[Tensors, Tensors], wanted: tuple[Tensors, Tensors], unit: float) -> None:
    outputs, grads = found
    for name, tensor in wanted[0].items():
        assert torch.equal(outputs[name], tensor), name
    assert grads.keys() == wanted[1].keys()
    for name, tensor in wanted[1].items():
        if tensor.numel() == 0:
            continue
        error = (grads[name].double() - tensor.double()).abs().max()
        # sums over neurons cancel, in the reference too
        most = max(unit, SUMS) if name in PARAMETERS else unit
        assert error <= most * (1e-3 + tensor.double().abs().max()), name


@pytest.mark.parametrize("aligned", [True, False], ids=["four-at-once", "one-at-once"])
@pytest.mark.parametrize("case", [*RUN, *PACKED], ids=ids)
def test_float32(library: ctypes.CDLL, case: Case, aligned: bool) -> None:
    tensors = make(case, torch.float32)
    _check(run(library, case, tensors, aligned=aligned), expected(case, tensors), UNIT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    "case", [c for c in [*RUN, *PACKED] if c.name in ("everything", "plain", "bits", "segment")],
    ids=ids,
)  # fmt: skip
def test_half_types_round_once(library: ctypes.CDLL, case: Case, dtype: torch.dtype) -> None:
    tensors = make(case, dtype)
    _check(run(library, case, tensors), expected(case, tensors), 1.01 * torch.finfo(dtype).eps)


def test_sums_of_several_parts(library: ctypes.CDLL) -> None:
    tensors = make(LARGE, torch.float32)
    _check(run(library, LARGE, tensors), expected(LARGE, tensors), UNIT)


def test_x_and_residual_of_one_step_for_all(library: ctypes.CDLL) -> None:
    case = Case("expanded", residual=True, affine=True)
    tensors = make(case, torch.float32)
    for name in ("x", "residual", "grad_spikes"):
        tensors[name] = tensors[name][:1].expand_as(tensors[name])
    _check(run(library, case, tensors), expected(case, tensors), UNIT)


@pytest.mark.parametrize("case", [c for c in RUN if c.name.startswith("everything")], ids=ids)
def test_same_bits_whatever_the_order_of_threads_and_blocks(
    library: ctypes.CDLL, case: Case
) -> None:
    tensors = make(case, torch.float32)
    forth = run(library, case, tensors)
    library.set_reversed(1)
    try:
        back = run(library, case, tensors)
    finally:
        library.set_reversed(0)
    for one, other in zip(forth, back, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_fires_at_the_threshold_itself(library: ctypes.CDLL) -> None:
    case = Case("tie", steps=2, sizes=(1, 1, 3), charge=0, hard=False, v0=False)
    tensors = make(case, torch.float32)
    tensors["x"] = torch.tensor([1.0, 0.5, 1.5]).expand(2, 1, 1, 3)
    outputs, _ = run(library, case, tensors)
    assert outputs["spikes"].flatten().tolist() == [1, 0, 1, 1, 1, 1]
    assert outputs["v_last"].flatten().tolist() == [0, 0, 1]


def test_nan_stays_with_its_neuron(library: ctypes.CDLL) -> None:
    case = Case("nan", steps=3, sizes=(1, 1, 4), tau="one", store_v=True)
    tensors = make(case, torch.float32)
    tensors["x"][1, 0, 0, 2] = torch.nan
    outputs, grads = run(library, case, tensors)
    assert outputs["v_seq"].isnan().flatten(1).tolist() == [
        [False] * 4, [False, False, True, False], [False, False, True, False]
    ]  # fmt: skip
    assert outputs["spikes"][1:, 0, 0, 2].tolist() == [0, 0]
    assert grads["x"].isnan().flatten(1).any(0).tolist() == [False, False, True, False]
    assert grads["tau"].isnan().all()
