from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

typer = pytest.importorskip("typer")
from typer.testing import CliRunner  # noqa: E402

from saccade.bench._machine import GUARD  # noqa: E402
from saccade.cli.bench import bench  # noqa: E402


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv(GUARD, "1")
    app = typer.Typer()
    app.command()(bench)
    return app


def test_small_run_writes_json(app: typer.Typer, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    line = f"neighborhood_attention --quick --cases small --peers sdpa --no-memory --json {path}"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    assert "small forward+backward" in result.output
    values = json.loads(path.read_text())
    assert {r["peer"] for r in values["results"]} == {"saccade", "sdpa"}
    assert all(r["status"] == "ok" for r in values["results"])


MISTAKES = [
    pytest.param("attention", "operator must be one of", id="operator"),
    pytest.param("neighborhood_attention --peers nattn", "peers must be among", id="peer"),
    pytest.param("neighborhood_attention --backend cuda", "cannot run with backend", id="backend"),
    pytest.param("neighborhood_attention --device tpu", "device must be cpu or cuda", id="device"),
]


@pytest.mark.parametrize(("line", "sentence"), MISTAKES)
def test_mistakes_end_with_a_sentence(app: typer.Typer, line: str, sentence: str) -> None:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2
    assert sentence in result.output


def test_without_typer_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "saccade.cli.bench")
    with pytest.raises(
        ImportError, match=r'saccade bench needs typer.*pip install "saccade\[bench\]"'
    ):
        importlib.import_module("saccade.cli.bench")


def test_a_check_without_targets_is_no_pass(app: typer.Typer) -> None:
    line = "neighborhood_attention --quick --cases small --peers none --no-memory --check"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2
    assert "nothing to check" in result.output
