"""Print what extras of pyproject.toml install, for pip to install before the project is built."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def requirements(extra: str) -> set[str]:
    """Every requirement of an extra, with those of the extras that it names."""
    found: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        own = re.fullmatch(r"saccade\[(.+)\]", line)
        if own:
            for name in own[1].split(","):
                found |= requirements(name)
        else:
            found.add(line)
    return found


if __name__ == "__main__":
    wanted = set(PROJECT["dependencies"]).union(*map(requirements, sys.argv[1:]))
    print("\n".join(sorted(wanted)))
