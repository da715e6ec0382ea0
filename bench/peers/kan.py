"""Other ways to compute Kolmogorov-Arnold layers, in torch operations.

`published` writes each layer as its package defines it: efficient-kan, fast-kan, faster-kan,
ChebyKAN, FourierKAN, Wav-KAN and KAT, from the definitions. `product` is the yardstick that no
package reaches: the features and their slopes are made beforehand, and what is timed is the matrix
product of the dense layer (and, backwards, the two products and the chain rule over the features).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.bench._suite import Case, Function, Inputs, Peer


def _splines(x: Tensor, grid: Tensor, order: int) -> Tensor:
    x = x.unsqueeze(-1)
    bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
    for k in range(1, order + 1):
        bases = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[
            :, :, :-1
        ] + (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k]) * bases[:, :, 1:]
    return bases


def _features(basis: str, x: Tensor, count: int) -> Tensor:
    """Features [B, I, n] at each package's defaults."""
    if basis == "bspline":
        step = 2 / (count - 3)
        knots = torch.arange(-3, count + 1, device=x.device, dtype=x.dtype) * step - 1
        return _splines(x, knots.expand(x.shape[1], -1).contiguous(), 3)
    if basis == "gaussian":
        centres = torch.linspace(-2, 2, count, device=x.device, dtype=x.dtype)
        return torch.exp(-(((x[..., None] - centres) / (4 / (count - 1))) ** 2))
    if basis == "rswaf":
        centres = torch.linspace(-1.2, 0.2, count, device=x.device, dtype=x.dtype)
        return 1 - torch.tanh((x[..., None] - centres) * 0.5) ** 2
    if basis == "chebyshev":
        # published as cos(n acos(tanh x)), whose gradient is NaN for large x
        angle = torch.tanh(x)[..., None].expand(-1, -1, count).acos()
        return (angle * torch.arange(count, device=x.device)).cos()
    if basis == "fourier":
        angle = x[..., None] * torch.arange(1, count // 2 + 1, device=x.device)
        return torch.cat([angle.cos(), angle.sin()], -1)
    raise ValueError(f"no features of basis {basis!r}.")


def _rational(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """KAT's torch version with absolute powers, which its kernels compute."""
    groups = b.shape[0]
    u = x.unflatten(-1, (groups, -1))
    size = u.abs()
    top = sum(a[:, i, None] * u**i for i in range(a.shape[1]))
    bottom = 1 + sum(b[:, j, None].abs() * size ** (j + 1) for j in range(b.shape[1]))
    return (top / bottom).flatten(-2)


class Published(Peer):
    """Each package's own formulation in torch operations."""

    name = "published"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""
        basis = case.kwargs["basis"]
        if basis == "rational":
            return lambda x: F.linear(
                _rational(x["x"], x["numerator"], x["denominator"]), x["weight"], x["bias"]
            )
        if basis == "wavelet":
            norm = 2 / (math.sqrt(3) * math.pi**0.25)

            def wavelet(x: Inputs) -> Tensor:
                z = (x["x"].unsqueeze(1) - x["shift"]) / x["scale"]
                psi = norm * (z**2 - 1) * torch.exp(-0.5 * z**2)
                return (psi * x["weight"].squeeze(-1)).sum(2)

            return wavelet

        def layer(x: Inputs) -> Tensor:
            features = _features(basis, x["x"], x["weight"].shape[-1])
            y = F.linear(features.flatten(1), x["weight"].flatten(1))
            if "base_weight" in x:
                y = y + F.linear(F.silu(x["x"]), x["base_weight"])
            return y

        return layer


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, features: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(weight, features, slopes)
        return features @ weight.flatten(1).mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weight, features, slopes = ctx.saved_tensors
        of_features = (grads[0] @ weight.flatten(1)).view_as(slopes)
        grad_x = (of_features * slopes).sum(-1)
        return grad_x, (grads[0].mT @ features).view_as(weight), None, None


class Product(Peer):
    """The dense matrix product alone; features and slopes are made beforehand."""

    name = "product"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if case.kwargs["basis"] in ("wavelet", "rational") or "base_weight" in case.shapes:
            return "the layer is not one matrix product"
        return None

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Make the features and their slopes."""
        x = inputs["x"].detach().requires_grad_()
        features = _features(case.kwargs["basis"], x, inputs["weight"].shape[-1])
        slopes = torch.stack(
            [
                torch.autograd.grad(features[..., n].sum(), x, retain_graph=True)[0]
                if features[..., n].requires_grad
                else torch.zeros_like(x)
                for n in range(features.shape[-1])
            ],
            -1,
        )
        made = features.detach().flatten(1)
        return lambda t: _Product.apply(t["x"], t["weight"], made, slopes)


PEERS: tuple[Peer, ...] = (Published(), Product())
