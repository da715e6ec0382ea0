"""Inception: parameter counts, timm's outputs from timm's weights, grids, residual scaling."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from saccade.models import create_model, save_weights
from saccade.models.inception import InceptionConfig, Residual

COUNTS: list[tuple[str, dict[str, Any], int]] = [
    ("inception_v4", {}, 42_679_816),
    ("inception_v4", {"num_classes": 10}, 41_158_186),
    ("inception_resnet_v1", {}, 22_756_328),
    ("inception_resnet_v1", {"num_classes": 10}, 20_981_258),
    ("inception_resnet_v2", {}, 32_433_928),
    ("inception_resnet_v2", {"repeats": (10, 20, 10)}, 55_284_488),
    ("inception_resnet_v2_slim", {}, 55_843_464),
    ("inception_resnet_v2_slim", {"num_classes": 10}, 54_321_834),
]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "options", "expected"), COUNTS)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count(create_model(name, **options)) == expected


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_timms_weights_give_timms_outputs(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("inception_v4", num_classes=10).to(dtype).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn_like(p))
    ours = create_model("inception_v4", num_classes=10).to(dtype).eval()
    state = theirs.state_dict()
    ours.load_state_dict(ours.checkpoint_filter(state))
    assert ours.checkpoint_filter(ours.state_dict()).keys() == ours.state_dict().keys()
    x = torch.randn(1, 3, 149, 160, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("inception_v4", [384, 1024, 1536]),
        ("inception_resnet_v1", [256, 896, 1792]),
        ("inception_resnet_v2", [384, 1152, 2144]),
    ],
)
def test_grids_of_the_paper(name: str, widths: list[int]) -> None:
    with torch.device("meta"):
        model = create_model(name, features_only=True).eval()
        maps = model(torch.empty(1, 3, 299, 299))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (width, side, side) for width, side in zip(widths, (35, 17, 8), strict=True)
    ]


def test_residual_block_is_linear_in_its_scale() -> None:
    torch.manual_seed(0)
    cfg = InceptionConfig(layers="resnet_v2", width=0.125)
    block = Residual(32, ("32 1x1", "32 1x1, 64 1x7, 64 7x1"), cfg).double().eval()
    block.act = nn.Identity()
    x = torch.randn(2, 32, 9, 9, dtype=torch.float64)
    outputs = []
    for scale in (0.0, 0.1, 1.0):
        block.scale = scale
        outputs.append(block(x))
    torch.testing.assert_close(outputs[0], x)
    torch.testing.assert_close(outputs[2] - x, 10 * (outputs[1] - x))


def test_average_pooling_leaves_the_padding_out() -> None:
    with torch.device("meta"):
        model = create_model("inception_v4")
    pools = [m for m in model.modules() if isinstance(m, nn.AvgPool2d)]
    assert len(pools) == 14
    assert not any(pool.count_include_pad for pool in pools)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "plain"])
def test_every_parameter_gets_a_gradient(residual: bool) -> None:
    torch.manual_seed(0)
    model = create_model("inception_resnet_micro", residual=residual, drop_rate=0.0)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    nn.functional.cross_entropy(model(x), torch.tensor([1, 2, 3])).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_slim_is_behind_the_same_methods() -> None:
    model = create_model("inception_resnet_v2_slim", num_classes=4, in_chans=1).eval()
    x = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 4)
        torch.testing.assert_close(model.forward_head(model.forward_features(x)), logits)
        wanted = model.forward_intermediates(x, (3, 1))
    backbone = create_model(
        "inception_resnet_v2_slim", in_chans=1, features_only=True, out_indices=(3, 1)
    )
    with torch.no_grad():
        maps = backbone.eval()(x)
    assert [m.shape for m in maps] == [m.shape for m in wanted]
    assert [m.shape[1] for m in maps] == backbone.feature_info.channels()
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    with pytest.raises(NotImplementedError, match="checkpointing"):
        model.set_grad_checkpointing()


def test_slim_loads_timms_weights(tmp_path: Path) -> None:
    theirs = timm.create_model("inception_resnet_v2", num_classes=3, in_chans=1).eval()
    path = save_weights(theirs, tmp_path, {})
    ours = create_model(
        "inception_resnet_v2_slim", num_classes=3, in_chans=1, checkpoint_path=str(path)
    ).eval()
    x = torch.randn(1, 1, 75, 75)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2_slim"])
def test_images_that_no_map_is_left_of(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    with pytest.raises(ValueError, match="at least 75 x 75 pixels, got 74 x 80"):
        model(torch.zeros(1, 3, 74, 80, device="meta"))


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("layers", {"layers": "v3"}, "v4, resnet_v1, resnet_v2, got 'v3'"),
    ("stem", {"stem": "small"}, "paper, cifar, got 'small'"),
    ("repeats", {"repeats": (1, 2)}, r"3 numbers, .* got \(1, 2\)"),
    ("no first block", {"repeats": (0, 1, 1)}, r"the first at least 1 .* got \(0, 1, 1\)"),
    ("width", {"width": 0.0}, "above 0, got 0"),
    ("drop path", {"drop_path_rate": 0.1}, "must be 0: .* got 0.1"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        InceptionConfig(**options)
