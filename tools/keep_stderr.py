"""Compiler launcher: runs a command and keeps its stderr beside the object file, as `<object>.log`.

nvcc reports registers and spills there, once, when it compiles; ptxas_report.py reads the logs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(command: list[str]) -> int:
    """Run the command, pass its stderr on and keep it where the command succeeds."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode == 0 and "-o" in command:
        Path(command[command.index("-o") + 1] + ".log").write_text(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
