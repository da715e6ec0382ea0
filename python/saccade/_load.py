"""Finds and loads the compiled libraries, and remembers why one is not there.

`_C.so` holds the operators' schemas and CPU kernels, `_C_cuda.so` the CUDA kernels, `_host` what
needs no tensors. None of them is needed to import the package: without them the reference runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Library:
    """What became of one compiled library."""

    name: str
    loaded: bool
    path: str | None
    reason: str


def _find(name: str) -> str | None:
    # Another build of the same libraries, with sanitizers for example.
    other = os.environ.get("SACCADE_LIBRARY_DIR")
    if other and name != "_host":
        path = Path(other).resolve() / f"{name}.so"
        return str(path) if path.exists() else None
    spec = importlib.util.find_spec(f"saccade.{name}")
    return spec.origin if spec else None


def _load_ops(name: str) -> Library:
    path = _find(name)
    if path is None:
        other = os.environ.get("SACCADE_LIBRARY_DIR")
        where = f"SACCADE_LIBRARY_DIR={other}" if other else "this installation"
        return Library(name, False, None, f"{name} was not built into {where}")
    if name == "_C_cuda" and torch.version.cuda is None:
        return Library(name, False, path, f"torch {torch.__version__} was built without CUDA")
    if name == "_C_cuda" and not _libraries["_C"].loaded:
        return Library(name, False, path, "_C, which declares the operators, is not loaded")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        cause = error.__cause__ or error
        return Library(name, False, path, f"torch {torch.__version__} could not load it: {cause}")
    if not hasattr(torch.ops.saccade, "isa"):
        return Library(name, False, path, f"it registers no operator of saccade's: {path}")
    return Library(name, True, path, "loaded")


def _load_host() -> tuple[Library, Any]:
    path = _find("_host")
    if path is None:
        return Library("_host", False, None, "_host was not built for this Python"), None
    try:
        module = importlib.import_module("saccade._host")
    except ImportError as error:
        return Library("_host", False, path, str(error)), None
    return Library("_host", True, path, "loaded"), module


_libraries: dict[str, Library] = {}
_libraries["_C"] = _load_ops("_C")
_libraries["_C_cuda"] = _load_ops("_C_cuda")
_libraries["_host"], host = _load_host()


def has(name: str) -> bool:
    """Whether the library `_C`, `_C_cuda` or `_host` is loaded."""
    return _libraries[name].loaded


def reason(name: str) -> str:
    """Why the library is not loaded ("loaded" when it is)."""
    return _libraries[name].reason


def libraries() -> tuple[Library, ...]:
    """The state of every compiled library."""
    return tuple(_libraries.values())
