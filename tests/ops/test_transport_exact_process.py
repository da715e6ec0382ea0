"""The exact solvers on each instruction set, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import saccade
from saccade import _load

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

LEVELS = ("baseline", "avx2", "avx512")


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    if level not in saccade.info()["isa"]["possible"]:
        pytest.skip(f"this machine has no {level}")
    if saccade.info()["isa"]["chosen"] == level and "SACCADE_ISA" not in os.environ:
        pytest.skip(f"{level} is what all other tests run on here")
    folder = Path(__file__).parent
    files = [str(folder / f"test_{word}.py") for word in ("assignment", "emd")]
    wanted = "instruction_set or (cpu and (scipys or forbidden or pots or every_type or larger))"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", wanted, *files],
        env=os.environ | {"SACCADE_ISA": level, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout
