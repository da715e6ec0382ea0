"""The Inception reproduction at a toy size, and its paper configuration."""

from pathlib import Path

import pytest
import torch

from saccade.learn import TrainConfig
from saccade.models import create_model
from saccade.systems import inception_v4
from saccade.systems._protocol import reproduce

CONFIG = Path(__file__).parents[2] / "configs" / "inception_v4_paper.yaml"


def test_all_arms_run_and_are_measured(tmp_path, monkeypatch):
    toy = inception_v4.SMALL.replace(
        img_size=8, epochs=1, batch_size=10, model_kwargs={"width": 0.05}
    )
    monkeypatch.setattr(inception_v4, "SMALL", toy)
    monkeypatch.setattr(inception_v4, "SIZES", {"train": 20, "val": 10, "test": 10})
    outcome = reproduce(inception_v4.SYSTEM, data="digits", seeds=1, out=tmp_path, quiet=True)
    result = outcome.result
    assert (result["proposed"]["name"], result["baseline"]["name"]) == ("residual", "no residual")
    assert result["baseline"]["values"] == [pytest.approx(100.0)]
    assert (result["direction"], result["expected"]) == ("lower", 5.0)
    std = result["also"][1]
    assert std["metric"] == inception_v4.STD
    assert std["baseline"]["values"][0] > std["proposed"]["values"][0] > 0
    assert not list((tmp_path / "inception_v4").glob("runs/*"))


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_arms_differ_in_the_residual_connections(scale):
    config = inception_v4.SMALL if scale == "small" else inception_v4.PAPER
    found = []
    for changes in inception_v4.ARMS[scale].values():
        with torch.device("meta"):
            model = create_model(
                changes.get("model", config.model),
                num_classes=10,
                **changes.get("model_kwargs", {}),
            )
        scales = {m.scale for m in model.modules() if type(m).__name__ == "Residual"}
        found.append((scales, sum(p.numel() for p in model.parameters())))
    assert [scales for scales, _ in found] == [{0.2}, {1.0}, set()]
    if scale == "small":
        assert [count for _, count in found] == [171_538, 171_538, 171_218]


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == inception_v4.PAPER
    assert (config.lr, config.lr_decay, config.lr_decay_epochs) == (0.045, 0.94, 2.0)
    assert (config.rmsprop_eps, config.momentum) == (1.0, 0.9)
