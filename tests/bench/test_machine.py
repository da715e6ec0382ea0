from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from saccade.bench import _machine, _memory
from saccade.bench._machine import GUARD, MALLOC, Floor, environment
from saccade.bench._memory import MemoryUnavailableError, Request, measure
from saccade.bench._suite import Work


def catch_exec(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(_machine.os, "execve", lambda *args: calls.append(args))
    return calls


def test_the_command_starts_itself_with_malloc_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "saccade", "bench", "x"])
    monkeypatch.delenv(GUARD, raising=False)
    calls = catch_exec(monkeypatch)
    _machine.reexecute_with_malloc_settings()
    ((path, argv, env),) = calls
    assert path == sys.executable
    assert argv[1:] == ["-m", "saccade", "bench", "x"]
    assert MALLOC.items() <= env.items()
    monkeypatch.setenv(GUARD, env[GUARD])
    _machine.reexecute_with_malloc_settings()
    assert len(calls) == 1


def test_other_systems_have_no_such_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv(GUARD, raising=False)
    calls = catch_exec(monkeypatch)
    _machine.reexecute_with_malloc_settings()
    assert calls == []


WORK = [
    pytest.param(Work(2e9, 1), 20.0, id="bound by the product"),
    pytest.param(Work(1, 1e6, fixed_bytes=6e6), 100.0, id="bound by the copy"),
]


@pytest.mark.parametrize(("work", "milliseconds"), WORK)
def test_floor_is_the_slower_of_product_and_copy(work: Work, milliseconds: float) -> None:
    floor = Floor(torch.device("cpu"), torch.float32, [1e8, 1e8, 9e9], [1e11, 1e10, 1e11])
    floor.flops_per_s = [1e11, 1e11, 1e10]
    assert floor.milliseconds(work) == pytest.approx(milliseconds)


def test_floor_is_measured() -> None:
    floor = Floor(torch.device("cpu"), torch.float32)
    floor.sample(repeats=2)
    # Any computer of this century copies 0.1 to 10 000 GB/s.
    assert 1e8 < floor.bandwidth < 1e13
    assert len(floor.flops_per_s) == 2


def test_environment_is_told() -> None:
    facts = environment(torch.device("cpu"), 2)
    assert facts["torch"] == torch.__version__
    assert facts["cpu"]
    assert facts["threads"] == 2


def request_for(peer: str, case: str) -> Request:
    return Request("neighborhood_attention", peer, (case,), "auto", "cpu", "float32", 2)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_sees_the_copies_of_a_gather() -> None:
    (memory,) = measure(request_for("gather", "S2"))
    elements = 16 * 14 * 14 * 8 * 32
    assert memory.tensor_bytes == 8 * 4 * elements
    # The gathered keys and values alone are 2 * 49 times as large as a tensor.
    assert memory.peak_bytes > 2 * 49 * 4 * elements


def test_memory_says_why_a_step_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError: 80 GB")
    monkeypatch.setattr(_memory.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(MemoryUnavailableError, match="the step failed: MemoryError: 80 GB"):
        measure(replace(request_for("gather", "S2"), device="cuda"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("operator", "peer", "case"),
    [("scan", "einsum", "SSD"), ("scan", "grouped-conv", "conv"), ("kan", "product", "gaussian")],
)
def test_memory_of_peers_that_cannot_run_the_small_case(
    operator: str, peer: str, case: str
) -> None:
    (memory,) = measure(Request(operator, peer, (case,), "auto", "cpu", "float32", 1))
    assert (memory.case, memory.peer) == (case, peer)
    assert memory.tensor_bytes > 1e6
    # outputs and gradients are made in the step
    assert memory.peak_bytes > memory.tensor_bytes / 4
