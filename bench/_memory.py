"""Peak memory of a training step, measured in a process of its own.

On the CPU it is resident memory, so that scratch space outside torch's allocator counts as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import saccade.bench
from saccade.bench._gate import as_tuple, draw_cotangents, require_grad, step
from saccade.bench._suite import TRAINING, Case, Inputs, Peer

# Blocks above 64 KiB go back to the kernel when freed, so that the peak holds no leftovers.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(64 << 10), "MALLOC_TRIM_THRESHOLD_": str(64 << 10)}
_UNSET = ("MALLOC_TOP_PAD_",)


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step, and bytes of its inputs, outputs and the gradients of both."""

    case: str
    peer: str
    peak_bytes: int
    tensor_bytes: int

    @property
    def ratio(self) -> float:
        """Peak over tensors; 1 is the best there is."""
        return self.peak_bytes / self.tensor_bytes


@dataclass(frozen=True)
class Request:
    """What the child process is asked to measure; `peer` is ours or a name of the suite."""

    operator: str
    peer: str
    cases: tuple[str, ...]
    backend: str
    device: str
    dtype: str
    threads: int


class MemoryUnavailableError(RuntimeError):
    """The peak cannot be measured here; the text says why."""


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    raise MemoryUnavailableError(f"/proc/self/status has no {key}")


def reset_peak(device: torch.device) -> int:
    """Start a new peak and return the memory in use now."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise MemoryUnavailableError(
            f"the peak of resident memory cannot be reset ({error})"
        ) from error
    return _status("VmRSS")


def read_peak(device: torch.device) -> int:
    """The most memory in use since `reset_peak`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def _bytes(inputs: Inputs) -> int:
    return sum(t.numel() * t.element_size() for t in inputs.values())


def _train_once(peer: Peer, case: Case, device: torch.device, dtype: torch.dtype) -> int:
    """Run one step on fresh tensors and return the bytes that no implementation can do without."""
    inputs = require_grad(case.inputs(device, dtype), case.constants)
    function = peer.prepare(case, inputs)
    with torch.no_grad():
        outputs = {str(i): o for i, o in enumerate(as_tuple(function(inputs)))}
    tensor_bytes = 2 * (_bytes(inputs) + _bytes(outputs))
    del outputs
    step(function, inputs, draw_cotangents(function, inputs))
    return tensor_bytes


def measure_here(request: Request) -> list[Memory]:
    """Measure in this process, after a case that loads code and thread pools: the small one, or
    the first where the peer cannot run the small one.
    """
    suite = saccade.bench.load(request.operator)
    device, dtype = torch.device(request.device), getattr(torch, request.dtype)
    torch.set_num_threads(request.threads)
    ours = suite.ours(request.backend)
    peer = ours if request.peer == ours.name else suite.select_peers((request.peer,))[0]
    cases = suite.select_cases(tuple(request.cases))
    refused = peer.refusal(suite.small, TRAINING, device) is not None
    _train_once(peer, cases[0] if refused else suite.small, device, dtype)
    found = []
    for case in cases:
        before = reset_peak(device)
        tensor_bytes = _train_once(peer, case, device, dtype)
        found.append(Memory(case.name, peer.name, read_peak(device) - before, tensor_bytes))
    return found


def measure(request: Request, timeout: float = 180.0) -> list[Memory]:
    """Measure in a fresh process.

    Raises:
        MemoryUnavailableError: the system cannot tell, or the child failed.
    """
    found = ask_child("saccade.bench._memory", asdict(request), request.device, timeout)
    return [Memory(**values) for values in found]


def ask_child(module: str, request: dict[str, Any], device: str, timeout: float) -> Any:
    """What a module prints as JSON on its last line when it is run with a request.

    Raises:
        MemoryUnavailableError: the system cannot tell, or the child failed.
    """
    if device == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise MemoryUnavailableError("resident memory is read from /proc, which is not there")
    environment = {k: v for k, v in os.environ.items() if k not in _UNSET} | _ENVIRONMENT
    command = [sys.executable, "-m", module, json.dumps(request)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MemoryUnavailableError(f"the steps took longer than {timeout:.0f} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MemoryUnavailableError(f"the step failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    measured = measure_here(Request(**json.loads(sys.argv[1])))
    print(json.dumps([asdict(memory) for memory in measured]))
