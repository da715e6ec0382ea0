"""What needs a process of its own: each instruction set, and the memory of a training step."""

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

LEVELS = ("baseline", "avx2", "avx512")


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    if level not in saccade.info()["isa"]["possible"]:
        pytest.skip(f"this machine has no {level}")
    if saccade.info()["isa"]["chosen"] == level and "SACCADE_ISA" not in os.environ:
        pytest.skip(f"{level} is what all other tests run on here")
    matrix = Path(__file__).with_name("test_scan.py")
    # half types run on the float32 kernels
    wanted = "instruction_set or (cpu and not (float16 or bfloat16 or gradcheck or one_gradient))"
    run = _run(
        "-m", "pytest", "-q", "-k", wanted, str(matrix), SACCADE_ISA=level, OMP_NUM_THREADS="1"
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout


TRAINING_STEP = """
import json, torch
from saccade import ops

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

def step(length):
    signals = [torch.randn(2, 256, length, requires_grad=True) for _ in range(3)]
    small = [torch.randn(2, 16, length, requires_grad=True) for _ in range(2)]
    A = (-torch.rand(256, 16)).requires_grad_()
    gradient = torch.randn(2, 256, length)
    out = ops.selective_scan(*signals[:2], A, *small, z=signals[2], delta_softplus=True)
    out.backward(gradient)
    leaves = (*signals, *small)
    return sum(t.nbytes for t in (*leaves, *(t.grad for t in leaves), gradient, out))

step(64)
before = kilobytes("VmRSS")
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
needed = step(8192)
print(json.dumps({"needed": needed, "peak": 1024 * (kilobytes("VmHWM") - before)}))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_a_training_step_does_not_hold_the_states() -> None:
    # all states would be 16 times u, that is twice everything that is needed
    run = _run("-c", TRAINING_STEP)
    assert run.returncode == 0, run.stderr[-4000:]
    memory = json.loads(run.stdout.splitlines()[-1])
    assert memory["peak"] < 1.5 * memory["needed"], memory
