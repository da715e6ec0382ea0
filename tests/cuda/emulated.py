"""CUDA kernels' own source as a library for the CPU: g++ compiles it against emulation/."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(operator: str, folder: Path) -> ctypes.CDLL | None:
    """Compile csrc/<operator>/cuda_*.cu with the C interface in emulation/<operator>.cpp.

    Returns:
        The library, or None where no C++ compiler is found.
    """
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    library = folder / f"{operator}.so"
    here = Path(__file__).parent / "emulation"
    sources = sorted((ROOT / "csrc" / operator).glob("cuda_*.cu"))
    subprocess.run(
        [compiler, "-std=c++20", "-O1", "-fPIC", "-shared", "-Wno-unknown-pragmas",
         # fibers jump between stacks, which the fortified longjmp forbids
         "-U_FORTIFY_SOURCE",
         f"-I{here}", f"-I{ROOT / 'csrc'}", str(here / f"{operator}.cpp"), "-x", "c++",
         *map(str, sources), "-o", str(library)],
        check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(library))
