"""Optional packages: imported where they are used, named by their extra when missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Args:
        module: name to import, dots allowed ("matplotlib.pyplot").
        extra: Saccade's extra that installs it.
        purpose: what needs it, as the start of the error's sentence.

    Raises:
        ImportError: the package is not installed; the sentence names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{purpose} needs {package}, which is not importable ({error}): "
            f'pip install "saccade[{extra}]"'
        ) from error
