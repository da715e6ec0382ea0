"""A benchmark's result as an SVG: one bar a peer on a logarithmic axis, the floor as a line."""

from __future__ import annotations

import html
import math

from _docs.results import Result, groups, milliseconds, title, where

WIDTH, LEFT, RIGHT, ROW = 760, 130, 130, 20
OURS, OTHERS, FLOOR = "#3f51b5", "#b0b4c0", "#c62828"


def chart(result: Result) -> str:
    """Draw the medians of a result."""
    panels = {
        key: [row for row in rows if row["median_ms"] is not None]
        for key, rows in groups(result).items()
    }
    times = [row["median_ms"] for rows in panels.values() for row in rows]
    floors = [row["floor_ms"] for rows in panels.values() for row in rows]
    low, high = math.log10(min(times + floors)) - 0.1, math.log10(max(times))

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(value) - low) / (high - low)

    marks, y = [], 30
    for (case, phase), rows in panels.items():
        marks.append(_text(8, y + 14, f"{case}, {phase}: {title(result, case)}", weight="bold"))
        y += 24
        top = y
        for row in rows:
            colour = OURS if row["peer"] == result["ours"] else OTHERS
            end = x(row["median_ms"])
            marks.append(
                f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{ROW - 5}" '
                f'fill="{colour}"/>'
            )
            label = f"{milliseconds(row['median_ms'])} ms ({row['ratio']:.1f}x)"
            marks.append(_text(end + 6, y + 12, label))
            marks.append(_text(LEFT - 8, y + 12, row["peer"], anchor="end"))
            y += ROW
        at = x(rows[0]["floor_ms"])
        marks.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 3}" y2="{y}" stroke="{FLOOR}" '
            'stroke-dasharray="4 3"/>'
        )
        y += 8
    heading = where(result).replace("`", "")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 24}" '
            f'viewBox="0 0 {WIDTH} {y + 24}" font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            _text(8, 18, heading),
            *marks,
            _text(8, y + 14, "median time, logarithmic axis; dashed: floor of the machine"),
            "</svg>",
            "",
        ]
    )


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{html.escape(text)}</text>"
    )
