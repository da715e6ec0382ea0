"""The DaViT reproduction at a toy size, and its paper configuration."""

from pathlib import Path

from saccade.learn import TrainConfig
from saccade.models import create_model
from saccade.systems import davit

CONFIG = Path(__file__).parents[2] / "configs" / "davit_paper.yaml"


def test_all_arms_run_and_are_measured(reproduce_toy):
    toy = {"dims": (8, 16), "heads": (1, 2), "depths": (1, 1), "window_size": 2}
    result = reproduce_toy(
        davit.SYSTEM, davit.SMALL.replace(img_size=8, epochs=1, batch_size=10, model_kwargs=toy)
    )
    assert result["proposed"]["name"] == "windows + channels"
    assert result["baseline"]["name"] == "windows twice"
    assert 0 <= result["proposed"]["values"][0] <= 100
    assert [entry["baseline"]["name"] for entry in result["also"]] == ["channels twice"]


def test_arms_have_equally_many_parameters_and_other_blocks():
    models = [
        create_model(davit.SMALL.model, **changes["model_kwargs"])
        for changes in davit.ARMS.values()
    ]
    assert len({sum(p.numel() for p in model.parameters()) for model in models}) == 1
    blocks = [[type(m).__name__ for m in model.modules()] for model in models]
    counts = [(names.count("WindowAttention"), names.count("ChannelAttention")) for names in blocks]
    assert counts == [(4, 4), (8, 0), (0, 8)]


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == davit.PAPER
    assert (config.epochs, config.batch_size, config.lr, config.clip_grad) == (300, 1024, 1e-3, 1.0)
