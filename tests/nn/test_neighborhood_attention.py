"""The layers: what they compute, what their state is called, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from saccade import nn, ops

LAYERS = {
    1: nn.NeighborhoodAttention1d,
    2: nn.NeighborhoodAttention2d,
    3: nn.NeighborhoodAttention3d,
}


@pytest.mark.parametrize("axes", LAYERS)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_is_projection_attention_projection(axes: int, bias: bool) -> None:
    dims = (6, 5, 7)[:axes]
    causal = (True, False, True)[:axes]
    layer = LAYERS[axes](
        12, 3, 3, stride=2, is_causal=causal, qk_scale=0.0 if bias else None, rel_pos_bias=bias
    )
    x = torch.randn(2, *dims, 12, requires_grad=True)
    query, key, value = (part.reshape(2, *dims, 3, 4) for part in layer.qkv(x).chunk(3, dim=-1))
    out = ops.neighborhood_attention(
        query,
        key,
        value,
        3,
        stride=2,
        is_causal=causal,
        scale=0.0 if bias else 0.5,
        bias=layer.rpb,
        backend="reference",
    )
    expected = layer.proj(out.reshape(2, *dims, 12))
    got = layer(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    inputs = (x, *layer.parameters())
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_state_is_named_as_in_nat_checkpoints() -> None:
    layer = nn.NeighborhoodAttention2d(32, 2, (7, 5), rel_pos_bias=True)
    assert {name: tuple(t.shape) for name, t in layer.state_dict().items()} == {
        "rpb": (2, 13, 9),
        "qkv.weight": (96, 32),
        "qkv.bias": (96,),
        "proj.weight": (32, 32),
        "proj.bias": (32,),
    }
    assert set(nn.NeighborhoodAttention1d(8, 2, 3, qkv_bias=False).state_dict()) == {
        "qkv.weight",
        "proj.weight",
        "proj.bias",
    }


def test_bias_table_starts_small() -> None:
    table = nn.NeighborhoodAttention2d(512, 16, 13, rel_pos_bias=True).rpb
    assert table is not None
    assert 0.019 < table.std() < 0.021
    assert abs(table.mean()) < 0.001


def test_small_inputs_are_clamped_when_asked() -> None:
    layer = nn.NeighborhoodAttention2d(8, 2, 7, dilation=2, rel_pos_bias=True, clamp=True)
    assert layer(torch.randn(1, 3, 16, 8)).shape == (1, 3, 16, 8)
    with pytest.raises(ValueError, match=r"axis 0 has 3, got 7 \* 2 = 14"):
        nn.NeighborhoodAttention2d(8, 2, 7, dilation=2)(torch.randn(1, 3, 16, 8))


def test_dropout_is_after_the_projection() -> None:
    layer = nn.NeighborhoodAttention1d(64, 2, 3, proj_drop=0.5)
    x = torch.randn(4, 32, 64)
    zeros = (layer(x) == 0).float().mean()
    assert 0.45 < zeros < 0.55
    assert (layer.eval()(x) == 0).float().mean() < 0.01


def test_says_what_it_is() -> None:
    text = repr(nn.NeighborhoodAttention2d(32, 2, 7, dilation=(1, 2), rel_pos_bias=True))
    for part in ("embed_dim=32", "kernel_size=(7, 7)", "dilation=(1, 2)", "rel_pos_bias=True"):
        assert part in text


def test_half_types_and_device_moves() -> None:
    layer = nn.NeighborhoodAttention2d(16, 2, 3, rel_pos_bias=True).bfloat16()
    assert layer(torch.randn(1, 5, 5, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer.to("meta")(torch.empty(1, 5, 5, 16, dtype=torch.bfloat16, device="meta")).is_meta


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "heads": (lambda: LAYERS[2](10, 3, 3), ValueError, r"which is 10, got num_heads=3"),
    "no-heads": (lambda: LAYERS[2](10, 0, 3), ValueError, r"got num_heads=0"),
    "kernel": (lambda: LAYERS[2](8, 2, (3, 0)), ValueError, r"kernel_size must be at least 1"),
    "kernel-entries": (lambda: LAYERS[3](8, 2, (3, 3)), ValueError, r"3 entries"),
    "causal": (lambda: LAYERS[1](8, 2, 3, is_causal=1), TypeError, r"is_causal must be a bool"),
    "scale": (lambda: LAYERS[1](8, 2, 3, qk_scale="x"), TypeError, r"qk_scale must be a number"),
    "rank": (
        lambda: LAYERS[2](8, 2, 3)(torch.zeros(1, 5, 8)),
        ValueError,
        r"x must have shape \[B, X, Y, C\] with C = 8, got \(1, 5, 8\)",
    ),
    "channels": (
        lambda: LAYERS[1](8, 2, 3)(torch.zeros(1, 5, 6)),
        ValueError,
        r"x must have shape \[B, X, C\] with C = 8, got \(1, 5, 6\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake: str) -> None:
    function, error, sentence = MISTAKES[mistake]
    with pytest.raises(error, match=sentence):
        function()
