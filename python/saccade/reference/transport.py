"""Entropic optimal transport: the shortest version that is right, in the logarithmic domain.

Sinkhorn's updates: Cuturi (arXiv 1306.0895) in the form of Peyre and Cuturi, Computational Optimal
Transport (arXiv 1803.00567), equations 4.43 and 4.44; relaxed marginals: Chizat, Peyre, Schmitzer
and Vialard (arXiv 1607.05816). Plain torch operations, so autograd unrolls the loop.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

CONVERGED, MAX_ITER, INFEASIBLE, NOT_FINITE = range(4)


Grads = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class Solution(NamedTuple):
    """Plan, potentials and what became of the loop."""

    plan: Tensor
    f: Tensor
    g: Tensor
    value: Tensor
    value_linear: Tensor
    n_iter: Tensor
    err: Tensor
    status: Tensor


def _log(weights: Tensor) -> Tensor:
    """Logarithm with -inf and no gradient where a weight is 0."""
    some = weights != 0
    return torch.where(some, torch.where(some, weights, 1.0).log(), -math.inf)


def _update(z: Tensor, log_weight: Tensor, eps: Tensor, rho: float, kl: bool) -> Tensor:
    """The potential of the rows of z = (other potential - cost) / eps; columns are summed.

    A row without a partner, or of weight 0, gets -inf: it takes no part.
    """
    alive = ((z != -math.inf).any(-1)) & (log_weight != -math.inf)
    lse = torch.where(alive.unsqueeze(-1), z, 0.0).logsumexp(-1)
    log_a = torch.where(alive, log_weight, 0.0)
    balanced = eps * (log_a - lse)
    if math.isinf(rho):
        return torch.where(alive, balanced, -math.inf)
    tau, base = rho / (rho + eps), eps * log_a if kl else 0.0
    return torch.where(alive, base + tau * (balanced - base), -math.inf)


def sinkhorn(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    eps: float,
    rho: tuple[float, float] = (math.inf, math.inf),
    kl: bool = True,
    max_iter: int = 100,
    tol: float = 0.0,
    eps_scaling: float = 0.0,
    init: tuple[Tensor, Tensor] | None = None,
) -> Solution:
    r"""Entropic plan by alternating updates of the two potentials.

    .. math:: f_i = \varepsilon \bigl(\log a_i -
              \log \textstyle\sum_j e^{(g_j - C_{ij}) / \varepsilon}\bigr),
              \quad P_{ij} = e^{(f_i + g_j - C_{ij}) / \varepsilon}

    and likewise for g. A relaxed marginal multiplies the update by rho / (rho + eps).

    Args:
        cost: C [..., n, m]; +inf forbids a pair.
        a: [..., n], of cost's leading axes.
        b: [..., m].
        eps: entropy.
        rho: relaxation of the rows and of the columns, inf is balanced.
        kl: the entropy is relative to ab', else to 1.
        max_iter: sweeps at eps.
        tol: stop a problem whose row marginal is off by no more; 0: make all sweeps.
        eps_scaling: factor of a geometric descent to eps from the range of the cost, 0 for none.
        init: potentials to start from.

    Returns:
        plan, f, g, value, value_linear, n_iter, err and status.

    >>> sinkhorn(torch.zeros(1, 2), torch.ones(1), torch.tensor([0.25, 0.75]), eps=1.0).plan
    tensor([[0.2500, 0.7500]])
    """
    log_a, log_b = _log(a), _log(b)
    shape = cost.shape[:-2]
    f = cost.new_full(a.shape, math.nan) if init is None else init[0]
    # a column that had no partner may have one now
    g = torch.zeros_like(b) if init is None else torch.where(init[1] == -math.inf, 0.0, init[1])
    g = torch.where(log_b == -math.inf, -math.inf, g)
    final = cost.new_full((*shape, 1), eps)
    current = torch.maximum(final, _range(cost.detach())) if eps_scaling else final

    n_iter = torch.zeros(shape, dtype=torch.int32, device=cost.device)
    running = torch.ones(shape, dtype=torch.bool, device=cost.device)
    while running.any():
        at_final = (current == final).squeeze(-1)
        old, go = f, running.unsqueeze(-1)
        new_f = _update(
            (g.unsqueeze(-2) - cost) / current.unsqueeze(-1), log_a, current, rho[0], kl
        )
        z = (new_f.unsqueeze(-2) - cost.mT) / current.unsqueeze(-1)
        new_g = _update(z, log_b, current, rho[1], kl)
        with torch.no_grad():
            moved = _moved(cost, old, g, new_f, current, a, rho[0])
            done = (moved <= tol) if tol > 0 else torch.zeros_like(running)
        f, g = torch.where(go, new_f, f), torch.where(go, new_g, g)
        n_iter = n_iter + (running & at_final)
        running = running & ~(at_final & (done | (n_iter >= max_iter)))
        current = torch.maximum(final, current * eps_scaling)
    return _finish(cost, a, b, f, g, eps, rho, kl, n_iter, tol)


def _range(cost: Tensor) -> Tensor:
    """Largest minus least finite cost, [..., 1]; not positive where there is none."""
    if not cost.numel():
        return cost.new_zeros((*cost.shape[:-2], 1))
    finite, flat = cost.isfinite(), (-2, -1)
    largest = torch.where(finite, cost, -math.inf).amax(flat)
    return (largest - torch.where(finite, cost, math.inf).amin(flat)).unsqueeze(-1)


def _plan(cost: Tensor, f: Tensor, g: Tensor, eps: Any) -> Tensor:
    return torch.exp((f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / eps)


def _moved(
    cost: Tensor, f: Tensor, g: Tensor, new_f: Tensor, eps: Tensor, a: Tensor, rho: float
) -> Tensor:
    """Mass that the next update of f moves; balanced: the L1 error of the row marginal."""
    rows = _plan(cost, f, g, eps.unsqueeze(-1)).sum(-1)
    change = torch.where(rows == 0, 0.0, rows * (1 - ((new_f - f) / eps).exp()).abs())
    if math.isinf(rho):
        change = torch.where(new_f == -math.inf, a, change)
    return change.sum(-1)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p | q) of measures: sum p log(p / q) - p + q."""
    some = (p > 0) & (q > 0)
    ratio = torch.where(some, p, 1.0) / torch.where(some, q, 1.0)
    return (torch.where(some, p * ratio.log(), 0.0) - p + q).sum(-1)


