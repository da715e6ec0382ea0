"""Tables of operators and systems, derived from the tree and from the package itself."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

from _docs import results
from _docs.docstrings import parse, table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
ASSETS = ROOT / "docs" / "assets"


@cache
def kept_results() -> tuple[results.Result, ...]:
    """The newest benchmark results that are kept."""
    return tuple(results.load(RESULTS))


def words() -> list[str]:
    """The operators: every word that has a reference."""
    return sorted(
        path.stem
        for path in (ROOT / "python/saccade/reference").glob("*.py")
        if not path.stem.startswith("_")
    )


def exports(package: str, word: str) -> list[str]:
    """Public names of a package that the word's module, or a private one of its, defines."""
    module: ModuleType = importlib.import_module(package)
    own = re.compile(rf"{re.escape(package)}\.(_?{word}|_{word}_\w+)")
    return [
        name
        for name in module.__all__
        if own.fullmatch(getattr(getattr(module, name), "__module__", ""))
    ]


def torch_ops(word: str) -> list[str]:
    """Operators in torch's dispatcher that the word's binding files implement."""
    found: set[str] = set()
    for path in (ROOT / "csrc" / word).glob("bind*"):
        found |= set(re.findall(r'm\.impl\("(\w+)"', path.read_text()))
    return sorted(found)


def rungs(word: str) -> dict[str, list[str]]:
    """The source files of each rung that the operator has."""
    patterns = {
        "reference": [f"python/saccade/reference/{word}.py"],
        "cpu": [f"csrc/{word}/cpu_*", f"csrc/{word}/bind*cpu*"],
        "triton": [f"triton_kernels/{word}.py", f"triton_kernels/_{word}/*.py"],
        "cuda": [f"csrc/{word}/cuda_*", f"csrc/{word}/bind*cuda*"],
    }
    found = {
        rung: sorted(str(path.relative_to(ROOT)) for glob in globs for path in ROOT.glob(glob))
        for rung, globs in patterns.items()
    }
    return {rung: files for rung, files in found.items() if files}


def instruction_sets(word: str) -> list[str]:
    """The instruction sets that have a file of their own."""
    names = {"baseline": "baseline", "avx2": "AVX2", "avx512": "AVX-512"}
    folder = ROOT / "csrc" / word
    return [text for isa, text in names.items() if any(folder.glob(f"cpu_*{isa}.cpp"))]


def architectures() -> list[str]:
    """The CUDA architectures that are built where TORCH_CUDA_ARCH_LIST says nothing."""
    text = (ROOT / "cmake/cuda.cmake").read_text()
    listed = re.search(r'set\(arch_list "([\d.;+A-Z]+)"\)', text)
    if not listed:
        raise ValueError("cmake/cuda.cmake sets no default arch_list")
    return [f"sm_{re.sub('[^0-9]', '', arch)}" for arch in listed[1].split(";")]


def gpu_runs(word: str, rung: str) -> list[results.Result]:
    """The kept results of a rung that were measured on a GPU."""
    return [
        result
        for result in kept_results()
        if result["operator"] == word
        and results.on_gpu(result)
        and result["environment"]["rung"].endswith(f": {rung}")
    ]


def _gpu_cell(word: str, rung: str, built: str) -> str:
    runs = gpu_runs(word, rung)
    measured = ", ".join(sorted({results.device(run) for run in runs}))
    return f"{built}; {f'measured on {measured}' if runs else 'no GPU result kept'}"


def operators(prefix: str = "docs/") -> str:
    """One line an operator: what it computes, its names, and its rungs."""
    rows = []
    for word in words():
        has = rungs(word)
        rows.append(
            (
                *_called(word, prefix),
                ", ".join(f"`{name}`" for name in exports("saccade.nn", word)) or "-",
                "yes" if "reference" in has else "-",
                ", ".join(instruction_sets(word)) or "-",
                _gpu_cell(word, "triton", "yes") if "triton" in has else "-",
                _gpu_cell(word, "cuda", ", ".join(architectures())) if "cuda" in has else "-",
                ", ".join(f"`{op}`" for op in torch_ops(word)) or "-",
            )
        )
    header = (
        "operator", "what", "`saccade.ops`", "`saccade.nn`", "reference", "CPU", "Triton", "CUDA",
        "torch ops",
    )  # fmt: skip
    return table(header, rows)


def operators_brief(prefix: str = "docs/") -> str:
    """One line an operator: what it computes, its functions, and where it has kernels."""
    names = {"cpu": "CPU", "triton": "Triton", "cuda": "CUDA"}
    rows = [
        (*_called(word, prefix), ", ".join(names[rung] for rung in rungs(word) if rung in names))
        for word in words()
    ]
    return table(("operator", "what", "`saccade.ops`", "kernels"), rows)


