"""Progressive unfreezing of any module, group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

Group = nn.Module | Iterable[nn.Module]


class ProgressiveUnfreezer(Callback):
    """Trains the first group alone, then the first two, and so on to all of them.

    In a phase the groups that are not yet free get no gradient and stand in evaluation mode, so
    that their dropout and batch statistics rest too. Every phase starts with a new optimiser over
    the free parameters, which is what compiling anew does in Keras.

    As a callback of a Lightning `Trainer` it does all this by itself, in place of the module's own
    optimiser. Without Lightning, call `enter(phase)` where a phase starts and `rest()` after every
    `model.train()`.

    Args:
        groups: modules, or collections of modules, in the order in which they are set free.
            Parameters in no group are not trained.
        epochs_per_group: epochs of every phase, or one number for all; the last phase goes on.
        optimizer_factory: list of parameters to an optimiser.

    Raises:
        ValueError: no groups, epochs that do not fit them, or a parameter in two groups.

    Notes:
        A run resumes from a Lightning checkpoint in the phase that it was in, with that phase's
        optimiser state. Schedulers belong to the module's own optimiser and are not used. Under DDP
        frozen parameters have no gradient: take strategy="ddp_find_unused_parameters_true".

    Source:
        arXiv 2501.15547, second stage; J. Howard and S. Ruder, arXiv 1801.06146, section 3.3.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    >>> unfreezer = ProgressiveUnfreezer([net[1], net[0]], 5, torch.optim.SGD)
    >>> [unfreezer.phase_at(epoch) for epoch in (0, 4, 5, 99)]
    [0, 0, 1, 1]
    """

    def __init__(
        self,
        groups: Sequence[Group],
        epochs_per_group: int | Sequence[int],
        optimizer_factory: Callable[[list[nn.Parameter]], Optimizer],
    ) -> None:
        self.groups = [[g] if isinstance(g, nn.Module) else list(g) for g in groups]
        count = len(self.groups)
        epochs = (
            [epochs_per_group] * count
            if isinstance(epochs_per_group, int)
            else list(epochs_per_group)
        )
        if not count or len(epochs) != count or min(epochs) < 1:
            raise ValueError(
                "groups must not be empty, and every one needs at least 1 epoch, got "
                f"{count} groups and the epochs {epochs}."
            )
        seen: set[int] = set()
        for index in range(count):
            for parameter in self.parameters(index):
                if id(parameter) in seen:
                    raise ValueError(
                        f"groups must not share parameters, and group {index} has one of shape "
                        f"{list(parameter.shape)} twice or from an earlier group."
                    )
                seen.add(id(parameter))
        self.epochs, self.starts = epochs, [0, *accumulate(epochs)][:-1]
        self.optimizer_factory = optimizer_factory
        self.phase = -1

    def parameters(self, group: int) -> list[nn.Parameter]:
        """The parameters of one group."""
        return [p for module in self.groups[group] for p in module.parameters()]

    def phase_at(self, epoch: int) -> int:
        """The phase that an epoch, counted from 0, belongs to."""
        return sum(epoch >= start for start in self.starts) - 1

    def enter(self, phase: int) -> Optimizer:
        """Set the groups of a phase free, freeze the others, and make the phase's optimiser."""
        for index in range(len(self.groups)):
            for parameter in self.parameters(index):
                parameter.requires_grad_(index <= phase)
                if index > phase:
                    # an optimiser of the user's own would go on with a gradient that is left
                    parameter.grad = None
        for group in self.groups[: phase + 1]:
            for module in group:
                module.train()
        self.phase = phase
        self.rest()
        free = [p for index in range(phase + 1) for p in self.parameters(index)]
        return self.optimizer_factory(free)

    def rest(self) -> None:
        """Put the frozen groups into evaluation mode."""
        for group in self.groups[self.phase + 1 :]:
            for module in group:
                module.eval()

    def state_dict(self) -> dict[str, Any]:
        """The phase, for the checkpoint."""
        return {"phase": self.phase}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The phase of the run that goes on."""
        self.phase = state_dict["phase"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Enter the first phase, or the resumed one before its optimiser state is loaded."""
        trainer.optimizers = [self.enter(max(self.phase, 0))]
        trainer.strategy.lr_scheduler_configs = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Enter the epoch's phase; Lightning has set every module to training mode."""
        # Not on_train_epoch_start: Lightning leaves it out of the first epoch after some
        # checkpoints.
        if batch_idx == 0 and self.phase_at(trainer.current_epoch) != self.phase:
            trainer.optimizers = [self.enter(self.phase_at(trainer.current_epoch))]
        self.rest()
