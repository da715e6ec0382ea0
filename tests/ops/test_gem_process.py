"""What needs a process of its own: each instruction set, and the memory of a projection."""

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
    folder = Path(__file__).parent
    files = [str(folder / f"test_gem{part}.py") for part in ("", "_parts")]
    # half types run on the float32 kernels
    wanted = "instruction_set or (cpu and not (float16 or bfloat16 or gradcheck))"
    run = _run("-m", "pytest", "-q", "-k", wanted, *files, SACCADE_ISA=level, OMP_NUM_THREADS="1")
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout


PROJECTION = """
import json, torch
from saccade import ops

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

memory = torch.randn(8, 4_000_000)
grads = [torch.randn(1_000_000), torch.randn(1000, 3000)]
transposed = memory.T.contiguous().T
flat = torch.cat([g.flatten() for g in grads])
ops.gem_project_([torch.randn(5)], torch.randn(8, 5))
before = kilobytes("VmRSS")
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
ops.gem_project_(grads, memory, memory_strength=0.5, trigger="always")
in_place = 1024 * (kilobytes("VmHWM") - before)
v = ops.gem_project(flat, transposed)
print(json.dumps({"in_place": in_place, "plain": 1024 * (kilobytes("VmHWM") - before)}))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_a_projection_copies_nothing() -> None:
    run = _run("-c", PROJECTION)
    assert run.returncode == 0, run.stderr[-4000:]
    memory = json.loads(run.stdout.splitlines()[-1])
    gradient = 4 * 4_000_000
    assert memory["in_place"] < 0.3 * gradient, memory
    # the result, and no copy of memories that are stored column by column
    assert memory["plain"] < 1.5 * gradient, memory
