"""`import saccade` is quick and silent, and no library can break it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .process import python, run

LIMIT_SECONDS = 0.5

COST = """
import json, sys, time
import torch
before = set(sys.modules)
print("-----", flush=True)
print("-----", file=sys.stderr, flush=True)
start = time.perf_counter()
import saccade
seconds = time.perf_counter() - start
sys.stderr.flush()
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""

RUN = """
import json, torch, saccade
x = torch.randn(1, 8, 2, 4)
call = lambda **kw: saccade.ops.neighborhood_attention(x, x, x, 3, **kw)
try:
    call(backend="cpu")
    forced = "no error"
except RuntimeError as error:
    forced = str(error)
same = torch.equal(call(), call(backend="reference"))
facts = {"forced": forced, "same": same, "info": saccade.info(), "text": saccade._info.text()}
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def imports() -> list[tuple[float, list[str], str, str]]:
    """Seconds, new modules, and what was printed, of three imports after torch."""
    results = []
    for _ in range(3):
        done = python(COST)
        assert done.returncode == 0, done.stderr
        *printed, last = done.stdout.partition("-----\n")[2].splitlines()
        seconds, modules = json.loads(last)
        results.append((seconds, modules, "".join(printed), done.stderr.partition("-----\n")[2]))
    return results


def test_the_import_costs_less_than_half_a_second(
    imports: list[tuple[float, list[str], str, str]],
) -> None:
    seconds = [result[0] for result in imports]
    assert min(seconds) < LIMIT_SECONDS, seconds


def test_the_import_prints_nothing(imports: list[tuple[float, list[str], str, str]]) -> None:
    assert {(out, err) for _, _, out, err in imports} == {("", "")}


@pytest.mark.parametrize(
    "module",
    [
        "lightning", "torchmetrics", "triton", "matplotlib", "sklearn", "torchvision", "typer",
        "rich", "timm", "safetensors", "yaml", "medmnist", "scipy", "PIL", "torch._dynamo",
        "torch._inductor", "saccade.models", "saccade.systems", "saccade.learn", "saccade.data",
        "saccade.cli",
    ],
)  # fmt: skip
def test_the_import_leaves_out(
    imports: list[tuple[float, list[str], str, str]], module: str
) -> None:
    assert module not in imports[0][1]


def _absent(folder: Path) -> None:
    pass


def _corrupt(folder: Path) -> None:
    (folder / "_C.so").write_bytes(b"\x7fELF" + b"not a library" * 100)


def _compile(folder: Path, code: str) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    assert compiler, "a C++ compiler is needed to build saccade, and here too"
    source = folder / "library.cpp"
    source.write_text(code)
    done = run(compiler, "-shared", "-fPIC", source, "-o", folder / "_C.so")
    assert done.returncode == 0, done.stderr


def _undefined_symbol(folder: Path) -> None:
    _compile(folder, 'extern "C" void from_another_torch(); void f() { from_another_torch(); }')


def _without_operators(folder: Path) -> None:
    _compile(folder, "void f() {}")


@pytest.mark.parametrize(
    ("break_it", "found", "why"),
    [
        (_absent, False, "_C"),
        (_corrupt, True, "could not load it"),
        pytest.param(_undefined_symbol, True, "from_another_torch"),
        pytest.param(_without_operators, True, "operator"),
    ],
    ids=["absent", "corrupt", "undefined symbol", "without operators"],
)
def test_without_its_library_the_reference_runs(
    tmp_path: Path, break_it: Callable[[Path], None], found: bool, why: str
) -> None:
    break_it(tmp_path)
    done = python(RUN, SACCADE_LIBRARY_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    library = facts["info"]["libraries"]["_C"]
    assert not library["loaded"]
    assert library["path"] == (str(tmp_path / "_C.so") if found else None)
    assert why in library["reason"]
    assert not facts["info"]["libraries"]["_C_cuda"]["loaded"]
    assert facts["info"]["isa"]["chosen"] is None
    assert facts["same"], "auto and reference must be one rung here"
    assert library["reason"] in facts["forced"], "the refusal must say why"
    assert f"_C        {library['reason']}" in facts["text"]
    assert "reference only" in facts["text"]
