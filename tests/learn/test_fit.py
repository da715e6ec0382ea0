"""A run from end to end, and the promise that an interrupted one ends as if it had not been."""

import json

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from saccade.learn import TrainConfig, fit
from saccade.learn._fit import WRITTEN
from saccade.models import load_model, load_weights
from saccade.models._registry import DefaultCfg, is_model, register_model


class Small(nn.Module):
    """Convolution, batch normalisation, dropout: all that carries state or draws numbers."""

    def __init__(self, num_classes: int = 10, in_chans: int = 3, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.head = nn.Linear(16 * width, num_classes)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))


if not is_model("small_test_model"):

    @register_model(DefaultCfg(source="the tests", input_size=(3, 16, 16)))
    def small_test_model(**options: int) -> Small:
        return Small(**options)


def config(out, **changes):
    base = TrainConfig(
        model="small_test_model",
        train_size=120,
        val_size=40,
        test_size=50,
        epochs=3,
        batch_size=20,
        augment="light",
        mixup=0.3,
        optimizer="sgd",
        lr=0.05,
        warmup_epochs=1,
        clip_grad=1.0,
        out=str(out),
        quiet=True,
    )
    return base.replace(**changes)


class Interrupt(Callback):
    """The power fails in the middle of the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 2:
            raise RuntimeError("power failure")


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(config(tmp_path_factory.mktemp("whole")))


def test_the_run_folder_is_complete(whole):
    names = {p.relative_to(whole.folder).as_posix() for p in whole.folder.rglob("*") if p.is_file()}
    assert (
        names
        == set(WRITTEN)
        == {
            "config.yaml",
            "info.json",
            "metrics.jsonl",
            "metrics.csv",
            "model.safetensors",
            "config.json",
            "figure.png",
            "report.md",
            "checkpoints/last.ckpt",
        }
    )
    assert TrainConfig.load(whole.folder / "config.yaml") == config(whole.folder)
    rows = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == whole.rows
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/auc", "lr"} <= set(
        rows[0]
    )
    assert len((whole.folder / "metrics.csv").read_text().splitlines()) == 4
    assert (
        "torch" in json.loads((whole.folder / "info.json").read_text())["environment"]["packages"]
    )
    assert (whole.folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_states_the_figures(whole):
    text = (whole.folder / "report.md").read_text()
    assert f"**{100 * whole.accuracy:.2f} %** (50 images" in text
    assert "digits: 120 train, 40 validation, 50 test" in text
    assert text.count("\n| 3 |") == 1
    assert int(whole.confusion.sum()) == 50
    assert whole.accuracy == pytest.approx(int(whole.confusion.diagonal().sum()) / 50)


def test_the_checkpoint_holds_model_and_preprocessing(whole):
    again = load_model(whole.folder)
    card = json.loads((whole.folder / "config.json").read_text())
    assert card["input_size"] == [3, 16, 16]
    assert card["classes"] == [str(i) for i in range(10)]
    assert card["mean"] == pytest.approx([0.3053] * 3)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert not load_weights(whole.model, whole.checkpoint)


def test_the_training_checkpoint_is_plain_data(whole):
    state = torch.load(whole.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert {"state_dict", "optimizer_states", "lr_schedulers", "epoch"} <= set(state)
    assert state["epoch"] == 2


@pytest.mark.parametrize("interruptions", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(whole, tmp_path, interruptions):
    interrupted = config(tmp_path)
    with pytest.raises(RuntimeError, match="power failure"):
        fit(interrupted, callbacks=[Interrupt()])
    for _ in range(interruptions - 1):
        with pytest.raises(RuntimeError, match="power failure"):
            fit(interrupted.replace(resume=True), callbacks=[Interrupt()])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    torch.manual_seed(12345)
    resumed = fit(interrupted.replace(resume=True))
    assert without_seconds(resumed.rows) == without_seconds(whole.rows)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
    assert resumed.accuracy == whole.accuracy
    assert (tmp_path / "model.safetensors").read_bytes() == whole.checkpoint.read_bytes()


def test_averaged_weights_resume_and_are_the_ones_that_are_kept(tmp_path):
    averaged = {"ema_decay": 0.9, "lr": 0.2}
    whole = fit(config(tmp_path / "whole", **averaged))
    last = fit(config(tmp_path / "last", lr=0.2), write=False)
    with pytest.raises(RuntimeError, match="power failure"):
        fit(config(tmp_path / "broken", **averaged), callbacks=[Interrupt()])
    resumed = fit(config(tmp_path / "broken", resume=True, **averaged))
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
    weight = "head.weight"
    assert not torch.equal(last.model.state_dict()[weight], whole.model.state_dict()[weight])


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = fit(config(tmp_path, epochs=1))
    again = fit(config(tmp_path, epochs=1, resume=True))
    assert again.rows == first.rows
    assert again.accuracy == first.accuracy


def test_resume_without_a_checkpoint_starts(whole, tmp_path):
    assert fit(config(tmp_path, resume=True)).rows[0]["train/loss"] == whole.rows[0]["train/loss"]


def test_another_configuration_cannot_resume(whole):
    with pytest.raises(
        ValueError, match=r"cannot be resumed with another configuration: lr was 0.05, is 0.01"
    ):
        fit(config(whole.folder, lr=0.01, resume=True))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(whole, tmp_path):
    same = fit(config(tmp_path / "same"), write=False)
    other = fit(config(tmp_path / "other", seed=1), write=False)
    assert without_seconds(same.rows) == without_seconds(whole.rows)
    assert other.rows[0]["train/loss"] != whole.rows[0]["train/loss"]
    assert not list(tmp_path.iterdir())


def test_a_quiet_run_is_silent(tmp_path, capfd, recwarn):
    fit(config(tmp_path, epochs=1))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert [str(w.message) for w in recwarn] == []


def test_plain_lines_where_there_is_no_terminal(tmp_path, capfd):
    fit(config(tmp_path, epochs=2, quiet=False))
    lines = capfd.readouterr().out.splitlines()
    assert [line[:12] for line in lines] == ["epoch   1/2 ", "epoch   2/2 "]
    assert all("val accuracy" in line for line in lines)


def test_a_terminal_gets_a_bar_and_the_same_lines(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    fit(config(tmp_path, epochs=1, quiet=False))
    out = capfd.readouterr().out
    assert "epoch   1/1" in out
    assert "/6 steps" in out


def test_a_new_run_takes_the_old_one_away(tmp_path):
    fit(config(tmp_path, epochs=1))
    with pytest.raises(RuntimeError, match="power failure"):
        fit(config(tmp_path, epochs=2, seed=3), callbacks=[Interrupt()])
    assert not (tmp_path / "model.safetensors").exists()
    assert TrainConfig.load(tmp_path / "config.yaml").seed == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"devices": "0"}, "Lightning cannot run with accelerator cpu, devices 0"),
        (
            {"strategy": "telepathy"},
            "strategy telepathy, precision 32-true: You selected an invalid",
        ),
        ({"precision": "7-mixed"}, "precision 7-mixed: "),
    ],
    ids=["devices", "strategy", "precision"],
)
def test_what_lightning_refuses_is_a_sentence(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(config(tmp_path, **{"accelerator": "cpu", **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "bce", "label_smoothing": 0.1},
        {"optimizer": "adamw", "lr": 1e-3, "cutmix": 1.0},
        {"in_chans": 1, "decay_all": True},
        {"loss": "svm", "svm_c": 2.0, "optimizer": "adam", "lr": 1e-3},
        {"loss": "svm_l1", "mixup": 0.0, "schedule": "constant"},
        {"optimizer": "rmsprop", "schedule": "exponential", "ema_decay": 0.9},
    ],
    ids=["bce", "adamw-cutmix", "gray", "svm", "svm-l1", "rmsprop-ema"],
)
def test_other_options_run(tmp_path, changes):
    result = fit(config(tmp_path, epochs=1, **changes), write=False)
    assert 0 <= result.accuracy <= 1
    assert len(result.rows) == 1


def test_it_learns(tmp_path):
    result = fit(config(tmp_path, train_size=1000, epochs=6, mixup=0.0), write=False)
    assert result.accuracy > 0.85


def test_medvitv2_trains_end_to_end(tmp_path):
    result = fit(
        TrainConfig(
            img_size=24,
            epochs=1,
            train_size=16,
            val_size=10,
            test_size=10,
            batch_size=8,
            out=str(tmp_path),
            quiet=True,
        )
    )
    assert result.checkpoint.is_file()
    assert torch.isfinite(torch.tensor(result.loss))


def test_a_batch_larger_than_the_data(tmp_path):
    with pytest.raises(
        ValueError, match="batch_size must be at most 120, the training images of digits; got 500"
    ):
        fit(config(tmp_path, batch_size=500))
