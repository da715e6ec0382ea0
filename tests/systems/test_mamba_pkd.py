"""The Mamba-PKD reproduction at a toy size, and its paper configuration."""

from pathlib import Path

import pytest
import torch

from saccade.compress import AnytimeEnsemble
from saccade.data import load_data
from saccade.learn import TrainConfig
from saccade.models import create_model
from saccade.systems import mamba_pkd
from saccade.systems._protocol import reproduce

CONFIG = Path(__file__).parents[2] / "configs" / "mamba_pkd_paper.yaml"


def test_all_arms_run_and_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(mamba_pkd, "SMALL", mamba_pkd.SMALL.replace(epochs=1, batch_size=10))
    monkeypatch.setitem(mamba_pkd.DISTILLED, "small", {"epochs": 1, "batch_size": 10})
    monkeypatch.setattr(mamba_pkd, "STUDENTS", {"small": mamba_pkd.STUDENTS["small"][:2]})
    monkeypatch.setattr(mamba_pkd, "SIZES", {"train": 20, "val": 10, "test": 20})
    outcome = reproduce(mamba_pkd.SYSTEM, data="digits", seeds=1, out=tmp_path, quiet=True)
    result = outcome.result
    assert (result["proposed"]["name"], result["baseline"]["name"]) == ("residual", "teacher")
    assert 0 <= result["proposed"]["values"][0] <= 100
    work = result["also"][0]
    assert 0 < work["proposed"]["values"][0] < 30
    assert work["baseline"]["values"] == [100.0]
    assert result["expected"] == -1.5


def test_five_small_students_cost_less_than_the_teacher():
    ensemble = AnytimeEnsemble([create_model(name) for name in mamba_pkd.STUDENTS["small"]])
    fractions = ensemble.fractions(create_model(mamba_pkd.SMALL.model), torch.zeros(1, 1, 8, 8))
    assert fractions == sorted(fractions)
    assert fractions[-1] < 0.7


def test_moved_copies_keep_their_classes():
    data = load_data("digits").limited(20, 10, 10)
    moved = mamba_pkd._moved(data).train
    assert len(moved) == 100
    assert torch.equal(moved.targets, data.train.targets.repeat(5))
    assert moved.images.dtype == torch.uint8
    originals = data.train.images.double().flatten(1)
    nearest = torch.cdist(moved.images.double().flatten(1), originals).argmin(1)
    # 0.05 by chance, 0.74 observed
    assert (nearest == torch.arange(20).repeat(5)).double().mean() > 0.4
    assert torch.equal(moved.images, mamba_pkd._moved(data).train.images)


def test_the_fall_is_the_largest_between_two_prefixes(monkeypatch):
    ensemble = AnytimeEnsemble([create_model(f"mamba_pkd_micro_s{k}") for k in (1, 2, 3)])
    targets = torch.tensor([0, 1, 2, 3])
    answers = [[0, 1, 2, 3], [0, 1, 9, 9], [0, 1, 2, 9]]
    logits = [(torch.eye(10)[torch.tensor(classes)], None) for classes in answers]
    monkeypatch.setattr(ensemble, "run", lambda images: iter(logits))
    teacher = create_model("mamba_pkd_micro_teacher")
    found = mamba_pkd._measure(ensemble, teacher, torch.zeros(4, 1, 8, 8), targets)
    assert found[mamba_pkd.ACCURACY] == pytest.approx(75)
    assert found[mamba_pkd.FALL] == pytest.approx(50)


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == mamba_pkd.PAPER
    assert (config.epochs, config.batch_size, config.lr, config.weight_decay) == (
        20,
        128,
        1e-3,
        0.05,
    )
