"""Callbacks of a run: seeds of an epoch, metrics on disk, the checkpoint to resume from, and what
the console shows.
"""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from saccade.data._seeds import seed_all

LAST = "last.ckpt"


class EpochSeeds(Callback):
    """Seeds the global generators (dropout, batch mixing) by seed, epoch and rank, so that a
    resumed epoch needs no saved state.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed before the first batch of each epoch."""
        # Not on_train_epoch_start: Lightning leaves that hook out of the first epoch after some
        # checkpoints.
        if batch_idx == 0:
            seed_all(self.seed, trainer.current_epoch, trainer.global_rank)


class Metrics(Callback):
    """Keeps one row an epoch, and writes all rows as metrics.jsonl and metrics.csv where a folder
    is given.

    Args:
        folder: run folder, or None to keep the rows in memory alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The rows of the epochs before the one that a resumed run starts with."""
        self.rows = list(state_dict["rows"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        epoch = trainer.current_epoch + 1
        if "train/loss" not in trainer.callback_metrics or (
            self.rows and self.rows[-1]["epoch"] >= epoch
        ):
            return
        now = time.perf_counter()
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append(
            {"epoch": epoch, **values, "lr": rate, "seconds": round(now - self._started, 3)}
        )
        self._started = now
        if self.folder and trainer.is_global_zero:
            self.write(self.folder)

    def write(self, folder: Path) -> None:
        """Write metrics.jsonl and metrics.csv."""
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


class LastCheckpoint(Callback):
    """Saves checkpoints/last.ckpt after every epoch: to a second name first, so that a crash leaves
    the old one whole.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoints" / LAST

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished epoch."""
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.path)
        trainer.strategy.barrier("checkpoint")


class Console(Callback):
    """One line an epoch, and below it a progress bar where the output is a terminal."""

    def __init__(self, metrics: Metrics) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.metrics = metrics
        self.console = RichConsole(highlight=False)
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
        )
        self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
        self.shown = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self.shown = self.console.is_terminal and trainer.is_global_zero
        if self.shown:
            total = int(trainer.estimated_stepping_batches)
            self.task = self.bar.add_task(
                "train", total=total, completed=trainer.global_step, epoch=trainer.current_epoch + 1
            )
            self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self.shown:
            self.bar.update(
                self.task, completed=trainer.global_step, epoch=trainer.current_epoch + 1
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line."""
        if trainer.is_global_zero and "train/loss" in trainer.callback_metrics:
            row = self.metrics.rows[-1]
            self.console.print(
                f"epoch {row['epoch']:>3}/{trainer.max_epochs}  loss {row['train/loss']:.4f}  "
                f"val loss {row['val/loss']:.4f}  val accuracy {100 * row['val/accuracy']:.2f} %  "
                f"({row['seconds']:.1f} s)"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar away."""
        if self.shown:
            self.bar.stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the bar away."""
        if self.shown:
            self.bar.stop()
