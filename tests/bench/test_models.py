"""The models' benchmark: every family is there, peers agree, results are written and shown."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from saccade.bench import _models, models
from saccade.bench._models import Options, measure_here, run_models
from saccade.bench.models import CASES, OURS, PLAIN, ModelCase, build, cases, draw
from saccade.models import create_model, default_cfg, list_models
from saccade.models._registry import _models as registered
from saccade.ops import explain
from saccade.ops._select import reference_only

CPU = torch.device("cpu")
SMALL = ModelCase("mamba_pkd_micro_s3", 2, ("scan",), PLAIN)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> ModelCase:
    plain = ModelCase("cnn_svm", 2)
    monkeypatch.setattr(models, "CASES", (SMALL, plain))
    monkeypatch.setattr(_models, "QUICK", _models.Budget(rounds=1, seconds=0.01, at_least=1))
    return SMALL


def test_every_family_has_a_case() -> None:
    families = {registered[name].module for name in list_models(exclude_filters="*_test_model")}
    assert {case.family for case in cases()} == families
    assert len({case.model for case in CASES}) == len(CASES)
    for case in CASES:
        assert case.shape[1:] == default_cfg(case.model).input_size


def test_families_without_a_case_come_with_their_smallest_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "CASES", tuple(c for c in CASES if c.family != "karat"))
    (found,) = (case for case in cases() if case.family == "karat")
    assert (found.model, found.peer) == ("karat_micro", "")


def test_plain_runs_on_the_reference_with_the_same_weights() -> None:
    ours, plain = build(SMALL, CPU)
    assert ours.model is plain.model
    x = torch.zeros(1, 1, 1)
    with plain.context():
        assert explain("scan", x).startswith("scan runs on: reference")
        assert explain("kan", x).startswith("kan runs on: reference")
    with ours.context():
        pass
    before = explain("scan", x)
    with pytest.raises(KeyError), reference_only():
        raise KeyError
    assert explain("scan", x) == before


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("cvt_micro", {}),
        *(
            ("mixformer_micro", {"attention": kind})
            for kind in ("softmax", "cosformer", "relative")
        ),
    ],
)
def test_explicit_attention_is_the_same_function(name: str, kwargs: dict[str, str]) -> None:
    torch.manual_seed(0)
    model = create_model(name, **kwargs).eval()
    images = torch.randn(2, *default_cfg(name).input_size)
    fused = nn.functional.scaled_dot_product_attention
    with models.explicit_attention():
        assert nn.functional.scaled_dot_product_attention is not fused
        found = model(images)
    assert nn.functional.scaled_dot_product_attention is fused
    torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-5)


def test_nothing_is_drawn_in_the_pass() -> None:
    ours, *_ = build(ModelCase("cnn_svm", 2), CPU)
    assert all(m.p == 0 for m in ours.model.modules() if isinstance(m, nn.Dropout))
    images, targets = draw(ModelCase("cnn_svm", 2), CPU)
    one, two = (ours.gradients(images, targets) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_batch_norms_know_the_batch() -> None:
    case = ModelCase("max_resnet_micro", 2, ("spiking",), PLAIN)
    ours, plain = build(case, CPU)
    images, targets = draw(case, CPU)
    assert ours.forward(images).abs().max() > 0
    torch.testing.assert_close(ours.forward(images), plain.forward(images))
    momenta = {m.momentum for m in ours.model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}
    assert set(ours.gradients(images, targets)) == {n for n, _ in ours.model.named_parameters()}


@pytest.mark.slow
def test_timms_model_has_our_weights() -> None:
    pytest.importorskip("timm")
    for case in (case for case in CASES if case.peer == "timm"):
        ours, theirs = build(case, CPU)
        images, targets = draw(case, CPU)
        torch.testing.assert_close(ours.forward(images), theirs.forward(images))
        one, two = (c.gradients(images, targets) for c in (ours, theirs))
        assert set(one) == set(two)


def test_a_run(small: ModelCase) -> None:
    report = run_models(Options((small.model, "cnn_svm"), quick=True, memory=False, threads=1))
    rows = {(r.model, r.phase, r.peer): r for r in report.rows}
    assert len(rows) == 2 * 2 + 2
    for (model, _, peer), row in rows.items():
        assert row.status == "ok"
        assert row.timing is not None
        if peer == OURS:
            assert row.ratio == 1
        else:
            assert model == small.model
            assert row.error is not None
            assert row.error < 1e-4
    assert report.parameters["cnn_svm"] == 3_274_634
    assert [peer is None for _, _, peer in report.pairs()] == [False, False, True, True]


def test_a_wrong_peer_is_refused(small: ModelCase, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = models.Contestant.forward

    def wrong(self: models.Contestant, images: torch.Tensor) -> torch.Tensor:
        return forward(self, images) * (1.1 if self.name == PLAIN else 1)

    monkeypatch.setattr(models.Contestant, "forward", wrong)
    report = run_models(Options((small.model,), quick=True, memory=False, threads=1))
    (row,) = (r for r in report.rows if r.peer == PLAIN and r.phase == "forward")
    assert row.status == "refused"
    assert row.timing is None
    assert "the output is off by" in row.note


@pytest.mark.parametrize(
    ("case", "rows", "text"),
    [
        (
            ModelCase("mamba_pkd_micro_s3", 2, peer="timm", timm="x"),
            2,
            "peer of mamba_pkd_micro_s3",
        ),
        (ModelCase("inception_resnet_v2_slim", 1), 0, "inception_resnet_v2_slim was left out: "),
    ],
    ids=["the peer", "the model"],
)
def test_without_timm(
    case: ModelCase, rows: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(models, "CASES", (case,))
    monkeypatch.setattr(_models, "QUICK", _models.Budget(rounds=1, seconds=0.01, at_least=1))
    report = run_models(Options((case.model,), quick=True, memory=False, threads=1))
    assert [row.peer for row in report.rows] == [OURS] * rows
    assert len(_models.to_dict(report)["cases"]) == bool(rows)
    assert any(text in note and "saccade[models]" in note for note in report.notes)


def test_memory_of_a_step() -> None:
    case = "mamba_pkd_micro_teacher"
    (ours,) = measure_here(OURS, [case], "cpu", 1).values()
    assert 0 <= ours < 100e6


def test_the_command_writes_what_the_docs_show(
    small: ModelCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from saccade.bench._machine import GUARD
    from saccade.cli import main

    monkeypatch.setenv(GUARD, "1")
    path = tmp_path / "2026-01-01-x-models.json"
    names = f"{small.model},cnn_svm"
    arguments = ["bench", "models", "--quick", "--no-memory", "--cases", names, "--json", str(path)]
    assert main([*arguments, "--threads", "1"]) == 0
    assert small.model in capsys.readouterr().out
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    results = importlib.import_module("_docs.results")
    assert results.load(tmp_path) == []
    (kept,) = results.load_models(tmp_path)
    assert kept["cases"] == json.loads(path.read_text())["cases"]
    text = results.models(kept)
    assert text.count(f"| `{small.model}` |") == 2
    assert "| torch itself |" in text
    assert "plain (torch" in text
    gains = results.gains(kept)
    assert gains.count("`cnn_svm`") == 0
    assert gains.count(f"`{small.model}`") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--cases", "resnet"], "there is no model 'resnet'"),
        (["--peers", "timm", "--check"], "models does not take --peers, --check"),
        (["--backend", "reference"], "models does not take --backend"),
        (["--device", "tpu"], "device must be cpu or cuda, got 'tpu'"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
    ],
)
def test_mistakes(arguments: list[str], text: str, capsys: pytest.CaptureFixture) -> None:
    from saccade.cli import main

    assert main(["bench", "models", *arguments]) == 2
    assert text in capsys.readouterr().err
