"""What a training run is made of: one dataclass, whose fields are the command line's options and
the YAML file's keys.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade._extras import require

MODEL, DATA, TRAINING, MACHINE, RUN = "Model", "Data", "Training", "Machine", "Run"

# Fields that say how a run is carried out, not what it computes: free to differ when it is resumed.
FREE = (
    "data_dir",
    "devices",
    "strategy",
    "accelerator",
    "num_nodes",
    "num_workers",
    "out",
    "resume",
    "quiet",
)


def _option(panel: str, default: Any, help: str) -> Any:
    return field(default=default, metadata={"panel": panel, "help": help})


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of a supervised run; every option of `saccade train` is a field here, with the
    same default.

    `batch_size` is the global batch, over all devices. Values are checked when the object is made.

    Raises:
        ValueError: a value is out of its range; the sentence has the range and the value.

    >>> TrainConfig(epochs=3).replace(lr="3e-4").lr
    0.0003
    """

    model: str = _option(MODEL, "medvitv2_micro", "Name of the model (see `saccade list models`).")
    model_kwargs: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "panel": MODEL,
            "help": "Arguments of the model, for example --set model_kwargs.dilation=none.",
        },
    )
    data: str = _option(DATA, "digits", "Data set: digits, mnist, cifar10 or folder:PATH.")
    data_dir: str | None = _option(
        DATA, None, "Directory that holds the data set's files (default: $SACCADE_DATA)."
    )
    img_size: int | None = _option(
        MODEL, None, "Side of the square input in pixels (default: the model's own)."
    )
    in_chans: int = _option(MODEL, 3, "Channels of the model's input; gray images are repeated.")
    train_size: int | None = _option(
        DATA, None, "Train on a class-balanced subset of at most this many images."
    )
    val_size: int | None = _option(
        DATA,
        None,
        "Validate on at most this many images (default: a tenth of train_size).",
    )
    test_size: int | None = _option(
        DATA, None, "Test on a class-balanced subset of at most this many images."
    )
    augment: str = _option(
        DATA,
        "light",
        "Augmentation: none, light (shift, flip), crop (resized crop, flip) or medvitv2 (resized "
        "crop, AugMix, flip).",
    )
    rand_ops: int = _option(DATA, 0, "Operations of RandAugment on an image; 0 turns it off.")
    rand_magnitude: int = _option(
        DATA, 9, "Strength of RandAugment's operations, 0 to 30; timm's m9 is 27."
    )
    erase: float = _option(
        DATA, 0.0, "Probability that a rectangle of a training image becomes the data's mean."
    )
    mixup: float = _option(DATA, 0.0, "Alpha of MixUp; 0 turns it off.")
    cutmix: float = _option(DATA, 0.0, "Alpha of CutMix; 0 turns it off.")
    normalize: str = _option(
        DATA,
        "data",
        "Mean and std of the input: data (the data set's), half (0.5, 0.5) or none (0, 1).",
    )
    epochs: int = _option(TRAINING, 10, "Passes over the training images.")
    batch_size: int = _option(TRAINING, 64, "Global batch: images a step, over all devices.")
    loss: str = _option(
        TRAINING,
        "ce",
        "Loss: ce (cross-entropy), bce (binary cross-entropy on one-hot targets), svm (squared "
        "hinge) or svm_l1 (hinge).",
    )
    svm_c: float = _option(TRAINING, 1.0, "Weight C of the hinge in the losses svm and svm_l1.")
    label_smoothing: float = _option(TRAINING, 0.0, "Share of the target spread over all classes.")
    optimizer: str = _option(
        TRAINING, "adamw", "Optimiser: adamw, adam, sgd or rmsprop (as TensorFlow defines it)."
    )
    lr: float = _option(TRAINING, 1e-3, "Peak learning rate.")
    schedule: str = _option(
        TRAINING, "cosine", "Learning rate over time: cosine, exponential or constant."
    )
    min_lr: float = _option(TRAINING, 1e-5, "Learning rate at the end of the cosine.")
    lr_decay: float = _option(TRAINING, 0.94, "Factor of one step of the exponential schedule.")
    lr_decay_epochs: float = _option(
        TRAINING, 2.0, "Epochs between two steps of the exponential schedule."
    )
    warmup_epochs: float = _option(TRAINING, 0.0, "Epochs of linear warm-up.")
    weight_decay: float = _option(TRAINING, 0.05, "Weight decay.")
    decay_all: bool = _option(TRAINING, False, "Decay biases and normalisation weights too.")
    momentum: float = _option(TRAINING, 0.9, "Momentum of sgd and rmsprop.")
    rmsprop_eps: float = _option(TRAINING, 1.0, "Epsilon of rmsprop, inside the square root.")
    ema_decay: float = _option(
        TRAINING, 0.0, "Decay of the averaged weights that are tested; 0 tests the last ones."
    )
    clip_grad: float = _option(TRAINING, 0.0, "Largest norm of the gradient; 0 turns clipping off.")
    seed: int = _option(TRAINING, 0, "Seed of weights, order, augmentation and dropout.")
    devices: str = _option(
        MACHINE, "1", "Devices, as Lightning takes them: a number, a list like 0,1 or auto."
    )
    strategy: str = _option(MACHINE, "auto", "Strategy, as Lightning takes it: auto, ddp ...")
    accelerator: str = _option(
        MACHINE, "auto", "Accelerator, as Lightning takes it: auto, cpu, cuda ..."
    )
    num_nodes: int = _option(MACHINE, 1, "Machines.")
    precision: str = _option(
        MACHINE, "32-true", "Precision, as Lightning takes it: 32-true, bf16-mixed, 16-mixed ..."
    )
    deterministic: bool = _option(
        MACHINE, False, "Have torch refuse operations without a deterministic implementation."
    )
    num_workers: int | None = _option(
        MACHINE, None, "Loader processes (default: 0 for data in memory, else one a core)."
    )
    out: str | None = _option(
        RUN,
        None,
        "Run folder (default: runs/MODEL-DATA-seedSEED); an earlier run in it is replaced.",
    )
    resume: bool = _option(
        RUN, False, "Go on from the last finished epoch of the run in the run folder."
    )
    quiet: bool = _option(RUN, False, "Print nothing while training.")

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(
                self, item.name, _coerce(item.name, getattr(self, item.name), _TYPES[item.name])
            )
        for name in (
            "epochs",
            "batch_size",
            "num_nodes",
            "img_size",
            "train_size",
            "val_size",
            "test_size",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        for name in (
            "mixup",
            "cutmix",
            "min_lr",
            "warmup_epochs",
            "weight_decay",
            "clip_grad",
            "seed",
            "num_workers",
            "svm_c",
            "rmsprop_eps",
            "rand_ops",
        ):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must be at least 0; got {value}")
        if self.lr <= 0 or self.min_lr > self.lr:
            raise ValueError(
                f"lr must be above 0 and not below min_lr; got lr {self.lr:g}, min_lr "
                f"{self.min_lr:g}"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs must be at most epochs, {self.epochs}; got {self.warmup_epochs:g}"
            )
        if not 0 < self.lr_decay <= 1 or self.lr_decay_epochs <= 0:
            raise ValueError(
                "lr_decay must be in (0, 1] and lr_decay_epochs above 0; got "
                f"{self.lr_decay:g} and {self.lr_decay_epochs:g}"
            )
        if not 0 <= self.rand_magnitude <= 30:
            raise ValueError(f"rand_magnitude must be in [0, 30]; got {self.rand_magnitude}")
        if not 0 <= self.erase <= 1:
            raise ValueError(f"erase must be in [0, 1]; got {self.erase}")
        for name in ("label_smoothing", "momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1); got {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}"
                )

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def folder(self) -> Path:
        """The run folder: `out`, or a name made of model, data and seed."""
        if self.out:
            return Path(self.out).expanduser()
        slug = "".join(c if c.isalnum() else "-" for c in self.data).strip("-")
        return Path("runs") / f"{self.model}-{slug}-seed{self.seed}"

    def text(self) -> str:
        """The configuration as YAML, every field written out."""
        yaml = require("yaml", extra="train", purpose="writing a configuration")
        return str(yaml.safe_dump(dataclasses.asdict(self), sort_keys=False))

    @classmethod
    def load(
        cls,
        file: str | Path | None = None,
        changes: Mapping[str, Any] | None = None,
        sets: Sequence[str] = (),
    ) -> TrainConfig:
        """Build a configuration: defaults, then the file, then `changes`, then `sets`.

        Args:
            file: YAML file whose keys are fields.
            changes: field to value.
            sets: "field=value" or "model_kwargs.name=value", the value in YAML.

        Raises:
            ValueError: an unknown key (close matches are named), a value of the wrong type or
                range, a malformed set.
            FileNotFoundError: the file does not exist.
        """
        values: dict[str, Any] = {}
        if file is not None:
            values.update(_read_yaml(Path(file).expanduser()))
        values.update(changes or {})
        for assignment in sets:
            _assign(values, assignment)
        for key in values:
            _check_key(key)
        return cls(**values)


_CHOICES = {
    "augment": ("none", "light", "crop", "medvitv2"),
    "normalize": ("data", "half", "none"),
    "loss": ("ce", "bce", "svm", "svm_l1"),
    "optimizer": ("adamw", "adam", "sgd", "rmsprop"),
    "schedule": ("cosine", "exponential", "constant"),
}
_TYPES: dict[str, Any] = typing.get_type_hints(TrainConfig)
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    dict: "a mapping of names to values",
}


