"""The same calls for pytest-benchmark: `pytest bench --benchmark-autosave`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import saccade.bench
from saccade.bench._gate import draw_cotangents, require_grad, step
from saccade.bench._suite import TRAINING

SUITES = [saccade.bench.load(operator) for operator in saccade.bench.OPERATORS]
ENTRIES = [
    pytest.param(suite.operator, case.name, phase, id=f"{suite.operator}-{case.name}-{phase}")
    for suite in SUITES
    for case in suite.select_cases(None)
    for phase in case.work
]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize(("operator", "case_name", "phase"), ENTRIES)
def test_operator(benchmark: Any, operator: str, case_name: str, phase: str, device: str) -> None:
    """Time one pass of one case."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    suite = saccade.bench.load(operator)
    (case,) = suite.select_cases((case_name,))
    ours = suite.ours("auto")
    if reason := ours.refusal(case, phase, torch.device(device)):
        pytest.skip(reason)
    inputs = case.inputs(torch.device(device), torch.float32)
    function = ours.prepare(case, inputs)
    cotangents, leaves = draw_cotangents(function, inputs), require_grad(inputs, case.constants)

    def call() -> None:
        if phase == TRAINING:
            step(function, leaves, cotangents)
        else:
            with torch.no_grad():
                function(inputs)
        if device == "cuda":
            torch.cuda.synchronize()

    work = case.work[phase]
    benchmark.group = f"{operator} {case.name} {phase} {device}"
    benchmark.extra_info.update(
        device=device,
        dtype="float32",
        flops=work.flops,
        bytes=work.bytes(4),
        threads=torch.get_num_threads(),
    )
    benchmark(call)
