"""The files around the code: requirements, pins, make targets, and the contract on imports."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .process import ROOT, run

EXTRAS = ("train", "triton", "models", "quantum", "bench", "docs", "oracles", "all", "dev")


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements", ROOT / "tools/requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROJECT = _tool().PROJECT
PINS = {
    canonicalize_name(pin.name): pin
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
    for pin in [Requirement(line)]
}


def _resolved(*extras: str) -> dict[str, Requirement]:
    done = run(sys.executable, ROOT / "tools/requirements.py", *extras)
    assert done.returncode == 0, done.stderr
    return {
        canonicalize_name(found.name): found for found in map(Requirement, done.stdout.splitlines())
    }


def test_the_extras_are_these() -> None:
    assert set(PROJECT["optional-dependencies"]) == set(EXTRAS)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_resolves_to_packages_of_others(extra: str) -> None:
    resolved = _resolved(extra)
    assert {"torch", "numpy"} <= set(resolved)
    assert "saccade" not in resolved
    named = map(Requirement, PROJECT["optional-dependencies"][extra])
    for requirement in named:
        parts = requirement.extras if requirement.name == "saccade" else ()
        expected = (
            _resolved(*parts) if parts else {canonicalize_name(requirement.name): requirement}
        )
        assert set(expected) <= set(resolved)


def test_no_extra_resolves_to_the_core() -> None:
    assert set(_resolved()) == {"torch", "numpy"}


def test_the_build_needs_no_torch() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    requires = re.search(r"^requires = \[(.*)\]", text, re.M)
    assert requires
    assert "scikit-build-core" in requires[1]
    assert "torch" not in requires[1]


# What decides results, speed or what lint says.
@pytest.mark.parametrize(
    "package",
    [
        "torch", "torchvision", "numpy", "scikit-build-core", "pybind11", "cmake", "ninja",
        "nvidia-cuda-nvcc", "nvidia-cuda-cccl", "lightning", "torchmetrics", "matplotlib",
        "scikit-learn", "safetensors", "timm", "typer", "rich", "pot", "quadprog", "qiskit",
        "qiskit-aer", "qiskit-addon-cutting", "pytest", "pytest-benchmark", "pytest-xdist",
        "hypothesis", "ruff", "mypy", "import-linter", "clang-format", "torch-abi-audit",
        "mkdocs-material",
    ],
)  # fmt: skip
def test_a_requirement_of_development_is_pinned(package: str) -> None:
    wanted = _resolved("dev")[package]
    pin = PINS[package]
    assert [part.operator for part in pin.specifier] == ["=="]
    version = next(iter(pin.specifier)).version.replace(".*", ".0")
    assert wanted.specifier.contains(version), f"{pin} is outside {wanted}"


def test_every_pin_is_of_something_wanted() -> None:
    # nvcc's own parts, which must be of its release
    parts = {"nvidia-cuda-crt", "nvidia-nvvm"}
    # the packages for circuits bring many along, and all of these are pinned
    circuits = _brought("qiskit-aer", "qiskit-addon-cutting")
    rest = set(PINS) - set(_resolved("dev"))
    assert parts <= rest <= parts | circuits


def _brought(*packages: str) -> set[str]:
    """What packages require, and what that requires, here."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [Requirement(package) for package in packages]
    while waiting:
        parent = waiting.pop()
        for line in metadata.requires(parent.name) or ():
            requirement = Requirement(line)
            extras = ["", *parent.extras]
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                if line not in seen:
                    waiting.append(requirement)
                seen.add(line)
                found.add(canonicalize_name(requirement.name))
    return found


@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="not the environment that make installs"
)
def test_the_environment_is_the_pinned_one() -> None:
    different = {
        name: metadata.version(name)
        for name, pin in PINS.items()
        if (pin.marker is None or pin.marker.evaluate())
        and not pin.specifier.contains(metadata.version(name).partition("+")[0])
    }
    assert different == {}


