"""`KANLinear` and `FasterKAN`: parameters, state, and what they compute."""

import pytest
import torch
from torch.nn import functional as F

from saccade.nn.kan import FasterKAN, KANLinear
from saccade.ops.kan import kan_linear


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 8 * 6 * 5 + 2 * 6),
        ({"layer_norm": False}, 8 * 6 * 5),
        ({"num_basis": 3}, 3 * 6 * 5 + 2 * 6),
        ({"base": True, "bias": True}, 8 * 6 * 5 + 2 * 6 + 6 * 5 + 5),
        ({"learnable_centres": True, "learnable_width": True}, 8 * 6 * 5 + 2 * 6 + 8 + 1),
    ],
    ids=["default", "no norm", "3 functions", "base and bias", "learnable grid"],
)
def test_parameters(options: dict, count: int) -> None:
    layer = KANLinear(6, 5, **options)
    assert sum(p.numel() for p in layer.parameters()) == count
    assert layer(torch.randn(2, 3, 6)).shape == (2, 3, 5)
    layer(torch.randn(2, 3, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize(("width", "hidden"), [(128, 256), (192, 384), (384, 768), (5, 3)])
def test_stack_has_16ch_2c_2h_parameters(width: int, hidden: int) -> None:
    with torch.device("meta"):
        stack = FasterKAN([width, hidden, width])
    assert (
        sum(p.numel() for p in stack.parameters()) == 16 * width * hidden + 2 * width + 2 * hidden
    )


def test_layer_is_norm_then_operator() -> None:
    torch.manual_seed(0)
    layer = KANLinear(6, 5, base=True, bias=True, centre_range=(-2, 2), inv_width=1 / 0.33)
    torch.nn.init.normal_(layer.layernorm.weight)
    x = torch.randn(4, 6)
    u = F.layer_norm(x, (6,), layer.layernorm.weight, layer.layernorm.bias)
    y = kan_linear(
        u, layer.weight, basis="rswaf", centres=torch.linspace(-2, 2, 8), inv_width=1 / 0.33
    )
    torch.testing.assert_close(layer(x), y + F.silu(x) @ layer.base_weight.T + layer.bias)


def test_state_brings_the_centres_along() -> None:
    trained, fresh = KANLinear(6, 5, centre_range=(-2, 2)), KANLinear(6, 5)
    x = torch.randn(4, 6)
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(fresh(x), trained(x), rtol=0, atol=0)
    assert set(trained.state_dict()) == {"weight", "centres", "layernorm.weight", "layernorm.bias"}


def test_reset_parameters_fills_a_layer_made_on_meta() -> None:
    with torch.device("meta"):
        layer = KANLinear(6, 5, learnable_width=True)
    layer = layer.to_empty(device="cpu")
    layer.layernorm.reset_parameters()
    layer.reset_parameters()
    torch.testing.assert_close(layer.centres, torch.linspace(-1.2, 0.2, 8))
    assert layer.inv_width.item() == 0.5
    assert layer.weight.abs().max() <= (6 / (48 + 5)) ** 0.5
    assert layer.weight.std() > 0.05


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((0, 5), {}, "got 0, 5 and 8"),
        ((6, 5), {"num_basis": 0}, "got 6, 5 and 0"),
        ((6, 5), {"mode": "fasterkan", "learnable_centres": True}, 'mode="exact"'),
    ],
    ids=["no features", "no functions", "learnable in fasterkan"],
)
def test_mistakes_get_a_sentence(arguments: tuple[int, int], options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        KANLinear(*arguments, **options)


def test_stack_needs_two_widths() -> None:
    with pytest.raises(ValueError, match=r"got \[5\]"):
        FasterKAN([5])