def _finish(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, eps: float,
    rho: tuple[float, float], kl: bool, n_iter: Tensor, tol: float,
) -> Solution:  # fmt: skip
    plan = _plan(cost, f, g, eps)
    rows, columns = plan.sum(-1), plan.sum(-2)
    linear = torch.where(plan == 0, 0.0, plan * torch.where(plan == 0, 0.0, cost)).sum((-2, -1))
    # eps log P = f + g - C, so the entropy needs no logarithm of P
    mass = rows.sum(-1)
    base_f, base_g = (eps * _log(a), eps * _log(b)) if kl else (0.0, 0.0)
    reference_mass = a.sum(-1) * b.sum(-1) if kl else 1.0
    value = (
        _weighted(rows, f - base_f) + _weighted(columns, g - base_g) + eps * (reference_mass - mass)
    )
    for strength, marginal, weight in ((rho[0], rows, a), (rho[1], columns, b)):
        if not math.isinf(strength):
            value = value + strength * _divergence(marginal, weight)
    with torch.no_grad():
        eps_of = torch.full_like(mass, eps).unsqueeze(-1)
        new_f = _update((g.unsqueeze(-2) - cost) / eps, _log(a), eps_of, rho[0], kl)
        err = _moved(cost, f, g, new_f, eps_of, a, rho[0])
        stuck = torch.zeros_like(mass, dtype=torch.bool)
        for strength, weight, potential in ((rho[0], a, f), (rho[1], b, g)):
            if math.isinf(strength):
                stuck = stuck | ((weight > 0) & (potential == -math.inf)).any(-1)
        if math.isinf(rho[0]) and math.isinf(rho[1]):
            total = a.sum(-1)
            stuck = stuck | ((total - b.sum(-1)).abs() > mass_tolerance(cost.dtype) * total)
        status = torch.where((err <= tol) & (tol > 0), CONVERGED, MAX_ITER)
        status = torch.where(stuck, INFEASIBLE, status)
        status = torch.where((value + linear + err).isfinite(), status, NOT_FINITE)
    return Solution(plan, f, g, value, linear, n_iter, err, status.int())


