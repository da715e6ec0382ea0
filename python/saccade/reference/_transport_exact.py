"""Exact transport: mass goes along shortest paths, one row after the other.

The successive shortest path method on the complete bipartite graph: Tomizawa, Networks 1, 1971, and
Edmonds and Karp, Journal of the ACM 19, 1972. An assignment is the transport of units.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

SOLVED, INFEASIBLE, NOT_FINITE = 0, 2, 3

# Mass below this part of all is what rounding left.
TINY = 1e-14

Result = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _ship(
    cost: np.ndarray, supply: np.ndarray, capacity: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cheapest flow that ships every supply, u and v with u_i + v_j <= cost_ij.

    v is 0 where capacity is left and nowhere positive; where there is flow, u_i + v_j = cost_ij.
    """
    n, m = cost.shape
    flow, u, v, spare = np.zeros((n, m)), np.zeros(n), np.zeros(m), capacity.copy()
    tiny = TINY * supply.sum()
    for start in range(n):
        left = supply[start]
        u[start] = (cost[start] - v).min(initial=math.inf)
        while left > tiny:
            reached = np.full(n, math.inf)  # distances of rows, infinite where not reached
            reached[start] = 0.0
            from_column = np.full(n, -1)
            distance, from_row = cost[start] - u[start] - v, np.full(m, start)
            closed = np.zeros(m, dtype=bool)
            while True:
                end = int(np.where(closed, math.inf, distance).argmin())
                if spare[end] > tiny:
                    break
                closed[end] = True
                for row in np.flatnonzero((flow[:, end] > 0) & np.isinf(reached)).tolist():
                    reached[row], from_column[row] = distance[end], end
                    through = distance[end] + cost[row] - u[row] - v
                    nearer = ~closed & (through < distance)
                    distance, from_row = (
                        np.where(nearer, through, distance),
                        np.where(nearer, row, from_row),
                    )
            rows = np.isfinite(reached)
            u[rows] += distance[end] - reached[rows]
            v[closed] -= distance[end] - distance[closed]
            path, column = [], end
            while True:
                row = int(from_row[column])
                path.append((row, column))
                if row == start:
                    break
                column = int(from_column[row])
            back = [(above[0], below[1]) for above, below in itertools.pairwise(path)]
            amount = min([left, spare[end]] + [flow[edge] for edge in back])
            for edge in path:
                flow[edge] += amount
            for edge in back:
                flow[edge] -= amount
            left -= amount
            spare[end] -= amount
    return flow, u, v


def _lower_price(
    cost: np.ndarray, flow: np.ndarray, u: np.ndarray, v: np.ndarray, stuck: np.ndarray
) -> None:
    """Take from the duals what the price of a forbidden edge has too much, in place.

    Rows that rows with mass left can reach share their price, and so do the columns between.
    """
    rows, columns = stuck.copy(), np.zeros(len(v), dtype=bool)
    while True:
        met = np.isfinite(cost[rows]).any(0) & ~columns
        if not met.any():
            break
        columns |= met
        rows |= (flow[:, columns] > 0).any(1)
    slack = cost - u[:, None] - v
    surplus = min(
        slack[np.ix_(~rows, columns)].min(initial=math.inf),
        (-v[columns]).min(initial=math.inf),
        u[stuck].min() - u[~rows].max(initial=-math.inf),
    )
    if math.isinf(surplus):
        surplus = u[stuck].min()
    u[rows] -= surplus
    v[columns] += surplus


