"""Registers, spills and shared memory of every CUDA kernel, read from what ptxas -v said.

    python tools/ptxas_report.py LOG_OR_FOLDER... [--build FOLDER] [--out FILE]

A folder is searched for `*.cu.o.log` and `ptxas*.log`. The table goes to --out, or to the screen.
The exit status is 1, with a sentence, where a kernel named hot spills registers or is missing;
other spills are listed with their bytes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Namespace below saccade, kernel, and its mangled template arguments as a regular expression: the
# kernels and shapes of published models. None of these may spill.
Hot = tuple[str, str, str]
HOT: tuple[Hot, ...] = (
    *(
        ("gem", kernel, f"I{kind}E")
        for kernel in ("combine_kernel", "dot_kernel", "gram_kernel", "outer_kernel")
        for kind in ("f", "6__half", "13__nv_bfloat16")
    ),
    *(
        ("kan_gpu", kernel, f"I{kind}[EL]")
        for kernel in (
            "base_gradient_kernel",
            "forward_kernel",
            "input_gradient_kernel",
            "rational_backward_kernel",
            "rational_forward_kernel",
            "weight_gradient_kernel",
        )
        for kind in ("f", "6__half", "13__nv_bfloat16")
    ),
    *(
        ("lif", kernel, f"I.*Li{width}E")
        for kernel in ("forward_kernel", "backward_kernel")
        for width in (1, 4)
    ),
    *(
        ("na", kernel, f"I.*Li{width}E")
        for kernel in ("forward_kernel", "backward_query_kernel", "backward_key_kernel")
        for width in (32, 64)
    ),
    ("polar", "image_kernel", "E"),
    ("polar", "inverse_kernel", "E"),
    ("polar", "inverse_pose_kernel", "E"),
    ("polar", "map_kernel", "E"),
    ("polar", "pose_kernel", "E"),
    *(("polar", "sample_kernel", f"I{types}") for types in ("ff", "6__half", "13__nv_bfloat16")),
    *(
        ("scan_device", kernel, f"I.*Li{lanes}E")
        for kernel in ("scan_forward_kernel", "scan_backward_kernel")
        for lanes in (1, 4, 16)
    ),
    *(
        ("scan_device", kernel, "I.*Li4E")
        for kernel in ("convolution_kernel", "convolution_backward_kernel")
    ),
    *(("transport", "assignment_kernel", f"IfLi{threads}E") for threads in (32, 256)),
    *(
        ("statevector", kernel, f"I{kind}E")
        for kernel in (
            "backward_kernel",
            "forward_kernel",
            "observe_backward_kernel",
            "observe_kernel",
        )
        for kind in "fd"
    ),
    *(
        ("transport", "pass_kernel", f"INS0_{rows}E.*UpdatePass")
        for rows in ("10MatrixRows", "13MatrixColumns", "9PointRows")
    ),
    *(
        ("transport", "plan_kernel", f"INS.*{plan}E.*ProductPass")
        for plan in ("10MatrixRows", "13MatrixColumns", "9PointPlan")
    ),
    ("transport", "solver_kernel", "ENS0_8EntropicE"),
    ("transport", "adjoint_kernel", "ENS0_14AdjointProblemE"),
)

_ENTRY = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+)(?:\+\d+)? bytes smem")


@dataclass
class Kernel:
    """What ptxas says of one kernel on one architecture."""

    mangled: str
    arch: str
    registers: int = 0
    stores: int = 0
    loads: int = 0
    shared: int = 0
    name: str = ""

    @property
    def spills(self) -> bool:
        """Whether registers went to local memory."""
        return self.stores + self.loads > 0

    def is_hot(self, hot: Hot) -> bool:
        """Whether this is that hot kernel."""
        # mangled: every name behind its length, then I and the template arguments
        space, kernel, arguments = hot
        pattern = rf"7saccade{len(space)}{space}.*?{len(kernel)}{kernel}{arguments}"
        return re.search(pattern, self.mangled) is not None


def parse(text: str) -> list[Kernel]:
    """The kernels in a log, which may hold anything else between ptxas' lines."""
    kernels: list[Kernel] = []
    # device functions have properties too: an entry's stand between its own line and "Used"
    current: Kernel | None = None
    properties_of = ""
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            current = Kernel(entry.group(1), entry.group(2))
            kernels.append(current)
        elif "Function properties for" in line:
            properties_of = line.rpartition(" ")[2].strip("'")
        elif current and (spills := _SPILLS.search(line)) and properties_of == current.mangled:
            current.stores, current.loads = map(int, spills.groups())
        elif current and (used := _USED.search(line)):
            current.registers = int(used.group(1))
            if shared := _SHARED.search(line):
                current.shared = int(shared.group(1))
            current = None
    return kernels


