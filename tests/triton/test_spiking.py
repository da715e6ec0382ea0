"""The Triton kernels in Triton's interpreter, against the reference loop.

Run as a process of its own: TRITON_INTERPRET=1 pytest tests/triton
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "needs TRITON_INTERPRET=1 before triton's import: TRITON_INTERPRET=1 pytest tests/triton",
        allow_module_level=True,
    )

from ..cuda.spiking_problems import (
    CASES,
    GRADIENTS,
    PACKED,
    PARAMETERS,
    Case,
    Tensors,
    arguments,
    expected,
    ids,
    make,
)

triton_rung = importlib.import_module("saccade.triton_kernels.spiking")

# Errors relative to the largest entry, of gradients and of those that are sums over neurons.
UNIT, SUMS = 3e-6, 3e-5
INTERESTING = ("everything", "everything-soft", "plain", "bits-odd-row")


def backward_arguments(case: Case, tensors: Tensors) -> list[Any]:
    wanted = sum(1 << bit for bit, name in enumerate(GRADIENTS) if name in tensors)
    grads = [tensors.get(name) for name in ("grad_spikes", "grad_v_last", "grad_v_seq")]
    return [*grads, *arguments(case, tensors)[:-3], wanted]


def run(case: Case, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Results and gradients by the kernels."""
    results = triton_rung.forward(*arguments(case, tensors))
    grads = triton_rung.backward(*backward_arguments(case, tensors))
    for name, grad in zip(GRADIENTS, grads, strict=True):
        assert name in tensors or grad.shape == (0,), name
    return (
        dict(zip(("spikes", "v_last", "v_seq"), results, strict=True)),
        {name: grad for name, grad in zip(GRADIENTS, grads, strict=True) if name in tensors},
    )


def check(case: Case, tensors: Tensors, unit: float) -> None:
    outputs, grads = run(case, tensors)
    true_outputs, true_grads = expected(case, tensors)
    for name, true in true_outputs.items():
        assert torch.equal(outputs[name], true), name
        assert outputs[name].dtype == true.dtype, name
    for name, true in true_grads.items():
        assert (grads[name].shape, grads[name].dtype) == (true.shape, true.dtype), name
        if true.numel():
            error = (grads[name].double() - true.double()).abs().max()
            most = max(unit, SUMS) if name in PARAMETERS else unit
            assert error <= most * (1e-3 + true.double().abs().max()), name


@pytest.mark.parametrize("case", [*CASES, *PACKED], ids=ids)
def test_float32(case: Case) -> None:
    check(case, make(case, torch.float32), UNIT)


@pytest.mark.parametrize("case", [c for c in [*CASES, *PACKED] if c.name in INTERESTING], ids=ids)
def test_float16_rounds_once(case: Case) -> None:
    check(case, make(case, torch.float16), 1.01 * torch.finfo(torch.float16).eps)


def test_reads_any_strides() -> None:
    case = Case("strides", tau="channel", affine=True, residual=True, store_v=True)
    tensors = make(case, torch.float32)
    plain = run(case, tensors)
    strided = {
        name: tensor.transpose(0, -1).contiguous().transpose(0, -1)
        for name, tensor in tensors.items()
    }
    for one, other in zip(plain, run(case, strided), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_x_of_one_step_for_all() -> None:
    case = Case("expanded", residual=True)
    tensors = make(case, torch.float32)
    for name in ("x", "residual", "grad_spikes"):
        tensors[name] = tensors[name][:1].expand_as(tensors[name])
    check(case, tensors, UNIT)


def test_slots_cut_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = importlib.import_module("saccade.triton_kernels._spiking.launches")
    monkeypatch.setattr(launches, "SLOTS", 4)
    case = Case("slots", sizes=(11, 3, 2), tau="channel", v_threshold="one", affine=True)
    check(case, make(case, torch.float32), UNIT)


def test_nan_stays_with_its_neuron() -> None:
    case = Case("nan", steps=3, sizes=(1, 1, 4), store_v=True)
    tensors = make(case, torch.float32)
    tensors["x"][1, 0, 0, 2] = torch.nan
    outputs, grads = run(case, tensors)
    assert outputs["v_seq"].isnan().flatten(1).any(0).tolist() == [False, False, True, False]
    assert outputs["spikes"][1:, 0, 0, 2].tolist() == [0, 0]
    assert grads["x"].isnan().flatten(1).any(0).tolist() == [False, False, True, False]


@pytest.mark.parametrize("case", [c for c in [*CASES, *PACKED] if c.name in INTERESTING], ids=ids)
def test_ops_pass_opcheck(case: Case) -> None:
    tensors = make(case, torch.float32)
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(triton_rung.forward_op, arguments(case, tensors), test_utils=utilities)
    torch.library.opcheck(
        triton_rung.backward_op, backward_arguments(case, tensors), test_utils=utilities
    )


def test_import_again_keeps_the_ops() -> None:
    assert importlib.reload(triton_rung).forward_op is triton_rung.forward_op


def _change(case: Case, name: str, tensor: Tensor) -> list[Any]:
    return arguments(case, {**make(case, torch.float32), name: tensor})


FULL = Case("full", tau="channel", affine=True, residual=True)
WRONG: dict[str, tuple[type[Exception], str, Any]] = {
    "float64": (NotImplementedError, "float64", ("x", torch.zeros(5, 2, 3, 8).double())),
    "bfloat16": (NotImplementedError, "interpreter", ("x", torch.zeros(5, 2, 3, 8).bfloat16())),
    "rank": (ValueError, r"\[T, A, C, I\], got shape \(3,\)", ("x", torch.zeros(3))),
    "tau": (ValueError, r"shape \(3,\), got \(2,\)", ("tau", torch.ones(2))),
    "v0": (ValueError, r"v0 must have shape \(2, 3, 8\)", ("v0", torch.ones(2))),
    "weight": (TypeError, "weight must be torch.float32", ("weight", torch.ones(3).double())),
    "bias": (ValueError, "come together", ("bias", None)),
    "residual": (TypeError, "residual must be", ("residual", torch.zeros(5, 2, 3, 8).half())),
}


@pytest.mark.parametrize(("error", "text", "change"), WRONG.values(), ids=WRONG.keys())
def test_refuses_in_a_sentence(error: type[Exception], text: str, change: Any) -> None:
    with pytest.raises(error, match=text):
        triton_rung.forward(*_change(FULL, *change))


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [(11, 3, ValueError), (14, 8, ValueError), (15, True, NotImplementedError),
     (17, 3, ValueError)],
    ids=["charge", "surrogate", "smooth", "spike-code"],
)  # fmt: skip
def test_refuses_codes(place: int, value: Any, error: type[Exception]) -> None:
    given = arguments(FULL, make(FULL, torch.float32))
    given[place] = value
    with pytest.raises(error):
        triton_rung.forward(*given)
