"""Transport plans of low rank."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saccade.ops import _checks
from saccade.ops import _transport_checks as _arguments
from saccade.ops._transport_result import CONVERGED, MAX_ITER, NOT_FINITE
from saccade.reference._transport_lowrank import factorize


class LowRankResult(NamedTuple):
    r"""Factors of a plan :math:`P = Q\, \mathrm{diag}(1 / w)\, R^\top`.

    Attributes:
        q: Q [..., n, r], whose rows sum to a and columns to w.
        r: R [..., m, r], whose rows sum to b and columns to w.
        w: weights of the r parts, [..., r].
        value_linear: the transport cost :math:`\langle C, P \rangle`, [...].
        n_iter: steps that were made, int32 [...].
        err: L1 error of the row marginal, [...].
        status: int32 [...]: 0 converged, 1 max_iter, 3 not finite.
    """

    q: Tensor
    r: Tensor
    w: Tensor
    value_linear: Tensor
    n_iter: Tensor
    err: Tensor
    status: Tensor

    def plan(self) -> Tensor:
        """The plan itself, [..., n, m]."""
        plan: Tensor = (self.q / self.w.unsqueeze(-2)) @ self.r.mT
        return plan


def sinkhorn_lowrank(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    rank: int,
    eps: float = 0.0,
    max_iter: int = 100,
    tol: float = 0.0,
    grad: str = "envelope",
) -> LowRankResult:
    r"""Optimal transport by plans of rank r: fewer parts than points, each sent as a whole.

    .. math:: \min_{Q, R, w} \langle C, Q\, \mathrm{diag}(1/w)\, R^\top \rangle
              - \varepsilon \big(H(Q) + H(R) + H(w)\big) \quad \text{s.t.} \quad
              Q 1 = a, \ R 1 = b, \ Q^\top 1 = R^\top 1 = w

    Args:
        cost: C, [..., n, m], of any floating type, finite.
        a: weights of the rows, [..., n], not negative. Default uniform, with sum 1.
        b: weights of the columns, [..., m], with the total of a.
        rank: r, at least 1.
        eps: entropy of the factors, at least 0. Default 0: the rank alone smooths.
        max_iter: steps of the descent, at least 1. Default 100.
        tol: a problem stops when a step moves its factors by no more, in L1. 0 (default) makes all
            steps.
        grad: "envelope" (default) differentiates value_linear by the cost, with the factors held
            fixed; "none".

    Returns:
        :class:`LowRankResult`, in float32, or float64 for float64.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or values do not fit together.

    Notes:
        The problem is not convex: this is a descent from a start that the sizes determine, and more
        parts do not always cost less. A step takes 4 n m r flops and Dykstra's sweeps over the
        factors. Plain torch on every device; it looks at the factors after each sweep, so it does
        not trace. Deterministic.

    Source:
        Scetbon, Cuturi and Peyre, arXiv 2103.04737, algorithms 2 and 3.

    >>> import torch
    >>> result = sinkhorn_lowrank(1 - torch.eye(2), rank=2)
    >>> result.plan().round(decimals=3) + 0.0
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """
    _arguments.cost_matrix(cost)
    _arguments.one_of("grad", grad, ("envelope", "none"))
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise TypeError(f"rank must be an int, got {type(rank).__name__}.")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}.")
    entropy = _checks.finite_number("eps", eps)
    if entropy < 0:
        raise ValueError(f"eps must be at least 0, got {entropy}.")
    given = _arguments.settings(1.0, None, max_iter, tol, None, "entropy")
    n, m = cost.shape[-2:]
    if n == 0 or m == 0:
        raise ValueError(f"cost must have rows and columns, got shape {tuple(cost.shape)}.")
    sides: list[Any] = []
    for name, weight, count, axis in (("a", a, n, "rows"), ("b", b, m, "columns")):
        checked = _arguments.weights(name, weight, count, f"{axis} of cost", cost)
        sides.append(_arguments.uniform(count, None, cost) if checked is None else checked)
    if not (a is None and b is None):
        _arguments.totals(sides[0], sides[1], cost, relaxable=False)
    wa, wb = sides
    batch = _arguments.batch_of(cost.shape[:-2], wa.shape[:-1], wb.shape[:-1])
    count = math.prod(batch)
    c = cost.to(wa.dtype).expand(*batch, n, m).reshape(count, n, m)
    wa = wa.detach().expand(*batch, n).reshape(count, n)
    wb = wb.detach().expand(*batch, m).reshape(count, m)
    if grad == "none":
        c = c.detach()
    # the descent works on measures of mass 1
    mass = wa.sum(-1, keepdim=True)
    q, r, w, n_iter = factorize(
        c.detach(), wa / mass, wb / mass, rank=rank, eps=entropy, max_iter=given.max_iter,
        tol=given.tol,
    )  # fmt: skip
    q, r, w = q * mass.unsqueeze(-1), r * mass.unsqueeze(-1), w * mass
    linear = (q * (c @ (r / w.unsqueeze(-2)))).sum((-2, -1))
    err = (q.sum(-1) - wa).abs().sum(-1)
    stopped = (n_iter < given.max_iter) & (given.tol > 0)
    status = torch.where(stopped, CONVERGED, MAX_ITER)
    status = torch.where(linear.detach().isfinite() & err.isfinite(), status, NOT_FINITE).int()
    return LowRankResult(
        q.reshape(*batch, n, rank), r.reshape(*batch, m, rank), w.reshape(*batch, rank),
        *(t.reshape(batch) for t in (linear, n_iter, err, status)),
    )  # fmt: skip
