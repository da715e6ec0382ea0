"""What every arm of a reproduction shares, and what it may change."""

import pytest

from saccade.learn import TrainConfig
from saccade.systems._arms import train_arms

BASE = TrainConfig(
    model="cnn_svm",
    model_kwargs={"widths": (2, 3), "hidden": 8},
    in_chans=1,
    augment="none",
    epochs=1,
    batch_size=10,
    seed=3,
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
    measured = train_arms(
        BASE, arms, facts, scale="small", sizes=SIZES, out=tmp_path, started=started.append
    )
    assert started == list(measured) == ["one", "two", "again"]
    assert [figures["hidden"] for figures in measured.values()] == [8, 4, 8]
    assert {figures["first"] for figures in measured.values()} == {2}
    assert measured["one"] == measured["again"] != measured["two"]
    assert measured["one"]["images"] == 20
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_the_papers_scale_takes_all_images_and_leaves_its_runs(tmp_path):
    measured = train_arms(
        BASE.replace(batch_size=640), {"A + b": {}}, facts, scale="paper", sizes=SIZES, out=tmp_path
    )
    assert measured["A + b"]["images"] == 1295
    assert measured["A + b"]["written"]
    assert (tmp_path / "runs" / "a---b-seed3" / "model.safetensors").is_file()
    kept = TrainConfig.load(tmp_path / "config.yaml")
    assert kept.model_kwargs == {"widths": [2, 3], "hidden": 8}
    assert kept.seed == 3
