"""Commands in a process of their own, and under environment variables of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(
    *command: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command without the caller's SACCADE_* settings, with those given."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SACCADE_", "PYTHON"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")])
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd or ROOT,
        env=inherited | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code on this interpreter."""
    return run(sys.executable, "-c", code, **environment)
