"""What every arm of a reproduction shares, and what it may change."""

import pytest
import torch

from saccade.data import ImageDataModule, load_data
from saccade.learn import TrainConfig
from saccade.systems._arms import ACCURACY, TrainedArms, as_tensors

BASE = TrainConfig(
    model="cnn_svm",
    model_kwargs={"widths": (2, 3), "hidden": 8},
    in_chans=1,
    augment="none",
    epochs=1,
    batch_size=10,
    num_workers=0,
)
SIZES = {"train": 20, "val": 10, "test": 10}


def facts(result):
    return {
        "hidden": result.model.cfg.hidden,
        "first": result.model.cfg.widths[0],
        "images": len(result.datamodule.data.train),
        "loss": result.loss,
        "written": result.folder is not None,
    }


def test_arms_change_the_configuration_and_start_in_order(tmp_path):
    started = []
    arms = {"one": {}, "two": {"model_kwargs": {"hidden": 4}}, "again": {}}
    run = TrainedArms(BASE, BASE, SIZES, arms, measure=facts)
    measured = run("small", "digits", 3, tmp_path, started=started.append)
    assert started == list(measured) == ["one", "two", "again"]
    assert [figures["hidden"] for figures in measured.values()] == [8, 4, 8]
    assert {figures["first"] for figures in measured.values()} == {2}
    assert measured["one"] == measured["again"] != measured["two"]
    assert measured["one"]["images"] == 20
    assert not list(tmp_path.iterdir())
    assert run("small", "digits", 3, tmp_path, arms=("two",)) == {"two": measured["two"]}
    assert run("small", "digits", 4, tmp_path)["one"] != measured["one"]


@pytest.mark.filterwarnings("ignore")
def test_the_papers_scale_takes_all_images_and_leaves_its_runs(tmp_path):
    paper = BASE.replace(batch_size=640)
    run = TrainedArms(BASE, paper, SIZES, {"A": {}}, {"A + b": {}}, facts)
    measured = run("paper", "digits", 3, tmp_path)
    assert measured["A + b"]["images"] == 1295
    assert measured["A + b"]["written"]
    assert (tmp_path / "runs" / "a---b-seed3" / "model.safetensors").is_file()
    kept = TrainConfig.load(tmp_path / "config.yaml")
    assert kept.model_kwargs == {"widths": [2, 3], "hidden": 8}
    assert kept.seed == 3


def test_accuracy_is_the_figure_unless_another_is_asked(tmp_path):
    run = TrainedArms(BASE, BASE, SIZES, {"one": {}})
    assert list(run("small", "digits", 0, tmp_path)["one"]) == [ACCURACY]


def test_a_split_becomes_two_tensors():
    data = load_data("digits").limited(20, 10, 10)
    module = ImageDataModule(data, batch_size=10, in_chans=1)
    images, targets = as_tensors(module, module.test_dataloader())
    assert images.shape == (10, 1, 8, 8)
    torch.testing.assert_close(images[:1], module.normalize(data.test[0][0][None]))
    assert targets.tolist() == [data.test[index][1] for index in range(10)]
