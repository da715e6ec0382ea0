"""Weights on disk: safetensors with config.json beside it, strict by default, never pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from saccade._extras import require
from saccade._info import __version__

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
_LISTED = 12


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` left out: keys missing in the file, unknown to the model, misshapen."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything was left out."""
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = []
        for name in ("missing", "unexpected", "mismatched"):
            keys = getattr(self, name)
            if keys:
                more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
                parts.append(f"{len(keys)} {name}: {', '.join(keys[:_LISTED])}{more}")
        return "; ".join(parts) or "every key was loaded"


def save_weights(
    model: nn.Module, path: str | os.PathLike[str], config: dict[str, Any] | None = None
) -> Path:
    """Write the state of a model as safetensors, and config.json beside it.

    Args:
        model: any module; wrappers of torch.compile and DistributedDataParallel are taken off.
        path: a folder (the file is model.safetensors there) or a file ending in .safetensors.
        config: `{"architecture": name, "kwargs": {...}}` and what else JSON can hold; default the
            model's `build_config`, which `create_model` sets. A model without either gets no
            config.json.

    Returns:
        The path of the safetensors file.

    Raises:
        ValueError: the path has another ending, or the config is not JSON.
        ImportError: safetensors is not installed.

    Notes:
        Each file is written under a temporary name and renamed, so a reader never sees half of one.
    """
    safetensors = require("safetensors.torch", extra="models", purpose="save_weights")
    model = _unwrap(model)
    target = _weights_file(Path(path))
    if config is None:
        config = getattr(model, "build_config", None)
    text = None
    if config is not None:
        try:
            text = json.dumps({**config, "saccade": __version__}, indent=2) + "\n"
        except TypeError as error:
            raise ValueError(f"the config of {target.name} must be JSON: {error}.") from error
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(
        target,
        lambda temporary: safetensors.save_file(tensors, temporary, metadata={"format": "pt"}),
    )
    if text is not None:
        _replace(target.with_name(CONFIG_NAME), lambda temporary: temporary.write_text(text))
    return target


def load_weights(
    model: nn.Module, path: str | os.PathLike[str], strict: bool = True, exclude: Sequence[str] = ()
) -> LoadReport:
    """Load a safetensors file into a model.

    Published checkpoints with other names go through the model's `checkpoint_filter`, where it has
    one.

    Args:
        model: the module to fill; dtypes and devices stay the model's.
        path: a .safetensors file, or a folder with model.safetensors.
        strict: raise unless every key fits; False loads what fits and reports the rest.
        exclude: names of submodules ("head") or keys left as they are, and not reported.

    Returns:
        What was left out: empty, thus false, after a strict load.

    Raises:
        ValueError: strict, and keys are missing, unexpected or of another shape (the model is
            untouched then); or the file is a pickle or not safetensors.
        FileNotFoundError: there is no such file.
        ImportError: safetensors is not installed.
    """
    safetensors = require("safetensors.torch", extra="models", purpose="load_weights")
    file = _weights_file(Path(path))
    if not file.is_file():
        raise FileNotFoundError(f"there is no weights file {file}.")
    try:
        given: dict[str, Tensor] = safetensors.load_file(file)
    except Exception as error:  # SafetensorError derives from Exception alone
        raise ValueError(f"{file} is not a readable safetensors file: {error}.") from error
    model = _unwrap(model)
    checkpoint_filter = getattr(model, "checkpoint_filter", None)
    if checkpoint_filter is not None:
        given = checkpoint_filter(given)
    own = {key: value for key, value in model.state_dict().items() if not _covered(key, exclude)}
    given = {key: value for key, value in given.items() if not _covered(key, exclude)}
    clash = [key for key in own if key in given and own[key].shape != given[key].shape]
    report = LoadReport(
        missing=[key for key in own if key not in given],
        unexpected=[key for key in given if key not in own],
        mismatched=[
            f"{key} (file {list(given[key].shape)}, model {list(own[key].shape)})" for key in clash
        ],
    )
    if strict and report:
        raise ValueError(f"{file} does not fit {type(model).__name__}: {report}.")
    model.load_state_dict(
        {key: given[key] for key in own if key in given and key not in clash}, strict=False
    )
    return report


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The config.json beside the weights: `{"architecture": name, "kwargs": {...}, ...}`."""
    beside = _weights_file(Path(path)).with_name(CONFIG_NAME)
    if not beside.is_file():
        raise FileNotFoundError(
            f"{beside} is not there, so the architecture is unknown: build the model and call "
            "load_weights."
        )
    try:
        config = json.loads(beside.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{beside} is not JSON: {error}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise ValueError(f'{beside} must hold "architecture", the name of a registered model.')
    return config


def _covered(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _unwrap(model: nn.Module) -> nn.Module:
    if hasattr(model, "_orig_mod"):
        return _unwrap(model._orig_mod)  # type: ignore[arg-type]
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return _unwrap(model.module)
    return model


def _weights_file(path: Path) -> Path:
    if path.suffix in {".pt", ".pth", ".bin", ".ckpt", ".pkl"}:
        raise ValueError(
            f"{path.name} is a pickle, which can run code when it is read; convert it once with "
            f'safetensors.torch.save_file(torch.load("{path.name}", weights_only=True), '
            f'"{path.stem}.safetensors").'
        )
    return path if path.suffix == ".safetensors" else path / WEIGHTS_NAME


def _replace(target: Path, write: Callable[[Path], Any]) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
