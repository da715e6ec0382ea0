"""How a reproduction is judged and written, on a system whose figures are known."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from saccade.systems import Comparison, Floor, System, cnn_svm, get_system, list_systems
from saccade.systems._protocol import first_available, judge, reproduce


def run(scale, data, seed, out, *, arms=("new", "old"), data_dir=None, started=lambda arm: None):
    for arm in arms:
        started(arm)
    figures = {
        "new": {"accuracy": 90.0 + seed, "error": 10.0 - seed},
        "old": {"accuracy": 88.0, "error": 12.0},
    }
    return {arm: figures[arm] for arm in arms}


SYSTEM = System(
    name="example",
    title="An Example",
    paper="arXiv 0000.00000",
    year=2020,
    link="https://example.org",
    operators=("kan",),
    claim="new beats old",
    data=("mnist", "digits"),
    run=run,
    arms=("new", "old"),
    main=Comparison("accuracy", "new", "old", expected=2.0),
    also=(
        Comparison(
            "error", "new", "old", expected=0.0, direction="lower", note="smaller is better"
        ),
    ),
    floor=Floor("accuracy", "new", {"digits": 85.0}),
    findings="Ten times the data change nothing.",
    figures={"table 1": "99 %"},
    paper_scale=False,
)

COLLECTED = {"new": {"m": [3.0, 5.0]}, "old": {"m": [2.0, 2.0]}}


@pytest.mark.parametrize(
    ("direction", "expected", "effect", "holds"),
    [
        ("higher", 2.0, 2.0, True),
        ("higher", 2.1, 2.0, False),
        ("lower", 0.0, -2.0, False),
        ("lower", -2.0, -2.0, True),
        ("equal", 2.0, 2.0, True),
        ("equal", 1.9, 2.0, False),
    ],
)
def test_comparison(direction, expected, effect, holds):
    entry = Comparison("m", "new", "old", expected, direction).judge(COLLECTED)
    assert entry["effect"] == effect
    assert entry["holds"] is holds
    assert entry["baseline"] == {"name": "old", "values": [2.0, 2.0]}
    assert entry["proposed"] == {"name": "new", "values": [3.0, 5.0]}


@pytest.mark.parametrize(
    ("data", "threshold", "holds"),
    [("digits", 85.0, True), ("digits", 92.0, False), ("cifar10", 92.0, True)],
    ids=["reached", "missed", "uncalibrated"],
)
def test_the_floor_decides_with_the_effect(data, threshold, holds):
    system = dataclasses.replace(SYSTEM, floor=Floor("accuracy", "new", {"digits": threshold}))
    collected = {
        "new": {"accuracy": [90.0], "error": [1.0]},
        "old": {"accuracy": [80.0], "error": [1.0]},
    }
    assert judge(system, "small", data, 1, collected, 1.0)["holds"] is holds


def test_reproduce_writes_what_it_found(tmp_path, capsys):
    outcome = reproduce(SYSTEM, data="digits", seeds=3, out=tmp_path)
    folder = tmp_path / "example"
    result = json.loads((folder / "result.json").read_text())
    assert result == outcome.result
    assert list(result) == [
        *("system", "scale", "data", "seeds", "claim", "metric", "direction", "baseline"),
        *("proposed", "effect", "expected", "holds", "also", "paper", "wall_seconds"),
        "environment",
    ]
    assert result["proposed"]["values"] == [90.0, 91.0, 92.0]
    assert (result["effect"], result["holds"], result["seeds"]) == (3.0, True, [0, 1, 2])
    assert [entry["holds"] for entry in result["also"]] == [True, True]
    assert result["paper"]["figures"] == {"table 1": "99 %"}
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    report = (folder / "report.md").read_text()
    assert "**Holds** at scale small on digits over 3 seeds." in report
    assert "## The small scale\n\nTen times the data change nothing." in report
    assert "| new | 91.00 ± 1.00 | 9.00 ± 1.00 |" in report
    assert capsys.readouterr().out.count("seed 1: ") == 2
    assert "example on digits, 3 seeds: holds" in outcome.summary()


def relative(measured):
    return {arm: {"share": f["error"] / measured["old"]["error"]} for arm, f in measured.items()}


@pytest.mark.parametrize("jobs", [1, 2])
def test_arms_that_ran_apart_are_completed_together(tmp_path, monkeypatch, capsys, jobs):
    # new processes import this file
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    system = dataclasses.replace(
        SYSTEM,
        parts=(("new",), ("old",)),
        complete=relative,
        main=Comparison("share", "new", "old", expected=0.2, direction="lower"),
        also=(),
        floor=None,
    )
    result = reproduce(system, data="digits", seeds=2, out=tmp_path, jobs=jobs).result
    assert result["proposed"]["values"] == [10 / 12, 9 / 12]
    assert result["baseline"]["values"] == [1.0, 1.0]
    said = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert sorted(said) == [f"seed {seed}: {arm}" for seed in (0, 1) for arm in ("new", "old")]


def test_one_job_measures_all_arms_of_a_seed_in_one_call(tmp_path):
    asked = []

    def recorded(*given, arms, **options):
        asked.append(arms)
        return run(*given, arms=arms, **options)

    system = dataclasses.replace(SYSTEM, run=recorded, parts=(("new",), ("old",)))
    reproduce(system, data="digits", seeds=2, out=tmp_path, quiet=True)
    assert asked == [("new", "old")] * 2


def test_jobs_change_no_figure(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small = cnn_svm.SMALL.replace(epochs=1, batch_size=10)
        run = dataclasses.replace(
            cnn_svm.SYSTEM.run, small=small, sizes={"train": 40, "val": 10, "test": 100}
        )
        system = dataclasses.replace(cnn_svm.SYSTEM, run=run)
        found = [
            reproduce(system, data="digits", seeds=2, out=tmp_path, jobs=jobs, quiet=True).result
            for jobs in (1, 2)
        ]
    finally:
        torch.set_num_threads(threads)
    for result in found:
        assert result.pop("wall_seconds") > 0
    assert [result["environment"].pop("jobs") for result in found] == [1, 2]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["seeds", "jobs"])
def test_at_least_one_seed_and_job(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        reproduce(SYSTEM, data="digits", out=tmp_path, **{name: 0})


def test_a_claim_that_fails_is_reported_as_such(tmp_path):
    system = dataclasses.replace(SYSTEM, main=Comparison("accuracy", "new", "old", expected=50.0))
    outcome = reproduce(system, data="digits", seeds=1, out=tmp_path, quiet=True)
    assert outcome.result["holds"] is False
    assert "**Does not hold**" in (tmp_path / "example" / "report.md").read_text()
    assert "DOES NOT HOLD" in outcome.summary()


def test_default_data_are_the_first_that_are_there(tmp_path, monkeypatch):
    monkeypatch.delenv("SACCADE_DATA", raising=False)
    assert first_available(("mnist", "digits"), None) == "digits"
    assert first_available(("mnist", "digits"), str(tmp_path)) == "digits"
    with pytest.raises(FileNotFoundError, match="mnist is not in"):
        first_available(("mnist",), str(tmp_path))


def test_a_scale_that_is_not_prepared(tmp_path):
    with pytest.raises(ValueError, match="scale of example must be small; got 'paper'"):
        reproduce(SYSTEM, scale="paper", data="digits", out=tmp_path)


@pytest.mark.parametrize("name", list_systems())
def test_every_system_is_declared_in_full(name):
    system = get_system(name)
    assert system.name == name
    assert system.link.startswith("https://")
    assert not system.parts or sorted(sum(system.parts, ())) == sorted(system.arms)
    for comparison in (system.main, *system.also):
        assert {comparison.proposed, comparison.baseline} <= set(system.arms)
        assert comparison.direction in ("higher", "lower", "equal")
