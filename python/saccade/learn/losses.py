"""Losses of supervised classification."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

HINGE_REDUCTIONS = ("mean", "sum")


def classification_loss(
    logits: Tensor, targets: Tensor, kind: str = "ce", label_smoothing: float = 0.0
) -> Tensor:
    """Mean loss of a batch.

    "ce": cross-entropy over classes. "bce": binary cross-entropy of every class by itself, on
    one-hot targets.
    Smoothing s moves targets y to (1 - s) y + s / C for "ce" and to (1 - s) y + s / 2 for "bce".

    Args:
        logits: [B, C].
        targets: int64 [B] class indices, or float [B, C] mixed by MixUp or CutMix.
        kind: "ce" or "bce".
        label_smoothing: s, in [0, 1).

    Returns:
        A scalar.
    """
    if kind == "ce":
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    soft = _one_hot(logits, targets)
    return F.binary_cross_entropy_with_logits(
        logits, soft * (1 - label_smoothing) + label_smoothing / 2
    )


class HingeLoss(nn.Module):
    r"""Loss of a linear support vector machine, one class against the rest.

    .. math::
        y_{bk} = \pm 1, \quad h_{bk} = \max(0, 1 - y_{bk} s_{bk})^p

    reduction "mean": :math:`\mathrm{mean}_{ok}(W^2) + C\,\mathrm{mean}_{bk}(h)`;
    reduction "sum": :math:`\tfrac12 \sum W^2 + C\,\mathrm{mean}_b \sum_k h`, which scikit-learn's
    LinearSVC minimises for its C times the number of images.

    Args:
        C: weight of the hinge, at least 0; default 1.
        p: 1, the hinge (L1-SVM), or 2, its square (L2-SVM, default).
        reduction: "mean", the published code's, or "sum".

    Raises:
        ValueError: C below 0, another p or another reduction.

    Notes:
        The bias is not regularised. Targets mixed by MixUp or CutMix, t in [0, 1], stand for
        y = 2 t - 1. The gradient of scores that keep their margin is exactly 0.

    Source: Agarap, arXiv 1712.03541, equations 4 to 6 (reduction "mean" as its code has it); Tang,
        arXiv 1306.0239, equations 5 and 6 (reduction "sum").

    >>> import torch
    >>> loss = HingeLoss()
    >>> float(loss(torch.zeros(5, 10), torch.arange(5), torch.zeros(10, 64)))
    1.0
    """

    def __init__(self, C: float = 1.0, p: int = 2, reduction: str = "mean") -> None:
        super().__init__()
        if C < 0:
            raise ValueError(f"C must be at least 0; got {C}")
        if p not in (1, 2):
            raise ValueError(f"p must be 1 or 2; got {p}")
        if reduction not in HINGE_REDUCTIONS:
            raise ValueError(
                f"reduction must be one of {', '.join(HINGE_REDUCTIONS)}; got {reduction!r}"
            )
        self.C, self.p, self.reduction = C, p, reduction

    def forward(self, scores: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            scores: [B, K].
            targets: int64 [B] class indices, or float [B, K].
            weight: [K, D], the classifier's.

        Returns:
            A scalar.
        """
        signs = 2 * _one_hot(scores, targets) - 1
        hinge = (1 - signs * scores).clamp_min(0)
        hinge = hinge.square() if self.p == 2 else hinge
        if self.reduction == "mean":
            return weight.square().mean() + self.C * hinge.mean()
        return 0.5 * weight.square().sum() + self.C * hinge.sum(1).mean()


def _one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return targets
    return F.one_hot(targets, logits.shape[1]).to(logits.dtype)
