"""README and docs: their Python runs, their commands exist, their links lead somewhere, and what is
generated is current.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def written(page: Path) -> str:
    """The text of a page with its generated regions emptied; lines keep their numbers."""
    region = r"<!-- (\w+)[^\n>]*:begin -->.*?<!-- \1:end -->"
    return re.sub(region, lambda m: "\n" * m[0].count("\n"), page.read_text(), flags=re.S)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line and text of each block that was written by hand in a language."""
    text = written(page)
    return [
        (text.count("\n", 0, found.start()) + 1, found[2])
        for found in BLOCK.finditer(text)
        if found[1] == language
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=ids)
@pytest.mark.filterwarnings("ignore")
def test_python_blocks_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, text in blocks(page, "python"):
        exec(compile("\n" * line + text, str(page), "exec"), names)  # noqa: S102


def commands() -> list[tuple[Path, str]]:
    """Every line of a bash block, without comments."""
    found = []
    for page in PAGES:
        for _, text in blocks(page, "bash"):
            found += [(page, line.partition(" #")[0].strip()) for line in text.splitlines()]
    return [(page, line) for page, line in found if line]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    mentioned = [line.split()[1] for _, line in commands() if line.startswith("make ")]
    for page in PAGES:
        mentioned += re.findall(r"`make ([\w.-]+)[^`]*`", written(page))
    assert {"demo", "test", "docs", "gpu"} <= set(mentioned)
    for target in mentioned:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def test_saccade_commands_and_their_options_exist() -> None:
    typer = pytest.importorskip("typer")
    from saccade.cli._app import build

    known = typer.main.get_command(build()).commands
    lines = [line for _, line in commands() if line.startswith("saccade ")]
    assert {line.split()[1] for line in lines} >= {"train", "bench", "reproduce", "export", "list"}
    for line in lines:
        _, name, *words = line.split()
        options = {text for parameter in known[name].params for text in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word in options, line


def test_readme_names_the_two_commands() -> None:
    lines = [line for page, line in commands() if page.name == "README.md"]
    assert "make demo" in lines
    assert "make test" in lines


def test_generated_parts_are_current() -> None:
    """`make docs` refreshes them."""
    docs = importlib.import_module("docs")
    stale = [
        str(path.relative_to(ROOT))
        for path, text in docs.wanted().items()
        if not path.is_file() or path.read_text() != text
    ]
    assert not stale, "python tools/docs.py refreshes them"


def test_every_operator_and_system_has_its_row_and_page() -> None:
    from saccade.systems import list_systems

    tables = importlib.import_module("_docs.tables")
    readme = (ROOT / "README.md").read_text()
    assert set(tables.words()) >= {"kan", "neighborhood_attention"}
    for kind, names in (("ops", tables.words()), ("systems", list_systems())):
        for name in names:
            assert f"](docs/{kind}/{name}.md)" in readme
            assert (ROOT / f"docs/{kind}/{name}.md").is_file()


def test_rungs_are_those_that_have_sources() -> None:
    tables = importlib.import_module("_docs.tables")
    assert list(tables.rungs("kan")) == ["reference"]
    assert list(tables.rungs("neighborhood_attention")) == ["reference", "cpu", "triton", "cuda"]
    assert tables.torch_ops("neighborhood_attention") == ["na_backward", "na_forward"]
    assert tables.architectures() == ["sm_80", "sm_90"]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def sentences() -> str:
    """Every string of the sources, interpolations as "...", pieces that stand together joined."""
    found = []
    packages = (ROOT / "python/saccade", ROOT / "bench")
    for path in sorted(path for package in packages for path in package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "..." for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    cmake = (ROOT / "cmake/cuda.cmake").read_text()
    found.append(re.sub(r'"\s*\n\s*"', "", cmake))
    return "\n".join(found)


def test_troubleshooting_quotes_our_sentences() -> None:
    quoted = re.findall(r"^### `(.+)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.M)
    sources = sentences()
    assert len(quoted) >= 15
    for sentence in quoted:
        for piece in sentence.split("..."):
            assert piece.strip(" ,.:") in sources, sentence


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        # the browser fetches nothing from other hosts
        assert not re.search(r'(?:src=|<link[^>]*href=)"?https?:', page.read_text()), page
    assert "<math" in (tmp_path / "ops/neighborhood_attention/index.html").read_text()
