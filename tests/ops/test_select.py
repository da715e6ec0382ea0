"""The choice of a rung: first that can run, forced ones taken or refused, always explained."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from saccade import ops
from saccade.ops import _select


@pytest.fixture
def operator() -> Iterator[str]:
    """An operator whose cpu rung takes float32 alone, and that has no cuda rung."""

    def cpu(tensor: Tensor) -> str | None:
        return None if tensor.dtype == torch.float32 else f"it has no {tensor.dtype}"

    def triton(tensor: Tensor) -> str | None:
        return None

    _select.offer("example", cpu=cpu, triton=triton)
    yield "example"
    del _select._RUNGS["example"]


@pytest.mark.parametrize(
    ("backend", "dtype", "rung"),
    [
        ("auto", torch.float32, "cpu"),
        ("auto", torch.float64, "reference"),
        ("cpu", torch.float32, "cpu"),
        ("triton", torch.float64, "triton"),
        ("reference", torch.float32, "reference"),
    ],
)
def test_select(operator: str, backend: str, dtype: torch.dtype, rung: str) -> None:
    assert _select.select(operator, backend, torch.zeros(1, dtype=dtype)) == rung


@pytest.mark.parametrize(
    ("backend", "dtype", "reason"),
    [
        ("cpu", torch.float64, "example cannot run with backend='cpu': it has no torch.float64."),
        ("cuda", torch.float32, "with backend='cuda': example has no cuda kernel."),
    ],
)
def test_a_forced_rung_is_never_replaced(
    operator: str, backend: str, dtype: torch.dtype, reason: str
) -> None:
    with pytest.raises(RuntimeError, match=reason):
        _select.select(operator, backend, torch.zeros(1, dtype=dtype))


def test_explain(operator: str) -> None:
    assert ops.explain(operator, torch.zeros(1, dtype=torch.float64)).splitlines() == [
        "example runs on: reference",
        "  cpu: it has no torch.float64",
        "  cuda: example has no cuda kernel",
        "  triton: can run",
        "  reference: can run",
    ]
    forced = ops.explain(operator, torch.zeros(1), backend="cuda").splitlines()
    assert forced[0] == "example cannot run with backend='cuda': example has no cuda kernel."


def test_without_the_compiled_library_the_reference_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade import _load

    x = torch.randn(1, 7, 2, 4)
    expected = ops.neighborhood_attention(x, x, x, 3, backend="reference")
    monkeypatch.setattr(_load, "has", lambda name: False)
    monkeypatch.setattr(_load, "reason", lambda name: f"{name} was not built")
    assert torch.equal(ops.neighborhood_attention(x, x, x, 3), expected)
    assert "cpu: _C was not built" in ops.explain("neighborhood_attention", x)
    with pytest.raises(RuntimeError, match="_C was not built"):
        ops.neighborhood_attention(x, x, x, 3, backend="cpu")


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("head_dim", "dtype"), [(257, torch.float32), (16, torch.float64)], ids=["wide", "double"]
)
def test_what_the_gpu_kernels_cannot_take_runs_on_the_reference(
    head_dim: int, dtype: torch.dtype
) -> None:
    x = torch.randn(1, 7, 1, head_dim, dtype=dtype, device="cuda")
    assert "runs on: reference" in ops.explain("neighborhood_attention", x)
    assert ops.neighborhood_attention(x, x, x, 3).shape == x.shape
