from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `python tools/docs.py` finds beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.delenv("SACCADE_DATA", raising=False)
    # another test's module of one of these names must not stand in for ours
    for name in ("docs", *[name for name in sys.modules if name.partition(".")[0] == "_docs"]):
        sys.modules.pop(name, None)
