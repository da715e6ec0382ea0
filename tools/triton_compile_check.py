"""Compile every Triton kernel to a cubin without a GPU; print registers, spills, shared memory.

    python tools/triton_compile_check.py [--capability 80 90] [--dtype float16] [--case 3d]

TRITON_INTERPRET must not be set. Exits with 1 when a kernel keeps more than --max-spill bytes a
thread in local memory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import triton

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._neighborhood_attention.launches import (
    backward_launches,
    forward_launch,
)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One input: its kernels are the forward's and the backward's, with bias and additional keys
    where asked.
    """

    dims: tuple[int, ...]
    kernel: tuple[int, ...]
    head_dim: int
    bias: bool = False
    additional: int = 0
    heads: int = 4
    heads_kv: int = 4
    causal: bool = False


CASES = {
    "2d-k7": Case((56, 56), (7, 7), 32),
    "2d-k7-bias": Case((56, 56), (7, 7), 32, bias=True),
    "3d": Case((8, 14, 14), (3, 7, 7), 64, bias=True, additional=5, heads_kv=2),
    "2d-large-window": Case((64, 64), (32, 32), 128),
    "1d-causal": Case((4096,), (256,), 64, causal=True, additional=4),
    "2d-d256": Case((28, 28), (7, 7), 256, bias=True, additional=4),
    "2d-odd-d": Case((14, 14), (7, 7), 20, bias=True),
}


@dataclass(frozen=True)
class Resources:
    """What a program of a compiled kernel takes; `spill` is local memory in bytes a thread."""

    registers: int
    spill: int
    shared: int
    size: int


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and a backward, over tensors without storage."""

    def tensor(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    query = tensor(2, *case.dims, case.heads, case.head_dim)
    key = tensor(2, *case.dims, case.heads_kv, case.head_dim)
    bias = tensor(case.heads, *(2 * k - 1 for k in case.kernel)) if case.bias else None
    extra = tensor(2, case.additional, case.heads_kv, case.head_dim) if case.additional else None
    ones = [1] * len(case.dims)
    window = (case.kernel, ones, ones, [int(case.causal)] * len(case.dims))
    optional = (bias, extra, extra)
    forward, out, lse = forward_launch(query, key, key, *optional, window, 0.125)
    backward, _ = backward_launches(out, lse, query, key, key, out, lse, *optional, window, 0.125)
    return [forward, *backward]


def compile_case(
    case: Case, dtype: torch.dtype, capability: int
) -> Iterator[tuple[str, Resources]]:
    """Compile the launches of a case; yields the name of each kernel with what it takes."""
    for launch in launches(case, dtype):
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
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 90])
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--max-spill", type=int, default=512, help="bytes a thread")
    options = parser.parse_args()
    print(f"{'case':16} {'dtype':9} {'sm':>3} {'kernel':26} {'regs':>5} {'spill':>6} {'shared':>7}")
    worst = 0
    for name in options.case:
        for dtype in options.dtype:
            for capability in options.capability:
                for kernel, found in compile_case(CASES[name], DTYPES[dtype], capability):
                    worst = max(worst, found.spill)
                    row = f"{name:16} {dtype:9} {capability:3} {kernel:26} {found.registers:5}"
                    print(f"{row} {found.spill:6} {found.shared:7}", flush=True)
    return int(worst > options.max_spill)


if __name__ == "__main__":
    raise SystemExit(main())
