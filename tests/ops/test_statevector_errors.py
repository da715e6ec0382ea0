"""Every mistake gets a sentence with numbers before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from saccade import _load, ops
from saccade.ops import Program, fixed_angle, instruction, param_angle
from saccade.ops._statevector_op import plan

PROGRAM = Program(
    2, (instruction("rx", 0, param_angle(1)), instruction("ry", 1, ops.input_angle(2)))
)


def expval(**changes: Any) -> Callable[[], Any]:
    """Two samples of a circuit of two wires, with one thing wrong."""
    arguments: dict[str, Any] = {
        "program": PROGRAM, "params": torch.zeros(2), "inputs": torch.zeros(2, 3),
        "observables": ["ZZ"],
    } | changes  # fmt: skip
    return lambda: ops.statevector_expval(**arguments)


def gate(*arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: instruction(*arguments, **options)


# name: call, error, what its sentence says
MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "program": (expval(program="bell"), TypeError, "program must be .* got str"),
    "dtype": (expval(dtype=torch.float32), TypeError, "complex64 or torch.complex128, got"),
    "params-none": (expval(params=None), ValueError, r"params must .* \(2,\), got \(0,\)"),
    "params-length": (expval(params=torch.zeros(3)), ValueError, r"\(2,\), got \(3,\)"),
    "params-list": (expval(params=[0.0, 0.0]), TypeError, "params must be a torch.Tensor"),
    "params-int": (expval(params=torch.zeros(2).int()), TypeError, "got torch.int32"),
    "inputs-none": (expval(inputs=None), ValueError, r"shape \[..., 3\], got None"),
    "inputs-length": (expval(inputs=torch.zeros(2, 4)), ValueError, r"3\], got \(2, 4\)"),
    "inputs-scalar": (expval(inputs=torch.zeros(())), ValueError, r"3\], got \(\)"),
    "state-length": (expval(state=torch.zeros(2, 3)), ValueError, r"4\], got \(2, 3\)"),
    "state-batch": (expval(state=torch.zeros(3, 4)), ValueError, r"got \(2,\) and \(3,\)"),
    "state-int": (expval(state=torch.zeros(4).int()), TypeError, "state must be complex"),
    "device": (expval(params=torch.zeros(2, device="meta")), ValueError, "one device, got meta"),
    "observable-length": (expval(observables=["Z"]), ValueError, "each of 2 wires, got 'Z'"),
    "observable-letter": (expval(observables=["ZA"]), ValueError, "IXYZ .* got 'ZA'"),
    "observable-type": (expval(observables=[3]), TypeError, "Pauli string or a dict, got 3"),
    "observables-type": (expval(observables=3), TypeError, "sequence of Pauli strings"),
    "coefficient": (expval(observables=[{"ZZ": math.nan}]), ValueError, "finite, got nan"),
    "coefficient-type": (expval(observables=[{"ZZ": "1"}]), TypeError, "number, got '1'"),
    "grad": (expval(grad="shift"), ValueError, "adjoint, backprop, none, got 'shift'"),
    "backprop": (expval(grad="backprop", backend="cpu"), NotImplementedError, "reference alone"),
    "backend": (expval(backend="gpu"), ValueError, "backend must be one of"),
    "triton": (expval(backend="triton"), RuntimeError, "has no triton kernel"),
    "order": (
        lambda: ops.statevector(Program(1), bit_order="middle"), ValueError, "got 'middle'",
    ),
    "wires": (lambda: ops.probabilities(Program(2), wires=[2]), ValueError, "0 to 1, got 2"),
    "wires-twice": (lambda: ops.probabilities(Program(2), wires=[0, 0]), ValueError, "distinct"),
    "wires-type": (lambda: ops.probabilities(Program(2), wires=[0.5]), TypeError, "ints, got 0.5"),
    "shots": (lambda: ops.sample(Program(1), None, None, -1), ValueError, "at least 0, got -1"),
    "shots-type": (lambda: ops.sample(Program(1), None, None, 1.5), TypeError, "int, got 1.5"),  # type: ignore[arg-type]
    "gate-name": (gate("toff", (0, 1)), ValueError, "name must be one of .* got 'toff'"),
    "gate-wires": (gate("swap", 0), ValueError, r"swap must have 2 wires, got \(0,\)"),
    "gate-repeated": (gate("cx", (1, 1)), ValueError, "distinct wires"),
    "gate-negative": (gate("x", -1), ValueError, "at least 0, got -1"),
    "gate-angles": (gate("u3", 0, [1.0]), ValueError, "u3 must have 3 angles, got 1"),
    "gate-angle-type": (gate("rx", 0, ["x"]), TypeError, "Value or a number, got 'x'"),
    "gate-angle-nan": (gate("rx", 0, fixed_angle(math.nan)), ValueError, "finite"),
    "gate-controls": (
        gate("x", 0, controls=(1, 2, 3, 4)), ValueError, "at most 3 controls, got 4",
    ),
    "gate-matrix": (gate("unitary", 0, matrix=torch.ones(2, 2)), ValueError, "unitary, U U"),
    "gate-matrix-shape": (gate("unitary", 0, matrix=torch.eye(3)), ValueError, r"got \(3, 3\)"),
    "gate-matrix-missing": (gate("unitary", 0), ValueError, "must have a matrix"),
    "gate-matrix-extra": (gate("x", 0, matrix=torch.eye(2)), ValueError, "takes no matrix"),
    "gate-unitary-wires": (
        gate("unitary", (0, 1, 2, 3, 4), matrix=torch.eye(32)), ValueError, "1 to 4 .* got 5",
    ),
    "gate-pauli": (gate("pauli_rot", (0, 1), 0.1, pauli="X"), ValueError, "each of 2 wires"),
    "program-wires": (lambda: Program(1, (instruction("x", 1),)), ValueError, "n_wires = 1"),
    "program-count": (lambda: Program(0), ValueError, "from 1 to 30, got 0"),
    "program-params": (
        lambda: Program(1, (instruction("rx", 0, param_angle(3)),), n_params=2),
        ValueError, "4, got 2",
    ),
    "program-entries": (lambda: Program(1, ("x",)), TypeError, "Instructions, got 'x'"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_sentence(name: str) -> None:
    call, error, text = MISTAKES[name]
    with pytest.raises(error, match=text):
        call()


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
@pytest.mark.parametrize("cut", [1, 5, -1])
def test_a_broken_plan_is_refused(cut: int) -> None:
    made = plan(PROGRAM, True, False, None)
    params, inputs = torch.zeros(2), torch.zeros(1, 3)
    op = torch.ops.saccade.statevector_forward
    with pytest.raises(RuntimeError, match="plan must hold"):
        op(params, inputs, None, made.ints[:cut].clone(), made.floats, made.bits)
    with pytest.raises(RuntimeError, match="plan"):
        op(params, inputs, None, made.ints, made.floats[:cut].clone(), made.bits)
    with pytest.raises(RuntimeError, match="plan is for 2 bits, not 3"):
        op(params, inputs, None, made.ints, made.floats, 3)
    with pytest.raises(RuntimeError, match="plan reads number 1 of 1 params"):
        op(params[:1], inputs, None, made.ints, made.floats, made.bits)
    with pytest.raises(RuntimeError, match="plan starts at"):
        op(params, inputs, torch.zeros(1, 4, 2), made.ints, made.floats, made.bits)


@pytest.mark.skipif(not _load.has("_host"), reason=_load.reason("_host"))
def test_a_broken_program_is_refused() -> None:
    for ints in ([99, 1, 0, 0, 0], [11, 1, 0], [2, 1, 0, 0, 7], [11, 1, 0, 1, 0, 1, 0]):
        with pytest.raises(ValueError, match=r"gate|early|range"):
            _load.host.statevector_plan(2, ints, [], True, False, False, [], [], [])
