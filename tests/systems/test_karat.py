"""The KArAt reproduction at a toy size, and its paper configuration."""

from pathlib import Path

import torch

from saccade.learn import TrainConfig
from saccade.models import create_model
from saccade.systems import karat

CONFIG = Path(__file__).parents[2] / "configs" / "karat_paper.yaml"


def test_all_arms_run_and_are_measured(reproduce_toy):
    toy = {"dim": 16, "heads": 2, "depth": 2, "img_size": 16, "rank": 3}
    result = reproduce_toy(
        karat.SYSTEM, karat.SMALL.replace(img_size=16, epochs=1, batch_size=10, model_kwargs=toy)
    )
    assert (result["proposed"]["name"], result["baseline"]["name"]) == ("G3B", "softmax")
    assert 0 <= result["proposed"]["values"][0] <= 100
    assert result["expected"] == -2.0
    rank = result["also"][-1]
    assert rank["proposed"]["values"][0] <= 3 < rank["baseline"]["values"][0] <= 17


def test_arms_differ_in_what_their_names_say():
    models = []
    for changes in karat.ARMS.values():
        with torch.device("meta"):
            models.append(create_model(karat.SMALL.model, **changes["model_kwargs"]))
    operators = [sum(n.endswith("phi") for n, _ in m.named_parameters()) for m in models]
    frozen = [sum(not p.requires_grad for p in m.parameters()) for m in models]
    assert operators == [0, 4, 1, 4]
    assert frozen == [0, 0, 0, 4]


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == karat.PAPER
    assert (config.epochs, config.batch_size, config.lr, config.min_lr) == (100, 32, 3.125e-5, 1e-5)
