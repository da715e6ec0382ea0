"""What the package says of itself, in a dictionary and in lines."""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import saccade
from saccade import _info, _load

from .process import run

LEVELS = ("baseline", "avx2", "avx512")
SACCADE = Path(sys.executable).with_name("saccade")

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


def test_the_keys_are_those_of_the_documentation() -> None:
    keys = {
        "saccade", "python", "torch", "cuda", "triton", "isa", "cuda_archs", "compiler", "threads",
        "devices", "libraries",
    }  # fmt: skip
    facts = saccade.info()
    assert set(facts) == keys
    assert all(f"`{key}`" in (saccade.info.__doc__ or "") for key in keys)
    assert set(facts["isa"]) == {"chosen", "possible", "cap"}
    assert json.loads(json.dumps(facts)) == facts, "plain values"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("saccade", metadata.version("saccade")),
        ("python", platform.python_version()),
        ("torch", torch.__version__),
        ("cuda", torch.version.cuda),
    ],
)
def test_a_value_is_the_fact(key: str, value: object) -> None:
    assert saccade.info()[key] == value


def test_threads_are_those_of_now() -> None:
    assert saccade.info()["threads"] == torch.get_num_threads()


def test_the_libraries_that_are_loaded_exist() -> None:
    libraries = saccade.info()["libraries"]
    assert list(libraries) == ["_C", "_C_cuda", "_host"]
    for name, library in libraries.items():
        assert library["loaded"] == (library["reason"] == "loaded"), name
        assert not library["loaded"] or Path(library["path"]).is_file(), name


def test_the_possible_levels_agree_with_the_kernel() -> None:
    possible = saccade.info()["isa"]["possible"]
    assert possible == list(LEVELS[: len(possible)])
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.exists():
        pytest.skip("only Linux on x86-64 lists its instruction sets in /proc/cpuinfo")
    flags = set(re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.M)[1].split())  # type: ignore[index]
    avx2 = {"avx2", "fma"} <= flags
    avx512 = avx2 and {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= flags
    assert possible == ["baseline"] + ["avx2"] * avx2 + ["avx512"] * avx512


def test_the_archs_are_those_of_the_loaded_library() -> None:
    archs = saccade.info()["cuda_archs"]
    assert bool(archs) == _load.has("_C_cuda")
    assert all(re.fullmatch(r"sm_\d+[a-z]?", arch) for arch in archs)


def test_the_text_has_one_line_a_fact() -> None:
    lines = {line.split()[0]: line for line in _info.text().splitlines()}
    facts = saccade.info()
    assert list(lines) == [
        "saccade",
        "python",
        "torch",
        "triton",
        "CPU",
        "CUDA",
        "_C",
        "_C_cuda",
        "_host",
    ]
    assert lines["torch"].split()[1] == torch.__version__
    assert f"({torch.get_num_threads()} threads)" in lines["torch"]
    assert lines["CPU"].split()[1] == facts["isa"]["chosen"]
    assert f"(possible here: {', '.join(facts['isa']['possible'])}" in lines["CPU"]
    for name, library in facts["libraries"].items():
        assert library["reason"] in lines[name]


def test_the_command_and_the_module_say_the_same() -> None:
    command, module = run(SACCADE, "info"), run(sys.executable, "-m", "saccade", "info")
    assert command.returncode == module.returncode == 0, command.stderr + module.stderr
    assert command.stdout == module.stdout
    assert command.stdout.startswith(f"saccade   {saccade.__version__}\n")
    assert command.stderr == module.stderr == ""


@pytest.mark.parametrize("cap", LEVELS)
def test_the_environment_caps_the_instruction_set(cap: str) -> None:
    done = run(SACCADE, "info", "--json", SACCADE_ISA=cap)
    assert done.returncode == 0, done.stderr
    isa = json.loads(done.stdout)["isa"]
    allowed = LEVELS[: LEVELS.index(cap) + 1]
    assert isa["chosen"] == [level for level in isa["possible"] if level in allowed][-1]
    assert isa["possible"] == saccade.info()["isa"]["possible"]
    assert isa["cap"] == cap


def test_a_cap_that_is_no_level_is_refused_or_named() -> None:
    done = run(SACCADE, "info", SACCADE_ISA="sse9")
    complaint = done.stderr + done.stdout
    assert re.search(r"sse9.*(not|unknown|must be)|(not|unknown|must be).*sse9", complaint), (
        complaint
    )
