"""The Max-Former reproduction at a toy size, its arms, and its paper configuration."""

from pathlib import Path

import pytest
import torch

from saccade.learn import TrainConfig
from saccade.models import create_model, is_model
from saccade.systems import max_former

CONFIG = Path(__file__).parents[2] / "configs" / "max_former_paper.yaml"


def test_all_arms_run_and_are_measured(reproduce_toy):
    result = reproduce_toy(max_former.SYSTEM, max_former.SMALL.replace(epochs=1, batch_size=10))
    assert result["baseline"]["name"] == "average mixer"
    assert result["proposed"]["name"] == "max mixer"
    assert 0 <= result["proposed"]["values"][0] <= 100
    assert {entry["baseline"]["name"] for entry in result["also"]} == {
        "strided embeddings",
        "MS-ResNet",
    }
    energy = next(e for e in result["also"] if e["metric"] == max_former.ENERGY)
    assert energy["proposed"]["values"][0] > 0


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_arms_differ_in_what_their_names_say(scale):
    arms = max_former.ARMS if scale == "small" else max_former.PAPER_ARMS

    def pools(arm):
        changes = arms[arm]
        with torch.device("meta"):
            model = create_model(changes["model"], **changes.get("model_kwargs", {}))
        modules = list(model.modules())
        return tuple(
            sum(isinstance(module, kind) for module in modules)
            for kind in (torch.nn.MaxPool2d, torch.nn.AvgPool2d)
        )

    blocks = {"small": 3, "paper": 4}[scale]
    assert {arm: pools(arm) for arm in arms} == {
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
