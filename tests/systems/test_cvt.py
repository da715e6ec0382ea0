"""The CvT reproduction at a toy size, and its paper configuration."""

from pathlib import Path

import pytest
import torch

from saccade.learn import TrainConfig
from saccade.models import create_model
from saccade.systems import cvt

CONFIG = Path(__file__).parents[2] / "configs" / "cvt_paper.yaml"


def test_all_arms_run_and_are_measured(reproduce_toy):
    toy = {"dims": (8, 8, 16), "heads": (1, 1, 2), "depths": (1, 1, 1), "img_size": 16}
    result = reproduce_toy(
        cvt.SYSTEM, cvt.SMALL.replace(img_size=16, epochs=1, batch_size=10, model_kwargs=toy)
    )
    assert (result["proposed"]["name"], result["baseline"]["name"]) == ("CvT", "no convolution")
    assert 0 <= result["proposed"]["values"][0] <= 100
    assert result["expected"] == 3.0
    assert [entry["direction"] for entry in result["also"]] == ["equal", "higher", "higher"]


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_arms_keep_the_grids_and_differ_in_what_their_names_say(scale):
    config = cvt.SMALL if scale == "small" else cvt.PAPER
    arms = cvt.ARMS if scale == "small" else cvt.PAPER_ARMS
    size = 32 if scale == "small" else 224
    shapes, convolutions, encodings = [], [], []
    for changes in arms.values():
        with torch.device("meta"):
            model = create_model(config.model, **changes["model_kwargs"])
            image = torch.empty(2, 3, size, size)
        shapes.append([tuple(m.shape) for m in model.forward_intermediates(image, [0, 1, 2])])
        names = [type(module).__name__ for module in model.modules()]
        convolutions.append(names.count("BatchNorm2d"))
        encodings.append(any(name.endswith("pos_embed") for name, _ in model.named_parameters()))
    assert all(shape == shapes[0] for shape in shapes)
    assert [count > 0 for count in convolutions] == [True, False, False, True]
    assert encodings == [False, False, True, True]


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == cvt.PAPER
    assert (config.epochs, config.batch_size, config.lr, config.min_lr) == (300, 2048, 2e-3, 1e-5)
