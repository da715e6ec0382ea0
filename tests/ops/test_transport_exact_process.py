"""The exact solvers on each instruction set, in a process of its own."""

from __future__ import annotations

import pytest

from saccade import _load

from .processes import check_level, every_level

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


@every_level
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    wanted = "instruction_set or (cpu and (scipys or forbidden or pots or every_type or larger))"
    check_level(level, wanted, "test_assignment.py", "test_emd.py")
