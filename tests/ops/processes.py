"""Python in a process of its own, where an instruction set is chosen anew and memory has a peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import saccade

every_level = pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
needs_proc = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc"
)

# A script calls restart(), does its work, and leaves bytes in `memory`.
BEFORE = """
import json, sys, torch
from saccade import ops

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

def restart():
    global before
    before = kilobytes("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")

def peak():
    return 1024 * (kilobytes("VmHWM") - before)
"""
AFTER = "\nprint(json.dumps(memory))\n"


def run_python(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def check_level(level: str, wanted: str, *files: str) -> None:
    """The tests of `files` that match `wanted` pass on an instruction set that is not this one."""
    isa = saccade.info()["isa"]
    if level not in isa["possible"]:
        pytest.skip(f"this machine has no {level}")
    if isa["chosen"] == level and "SACCADE_ISA" not in os.environ:
        pytest.skip(f"{level} is what all other tests run on here")
    paths = [str(Path(__file__).with_name(file)) for file in files]
    run = run_python(
        "-m", "pytest", "-q", "-k", wanted, *paths, SACCADE_ISA=level, OMP_NUM_THREADS="1"
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout


def measure_memory(script: str, *arguments: str) -> dict[str, int]:
    """What `script` left in `memory`."""
    run = run_python("-c", BEFORE + script + AFTER, *arguments)
    assert run.returncode == 0, run.stderr[-4000:]
    measured: dict[str, int] = json.loads(run.stdout.splitlines()[-1])
    return measured
