"""The rungs that operator tests run on."""

from __future__ import annotations

import pytest
import torch

from saccade import _load

DEVICES = {"reference": "cpu", "cpu": "cpu", "cuda": "cuda", "triton": "cuda"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that is marked `rungs` its backends, one after the other."""
    mark = metafunc.definition.get_closest_marker("rungs")
    if mark is None or "backend" not in metafunc.fixturenames:
        return
    marks = {
        "cpu": [pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))],
        "cuda": [
            pytest.mark.cuda,
            pytest.mark.skipif(not _load.has("_C_cuda"), reason=_load.reason("_C_cuda")),
        ],
        "triton": [pytest.mark.cuda],
    }
    metafunc.parametrize(
        "backend", [pytest.param(rung, marks=marks.get(rung, [])) for rung in mark.args]
    )


@pytest.fixture
def device(backend: str) -> torch.device:
    return torch.device(DEVICES[backend])
