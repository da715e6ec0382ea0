"""Timing: interleaved rounds, medians with 20/80 percentiles, bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds for one call."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    samples: int


@dataclass(frozen=True)
class Budget:
    """How long a contestant may run in one case and pass.

    Slow ones get fewer rounds, but never less than `at_least`.
    """

    rounds: int = 15
    seconds: float = 5.0
    at_least: int = 3
    calls: int = 5
    block_seconds: float = 0.05


QUICK = Budget(rounds=7, seconds=1.0)


class Clock(Protocol):
    """Runs a function a number of times and returns the seconds of each call."""

    def time(self, function: Call, calls: int) -> list[float]: ...


class WallClock:
    """For the CPU, where a call returns when the work is done."""

    def time(self, function: Call, calls: int) -> list[float]:
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        return seconds


class CudaClock:
    """CUDA events on the current stream, with the L2 cache overwritten before each call."""

    def __init__(self, device: torch.device) -> None:
        # Twice the largest L2 in use today, so that no input survives in it.
        self._flush = torch.empty(256 << 20, dtype=torch.int8, device=device)

    def time(self, function: Call, calls: int) -> list[float]:
        pairs = []
        for _ in range(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.zero_()
            start.record()
            function()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def clock_for(device: torch.device) -> Clock:
    """The clock of a device."""
    return CudaClock(device) if device.type == "cuda" else WallClock()


def summarize(seconds: list[float]) -> Timing:
    """Median and 20/80 percentiles of samples in seconds.

    Raises:
        ValueError: there is no sample.
    """
    if not seconds:
        raise ValueError("seconds must hold at least 1 sample, got 0.")
    p20, median, p80 = np.percentile(np.asarray(seconds) * 1e3, [20, 50, 80])
    return Timing(float(median), float(p20), float(p80), len(seconds))


@dataclass
class _Contestant:
    function: Call
    calls: int
    rewarm: int
    rounds: int
    seconds: list[float]


def _enter(function: Call, clock: Clock, budget: Budget) -> _Contestant:
    """Warm up, estimate the cost of a call, and share out the budget."""
    estimate = clock.time(function, 1)[0]
    if estimate < budget.seconds / budget.at_least:
        estimate = clock.time(function, 1)[0]
    calls = min(max(int(budget.block_seconds / max(estimate, 1e-9)), 1), budget.calls)
    # A call as long as a block warms its own caches; a short one would pay for the one before it.
    rewarm = 0 if estimate >= budget.block_seconds else 1
    rounds = int(budget.seconds / max(estimate * (calls + rewarm), 1e-9))
    return _Contestant(
        function, calls, rewarm, min(max(rounds, budget.at_least), budget.rounds), []
    )


def interleave(functions: Mapping[str, Call], clock: Clock, budget: Budget) -> dict[str, Timing]:
    """Time functions in turns, so that a slow minute of the machine hits all of them.

    In each round a contestant runs up to `budget.calls` timed calls in a row after one untimed
    call. One with fewer rounds than the others takes part in rounds that are spread over the
    whole run. The order rotates.

    Returns:
        The timing of each function, under its name.
    """
    contestants = {name: _enter(function, clock, budget) for name, function in functions.items()}
    total = max((c.rounds for c in contestants.values()), default=0)
    order = list(contestants.values())
    for turn in range(total):
        for c in order:
            if (turn + 1) * c.rounds // total == turn * c.rounds // total:
                continue
            clock.time(c.function, c.rewarm)
            c.seconds += clock.time(c.function, c.calls)
        order = order[1:] + order[:1]
    return {name: summarize(c.seconds) for name, c in contestants.items()}
