"""Two networks of one form in one model: the first sees images, the second their augmentation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

Augment = Callable[[Tensor], Tensor]


def _adam(parameters: list[nn.Parameter]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


class DualInputOutput(LightningModule):
    r"""Two branches with weights of their own, two inputs, two outputs, one loss.

    .. math::
        L = w_1\,\mathrm{CE}(f_1(x), y) + w_2\,\mathrm{CE}(f_2(a(x)), y)

    The branches share nothing, so training them together is training each alone.

    Args:
        branch_factory: makes one branch, any module from images to logits; called twice.
        augment: a, of a batch of images; None: the second branch sees the images too. Validation
            shows both branches the images as they are.
        optimizer_factory: list of parameters to an optimiser; default Adam with rate 1e-3.
        weights: w_1 and w_2; default 1 and 1.

    Shape:
        x, other [B, C, H, W] -> two times [B, num_classes]; without `other` both see x.

    Notes:
        Training batches are (images, classes). "val/loss" is the loss of both branches, for early
        stopping.

    Source:
        arXiv 2501.15547, first stage; weights and validation are chosen here.

    >>> dual = DualInputOutput(lambda: nn.Linear(3, 2))
    >>> [y.shape for y in dual(torch.ones(4, 3), torch.zeros(4, 3))]
    [torch.Size([4, 2]), torch.Size([4, 2])]
    """

    def __init__(
        self,
        branch_factory: Callable[[], nn.Module],
        augment: Augment | None = None,
        optimizer_factory: Callable[[list[nn.Parameter]], Optimizer] = _adam,
        weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        if len(weights) != 2 or min(weights) < 0:
            raise ValueError(f"weights must be two numbers of at least 0, got {weights}.")
        self.first, self.second = branch_factory(), branch_factory()
        self.augment, self.optimizer_factory, self.weights = augment, optimizer_factory, weights

    def forward(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The outputs of both branches."""
        return self.first(x), self.second(x if other is None else other)

    def loss(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        """The weighted sum of the cross-entropies."""
        one, two = (F.cross_entropy(logits, targets) for logits in outputs)
        return self.weights[0] * one + self.weights[1] * two

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, targets = batch
        loss = self.loss(self(images, self.augment and self.augment(images)), targets)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(images)
        )
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss of one batch as it is."""
        images, targets = batch
        loss = self.loss(self(images), targets)
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(images))

    def configure_optimizers(self) -> Optimizer:
        """What `optimizer_factory` makes of all parameters."""
        return self.optimizer_factory(list(self.parameters()))


class UnionModule(LightningModule):
    """Trains one classifier on images and their augmentation together, one of each.

    Args:
        model: images to logits.
        augment: of a batch of images; None trains on the images alone.
        optimizer_factory: list of parameters to an optimiser; default Adam with rate 1e-3.

    Notes:
        A batch of B images becomes 2 B with their augmentation. "val/loss" is that of the images as
        they are.
    """

    def __init__(
        self,
        model: nn.Module,
        augment: Augment | None = None,
        optimizer_factory: Callable[[list[nn.Parameter]], Optimizer] = _adam,
    ) -> None:
        super().__init__()
        self.model, self.augment, self.optimizer_factory = model, augment, optimizer_factory

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.model(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch and its augmentation."""
        images, targets = batch
        if self.augment is not None:
            images = torch.cat([images, self.augment(images)])
            targets = targets.repeat(2)
        loss = F.cross_entropy(self(images), targets)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(images)
        )
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss of one batch as it is."""
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(batch[0]))

    def configure_optimizers(self) -> Optimizer:
        """What `optimizer_factory` makes of all parameters."""
        return self.optimizer_factory(list(self.model.parameters()))
