"""Optimal transport: entropic plans, and points without a cost matrix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from saccade import _load, reference
from saccade.ops import _transport_checks as _arguments
from saccade.ops._kernels import wanted
from saccade.ops._select import cuda_obstacle, offer, select_reverse_mode, triton_obstacle
from saccade.ops._transport_op import Plan, PointPotentials, kernel
from saccade.ops._transport_result import OTResult

__all__ = ["OTResult", "sinkhorn", "sinkhorn_divergence", "sinkhorn_points"]


def _cpu(cost: Tensor) -> str | None:
    if cost.device.type not in ("cpu", "meta"):
        return f"the tensors are on {cost.device}"
    return None if _load.has("_C") else _load.reason("_C")


def _cuda(cost: Tensor) -> str | None:
    if obstacle := cuda_obstacle(cost):
        return obstacle
    return _too_wide(cost)


def _triton(cost: Tensor) -> str | None:
    return triton_obstacle("transport", cost) or _too_wide(cost)


def _too_wide(cost: Tensor) -> str | None:
    if cost.dtype == torch.float64:
        return "the GPU kernels compute in float32, float64 needs the reference"
    return None


offer("transport", cpu=_cpu, cuda=_cuda, triton=_triton)


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    eps: float,
    rho: Any = None,
    max_iter: int = 100,
    tol: float = 0.0,
    eps_scaling: float | None = None,
    init: tuple[Tensor, Tensor] | None = None,
    grad: str = "implicit",
    reg_type: str = "kl",
    mask: Tensor | None = None,
    backend: str = "auto",
) -> OTResult:
    r"""Entropic optimal transport: the plan that moves a to b at the least cost, smoothed by eps.

    .. math:: P = \arg\min_{P \ge 0} \langle C, P \rangle
              + \varepsilon\, \mathrm{KL}(P \,|\, a b^\top)
              + \rho_a \mathrm{KL}(P 1 \,|\, a) + \rho_b \mathrm{KL}(P^\top 1 \,|\, b), \quad
              P_{ij} = e^{(f_i + g_j - C_{ij}) / \varepsilon}

    A side without rho is balanced: its marginal is met instead of paid for. KL is that of measures,
    the difference of their masses included.

    Args:
        cost: C, [..., n, m], of any floating type; +inf forbids a pair.
        a: weights of the rows, [..., n], not negative; rows of weight 0 take no part. Default
            uniform, with sum 1. Leading axes of cost, a, b and mask broadcast.
        b: weights of the columns, [..., m]; where both sides are balanced with the total of a.
        eps: the strength of the entropy, above 0, in the units of cost.
        rho: penalty of both marginals, or a pair (rho_a, rho_b), in the units of cost; None is
            balanced. Default None.
        max_iter: sweeps at eps, at least 1; a sweep updates both sides. Default 100.
        tol: a problem stops when its row marginal is off by no more, in L1. 0 (default) makes all
            sweeps.
        eps_scaling: q in (0, 1): eps comes down from the range of the cost by factors of q, a sweep
            at each, before the sweeps that count. Default None.
        init: potentials (f, g) to start from, [..., n] and [..., m], such as those of a similar
            problem.
        grad: "implicit" (default) differentiates the plan, the potentials and the values by the
            implicit function theorem, as if the iteration had converged; "envelope" the values
            alone, with the plan held fixed; "unroll" every sweep (on the reference); "none".
        reg_type: "kl" (default) as above, or "entropy": the entropy :math:`\sum P (\log P - 1) + 1`
            instead of KL(P | ab'). Balanced plans are the same.
        mask: bool [..., n, m], False forbids a pair. A row or column without any pair takes no
            part, whatever its weight: problems of different sizes in one batch.
        backend: "auto" takes the fastest rung that can run on cost (:func:`saccade.ops.explain`);
            "cpu", "cuda", "triton" and "reference" are taken or refused, never replaced.

    Returns:
        :class:`OTResult`. plan has the type of cost; f, g, value, value_linear and err are float32,
        or float64 for float64. With both sides balanced f and g are unique up to a constant. A NaN
        makes all of its problem NaN, with status 3; a balanced row that reaches nobody gives
        status 2. Where weights are not looked at (see Raises), totals that differ give 2 and a
        negative weight 3.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or values do not fit together; on the CPU and not traced,
            a weight that is negative, or balanced totals of a and b that differ.
        NotImplementedError: sparse and nested tensors; forward-mode derivatives or "unroll" with a
            forced backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost on the CPU: n m exponentials for the first sweep and whenever a column's scale has left
        a window of 2^13, else 2 n m multiply-adds a sweep. No number underflows into NaN for any
        eps. Half types are computed in float32 and rounded once. On CUDA a sweep takes two
        exponentials a pair, in float32, and nothing waits for the device.

        Deterministic, backward included; the bits do not depend on the number of threads, nor on
        the rest of the batch. The implicit gradient solves a system of m equations by conjugate
        gradients, each step one pass over the plan; gradients reach cost, a and b. Along the
        constant that f and g may be shifted by, the gradient takes the weighted mean of g as fixed.
        Weights that are 0 get the gradient 0. No double backward on the kernels. Autocast changes
        nothing. vmap folds the mapped axis into the batch.

    Source:
        Cuturi, arXiv 1306.0895; Chizat, Peyre, Schmitzer and Vialard, arXiv 1607.05816; Peyre and
        Cuturi, arXiv 1803.00567, section 4.

    >>> import torch
    >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> sinkhorn(cost, eps=0.5).plan
    tensor([[0.4404, 0.0596],
            [0.0596, 0.4404]])
    """
    _arguments.cost_matrix(cost)
    given = _arguments.settings(eps, rho, max_iter, tol, eps_scaling, reg_type)
    _arguments.one_of("grad", grad, _arguments.GRADS)
    n, m = cost.shape[-2:]
    wa = _arguments.weights("a", a, n, "rows of cost", cost)
    wb = _arguments.weights("b", b, m, "columns of cost", cost)
    rows = columns = None
    if mask is not None:
        _arguments.mask_matrix(mask, cost)
        rows, columns = mask.any(-1), mask.any(-2)
        cost = torch.where(mask, cost, math.inf)
    wa, wb = _with_default(wa, rows, n, cost), _with_default(wb, columns, m, cost)
    if given.balanced and not (a is None and b is None):
        _arguments.totals(wa, wb, cost)
    batch = _arguments.batch_of(cost.shape[:-2], wa.shape[:-1], wb.shape[:-1])
    f0, g0 = _arguments.potentials(init, batch, n, m, cost)

    unroll = grad == "unroll"
    rung = _rung(cost, backend, unroll)
    count = math.prod(batch)
    c = cost.expand(*batch, n, m).reshape(count, n, m)
    wa, wb = wa.expand(*batch, n).reshape(count, n), wb.expand(*batch, m).reshape(count, m)
    if f0 is not None:
        f0, g0 = f0.reshape(count, n), g0.reshape(count, m)
    if grad == "none":
        c, wa, wb = c.detach(), wa.detach(), wb.detach()
    traced = rung == "reference" and getattr(forward_ad, "_current_level", -1) >= 0
    if unroll or traced or not wanted(c, wa, wb):
        results = kernel(rung, "sinkhorn_forward")(c, wa, wb, f0, g0, *given)
    else:
        results = Plan.apply(c, wa, wb, f0, g0, *given, grad == "envelope", rung)
    plan, f, g, *rest = results
    return OTResult(
        plan.reshape(*batch, n, m), f.reshape(*batch, n), g.reshape(*batch, m),
        *(t.reshape(batch) for t in rest),
    )  # fmt: skip


def sinkhorn_points(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    eps: float,
    p: int | str = 2,
    rho: Any = None,
    max_iter: int = 100,
    tol: float = 0.0,
    eps_scaling: float | None = None,
    init: tuple[Tensor, Tensor] | None = None,
    grad: str = "implicit",
    reg_type: str = "kl",
    mask: tuple[Tensor, Tensor] | None = None,
    backend: str = "auto",
) -> OTResult:
    r"""Entropic optimal transport between points; neither cost nor plan is formed.

    .. math:: C_{ij} = \lVert x_i - y_j \rVert^2, \quad \lVert x_i - y_j \rVert
              \quad \text{or} \quad 1 - \cos(x_i, y_j)

    Args:
        x: points of the rows, [..., n, D], of any floating type.
        y: points of the columns, [..., m, D], of x's type. Leading axes broadcast.
        a: weights of the rows, [..., n]. Default uniform, with sum 1.
        b: weights of the columns, [..., m].
        eps: the strength of the entropy, above 0, in the units of the cost.
        p: 2 (default): the squared distance, which some packages halve; 1: the distance; "cos": one
            minus the cosine, where a point at 0 has the cosine 0 with all.
        rho: as in :func:`sinkhorn`.
        max_iter: as in :func:`sinkhorn`.
        tol: as in :func:`sinkhorn`.
        eps_scaling: as in :func:`sinkhorn`.
        init: as in :func:`sinkhorn`.
        grad: as in :func:`sinkhorn`; "envelope" differentiates `value` alone. "unroll" forms the
            cost.
        reg_type: as in :func:`sinkhorn`.
        mask: a pair of bool tensors [..., n] and [..., m]: points that are False take no part,
            whatever they hold.
        backend: as in :func:`sinkhorn`. The reference forms the cost.

    Returns:
        :class:`OTResult` with plan None: exp((f_i + g_j - C_ij) / eps).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or values do not fit together.
        NotImplementedError: sparse and nested tensors; forward-mode derivatives or "unroll" with a
            forced backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Memory is that of the points. A sweep computes n m costs of D multiply-adds and n m
        exponentials; so does every step of conjugate gradients of the implicit gradient, and none
        are needed where only `value` is differentiated. Points at distance 0 get no gradient from
        each other for p=1. What :func:`sinkhorn` says of the rest holds here.

    Source:
        Feydy et al., arXiv 1810.08278; Cuturi, arXiv 1306.0895.

    >>> import torch
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [4.0]])
    >>> sinkhorn_points(x, y, eps=0.1).value_linear.round()
    tensor(9.)
    """
    metric = _arguments.points(x, y, p)
    given = _arguments.settings(eps, rho, max_iter, tol, eps_scaling, reg_type)
    _arguments.one_of("grad", grad, _arguments.GRADS)
    n, m = x.shape[-2], y.shape[-2]
    wa = _arguments.weights("a", a, n, "points in x", x)
    wb = _arguments.weights("b", b, m, "points in y", x)
    rows = columns = None
    if mask is not None:
        rows, columns = _arguments.mask_pair(mask, n, m)
        x, y = x.where(rows.unsqueeze(-1), 0.0), y.where(columns.unsqueeze(-1), 0.0)
    wa, wb = _with_default(wa, rows, n, x), _with_default(wb, columns, m, x)
    if given.balanced and not (a is None and b is None):
        _arguments.totals(wa, wb, x)
    batch = _arguments.batch_of(x.shape[:-2], y.shape[:-2], wa.shape[:-1], wb.shape[:-1])
    f0, g0 = _arguments.potentials(init, batch, n, m, x)

    unroll = grad == "unroll"
    rung = _rung(x, backend, unroll)
    if rung == "reference":
        wide = x.to(wa.dtype), y.to(wa.dtype)
        solved = sinkhorn(
            reference.point_costs(*wide, p), wa, wb, eps=eps, rho=rho, max_iter=max_iter, tol=tol,
            eps_scaling=eps_scaling, init=init, grad=grad, reg_type=reg_type, backend="reference",
        )  # fmt: skip
        return solved._replace(plan=None)
    if p == "cos":
        x, y = _unit(x.to(wa.dtype)), _unit(y.to(wa.dtype))
    count, dim = math.prod(batch), x.shape[-1]
    px = x.expand(*batch, n, dim).reshape(count, n, dim)
    py = y.expand(*batch, m, dim).reshape(count, m, dim)
    wa, wb = wa.expand(*batch, n).reshape(count, n), wb.expand(*batch, m).reshape(count, m)
    if f0 is not None:
        f0, g0 = f0.reshape(count, n), g0.reshape(count, m)
    if grad != "none" and wanted(px, py, wa, wb):
        envelope = grad == "envelope"
        results = PointPotentials.apply(px, py, wa, wb, f0, g0, metric, *given, envelope, rung)
    else:
        with torch.no_grad():
            op = kernel(rung, "sinkhorn_points_forward")
            results = op(px, py, wa, wb, f0, g0, metric, *given)
    f, g, *rest = results
    return OTResult(
        None, f.reshape(*batch, n), g.reshape(*batch, m), *(t.reshape(batch) for t in rest)
    )


def _unit(x: Tensor) -> Tensor:
    """Points of length 1; 0 stays."""
    length = x.square().sum(-1, keepdim=True)
    return x / torch.where(length == 0, 1.0, length).sqrt()


def _with_default(weight: Tensor | None, alive: Tensor | None, count: Any, main: Tensor) -> Tensor:
    """Weights as given, or uniform; 0 where nothing is alive."""
    if weight is None:
        return _arguments.uniform(count, alive, main)
    return weight if alive is None else torch.where(alive, weight, 0.0)


def _rung(main: Tensor, backend: str, unroll: bool) -> str:
    if not unroll:
        return select_reverse_mode("transport", backend, main)
    if backend not in ("auto", "reference"):
        raise NotImplementedError(
            f"grad='unroll' runs on the reference alone, got backend={backend!r}."
        )
    return "reference"


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    eps: float,
    p: int | str = 2,
    rho: float | None = None,
    max_iter: int = 100,
    tol: float = 0.0,
    eps_scaling: float | None = None,
    grad: str = "implicit",
    mask: tuple[Tensor, Tensor] | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Debiased transport cost between weighted points: 0 for equal ones, and not negative.

    .. math:: S = \mathrm{OT}(a, b) - \tfrac{1}{2} \mathrm{OT}(a, a)
              - \tfrac{1}{2} \mathrm{OT}(b, b)
              + \tfrac{\varepsilon}{2} \big(\sum a - \sum b\big)^2

    Args:
        x: [..., n, D].
        y: [..., m, D].
        a: weights of x, [..., n]. Default uniform.
        b: weights of y, [..., m].
        eps: as in :func:`sinkhorn_points`.
        p: as in :func:`sinkhorn_points`.
        rho: penalty of both marginals, the same on both sides; None is balanced.
        max_iter: as in :func:`sinkhorn_points`.
        tol: as in :func:`sinkhorn_points`.
        eps_scaling: as in :func:`sinkhorn_points`.
        grad: as in :func:`sinkhorn_points`; "implicit" and "envelope" are the same here.
        mask: as in :func:`sinkhorn_points`.
        backend: as in :func:`sinkhorn_points`.

    Returns:
        S [...], float32, or float64 for float64.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or values do not fit together.
        RuntimeError: the forced backend cannot run.

    Notes:
        Three solutions of :func:`sinkhorn_points`; the gradient needs a pass over the pairs each.

    Source:
        Feydy et al., arXiv 1810.08278, equation 3; Sejourne et al., arXiv 1910.12958, equation 4.

    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> round(sinkhorn_divergence(x, x + 2.0, eps=1.0).item(), 3)
    8.0
    """
    if isinstance(rho, (tuple, list)):
        raise TypeError("rho must be a number or None: both sides of a divergence are alike.")

    def solve(p_x: Tensor, p_y: Tensor, w_x: Any, w_y: Any, seen: Any) -> OTResult:
        return sinkhorn_points(
            p_x, p_y, w_x, w_y, eps=eps, p=p, rho=rho, max_iter=max_iter, tol=tol,
            eps_scaling=eps_scaling, grad=grad, mask=seen, backend=backend,
        )  # fmt: skip

    both = (None, None, None) if mask is None else (mask, (mask[0],) * 2, (mask[1],) * 2)
    across = solve(x, y, a, b, both[0]).value
    within: Tensor = solve(x, x, a, a, both[1]).value + solve(y, y, b, b, both[2]).value
    divergence: Tensor = across - within / 2
    if rho is None or (a is None and b is None):
        return divergence
    total_a = _total(a, None if mask is None else mask[0])
    total_b = _total(b, None if mask is None else mask[1])
    difference: Tensor = total_a - total_b
    return divergence + eps / 2 * difference.to(divergence.dtype).square()


def _total(weight: Tensor | None, alive: Tensor | None) -> Any:
    if weight is None:
        return torch.ones(())
    return (weight if alive is None else torch.where(alive, weight, 0.0)).sum(-1)