def _called(word: str, prefix: str) -> tuple[str, str, str]:
    """The word with its page, what it computes, and its functions."""
    page = ROOT / f"docs/ops/{word}.md"
    front = importlib.import_module(f"saccade.ops.{word}")
    return (
        f"[`{word}`]({prefix}ops/{word}.md)" if page.is_file() else f"`{word}`",
        (parse(front).summary or "").partition(": ")[0].removesuffix("."),
        ", ".join(f"`{name}`" for name in exports("saccade.ops", word)),
    )


def systems(prefix: str = "docs/") -> str:
    """One line a paper, with what its reproduction found."""
    from saccade.systems import get_system, list_systems

    rows = []
    for name in list_systems():
        system = get_system(name)
        page = ROOT / f"docs/systems/{name}.md"
        rows.append(
            (
                f"[`{name}`]({prefix}systems/{name}.md)" if page.is_file() else f"`{name}`",
                f"{system.title} ([{system.paper}]({system.link}))",
                str(system.year),
                ", ".join(f"`{word}`" for word in system.operators),
                system.claim,
                verdict(name),
            )
        )
    return table(("system", "paper", "year", "operators", "claim", "reproduced here"), rows)


def reproduction(name: str) -> dict[str, Any] | None:
    """The kept result.json of a system."""
    path = ASSETS / name / "result.json"
    return json.loads(path.read_text()) if path.is_file() else None


def verdict(name: str) -> str:
    """A system's outcome in a few words."""
    result = reproduction(name)
    if result is None:
        return "no result kept"
    outcome = "holds" if result["holds"] else "does not hold"
    return (
        f"{outcome} on {result['data']} at scale {result['scale']}, {len(result['seeds'])} seeds: "
        f"{result['effect']:+.2f} {result['metric']}"
    )


def outcome(name: str) -> str:
    """A system's result in full, every comparison and the environment, and what its declaration
    found out about the small scale.
    """
    from saccade.systems import get_system

    findings = get_system(name).findings
    more = ["", findings] if findings else []
    result = reproduction(name)
    if result is None:
        absent = (
            f"No result is kept in docs/assets/{name} yet. `saccade reproduce {name}` makes one; "
            "copy its result.json and figure.png there and run `make docs`."
        )
        return "\n".join([absent, *more])
    facts = result["environment"]
    lines = [f"{verdict(name).capitalize()}.", ""]
    if (ASSETS / name / "figure.png").is_file():
        lines += [f"![Every arm and seed](../assets/{name}/figure.png)", ""]
    rows = [_comparison(entry) for entry in (result, *result["also"])]
    header = ("metric", "proposed", "baseline", "effect", "expected", "holds")
    lines += [
        table(header, rows, right=(3, 4)),
        "",
        "The first row decides. Effects are differences of means over the seeds, positive where "
        "the proposed arm is better.",
        "",
        f"saccade {facts['saccade']}, {facts['processor']}, {facts['threads']} threads, "
        f"{', '.join(facts['devices']) or 'no GPU'}; {result['wall_seconds']:.0f} s "
        f"with `--jobs {facts['jobs']}`.",
        *more,
    ]
    return "\n".join(lines)


def _comparison(entry: dict[str, Any]) -> tuple[str, ...]:
    sign = "±" if entry["direction"] == "equal" else "≥ "
    arms = (
        f"{entry[arm]['name']}: {fmean(entry[arm]['values']):.2f}"
        for arm in ("proposed", "baseline")
    )
    return (
        entry["metric"],
        *arms,
        f"{entry['effect']:+.2f}",
        f"{sign}{entry['expected']:g}",
        "yes" if entry["holds"] else "**no**",
    )


def paper_figures(name: str) -> str:
    """The paper's own figures, as its system declares them."""
    from saccade.systems import get_system

    figures = get_system(name).figures
    return table(("in the paper", "value"), [(key, str(value)) for key, value in figures.items()])


def line_map(entries: list[tuple[str, str]]) -> str:
    """Part of a paper to object and line; an entry is a text and a dotted name in saccade."""
    rows = []
    for text, dotted in entries:
        module_name, _, path = dotted.partition(":")
        module = importlib.import_module(module_name)
        thing: Any = module
        for part in path.split("."):
            thing = getattr(thing, part)
        # a decorator's wrapper stands in the decorator's file
        thing = inspect.unwrap(thing)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            line = inspect.getsourcelines(thing)[1]
        else:
            thing, line = module, _assigned(module, path)
        file = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(ROOT)
        rows.append((text, f"`{path}`", f"`{file}:{line}`"))
    return table(("in the paper", "object", "line"), rows)


def _assigned(module: ModuleType, name: str) -> int:
    """The line that gives a constant of a module its value."""
    for number, line in enumerate(inspect.getsource(module).splitlines(), 1):
        if re.match(rf"{name}\b.*=", line):
            return number
    raise ValueError(f"{module.__name__} assigns no {name}.")
