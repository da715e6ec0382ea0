"""What needs a process of its own: each instruction set."""

from __future__ import annotations

import pytest

from saccade import _load

from .processes import check_level, every_level

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


@every_level
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    # half types run on the float32 kernels, and strides are the binding's
    wanted = "instruction_set or (cpu and every and not float16)"
    check_level(level, wanted, "test_logpolar.py")
