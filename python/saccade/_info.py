"""What this installation is: versions, instruction sets, libraries loaded, and why not."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib import metadata
from typing import Any

import torch

from saccade import _load

try:
    __version__ = metadata.version("saccade")
except metadata.PackageNotFoundError:
    __version__ = "0+unknown"

ISAS = ("baseline", "avx2", "avx512")


def _triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return 'not installed: pip install "saccade[triton]"'
    return metadata.version("triton")


def _cuda_devices() -> list[str]:
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def info() -> dict[str, Any]:
    """Describe the installation: versions, instruction sets, libraries and devices.

    Returns:
        A dictionary of plain values with the keys `saccade`, `python`, `torch`, `cuda` (the release
        torch was built with, or None), `triton`, `isa` (`chosen`, `possible`, `cap`: the
        environment variable SACCADE_ISA), `cuda_archs` (targets built into `_C_cuda`), `compiler`,
        `threads`, `devices` and `libraries` (name: `loaded`, `path`, `reason`).

    >>> import saccade
    >>> sorted(saccade.info()["libraries"])
    ['_C', '_C_cuda', '_host']
    """
    build: dict[str, Any] = _load.host.build_info() if _load.host else {}
    chosen = torch.ops.saccade.isa() if _load.has("_C") else None
    return {
        "saccade": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _triton(),
        "isa": {
            "chosen": chosen,
            "possible": build.get("isa_possible", []),
            "cap": os.environ.get("SACCADE_ISA"),
        },
        "cuda_archs": build.get("cuda_archs", []) if _load.has("_C_cuda") else [],
        "compiler": build.get("compiler"),
        "threads": torch.get_num_threads(),
        "devices": _cuda_devices(),
        "libraries": {
            lib.name: {"loaded": lib.loaded, "path": lib.path, "reason": lib.reason}
            for lib in _load.libraries()
        },
    }


def text() -> str:
    """The same as `info`, as lines for a person to read or to paste into an issue."""
    facts = info()
    isa = facts["isa"]
    cap = f"; SACCADE_ISA={isa['cap']}" if isa["cap"] else ""
    if isa["cap"] and isa["cap"] not in ISAS:
        cap += f" is not one of {', '.join(ISAS)}: no cap"
    possible = ", ".join(isa["possible"]) or "unknown"
    lines = [
        f"saccade   {facts['saccade']}",
        f"python    {facts['python']}",
        f"torch     {facts['torch']} ({facts['threads']} threads)",
        f"triton    {facts['triton']}",
        f"CPU       {isa['chosen'] or 'reference only'} (possible here: {possible}{cap})",
        f"CUDA      {', '.join(facts['devices']) or 'no device'}",
    ]
    for name, library in facts["libraries"].items():
        built = ", ".join(facts["cuda_archs"]) if name == "_C_cuda" else ""
        archs = f" for {built}" if built else ""
        lines.append(f"{name:<9} {library['reason']}{archs}")
    return "\n".join(lines)
