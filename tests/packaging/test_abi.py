"""The binaries need the oldest supported torch alone; each instruction set stays in its place."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch_abi_audit import inspect_extension

from saccade import _load

from .process import ROOT, run

OLDEST_TORCH = (2, 11)
TORCH_LIBRARIES = Path(torch.__file__).parent / "lib"
SYSTEM = re.compile(r"(libstdc\+\+|libm|libgcc_s|libc|libdl|libpthread|librt)\.so\.\d+|ld-linux.*")
# of each library: the torch libraries that it names, and those that hold its symbols
NEEDED = {"_C": {"libtorch_cpu.so"}, "_C_cuda": {"libtorch.so", "libtorch_cpu.so"}, "_host": set()}
HOLDERS = {"_C": ("libtorch_cpu.so",), "_C_cuda": ("libtorch_cpu.so", "libtorch_cuda.so")}


def _library(name: str) -> Path:
    path = {library.name: library.path for library in _load.libraries()}[name]
    if path is None and name == "_C_cuda":
        pytest.skip(_load.reason(name))
    assert path is not None, _load.reason(name)
    return Path(path)


def _read(tool: str, *arguments: str | Path) -> str:
    assert shutil.which(tool), f"{tool} belongs to binutils, which every compiler brings"
    done = run(tool, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _symbols(path: Path, *options: str, types: str) -> set[str]:
    lines = (line.split() for line in _read("nm", *options, path).splitlines())
    return {words[-1] for words in lines if len(words) >= 2 and words[-2] in types}


def _undefined(path: Path) -> set[str]:
    """Symbols that other libraries must define; those of glibc and libstdc++ have a version."""
    return {name for name in _symbols(path, "-D", "--undefined-only", types="U") if "@" not in name}


@pytest.mark.parametrize("name", ["_C", "_C_cuda"])
def test_the_operators_use_the_stable_abi_of_the_oldest_torch(name: str) -> None:
    verdict = inspect_extension(_library(name)).torch
    assert verdict.uses_torch
    assert verdict.stable, verdict.unstable_symbols
    assert verdict.unknown_shim_symbols == ()
    assert verdict.min_torch_version is not None
    oldest = tuple(int(part) for part in verdict.min_torch_version.split(".")[:2])
    assert oldest <= OLDEST_TORCH, verdict.version_defining_symbols


def test_the_host_library_does_not_know_torch() -> None:
    assert not inspect_extension(_library("_host")).torch.uses_torch
    assert all(re.match("_?Py", name) for name in _undefined(_library("_host")))


@pytest.mark.parametrize(
    "name",
    [
        "_C",
        pytest.param("_C_cuda"),
    ],
)
def test_every_symbol_of_another_library_is_a_c_function_of_torch(name: str) -> None:
    path, holders = _library(name), [TORCH_LIBRARIES / holder for holder in HOLDERS[name]]
    if not all(holder.exists() for holder in holders):
        pytest.skip(f"this torch has not all of {', '.join(HOLDERS[name])}")
    needed = _undefined(path)
    assert "torch_call_dispatcher" in needed or "torch_library_impl" in needed, (
        "symbols were not read"
    )
    assert {symbol for symbol in needed if symbol.startswith("_Z")} == set()
    exported = set().union(
        *(_symbols(holder, "-D", "--defined-only", types="TDBRVWi") for holder in holders)
    )
    assert needed - exported == set()


@pytest.mark.parametrize("name", NEEDED)
def test_a_library_names_torch_and_the_system_alone(name: str) -> None:
    dynamic = _read("readelf", "-d", "-W", _library(name))
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
    assert needed, "the dynamic section was not read"
    assert {library for library in needed if not SYSTEM.fullmatch(library)} == NEEDED[name]
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


@pytest.mark.parametrize(
    "name",
    [
        "_C",
        "_host",
        pytest.param("_C_cuda"),
    ],
)
def test_a_library_holds_no_path_of_this_machine(name: str) -> None:
    content, places = _library(name).read_bytes(), (ROOT, TORCH_LIBRARIES.parent)
    assert [place for place in places if str(place).encode() in content] == []


@pytest.mark.parametrize("name", NEEDED)
def test_a_library_exports_no_symbol_of_ours(name: str) -> None:
    exported = _symbols(_library(name), "-D", "--defined-only", types="TDBRVWui")
    assert {symbol for symbol in exported if "saccade" in symbol} == set()
    assert name != "_host" or "PyInit__host" in exported


@pytest.mark.parametrize("operator", ["na_forward", "na_backward"])
@pytest.mark.parametrize(("library", "key"), [("_C", "CPU"), ("_C_cuda", "CUDA")])
def test_a_library_registers_its_kernels(library: str, key: str, operator: str) -> None:
    if not _load.has(library):
        pytest.skip(_load.reason(library))
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"saccade::{operator}", key)


# --- instruction sets: the objects of every plain build under build/ ---

BUILDS = sorted(
    folder.parents[1]
    for folder in ROOT.glob("build/*/CMakeFiles/kernels_avx2.dir")
    if folder.parents[1].name != "asan" and any(folder.rglob("*.o"))
)
x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="one instruction set on this machine"
)
built = pytest.mark.skipif(
    not BUILDS, reason="no objects under build/: saccade was not built in this tree"
)


def _objects(build: Path) -> dict[str, list[Path]]:
    """Object files by instruction set; "host" is the rest: bindings and schemas."""
    folders = build / "CMakeFiles"
    kernels = {
        level: sorted(folders.glob(f"kernels_{level}.dir/**/*.o"))
        for level in ("baseline", "avx2", "avx512")
    }
    return kernels | {"host": sorted(folders.glob("_C.dir/**/*.o"))}


@built
@x86
@pytest.mark.parametrize("build", BUILDS, ids=lambda folder: folder.name)
def test_no_function_is_in_the_objects_of_two_instruction_sets(build: Path) -> None:
    """The linker keeps one copy of a weak symbol: it could be one that this CPU cannot run."""
    symbols = {
        level: set().union(*(_symbols(path, "--defined-only", types="WVuwvT") for path in paths))
        for level, paths in _objects(build).items()
    }
    assert all(symbols.values()), "symbols were not read"
    for level in ("baseline", "avx2", "avx512"):
        strangers = {name for name in symbols[level] if f"{len(level)}{level}" not in name}
        assert strangers == set(), f"{level} has functions outside its namespace"
        others = set().union(*(names for other, names in symbols.items() if other != level))
        assert symbols[level] & others == set()


AVX = re.compile(r"\tv[a-z]")
AVX512 = re.compile(r"%zmm|%k[0-7]\b|%[xy]mm(1[6-9]|2\d|3[01])")


@built
@x86
@pytest.mark.parametrize("build", BUILDS, ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("level", "forbidden"),
    [("host", AVX), ("baseline", AVX), ("avx2", AVX512)],
    ids=["host", "baseline", "avx2"],
)
def test_no_instruction_is_above_its_level(
    build: Path, level: str, forbidden: re.Pattern[str]
) -> None:
    for path in _objects(build)[level]:
        code = _read("objdump", "-d", "--no-show-raw-insn", path).splitlines()
        assert len(code) > 10, "nothing was disassembled"
        assert [line for line in code if forbidden.search(line)][:5] == [], path.name
    avx512 = "".join(_read("objdump", "-d", path) for path in _objects(build)["avx512"])
    assert AVX.search(avx512), "the pattern does not find what it looks for"
    assert AVX512.search(avx512), "the pattern does not find what it looks for"
