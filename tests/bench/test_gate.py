from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from saccade.bench import Suite, load
from saccade.bench._gate import GateError, judge, solve
from saccade.bench._report import Report
from saccade.bench._run import Options, run
from saccade.bench._suite import FORWARD, PASSES, TRAINING, Peer

ONE = torch.ones(3)
NAN = torch.tensor([1.0, float("nan"), 1.0])
VERDICTS = [
    pytest.param({"a": ONE}, True, id="equal"),
    pytest.param({"a": ONE + 5e-6}, True, id="within the tolerance"),
    pytest.param({"a": ONE + 5e-5}, False, id="beyond the tolerance"),
    pytest.param({"a": NAN}, False, id="NaN"),
    pytest.param({"a": torch.ones(1)}, False, id="broadcastable shape"),
    pytest.param({}, False, id="missing"),
]


@pytest.mark.parametrize(("results", "passed"), VERDICTS)
def test_verdict(results: dict[str, torch.Tensor], passed: bool) -> None:
    assert judge(results, {"a": ONE}, 1e-5).passed is passed


def test_verdict_names_the_worst_tensor() -> None:
    verdict = judge({"a": ONE, "b": 2 * ONE}, {"a": ONE, "b": ONE}, 1e-5)
    assert verdict.text == "b is off by 1.0e+00 of its largest entry, 1e-05 is allowed"


def test_truth_is_rounded_like_the_contestants_gradients() -> None:
    x = {"x": torch.randn(5, dtype=torch.float64)}
    cotangents, truth = solve(lambda v: v["x"] * 2, x, torch.bfloat16)
    assert cotangents[0].dtype == torch.bfloat16
    torch.testing.assert_close(truth[FORWARD]["output 0"], 2 * x["x"])
    torch.testing.assert_close(truth[TRAINING]["the gradient of x"], 2 * cotangents[0].double())


def test_wrong_peer_is_refused_and_not_timed(report: Report) -> None:
    found = {(row.peer, row.phase): row for row in report.rows}
    for phase in PASSES:
        wrong, right = found["wrong", phase], found["right", phase]
        assert (wrong.status, wrong.timing, wrong.ratio) == ("refused", None, None)
        assert "is allowed" in wrong.note
        assert wrong.error == pytest.approx(0.1, rel=0.05)
        assert right.status == "ok"
        assert right.timing is not None


def test_broken_peer_is_a_line_of_the_table(report: Report) -> None:
    rows = [row for row in report.rows if row.peer == "broken"]
    assert {(row.status, row.note) for row in rows} == {("failed", "RuntimeError: no such kernel")}


def test_wrong_result_of_ours_ends_the_run(
    suite: Callable[..., Suite], scaled: Callable[..., Peer]
) -> None:
    wrong = suite(ours=scaled("saccade", 1.001))
    with pytest.raises(GateError, match="small forward: saccade is wrong, so nothing is reported"):
        run(wrong, Options(quick=True, peers=("none",), memory=False))


def test_our_own_failure_is_raised(suite: Callable[..., Suite], broken: Peer) -> None:
    with pytest.raises(RuntimeError, match="no such kernel"):
        run(suite(ours=broken), Options(quick=True, peers=("none",), memory=False))


def test_a_case_that_ours_refuses_is_left_out_with_a_note(
    suite: Callable[..., Suite], scaled: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = scaled("saccade", 1.0)
    monkeypatch.setattr(ours, "refusal", lambda *_: "runs on the CPU")
    report = run(suite(ours=ours), Options(quick=True, peers=("none",), memory=False))
    assert (report.cases, report.rows) == ((), [])
    assert "small is left out: ours runs on the CPU" in report.notes


MISTAKES = [
    pytest.param({"cases": ("S9",)}, "cases must be among small, got 'S9'", id="case"),
    pytest.param({"peers": ("nattn",)}, "peers must be among right, got 'nattn'", id="peer"),
    pytest.param({"device": "tpu"}, "device must be cpu or cuda, got 'tpu'", id="device"),
    pytest.param({"dtype": "int8"}, "dtype must be one of float32, .*, got 'int8'", id="dtype"),
    pytest.param({"threads": 0}, "threads must be at least 1, got 0", id="threads"),
]


@pytest.mark.parametrize(("options", "sentence"), MISTAKES)
def test_mistakes_are_sentences(
    suite: Callable[..., Suite], scaled: Callable[..., Peer], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(suite(scaled("right", 1.0)), Options(**options))


def test_unknown_operator() -> None:
    with pytest.raises(ValueError, match=r"operator must be one of .*, got 'x'"):
        load("x")
