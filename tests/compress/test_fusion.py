"""Fusion of a network with its permuted copy gives the network back."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn

from saccade.compress.fusion import align, fuse


def perceptron() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 17), nn.ReLU(), nn.Linear(17, 5)
    )


def convolutional() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 4 * 4, 20), nn.ReLU(), nn.Linear(20, 6),
    )  # fmt: skip
    with torch.no_grad():
        for values in net[1].state_dict().values():
            if values.is_floating_point():
                values.copy_(torch.rand_like(values) + 0.5)
    return net.eval()


def permuted(net: nn.Sequential) -> nn.Sequential:
    """The same function with its hidden neurons in another order."""
    other = copy.deepcopy(net)
    layers = [m for m in other if any(True for _ in m.parameters())]
    order = None
    with torch.no_grad():
        for k, layer in enumerate(layers):
            if isinstance(layer, nn.BatchNorm2d):
                for values in layer.state_dict().values():
                    if values.is_floating_point():
                        values.copy_(values[order].clone())
                continue
            weight = layer.weight
            if order is not None:
                grouped = weight.reshape(weight.shape[0], len(order), -1)[:, order]
                weight.copy_(grouped.reshape(weight.shape).clone())
            if k < len(layers) - 1:
                order = torch.randperm(weight.shape[0])
                weight.copy_(weight[order].clone())
                if layer.bias is not None:
                    layer.bias.copy_(layer.bias[order].clone())
    return other


NETWORKS = {"perceptron": (perceptron, (32, 10)), "convolutional": (convolutional, (8, 3, 8, 8))}

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "cosine": {"metric": "cosine"},
    "max": {"normalise": "max"},
    "mean": {"normalise": "mean"},
    "median": {"normalise": "median"},
    "log1p": {"normalise": "log1p"},
    "importance": {"marginals": "importance"},
    "sinkhorn": {"solver": "sinkhorn", "normalise": "max", "eps": 2e-3, "max_iter": 500},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_permuted_copy_gives_the_network_back(name: str, options: str) -> None:
    make, shape = NETWORKS[name]
    net, x = make(), torch.randn(shape)
    other = permuted(net)
    torch.testing.assert_close(other(x), net(x), rtol=1e-4, atol=1e-5)
    plain = [(a + b) / 2 for a, b in zip(net.parameters(), other.parameters(), strict=True)]
    assert any((p - q).abs().max() > 1e-2 for p, q in zip(plain, net.parameters(), strict=True))
    fused = fuse(other, net, **OPTIONS[options])
    torch.testing.assert_close(fused(x), net(x), rtol=0, atol=1e-5)
    for (key, a), b in zip(fused.state_dict().items(), net.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_widths_may_differ() -> None:
    wide = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
    narrow = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    aligned = align(wide, narrow)
    assert aligned[0].weight.shape == (6, 4)
    # every row is a mean of rows of the wide network
    assert aligned[0].weight.max() <= wide[0].weight.max() + 1e-6


def test_share_goes_from_source_to_target() -> None:
    source, target = perceptron(), perceptron()
    for share, expected in ((0.0, align(source, target)), (1.0, target)):
        fused = fuse(source, target, share)
        for a, b in zip(fused.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b)


ERRORS: dict[str, tuple[Any, type[Exception], str]] = {
    "metric": (lambda n: align(n, n, metric="l1"), ValueError, "metric must be one of euclidean"),
    "solver": (lambda n: align(n, n, solver="auction"), ValueError, "solver must be one of exact"),
    "normalise": (lambda n: align(n, n, normalise="sum"), ValueError, "normalise must be one of"),
    "marginals": (lambda n: align(n, n, marginals="l2"), ValueError, "marginals must be one of"),
    "share": (lambda n: fuse(n, n, 1.5), ValueError, "share must be in [0, 1], got 1.5."),
    "layers": (lambda n: align(n, n[:3]), ValueError, "must have the same layers"),
    "kind": (
        lambda n: align(nn.LayerNorm(3), n),
        NotImplementedError,
        "source must be a stack of Linear, Conv2d and BatchNorm layers, got LayerNorm",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    call, error, text = ERRORS[case]
    with pytest.raises(error, match=re.escape(text)):
        call(perceptron())
