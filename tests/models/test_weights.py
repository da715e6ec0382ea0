"""Weights on disk: round trips, strictness with one readable sentence, no pickle, no half files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saccade.models import _weights, create_model, load_model, load_weights, save_weights

OPTIONS: dict[str, Any] = {
    "num_classes": 4,
    "in_chans": 1,
    "stem": (8, 8, 8),
    "img_size": (56, 40),
    "ffn": "mlp",
}


def test_saved_model_is_built_again(tmp_path: Path) -> None:
    model = create_model("medvitv2_micro", **OPTIONS).eval()
    with torch.no_grad():
        model.stem[0].norm.running_mean.fill_(0.3)
    path = save_weights(model, tmp_path / "run")
    assert path == tmp_path / "run" / "model.safetensors"
    assert sorted(p.name for p in path.parent.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["architecture"] == "medvitv2_micro"
    x = torch.randn(2, 1, 56, 40)
    for where in (path, path.parent, str(path)):
        again = load_model(where).eval()
        assert again.cfg == model.cfg
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    assert load_model(path, drop_path_rate=0.5).cfg.drop_path_rate == 0.5


def test_backbone_and_new_head_are_built_again(tmp_path: Path) -> None:
    backbone = create_model("medvitv2_micro", features_only=True, out_indices=(-2, 0)).eval()
    again = load_model(save_weights(backbone, tmp_path / "backbone.safetensors")).eval()
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(again(x), backbone(x), rtol=0, atol=0)
    model = create_model("medvitv2_micro")
    model.reset_classifier(6)
    assert load_model(save_weights(model, tmp_path / "head")).num_classes == 6


def test_checkpoint_path_serves_classifier_and_backbone(tmp_path: Path) -> None:
    path = save_weights(create_model("medvitv2_micro", num_classes=4), tmp_path)
    with pytest.raises(ValueError, match=r"2 mismatched: head\.weight"):
        create_model("medvitv2_micro", checkpoint_path=str(path))
    model = create_model("medvitv2_micro", num_classes=4, checkpoint_path=str(path)).eval()
    backbone = create_model("medvitv2_micro", features_only=True, checkpoint_path=str(path)).eval()
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(
        backbone(x), model.forward_intermediates(x, range(4)), rtol=0, atol=0
    )


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def other() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 5), nn.PReLU())


def test_strict_error_names_every_key_and_leaves_the_model_alone(tmp_path: Path) -> None:
    path = save_weights(other(), tmp_path)
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_weights(model, path)
    text = str(caught.value)
    assert "\n" not in text
    assert "does not fit Sequential: 5 missing: 1.weight, 1.bias, 1.running_mean" in text
    assert "1 unexpected: 3.weight" in text
    assert (
        "2 mismatched: 2.weight (file [5, 4], model [2, 4]), 2.bias (file [5], model [2])" in text
    )
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_not_strict_loads_what_fits_and_reports_the_rest(tmp_path: Path) -> None:
    source, model = other(), net()
    report = load_weights(model, save_weights(source, tmp_path), strict=False)
    assert report
    assert report.unexpected == ["3.weight"]
    assert len(report.missing) == 5
    assert len(report.mismatched) == 2
    torch.testing.assert_close(model[0].state_dict(), source[0].state_dict(), rtol=0, atol=0)


def test_excluded_modules_are_left_alone(tmp_path: Path) -> None:
    source, model = net(), net()
    nn.init.zeros_(source[0].weight)
    nn.init.zeros_(source[2].weight)
    report = load_weights(model, save_weights(source, tmp_path), exclude=["2"])
    assert not report
    assert str(report) == "every key was loaded"
    assert not model[0].weight.any()
    assert model[2].weight.any()


def test_long_lists_are_cut(tmp_path: Path) -> None:
    wide = nn.ModuleList([nn.Linear(1, 1) for _ in range(20)])
    with pytest.raises(ValueError, match=r"40 unexpected: .* and 28 more"):
        load_weights(nn.ModuleList(), save_weights(wide, tmp_path))


def test_wrappers_are_taken_off(tmp_path: Path) -> None:
    model = net()
    path = save_weights(torch.compile(model), tmp_path)
    plain = net()
    nn.init.zeros_(model[0].weight)
    load_weights(torch.compile(model), path)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"old{suffix}"
    torch.save(net().state_dict(), path)
    with pytest.raises(
        ValueError,
        match=r"old\.\w+ is a pickle.*save_file\(torch.load\(.*weights_only=True\), \"old.saf",
    ):
        load_weights(net(), path)
    with pytest.raises(ValueError, match="is a pickle"):
        save_weights(net(), path)


def test_files_that_are_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file .*nowhere"):
        load_weights(net(), tmp_path / "nowhere")
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"not a header at all")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_weights(net(), broken)
    with pytest.raises(FileNotFoundError, match="architecture is unknown"):
        load_model(broken)
    for text, sentence in (
        ("{", "is not JSON"),
        ("[]", "must hold"),
        ('{"architecture": 3}', "must hold"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            load_model(tmp_path)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_weights(net(), tmp_path, config={"architecture": "medvitv2_micro"})
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(other(), tmp_path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_config_that_is_not_json_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be JSON: Object of type Tensor"):
        save_weights(
            net(), tmp_path / "new", config={"architecture": "x", "kwargs": {"a": torch.ones(1)}}
        )
    assert not (tmp_path / "new").exists()


def test_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"save_weights needs safetensors.*saccade\[models\]"):
        _weights.save_weights(net(), tmp_path)
