"""How a paper is reproduced: arms over seeds, comparisons computed from the figures, and the files
that report them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from saccade.systems._jobs import run_all

SCALES = ("small", "paper")

# Of one seed: arm -> metric -> value. Of a run: arm -> metric -> values, one a seed.
Measured = dict[str, dict[str, float]]
Collected = dict[str, dict[str, list[float]]]


class Run(Protocol):
    """Runs arms of a system for one seed, by default all."""

    def __call__(
        self,
        scale: str,
        data: str,
        seed: int,
        out: Path,
        *,
        arms: Collection[str] = ...,
        data_dir: str | None = None,
        started: Callable[[str], None] = ...,
    ) -> Measured:
        """Call `started(arm)` before each of the arms, and give what each measured."""


@dataclass(frozen=True)
class Comparison:
    """Two arms and a metric: effect = mean(proposed) - mean(baseline), its sign turned so that
    positive is better.

    Args:
        metric: name of a measured figure.
        proposed, baseline: names of arms.
        expected: the comparison holds if the effect is at least this ("equal": if |effect| is at
            most this).
        direction: "higher", "lower" (smaller figures are better) or "equal".
        note: what the comparison shows, for the report.
    """

    metric: str
    proposed: str
    baseline: str
    expected: float
    direction: str = "higher"
    note: str = ""

    def judge(self, collected: Collected) -> dict[str, Any]:
        """The comparison's entry of result.json."""
        proposed, baseline = (
            collected[self.proposed][self.metric],
            collected[self.baseline][self.metric],
        )
        return _verdict(
            self.metric,
            self.direction,
            (self.baseline, baseline),
            (self.proposed, proposed),
            self.expected,
            self.note,
        )


@dataclass(frozen=True)
class Floor:
    """The least mean that an arm must reach for the claim to hold at all, by data spec.

    Args:
        metric, arm: the figure.
        at_least: data spec to threshold; other data have no floor.
    """

    metric: str
    arm: str
    at_least: Mapping[str, float]

    def judge(self, collected: Collected, data: str) -> dict[str, Any] | None:
        """The floor's entry of result.json, or None where the data have no threshold."""
        if data not in self.at_least:
            return None
        values = collected[self.arm][self.metric]
        threshold = ("calibrated threshold", [self.at_least[data]])
        return _verdict(
            self.metric,
            "higher",
            threshold,
            (self.arm, values),
            0.0,
            "needed for the claim to hold",
        )


@dataclass(frozen=True)
class System:
    """A paper: what it claims, and how it is reproduced.

    Args:
        name, title, paper, year, link: the paper; `paper` is its short citation.
        operators: words of saccade.ops that it stands on.
        claim: one sentence.
        data: data specs in order of preference; the first that is there is the default.
        run: measures all arms for one seed.
        arms: names of the arms, in the order in which they run.
        parts: groups of arms that `run` measures as well apart, so that they may run beside each
            other; default all arms together.
        complete: adds the figures that need those of all arms of a seed.
        main: the comparison that decides.
        also: further comparisons, reported and not decisive.
        floor: what else must be reached.
        findings: what decides whether the claim holds at the small scale, code or scale, and how
            that was found out; for the report.
        figures: the paper's own figures, for the report.
        paper_scale: whether `--scale paper` is prepared.
    """

    name: str
    title: str
    paper: str
    year: int
    link: str
    operators: tuple[str, ...]
    claim: str
    data: tuple[str, ...]
    run: Run
    arms: tuple[str, ...]
    main: Comparison
    parts: tuple[tuple[str, ...], ...] = ()
    complete: Callable[[Measured], Measured] | None = None
    also: tuple[Comparison, ...] = ()
    floor: Floor | None = None
    findings: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    paper_scale: bool = True


@dataclass(frozen=True)
class Reproduction:
    """The content of result.json, and where it was written."""

    result: dict[str, Any]
    folder: Path

    def summary(self) -> str:
        """The outcome in a few lines."""
        r = self.result
        lines = [
            f"{r['system']} on {r['data']}, {len(r['seeds'])} seeds: "
            f"{'holds' if r['holds'] else 'DOES NOT HOLD'}",
            *(_line(entry) for entry in (r, *r["also"])),
            f"result        {self.folder / 'result.json'}",
            f"picture       {self.folder / 'figure.png'}",
            f"report        {self.folder / 'report.md'}",
        ]
        return "\n".join(lines)


