"""The layers of scans: what they compute, what their state is called, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saccade import nn


def loop(layer: nn.SelectiveScan, u: Tensor) -> Tensor:
    """The selective scan with its projections, a step at a time."""
    A = -layer.A_log.exp()
    state, outs = torch.zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[1]):
        dt, B, C = layer.x_proj(u[:, t]).split([layer.dt_rank, layer.state, layer.state], -1)
        step = F.softplus(layer.dt_proj(dt))[..., None]
        state = (step * A).exp() * state + step * B[:, None] * u[:, t, :, None]
        outs.append((state * C[:, None]).sum(-1) + layer.D * u[:, t])
    return torch.stack(outs, 1)


def mamba(block: nn.Mamba, x: Tensor) -> Tensor:
    """The block with torch's convolution and the loop."""
    inner, gate = block.in_proj(x).chunk(2, -1)
    length, taps = x.shape[1], block.kernel_size
    conv = F.conv1d(
        inner.mT, block.conv1d.weight, block.conv1d.bias, padding=taps - 1, groups=block.channels
    )
    y = loop(block, F.silu(conv[..., :length]).mT)
    return block.out_proj(y * F.silu(gate))


def check(layer: torch.nn.Module, expected: Callable[..., Tensor], x: Tensor) -> None:
    """Result and all gradients."""
    x = x.requires_grad_()
    inputs = (x, *layer.parameters())
    results = [layer(x), expected(layer, x)]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    grads = [torch.autograd.grad(r.square().sum(), inputs) for r in results]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


def test_selective_scan_is_the_loop() -> None:
    check(nn.SelectiveScan(20, state=3), loop, torch.randn(2, 45, 20))


@pytest.mark.parametrize(
    "kwargs", [{}, {"kernel_size": 2, "expand": 1, "bias": True, "conv_bias": False}], ids=str
)
def test_mamba_is_projection_convolution_scan(kwargs: dict[str, Any]) -> None:
    check(nn.Mamba(12, state=4, dt_rank=2, **kwargs), mamba, torch.randn(2, 37, 12))


def test_selective_scan_2d_walks_in_four_ways() -> None:
    layer = nn.SelectiveScan2d(6, state=3, dt_rank=2)
    x = torch.randn(2, 6, 4, 5)
    total = torch.zeros_like(x)
    for k, name in enumerate(layer.directions):
        one = nn.SelectiveScan(6, state=3, dt_rank=2)
        with torch.no_grad():
            one.x_proj.weight.copy_(layer.x_proj_weight[k])
            one.dt_proj.weight.copy_(layer.dt_projs_weight[k])
            one.dt_proj.bias.copy_(layer.dt_projs_bias[k])
            one.A_log.copy_(layer.A_logs[6 * k : 6 * k + 6])
            one.D.copy_(layer.Ds[6 * k : 6 * k + 6])
        turned = x.mT if name in ("tb", "bt") else x
        line = turned.flatten(2).mT
        y = loop(one, line.flip(1)).flip(1) if name in ("rl", "bt") else loop(one, line)
        y = y.mT.unflatten(-1, turned.shape[2:])
        total += y.mT if name in ("tb", "bt") else y
    torch.testing.assert_close(layer(x), total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        layer(x.to(memory_format=torch.channels_last)), total, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("begin", [0, 1, 2, 17])
def test_mamba_goes_on_where_it_stopped(begin: int) -> None:
    block, x = nn.Mamba(8, state=4), torch.randn(3, 20, 8)
    whole, end = block(x, return_state=True)
    outs = []
    state = block.initial_state(3)
    if begin:
        out, state = block(x[:, :begin], return_state=True)
        outs.append(out)
    for t in range(begin, 20):
        out, state = block.step(x[:, t], state)
        outs.append(out[:, None])
    torch.testing.assert_close(torch.cat(outs, 1), whole, rtol=1e-4, atol=1e-5)
    for a, b in zip(state, end, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_state_is_named_as_in_published_checkpoints() -> None:
    block = nn.Mamba(32)
    assert {name: tuple(t.shape) for name, t in block.state_dict().items()} == {
        "A_log": (64, 16),
        "D": (64,),
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "x_proj.weight": (34, 64),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "out_proj.weight": (32, 64),
    }
    layer = nn.SelectiveScan2d(32)
    assert {name: tuple(t.shape) for name, t in layer.state_dict().items()} == {
        "x_proj_weight": (4, 34, 32),
        "dt_projs_weight": (4, 32, 2),
        "dt_projs_bias": (4, 32),
        "A_logs": (128, 16),
        "Ds": (128,),
    }


def test_steps_start_between_their_limits() -> None:
    for bias in (nn.SelectiveScan(400).dt_proj.bias, nn.SelectiveScan2d(100).dt_projs_bias):
        steps = F.softplus(bias.detach())
        assert 0.00099 < steps.min() < 0.002
        assert 0.05 < steps.max() < 0.101


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_types(dtype: torch.dtype) -> None:
    block, layer = nn.Mamba(8, state=4).to(dtype), nn.SelectiveScan2d(8, state=4).to(dtype)
    out, state = block(torch.randn(2, 5, 8, dtype=dtype), return_state=True)
    assert (out.dtype, state.conv.dtype) == (dtype, dtype)
    assert state.scan.dtype == torch.promote_types(dtype, torch.float32)
    assert block.step(torch.randn(2, 8, dtype=dtype), state)[0].dtype == dtype
    assert layer(torch.randn(2, 8, 3, 4, dtype=dtype)).dtype == dtype


def test_autocast() -> None:
    block, layer = nn.Mamba(8, state=4), nn.SelectiveScan2d(8, state=4)
    x, image = torch.randn(2, 5, 8), torch.randn(2, 8, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, state = block(x, return_state=True)
        again = block.step(x[:, 0], state)[0]
        assert layer(image).dtype == torch.bfloat16
    assert (out.dtype, again.dtype, state.scan.dtype) == (*[torch.bfloat16] * 2, torch.float32)
    torch.testing.assert_close(out.float(), block(x), rtol=0.1, atol=0.02)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in block.parameters())


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: nn.Mamba(0), ValueError, "embed_dim must be at least 1, got 0"),
    (lambda: nn.Mamba(8, expand=1.5), TypeError, "expand must be an int, got 1.5"),  # type: ignore[arg-type]
    (lambda: nn.SelectiveScan(8, state=0), ValueError, "state must be at least 1, got 0"),
    (lambda: nn.SelectiveScan(8, dt_rank=0), ValueError, "dt_rank must be at least 1, got 0"),
    (lambda: nn.SelectiveScan(8, dt_min=0.2), ValueError, "0 < dt_min <= dt_max, got 0.2, 0.1"),
    (lambda: nn.SelectiveScan(8)(torch.zeros(2, 8)), ValueError, r"u must have shape \[B, L, 8\]"),
    (lambda: nn.Mamba(8)(torch.zeros(2, 3, 9)), ValueError, r"x must have shape \[B, L, 8\]"),
    (
        lambda: nn.Mamba(8).step(torch.zeros(2, 1, 8), nn.Mamba(8).initial_state(2)),
        ValueError,
        r"x must have shape \[B, 8\], got \(2, 1, 8\)",
    ),
    (lambda: nn.SelectiveScan2d(8)(torch.zeros(2, 8, 4)), ValueError, r"\[B, 8, H, W\]"),
]


@pytest.mark.parametrize(("make", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
