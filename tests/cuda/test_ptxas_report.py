"""The report on registers and spills."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools/ptxas_report.py"
WIDTHS = (32, 64)
KERNELS = ("forward_kernel", "backward_query_kernel")
HOT = [("na", kernel, f"I.*Li{width}E") for kernel in KERNELS for width in WIDTHS]


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ptxas_report", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ptxas_report"] = module
    spec.loader.exec_module(module)
    module.HOT = HOT
    return module


def _mangled(kernel: str, width: int) -> str:
    return (
        f"_ZN7saccade2na12_GLOBAL__N_1{len(kernel)}{kernel}IfLi{width}EEEvNS0_7ForwardENS0_6TilingE"
    )


def _log(
    kernel: str, width: int, arch: str, stores: int = 0, loads: int = 0, smem: str = ""
) -> str:
    name = _mangled(kernel, width)
    return (
        "[3/7] Building CUDA object x.cu.o\n"
        f"ptxas info    : Compiling entry function '{name}' for '{arch}'\n"
        "ptxas info    : Function properties for some_device_function\n"
        "    8 bytes stack frame, 999 bytes spill stores, 999 bytes spill loads\n"
        f"ptxas info    : Function properties for {name}\n"
        f"    0 bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads\n"
        f"ptxas info    : Used 142 registers, used 1 barriers{smem}, 1004 bytes cmem[0]\n"
        "ptxas info    : Compile time = 3.000 ms\n"
    )


def _all_hot(**changes: int) -> str:
    return "".join(
        _log(kernel, width, "sm_90", **changes) for kernel in KERNELS for width in WIDTHS
    )


def test_parses_every_number(report: ModuleType) -> None:
    log = _log("forward_kernel", 32, "sm_80", 4, 12, ", 4096+16 bytes smem") + "ninja: done\n"
    (kernel,) = report.parse(log)
    assert (kernel.arch, kernel.registers, kernel.stores, kernel.loads, kernel.shared) == (
        "sm_80", 142, 4, 12, 4096,
    )  # fmt: skip


def test_writes_a_table_and_passes(
    report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.cu.o.log").write_text(_all_hot())
    (tmp_path / "b.cu.o.log").write_text(_log("forward_kernel", 256, "sm_90", 16, 8))
    out = tmp_path / "ptxas.txt"
    assert report.main(["--build", str(tmp_path), "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[0].split(" | ")[1].strip() == "arch"
    assert len(lines) == 2 + len(HOT) + 1
    assert "spills 16/8 bytes" in capsys.readouterr().out


def test_newer_log_wins(report: ModuleType, tmp_path: Path) -> None:
    import os

    old, new = tmp_path / "z.cu.o.log", tmp_path / "a.cu.o.log"
    old.write_text(_all_hot(stores=4))
    new.write_text(_all_hot())
    os.utime(old, (1, 1))
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        ("", "No kernel is in the logs"),
        ("spill", "is hot and must not spill, but stores 4 and loads 0 bytes."),
        ("missing", "was not compiled for sm_90."),
    ],
)
def test_fails_with_a_sentence(
    report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], log: str, sentence: str
) -> None:
    texts = {
        "spill": _all_hot() + _log("forward_kernel", 64, "sm_90", 4),
        "missing": _log("forward_kernel", 32, "sm_90"),
    }
    path = tmp_path / "ptxas.log"
    path.write_text(texts.get(log, "nothing here\n"))
    assert report.main([str(path), "--out", str(tmp_path / "out")]) == 1
    assert sentence in capsys.readouterr().err


def test_says_which_log_is_missing(report: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["nowhere.log"]) == 1
    assert "nowhere.log does not exist." in capsys.readouterr().err
