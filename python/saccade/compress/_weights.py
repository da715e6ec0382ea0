"""The two matrices by which B-DISTIL tells the next student what the ensemble still lacks."""

from __future__ import annotations

import torch
from torch import Tensor


class MarginWeights:
    r"""K+ and K- [n, K] of n images and K classes, 1 / (2n) at first.

    A student with residuals :math:`l = f - g` has the edge :math:`\sum_i (K^+ - K^-) l` in each
    class. After it

    .. math:: K^+ \leftarrow K^+ e^{-\eta l}, \quad K^- \leftarrow K^- e^{\eta l}

    and each class is scaled to :math:`\sum_i (K^+ + K^-) = 1`. So K+ grows where the student lies
    below the teacher, K- where it lies above.

    `largest` is the largest absolute value of the last student's residuals, 0 at first: times
    :math:`(K^+ - K^-) / (K^+ + K^-)` it is, for small steps, eta times what a next student must
    add to g so that the mean of all answers is g.

    Args:
        images, classes: n and K.
        eta: step; residuals are divided by their largest absolute value first.

    Source:
        Dennis et al., "Progressive Ensemble Distillation" (arXiv 2302.10093), from its description:
        the announced code is not there.

    >>> weights = MarginWeights(1, 2)
    >>> weights.update(torch.tensor([[-1.0, 1.0]]))
    >>> (weights.up > weights.down).tolist()
    [[True, False]]
    """

    def __init__(self, images: int, classes: int, eta: float = 1.0) -> None:
        self.up = torch.full((images, classes), 0.5 / images, dtype=torch.float64)
        self.down = self.up.clone()
        self.eta, self.largest = eta, 0.0

    def edge(self, residual: Tensor) -> Tensor:
        """The edge of a student with these residuals [n, K] in each class, [K]."""
        return ((self.up - self.down) * residual).sum(0)

    def update(self, residual: Tensor) -> None:
        """Weigh anew after a student with these residuals [n, K]."""
        wide = residual.double()
        largest = wide.abs().max()
        step = self.eta * wide / largest.clamp(min=torch.finfo(torch.float64).tiny)
        up, down = self.up * (-step).exp(), self.down * step.exp()
        total = (up + down).sum(0)
        self.up, self.down, self.largest = up / total, down / total, float(largest)
