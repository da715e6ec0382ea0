"""Training a super-net, and the accuracy of its sub-nets with the weights they inherit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from saccade.compress.search.space import Architecture
from saccade.compress.search.supernet import SuperNet
from saccade.data._seeds import derive_seed, seed_all

PATHS = ("single", "sandwich")


@dataclass(frozen=True)
class SuperNetConfig:
    """How a super-net is trained.

    Args:
        paths: "single", one sub-net drawn uniformly for every update, as published; "sandwich", the
            largest, the smallest and a drawn one, their gradients added.
        epochs: passes over the images.
        batch_size: images an update.
        lr: peak learning rate of AdamW, with betas 0.9 and 0.998; the way there is linear from
            `warmup_lr`, the way to `min_lr` a half cosine.
        warmup_steps: updates of the linear part.
        warmup_lr, min_lr: first and last learning rate.
        weight_decay: spares vectors, the class token and the position encoding.
        label_smoothing: share of the target spread over all classes.
        seed: of order, dropout and sub-nets.
        accelerator: as Lightning takes it.

    Raises:
        ValueError: a value out of range.
    """

    paths: str = "single"
    epochs: int = 6
    batch_size: int = 64
    lr: float = 1e-3
    warmup_steps: int = 0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-7
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    seed: int = 0
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        if self.paths not in PATHS:
            raise ValueError(f"paths must be one of {', '.join(PATHS)}, got {self.paths!r}.")
        if min(self.epochs, self.batch_size) < 1 or self.warmup_steps < 0:
            raise ValueError(
                "epochs and batch_size must be at least 1 and warmup_steps at least 0, got "
                f"{self.epochs}, {self.batch_size} and {self.warmup_steps}."
            )
        if not 0 <= self.min_lr <= self.lr or not 0 <= self.warmup_lr <= self.lr or not self.lr:
            raise ValueError(
                "lr must be above 0 and not below warmup_lr and min_lr, got "
                f"{self.lr:g}, {self.warmup_lr:g} and {self.min_lr:g}."
            )
        if not 0 <= self.label_smoothing < 1 or self.weight_decay < 0:
            raise ValueError(
                "label_smoothing must lie in [0, 1) and weight_decay be at least 0, got "
                f"{self.label_smoothing} and {self.weight_decay}."
            )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of an update."""
        if step < self.warmup_steps:
            return self.warmup_lr + (self.lr - self.warmup_lr) * step / self.warmup_steps
        done = min((step - self.warmup_steps) / max(1, steps - self.warmup_steps), 1.0)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


class SuperNetModule(LightningModule):
    """Trains a super-net on batches of (images, classes).

    Notes:
        The sub-nets of an update depend on the seed and the update's number alone, so that all
        processes train the same ones and a resumed run goes on with them.
    """

    def __init__(self, net: SuperNet, config: SuperNetConfig) -> None:
        super().__init__()
        self.net, self.config = net, config

    def drawn(self, step: int) -> list[Architecture]:
        """The sub-nets of an update."""
        space = self.net.space
        rng = np.random.default_rng(derive_seed(self.config.seed, step))
        arch = space.decode(space.sample(rng))
        if self.config.paths == "single":
            return [arch]
        return [space.largest(), space.smallest(), arch]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch, summed over the sub-nets."""
        images, targets = batch
        losses = [
            F.cross_entropy(
                self.net(images, arch), targets, label_smoothing=self.config.label_smoothing
            )
            for arch in self.drawn(self.global_step)
        ]
        loss = torch.stack(losses).sum()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, and the schedule by updates."""
        spared = self.net.no_weight_decay()
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.net.named_parameters():
            groups[parameter.ndim > 1 and name not in spared].append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {"params": groups[True], "weight_decay": self.config.weight_decay},
                {"params": groups[False], "weight_decay": 0.0},
            ],
            lr=self.config.lr,
            betas=(0.9, 0.998),
        )
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.config.rate(step, steps) / self.config.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train_supernet(
    net: SuperNet,
    batches: Iterable[Any] | LightningDataModule,
    config: SuperNetConfig | None = None,
) -> SuperNet:
    """Train a super-net in place.

    Args:
        net: the super-net.
        batches: gives (images, classes) anew every epoch: `loader`, or a data module.
        config: default `SuperNetConfig()`; its `batch_size` is that of `loader`.

    Returns:
        The super-net, in evaluation mode.
    """
    cfg = config or SuperNetConfig()
    seed_all(cfg.seed)
    trainer = Trainer(
        max_epochs=cfg.epochs,
        accelerator=cfg.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(SuperNetModule(net, cfg), batches)
    return net.eval()


def loader(
    images: Tensor, targets: Tensor, config: SuperNetConfig
) -> DataLoader[tuple[Tensor, ...]]:
    """Shuffled batches of images in memory, the same for the same seed; whole ones alone."""
    order = torch.Generator().manual_seed(derive_seed(config.seed, 1))
    samples = TensorDataset(images, targets)
    return DataLoader(samples, config.batch_size, shuffle=True, drop_last=True, generator=order)


@torch.no_grad()
def score(
    net: SuperNet,
    archs: Sequence[Architecture],
    images: Tensor,
    targets: Tensor,
    batch_size: int = 256,
) -> list[float]:
    """Accuracy in [0, 1] of sub-nets with inherited weights, the data of an accuracy ranker.

    Args:
        net: the super-net, evaluated in evaluation mode.
        archs: sub-nets.
        images: of the validation split, never of the test split, [n, C, H, W].
        targets: their classes, [n].
        batch_size: images a pass.
    """
    net.eval()
    device = next(net.parameters()).device
    scores = []
    for arch in archs:
        right = [
            net(part.to(device), arch).argmax(1).cpu() == known
            for part, known in zip(images.split(batch_size), targets.split(batch_size), strict=True)
        ]
        scores.append(float(torch.cat(right).double().mean()))
    return scores
