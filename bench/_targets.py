"""Targets: ratios that a run must reach, judged from that very run."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from saccade.bench._report import Report
from saccade.bench._suite import MemoryTarget, SpeedTarget, Suite


@dataclass(frozen=True)
class Target:
    """A target and what became of it; `measured` is None when the run holds no such figure."""

    text: str
    required: float
    measured: float | None
    met: bool


def _speed(target: SpeedTarget, report: Report, asked: AbstractSet[str]) -> Target:
    ratios = {
        row.peer: row.ratio
        for row in report.rows
        if row.case == target.case
        and row.phase == target.phase
        and row.peer in target.peers
        and row.ratio
    }
    # The fastest of a peer's variants is the one to beat.
    fastest = min(ratios, key=lambda name: ratios[name], default=None)
    name = fastest or "/".join(p for p in target.peers if p in asked)
    measured = ratios[fastest] if fastest else None
    text = f"{target.case} {target.phase}: at least {target.at_least:g}x faster than {name}"
    return Target(
        text, target.at_least, measured, measured is not None and measured >= target.at_least
    )


def _memory(target: MemoryTarget, report: Report) -> Target:
    found = [m for m in report.memory if m.case == target.case and m.peer == report.ours]
    measured = found[0].ratio if found else None
    text = (
        f"{target.case} training step: peak memory at most {target.at_most:g}x "
        "inputs + outputs + gradients"
    )
    return Target(
        text, target.at_most, measured, measured is not None and measured <= target.at_most
    )


def check_targets(
    suite: Suite, report: Report, asked: AbstractSet[str], memory: bool
) -> list[Target]:
    """Judge the targets of the cases, peers and measurements that were asked for.

    One that was asked for and could not be measured is not met; the others are left out.
    """
    cases = {case.name for case in report.cases}
    targets = [
        _speed(target, report, asked)
        for target in suite.speed_targets
        if target.case in cases and asked & set(target.peers)
    ]
    if memory:
        targets += [
            _memory(target, report) for target in suite.memory_targets if target.case in cases
        ]
    return targets
