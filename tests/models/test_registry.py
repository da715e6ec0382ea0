"""timm's grammar: names, options, features, and what every registered classifier must offer."""

from typing import Any

import pytest
import torch
from torch import nn

from saccade.models import (
    DefaultCfg,
    create_model,
    default_cfg,
    is_model,
    list_models,
    register_model,
)

NAMES = ["medvitv2_base", "medvitv2_large", "medvitv2_micro", "medvitv2_small", "medvitv2_tiny"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, NAMES),
        ({"filter": "*_tiny"}, ["medvitv2_tiny"]),
        ({"filter": ["*_tiny", "*_base"]}, ["medvitv2_base", "medvitv2_tiny"]),
        (
            {"module": "medvitv2", "exclude_filters": ["*_micro", "*_s*"]},
            [NAMES[0], NAMES[1], NAMES[4]],
        ),
        ({"module": "resnet"}, []),
        ({"filter": "*kan*"}, []),
    ],
    ids=["all", "wildcard", "two wildcards", "module and exclusions", "no module", "no match"],
)
def test_list_models(arguments: dict[str, Any], names: list[str]) -> None:
    assert [name for name in list_models(**arguments) if name.startswith("medvitv2")] == names


def test_names_sort_as_people_count() -> None:
    def net_10(**options: Any) -> nn.Module:
        return create_model("medvitv2_micro", **options)

    def net_9(**options: Any) -> nn.Module:
        return create_model("medvitv2_micro", **options)

    from saccade.models import _registry

    before = dict(_registry._models)
    try:
        for build in (net_10, net_9):
            assert register_model(DefaultCfg(source="a test"))(build) is build
        assert list_models("net_*") == ["net_9", "net_10"]
        assert is_model("net_9")
        with pytest.raises(ValueError, match="'net_9' is taken"):
            register_model(DefaultCfg(source="a test"))(net_9)
    finally:
        _registry._models.clear()
        _registry._models.update(before)
    assert not is_model("net_9")


MISTAKES: list[tuple[str, str, dict[str, Any], str]] = [
    ("unknown", "medvitv2_tinny", {}, "no model 'medvitv2_tinny' .* did you mean medvitv2_tiny"),
    ("far", "xyz", {}, r"list_models\(\) shows them"),
    (
        "pretrained",
        "medvitv2_tiny",
        {"pretrained": True},
        "no weights, for medvitv2_tiny .* checkpoint_path",
    ),
    (
        "indices alone",
        "medvitv2_micro",
        {"out_indices": (1,)},
        r"out_indices=\[1\] needs features_only=True",
    ),
    (
        "index 4",
        "medvitv2_micro",
        {"features_only": True, "out_indices": (4,)},
        r"-4 to 3, got \[4\]",
    ),
    ("no index", "medvitv2_micro", {"features_only": True, "out_indices": ()}, r"got \[\]"),
    ("index twice", "medvitv2_micro", {"features_only": True, "out_indices": (3, -1)}, "once"),
    ("option", "medvitv2_micro", {"depth": (1, 1, 3, 1)}, "did you mean depths"),
    ("far option", "medvitv2_micro", {"zzz": 1}, "it has stem, dims"),
]


@pytest.mark.parametrize(
    ("name", "options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(name: str, options: dict[str, Any], text: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=text):
        create_model(name, **options)


@pytest.mark.parametrize("name", list_models(exclude_filters="*_test_model"))
def test_cfg_tells_the_truth(name: str) -> None:
    cfg = default_cfg(name)
    with torch.device("meta"):
        model = create_model(name).eval()
        image = torch.empty(1, *cfg.input_size)
        assert model(image).shape == (1, cfg.num_classes)
        assert model(torch.empty(1, *cfg.min_input_size)).shape == (1, cfg.num_classes)
        assert [f.shape[1] for f in create_model(name, features_only=True)(image)] == [
            info["num_chs"] for info in model.feature_info
        ]
    assert model.get_submodule(cfg.classifier) is model.get_classifier()
    assert model.get_submodule(cfg.first_conv).in_channels == cfg.input_size[0]
    assert model.default_cfg is cfg
    assert cfg.source.startswith("https://")


def test_classifier_can_be_changed() -> None:
    model = create_model("medvitv2_micro", in_chans=1).double().eval()
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    assert model(x).shape == (2, 10)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    assert model.num_classes == 3
    assert model.get_classifier().weight.dtype == torch.float64
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), pooled)
    assert pooled.shape == (2, model.num_features)


@pytest.mark.parametrize(
    "indices", [None, (0, 2), (-1, 1), (1,)], ids=["all", "two", "backwards", "one"]
)
def test_features_are_the_maps_of_the_stages(indices: tuple[int, ...] | None) -> None:
    x = torch.randn(1, 3, 56, 40)
    torch.manual_seed(0)
    whole = create_model("medvitv2_micro").eval()
    torch.manual_seed(0)
    backbone = create_model("medvitv2_micro", features_only=True, out_indices=indices).eval()
    wanted = [i % 4 for i in (indices or range(4))]
    with torch.no_grad():
        maps = backbone(x)
        torch.testing.assert_close(maps, whole.forward_intermediates(x, wanted))
    assert [m.shape[1] for m in maps] == backbone.feature_info.channels()
    sizes = [(-(-56 // r), -(-40 // r)) for r in backbone.feature_info.reduction()]
    assert [tuple(m.shape[2:]) for m in maps] == sizes
    backbone.train().set_grad_checkpointing()
    sum(m.square().mean() for m in backbone(x.repeat(2, 1, 1, 1))).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_parameter_groups_cover_every_block() -> None:
    import re

    with torch.device("meta"):
        model = create_model("medvitv2_micro")
    assert model.no_weight_decay() == set()
    names = [name for name, _ in model.named_parameters() if not name.startswith("head")]
    for coarse in (False, True):
        matcher = model.group_matcher(coarse)
        blocks = matcher["blocks"]
        patterns = [matcher["stem"]] + ([blocks] if coarse else [pattern for pattern, _ in blocks])
        assert all(sum(bool(re.match(p, name)) for p in patterns) == 1 for name in names)


def test_head_dropout_acts_in_training_alone() -> None:
    model = create_model("medvitv2_micro", drop_rate=0.9)
    maps = torch.ones(4, 192, 2, 2)
    assert (model.forward_head(maps, pre_logits=True) == 0).float().mean() > 0.8
    assert torch.equal(model.eval().forward_head(maps, pre_logits=True), torch.ones(4, 192))
