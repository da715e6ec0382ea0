"""What a run ran on, as plain values for info.json and result.json."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "numpy",
    "scikit-learn",
    "triton",
    "safetensors",
)


def environment() -> dict[str, Any]:
    """Versions, machine, threads and git commit (None outside a repository); no names of users,
    hosts or folders.
    """
    import torch

    from saccade._info import info

    facts = info()
    return {
        "saccade": facts["saccade"],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": facts["devices"],
        "isa": facts["isa"]["chosen"],
        "libraries": {name: library["reason"] for name, library in facts["libraries"].items()},
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _commit(),
    }


def command() -> str:
    """The command line of this process, without the folders of the program."""
    program = Path(sys.argv[0]).name
    return " ".join(["saccade" if program == "__main__.py" else program, *sys.argv[1:]])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _commit() -> str | None:
    # --exclude: a commit's hash and never a tag; "-dirty" tells of changes that no commit holds.
    describe = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    here = Path(__file__)
    try:
        # An installed package may lie inside the repository of something else.
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", here.name],
            cwd=here.parent,
            capture_output=True,
            check=False,
        )
        done = subprocess.run(
            describe, cwd=here.parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if tracked.returncode == done.returncode == 0 else None
