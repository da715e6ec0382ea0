"""What needs a process of its own: each instruction set, and the memory of a training step."""

from __future__ import annotations

import pytest

from saccade import _load

from .processes import check_level, every_level, measure_memory, needs_proc

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


@every_level
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    # half types run on the float32 kernels
    wanted = "instruction_set or (cpu and not (float16 or bfloat16 or gradcheck or one_gradient))"
    check_level(level, wanted, "test_scan.py")


TRAINING_STEP = """
def step(length):
    signals = [torch.randn(2, 256, length, requires_grad=True) for _ in range(3)]
    small = [torch.randn(2, 16, length, requires_grad=True) for _ in range(2)]
    A = (-torch.rand(256, 16)).requires_grad_()
    gradient = torch.randn(2, 256, length)
    out = ops.selective_scan(*signals[:2], A, *small, z=signals[2], delta_softplus=True)
    out.backward(gradient)
    leaves = (*signals, *small)
    return sum(t.nbytes for t in (*leaves, *(t.grad for t in leaves), gradient, out))

step(64)
restart()
memory = {"needed": step(8192), "peak": peak()}
"""


@needs_proc
def test_a_training_step_does_not_hold_the_states() -> None:
    # all states would be 16 times u, that is twice everything that is needed
    memory = measure_memory(TRAINING_STEP)
    assert memory["peak"] < 1.5 * memory["needed"], memory