def _ship_allowed(
    cost: np.ndarray, supply: np.ndarray, capacity: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_ship`, where edges of infinite cost carry nothing: as much as possible is shipped.

    Mass may stay in its row for a price, and the rows where it does have that price as u.
    """
    finite = np.isfinite(cost)
    if not cost.size or finite.all():
        return _ship(cost, supply, capacity)
    size = np.abs(cost[finite]).max(initial=0.0)
    price = 2.0 * (min(cost.shape) + 1) * size or 1.0
    flow, u, v = _ship(np.where(finite, cost, price), supply, capacity)
    lost = np.where(finite, 0.0, flow)
    flow -= lost
    stuck = lost.sum(1) > TINY * supply.sum()
    if stuck.any():
        # where as much is left as is missing, nothing has set v to 0 there yet
        level = v[lost.sum(0) > TINY * supply.sum()].max()
        u, v = u + level, v - level
        _lower_price(cost, flow, u, v, stuck)
    return flow, u, v


def _match(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """row_to_col, u and v of one problem whose forbidden edges cost infinity."""
    n, m = cost.shape
    if n > m:
        flow, v, u = _ship_allowed(cost.T, np.ones(m), np.ones(n))
        flow = flow.T
    else:
        flow, u, v = _ship_allowed(cost, np.ones(n), np.ones(m))
    chosen = flow.argmax(1) if m else np.zeros(n, dtype=int)
    return np.where(flow.sum(1) > 0.5, chosen, -1), u, v


def assignment(cost: Tensor, maximize: bool = False, mask: Tensor | None = None) -> Result:
    r"""The cheapest of the matchings with as many pairs as possible, and its dual variables.

    .. math:: \min_\pi \sum_i C_{i \pi(i)}
              = \max_{u, v} \sum_i u_i + \sum_j v_j, \quad u_i + v_j \le C_{ij}

    Args:
        cost: C, [..., n, m].
        maximize: look for the largest sum instead; then u_i + v_j >= C_ij.
        mask: bool, broadcast to cost; pairs that are False are forbidden, as are those of infinite
            cost (of -inf where the sum is to be large).

    Returns:
        row_to_col [..., n] and col_to_row [..., m], -1 where there is no partner; the total [...];
        u [..., n] and v [..., m].

    >>> assignment(torch.tensor([[4.0, 1.0], [2.0, 3.0]]))[0].tolist()
    [1, 0]
    """
    *batch, n, m = cost.shape
    kept = torch.float64 if cost.dtype == torch.float64 else torch.float32
    sign = -1.0 if maximize else 1.0
    costs = sign * cost.detach().double()
    if mask is not None:
        costs = torch.where(mask, costs, math.inf)
    columns = np.full((math.prod(batch), n), -1)
    rows = np.full((math.prod(batch), m), -1)
    u, v = np.full(columns.shape, math.nan), np.full(rows.shape, math.nan)
    solved = np.zeros(math.prod(batch), dtype=bool)
    for b, problem in enumerate(costs.reshape(math.prod(batch), n, m).cpu().numpy()):
        if np.isnan(problem).any() or np.isneginf(problem).any():
            continue
        columns[b], u[b], v[b] = _match(problem)
        matched = np.flatnonzero(columns[b] >= 0)
        rows[b, columns[b, matched]] = matched
        solved[b] = True

    def put(array: np.ndarray, *axes: int, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(array).to(cost.device, dtype).reshape([*batch, *axes])

    row_to_col = put(columns, n, dtype=torch.int64)
    pairs = row_to_col.unsqueeze(-1) == torch.arange(m, device=cost.device)
    total = torch.where(pairs, cost.double(), 0.0).sum((-2, -1))
    return (
        row_to_col,
        put(rows, m, dtype=torch.int64),
        torch.where(put(solved, dtype=torch.bool), total, math.nan).to(kept),
        put(sign * u, n, dtype=kept),
        put(sign * v, m, dtype=kept),
    )


def mass_tolerance(dtype: torch.dtype) -> float:
    """Relative difference of the two totals that counts as rounding."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 1e-2


def _transport(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, int]:
    """Plan, f, g, the mass that could not go, and the status."""
    n, m = cost.shape
    total = a.sum()
    bad = np.isnan(cost).any() or np.isneginf(cost).any()
    if bad or not (np.isfinite(total + b.sum()) and (a >= 0).all() and (b >= 0).all()):
        nan = math.nan
        return np.full((n, m), nan), np.full(n, nan), np.full(m, nan), nan, NOT_FINITE
    unequal = abs(total - b.sum()) > tolerance * total
    if total == 0 or b.sum() == 0:
        g = cost.min(0, initial=math.inf)
        return np.zeros((n, m)), np.zeros(n), g, total, INFEASIBLE if unequal else SOLVED
    plan, f, g = _ship_allowed(cost, a, b * (total / b.sum()))
    shift = (g @ b - f @ a) / (2 * total)
    lost = max(total - plan.sum(), 0.0)
    infeasible = unequal or lost > 1e-9 * total
    return plan, f + shift, g - shift, lost, INFEASIBLE if infeasible else SOLVED


def emd(
    cost: Tensor, a: Tensor | None = None, b: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""The cheapest plan that moves weights a to weights b, and its dual variables.

    .. math:: \min_{P \ge 0,\ P 1 = a,\ P^\top 1 = b} \langle C, P \rangle
              = \max_{f_i + g_j \le C_{ij}} \langle f, a \rangle + \langle g, b \rangle

    Args:
        cost: C, [..., n, m]; pairs of infinite cost carry nothing.
        a: [..., n], by default 1 / n.
        b: [..., m], by default 1 / m; scaled to the total of a.

    Returns:
        plan [..., n, m], f [..., n], g [..., m], the cost of the plan [...], the mass that could
        not go [...], the number of pivots [...], which is 0 here, and the status [...]: 0 solved, 2
        infeasible, 3 not finite.

    >>> emd(torch.tensor([[0.0, 2.0], [2.0, 0.0]]), torch.tensor([0.25, 0.75]))[3]
    tensor(0.5000)
    """
    *batch, n, m = cost.shape
    kept = torch.float64 if cost.dtype == torch.float64 else torch.float32
    count = math.prod(batch)
    tolerance = mass_tolerance(cost.dtype)
    weights = [
        torch.full((size,), 1.0 / max(size, 1), dtype=torch.float64, device=cost.device)
        if given is None
        else given.double()
        for given, size in ((a, n), (b, m))
    ]
    problems = cost.detach().double().reshape(count, n, m).cpu().numpy()
    sides = [
        w.detach().expand(*batch, size).reshape(count, size).cpu().numpy()
        for w, size in zip(weights, (n, m), strict=True)
    ]
    plan, f, g = np.zeros((count, n, m)), np.zeros((count, n)), np.zeros((count, m))
    err, status = np.zeros(count), np.zeros(count)
    for k in range(count):
        plan[k], f[k], g[k], err[k], status[k] = _transport(
            problems[k], sides[0][k], sides[1][k], tolerance
        )

    def put(array: np.ndarray, *axes: int) -> Tensor:
        return torch.from_numpy(array).to(cost.device).reshape([*batch, *axes])

    p, u, v = put(plan, n, m), put(f, n), put(g, m)
    value = torch.where(p == 0, 0.0, p * cost.double()).sum((-2, -1))
    # the duals are the gradients by the weights; their own value stays what it is
    for dual, weight in ((u, weights[0]), (v, weights[1])):
        value = value + torch.where(dual.isinf(), 0.0, dual * (weight - weight.detach())).sum(-1)
    whole = torch.zeros(batch, dtype=torch.int32, device=cost.device)
    return (
        p.to(kept),
        u.to(kept),
        v.to(kept),
        value.to(kept),
        put(err).to(kept),
        whole,
        put(status).to(torch.int32),
    )
