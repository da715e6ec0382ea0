"""Supervised classification as a Lightning module: loss, optimiser, schedule and metrics around any
model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
)

from saccade._extras import require
from saccade.data.transforms import batch_mixing
from saccade.learn.config import TrainConfig
from saccade.learn.losses import HingeLoss, classification_loss


def cosine_factor(step: int, steps: int, warmup: int, floor: float) -> float:
    """Learning rate of a step relative to its peak: linear over `warmup` steps, then a half cosine
    down to `floor`.

    >>> [round(cosine_factor(step, 4, 0, 0.1), 3) for step in range(5)]
    [1.0, 0.868, 0.55, 0.232, 0.1]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(config: TrainConfig, steps: int) -> Callable[[int], float]:
    """Factor of the peak learning rate at every one of `steps` steps, as configured."""
    per_epoch = steps / config.epochs
    warmup = round(config.warmup_epochs * per_epoch)

    def factor(step: int) -> float:
        if config.schedule == "cosine":
            return cosine_factor(step, steps, warmup, config.min_lr / config.lr)
        if step < warmup:
            return (step + 1) / warmup
        if config.schedule == "constant":
            return 1.0
        return config.lr_decay ** math.floor(step / (config.lr_decay_epochs * per_epoch))

    return factor


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_all: bool
) -> list[dict[str, Any]]:
    """Trainable parameters with decay, and those without: biases, normalisation, and what
    `model.no_weight_decay()` names.
    """
    trainable = [
        (name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad
    ]
    spared: set[str] = set()
    if not decay_all:
        no_weight_decay = getattr(model, "no_weight_decay", set)
        named = set(no_weight_decay())
        spared = {name for name, parameter in trainable if parameter.ndim < 2 or name in named}
    groups = [
        {
            "params": [p for name, p in trainable if name not in spared],
            "weight_decay": weight_decay,
        },
        {"params": [p for name, p in trainable if name in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class SupervisedModule(LightningModule):
    """Trains a classifier with the configured loss, optimiser and schedule; accuracy and AUC of
    validation and test.

    Args:
        model: maps [B, C, H, W] to logits [B, num_classes].
        num_classes: number of classes.
        config: loss, optimiser and schedule; the batch there is the global one.

    Notes:
        Under data parallelism gradients are averaged over processes, so that equal shares of one
        global batch give the
        single process's gradients; batch normalisation sees its own share only. Metrics are exact
        over all processes.
    """

    def __init__(self, model: nn.Module, num_classes: int, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.hinge = None
        if config.loss.startswith("svm"):
            self.hinge = HingeLoss(config.svm_c, p=1 if config.loss == "svm_l1" else 2)
        self.mixing = batch_mixing(config.mixup, config.cutmix, num_classes)
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_auc = MulticlassAUROC(num_classes)
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_auc = MulticlassAUROC(num_classes)
        self.test_confusion = MulticlassConfusionMatrix(num_classes)
        self.confusion: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.model(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, targets = batch
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
        logits = self(images)
        loss = self._loss(logits, targets)
        hard = targets.argmax(1) if targets.is_floating_point() else targets
        self.train_accuracy(logits.detach(), hard)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(images)
        )
        self.log(
            "train/accuracy",
            self.train_accuracy,
            on_step=False,
            on_epoch=True,
            batch_size=len(images),
        )
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and metrics of one batch."""
        logits = self._evaluate("val", batch)
        self.val_accuracy.update(logits, batch[1])
        self.val_auc.update(logits.float(), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole split."""
        self.log("val/accuracy", self.val_accuracy.compute())
        self.log("val/auc", self.val_auc.compute())
        self.val_accuracy.reset()
        self.val_auc.reset()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and metrics of one batch."""
        logits = self._evaluate("test", batch)
        self.test_accuracy.update(logits, batch[1])
        self.test_auc.update(logits.float(), batch[1])
        self.test_confusion.update(logits, batch[1])

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole split; keep the confusion matrix (rows: true classes)."""
        self.log("test/accuracy", self.test_accuracy.compute())
        self.log("test/auc", self.test_auc.compute())
        self.confusion = self.test_confusion.compute().cpu()
        for metric in (self.test_accuracy, self.test_auc, self.test_confusion):
            metric.reset()

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.hinge is None:
            kind, smoothing = self.config.loss, self.config.label_smoothing
            return classification_loss(logits, targets, kind, smoothing)
        loss: Tensor = self.hinge(logits, targets, self.model.get_classifier().weight)  # type: ignore[operator]
        return loss

    def _evaluate(self, split: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, targets = batch
        logits: Tensor = self(images)
        loss = self._loss(logits, targets)
        self.log(
            f"{split}/loss",
            loss,
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(images),
        )
        return logits

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser, and the schedule that steps after every batch."""
        config = self.config
        groups = parameter_groups(self.model, config.weight_decay, config.decay_all)
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer = _optimizer(groups, config)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate(config, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _optimizer(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    lr, momentum = config.lr, config.momentum
    # One pass over all parameters; Lightning cannot clip what such an optimiser unscales itself.
    fused = config.precision not in ("16", "16-mixed")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=fused)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
    # TensorFlow starts the mean square at 1 and adds epsilon inside the square root.
    rmsprop = require("timm.optim", extra="models", purpose="optimizer rmsprop").RMSpropTF
    optimizer: torch.optim.Optimizer = rmsprop(
        groups, lr=lr, alpha=0.9, eps=config.rmsprop_eps, momentum=momentum
    )
    return optimizer
