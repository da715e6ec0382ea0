"""Runs the models' benchmark: agreement, interleaved timing, peak memory, and the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from saccade.bench._gate import judge
from saccade.bench._harness import Budget, Timing, clock_for, interleave
from saccade.bench._machine import environment
from saccade.bench._memory import MemoryUnavailableError, ask_child, read_peak, reset_peak
from saccade.bench._suite import FORWARD, PASSES, TRAINING, UnsupportedError
from saccade.bench.models import OURS, Contestant, ModelCase, build, cases, draw

SCHEMA = 1
SUITE = "models"
BUDGET = Budget(rounds=9, seconds=2.0, calls=3)
QUICK = Budget(rounds=3, seconds=0.5, calls=1)
HEADER = ("model", "input", "pass", "saccade, ms", "peer", "peer, ms", "times ours", "peak, MB")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to run; `models` None stands for one of every family."""

    models: tuple[str, ...] | None = None
    device: str = "cpu"
    threads: int = 2
    quick: bool = False
    memory: bool = True

    def check(self) -> None:
        """Raise ValueError for a model, device or number of threads that cannot be."""
        cases(self.models)
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, got {self.device!r}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device is cuda, but torch {torch.__version__} finds no CUDA device.")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}.")


@dataclass
class Row:
    """A contestant in one pass of one model.

    `ratio` is how many times longer than ours it takes; `error` is against ours, relative to the
    largest output or gradient; `peak_bytes` is what a training step allocates beside the weights.
    """

    model: str
    phase: str
    peer: str
    version: str
    status: str = "ok"
    note: str = ""
    error: float | None = None
    tolerance: float | None = None
    timing: Timing | None = None
    ratio: float | None = None
    peak_bytes: int | None = None


@dataclass
class ModelsReport:
    """Everything that a run found."""

    environment: dict[str, Any]
    cases: tuple[ModelCase, ...]
    rows: list[Row]
    parameters: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def pairs(self) -> list[tuple[ModelCase, Row, Row | None]]:
        """Of every model and pass: the case, our row, and the peer's where there is one."""
        found = []
        for case in self.cases:
            for phase in PASSES:
                rows = {
                    row.peer: row
                    for row in self.rows
                    if (row.model, row.phase) == (case.model, phase)
                }
                if OURS in rows:
                    found.append((case, rows.pop(OURS), next(iter(rows.values()), None)))
        return found


def _silent(line: str) -> None:
    pass


def run_models(options: Options, say: Say = _silent) -> ModelsReport:
    """Run the benchmark of the models; `say` is told what is going on.

    Raises:
        ValueError: a model, device or number of threads that cannot be.
    """
    options.check()
    device = torch.device(options.device)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    chosen = cases(options.models)
    try:
        report = ModelsReport(environment(device, options.threads), chosen, [], {})
        for case in chosen:
            report.rows += _time(case, device, options.quick, report, say)
        report.cases = tuple(case for case in chosen if case.model in report.parameters)
    finally:
        torch.set_num_threads(before)
    if options.memory:
        _add_memory(report, options, say)
    load = report.environment["load"]
    if load and load[0] > report.environment["cores"] / 2:
        report.notes.append(
            f"the load average was {load[0]:.1f} on {report.environment['cores']} cores: "
            "these are the figures of a busy machine"
        )
    return report


def _time(
    case: ModelCase, device: torch.device, quick: bool, report: ModelsReport, say: Say
) -> list[Row]:
    """Check and time both passes of one model."""
    say(f"{case.model}: checking")
    try:
        ours, *peers = build(case, device)
    except UnsupportedError as error:
        report.notes.append(f"{case.model}: {error}")
        ours, *peers = build(replace(case, peer=""), device)
    except ImportError as error:
        # a model that is itself made of an optional package
        report.notes.append(f"{case.model} was left out: {error}")
        return []
    report.parameters[case.model] = sum(p.numel() for p in ours.model.parameters())
    images, targets = draw(case, device)
    rows = []
    for phase in PASSES:

        def results(contestant: Contestant, phase: str = phase) -> dict[str, torch.Tensor]:
            if phase == FORWARD:
                return {"the output": contestant.forward(images)}
            found = contestant.gradients(images, targets)
            # one vector: a gradient that is 0 but for rounding has no scale of its own
            return {"the gradient": torch.cat([found[name].flatten() for name in sorted(found)])}

        truth = results(ours)
        calls, of_phase = {}, []
        for contestant in (ours, *peers):
            row = Row(case.model, phase, contestant.name, contestant.version)
            of_phase.append(row)
            if contestant is not ours:
                verdict = judge(results(contestant), truth, case.tolerance)
                row.error, row.tolerance = verdict.error, verdict.tolerance
                if not verdict.passed:
                    row.status, row.note = "refused", verdict.text
                    continue
            calls[contestant.name] = (
                (lambda c=contestant: c.forward(images))
                if phase == FORWARD
                else (lambda c=contestant: c.step(images, targets))
            )
        say(f"{case.model} {phase}: timing {', '.join(calls)}")
        timings = interleave(calls, clock_for(device), QUICK if quick else BUDGET)
        for row in of_phase:
            row.timing = timings.get(row.peer)
            if row.timing:
                row.ratio = row.timing.median_ms / timings[OURS].median_ms
        rows += of_phase
    return rows