def reproduce(
    system: System,
    *,
    scale: str = "small",
    data: str | None = None,
    data_dir: str | None = None,
    seeds: int = 3,
    out: str | Path = "runs",
    jobs: int = 1,
    quiet: bool = False,
) -> Reproduction:
    """Run every arm of a system over seeds 0 to seeds - 1, judge the claim and write OUT/NAME.

    Args:
        system: the paper.
        scale: "small" (minutes on a CPU) or "paper".
        data: data spec; default the first of the system's own that is there.
        data_dir: directory of the data; default the environment variable SACCADE_DATA.
        seeds: number of seeds, at least 1.
        out: directory under which the folder NAME is made.
        jobs: processes among which seeds and arms are divided, with torch's threads, at least 1;
            with several, a script needs the guard `if __name__ == "__main__"`.
        quiet: print no progress.

    Returns:
        Reproduction: the content of result.json. `holds` is computed from the figures alone.

    Raises:
        ValueError: an unknown scale, no seed, no job, or data that do not fit the system.
        FileNotFoundError: the data set is absent.
        RuntimeError: a process ended without an answer.

    Notes:
        The number of jobs changes no figure as long as a process has as many threads; sums over
        another number of threads round differently.
    """
    if scale not in SCALES or (scale == "paper" and not system.paper_scale):
        choices = SCALES if system.paper_scale else SCALES[:1]
        raise ValueError(f"scale of {system.name} must be {' or '.join(choices)}; got {scale!r}")
    for name, count in (("seeds", seeds), ("jobs", jobs)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1; got {count}")
    chosen = data or first_available(system.data, data_dir)
    folder = Path(out).expanduser() / system.name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    # in one process arms share what they need: a teacher, a super-net
    parts = (system.parts if jobs > 1 else ()) or (system.arms,)
    calls = [
        partial(system.run, scale, chosen, seed, folder, arms=part, data_dir=data_dir)
        for seed in range(seeds)
        for part in parts
    ]
    with _progress(len(system.arms) * seeds, quiet) as announce:
        measured = run_all(calls, jobs, lambda index, arm: announce(index // len(parts), arm))
    collected = _collect(system, measured, len(parts))
    wall = time.perf_counter() - started
    outcome = Reproduction(judge(system, scale, chosen, seeds, collected, wall, jobs), folder)
    (folder / "result.json").write_text(json.dumps(outcome.result, indent=2) + "\n")
    from saccade.systems import _figure

    _figure.figure(folder / "figure.png", system, collected, chosen)
    _figure.report(folder / "report.md", system, outcome.result, collected)
    return outcome


def judge(
    system: System,
    scale: str,
    data: str,
    seeds: int,
    collected: Collected,
    wall: float,
    jobs: int = 1,
) -> dict[str, Any]:
    """The content of result.json, from the measured figures."""
    from saccade.learn._environment import environment

    main = system.main.judge(collected)
    floor = system.floor.judge(collected, data) if system.floor and scale == "small" else None
    also = [comparison.judge(collected) for comparison in system.also]
    return {
        "system": system.name,
        "scale": scale,
        "data": data,
        "seeds": list(range(seeds)),
        "claim": system.claim,
        **main,
        "holds": main["holds"] and (floor is None or floor["holds"]),
        "also": [*([floor] if floor else []), *also],
        "paper": {
            "title": system.title,
            "reference": system.paper,
            "year": system.year,
            "link": system.link,
            "figures": dict(system.figures),
        },
        "wall_seconds": round(wall, 1),
        "environment": {**environment(), "jobs": jobs},
    }


def _collect(system: System, measured: list[Measured], parts: int) -> Collected:
    """The figures of every seed, whose parts lie behind each other."""
    collected: Collected = {arm: {} for arm in system.arms}
    for first in range(0, len(measured), parts):
        figures: Measured = {}
        for part in measured[first : first + parts]:
            figures |= part
        if system.complete:
            figures = system.complete(figures)
        for arm in system.arms:
            for metric, value in figures[arm].items():
                collected[arm].setdefault(metric, []).append(value)
    return collected


def first_available(specs: tuple[str, ...], data_dir: str | None) -> str:
    """The first data spec whose files are there.

    Raises:
        FileNotFoundError: none is there; the sentence is the last one's.
    """
    from saccade.data import load_data

    for spec in specs[:-1]:
        try:
            load_data(spec, data_dir, train_size=1, test_size=1)
        except FileNotFoundError:
            continue
        return spec
    load_data(specs[-1], data_dir)
    return specs[-1]


def _verdict(
    metric: str,
    direction: str,
    baseline: tuple[str, list[float]],
    proposed: tuple[str, list[float]],
    expected: float,
    note: str,
) -> dict[str, Any]:
    effect = fmean(proposed[1]) - fmean(baseline[1])
    effect = -effect if direction == "lower" else effect
    entry: dict[str, Any] = {
        "metric": metric,
        "direction": direction,
        "baseline": {"name": baseline[0], "values": baseline[1]},
        "proposed": {"name": proposed[0], "values": proposed[1]},
        "effect": effect,
        "expected": expected,
        "holds": abs(effect) <= expected if direction == "equal" else effect >= expected,
    }
    return {**entry, "note": note} if note else entry


def _line(entry: Mapping[str, Any]) -> str:
    relation = "within" if entry["direction"] == "equal" else "at least"
    proposed, baseline = entry["proposed"], entry["baseline"]
    return (
        f"  {entry['metric']}: {proposed['name']} {fmean(proposed['values']):.2f} against "
        f"{baseline['name']} {fmean(baseline['values']):.2f}, "
        f"effect {entry['effect']:+.2f} (expected {relation} {entry['expected']:g}): "
        f"{'yes' if entry['holds'] else 'no'}"
    )


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A bar where the output is a terminal, else a line an arm; nothing when quiet."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(highlight=False)
    done = 0
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("starting", total=total)

        def announce(seed: int, arm: str) -> None:
            nonlocal done
            bar.update(task, completed=done, description=f"seed {seed}: {arm}")
            done += 1
            if not quiet and not console.is_terminal:
                console.print(f"{done:>3}/{total}  seed {seed}: {arm}")

        yield announce
