"""What needs a process of its own: each instruction set, and the memory of a training step."""

from __future__ import annotations

import pytest

from saccade import _load

from .processes import check_level, every_level, measure_memory, needs_proc

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


@every_level
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    wanted = "(forward or rational or rows) and not (float16 or million or twice)"
    check_level(level, wanted, "test_kan_kernels.py")


TRAINING_STEP = """
def step(rows):
    x = torch.randn(rows, 256, requires_grad=True)
    weight = torch.randn(256, 256, 8, requires_grad=True)
    gradient = torch.randn(rows, 256)
    y = ops.kan_linear(x, weight, basis=sys.argv[1])
    y.backward(gradient)
    return sum(t.nbytes for t in (x, x.grad, weight, weight.grad, gradient, y))

step(64)
restart()
memory = {"needed": step(16384), "peak": peak()}
"""


@needs_proc
@pytest.mark.parametrize("basis", ["bspline", "gaussian"])
def test_a_training_step_holds_no_features(basis: str) -> None:
    # the features alone would be 134 MB, twice what inputs, outputs and gradients are
    memory = measure_memory(TRAINING_STEP, basis)
    assert memory["peak"] < 1.6 * memory["needed"], memory