def mass_tolerance(dtype: torch.dtype) -> float:
    """Relative difference of the two totals that counts as rounding."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 1e-2


def _weighted(marginal: Tensor, potential: Tensor) -> Tensor:
    some = marginal != 0
    return torch.where(some, marginal * torch.where(some, potential, 0.0), 0.0).sum(-1)


def sinkhorn_gradients(
    grads: Grads,
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    plan: Tensor,
    f: Tensor,
    g: Tensor,
    *,
    eps: float,
    rho: tuple[float, float] = (math.inf, math.inf),
    kl: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Gradients of cost, a and b by the implicit function theorem at the fixed point.

    With the gradients W of the plan, u of f and w of g,

    .. math:: \begin{pmatrix} \alpha_1 \mathrm{diag}(P 1) & P \\
              P^\top & \alpha_2 \mathrm{diag}(P^\top 1) \end{pmatrix}
              \begin{pmatrix} x \\ y \end{pmatrix} =
              \begin{pmatrix} (P \circ W) 1 + \varepsilon u \\
              (P \circ W)^\top 1 + \varepsilon w \end{pmatrix}, \quad
              \partial C = -\tfrac{1}{\varepsilon} P \circ (W - x 1^\top - 1 y^\top)

    with alpha = 1 + eps / rho. The value has the gradient of its envelope.

    Args:
        grads: of plan, f, g, value and value_linear; None is zero.
        cost: C [..., n, m].
        a: [..., n].
        b: [..., m].
        plan: P, of :func:`sinkhorn`.
        f: of :func:`sinkhorn`.
        g: of :func:`sinkhorn`.
        eps: entropy.
        rho: relaxation of the rows and of the columns.
        kl: what the entropy is relative to.

    Returns:
        Gradients of cost, a and b. Where both sides are balanced the weighted mean of g, by P'1,
        is held fixed: potentials are unique up to a constant.
    """
    of_plan, of_f, of_g, of_value, of_linear = grads
    rows, columns = plan.sum(-1), plan.sum(-2)
    grad_cost = torch.zeros_like(cost)
    grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
    if any(given is not None for given in (of_plan, of_f, of_g, of_linear)):
        upstream = torch.zeros_like(plan) if of_plan is None else of_plan
        if of_linear is not None:
            upstream = upstream + of_linear[..., None, None] * torch.where(plan == 0, 0.0, cost)
            grad_cost = grad_cost + of_linear[..., None, None] * plan
        weighted = torch.where(plan == 0, 0.0, plan * upstream)
        p, q = weighted.sum(-1), weighted.sum(-2)
        p = p if of_f is None else p + eps * torch.where(rows == 0, 0.0, of_f)
        q = q if of_g is None else q + eps * torch.where(columns == 0, 0.0, of_g)
        inverse = torch.where(rows == 0, 0.0, 1 / ((1 + eps / rho[0]) * rows))
        right = q - (plan * (inverse * p).unsqueeze(-1)).sum(-2)
        if math.isinf(rho[0]) and math.isinf(rho[1]):
            total = columns.sum(-1, keepdim=True)
            right = right - columns * right.sum(-1, keepdim=True) / torch.where(
                total == 0, 1.0, total
            )
        schur = torch.diag_embed((1 + eps / rho[1]) * columns)
        schur = schur - plan.mT @ (inverse.unsqueeze(-1) * plan)
        y = (torch.linalg.pinv(schur, hermitian=True) @ right.unsqueeze(-1)).squeeze(-1)
        x = inverse * (p - (plan @ y.unsqueeze(-1)).squeeze(-1))
        moved = torch.where(plan == 0, 0.0, upstream - x.unsqueeze(-1) - y.unsqueeze(-2))
        grad_cost = grad_cost - plan * moved / eps
        grad_a = _of_weight(x, f, a, eps, rho[0], kl)
        grad_b = _of_weight(y, g, b, eps, rho[1], kl)
    if of_value is not None:
        grad_cost = grad_cost + of_value[..., None, None] * plan
        of_value = of_value.unsqueeze(-1)
        grad_a = grad_a + of_value * _envelope(f, rows, a, b, eps, rho[0], kl)
        grad_b = grad_b + of_value * _envelope(g, columns, b, a, eps, rho[1], kl)
    return grad_cost, grad_a, grad_b


def _of_weight(x: Tensor, f: Tensor, a: Tensor, eps: float, rho: float, kl: bool) -> Tensor:
    """Multiply x by the derivative of the marginal a exp(-(f - eps log a) / rho) by a."""
    if math.isinf(rho):
        return torch.where(a == 0, 0.0, x)
    base = eps * _log(a) if kl else 0.0
    slope = torch.where(f == -math.inf, 0.0, torch.exp(-(f - base) / rho))
    return x * slope * (1 + eps / rho if kl else 1.0)


def _envelope(
    f: Tensor, rows: Tensor, a: Tensor, b: Tensor, eps: float, rho: float, kl: bool
) -> Tensor:
    """Derivative of the value by a; 0 where a is 0."""
    share = rows / torch.where(a == 0, 1.0, a)
    base = eps * _log(a) if kl else 0.0
    slope = f - base if math.isinf(rho) else rho * (1 - share)
    if kl:
        slope = slope + eps * (b.sum(-1, keepdim=True) - share)
    return torch.where((a == 0) | (f == -math.inf), 0.0, slope)


def point_costs(x: Tensor, y: Tensor, p: int | str) -> Tensor:
    r"""Cost between points: squared distance (p=2), distance (p=1), or 1 - cosine (p="cos").

    Args:
        x: [..., n, D].
        y: [..., m, D].
        p: 2, 1 or "cos".

    Returns:
        C [..., n, m].

    >>> point_costs(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), 1)
    tensor([[5.]])
    """
    if p == "cos":
        return 1 - _unit(x) @ _unit(y).mT
    square = (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
    if p == 2:
        return square
    some = square != 0
    return torch.where(some, torch.where(some, square, 1.0).sqrt(), 0.0)


def _unit(x: Tensor) -> Tensor:
    length = x.square().sum(-1, keepdim=True)
    return x / torch.where(length == 0, 1.0, length).sqrt()
