"""Gradient projection onto the half spaces of past tasks: the shortest version that is right.

Problem and dual: Gradient Episodic Memory (arXiv 1706.08840, equations 8 to 12). The dual is solved
by the dual active-set method of Goldfarb and Idnani (Mathematical Programming 27, 1983), which
needs no positive definite matrix and notices an infeasible problem.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

SOLVED, UNTOUCHED, INFEASIBLE, NOT_FINITE = range(4)

# A violation or a pivot below this part of the numbers that it is the difference of is rounding.
TOLERANCE = {torch.float64: 2.0**-40, torch.float32: 2.0**-19}


def gram_dot(memory: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    r"""Gram matrix of the memories and their products with the gradient, in float64.

    .. math:: K = G G^\top, \quad d = G g

    Args:
        memory: G, [..., t, P].
        grad: g, [..., P].

    Returns:
        K [..., t, t] and d [..., t].

    >>> gram_dot(torch.eye(2, 3), torch.ones(3))[1]
    tensor([1., 1.], dtype=torch.float64)
    """
    rows, column = memory.double(), grad.double().unsqueeze(-1)
    return rows @ rows.mT, (rows @ column).squeeze(-1)


def combine(grad: Tensor, memory: Tensor, dual: Tensor) -> Tensor:
    r"""Add the memories, each times its dual variable: :math:`v = g + G^\top \lambda`.

    A row whose dual variable is 0 is not read, whatever it holds.

    Args:
        grad: g, [..., P].
        memory: G, [..., t, P].
        dual: lambda, [..., t].

    Returns:
        v like grad, summed in float64 and rounded once.

    >>> combine(torch.ones(3), torch.eye(2, 3), torch.tensor([2.0, 0.0]))
    tensor([3., 1., 1.])
    """
    factor = dual.double().unsqueeze(-1)
    rows = torch.where(factor != 0, memory.double(), 0.0)
    return (grad.double() + (factor * rows).sum(-2)).to(grad.dtype)


def _active_set(
    gram: np.ndarray, linear: np.ndarray, tolerance: float
) -> tuple[list[int], np.ndarray, int]:
    """Solve min x'Kx/2 + c'x over x >= 0: the positive variables, x, and the status."""
    t = len(linear)
    x, active = np.zeros(t), list[int]()
    for _ in range(50 * (t + 1)):
        residual = gram @ x + linear
        scale = np.abs(gram) @ x + np.abs(linear)
        violated = residual < -tolerance * scale
        if not violated.any():
            return active, x, SOLVED
        depth = residual**2 / np.maximum(np.diag(gram), np.finfo(float).tiny)
        new = int(np.where(violated, depth, -1.0).argmax())
        while True:
            chosen = gram[np.ix_(active, active)]
            step_of = np.linalg.solve(chosen, gram[active, new]) if active else np.zeros(0)
            pivot = gram[new, new] - gram[new, active] @ step_of
            independent = pivot > tolerance * gram[new, new]
            full = -(gram[new] @ x + linear[new]) / pivot if independent else math.inf
            ratios = [x[i] / r if r > 0 else math.inf for i, r in zip(active, step_of, strict=True)]
            step = min([full, *ratios])
            if step == math.inf:
                return [], np.zeros(t), INFEASIBLE
            x[active] -= step * step_of
            x[new] += step
            if step == full:
                active.append(new)
                break
            x[active.pop(int(np.argmin(ratios)))] = 0.0
    return [], np.zeros(t), INFEASIBLE


def nnqp(
    gram: Tensor, linear: Tensor, lower: float = 0.0, ridge: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Minimise a small convex quadratic over variables with a lower bound.

    .. math:: \lambda^* = \arg\min_{\lambda \ge m}
              \tfrac12 \lambda^\top (K + \epsilon I) \lambda + c^\top \lambda

    Args:
        gram: K, [..., t, t], symmetric (its symmetric part counts) and positive semidefinite.
        linear: c, [..., t]; a variable whose entry is +inf is left out and gets 0.
        lower: m, at least 0.
        ridge: epsilon, at least 0.

    Returns:
        lambda [..., t] in float64, differentiable, and the status [...] in int32.

    >>> dual, status = nnqp(torch.eye(2), torch.tensor([-1.0, 1.0]))
    >>> dual.tolist(), status.item()
    ([1.0, 0.0], 0)
    """
    tolerance = TOLERANCE.get(gram.dtype, TOLERANCE[torch.float32])
    t = linear.shape[-1]
    kept = linear != math.inf
    square = kept.unsqueeze(-1) & kept.unsqueeze(-2)
    full = gram.double()
    full = torch.where(square, (full + full.mT) / 2, 0.0)
    full = full + ridge * torch.diag_embed(kept.double())
    # lambda = m + x moves the bound to zero
    shifted = torch.where(kept, linear.double(), 0.0) + lower * full.sum(-1)
    active = torch.zeros(math.prod(linear.shape[:-1]), t, dtype=torch.bool)
    status = torch.zeros(len(active), dtype=torch.int32)
    problems = zip(
        full.detach().reshape(-1, t, t).cpu().numpy() if t else [np.zeros((0, 0))] * len(active),
        shifted.detach().reshape(len(active), t).cpu().numpy(),
        strict=True,
    )
    for i, (matrix, vector) in enumerate(problems):
        if not (np.isfinite(matrix).all() and np.isfinite(vector).all()):
            status[i] = NOT_FINITE
            continue
        positive, _, code = _active_set(matrix, vector, tolerance)
        active[i, positive] = True
        status[i] = code
    status = status.reshape(linear.shape[:-1]).to(linear.device)
    free = active.reshape(linear.shape).to(linear.device)
    solved = (status == SOLVED).unsqueeze(-1)
    # where the answer is zero the equations are 1 x = 0
    system = torch.where(free.unsqueeze(-1) & free.unsqueeze(-2), full, torch.eye(t).to(full))
    rest = torch.linalg.solve(system, torch.where(free, shifted, 0.0))
    return torch.where(solved & kept, lower - rest, 0.0), status


