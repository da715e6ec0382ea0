"""The machine: allocator settings, environment, and what it can do at best."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.bench._harness import Clock, clock_for
from saccade.bench._suite import Work

# Fresh pages cost 15 ms where an operator costs 2, so freed blocks stay in the process.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
GUARD = "SACCADE_BENCH_MALLOC"


def reexecute_with_malloc_settings() -> None:
    """Start this very command again, once, with glibc's thresholds raised.

    They are read at the start of a process.
    """
    if sys.platform != "linux" or GUARD in os.environ:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(
        sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **MALLOC, GUARD: "1"}
    )


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """What a reader needs to judge the numbers, as plain values."""
    import saccade

    facts = saccade.info()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "isa": facts["isa"]["chosen"],
        "threads": threads,
        "malloc_settings": GUARD in os.environ,
        "python": facts["python"],
        "torch": facts["torch"],
        "cuda": facts["cuda"],
        "triton": facts["triton"],
        "saccade": facts["saccade"],
        "platform": platform.platform(),
    }


@dataclass
class Floor:
    """Copy bandwidth and matrix-product rate, sampled through the whole run; the median counts."""

    device: torch.device
    dtype: torch.dtype
    bytes_per_s: list[float] = field(default_factory=list)
    flops_per_s: list[float] = field(default_factory=list)

    def sample(self, repeats: int = 7) -> None:
        """Measure both rates `repeats` times."""
        clock: Clock = clock_for(self.device)
        cuda = self.device.type == "cuda"
        size, n = (1 << 30, 8192) if cuda else (64 << 20, 1024)
        source = torch.ones(size, dtype=torch.int8, device=self.device)
        target = torch.empty_like(source)
        left, right = (torch.ones(n, n, device=self.device, dtype=self.dtype) for _ in range(2))
        product = torch.empty_like(left)
        clock.time(lambda: target.copy_(source), 2)
        self.bytes_per_s += [
            2 * size / s for s in clock.time(lambda: target.copy_(source), repeats)
        ]
        clock.time(lambda: torch.mm(left, right, out=product), 2)
        seconds = clock.time(lambda: torch.mm(left, right, out=product), repeats)
        self.flops_per_s += [2 * n**3 / s for s in seconds]

    @property
    def bandwidth(self) -> float:
        """Bytes read and written in a second."""
        return float(np.median(self.bytes_per_s))

    @property
    def rate(self) -> float:
        """Floating point operations in a second."""
        return float(np.median(self.flops_per_s))

    def milliseconds(self, work: Work) -> float:
        """The time below which this machine cannot do the work."""
        seconds = max(work.flops / self.rate, work.bytes(self.dtype.itemsize) / self.bandwidth)
        return float(1e3 * seconds)
