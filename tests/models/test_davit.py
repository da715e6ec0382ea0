"""DaViT: parameter counts, timm's outputs from timm's weights, both attentions."""

import math
from typing import Any

import pytest
import timm
import torch
from torch import nn

from saccade.models import create_model
from saccade.models.davit import ChannelAttention, DaViTConfig, WindowAttention


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("variant", "counts"),
    [
        ("davit_tiny", (28_360_168, 27_598_858)),
        ("davit_small", (49_745_896, 48_984_586)),
        ("davit_base", (87_954_408, 86_939_658)),
        ("davit_large", (196_811_752, 195_290_122)),
        ("davit_huge", (348_922_856, 346_894_346)),
        ("davit_giant", (1_406_470_120, 1_403_427_850)),
    ],
)
def test_parameter_counts_of_paper_and_timm(variant: str, counts: tuple[int, int]) -> None:
    with torch.device("meta"):
        models = [create_model(variant, num_classes=classes) for classes in (1000, 10)]
    assert tuple(map(count, models)) == counts


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    theirs = timm.create_model("davit_tiny", num_classes=10).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(std=0.05)
    ours = create_model("davit_tiny", num_classes=10).eval()
    ours.load_state_dict(ours.checkpoint_filter(theirs.state_dict()))
    return ours, theirs


@pytest.mark.parametrize("size", [(224, 224), (200, 260)], ids=["224", "not a multiple"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_timms_weights_give_timms_outputs(
    pair: tuple[nn.Module, nn.Module], size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    ours, theirs = (model.to(dtype) for model in pair)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=tolerance)


def _filled(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_((0.5 * (0.7 * torch.arange(p.numel()) + i).sin()).view_as(p))
    return layer


def test_channel_attention_of_the_sheet() -> None:
    layer = _filled(ChannelAttention(8, 2))
    y = layer(torch.cos(0.3 * torch.arange(40.0)).view(1, 1, 5, 8))
    expected = [1.0441613, 0.8856022, 0.3352063, -0.3554483]
    expected += [-0.8766254, -0.9993309, -0.6757753, -0.0573968]
    torch.testing.assert_close(y[0, 0, 0], torch.tensor(expected), rtol=0, atol=5e-6)


def test_channel_attention_moves_with_its_tokens() -> None:
    torch.manual_seed(0)
    layer = ChannelAttention(32, 4).double()
    x = torch.randn(2, 1, 30, 32, dtype=torch.float64)
    order = torch.randperm(30)
    torch.testing.assert_close(layer(x[:, :, order]), layer(x)[:, :, order])


def test_channel_attention_survives_half_precision_on_large_maps() -> None:
    torch.manual_seed(0)
    layer = ChannelAttention(32, 1)
    nn.init.zeros_(layer.qkv.bias)
    nn.init.eye_(layer.qkv.weight[32:64].data)
    nn.init.eye_(layer.qkv.weight[64:].data)
    x = torch.full((1, 64, 64, 32), 16.0)
    expected = layer(x)
    y = layer.half()(x.half())
    assert torch.finfo(torch.float16).max < 32**-0.5 * 4096 * 16 * 16
    torch.testing.assert_close(y.float(), expected, rtol=2e-2, atol=2e-2)


def test_windows_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    layer = WindowAttention(16, 2, 4)
    x = torch.randn(1, 8, 10, 16)
    z = x.clone()
    z[:, 1, 1] += 1
    changed = (layer(x) != layer(z)).any(-1)[0]
    assert changed[:4, :4].all()
    assert not changed[4:].any()
    assert not changed[:, 4:].any()


def test_padding_of_a_window_is_attended() -> None:
    torch.manual_seed(0)
    layer = WindowAttention(8, 1, 4).double()
    x = torch.randn(1, 3, 4, 8, dtype=torch.float64)
    tokens = torch.cat([x.reshape(12, 8), torch.zeros(4, 8, dtype=torch.float64)])
    q, k, v = layer.qkv(tokens).chunk(3, -1)
    expected = layer.proj((q @ k.T / math.sqrt(8)).softmax(-1) @ v)[:12].view(1, 3, 4, 8)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    "attention", [("spatial", "channel"), ("spatial", "spatial"), ("channel", "channel")]
)
def test_every_parameter_gets_a_gradient(attention: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = create_model("davit_micro", attention=attention)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    nn.functional.cross_entropy(model(x), torch.tensor([1, 2, 3])).backward()
    zero = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert zero == []
    assert count(model) == count(create_model("davit_micro"))


def test_drop_path_grows_block_by_block() -> None:
    with torch.device("meta"):
        model = create_model("davit_tiny")
    rates = [b.drop_path.rate for b in model.features if hasattr(b, "drop_path")]
    assert rates == pytest.approx(torch.linspace(0, 0.1, 12).tolist())


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("stages", {"depths": (1, 2)}, r"depths must hold .* each of the 4 stages, got \(1, 2\)"),
    ("heads", {"heads": (3, 6, 12, 25)}, "stage 3 has 768 channels and 25 heads"),
    ("kind", {"attention": ("global",)}, r"spatial, channel, got \('global',\)"),
    ("no kind", {"attention": ()}, r"got \(\)"),
    ("window", {"window_size": 0}, "got 0 and 4"),
    ("stem", {"stem_stride": 3}, "2 or 4, got 7 and 3"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DaViTConfig(**options)
