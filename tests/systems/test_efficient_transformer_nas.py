"""The architecture search's reproduction at a toy size, and its paper configuration."""

import dataclasses
from pathlib import Path

import pytest

from saccade.learn import TrainConfig
from saccade.systems import efficient_transformer_nas as nas
from saccade.systems._protocol import reproduce

CONFIG = Path(__file__).parents[2] / "configs" / "efficient_transformer_nas_paper.yaml"


@pytest.mark.parametrize("candidates", [10, 0], ids=["random", "evolution"])
def test_all_arms_run_and_are_measured(tmp_path, monkeypatch, candidates):
    if not candidates:
        from saccade.compress import search

        tiny = search.EvolutionConfig(4, 4, 4, iterations=2)
        monkeypatch.setattr(
            search, "evolve", lambda *a, **k: search.evolution.evolve(*a, config=tiny, **k)
        )
    toy = dataclasses.replace(
        nas.SCALES["small"],
        recipe=nas.SMALL.replace(epochs=1, batch_size=400),
        supernet={"epochs": 1, "batch_size": 400},
        learned=6,
        held=4,
        candidates=candidates,
        # as the paper's scale has it, which evolves
        **({} if candidates else {"objective": "regression", "split": (0.8, 0.1, 0.1)}),
    )
    monkeypatch.setitem(nas.SCALES, "small", toy)
    outcome = reproduce(nas.SYSTEM, data="digits", seeds=1, out=tmp_path, quiet=True)
    result = outcome.result
    assert (result["proposed"]["name"], result["baseline"]["name"]) == ("mixed", "softmax")
    assert 0 <= result["proposed"]["values"][0] <= 100
    work = {
        entry[side]["name"]: entry[side]["values"][0]
        for entry in result["also"]
        for side in ("proposed", "baseline")
        if entry["metric"] == nas.WORK
    }
    assert work["mixed"] > 0
    floor, *_ = result["also"]
    assert floor["metric"] == nas.TAU
    assert not list((tmp_path / nas.SYSTEM.name).glob("runs/*"))


def test_from_16_tokens_on_cosformer_is_cheaper():
    from saccade.compress.search.cost import layer_macs

    spaces = nas.spaces("small", 8)
    assert {space.img_size for space in spaces.values()} == {8}
    assert {space.img_size for space in nas.spaces("small", 28).values()} == {28}
    softmax, linear = (
        spaces[name].config(spaces[name].largest(), in_chans=1) for name in ("softmax", "efficient")
    )
    assert softmax.tokens == 17
    assert layer_macs(softmax, 0, 16) == layer_macs(linear, 0, 16)
    assert layer_macs(softmax, 0) > layer_macs(linear, 0)


def test_the_paper_configuration_is_the_one_in_configs():
    config = TrainConfig.load(CONFIG)
    assert config == nas.PAPER
    # 45,000 training images
    assert 45_000 // 64 * config.epochs == pytest.approx(140_000, rel=5e-3)
    supernet = nas.SCALES["paper"].supernet
    assert 45_000 // 256 * supernet["epochs"] == pytest.approx(140_000, rel=5e-3)
    assert config.warmup_epochs * (45_000 // 64) == pytest.approx(976, rel=5e-3)
    assert nas.spaces("paper", 32)["mixed"].count() > 4e23
