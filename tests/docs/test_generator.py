"""What tools/docs.py makes of docstrings, formulas and results."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest


def row(case: str, phase: str, peer: str, median: float | None, **changes: Any) -> dict[str, Any]:
    times = dict.fromkeys(("median_ms", "p20_ms", "p80_ms"), median)
    ratio = None if median is None else median / 2
    return {
        "case": case, "pass": phase, "peer": peer, "version": f"{peer} 1", "status": "ok",
        "note": "", "ratio": ratio, "floor_ms": 0.5, "fraction": median and 0.5 / median,
        **times, **changes,
    }  # fmt: skip


def result(**environment: Any) -> dict[str, Any]:
    facts = {
        "date": "2026-01-02T00:00:00+00:00", "cpu": "Some <CPU>", "device": "cpu", "isa": "avx2",
        "threads": 2, "torch": "2.14.1", "saccade": "0.1.0", "rung": "word runs on: cpu",
        **environment,
    }  # fmt: skip
    work = {"flops": 1e9, "bytes": 1e6, "floor_ms": 0.5}
    return {
        "operator": "word", "ours": "saccade", "dtype": "float32", "environment": facts,
        "floor": {"copy_gb_per_s": 10.0, "gemm_gflop_per_s": 100.0, "samples": 3},
        "cases": [{"name": "S1", "shapes": {"query": [4, 56]}, "arguments": {"kernel_size": 7},
                   "work": {"forward": work, "forward+backward": work}}],
        "results": [
            row("S1", "forward", "saccade", 2.0),
            row("S1", "forward", "sdpa", 90.0),
            row("S1", "forward", "absent", None, status="unsupported", note="not installed"),
            row("S1", "forward+backward", "saccade", 2.0),
            row("S1", "forward+backward", "sdpa", None, status="failed", note="broke"),
        ],
        "memory": [], "targets": [], "notes": ["a busy machine"], "file": "day-machine.json",
    }  # fmt: skip


def test_the_newest_result_of_each_device_is_taken(tmp_path: Path) -> None:
    results = importlib.import_module("_docs.results")
    old = result(date="2025-01-01T00:00:00+00:00")
    gpu = result(device="Some GPU", rung="word runs on: cuda")
    for name, content in (("a", result()), ("b", old), ("c", gpu), ("d", {"system": "x"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert sorted(kept["file"] for kept in results.load(tmp_path)) == ["a.json", "c.json"]
    assert results.load(tmp_path / "absent") == []


def test_the_speed_table_has_a_line_a_problem_with_the_nearest_peer_first() -> None:
    results = importlib.import_module("_docs.results")
    timed = result()
    timed["results"].append(row("S1", "forward", "gather", 70.0))
    *_, line = results.brief([timed]).splitlines()
    problem = "S1: `[4, 56], kernel_size=7`"
    assert line == f"| `word` | {problem} | 2.00 | gather 35.0, sdpa 45.0 | 2.00 |  |"


def test_details_say_who_was_absent_and_what_bounds() -> None:
    results = importlib.import_module("_docs.results")
    text = results.details(result())
    assert "set by arithmetic" in text
    assert "| absent | absent 1 | unsupported | not installed |" in text
    assert "- note: a busy machine" in text
    assert results.bound(result(), "S1", "forward") == "arithmetic"


def test_the_chart_is_svg_with_a_bar_for_each_timed_peer() -> None:
    chart = importlib.import_module("_docs.chart").chart
    tree = ET.fromstring(chart(result()))
    bars = [e for e in tree.iter() if e.tag.endswith("rect") and e.get("width") != "100%"]
    assert len(bars) == 3
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert widths[1] > widths[0] == widths[2] > 0
    assert chart(result()) == chart(result())


def test_a_docstring_becomes_sections() -> None:
    docstrings = importlib.import_module("_docs.docstrings")

    def scale(x: float, factor: float = 2.0) -> float:
        """Multiply a number.

        .. math:: y = f x

        Args:
            x: first, any * number
                at all.
            factor: second, x < factor.

        Raises:
            ValueError: never.

        >>> scale(1.0)
        2.0
        """
        return factor * x

    doc = docstrings.parse(scale)
    assert doc.summary == "Multiply a number."
    assert doc.entries("Args")[0] == ("x", "first, any \\* number at all.")
    assert doc.entries("Raises") == [("ValueError", "never.")]
    assert "$$y = f x$$" in docstrings.markdown("\n".join(doc.text))
    assert doc.example == [">>> scale(1.0)", "2.0"]
    assert (
        docstrings.arguments(scale).splitlines()[3]
        == "| `factor` | `2.0` | second, x &lt; factor. |"
    )


FORMULAS = [
    (r"x_i^2", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"),
    (r"\sum_{j} a", "<munder><mo>∑</mo><mrow><mi>j</mi></mrow></munder>"),
    (r"\frac{a}{b}", "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>"),
    (r"\mathrm{LN}", "<mtext>LN</mtext>"),
    (r"a < b", "<mo>&lt;</mo>"),
]


@pytest.mark.parametrize(("latex", "expected"), FORMULAS, ids=[row[0] for row in FORMULAS])
def test_formulas_become_mathml(latex: str, expected: str) -> None:
    mathml = importlib.import_module("_docs.mathml").mathml
    assert expected in mathml(latex)
    ET.fromstring(mathml(latex).replace("&#8289;", ""))


@pytest.mark.parametrize("latex", [r"\unknown", "{a", "a_"])
def test_a_formula_that_cannot_be_set_is_an_error(latex: str) -> None:
    with pytest.raises(ValueError, match="formula"):
        importlib.import_module("_docs.mathml").mathml(latex)


ROOT = Path(__file__).parents[2]


def test_a_map_finds_functions_methods_and_constants() -> None:
    maps = importlib.import_module("_docs.tables").line_map
    module, file = "saccade.systems._arms", "python/saccade/systems/_arms.py"
    lines = (ROOT / file).read_text().splitlines()
    *_, function, method, constant = maps(
        [("f", f"{module}:run_folder"), ("m", f"{module}:TrainedArms.__call__"),
         ("c", f"{module}:ACCURACY")]
    ).splitlines()  # fmt: skip
    for row, start in (
        (function, "def run_folder("),
        (method, "    def __call__("),
        (constant, "ACCURACY = "),
    ):
        found = int(row.split(f"{file}:")[1].split("`")[0])
        assert lines[found - 1].startswith(start)


def test_an_outcome_ends_with_what_was_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = importlib.import_module("_docs.tables")
    systems = importlib.import_module("saccade.systems")
    name = systems.list_systems()[0]
    declared = dataclasses.replace(systems.get_system(name), findings="The scale is why.")
    monkeypatch.setattr(systems, "get_system", lambda name: declared)
    assert tables.outcome(name).endswith("\n\nThe scale is why.")


HOOKS = [
    ("wall", "#include <torch/csrc/stable/tensor.h>", '#include "common/isa.h"'),
    ("assert", "    assert x > 0", "    assertion = 1"),
]


@pytest.mark.parametrize(("hook", "bad", "good"), HOOKS, ids=[row[0] for row in HOOKS])
def test_the_greps_of_pre_commit_find_what_they_should(hook: str, bad: str, good: str) -> None:
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (found,) = [h for repo in config["repos"] for h in repo["hooks"] if h["id"] == hook]
    pattern = re.compile(found["entry"], re.MULTILINE)
    assert pattern.search(bad)
    assert not pattern.search(good)
    paths = [p for top in ("csrc", "python") for p in (ROOT / top).rglob("*") if p.is_file()]
    watched = [p for p in paths if re.search(found["files"], str(p.relative_to(ROOT)))]
    assert watched
    for path in watched:
        assert not pattern.search(path.read_text()), path
