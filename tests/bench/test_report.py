from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saccade.bench import load
from saccade.bench._memory import Memory
from saccade.bench._plot import save_plot
from saccade.bench._report import HEADER, Report, plain_table, print_report, save_json, to_dict
from saccade.bench._suite import FORWARD, PASSES, TRAINING, MemoryTarget, SpeedTarget
from saccade.bench._targets import check_targets


def test_ratio_and_floor_come_from_this_run(report: Report) -> None:
    for phase in PASSES:
        rows = {row.peer: row for row in report.rows if row.phase == phase}
        ours, right = rows["saccade"], rows["right"]
        assert ours.timing is not None
        assert right.timing is not None
        assert ours.ratio == 1.0
        assert right.ratio == pytest.approx(right.timing.median_ms / ours.timing.median_ms)
        floor = report.floor.milliseconds(report.cases[0].work[phase])
        assert ours.fraction == pytest.approx(floor / ours.timing.median_ms)


KEYS = {
    "": ("schema operator ours dtype environment floor cases results memory targets notes "),
    "environment": (
        "date cpu cores load device isa threads malloc_settings python torch saccade rung "
    ),
    "floor": ("copy_gb_per_s gemm_gflop_per_s samples "),
    "cases": ("name origin shapes arguments work "),
    "results": (
        "case pass peer version status note error tolerance median_ms p20_ms p80_ms "
        "samples ratio floor_ms fraction "
    ),
}


@pytest.mark.parametrize("part", KEYS)
def test_json_schema(report: Report, tmp_path: Path, part: str) -> None:
    save_json(report, tmp_path / "deep" / "out.json")
    values = json.loads((tmp_path / "deep" / "out.json").read_text())
    found = values[part] if part else values
    for entry in found if isinstance(found, list) else [found]:
        assert set(KEYS[part].split()) <= set(entry)


def test_json_holds_every_contestant_and_pass(report: Report) -> None:
    values = to_dict(report)
    names = {(r["peer"], r["pass"], r["status"]) for r in values["results"]}
    status = {"saccade": "ok", "right": "ok", "wrong": "refused", "broken": "failed"}
    assert names == {(peer, phase, status[peer]) for peer in status for phase in PASSES}
    work = values["cases"][0]["work"][FORWARD]
    # 2 samples, 72 tokens with 9 keys, 2 heads of 8
    assert work["flops"] == 4 * 2 * 72 * 9 * 2 * 8
    assert work["bytes"] == 4 * 4 * 2 * 72 * 2 * 8


def test_plain_table(report: Report) -> None:
    lines = plain_table(report).splitlines()
    assert lines[0].split()[:2] == ["peer", "version"]
    for phase in PASSES:
        title = f"small {phase}  [2, 8, 9, 2, 8] kernel_size=3 dilation=2  floor "
        start = next(i for i, line in enumerate(lines) if line.startswith(title))
        assert lines[start + 1].startswith("saccade ")
        assert lines[start + 2].startswith("right ")
    assert "wrong" not in "".join(lines)
    width = [len(line) for line in lines if line.startswith(("peer", "saccade", "right"))]
    assert len(set(width)) == 1


@pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])
def test_printed_report(
    report: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rich: bool
) -> None:
    if not rich:
        real = builtins.__import__

        def without_rich(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("rich"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_rich)
    print_report(report)
    text = capsys.readouterr().out
    for word in (*HEADER, "floor: copy", "small forward+backward"):
        assert word in text
    assert "absent  broken: failed in small: RuntimeError: no such kernel" in text


def test_plot_is_written(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_plot(report, tmp_path / "out.svg")
    text = (tmp_path / "out.svg").read_text()
    assert text.count("<svg") == 1


SPEED = SpeedTarget("small", TRAINING, ("right", "wrong"), 0.0)
TARGETS = [
    pytest.param(SPEED, {"right"}, True, id="met"),
    pytest.param(replace(SPEED, at_least=1e9), {"right"}, False, id="missed"),
    pytest.param(replace(SPEED, peers=("wrong",)), {"wrong"}, False, id="asked for, not measured"),
    pytest.param(SPEED, {"other"}, None, id="peer not asked for"),
    pytest.param(replace(SPEED, case="S1"), {"right"}, None, id="case not asked for"),
]


@pytest.mark.parametrize(("target", "asked", "met"), TARGETS)
def test_speed_target(
    report: Report, target: SpeedTarget, asked: set[str], met: bool | None
) -> None:
    suite = replace(load("neighborhood_attention"), speed_targets=(target,), memory_targets=())
    found = check_targets(suite, report, asked, memory=False)
    assert [t.met for t in found] == ([] if met is None else [met])


def test_speed_target_takes_the_fastest_variant(report: Report) -> None:
    for row in report.rows:
        row.ratio = {"right": 3.0, "wrong": 2.0}.get(row.peer)
    suite = replace(load("neighborhood_attention"), speed_targets=(SPEED,), memory_targets=())
    (found,) = check_targets(suite, report, {"right", "wrong"}, memory=False)
    assert found.measured == 2.0
    assert found.text.endswith("than wrong")


@pytest.mark.parametrize(("peak", "met"), [(150, True), (151, False), (None, False)])
def test_memory_target(report: Report, peak: int | None, met: bool) -> None:
    report.memory = [Memory("small", "saccade", peak, 100)] if peak else []
    suite = replace(
        load("neighborhood_attention"),
        speed_targets=(),
        memory_targets=(MemoryTarget("small", 1.5),),
    )
    (target,) = report.targets = check_targets(suite, report, set(), memory=True)
    assert target.met is report.met is met
