"""The picture of a run."""

from __future__ import annotations

from pathlib import Path

from saccade._extras import require
from saccade.bench._report import Report, sections


def save_plot(report: Report, path: Path) -> None:
    """Draw medians with 20/80 percentiles on a log axis, a panel for each case and pass.

    Raises:
        ImportError: matplotlib is not installed.
    """
    require("matplotlib", extra="bench", purpose="saccade bench --plot")
    from matplotlib.figure import Figure

    panels = sections(report)
    heights = [len(rows) + 1 for rows in panels.values()]
    figure = Figure(figsize=(9, 1.0 + 0.35 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        for place, row in enumerate(rows):
            t = row.timing
            if t is None:
                continue
            _, _, median, _, ratio, _ = row.cells()
            spread = [[t.median_ms - t.p20_ms], [t.p80_ms - t.median_ms]]
            colour = "C0" if row.peer == report.ours else "0.7"
            axis.barh(place, t.median_ms, color=colour, xerr=spread)
            axis.text(t.p80_ms * 1.08, place, f"{median} ms ({ratio}x)", va="center", fontsize=8)
        axis.set_yticks(range(len(rows)), [row.peer for row in rows])
        axis.invert_yaxis()
        axis.axvline(rows[0].floor_ms, color="C3", linestyle="--")
        axis.set_xscale("log")
        axis.set_title(f"{title} (dashed)", fontsize=9, loc="left")
        axis.margins(x=0.2)
    axes[-1].set_xlabel("milliseconds, median with 20/80 percentiles")
    where = report.environment["cpu" if report.floor.device.type == "cpu" else "device"]
    figure.suptitle(f"{report.operator}, {report.dtype}, {where}", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
