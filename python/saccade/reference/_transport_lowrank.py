"""Low-rank entropic transport by mirror descent, in the logarithmic domain.

Scetbon, Cuturi and Peyre, Low-Rank Sinkhorn Factorization (arXiv 2103.04737): algorithm 3, with
Dykstra's projections of algorithm 2 and the rank-2 start of its appendix.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Dykstra's sweeps of a step, and the change of a marginal at which they stop.
INNER_SWEEPS = 200
INNER_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-6}
# What a step adds to the logarithm of the number with the largest gradient.
STEP = 4.0


class Factors(NamedTuple):
    """Q [..., n, r], R [..., m, r] and their common marginal w; the plan is Q diag(1/w) R'."""

    q: Tensor
    r: Tensor
    w: Tensor
    n_iter: Tensor


def _log(x: Tensor) -> Tensor:
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).log(), -math.inf)


def _lse(x: Tensor, dim: int) -> Tensor:
    """Logarithm of the sum of exponentials; -inf where there is nothing."""
    top = x.amax(dim, keepdim=True)
    top = torch.where(top == -math.inf, 0.0, top)
    return (x - top).exp().sum(dim).log() + top.squeeze(dim)


def _minus(x: Tensor, y: Tensor) -> Tensor:
    """Subtract, but -inf stays: what is not there does not come back."""
    return torch.where(x == -math.inf, -math.inf, x - y)


def _start(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of rank 2 with the right marginals, not at the saddle point a w'."""

    def ramp(weight: Tensor) -> Tensor:
        # on the weights that are there
        steps = torch.arange(1, weight.shape[-1] + 1, dtype=weight.dtype, device=weight.device)
        steps = steps * (weight > 0)
        return steps / steps.sum(-1, keepdim=True)

    w = a.new_full((*a.shape[:-1], rank), 1.0 / rank)
    # half of the largest share that leaves no weight negative
    ratios = [
        torch.where(x > 0, x / ramp(x).clamp(min=1e-30), math.inf).amin(-1) for x in (a, b, w)
    ]
    share = torch.stack(ratios).amin(0).unsqueeze(-1).clamp(max=1.0) / 2

    def factor(weight: Tensor) -> Tensor:
        first, second = ramp(weight), ramp(w)
        left = (weight - share * first) / (1 - share)
        right = (w - share * second) / (1 - share)
        outer = first.unsqueeze(-1) * second.unsqueeze(-2)
        return share.unsqueeze(-1) * outer + (1 - share.unsqueeze(-1)) * (
            left.unsqueeze(-1) * right.unsqueeze(-2)
        )

    return _log(factor(a)), _log(factor(b)), _log(w)


def _project(
    k: tuple[Tensor, Tensor], log_w: Tensor, marginals: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Project onto the couplings with marginals a and b that share their other marginal w."""
    tolerance = INNER_TOLERANCE[log_w.dtype]
    v = [torch.zeros_like(log_w) for _ in k]
    extra = [torch.zeros_like(log_w) for _ in k]
    extra_w = torch.zeros_like(log_w)
    u: list[Tensor] = []
    for _ in range(INNER_SWEEPS):
        u = [
            _minus(p, _lse(x + y.unsqueeze(-2), -1))
            for p, x, y in zip(marginals, k, v, strict=True)
        ]
        sums = [_lse(x + s.unsqueeze(-1), -2) for x, s in zip(k, u, strict=True)]
        terms = [y + e + s for y, e, s in zip(v, extra, sums, strict=True)]
        new_w = (log_w + extra_w + terms[0] + terms[1]) / 3
        extra_w = log_w + extra_w - new_w
        new_v = [new_w - s for s in sums]
        extra = [y + e - n for y, e, n in zip(v, extra, new_v, strict=True)]
        moved = max(
            float((n - y).abs().amax()) if n.numel() else 0.0 for n, y in zip(new_v, v, strict=True)
        )
        log_w, v = new_w, new_v
        if not moved > tolerance:
            break
    q, r = (x + s.unsqueeze(-1) + y.unsqueeze(-2) for x, s, y in zip(k, u, v, strict=True))
    return q, r, log_w


@torch.no_grad()
def factorize(
    cost: Tensor, a: Tensor, b: Tensor, *, rank: int, eps: float, max_iter: int, tol: float
) -> Factors:
    """Factors of a plan of low rank.

    Args:
        cost: C [B, n, m], finite.
        a: [B, n].
        b: [B, m], of the total of a, which is 1.
        rank: r.
        eps: entropy of the factors, at least 0.
        max_iter: steps of the descent.
        tol: stop where the plan has moved by no more, in L1; 0: make all steps.

    Returns:
        q, r, w and the steps made.

    >>> half = torch.full((1, 2), 0.5)
    >>> cost = 1 - torch.eye(2)[None]
    >>> q, r, w, _ = factorize(cost, half, half, rank=2, eps=0.0, max_iter=50, tol=0.0)
    >>> (q / w.unsqueeze(-2) @ r.mT).round(decimals=3) + 0.0
    tensor([[[0.5000, 0.0000],
             [0.0000, 0.5000]]])
    """
    # totals that differ by rounding would keep the projections from converging
    b = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
    log_a, log_b = _log(a), _log(b)
    log_q, log_r, log_w = _start(a, b, rank)
    n_iter = torch.zeros(cost.shape[:1], dtype=torch.int32, device=cost.device)
    running = torch.ones_like(n_iter, dtype=torch.bool)
    for _ in range(max_iter):
        q, r, w = log_q.exp(), log_r.exp(), log_w.exp()
        inverse = (1 / w).unsqueeze(-2)
        of_q, of_r = cost @ r * inverse, cost.mT @ q * inverse
        of_w = -(q * of_q).sum(-2) / w
        if eps:
            of_q = of_q + eps * torch.where(log_q == -math.inf, 0.0, log_q)
            of_r = of_r + eps * torch.where(log_r == -math.inf, 0.0, log_r)
            of_w = of_w + eps * log_w
        sizes = [x.abs().flatten(1).amax(-1) for x in (of_q, of_r, of_w)]
        size = torch.stack(sizes).amax(0).clamp(min=torch.finfo(cost.dtype).tiny ** 0.25)
        step = (STEP / size)[:, None]
        k = (log_q - step.unsqueeze(-1) * of_q, log_r - step.unsqueeze(-1) * of_r)
        new = _project(k, log_w - step * of_w, (log_a, log_b))
        change = (new[0].exp() - q).abs().sum((-2, -1)) + (new[1].exp() - r).abs().sum((-2, -1))
        keep = running[:, None, None]
        log_q, log_r = torch.where(keep, new[0], log_q), torch.where(keep, new[1], log_r)
        log_w = torch.where(running[:, None], new[2], log_w)
        n_iter += running
        if tol > 0:
            running = running & ~(change <= tol)
            if not running.any():
                break
    return Factors(log_q.exp(), log_r.exp(), log_w.exp(), n_iter)
