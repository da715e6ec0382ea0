"""The Inception reproduction at a toy size, and its paper configuration."""

from pathlib import Path

import pytest
import torch

from saccade.learn import TrainConfig
from saccade.models import create_model
from saccade.systems import inception_v4

CONFIG = Path(__file__).parents[2] / "configs" / "inception_v4_paper.yaml"


def test_all_arms_run_and_are_measured(reproduce_toy):
    toy = inception_v4.SMALL.replace(
        img_size=8, epochs=1, batch_size=10, model_kwargs={"repeats": (1, 1, 1), "width": 0.05}
    )
    result = reproduce_toy(inception_v4.SYSTEM, toy)
    assert (result["proposed"]["name"], result["baseline"]["name"]) == ("residual", "no residual")
    assert result["baseline"]["values"] == [pytest.approx(100.0)]
    assert (result["direction"], result["expected"]) == ("lower", 5.0)
    std = result["also"][1]
    assert std["metric"] == inception_v4.STD
    assert std["baseline"]["values"][0] > std["proposed"]["values"][0] > 0


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_arms_differ_in_the_residual_connections(scale):
    small = scale == "small"
    config = inception_v4.SMALL if small else inception_v4.PAPER
    arms = inception_v4.ARMS if small else inception_v4.PAPER_ARMS
    found = []
    for changes in arms.values():
        with torch.device("meta"):
            model = create_model(
                changes.get("model", config.model),
                num_classes=10,
                **{**config.model_kwargs, **changes.get("model_kwargs", {})},
            )
        scales = {m.scale for m in model.modules() if type(m).__name__ == "Residual"}
        found.append((scales, sum(p.numel() for p in model.parameters())))
    assert [scales for scales, _ in found] == [{0.2}, {1.0}, set()]
    if small:
        assert [count for _, count in found] == [122_548, 122_548, 122_778]


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == inception_v4.PAPER
    assert (config.lr, config.lr_decay, config.lr_decay_epochs) == (0.045, 0.94, 2.0)
    assert (config.rmsprop_eps, config.momentum) == (1.0, 0.9)
