"""The reproduction of the lightweight network at a toy size, and its paper configuration."""

from pathlib import Path

import pytest

from saccade.data import load_data
from saccade.learn import TrainConfig, TwoStageConfig
from saccade.models import load_model
from saccade.systems import lightweight_cnn
from saccade.systems._protocol import reproduce

CONFIG = Path(__file__).parents[2] / "configs" / "lightweight_cnn_paper.yaml"
TOY = {"first_epochs": 1, "phases": (1, 1, 1, 1)}


@pytest.fixture
def toy(monkeypatch):
    stages = {"small": TOY, "paper": TOY}
    monkeypatch.setattr(lightweight_cnn, "STAGES", stages)
    monkeypatch.setattr(lightweight_cnn, "SIZES", {"train": 20, "val": 10, "test": 10})
    small = lightweight_cnn.SMALL.replace(batch_size=10)
    monkeypatch.setattr(lightweight_cnn, "SMALL", small)
    monkeypatch.setattr(lightweight_cnn, "PAPER", small)


def test_all_arms_run_and_are_measured(tmp_path, toy):
    outcome = reproduce(lightweight_cnn.SYSTEM, data="digits", seeds=1, out=tmp_path, quiet=True)
    result = outcome.result
    assert result["proposed"]["name"] == "two-stage"
    assert result["baseline"]["name"] == "one branch, plain images"
    assert result["metric"] == "accuracy on moved images (%)"
    assert 0 <= result["proposed"]["values"][0] <= 100
    assert len(result["also"]) == 3
    assert not list((tmp_path / "lightweight_cnn").glob("runs/*"))


@pytest.mark.filterwarnings("ignore")
def test_the_papers_scale_leaves_its_weights(tmp_path, toy, monkeypatch):
    few = load_data("digits").limited(20, 10, 10)
    monkeypatch.setattr("saccade.data.load_data", lambda *_: few)
    lightweight_cnn.run("paper", "digits", 4, tmp_path)
    assert TrainConfig.load(tmp_path / "config.yaml").seed == 4
    model = load_model(tmp_path / "runs" / "two-stage-seed4")
    assert sum(p.numel() for p in model.parameters()) == 14_862


def test_every_arm_gets_as_many_epochs():
    small = TwoStageConfig(**lightweight_cnn.STAGES["small"])
    assert small.epochs == lightweight_cnn.SMALL.epochs
    paper = TwoStageConfig(**lightweight_cnn.STAGES["paper"])
    assert paper.epochs == lightweight_cnn.PAPER.epochs == 55


def test_the_paper_configuration_is_the_one_in_configs():
    assert TrainConfig.load(CONFIG) == lightweight_cnn.PAPER