def demangle(names: Sequence[str]) -> list[str]:
    """Readable names without parameters; the mangled ones where there is no c++filt."""
    program = shutil.which("c++filt")
    if program is None or not names:
        return list(names)
    done = subprocess.run(
        [program], input="\n".join(names), capture_output=True, text=True, check=False
    )
    readable = done.stdout.splitlines()
    return [_short(name) for name in readable] if len(readable) == len(names) else list(names)


def _short(name: str) -> str:
    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N_[^:]*::", "", name).removeprefix("void ")
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:i]
    return name


def collect(paths: Iterable[Path]) -> list[Kernel]:
    """Every kernel once an architecture, by name; a log that was written later wins."""
    logs: list[Path] = []
    for path in paths:
        logs += [*path.rglob("*.cu.o.log"), *path.rglob("ptxas*.log")] if path.is_dir() else [path]
    logs.sort(key=lambda log: log.stat().st_mtime)
    found: dict[tuple[str, str], Kernel] = {}
    for log in logs:
        kernels = parse(log.read_text(errors="replace"))
        for kernel, name in zip(kernels, demangle([k.mangled for k in kernels]), strict=True):
            kernel.name = name
            found[name, kernel.arch] = kernel
    return [found[key] for key in sorted(found)]


def table(kernels: Sequence[Kernel]) -> str:
    """One line a kernel and architecture."""
    head = ("kernel", "arch", "registers", "spill stores/loads", "static smem")
    rows = [
        (k.name, k.arch, str(k.registers), f"{k.stores}/{k.loads}", str(k.shared)) for k in kernels
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "-+-".join("-" * w for w in widths), *lines[1:]]) + "\n"


def judge(kernels: Sequence[Kernel], hot: Sequence[Hot]) -> list[str]:
    """What is wrong, in sentences."""
    if not kernels:
        return ["No kernel is in the logs: were the CUDA kernels built with -Xptxas -v?"]
    wrong = []
    for kernel in kernels:
        if kernel.spills and any(kernel.is_hot(h) for h in hot):
            wrong.append(
                f"{kernel.name} on {kernel.arch} is hot and must not spill, but stores "
                f"{kernel.stores} and loads {kernel.loads} bytes."
            )
    for arch in sorted({k.arch for k in kernels}):
        for entry in hot:
            if not any(k.arch == arch and k.is_hot(entry) for k in kernels):
                space, kernel, arguments = entry
                wrong.append(
                    f"{space}::{kernel} {arguments} is named hot, but was not compiled for {arch}."
                )
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and return the exit status."""
    parser = argparse.ArgumentParser(description="Registers and spills of the CUDA kernels.")
    parser.add_argument("logs", nargs="*", type=Path, help="logs, or folders that hold them")
    parser.add_argument("--build", type=Path, help="the build folder")
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args(arguments)
    paths = [*options.logs, *([options.build] if options.build else [])]
    for path in paths:
        if not path.exists():
            print(f"{path} does not exist.", file=sys.stderr)
            return 1
    kernels = collect(paths)
    if options.out:
        options.out.write_text(table(kernels) if kernels else "")
    elif kernels:
        print(table(kernels), end="")
    for kernel in kernels:
        if kernel.spills and not any(kernel.is_hot(h) for h in HOT):
            print(f"{kernel.name} on {kernel.arch} spills {kernel.stores}/{kernel.loads} bytes.")
    wrong = judge(kernels, HOT)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
