"""Fill in what README.md and docs/ take from code and results.

    python tools/docs.py [--check]

A region stands between `<!-- NAME ARGUMENT:begin -->` and `<!-- NAME:end -->`; REGIONS says what
fills it. --check writes nothing and exits with 1 where a file is stale.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from _docs import api, results, tables
from _docs.chart import chart
from _docs.docstrings import table
from _docs.maps import MAPS

ROOT = tables.ROOT
NO_RESULT = (
    "No result is kept in bench/results yet. `make bench` measures on the CPU and `make gpu` on a "
    "GPU; copy the JSON there as DATE-DEVICE.json and run `make docs`."
)
NO_MODELS = (
    "No result is kept in bench/results yet. `saccade bench models --json FILE` makes one; copy it "
    "there as DATE-DEVICE-models.json and run `make docs`."
)
_REGION = re.compile(r"(<!-- (\w+)(?: ([^\n>]*?))?:begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)


def speed(_: str, page: Path) -> str:
    """All kept results of operators in one table, and the machines they are of."""
    kept = tables.kept_results()
    machines = sorted({results.machine(result) for result in kept})
    return f"{results.brief(kept)}\n\nOn {'; '.join(machines)}." if kept else NO_RESULT


def models(_: str, page: Path) -> str:
    """Forward and training step of the models, on every device."""
    parts = [results.models(result) for result in results.load_models(tables.RESULTS)]
    return "\n\n".join(parts) or NO_MODELS


def gains(_: str, page: Path) -> str:
    """What the operators gain in the models, on every device."""
    parts = []
    for result in results.load_models(tables.RESULTS):
        parts += [f"On {results.machine(result)}:", results.gains(result)]
    return "\n\n".join(parts) or NO_MODELS


def gpu(_: str, page: Path) -> str:
    """Whether anything was measured on a GPU."""
    runs = [result for result in tables.kept_results() if results.on_gpu(result)]
    if not runs:
        return "On a GPU: nothing. No result of a GPU is kept in bench/results."
    return "\n\n".join(
        f"On a GPU: `saccade bench {run['operator']}`, which checks results against the float64 "
        f"reference before it times them, on {results.where(run)}"
        for run in runs
    )


def benchmark(word: str, page: Path) -> str:
    """An operator's results in full, each with its picture."""
    parts = []
    for result in tables.kept_results():
        if result["operator"] == word:
            parts += [
                f"### {results.device(result)}, {result['dtype']}",
                f"![Medians of {word}](../assets/{_picture(result)})",
                results.details(result),
            ]
    return "\n\n".join(parts) or NO_RESULT


def rungs(word: str, page: Path) -> str:
    """The rungs of an operator and their files."""
    rows = [
        (f'`"{rung}"`', "<br>".join(f"`{file}`" for file in files))
        for rung, files in tables.rungs(word).items()
    ]
    return table(("backend", "source"), rows)


REGIONS: dict[str, Callable[[str, Path], str]] = {
    "operators": lambda _, page: tables.operators(_prefix(page)),
    "brief": lambda _, page: tables.operators_brief(_prefix(page)),
    "systems": lambda _, page: tables.systems(_prefix(page)),
    "speed": speed,
    "models": models,
    "gains": gains,
    "gpu": gpu,
    "benchmark": benchmark,
    "rungs": rungs,
    "function": lambda name, _: api.render(name),
    "api": lambda _, page: api.api(),
    "options": lambda _, page: api.train_options(),
    "outcome": lambda name, _: tables.outcome(name),
    "figures": lambda name, _: tables.paper_figures(name),
    "map": lambda name, _: tables.line_map(MAPS[name]),
}


def _prefix(page: Path) -> str:
    return "docs/" if page.parent == ROOT else ""


def _picture(result: results.Result) -> str:
    return f"{Path(result['file']).stem}.svg"


def pages() -> list[Path]:
    """Every page that may hold regions."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def fill(page: Path) -> str:
    """The text of a page with its regions filled in."""

    def region(found: re.Match[str]) -> str:
        begin, name, argument, end = found.groups()
        if name not in REGIONS:
            raise ValueError(f"{page} has a region {name}; there are {', '.join(REGIONS)}")
        return f"{begin}{REGIONS[name](argument or '', page)}\n{end}"

    return _REGION.sub(region, page.read_text())


def wanted() -> dict[Path, str]:
    """Every file that this script writes, with the text that it must have."""
    files = {page: fill(page) for page in pages()}
    for result in tables.kept_results():
        files[tables.ASSETS / _picture(result)] = chart(result)
    return files


def main() -> int:
    """Write what is stale, or name it."""
    parser = argparse.ArgumentParser(description="Fill in the generated parts of the docs.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    check = parser.parse_args().check
    stale = {
        path: text
        for path, text in wanted().items()
        if not path.is_file() or path.read_text() != text
    }
    for path, text in stale.items():
        print(f"{'stale' if check else 'wrote'} {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
