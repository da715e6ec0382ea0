"""The layers against SpikingJelly and snnTorch, where they are installed."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from saccade import nn

PAIRS = {
    "sigmoid": "Sigmoid",
    "atan": "ATan",
    "piecewise_quadratic": "PiecewiseQuadratic",
    "piecewise_exp": "PiecewiseExp",
    "soft_sign": "SoftSign",
    "super_spike": "SuperSpike",
    "erf": "Erf",
    "rectangle": "Rect",
}


def peer(name: str) -> Any:
    """A module of a package that need not be there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not importable: {error}")


@pytest.mark.parametrize("reset", [0.0, -0.3, None], ids=["zero", "minus", "soft"])
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", ["IFNode", "LIFNode", "ParametricLIFNode"])
def test_equals_spikingjelly(kind: str, name: str, reset: float | None) -> None:
    neuron = peer("spikingjelly.activation_based.neuron")
    surrogate = peer("spikingjelly.activation_based.surrogate")
    options: dict[str, Any] = {"v_reset": reset, "step_mode": "m", "store_v_seq": True}
    options |= {"LIFNode": {"tau": 2.7}, "ParametricLIFNode": {"init_tau": 1.9}}.get(kind, {})
    theirs = getattr(neuron, kind)(surrogate_function=getattr(surrogate, PAIRS[name])(), **options)
    ours = getattr(nn, kind)(surrogate=name, **options)
    results = []
    for node in (ours, theirs):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(5, 3, 4, 2, generator=generator).requires_grad_()
        # the potential is carried from the first call to the second
        spikes = torch.cat([node(2 * x[:2]), node(2 * x[2:])])
        weight = torch.randn(spikes.shape, generator=generator)
        wanted = [x, *node.parameters()]
        grads = torch.autograd.grad((spikes * weight).sum() + node.v.square().sum(), wanted)
        results.append((spikes, node.v, node.v_seq, *grads))
    assert torch.equal(results[0][0], results[1][0])
    assert 0 < results[0][0].mean() < 1
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
def test_equals_snntorch(mechanism: str) -> None:
    snntorch = peer("snntorch")
    theirs = snntorch.Leaky(beta=0.7, reset_mechanism=mechanism, reset_delay=False)
    # snnTorch subtracts once more in the step after where the threshold is still exceeded
    x = torch.randn(6, 3, 5).clamp(max=0.99)
    mem, spikes = torch.zeros(3, 5), []
    for step in x:
        spike, mem = theirs(step, mem)
        spikes.append(spike)
    got, last = nn.Leaky(beta=0.7, reset_mechanism=mechanism)(x)
    assert torch.equal(got, torch.stack(spikes))
    assert got.any()
    torch.testing.assert_close(last, mem, rtol=1e-5, atol=1e-6)


def test_single_steps_equal_many() -> None:
    x = torch.randn(6, 2, 3, requires_grad=True)
    single, many = nn.LIFNode(), nn.LIFNode(step_mode="m")
    spikes = torch.stack([single(step) for step in x])
    assert torch.equal(spikes, many(x))
    assert torch.equal(single.v, many.v)
    nn.reset_net(torch.nn.Sequential(single, many))
    assert single.v is None
    assert many.v is None


def test_plif_learns_its_time_constant() -> None:
    node = nn.ParametricLIFNode(init_tau=3.0, step_mode="m")
    assert node.time_constant().item() == pytest.approx(3.0)
    node(torch.randn(4, 2, 9)).sum().backward()
    assert node.w.grad.abs() > 0


MISTAKES = {
    "step-mode": (lambda: nn.LIFNode(step_mode="x"), ValueError, "step_mode"),
    "tau": (lambda: nn.LIFNode(tau=0.5), ValueError, "tau must be at least 1 step"),
    "tau-type": (lambda: nn.LIFNode(tau="2"), TypeError, "tau must be a number"),
    "init-tau": (lambda: nn.ParametricLIFNode(init_tau=1.0), ValueError, "above 1, got 1.0"),
    "surrogate": (lambda: nn.IFNode(surrogate="x"), ValueError, "surrogate must be one of"),
    "beta": (lambda: nn.Leaky(beta=1.5), ValueError, "beta must be between 0 and 1, got 1.5"),
    "mechanism": (lambda: nn.Leaky(0.5, reset_mechanism="none"), ValueError, "reset_mechanism"),
}


@pytest.mark.parametrize(("call", "kind", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(call: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        call()
