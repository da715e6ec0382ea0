"""What a run found, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.bench._harness import Timing
from saccade.bench._machine import Floor
from saccade.bench._memory import Memory
from saccade.bench._suite import PASSES, Case

if TYPE_CHECKING:
    from saccade.bench._targets import Target

SCHEMA = 1
HEADER = ("peer", "version", "median ms", "p20 - p80 ms", "x ours", "of floor")
LEFT = 2  # columns that hold text, not numbers


def _ms(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


@dataclass
class Row:
    """One contestant in one pass of one case; `ratio` is how many times slower than ours it is."""

    case: str
    phase: str
    peer: str
    version: str
    status: str = "ok"
    note: str = ""
    error: float | None = None
    tolerance: float | None = None
    timing: Timing | None = None
    ratio: float | None = None
    floor_ms: float | None = None
    fraction: float | None = None

    def cells(self) -> tuple[str, ...]:
        """A timed row as text, in the order of HEADER."""
        t = self.timing
        if t is None or self.ratio is None or self.fraction is None:
            raise ValueError(f"{self.peer} was not timed in {self.case} {self.phase}.")
        return (
            self.peer,
            self.version,
            _ms(t.median_ms),
            f"{_ms(t.p20_ms)} - {_ms(t.p80_ms)}",
            f"{self.ratio:.1f}",
            f"{100 * self.fraction:.1f} %",
        )


@dataclass
class Report:
    """Everything that a run found."""

    operator: str
    environment: dict[str, Any]
    dtype: str
    cases: tuple[Case, ...]
    floor: Floor
    rows: list[Row]
    memory: list[Memory]
    notes: list[str]
    ours: str
    targets: list[Target] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Fill in ratios and floors, which need the whole run."""
        work = {case.name: case.work for case in self.cases}
        own = {
            (r.case, r.phase): r.timing.median_ms
            for r in self.rows
            if r.peer == self.ours and r.timing
        }
        for row in self.rows:
            row.floor_ms = self.floor.milliseconds(work[row.case][row.phase])
            if row.timing:
                row.ratio = row.timing.median_ms / own[row.case, row.phase]
                row.fraction = row.floor_ms / row.timing.median_ms

    @property
    def met(self) -> bool:
        """Whether every target was met."""
        return all(target.met for target in self.targets)


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain values, ready for JSON."""
    itemsize = report.floor.dtype.itemsize
    cases = [
        {
            "name": case.name,
            "origin": case.origin,
            "shapes": {name: list(shape) for name, shape in case.shapes.items()},
            "arguments": dict(case.kwargs),
            "work": {
                phase: {
                    "flops": work.flops,
                    "bytes": work.bytes(itemsize),
                    "floor_ms": report.floor.milliseconds(work),
                }
                for phase, work in case.work.items()
            },
        }
        for case in report.cases
    ]
    results = []
    for row in report.rows:
        values = asdict(row)
        timing = values.pop("timing") or dict.fromkeys(("median_ms", "p20_ms", "p80_ms", "samples"))
        results.append({"pass": values.pop("phase"), **values, **timing})
    return {
        "schema": SCHEMA,
        "operator": report.operator,
        "ours": report.ours,
        "dtype": report.dtype,
        "environment": report.environment,
        "floor": {
            "copy_gb_per_s": report.floor.bandwidth / 1e9,
            "gemm_gflop_per_s": report.floor.rate / 1e9,
            "samples": len(report.floor.bytes_per_s),
        },
        "cases": cases,
        "results": results,
        "memory": [{**asdict(m), "ratio": m.ratio} for m in report.memory],
        "targets": [asdict(target) for target in report.targets],
        "notes": report.notes,
    }


def save_json(report: Report, path: Path) -> None:
    """Write everything to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_dict(report), indent=1) + "\n")


