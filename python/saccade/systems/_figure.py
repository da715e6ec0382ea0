"""The picture and the report of a reproduction."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from saccade._extras import require

if TYPE_CHECKING:
    from saccade.systems._protocol import Collected, System


def figure(path: Path, system: System, collected: Collected, data: str) -> None:
    """One panel a metric, one row an arm: a dot a seed, a line at the mean."""
    matplotlib = require("matplotlib", extra="train", purpose="drawing a figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = list(collected)
    metrics = list(collected[arms[0]])
    with matplotlib.rc_context(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        canvas = Figure(
            figsize=(2.6 + 3.2 * len(metrics), 1.3 + 0.42 * len(arms)), layout="constrained"
        )
        FigureCanvasAgg(canvas)
        panels = canvas.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for panel, metric in zip(panels, metrics, strict=True):
            for row, arm in enumerate(arms):
                values = collected[arm][metric]
                colour = {system.main.proposed: "C0", system.main.baseline: "C1"}.get(arm, "0.5")
                panel.plot(values, [row] * len(values), "o", color=colour, alpha=0.7)
                panel.plot(
                    [fmean(values)] * 2, [row - 0.3, row + 0.3], "-", color=colour, linewidth=2
                )
            panel.set(xlabel=metric)
            panel.grid(axis="x", alpha=0.3)
        panels[0].set_yticks(range(len(arms)), arms)
        panels[0].invert_yaxis()
        canvas.suptitle(f"{system.name} on {data}")
        canvas.savefig(path, dpi=120)


def report(path: Path, system: System, result: dict[str, Any], collected: Collected) -> None:
    """Write claim, outcome, every figure, the paper's own and the environment as Markdown."""
    environment = result["environment"]
    arms = list(collected)
    metrics = list(collected[arms[0]])
    count = len(result["seeds"])
    seeds = f"{count} seed" + ("s" if count > 1 else "")
    decisive = "The first row decides"
    if any(_is_floor(entry) for entry in result["also"]):
        decisive += ", together with the row on the calibrated threshold"
    packages = ", ".join(
        f"{name} {version}" for name, version in environment["packages"].items() if version
    )
    lines = [
        f"# {system.title}",
        "",
        f"{system.paper}, {system.year}: {system.link}",
        "",
        f"Claim: {system.claim}",
        "",
        f"**{'Holds' if result['holds'] else 'Does not hold'}** at scale {result['scale']} on "
        f"{result['data']} over {seeds}.",
        "",
        "| metric | proposed | baseline | effect | expected | holds |",
        "| --- | --- | --- | ---: | --- | --- |",
        *(_row(entry) for entry in (result, *result["also"])),
        "",
        f"{decisive}; the other rows are reported. Effects are differences of means, "
        "positive where the proposed arm is better.",
        "",
        "![every arm and seed](figure.png)",
        "",
        "| arm | " + " | ".join(metrics) + " |",
        "| --- |" + " ---: |" * len(metrics),
    ]
    for arm in arms:
        lines.append(
            f"| {arm} | " + " | ".join(_spread(collected[arm][metric]) for metric in metrics) + " |"
        )
    lines += ["", f"Mean and standard deviation over {seeds}."]
    if system.findings:
        lines += ["", "## The small scale", "", system.findings]
    lines += ["", "## In the paper", ""]
    lines += [f"- {name}: {value}" for name, value in system.figures.items()] or [
        "No figures are recorded."
    ]
    lines += [
        "",
        "## Environment",
        "",
        f"saccade {environment['saccade']}, Python {environment['python']}, {packages}; "
        f"{environment['processor']}, "
        f"{environment['threads']} threads, {', '.join(environment['devices']) or 'no GPU'}; "
        f"git {environment['git'] or 'none'}; {result['wall_seconds']:.0f} s with "
        f"--jobs {environment['jobs']}.",
        "",
        f"Command: `saccade reproduce {system.name} --scale {result['scale']} --data "
        f"{result['data']} --seeds {count}`",
        "",
    ]
    path.write_text("\n".join(lines))


def _is_floor(entry: dict[str, Any]) -> bool:
    return bool(entry["baseline"]["name"] == "calibrated threshold")


def _row(entry: dict[str, Any]) -> str:
    sign = "±" if entry["direction"] == "equal" else "≥ "
    proposed, baseline = entry["proposed"], entry["baseline"]
    return (
        f"| {entry['metric']} | {proposed['name']}: {_spread(proposed['values'])} | "
        f"{baseline['name']}: {_spread(baseline['values'])} "
        f"| {entry['effect']:+.2f} | {sign}{entry['expected']:g} | "
        f"{'yes' if entry['holds'] else 'no'} |"
    )


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