def _coerce(name: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    kind: Any = next(
        typing.get_origin(option) or option for option in options if option is not type(None)
    )
    # YAML 1.1 reads 1e-3 as a string, and devices: 2 as a number.
    try:
        if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, str):
            return int(value)
    except ValueError:
        pass
    if kind is str and isinstance(value, (int, list)) and not isinstance(value, bool):
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} must be {_WORDS[kind]}; got {value!r}")
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    yaml = require("yaml", extra="train", purpose="reading a configuration file")
    if not path.is_file():
        raise FileNotFoundError(f"the configuration file {path} does not exist")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise ValueError(
            f"{path} must hold keys and values, like 'epochs: 10'; it holds {type(values).__name__}"
        )
    return values or {}


def _check_key(key: Any) -> None:
    if key in _TYPES:
        return
    close = difflib.get_close_matches(str(key), _TYPES, n=2)
    hint = (
        f"did you mean {' or '.join(close)}?" if close else f"the options are {', '.join(_TYPES)}"
    )
    raise ValueError(f"unknown option {str(key)!r} in the configuration: {hint}")


def _assign(values: dict[str, Any], assignment: str) -> None:
    yaml = require("yaml", extra="train", purpose="--set")
    path, separator, text = assignment.partition("=")
    first, *rest = path.strip().split(".")
    if not separator or not all([first, *rest]):
        raise ValueError(
            "--set takes name=value, for example --set model_kwargs.dilation=none; got "
            f"{assignment!r}"
        )
    _check_key(first)
    value = yaml.safe_load(text)
    if not rest:
        values[first] = value
        return
    if _TYPES[first] != dict[str, Any]:
        raise ValueError(
            f"--set {path} names a part of {first}, which has none; write --set {first}=value"
        )
    target = values[first] = dict(values.get(first) or {})
    for name in rest[:-1]:
        target[name] = dict(target.get(name) or {})
        target = target[name]
    target[rest[-1]] = value
