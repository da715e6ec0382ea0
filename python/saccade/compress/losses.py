"""Losses of distillation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def distillation_loss(
    logits: Tensor, teacher: Tensor, targets: Tensor, alpha: float = 0.5, tau: float = 4.0
) -> Tensor:
    r"""Cross-entropy with the classes, and divergence from the teacher's softened answer.

    .. math:: \alpha\, CE(f, y) + (1 - \alpha)\, \tau^2\,
              KL\big(\mathrm{softmax}(g / \tau) \,\|\, \mathrm{softmax}(f / \tau)\big)

    Args:
        logits: f, [B, K].
        teacher: g, [B, K].
        targets: y, class indices [B].
        alpha: share of the classes, 0 to 1.
        tau: temperature, above 0. Its square keeps the gradients' scale.

    Returns:
        The mean over the batch.

    Raises:
        ValueError: alpha or tau out of range.

    Source:
        Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2.
    """
    if not 0 <= alpha <= 1 or not tau > 0:
        raise ValueError(f"alpha must lie in [0, 1] and tau above 0, got {alpha} and {tau}.")
    hard = F.cross_entropy(logits, targets)
    soft = F.kl_div(
        (logits / tau).log_softmax(1),
        (teacher / tau).log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    return alpha * hard + (1 - alpha) * tau**2 * soft


def margin_loss(
    logits: Tensor, teacher: Tensor, targets: Tensor, up: Tensor, down: Tensor,
    gamma: float, alpha: float,
) -> Tensor:  # fmt: skip
    r"""Weighted squared distance to the teacher, moved by a margin to the side that weighs more.

    .. math:: (1 - \alpha)\, \overline{(K^+ + K^-)\,
              \Big(f - g - \gamma\, \frac{K^+ - K^-}{K^+ + K^-}\Big)^2} + \alpha\, CE(f, y)

    Args:
        logits: f, [B, K].
        teacher: g, [B, K].
        targets: y, class indices [B].
        up: K+, [B, K].
        down: K-, [B, K]; both are scaled so that their sum is 1 on average.
        gamma: margin where K- is 0, in units of the logits.
        alpha: share of the classes, 0 to 1.

    Returns:
        The mean over batch and classes.
    """
    both = up + down
    aim = teacher + gamma * (up - down) / both
    distance = (both * (logits - aim).square()).mean()
    return (1 - alpha) * distance + alpha * F.cross_entropy(logits, targets)
