"""What needs a process of its own: each instruction set, and the memory of a training step."""

from __future__ import annotations

import pytest

from saccade import _load

from .processes import check_level, every_level, measure_memory, needs_proc, run_python

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


@every_level
def test_every_instruction_set_passes_the_matrix(level: str) -> None:
    # half types run on the float32 kernels
    wanted = "instruction_set or (cpu and not (float16 or bfloat16 or gradcheck))"
    check_level(level, wanted, "test_neighborhood_attention.py")


TRAINING_STEP = """
def step(side):
    tensors = [torch.randn(2, side, side, 4, 32, requires_grad=True) for _ in range(3)]
    bias = torch.randn(4, 25, 25, requires_grad=True)
    gradient = torch.randn(2, side, side, 4, 32)
    out = ops.neighborhood_attention(*tensors, 13, bias=bias)
    out.backward(gradient)
    return sum(t.nbytes for t in (*tensors, *(t.grad for t in tensors), gradient, out))

step(16)
restart()
memory = {"needed": step(112), "peak": peak()}
"""


@needs_proc
def test_a_training_step_holds_inputs_outputs_and_gradients() -> None:
    # one tensor of scores would be 13 * 13 / 32 = 5.3 times query
    memory = measure_memory(TRAINING_STEP)
    assert memory["peak"] < 1.5 * memory["needed"], memory


def test_importing_the_package_leaves_dynamo_alone() -> None:
    run = run_python("-c", "import sys, saccade; print('torch._dynamo' in sys.modules)")
    assert run.stdout.strip() == "False", run.stderr[-4000:]