def summary(report: Report) -> list[str]:
    """The lines around the table: machine before, memory and targets after."""
    e, floor = report.environment, report.floor
    where = (
        e["device"]
        if e["device"] != "cpu"
        else f"{e['cpu']}, {e['isa'] or 'reference only'}, {e['threads']} threads"
    )
    return [
        f"{report.operator}, {report.dtype}, on {where}",
        f"saccade {e['saccade']}, torch {e['torch']}, Python {e['python']}, {e['date']}",
        e["rung"],
        f"floor: copy {floor.bandwidth / 1e9:.1f} GB/s, matrix product "
        f"{floor.rate / 1e9:.0f} GFLOP/s, medians of this run",
    ]


def findings(report: Report) -> list[str]:
    """Memory, targets and notes, one line each."""
    lines = _absent(report)
    lines += [
        f"memory  {m.case} {m.peer}: training step peaks at {m.peak_bytes / 1e6:.1f} MB, "
        f"{m.ratio:.2f}x the {m.tensor_bytes / 1e6:.1f} MB of inputs, outputs and gradients"
        for m in report.memory
    ]
    for target in report.targets:
        found = "not measured" if target.measured is None else f"{target.measured:.3g}x"
        lines.append(f"target  {'met   ' if target.met else 'MISSED'}  {target.text}: {found}")
    return lines + [f"note    {note}" for note in report.notes]


def _absent(report: Report) -> list[str]:
    """Who was not timed and why, one line for each reason."""
    places: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for row in report.rows:
        if row.timing is None:
            where = places.setdefault((row.peer, row.status, row.note), {})
            where.setdefault(row.case, []).append(row.phase)
    lines = []
    for (peer, status, note), where in places.items():
        texts = [
            c if len(found) == len(PASSES) else f"{c} {found[0]}" for c, found in where.items()
        ]
        lines.append(f"absent  {peer}: {status} in {', '.join(texts)}: {note}")
    return lines


def sections(report: Report) -> dict[str, list[Row]]:
    """The timed rows of each case and pass, under a title that names the problem and its floor."""
    cases = {case.name: case for case in report.cases}
    found: dict[str, list[Row]] = {}
    for row in report.rows:
        if row.timing is None:
            continue
        case = cases[row.case]
        shape = list(next(iter(case.shapes.values())))
        arguments = " ".join(f"{k}={v}" for k, v in case.kwargs.items())
        title = f"{row.case} {row.phase}  {shape} {arguments}  floor {_ms(row.floor_ms or 0.0)} ms"
        found.setdefault(title, []).append(row)
    return found


def _widths(parts: dict[str, list[Row]]) -> list[int]:
    cells = [HEADER, *(row.cells() for rows in parts.values() for row in rows)]
    return [max(len(line[i]) for line in cells) for i in range(len(HEADER))]


def plain_table(report: Report) -> str:
    """The table as aligned text."""
    parts = sections(report)
    width = _widths(parts)

    def align(line: tuple[str, ...]) -> str:
        return "  ".join(
            text.ljust(w) if i < LEFT else text.rjust(w)
            for i, (text, w) in enumerate(zip(line, width, strict=True))
        ).rstrip()

    lines = [align(HEADER)]
    for title, rows in parts.items():
        lines += ["", title, *(align(row.cells()) for row in rows)]
    return "\n".join(lines)


def print_report(report: Report) -> None:
    """Print the report: rich tables when rich is installed, aligned text otherwise."""
    print("\n".join(summary(report)))
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(plain_table(report), end="\n\n")
    else:
        console, parts = Console(highlight=False), sections(report)
        width = _widths(parts)
        for title, rows in parts.items():
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
            for i, name in enumerate(HEADER):
                table.add_column(name, justify="left" if i < LEFT else "right", width=width[i])
            for row in rows:
                table.add_row(*row.cells(), style="bold" if row.peer == report.ours else None)
            console.print(title, style="cyan", markup=False, soft_wrap=True)
            console.print(table)
    print("\n".join(findings(report)))
