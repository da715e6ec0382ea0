"""A wheel, built as `make wheel` builds it, in an empty environment beside torch."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import torch

from .process import ROOT, run

# Object files stay here between runs, so that only what changed is compiled.
BUILD = ROOT / "build/wheel-test"

CALL = """
import json, torch, saccade
torch.manual_seed(0)
results = {}
for dims, kernel, dilation in [((9,), 3, 2), ((9, 8), 3, 1), ((6, 7, 8), 3, 2)]:
    grads = {}
    for backend in ("cpu", "reference"):
        generator = torch.Generator().manual_seed(1)
        inputs = [
            torch.randn(2, *dims, 2, 8, generator=generator, dtype=torch.float64).requires_grad_()
            for _ in range(3)
        ]
        out, lse = saccade.ops.neighborhood_attention(
            *inputs, kernel_size=kernel, dilation=dilation, backend=backend, return_lse=True
        )
        weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        ((out * weights).sum() + lse.sin().sum()).backward()
        grads[backend] = [out.detach(), lse.detach(), *(x.grad for x in inputs)]
    pairs = zip(grads["cpu"], grads["reference"])
    results[len(dims)] = max(float((a - b).abs().max()) for a, b in pairs)
layer = saccade.nn.NeighborhoodAttention2d(16, kernel_size=3, num_heads=2)
shape = list(layer(torch.randn(1, 8, 8, 16)).shape)
facts = {"file": saccade.__file__, "errors": results, "layer": shape, "info": saccade.info()}
print(json.dumps(facts))
"""

OPTIONAL = (
    "lightning", "pytorch_lightning", "torchmetrics", "torchvision", "matplotlib", "rich", "typer",
    "sklearn", "safetensors", "yaml", "timm", "medmnist", "triton", "scipy", "PIL",
)  # fmt: skip


TRAIN = """
from saccade.cli import main
print(main(["train", "--data", "digits", "--out", "out"]))
"""


def _without(modules: tuple[str, ...], code: str) -> str:
    return f"import sys\nfor name in {modules!r}:\n    sys.modules[name] = None\n{code}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(
            sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out,
            f"-Cbuild-dir={BUILD}", ROOT, SACCADE_CUDA="0",
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(files: dict[str, bytes]) -> Message:
    (name,) = (name for name in files if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(files[name])


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and torch through a .pth; gives its Python.

    The .pth names the folder that holds torch. A .pth inside that folder is not read, so an
    editable installation of saccade there stays out.
    """
    folder = tmp_path_factory.mktemp("environment")
    python = folder / "bin/python"
    made = run(sys.executable, "-m", "venv", "--without-pip", folder)
    assert made.returncode == 0, made.stderr
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "torch.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    done = run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install",
        "--no-deps", "--no-index", "--quiet", wheel,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return python


