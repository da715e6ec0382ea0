"""Compile every Triton kernel to a cubin without a GPU; print registers, spills, shared memory.

    python tools/triton_compile_check.py [OPERATOR ...] [--capability 80 90] [--dtype float16]
        [--case 3d]

An operator's cases stand in tools/_triton/<operator>.py: CASES by name, and launches(case, dtype),
which lists the launches of a forward and a backward over tensors without storage. TRITON_INTERPRET
must not be set. Exits with 1 when a kernel keeps more than --max-spill bytes a thread in local
memory.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


FOLDER = Path(__file__).parent / "_triton"
OPERATORS = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def load(operator: str) -> Any:
    """The module with an operator's cases."""
    return importlib.import_module(f"_triton.{operator}")


@dataclass(frozen=True)
class Resources:
    """What a program of a compiled kernel takes; `spill` is local memory in bytes a thread."""

    registers: int
    spill: int
    shared: int
    size: int


def compile_case(
    operator: str, name: str, dtype: torch.dtype, capability: int
) -> Iterator[tuple[str, Resources]]:
    """Compile the launches of a case; yields the name of each kernel with what it takes."""
    module = load(operator)
    for launch in module.launches(module.CASES[name], dtype):
        compiled = launch.compile(capability)
        yield launch.name, resources(compiled.asm["cubin"], compiled.metadata.shared)


def resources(cubin: bytes, shared: int) -> Resources:
    """Read registers and local memory from a cubin with the cuobjdump that triton ships."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", report))
    return Resources(
        int(usage["REG"]), int(usage["STACK"]) + int(usage["LOCAL"]), shared, len(cubin)
    )


def main() -> int:
    """Print one line a kernel."""
    parser = argparse.ArgumentParser(description="Compile every Triton kernel without a GPU.")
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help="default: all")
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 90])
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--case", nargs="+", help="default: all")
    parser.add_argument("--max-spill", type=int, default=512, help="bytes a thread")
    options = parser.parse_args()
    print(
        f"{'operator':22} {'case':16} {'dtype':9} {'sm':>3} {'kernel':26} {'regs':>5} "
        f"{'spill':>6} {'shared':>7}"
    )
    worst = 0
    for operator in options.operators or OPERATORS:
        for name in load(operator).CASES:
            if options.case and name not in options.case:
                continue
            for dtype in options.dtype:
                for capability in options.capability:
                    for kernel, found in compile_case(operator, name, DTYPES[dtype], capability):
                        worst = max(worst, found.spill)
                        print(
                            f"{operator:22} {name:16} {dtype:9} {capability:3} {kernel:26} "
                            f"{found.registers:5} {found.spill:6} {found.shared:7}",
                            flush=True,
                        )
    return int(worst > options.max_spill)


if __name__ == "__main__":
    raise SystemExit(main())
