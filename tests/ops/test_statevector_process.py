"""What needs a process of its own: each instruction set, and the memory of a gradient."""

from __future__ import annotations

import pytest

from saccade import _load

from .processes import check_level, every_level, measure_memory, needs_proc

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


@every_level
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    check_level(level, "test", "test_statevector.py")


MEMORY = """
from saccade.ops import Program, instruction, param_angle, statevector_expval

def train(layers, n=18):
    steps = []
    for layer in range(layers):
        steps += [instruction("rx", q, param_angle(layer * n + q)) for q in range(n)]
        steps += [instruction("cx", (q, (q + 1) % n)) for q in range(n)]
    program = Program(n, tuple(steps))
    params = torch.randn(layers * n, requires_grad=True)
    restart()
    statevector_expval(program, params, None, ["Z" * n], backend="cpu").sum().backward()
    return peak()

train(1)
memory = {"few": train(2), "many": train(20)}
"""


@needs_proc
def test_the_memory_of_the_gradient_does_not_grow_with_the_circuit() -> None:
    memory = measure_memory(MEMORY)
    state = 8 * 2**18
    # 36 gates and 360: what a simulator that keeps every state would add are 324 states
    assert memory["many"] < memory["few"] + state, memory
    assert memory["many"] < 6 * state, memory
