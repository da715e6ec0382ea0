from __future__ import annotations

import ctypes

import pytest

from .emulated import build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The CUDA kernels, compiled for the CPU."""
    loaded = build(tmp_path_factory.mktemp("emulation"))
    if loaded is None:
        pytest.skip("no C++ compiler compiles the kernels for the CPU")
    return loaded