def gem_project(
    grad: Tensor,
    memory: Tensor,
    memory_strength: float = 0.0,
    slack: Tensor | None = None,
    ridge: float = 0.0,
    always: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Project a gradient so that it opposes no memory.

    .. math:: v^* = \arg\min_v \tfrac12 \lVert v - g \rVert^2 \ \text{s.t.}\ G v \ge -w, \quad
              v^* = g + G^\top \lambda^*

    The arguments are those of :func:`saccade.ops.gem_project`, checked.

    Args:
        grad: g, [..., P].
        memory: G, [..., t, P].
        memory_strength: m, lower bound of the dual variables.
        slack: w, [..., t], or None for 0; a row with +inf takes no part.
        ridge: added to the diagonal of G G'.
        always: solve where nothing is violated, too.

    Returns:
        v like grad, lambda [..., t] in float64, and the status [...] in int32: 0 solved, 1
        untouched, 2 infeasible, 3 not finite; v is g where it is not 0.

    Source:
        GEM, arXiv 1706.08840, equations 8 to 12.

    >>> gem_project(torch.tensor([1.0, -1.0]), torch.tensor([[0.0, 2.0]]))[0]
    tensor([1., 0.])
    """
    if slack is not None:
        # what a row that takes no part holds does not count
        memory = torch.where((slack != math.inf).unsqueeze(-1), memory, 0.0)
    gram, linear = gram_dot(memory, grad)
    if slack is not None:
        linear = linear + slack.double()
    dual, status = nnqp(gram, linear, memory_strength, ridge)
    if not always:
        calm = (linear >= 0).all(-1) & (status != NOT_FINITE)
        status = torch.where(calm, UNTOUCHED, status).to(torch.int32)
        dual = torch.where(calm.unsqueeze(-1), 0.0, dual)
    return combine(grad, memory, dual), dual, status
