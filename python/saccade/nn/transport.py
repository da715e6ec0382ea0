"""Optimal transport as losses and layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from saccade.ops.transport import OTResult, sinkhorn, sinkhorn_divergence, sinkhorn_points


class Sinkhorn(nn.Module):
    """Entropic plans of cost matrices: :func:`saccade.ops.sinkhorn` with fixed options.

    Args:
        eps: the strength of the entropy, in the units of cost.
        options: of :func:`saccade.ops.sinkhorn`: rho, max_iter, tol, eps_scaling, grad, reg_type.

    Shape:
        cost [..., n, m], a [..., n], b [..., m], mask [..., n, m]; to an
        :class:`saccade.ops.OTResult`.

    >>> import torch
    >>> Sinkhorn(eps=0.5)(torch.zeros(2, 4)).plan.shape
    torch.Size([2, 4])
    """

    def __init__(self, eps: float, **options: Any) -> None:
        super().__init__()
        self.eps, self.options = eps, options

    def forward(
        self,
        cost: Tensor,
        a: Tensor | None = None,
        b: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> OTResult:
        """Solve."""
        return sinkhorn(cost, a, b, eps=self.eps, mask=mask, **self.options)

    def extra_repr(self) -> str:
        """Name the options."""
        return ", ".join(f"{k}={v!r}" for k, v in {"eps": self.eps, **self.options}.items())


class SinkhornLoss(nn.Module):
    """Transport between clouds of points as a loss: debiased, so that equal clouds have loss 0.

    Args:
        eps: the strength of the entropy, in the units of the cost.
        p: 2 the squared distance, 1 the distance, "cos" one minus the cosine.
        debias: subtract half of what each cloud costs against itself. Default True:
            :func:`saccade.ops.sinkhorn_divergence`; else the value of
            :func:`saccade.ops.sinkhorn_points`.
        reduction: "mean" (default), "sum" or "none" over the batch.
        options: of these functions: rho, max_iter, tol, eps_scaling, grad.

    Shape:
        x [..., n, D], y [..., m, D], a [..., n], b [..., m]; to a scalar, or [...].

    >>> import torch
    >>> x = torch.rand(3, 10, 2)
    >>> SinkhornLoss(eps=0.1)(x, x).abs().item() < 1e-5
    True
    """

    def __init__(
        self,
        eps: float,
        p: int | str = 2,
        debias: bool = True,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be mean, sum or none, got {reduction!r}.")
        self.eps, self.p, self.debias, self.reduction = eps, p, debias, reduction
        self.options = options

    def forward(
        self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None
    ) -> Tensor:
        """Measure the clouds against each other."""
        options: dict[str, Any] = {"eps": self.eps, "p": self.p, **self.options}
        if self.debias:
            loss = sinkhorn_divergence(x, y, a, b, **options)
        else:
            loss = sinkhorn_points(x, y, a, b, **options).value
        if self.reduction == "none":
            return loss
        reduced: Tensor = loss.mean() if self.reduction == "mean" else loss.sum()
        return reduced

    def extra_repr(self) -> str:
        """Name the options."""
        named = {"eps": self.eps, "p": self.p, "debias": self.debias, "reduction": self.reduction}
        return ", ".join(f"{k}={v!r}" for k, v in {**named, **self.options}.items())
