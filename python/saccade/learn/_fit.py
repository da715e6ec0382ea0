"""`fit`: from a configuration to a trained model and the folder that documents it."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn

from saccade.data import ImageData, ImageDataModule, load_data
from saccade.data._seeds import seed_all
from saccade.learn import _report
from saccade.learn._callbacks import LAST, Console, EpochSeeds, LastCheckpoint, Metrics
from saccade.learn._environment import command, environment
from saccade.learn.config import FREE, TrainConfig
from saccade.learn.module import SupervisedModule
from saccade.models import create_model, default_cfg, save_weights

# Lightning's hints that are no news here: sampling, loaders and checkpoints are arranged on
# purpose.
NOISE = (
    r".*does not have many workers.*",
    r".*Checkpoint directory .* exists.*",
    r".*No (positive|negative) samples.*",
    r".*was not set up in the trainer.*",
    r".*`val_dataloader` but have no `validation_step`.*",
    r".*`isinstance\(treespec, LeafSpec\)`.*",
    r".*set_float32_matmul_precision.*",
    r".*in eval mode at the start of training.*",
)

# What a run leaves in its folder, and a new run there takes away first.
WRITTEN = (
    f"checkpoints/{LAST}",
    "config.yaml",
    "info.json",
    "metrics.jsonl",
    "metrics.csv",
    "model.safetensors",
    "config.json",
    "figure.png",
    "report.md",
)


@dataclass(frozen=True)
class FitResult:
    """What a run came to: figures on the test split, the model, and the paths of the run folder
    (None where none was written).
    """

    accuracy: float
    auc: float
    loss: float
    confusion: Tensor
    rows: list[dict[str, float]]
    wall_seconds: float
    model: nn.Module
    datamodule: ImageDataModule
    is_global_zero: bool = True
    folder: Path | None = None
    checkpoint: Path | None = None
    figure: Path | None = None
    report: Path | None = None


def fit(
    config: TrainConfig,
    *,
    data: ImageData | None = None,
    callbacks: Sequence[Callback] = (),
    write: bool = True,
) -> FitResult:
    """Train a model as configured, test it once, and write the run folder.

    The folder holds config.yaml (resolved), info.json, metrics.jsonl, metrics.csv,
    model.safetensors with config.json, figure.png, report.md, and checkpoints/last.ckpt, from which
    `resume=True` goes on after the last finished epoch.

    Args:
        config: the run; `config.batch_size` is the global batch.
        data: a loaded data set, used instead of `config.data`; default None loads it.
        callbacks: further Lightning callbacks.
        write: False trains and tests only, and leaves no file.

    Returns:
        FitResult: test accuracy and AUC in [0, 1], loss, confusion matrix, rows of metrics, model
            and paths.

    Raises:
        ValueError: the data, the model and the configuration do not fit together, or the run to
            resume was configured otherwise.
        FileNotFoundError: the data set is absent.

    Notes:
        On one machine the same configuration gives the same bits, and so does a run that was
        interrupted and resumed. With several devices gradients are summed in an order that the
        backend chooses.
    """
    started = time.perf_counter()
    folder = config.folder if write else None
    with quiet_lightning():
        trainer, module, datamodule, metrics = _assemble(config, data, callbacks, folder)
        resume_from = _prepare_folder(config, folder, trainer) if folder else None
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume_from, weights_only=True)
        scores = trainer.test(module, datamodule=datamodule, verbose=False)[0]
    confusion = module.confusion
    if confusion is None:
        raise RuntimeError("the test loop ended without a confusion matrix")
    result = FitResult(
        accuracy=scores["test/accuracy"],
        auc=scores["test/auc"],
        loss=scores["test/loss"],
        confusion=confusion,
        rows=metrics.rows,
        wall_seconds=time.perf_counter() - started,
        model=module.model,
        datamodule=datamodule,
        is_global_zero=trainer.is_global_zero,
    )
    if folder is None:
        return result
    if trainer.is_global_zero:
        _write(result, config, folder, trainer.max_epochs or 0)
    trainer.strategy.barrier("run folder")
    return replace(
        result,
        folder=folder,
        checkpoint=folder / "model.safetensors",
        figure=folder / "figure.png",
        report=folder / "report.md",
    )


def data_module(config: TrainConfig, data: ImageData) -> ImageDataModule:
    """The data module of a configuration, over loaded data."""
    return ImageDataModule(
        data,
        img_size=config.img_size or default_cfg(config.model).input_size[-1],
        batch_size=config.batch_size,
        in_chans=config.in_chans,
        augment=config.augment,
        rand_ops=config.rand_ops,
        rand_magnitude=config.rand_magnitude,
        erase=config.erase,
        normalize=config.normalize,
        num_workers=config.num_workers,
        seed=config.seed,
    )


def _assemble(
    config: TrainConfig, data: ImageData | None, callbacks: Sequence[Callback], folder: Path | None
) -> tuple[Trainer, SupervisedModule, ImageDataModule, Metrics]:
    data = data or load_data(
        config.data,
        config.data_dir,
        train_size=config.train_size,
        val_size=config.val_size,
        test_size=config.test_size,
    )
    datamodule = data_module(config, data)
    seed_all(config.seed)
    model = create_model(
        config.model, num_classes=len(data.classes), in_chans=config.in_chans, **config.model_kwargs
    )
    module = SupervisedModule(model, len(data.classes), config)
    metrics = Metrics(folder)
    own: list[Callback] = [EpochSeeds(config.seed), metrics]
    if not config.quiet:
        own.append(Console(metrics))
    if config.ema_decay:
        own.append(EMAWeightAveraging(decay=config.ema_decay))
    if folder:
        own.append(LastCheckpoint(folder))
    return _trainer(config, [*own, *callbacks], folder), module, datamodule, metrics


def _trainer(config: TrainConfig, callbacks: list[Callback], folder: Path | None) -> Trainer:
    try:
        return Trainer(
            max_epochs=config.epochs,
            accelerator=config.accelerator,
            devices=int(config.devices) if config.devices.isdigit() else config.devices,
            strategy=config.strategy,
            num_nodes=config.num_nodes,
            precision=config.precision,  # type: ignore[arg-type]
            deterministic=config.deterministic or None,
            gradient_clip_val=config.clip_grad or None,
            callbacks=callbacks,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            # The data module shares the global batch out by itself.
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ValueError(
            f"Lightning cannot run with accelerator {config.accelerator}, "
            f"devices {config.devices}, strategy {config.strategy}, "
            f"precision {config.precision}: {error}"
        ) from error


def _prepare_folder(config: TrainConfig, folder: Path, trainer: Trainer) -> Path | None:
    """Make the run folder and clear an earlier run from it, or check that the run in it can be
    resumed; gives the checkpoint.
    """
    checkpoint = folder / "checkpoints" / LAST
    resume = config.resume and checkpoint.is_file()
    if resume:
        _check_same(config, folder / "config.yaml")
    if trainer.is_global_zero:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            for name in WRITTEN:
                (folder / name).unlink(missing_ok=True)
            (folder / "config.yaml").write_text(config.text())
        facts = {"command": command(), "environment": environment()}
        (folder / "info.json").write_text(json.dumps(facts, indent=2) + "\n")
    return checkpoint if resume else None


def _check_same(config: TrainConfig, path: Path) -> None:
    before = TrainConfig.load(path)
    differ = [
        f"{name} was {old!r}, is {getattr(config, name)!r}"
        for name, old in before.__dict__.items()
        if name not in FREE and getattr(config, name) != old
    ]
    if differ:
        raise ValueError(
            f"the run in {path.parent} cannot be resumed with another configuration: "
            f"{'; '.join(differ)}"
        )


def _write(result: FitResult, config: TrainConfig, folder: Path, epochs: int) -> None:
    data = result.datamodule.data
    normalize = result.datamodule.normalize
    card = {
        **(getattr(result.model, "build_config", None) or {}),
        "input_size": [normalize.in_chans, result.datamodule.img_size, result.datamodule.img_size],
        "mean": normalize.mean,
        "std": normalize.std,
        "classes": list(data.classes),
    }
    save_weights(result.model, folder, card)
    facts: dict[str, Any] = {
        "model": config.model,
        "data": data.name,
        "seed": config.seed,
        "epochs": epochs,
        "accuracy": result.accuracy,
        "auc": result.auc,
        "loss": result.loss,
        "train_images": len(data.train),
        "val_images": len(data.val),
        "test_images": len(data.test),
        "parameters": sum(p.numel() for p in result.model.parameters()),
        "wall_seconds": result.wall_seconds,
        "command": command(),
        "environment": environment(),
    }
    title = f"{config.model} on {data.name}: test accuracy {100 * result.accuracy:.2f} %"
    _report.figure(folder / "figure.png", result.rows, result.confusion, data.classes, title)
    _report.report(folder / "report.md", facts, result.confusion, data.classes, config.text())


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hold back Lightning's announcements and hints; warnings of another kind pass."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
