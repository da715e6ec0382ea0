"""The papers: one file each, which declares the claim and runs its reproduction."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from saccade.systems._protocol import Comparison, Floor, System

__all__ = ["Comparison", "Floor", "System", "get_system", "list_systems"]


def list_systems() -> list[str]:
    """Names of the papers that can be reproduced, sorted.

    >>> "medvitv2" in list_systems()
    True
    """
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )


def get_system(name: str) -> System:
    """The declaration of a paper.

    Raises:
        ValueError: there is no such system; close matches are named.
    """
    names = list_systems()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise ValueError(f"there is no system {name!r}: {hint}")
    system: System = importlib.import_module(f"saccade.systems.{name}").SYSTEM
    return system