def _make(*arguments: str) -> str:
    assert shutil.which("make"), "make is one of the three things that saccade's development needs"
    done = run("make", "--no-print-directory", *arguments, MAKEFLAGS="")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", [("help",), ()], ids=["make help", "make"])
def test_make_alone_shows_the_two_commands(arguments: tuple[str, ...]) -> None:
    shown = _make(*arguments)
    assert "make demo" in shown
    assert "make test" in shown
    assert len(shown.splitlines()) == 4


TARGETS = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)[1].split()  # type: ignore[index]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_has_a_recipe_and_its_tools(target: str) -> None:
    # -n prints the recipe without running it
    recipe = _make("-n", target)
    assert recipe.strip()
    tools = set(re.findall(r"\btools/\w+\.(?:py|sh)", recipe))
    assert {tool for tool in tools if not (ROOT / tool).is_file()} == set()


def test_make_test_runs_every_check() -> None:
    recipe = _make("-n", "-W", "CMakeLists.txt", "test")
    for check in (
        "SACCADE_CUDA=1", "ruff check", "ruff format -q --check", "bin/mypy", "lint-imports",
        "clang-format --dry-run -Werror", "tools/ptxas_report.py",
        "pytest -q -n auto --dist loadfile tests/triton",
    ):  # fmt: skip
        assert check in recipe, check
    together, alone = re.findall(r'pytest -q (?:-n .*)?-m "not slow" (.*)', recipe)
    assert alone.split() == [f"--ignore={path}" for path in together.split()]
    assert "tests/ops" in together


def test_make_demo_shows_measures_and_trains() -> None:
    steps = [
        line
        for line in _make("-n", "demo", "DATA=mnist", "DATA_DIR=there").splitlines()
        if "bin/saccade" in line
    ]
    assert [re.search(r"bin/saccade (\w+)", line)[1] for line in steps] == [
        "info",
        "bench",
        "train",
    ]  # type: ignore[index]
    assert "--data mnist --data-dir there" in steps[-1]


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text().splitlines()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


# -S leaves the editable installation's finder out, so that the copy is what is linted
LINT = """
import sys
sys.path[:0] = sys.argv[1:3]
from importlinter.cli import lint_imports_command
lint_imports_command(["--config", sys.argv[3], "--no-cache"])
"""


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        (None, "", ""),
        ("ops/kan.py", "import saccade.nn", "saccade.ops is not allowed to import saccade.nn"),
        (
            "reference/kan.py",
            "from saccade import ops",
            "saccade.reference is not allowed to import saccade.ops",
        ),
        (
            "nn/kan.py",
            "from saccade.models import create_model",
            "saccade.nn is not allowed to import saccade.models",
        ),
        (
            "data/digits.py",
            "import saccade.cli",
            "saccade.data is not allowed to import saccade.cli",
        ),
    ],
    ids=["as it is", "ops to nn", "reference to ops", "nn to models", "data to cli"],
)
def test_an_import_that_goes_up_breaks_the_contract(
    tmp_path: Path, module: str | None, line: str, broken: str
) -> None:
    package = tmp_path / "saccade"
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    for source, place in (
        ("python/saccade", ""),
        ("triton_kernels", "triton_kernels"),
        ("bench", "bench"),
    ):
        shutil.copytree(ROOT / source, package / place, ignore=ignore, dirs_exist_ok=True)
    if module:
        with (package / module).open("a") as file:
            file.write(f"\n{line}\n")
    site_packages = Path(importlib.util.find_spec("importlinter").origin).parents[1]  # type: ignore[union-attr,arg-type]
    done = run(
        sys.executable,
        "-I",
        "-S",
        "-c",
        LINT,
        tmp_path,
        site_packages,
        ROOT / "pyproject.toml",
        cwd=tmp_path,
    )
    assert done.returncode == (1 if module else 0), done.stdout + done.stderr
    assert broken in done.stdout
    assert "Contracts: 1 kept, 0 broken." in done.stdout or module
