"""The CNN-SVM reproduction at a toy size, and its paper configuration."""

from pathlib import Path

from saccade.learn import TrainConfig
from saccade.systems import cnn_svm

CONFIG = Path(__file__).parents[2] / "configs" / "cnn_svm_paper.yaml"


def test_both_arms_run_and_are_measured(reproduce_toy):
    small = {"widths": (2, 3), "hidden": 8}
    result = reproduce_toy(
        cnn_svm.SYSTEM, cnn_svm.SMALL.replace(epochs=1, batch_size=10, model_kwargs=small)
    )
    assert (result["proposed"]["name"], result["baseline"]["name"]) == ("CNN-SVM", "CNN-Softmax")
    assert 0 <= result["proposed"]["values"][0] <= 100
    assert (result["direction"], result["expected"]) == ("equal", 1.0)


def test_arms_differ_in_the_loss_alone():
    assert cnn_svm.ARMS == {"CNN-SVM": {"loss": "svm"}, "CNN-Softmax": {"loss": "ce"}}


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == cnn_svm.PAPER
    # MNIST keeps 54,000 of its images for training
    assert config.epochs * (54_000 // config.batch_size) == 10_104
