"""The MedViTV2 reproduction at a toy size, and its paper configuration."""

from pathlib import Path

import pytest

from saccade.learn import TrainConfig
from saccade.models import is_model
from saccade.systems import medvitv2

CONFIG = Path(__file__).parents[2] / "configs" / "medvitv2_paper.yaml"


def test_all_arms_run_and_are_measured(reproduce_toy):
    result = reproduce_toy(
        medvitv2.SYSTEM, medvitv2.SMALL.replace(img_size=24, epochs=1, batch_size=10)
    )
    assert result["baseline"]["name"] == "MLP + undilated"
    assert result["proposed"]["name"] == "KAN + dilated"
    assert 0 <= result["proposed"]["values"][0] <= 100
    assert {entry["baseline"]["name"] for entry in result["also"]} >= {
        "MLP + dilated",
        "KAN + undilated",
        "KAN + dilated, legacy layout",
    }
    assert result["expected"] == -2.0


def test_arms_differ_in_what_their_names_say():
    options = {arm: changes["model_kwargs"] for arm, changes in medvitv2.ARMS.items()}
    assert len({str(option) for option in options.values()}) == 5
    assert options["KAN + dilated"] == {"ffn": "kan", "dilation": "dinat"}
    assert options["MLP + undilated"] == {"ffn": "mlp", "dilation": "none"}


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == medvitv2.PAPER
    assert is_model(config.model)
    assert (config.epochs, config.batch_size, config.lr, config.min_lr) == (100, 24, 1e-4, 5e-6)


@pytest.mark.parametrize("file", sorted(CONFIG.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_loads(file):
    assert is_model(TrainConfig.load(file).model)
