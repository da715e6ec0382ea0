from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import pytest

from .emulated import build


@pytest.fixture(scope="session")
def emulate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ctypes.CDLL]:
    """Compile an operator's CUDA kernels for the CPU, once for all files of tests."""

    @functools.cache
    def load(operator: str) -> ctypes.CDLL:
        loaded = build(operator, tmp_path_factory.mktemp("emulation"))
        if loaded is None:
            pytest.skip("no C++ compiler compiles the kernels for the CPU")
        return loaded

    return load
