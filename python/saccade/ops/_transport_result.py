"""What the solvers of optimal transport return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# What a status says.
CONVERGED, MAX_ITER, INFEASIBLE, NOT_FINITE = range(4)


class OTResult(NamedTuple):
    r"""A transport plan with its potentials and what became of the solver.

    Attributes:
        plan: P [..., n, m], or None where no plan is formed
            (:func:`saccade.ops.sinkhorn_points`).
        f: potentials of the rows, [..., n]; -inf where a row takes no part.
        g: potentials of the columns, [..., m].
        value: what the plan minimises, [...], the entropy and the penalties of the marginals
            included.
        value_linear: the transport cost :math:`\langle C, P \rangle` alone, [...].
        n_iter: sweeps that were made, int32 [...].
        err: L1 error of the row marginal, [...].
        status: int32 [...]: 0 converged, 1 max_iter, 2 infeasible, 3 not finite.
    """

    plan: Tensor | None
    f: Tensor
    g: Tensor
    value: Tensor
    value_linear: Tensor
    n_iter: Tensor
    err: Tensor
    status: Tensor
