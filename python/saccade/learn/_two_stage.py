"""The two-stage recipe for a model of two branches: train them apart, then unfreeze the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.optim import Optimizer

from saccade.data._seeds import seed_all
from saccade.learn._callbacks import EpochSeeds
from saccade.learn.dual import Augment, DualInputOutput, UnionModule
from saccade.learn.unfreezing import Group, ProgressiveUnfreezer


class Unified(Protocol):
    """A model that joins two branches, as `saccade.models.lightweight_cnn.LightweightCNN` does."""

    def load_branches(self, first: Any, second: Any) -> Any:
        """Copy the weights of two trained branches."""

    def unfreezing_groups(self) -> Sequence[Group]:
        """The layers in the order in which they are set free, the new ones first."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of a batch."""


@dataclass(frozen=True)
class TwoStageConfig:
    """How the two stages train; the defaults are the recipe at paper scale.

    Args:
        first_epochs: at most so many epochs of the first stage.
        patience: epochs without a smaller validation loss after which the first stage ends.
        first_lr: rate of the first stage's Adam.
        phases: epochs of the second stage's phases: head, then one group more in each.
        second_lr, momentum: of the second stage's SGD, which starts anew in every phase.
        seed: of order, augmentation and dropout.
        accelerator, devices, strategy, precision: as Lightning takes them.

    Raises:
        ValueError: a value out of range.
    """

    first_epochs: int = 30
    patience: int = 5
    first_lr: float = 1e-3
    phases: tuple[int, ...] = (5, 5, 5, 10)
    second_lr: float = 1e-3
    momentum: float = 0.9
    seed: int = 0
    accelerator: str = "auto"
    devices: str = "1"
    strategy: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        for name in ("first_epochs", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.phases or min(self.phases) < 1:
            raise ValueError(f"phases must be numbers of at least 1, got {self.phases}.")
        if not min(self.first_lr, self.second_lr) > 0 or not 0 <= self.momentum < 1:
            raise ValueError(
                "first_lr and second_lr must be above 0 and momentum in [0, 1), got "
                f"{self.first_lr:g}, {self.second_lr:g} and {self.momentum:g}."
            )

    @property
    def epochs(self) -> int:
        """Epochs of both stages together."""
        return self.first_epochs + sum(self.phases)

    def adam(self, parameters: list[nn.Parameter]) -> Optimizer:
        """The first stage's optimiser."""
        return torch.optim.Adam(parameters, lr=self.first_lr)

    def sgd(self, parameters: list[nn.Parameter]) -> Optimizer:
        """The optimiser of a phase of the second stage."""
        return torch.optim.SGD(parameters, lr=self.second_lr, momentum=self.momentum)


class TwoStage(NamedTuple):
    """The trained model in evaluation mode, and the branches as the first stage left them."""

    model: Any
    dual: DualInputOutput


def two_stage(
    model: Unified,
    branch_factory: Callable[[], nn.Module],
    data: LightningDataModule,
    augment: Augment,
    config: TwoStageConfig | None = None,
) -> TwoStage:
    """Train two branches on images and on their augmentation, copy them into the model, and
    fine-tune it with progressive unfreezing on both kinds of images.

    Args:
        model: joins two branches; trained in place.
        branch_factory: makes one branch.
        data: gives batches (images, classes) to train and to validate.
        augment: of a batch of images.
        config: both stages; default `TwoStageConfig()`.

    Returns:
        TwoStage: model and branches.

    Raises:
        ValueError: config.phases are not as many as the model's groups, or a branch does not fit.

    Notes:
        The same settings give the same bits on one machine.

    Source:
        arXiv 2501.15547; schedule and optimisers are those of two third-party reproductions.
    """
    cfg = config or TwoStageConfig()
    seed_all(cfg.seed, 1)
    unfreezer = ProgressiveUnfreezer(model.unfreezing_groups(), cfg.phases, cfg.sgd)
    dual = DualInputOutput(branch_factory, augment, cfg.adam)
    stop = EarlyStopping("val/loss", patience=cfg.patience)
    train(dual, data, cfg.first_epochs, cfg, [stop])
    model.load_branches(dual.first, dual.second)
    module = UnionModule(model, augment, cfg.sgd)  # type: ignore[arg-type]
    train(module, data, sum(cfg.phases), cfg, [unfreezer])
    return TwoStage(module.model.eval(), dual.eval())


def train(
    module: LightningModule,
    data: LightningDataModule,
    epochs: int,
    config: TwoStageConfig,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Fit a module for some epochs, seeded by the epoch, and leave no file."""
    from saccade.learn._fit import quiet_lightning

    with quiet_lightning():
        Trainer(
            max_epochs=epochs,
            accelerator=config.accelerator,
            devices=int(config.devices) if config.devices.isdigit() else config.devices,
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            callbacks=[EpochSeeds(config.seed), *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        ).fit(module, datamodule=data)
