"""Max-ResNet: parameter counts, pooling, shortcuts on the membrane, gradients."""

from typing import Any

import pytest
import torch
from torch import nn

from saccade.models import create_model
from saccade.models._spiking import LIF, activity
from saccade.models.max_resnet import Block, MaxResNetConfig


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def pools(module: nn.Module) -> int:
    return sum(isinstance(m, nn.MaxPool2d) for m in module.modules())


def micro(**options: Any) -> Any:
    torch.manual_seed(0)
    return create_model("max_resnet_micro", **options)


@pytest.mark.parametrize(
    ("variant", "counts"),
    [
        ("max_resnet18", {10: 12_502_090, 100: 12_548_260}),
        # the paper says 11.22 M, for CIFAR-100
        ("max_resnet18_2222", {100: 11_220_132}),
    ],
)
def test_parameter_counts_of_the_paper(variant: str, counts: dict[int, int]) -> None:
    with torch.device("meta"):
        assert {c: count(create_model(variant, num_classes=c)) for c in counts} == counts


def test_two_poolings_are_all_that_differs_from_ms_resnet() -> None:
    with torch.device("meta"):
        ours, theirs = (create_model("max_resnet18", down=down) for down in ("max", "stride"))
    assert (pools(ours), pools(theirs)) == (2, 0)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [
        (n, p.shape) for n, p in theirs.named_parameters()
    ]
    strided = [m for m in theirs.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert len(strided) == 4


@pytest.mark.parametrize("down", ["max", "stride"])
def test_maps_of_the_stages(down: str) -> None:
    with torch.device("meta"):
        maps = create_model("max_resnet18", down=down, features_only=True)(torch.empty(2, 3, 33, 9))
    assert [tuple(m.shape[1:]) for m in maps] == [(128, 33, 9), (256, 17, 5), (512, 9, 3)]


def test_zeroed_last_norm_makes_a_block_the_identity() -> None:
    torch.manual_seed(0)
    block = Block(LIF, 8, 8, None)
    x = torch.randn(2, 3, 8, 6, 5)
    assert not torch.equal(block(x), x)
    nn.init.zeros_(block.unit2.norm.weight)
    assert torch.equal(block(x), x)


def test_pooling_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = Block(LIF, 4, 6, "max").double().eval()
    x = 2 * torch.randn(1, 2, 4, 7, 8, dtype=torch.float64)
    # with one step a neuron is [x / 2 >= 1], and the norms are divisions
    scale = (1 + 1e-5) ** -0.5
    spikes = (x[0] >= 2).double()
    y = scale * nn.functional.conv2d(spikes, block.unit1.conv.weight, padding=1)
    y = nn.functional.max_pool2d(y, 3, 2, padding=1)
    y = nn.functional.conv2d((y >= 2).double(), block.unit2.conv.weight, padding=1)
    shortcut = nn.functional.conv2d(x[0], block.shortcut.conv.weight, stride=2)
    torch.testing.assert_close(block(x)[0], scale * (y + shortcut))


@pytest.mark.parametrize("down", ["max", "stride"])
def test_every_parameter_gets_a_gradient(down: str) -> None:
    model = micro(down=down)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    nn.functional.cross_entropy(model(x), torch.tensor([1, 2, 3])).backward()
    zero = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert zero == []


def test_shortcuts_on_the_membrane_cost_multiplications() -> None:
    result = activity(micro(), torch.randn(2, 3, 32, 32))
    dense = [layer.name for layer in result.layers if not layer.spiking]
    assert dense == ["stem.conv", "features.1.shortcut.conv", "features.2.shortcut.conv"]
    assert result.synaptic_operations > 0


def test_head_averages_spikes_of_the_map() -> None:
    model = micro().double().eval()
    x = torch.randn(2, 16, 64, 5, 4, dtype=torch.float64)
    expected = LIF()(x).mean((0, 3, 4))
    assert expected.any()
    torch.testing.assert_close(model.pool(x), expected)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("stages", {"depths": (1, 2)}, r"a positive number for each stage, got .* \(1, 2\)"),
    ("depth", {"depths": (1, 0, 1)}, "positive"),
    ("down", {"down": "avg"}, "max, stride, got 'avg'"),
    ("reset", {"reset": "none"}, "hard, soft, got 'none'"),
    ("stem", {"stem_width": 0}, "stem_width must be at least 1, got 0"),
    ("tau", {"tau": 0.5}, "at least 1 step, got 0.5"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MaxResNetConfig(**options)