def _add_memory(report: ModelsReport, options: Options, say: Say) -> None:
    """Measure the peak of a training step, all models of a contestant in one process."""
    models: dict[str, list[str]] = {}
    for row in report.rows:
        if row.phase == TRAINING and row.timing is not None:
            models.setdefault(row.peer, []).append(row.model)
    for peer, names in models.items():
        say(f"peak memory of a training step, {peer}")
        request = {
            "peer": peer, "models": names, "device": options.device, "threads": options.threads
        }  # fmt: skip
        try:
            peaks = ask_child("saccade.bench._models", request, options.device, 300.0)
        except MemoryUnavailableError as error:
            report.notes.append(f"memory of {peer}: {error}")
            continue
        for row in report.rows:
            if row.phase == TRAINING and row.peer == peer:
                row.peak_bytes = peaks.get(row.model)


def measure_here(peer: str, models: list[str], device: str, threads: int) -> dict[str, int]:
    """Bytes that a training step of every model allocates at its peak beside the weights; a step
    before it loads code and thread pools.
    """
    torch.set_num_threads(threads)
    where = torch.device(device)
    peaks = {}
    for case in cases(tuple(models)):
        (contestant,) = (c for c in build(case, where) if c.name == peer)
        images, targets = draw(case, where)
        contestant.step(images, targets)
        before = reset_peak(where)
        contestant.step(images, targets)
        peaks[case.model] = read_peak(where) - before
    return peaks


def to_dict(report: ModelsReport) -> dict[str, Any]:
    """The report as plain values, ready for JSON."""
    results = []
    for row in report.rows:
        values = asdict(row)
        timing = values.pop("timing") or dict.fromkeys(("median_ms", "p20_ms", "p80_ms", "samples"))
        results.append({"pass": values.pop("phase"), **values, **timing})
    listed = [
        {
            "model": case.model,
            "family": case.family,
            "input": list(case.shape),
            "parameters": report.parameters[case.model],
            "operators": list(case.operators),
            "peer": case.peer,
            "note": case.note,
        }
        for case in report.cases
    ]
    return {
        "schema": SCHEMA,
        "suite": SUITE,
        "ours": OURS,
        "dtype": "float32",
        "environment": report.environment,
        "cases": listed,
        "results": results,
        "notes": report.notes,
    }


def save_json(report: ModelsReport, path: Path) -> None:
    """Write everything to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_dict(report), indent=1) + "\n")


def _cells(case: ModelCase, ours: Row, peer: Row | None) -> tuple[str, ...]:
    def milliseconds(row: Row | None) -> str:
        return f"{row.timing.median_ms:.1f}" if row and row.timing else "-"

    peaks = [
        "-" if row is None or row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}"
        for row in (ours, peer)
    ]
    shape = " x ".join(map(str, case.shape))
    return (
        case.model,
        shape,
        ours.phase,
        milliseconds(ours),
        peer.peer if peer else "torch itself",
        milliseconds(peer),
        f"{peer.ratio:.2f}" if peer and peer.ratio else "-",
        f"{peaks[0]} / {peaks[1]}" if ours.phase == TRAINING else "",
    )


def print_models(report: ModelsReport) -> None:
    """Print the report as aligned text."""
    e = report.environment
    machine = e["cpu"] if e["device"] == "cpu" else e["device"]
    print(f"models, float32, on {machine}, {e['isa'] or 'reference only'}, {e['threads']} threads")
    print(f"saccade {e['saccade']}, torch {e['torch']}, Python {e['python']}, {e['date']}")
    lines = [HEADER, *(_cells(*pair) for pair in report.pairs())]
    width = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    for line in lines:
        print("  ".join(text.ljust(w) for text, w in zip(line, width, strict=True)).rstrip())
    for row in report.rows:
        if row.status != "ok":
            print(f"absent  {row.model} {row.phase}, {row.peer}: {row.status}: {row.note}")
    for note in report.notes:
        print(f"note    {note}")


if __name__ == "__main__":
    print(json.dumps(measure_here(**json.loads(sys.argv[1]))))
