"""Distillation of a teacher into students, one after the other, by three rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from saccade.compress._weights import MarginWeights
from saccade.compress.ensemble import AnytimeEnsemble
from saccade.compress.losses import distillation_loss, margin_loss
from saccade.data._seeds import derive_seed, seed_all

MODES = ("residual", "bdistil", "independent")
Images = Dataset[Any]


@dataclass(frozen=True)
class DistillConfig:
    """How students are distilled.

    Args:
        mode: "residual": student t is trained so that the sum of the first t answers as teacher and
            classes do; "bdistil": students approximate the teacher where their predecessors miss
            it, and are averaged; "independent": each student alone, averaged, the baseline.
        compose: students also read their predecessor's last hidden map.
        alpha: share of the classes in the loss, 0 to 1.
        tau: temperature, above 0; "bdistil" has none.
        gamma: margin of "bdistil", at least 0: the share of what the predecessors miss that is
            asked of a student on top of the teacher's answer.
        eta: step of the weights of "bdistil", above 0.
        epochs: passes over the images for each student.
        batch_size: images a step.
        lr: peak learning rate of AdamW; a half cosine takes it to 0.
        weight_decay: spares vectors and what a student's `no_weight_decay()` names.
        cache: compute what teacher and predecessors say once, and hold it for all images (with
            `compose` their hidden maps too); False for data sets that augment, or on a GPU.
        seed: of the order of images and of dropout.
        accelerator: as Lightning takes it.

    Raises:
        ValueError: a value out of range.
    """

    mode: str = "residual"
    compose: bool = False
    alpha: float = 0.5
    tau: float = 4.0
    gamma: float = 1.0
    eta: float = 1.0
    epochs: int = 20
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    cache: bool = True
    seed: int = 0
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}.")
        if not self.gamma >= 0 or not self.weight_decay >= 0:
            raise ValueError(
                f"gamma and weight_decay must be at least 0, got {self.gamma} and "
                f"{self.weight_decay}."
            )
        for name in ("tau", "eta", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


class Distilled(NamedTuple):
    """The ensemble, and which of the students are in it; "bdistil" may pass over some."""

    ensemble: AnytimeEnsemble
    kept: list[int]


class Answers(NamedTuple):
    """What is said of every image: logits [n, K] of the teacher, and logits and last hidden map of
    the predecessors where they are needed.
    """

    taught: Tensor
    before: Tensor | None = None
    hidden: Tensor | None = None


class Indexed(Dataset[tuple[Tensor, Any, int]]):
    """Samples of a data set with their index."""

    def __init__(self, samples: Images) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return _length(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Any, int]:
        """Image, class and index of one sample."""
        image, target = self.samples[index]
        return image, target, index


class ProgressiveModule(LightningModule):
    """Trains one student after its predecessors; batches are (images, classes, indices).

    Args:
        stage: the student, from `ensemble.stage`.
        ensemble: its predecessors, not trained.
        teacher: [B, C, H, W] -> logits [B, K], not trained.
        config: rule, loss and optimiser.
        weights: K+ and K- of "bdistil".
        answers: what teacher and predecessors say of every index; None asks the models.
    """

    def __init__(
        self,
        stage: nn.Module,
        ensemble: AnytimeEnsemble,
        teacher: nn.Module,
        config: DistillConfig,
        weights: MarginWeights | None = None,
        answers: Answers | None = None,
    ) -> None:
        super().__init__()
        if (weights is None) == (config.mode == "bdistil"):
            raise ValueError(f"weights go with mode='bdistil' alone, got mode={config.mode!r}.")
        self.stage, self.ensemble, self.teacher = stage, ensemble, teacher
        self.config, self.cached = config, answers is not None
        self.gamma = 0.0 if weights is None else config.gamma * weights.largest
        said: dict[str, Tensor | None] = (
            answers._asdict() if answers else dict.fromkeys(Answers._fields)
        )
        scale = 0 if weights is None else len(weights.up)
        buffers = {
            **said,
            "up": None if weights is None else (scale * weights.up).float(),
            "down": None if weights is None else (scale * weights.down).float(),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def on_train_epoch_start(self) -> None:
        """Teacher and predecessors stay as they answer, without dropout."""
        self.stage.train()
        self.ensemble.eval()
        self.teacher.eval()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, targets, index = batch
        cfg = self.config
        with torch.no_grad():
            taught = self.taught[index] if self.cached else self.teacher(images)  # type: ignore[index]
            before, hidden = self._before(images, index)
        logits, _ = self.stage(images, hidden)
        if cfg.mode == "bdistil":
            up, down = self.up[index], self.down[index]  # type: ignore[index]
            loss = margin_loss(logits, taught, targets, up, down, self.gamma, cfg.alpha)
        else:
            total = logits if before is None or cfg.mode == "independent" else before + logits
            loss = distillation_loss(total, taught, targets, cfg.alpha, cfg.tau)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def _before(self, images: Tensor, index: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the predecessors say, where the rule or the student reads it."""
        needed = self.config.compose or self.config.mode == "residual"
        if not needed or not len(self.ensemble):
            return None, None
        if self.before is not None:
            hidden = None if self.hidden is None else self.hidden[index]  # type: ignore[index]
            return self.before[index], hidden  # type: ignore[index]
        return list(self.ensemble.run(images))[-1]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW on the student alone, and a half cosine over all steps."""
        student: Any = self.stage.student
        spared = {f"student.{n}" for n in getattr(student, "no_weight_decay", set)()}
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.stage.named_parameters():
            groups[parameter.ndim > 1 and name not in spared].append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {"params": groups[True], "weight_decay": self.config.weight_decay},
                {"params": groups[False], "weight_decay": 0.0},
            ],
            lr=self.config.lr,
            fused=True,
        )
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def distill(
    students: Sequence[nn.Module],
    teacher: nn.Module,
    samples: Images,
    config: DistillConfig | None = None,
) -> Distilled:
    """Train students in order, each with its predecessors frozen.

    Args:
        students: classifiers, smallest first; they are trained in place.
        teacher: a trained classifier with the students' classes.
        samples: (float image [C, H, W], class index), with a length.
        config: rule and training; default `DistillConfig()`.

    Returns:
        Distilled: the ensemble in evaluation mode, and the indices of the students in it.

    Raises:
        ValueError: no students, no images, or a setting out of range.

    Notes:
        Under "bdistil" a student whose edge is negative in some class is no weak learner and is
        passed over for the next larger one; the first has edge 0 and stays. The same settings give
        the same bits on one machine.

    Source:
        Mamba-PKD (arXiv 2503.01727) and B-DISTIL (arXiv 2302.10093), from their descriptions.
    """
    cfg = config or DistillConfig()
    count = _length(samples)
    if not students or not count:
        raise ValueError(
            f"students and samples must not be empty, got {len(students)} students and {count} "
            "images."
        )
    ensemble = AnytimeEnsemble((), "sum" if cfg.mode == "residual" else "mean", cfg.compose)
    kept: list[int] = []
    with _frozen(teacher):
        taught: Tensor | None = None
        if cfg.cache or cfg.mode == "bdistil":
            taught = _answers(teacher, samples, cfg.batch_size, _device(teacher))
        weights = None
        if cfg.mode == "bdistil" and taught is not None:
            weights = MarginWeights(count, taught.shape[1], cfg.eta)
        for position, student in enumerate(students):
            seed_all(cfg.seed, position)
            stage = ensemble.stage(student)
            with _frozen(ensemble):
                _train(stage, ensemble, teacher, samples, cfg, position, weights, taught)
                if weights is not None and taught is not None:
                    alone = _answers(
                        _alone(ensemble, stage), samples, cfg.batch_size, _device(stage)
                    )
                    residual = (alone - taught).double()
                    if kept and (weights.edge(residual) < 0).any():
                        continue
                    weights.update(residual)
            ensemble.append(stage)
            kept.append(position)
    return Distilled(ensemble.eval(), kept)


def _train(
    stage: nn.Module,
    ensemble: AnytimeEnsemble,
    teacher: nn.Module,
    samples: Images,
    cfg: DistillConfig,
    position: int,
    weights: MarginWeights | None,
    taught: Tensor | None,
) -> None:
    answers = None
    if cfg.cache and taught is not None:
        reads = (cfg.compose or cfg.mode == "residual") and len(ensemble)
        said = _said(ensemble, samples, cfg.batch_size) if reads else (None, None)
        answers = Answers(taught, *said)
    module = ProgressiveModule(stage, ensemble, teacher, cfg, weights, answers)
    order = torch.Generator().manual_seed(derive_seed(cfg.seed, position, 1))
    loader = DataLoader(Indexed(samples), cfg.batch_size, shuffle=True, generator=order)
    trainer = Trainer(
        max_epochs=cfg.epochs,
        accelerator=cfg.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    stage.eval()


def _alone(ensemble: AnytimeEnsemble, stage: nn.Module) -> Callable[[Tensor], Tensor]:
    """The new student's own logits, after its predecessors where it reads them."""

    def run(images: Tensor) -> Tensor:
        hidden = None
        if ensemble.compose and len(ensemble):
            hidden = list(ensemble.run(images))[-1][1]
        logits: Tensor = stage(images, hidden)[0]
        return logits

    return run


@torch.no_grad()
def _answers(
    model: Callable[[Tensor], Tensor], samples: Images, batch_size: int, device: torch.device
) -> Tensor:
    """Logits [n, K] of all samples in their order, on the CPU; the model is on `device`."""
    return torch.cat([model(x.to(device)).cpu() for x, _ in DataLoader(samples, batch_size)])


@torch.no_grad()
def _said(
    ensemble: AnytimeEnsemble, samples: Images, batch_size: int
) -> tuple[Tensor, Tensor | None]:
    """Logits of all students together, and with `compose` the last one's hidden maps."""
    device = _device(ensemble)
    parts = [list(ensemble.run(x.to(device)))[-1] for x, _ in DataLoader(samples, batch_size)]
    hidden = [h.cpu() for _, h in parts if h is not None] if ensemble.compose else []
    return torch.cat([logits.cpu() for logits, _ in parts]), torch.cat(hidden) if hidden else None


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; afterwards as before."""
    training, flags = model.training, [(p, p.requires_grad) for p in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _length(samples: Images) -> int:
    if not isinstance(samples, Sized):
        raise TypeError(f"samples must have a length; {type(samples).__name__} has none.")
    return len(samples)
