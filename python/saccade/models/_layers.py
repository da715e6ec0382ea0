"""Small layers that more than one architecture uses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from saccade.nn.kan import KANLinear


def make_divisible(channels: int, divisor: int, floor: float = 0.9) -> int:
    """Round to the nearest multiple of `divisor`; up where over 1 - `floor` would be lost.

    >>> [make_divisible(c, 32) for c in (48, 72, 96, 120, 144)]
    [64, 96, 96, 128, 160]
    """
    rounded = max(divisor, (channels + divisor // 2) // divisor * divisor)
    return rounded + divisor if rounded < floor * channels else rounded


class DropPath(nn.Module):
    """Drop a branch for whole samples with probability `rate`; scale the rest by 1 / (1 - rate).

    Source: Huang et al., "Deep Networks with Stochastic Depth" (arXiv 1603.09382), equation 2,
        rescaled in training.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"the drop path rate must lie in [0, 1), got {rate}.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x; the first axis is the batch."""
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.rand(x.shape[0], device=x.device) >= self.rate
        scale = kept.to(x.dtype) / (1.0 - self.rate)
        return x * scale.view(-1, *[1] * (x.dim() - 1))

    def extra_repr(self) -> str:
        """The rate."""
        return f"{self.rate:.4g}"


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded so that stride 1 keeps the size."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ceil(H / stride), ceil(W / stride)]."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class SqueezeExcite(nn.Module):
    """Scale the channels by a gate computed from their means; hard sigmoid at the end.

    Source: Hu et al., "Squeeze-and-Excitation Networks" (arXiv 1709.01507), equations 2 to 4.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        gates: Tensor = self.fc(x.mean((2, 3)))
        return x * gates[:, :, None, None]


class Mlp(nn.Sequential):
    """The transformer's feed-forward: linear, GELU, linear, on the last axis."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features))


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Turn autocast off where the device has it."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def init_weights(module: nn.Module) -> None:
    """Truncated normal of deviation 0.02 for linear, KAN and 2D convolution weights; biases 0."""
    if isinstance(module, (nn.Linear, nn.Conv2d, KANLinear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
