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
    matrix = Path(__file__).with_name("test_kan_kernels.py")
    wanted = "(forward or rational or rows) and not (float16 or million or twice)"
    run = _run(
        "-m", "pytest", "-q", "-k", wanted, str(matrix), SACCADE_ISA=level, OMP_NUM_THREADS="1"
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout


TRAINING_STEP = """
import json, sys, torch
from saccade import ops

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

def step(rows):
    x = torch.randn(rows, 256, requires_grad=True)
    weight = torch.randn(256, 256, 8, requires_grad=True)
    gradient = torch.randn(rows, 256)
    y = ops.kan_linear(x, weight, basis=sys.argv[1])
    y.backward(gradient)
    return sum(t.nbytes for t in (x, x.grad, weight, weight.grad, gradient, y))

step(64)
before = kilobytes("VmRSS")
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
needed = step(16384)
print(json.dumps({"needed": needed, "peak": 1024 * (kilobytes("VmHWM") - before)}))
"""


@pytest.mark.parametrize("basis", ["bspline", "gaussian"])
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_a_training_step_holds_no_features(basis: str) -> None:
    # the features alone would be 134 MB, twice what inputs, outputs and gradients are
    run = _run("-c", TRAINING_STEP, basis)
    assert run.returncode == 0, run.stderr[-4000:]
    memory = json.loads(run.stdout.splitlines()[-1])
    assert memory["peak"] < 1.6 * memory["needed"], memory
