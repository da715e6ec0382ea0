"""What needs a process of its own: each instruction set, and the memory of a gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import saccade
from saccade import _load

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    if level not in saccade.info()["isa"]["possible"]:
        pytest.skip(f"this machine has no {level}")
    if saccade.info()["isa"]["chosen"] == level and "SACCADE_ISA" not in os.environ:
        pytest.skip(f"{level} is what all other tests run on here")
    file = str(Path(__file__).parent / "test_statevector.py")
    run = _run("-m", "pytest", "-q", file, SACCADE_ISA=level, OMP_NUM_THREADS="1")
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout


MEMORY = """
import json, torch
from saccade.ops import Program, input, instruction, param, statevector_expval

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

def peak(layers, n=18):
    steps = []
    for layer in range(layers):
        steps += [instruction("rx", q, param(layer * n + q)) for q in range(n)]
        steps += [instruction("cx", (q, (q + 1) % n)) for q in range(n)]
    program = Program(n, tuple(steps))
    params = torch.randn(layers * n, requires_grad=True)
    before = kilobytes("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    statevector_expval(program, params, None, ["Z" * n], backend="cpu").sum().backward()
    return 1024 * (kilobytes("VmHWM") - before)

peak(1)
print(json.dumps([peak(2), peak(20)]))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_the_memory_of_the_gradient_does_not_grow_with_the_circuit() -> None:
    run = _run("-c", MEMORY)
    assert run.returncode == 0, run.stderr[-4000:]
    few, many = json.loads(run.stdout.splitlines()[-1])
    state = 8 * 2**18
    # 36 gates and 360: what a simulator that keeps every state would add are 324 states
    assert many < few + state, (few, many)
    assert many < 6 * state, (few, many)
