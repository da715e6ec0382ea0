"""What needs a process of its own: each instruction set, and the memory of a projection."""

from __future__ import annotations

import pytest

from saccade import _load

from .processes import check_level, every_level, measure_memory, needs_proc

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


@every_level
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    # half types run on the float32 kernels
    wanted = "instruction_set or (cpu and not (float16 or bfloat16 or gradcheck))"
    check_level(level, wanted, "test_gem.py", "test_gem_parts.py")


PROJECTION = """
memory_rows = torch.randn(8, 4_000_000)
grads = [torch.randn(1_000_000), torch.randn(1000, 3000)]
columns = memory_rows.T.contiguous().T
flat = torch.cat([g.flatten() for g in grads])
ops.gem_project_([torch.randn(5)], torch.randn(8, 5))
restart()
ops.gem_project_(grads, memory_rows, memory_strength=0.5, trigger="always")
memory = {"in_place": peak()}
v = ops.gem_project(flat, columns)
memory["plain"] = peak()
"""


@needs_proc
def test_a_projection_copies_nothing() -> None:
    memory = measure_memory(PROJECTION)
    gradient = 4 * 4_000_000
    assert memory["in_place"] < 0.3 * gradient, memory
    # the result, and no copy of memories that are stored column by column
    assert memory["plain"] < 1.5 * gradient, memory
