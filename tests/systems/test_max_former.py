"""The Max-Former reproduction at a toy size, its arms, and its paper configuration."""

from pathlib import Path

import pytest
import torch

from saccade.learn import TrainConfig
from saccade.models import create_model, is_model
from saccade.systems import max_former
from saccade.systems._protocol import reproduce

CONFIG = Path(__file__).parents[2] / "configs" / "max_former_paper.yaml"


def test_all_arms_run_and_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(max_former, "SMALL", max_former.SMALL.replace(epochs=1, batch_size=10))
    monkeypatch.setattr(max_former, "SIZES", {"train": 20, "val": 10, "test": 10})
    outcome = reproduce(max_former.SYSTEM, data="digits", seeds=1, out=tmp_path, quiet=True)
    result = outcome.result
    assert result["baseline"]["name"] == "average mixer"
    assert result["proposed"]["name"] == "max mixer"
    assert 0 <= result["proposed"]["values"][0] <= 100
    assert {entry["baseline"]["name"] for entry in result["also"]} == {
        "strided embeddings",
        "MS-ResNet",
    }
    energy = next(e for e in result["also"] if e["metric"] == max_former.ENERGY)
    assert energy["proposed"]["values"][0] > 0
    assert not list((tmp_path / "max_former").glob("runs/*"))


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_arms_differ_in_what_their_names_say(scale):
    def pools(arm):
        models, options = max_former.ARMS[arm]
        with torch.device("meta"):
            modules = list(create_model(models[scale], **options).modules())
        return tuple(
            sum(isinstance(module, kind) for module in modules)
            for kind in (torch.nn.MaxPool2d, torch.nn.AvgPool2d)
        )

    blocks = {"small": 3, "paper": 4}[scale]
    assert {arm: pools(arm) for arm in max_former.ARMS} == {
        "max mixer": (blocks, 0),
        "average mixer": (0, blocks),
        "Max-Former": (2, 0),
        "strided embeddings": (0, 0),
        "Max-ResNet": (2, 0),
        "MS-ResNet": (0, 0),
    }


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == max_former.PAPER
    assert is_model(config.model)
    assert (config.epochs, config.batch_size, config.lr, config.min_lr) == (400, 128, 1.5e-3, 1e-5)