def _start(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -I: neither PYTHONPATH nor the current folder gives another saccade
    return run(environment, "-I", *arguments, cwd=environment.parent)


@pytest.mark.parametrize(
    "pattern",
    [
        r"saccade/_C\.so",
        r"saccade/_host\.[\w-]+\.so",
        r"saccade/py\.typed",
        r"saccade/__main__\.py",
        r"saccade/ops/neighborhood_attention\.py",
        r"saccade/nn/neighborhood_attention\.py",
        r"saccade/reference/neighborhood_attention\.py",
        r"saccade/models/medvitv2\.py",
        r"saccade/cli/__init__\.py",
        r"saccade/triton_kernels/neighborhood_attention\.py",
        r"saccade/bench/neighborhood_attention\.py",
        r"saccade-[\d.]+\.dist-info/licenses/LICENSE",
        r"saccade-[\d.]+\.dist-info/RECORD",
    ],
)
def test_the_wheel_holds(files: dict[str, bytes], pattern: str) -> None:
    assert [name for name in files if re.fullmatch(pattern, name)] != []


def test_the_wheel_holds_nothing_else(files: dict[str, bytes]) -> None:
    folders = {name.split("/")[0] for name in files}
    assert {re.sub(r"-[\d.]+\.", ".", folder) for folder in folders} == {
        "saccade",
        "saccade.dist-info",
    }
    kinds = (".py", ".so", "py.typed")
    strangers = {name for name in files if name.startswith("saccade/") and not name.endswith(kinds)}
    assert strangers == set()
    assert [
        name for name in files if "__pycache__" in name or "/csrc/" in name or "/tests/" in name
    ] == []


def test_every_python_file_of_the_package_is_in_the_wheel(files: dict[str, bytes]) -> None:
    roots = {
        "python/saccade": "saccade",
        "triton_kernels": "saccade/triton_kernels",
        "bench": "saccade/bench",
    }
    wanted = {
        f"{place}/{path.relative_to(ROOT / root).as_posix()}"
        for root, place in roots.items()
        for path in (ROOT / root).rglob("*.py")
        if not path.is_relative_to(ROOT / "bench/results")
    }
    assert wanted - set(files) == set()


def test_the_libraries_hold_no_path_of_this_machine(files: dict[str, bytes]) -> None:
    site_packages = Path(torch.__file__).parents[1]
    paths = {str(path) for path in (ROOT, BUILD, site_packages, Path.home()) if len(path.parts) > 1}
    libraries = {name: content for name, content in files.items() if name.endswith(".so")}
    assert len(libraries) == 2
    assert [
        (name, path)
        for name, content in libraries.items()
        for path in paths
        if path.encode() in content
    ] == []


def test_the_tag_is_of_this_python_and_platform(wheel: Path) -> None:
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"saccade-[\d.]+-{version}-{version}-linux_\w+\.whl", wheel.name)


def test_the_metadata_asks_for_torch_and_numpy_alone(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist") or []
    assert {line for line in required if "extra ==" not in line} == {"torch>=2.11", "numpy"}
    assert set(metadata.get_all("Provides-Extra") or []) >= {"train", "triton", "models", "bench"}
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_operator_and_its_gradients_are_right_there(environment: Path) -> None:
    done = _start(environment, "-c", CALL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    root = environment.parents[1].resolve()
    assert Path(facts["file"]).resolve().is_relative_to(root), "another saccade was imported"
    for name in ("_C", "_host"):
        library = facts["info"]["libraries"][name]
        assert library["loaded"], library["reason"]
        assert Path(library["path"]).resolve().is_relative_to(root)
    assert set(facts["errors"]) == {"1", "2", "3"}
    assert max(facts["errors"].values()) < 1e-12
    assert facts["layer"] == [1, 8, 8, 16]


def test_info_runs_there(environment: Path, metadata: Message) -> None:
    done = _start(environment, "-m", "saccade", "info")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"saccade   {metadata['Version']}\n")
    assert re.search(r"^_C +loaded$", done.stdout, re.M)
    script = environment.with_name("saccade")
    assert os.access(script, os.X_OK)
    assert str(environment) in script.read_text().splitlines()[0]


def test_the_core_needs_no_optional_package(environment: Path) -> None:
    code = CALL + "from saccade.cli import main\nassert main(['info']) == 0\n" + TRAIN
    done = _start(environment, "-c", _without(OPTIONAL, code))
    assert done.returncode == 0, done.stderr
    facts, *info, code = done.stdout.splitlines()
    assert max(json.loads(facts)["errors"].values()) < 1e-12
    assert info[0].startswith("saccade ")
    assert code == "2"
    assert 'pip install "saccade[train]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_training_names_the_extra_of_what_is_missing(environment: Path) -> None:
    done = _start(environment, "-c", _without(("lightning", "pytorch_lightning"), TRAIN))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2"]
    assert re.search(r'saccade train needs lightning.*pip install "saccade\[train\]"', done.stderr)
    assert not (environment.parent / "out").exists()
