"""The command `saccade`: info, list, train, reproduce, bench, export.

`info` runs on the core alone; the other commands need the extra `train`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

# What a user can cause and put right; other exceptions are bugs and keep their traceback.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, NotImplementedError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code: 0, or 2 where the user's input was at fault.

    A user's mistake prints one sentence; SACCADE_DEBUG=1 shows the traceback instead.

    Args:
        argv: arguments without the program's name; default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["info"]:
            return info(arguments[1:])
        from saccade.cli._app import run

        return run(arguments)
    except KeyboardInterrupt:
        print("saccade: stopped", file=sys.stderr)
        return 130
    except USER_ERRORS as error:
        if os.environ.get("SACCADE_DEBUG") == "1":
            raise
        print(f"saccade: {sentence(error)}", file=sys.stderr)
        return 2


def info(arguments: Sequence[str]) -> int:
    """`saccade info [--json]`: what this installation is, without any optional package."""
    parser = argparse.ArgumentParser(
        "saccade info", description="Show versions, instruction sets, libraries and devices."
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    as_json = parser.parse_args(arguments).json
    import saccade
    from saccade import _info

    print(json.dumps(saccade.info(), indent=2) if as_json else _info.text())
    return 0


def sentence(error: BaseException) -> str:
    """The error's message in one line; of one out of a loader's worker process, its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].startswith("Caught "):
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(lines)
