"""The CUDA kernels' source, run on the CPU, against the reference in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch

from .scan_emulation import declare, run_convolution, run_scan, run_ssd, scan_problem
from .scan_problems import (
    CONVOLUTIONS,
    SCANS,
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

# Largest error relative to the largest element of a result.
FLOAT_TOLERANCE = 5e-6
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return declare(emulate("scan"))


def _check(found: tuple[Tensors, Tensors], expected: tuple[Tensors, Tensors], most: float) -> None:
    for mine, true in zip(found, expected, strict=True):
        for name, error in largest_error(mine, true).items():
            assert error < most, f"{name}: {error}"


@pytest.mark.parametrize("case", SCANS, ids=ids)
def test_selective_scan(library: ctypes.CDLL, case: Case) -> None:
    tensors = make_scan(case, torch.float32)
    _check(run_scan(library, case, tensors), true_scan(case, tensors), FLOAT_TOLERANCE)


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_the_interval_of_checkpoints_does_not_matter(library: ctypes.CDLL, chunk: int) -> None:
    case = next(case for case in SCANS if case.name == "segments")
    tensors = make_scan(case, torch.float32)
    _check(run_scan(library, case, tensors, chunk), true_scan(case, tensors), FLOAT_TOLERANCE)


def test_some_cases_have_several_segments_and_tiles(library: ctypes.CDLL) -> None:
    by_name = {case.name: case for case in SCANS}
    for name, segments in (("segments", 5), ("plain", 1)):
        problem = scan_problem(by_name[name], make_scan(by_name[name], torch.float32), 16)
        assert library.segments(ctypes.byref(problem)) == segments
    large = Case("large", 1100, 70, 4, 16)
    problem = scan_problem(large, make_scan(large, torch.float32), 16)
    assert library.tiles_a_block(ctypes.byref(problem)) == 3


def test_a_block_adds_up_tiles(library: ctypes.CDLL) -> None:
    case = Case("large", 515, 70, 3, 4, options=("z",))
    tensors = make_scan(case, torch.float32)
    _check(run_scan(library, case, tensors), true_scan(case, tensors), FLOAT_TOLERANCE)


@pytest.mark.parametrize("chunk", [16, 64])
@pytest.mark.parametrize("case", SSDS, ids=ids)
def test_ssd_scan(library: ctypes.CDLL, case: SsdCase, chunk: int) -> None:
    tensors = make_ssd(case, torch.float32)
    _check(run_ssd(library, case, tensors, chunk), true_ssd(case, tensors), FLOAT_TOLERANCE)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=ids)
def test_causal_conv1d(library: ctypes.CDLL, case: ConvCase) -> None:
    tensors = make_convolution(case, torch.float32)
    expected = true_convolution(case, tensors)
    _check(run_convolution(library, case, tensors), expected, FLOAT_TOLERANCE)


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
def test_half_types_round_once(library: ctypes.CDLL, dtype: torch.dtype) -> None:
    unit = torch.finfo(dtype).eps / 2
    for scan in SCANS:
        if scan.name in ("everything", "constant-b", "four-directions"):
            tensors = make_scan(scan, dtype)
            _check(run_scan(library, scan, tensors), true_scan(scan, tensors), 1.01 * unit)
    ssd = SSDS[1]
    tensors = make_ssd(ssd, dtype)
    _check(run_ssd(library, ssd, tensors, 64), true_ssd(ssd, tensors), 1.01 * unit)
    conv = CONVOLUTIONS[2]
    tensors = make_convolution(conv, dtype)
    _check(run_convolution(library, conv, tensors), true_convolution(conv, tensors), 1.01 * unit)


def test_same_bits_whatever_the_order_of_threads_and_blocks(library: ctypes.CDLL) -> None:
    by_name = {case.name: case for case in SCANS}
    runs: list[Callable[[], tuple[Tensors, Tensors]]] = []
    for name in ("everything", "segments", "four-directions", "several-tiles"):
        case = by_name[name]
        tensors = make_scan(case, torch.float32)
        runs.append(lambda case=case, tensors=tensors: run_scan(library, case, tensors))
    ssd_tensors = make_ssd(SSDS[1], torch.float32)
    runs.append(lambda: run_ssd(library, SSDS[1], ssd_tensors, 64))
    conv_tensors = make_convolution(CONVOLUTIONS[-1], torch.float32)
    runs.append(lambda: run_convolution(library, CONVOLUTIONS[-1], conv_tensors))
    for run in runs:
        forth = run()
        library.set_reversed(1)
        try:
            back = run()
        finally:
            library.set_reversed(0)
        for one, other in zip(forth, back, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_border_between_sequences_stops_infinity(library: ctypes.CDLL) -> None:
    case = Case("inf", 1, 2, 40, 4, options=("seq_idx",))
    tensors = make_scan(case, torch.float32)
    tensors["seq_idx"] = (torch.arange(40) >= 17).int()[None]
    tensors["u"][0, 0, 9] = torch.inf
    outputs, _ = run_scan(library, case, tensors)
    finite = outputs["out"].isfinite()
    assert not finite[0, 0, 9:17].any()
    assert finite[0, 0, 17:].all()
    assert finite[0, 1].all()


def test_nan_stays_in_its_channel_and_behind_its_step(library: ctypes.CDLL) -> None:
    case = Case("nan", 1, 3, 40, 4)
    tensors = make_scan(case, torch.float32)
    tensors["delta"][0, 0, 1, 20] = torch.nan
    outputs, _ = run_scan(library, case, tensors)
    reached = outputs["out"].isnan()[0]
    assert reached[1, 20:].all()
    assert int(reached.sum()) == 20
