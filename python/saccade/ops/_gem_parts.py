"""The parts of the gradient projection, for methods that stand on the same products."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saccade import reference
from saccade.ops import _checks
from saccade.ops import _gem_checks as _arguments
from saccade.ops._gem_op import Combination, Products, Quadratic, kernel
from saccade.ops._kernels import wanted
from saccade.ops._select import select_reverse_mode
from saccade.ops.gem import _fold


def gram_dot(memory: Tensor, grad: Tensor, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    r"""Gram matrix of rows and their products with a vector, in one pass over the data.

    .. math:: K = G G^\top, \quad d = G g

    Args:
        memory: G, [..., t, P], of any floating type; leading axes are grad's or broadcast to them.
            Any strides.
        grad: g, [..., P], of memory's type.
        backend: as in :func:`gem_project`.

    Returns:
        K [..., t, t], symmetric, and d [..., t], both in float64 and differentiable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types or devices do not fit together.
        RuntimeError: the forced backend cannot run.

    Notes:
        (t + 1) (t + 2) P flops. Products of float32 are summed in float32 over a few hundred
        columns, then in float64. Deterministic. Gradients are plain torch, of any order.

    Source:
        The products of GEM, arXiv 1706.08840, equation 11.

    >>> import torch
    >>> gram_dot(torch.eye(2, 3), torch.ones(3))[1]
    tensor([1., 1.], dtype=torch.float64)
    """
    _arguments.gradient_and_memory(grad, memory)
    batch, t = grad.shape[:-1], memory.shape[-2]
    rung = select_reverse_mode("gem", backend, memory)
    rows, g = _fold(memory, batch, 2), _fold(grad, batch, 1)
    if rung == "reference":
        gram, dot = reference.gram_dot(rows, g)
    elif wanted(rows, g):
        gram, dot = Products.apply(rows, g, rung)
    else:
        gram, dot = kernel(rung, "gem_gram")(rows, g)
    return gram.reshape(*batch, t, t), dot.reshape(*batch, t)


def combine(grad: Tensor, memory: Tensor, dual: Tensor, *, backend: str = "auto") -> Tensor:
    r"""Add rows to a vector, each times its number: :math:`v = g + G^\top \lambda`.

    Args:
        grad: g, [..., P], of any floating type.
        memory: G, [..., t, P], of grad's type; leading axes are grad's or broadcast to them. Any
            strides.
        dual: lambda, [..., t], of any floating type. A row whose number is 0 is not read, whatever
            it holds.
        backend: as in :func:`gem_project`.

    Returns:
        v with the shape and type of grad, differentiable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types or devices do not fit together.
        RuntimeError: the forced backend cannot run.

    Notes:
        One pass, 2 t P flops; summed in float64, rounded once. Deterministic. Gradients are plain
        torch, of any order.

    Source:
        GEM, arXiv 1706.08840, equation 12.

    >>> import torch
    >>> combine(torch.ones(3), torch.eye(2, 3), torch.tensor([2.0, 0.0]))
    tensor([3., 1., 1.])
    """
    _arguments.gradient_and_memory(grad, memory)
    _checks.floating_tensor("dual", dual)
    batch, t = grad.shape[:-1], memory.shape[-2]
    _arguments.rows("dual", dual, t, batch)
    if dual.device != grad.device:
        raise ValueError(f"dual must be on the device of grad, {grad.device}, got {dual.device}.")
    rung = select_reverse_mode("gem", backend, memory)
    folded = (_fold(grad, batch, 1), _fold(memory, batch, 2), _fold(dual, batch, 1))
    if rung == "reference":
        v = reference.combine(*folded)
    elif wanted(*folded):
        v = Combination.apply(*folded, rung)
    else:
        v = kernel(rung, "gem_combine")(*folded)
    return v.reshape(grad.shape)


def nnqp(
    gram: Tensor,
    linear: Tensor,
    *,
    lower: float = 0.0,
    ridge: float = 0.0,
    valid: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Minimise small convex quadratics over variables with a lower bound, a batch at once.

    .. math:: \lambda^\star = \arg\min_{\lambda \ge m}
              \tfrac{1}{2} \lambda^\top (K + \epsilon I) \lambda + c^\top \lambda

    Args:
        gram: K, [..., t, t], float32 or float64, positive semidefinite; its symmetric part counts.
        linear: c, [..., t], of gram's type.
        lower: m, finite, at least 0. Default 0.
        ridge: epsilon, finite, at least 0. Default 0.
        valid: bool [..., t]; a variable that is False is left out and gets 0. Default all.
        backend: as in :func:`gem_project`.

    Returns:
        lambda [..., t] in float64, differentiable, and the status [...] in int32: 0 solved, 2
        unbounded (no v satisfies the constraints that this is the dual of), 3 NaN or infinity.
        lambda is 0 where the status is not 0.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or values do not fit together.
        RuntimeError: the forced backend cannot run.

    Notes:
        A dual active-set method in float64 on a swept table, t^2 flops a step and about as many
        steps as there are active variables, then one refinement. Of several solutions (dependent
        rows) it finds one; G' lambda is the same for all. Gradients reach gram and linear; a
        variable at its bound is treated as inactive; no double backward on the kernels.

    Source:
        Goldfarb and Idnani, Mathematical Programming 27, 1983; the dual of GEM, arXiv 1706.08840,
        equation 11.

    >>> import torch
    >>> dual, status = nnqp(torch.eye(2), torch.tensor([-1.0, 1.0]))
    >>> dual.tolist(), status.item()
    ([1.0, 0.0], 0)
    """
    _arguments.quadratic(gram, linear)
    bound = _arguments.at_least_zero("lower", lower)
    epsilon = _arguments.at_least_zero("ridge", ridge)
    batch, t = linear.shape[:-1], linear.shape[-1]
    if valid is not None:
        _arguments.valid_rows(valid, t, batch, linear)
        linear = torch.where(valid, linear, math.inf)
    # the solver computes in float64 whatever it is given, so the type of gram is no obstacle
    of_size = gram.new_empty((), dtype=torch.float32).expand(gram.shape)
    rung = select_reverse_mode("gem", backend, of_size)
    k, c = _fold(gram, batch, 2), _fold(linear, batch, 1)
    if rung == "reference":
        dual, status = reference.nnqp(k, c, bound, epsilon)
    elif wanted(k, c):
        dual, status = Quadratic.apply(k, c, bound, epsilon, rung)
    else:
        dual, status = kernel(rung, "gem_nnqp")(k, c, bound, epsilon)
    return dual.reshape(*batch, t), status.reshape(batch)
