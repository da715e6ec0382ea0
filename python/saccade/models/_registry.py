"""The table of architectures, in timm's grammar."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from saccade.models._classifier import Classifier, DefaultCfg, FeatureExtractor
from saccade.models._weights import load_weights, read_config

Entrypoint = Callable[..., Classifier]
Model = Classifier | FeatureExtractor
ConfigT = TypeVar("ConfigT")


@dataclasses.dataclass(frozen=True)
class _Entry:
    build: Entrypoint
    module: str
    cfg: DefaultCfg


_models: dict[str, _Entry] = {}


def register_model(cfg: DefaultCfg) -> Callable[[Entrypoint], Entrypoint]:
    """Enter a function that builds a model under the function's name.

    Args:
        cfg: the architecture's default cfg.

    Returns:
        The decorator, which hands the function back unchanged.

    Raises:
        ValueError: the name is taken.
    """

    def enter(build: Entrypoint) -> Entrypoint:
        name = build.__name__
        if name in _models:
            raise ValueError(f"the model name {name!r} is taken by {_models[name].module}.")
        _models[name] = _Entry(build, build.__module__.rpartition(".")[2], cfg)
        return build

    return enter


def _entry(name: str) -> _Entry:
    if name not in _models:
        close = difflib.get_close_matches(name, _models, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "list_models() shows them."
        raise ValueError(f"there is no model {name!r} among the {len(_models)} registered; {hint}")
    return _models[name]


def is_model(name: str) -> bool:
    """Whether a model of this name is registered.

    >>> is_model("medvitv2_tiny")
    True
    """
    return name in _models


def default_cfg(name: str) -> DefaultCfg:
    """The default cfg of a model: input size, normalisation, classes, keys, source, licence.

    >>> default_cfg("medvitv2_tiny").input_size
    (3, 224, 224)
    """
    return _entry(name).cfg


def list_models(
    filter: str | Sequence[str] = "", module: str = "", exclude_filters: str | Sequence[str] = ""
) -> list[str]:
    """The registered names, sorted as people count.

    Args:
        filter: wildcards ("medvit*"), one or several; a name that matches any is taken; default
            all.
        module: only the models of this file ("medvitv2").
        exclude_filters: wildcards of the names to leave out.

    Returns:
        A list of names.

    >>> list_models("*_tiny", module="medvitv2")
    ['medvitv2_tiny']
    """
    wanted, unwanted = _patterns(filter) or ["*"], _patterns(exclude_filters)
    names = [
        name
        for name, entry in _models.items()
        if (not module or entry.module == module)
        and _matches(name, wanted)
        and not _matches(name, unwanted)
    ]
    return sorted(
        names, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name)]
    )


def _patterns(filters: str | Sequence[str]) -> list[str]:
    return [f for f in ([filters] if isinstance(filters, str) else filters) if f]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def create_model(
    name: str,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    checkpoint_path: str = "",
    **kwargs: Any,
) -> Model:
    """Build a model by name.

    Args:
        name: one of `list_models()`.
        pretrained: must be False: no weights are distributed; load your own by `checkpoint_path`.
        num_classes: size of the classifier; 0 gives pooled features; default the architecture's.
        in_chans: channels of the image; default 3.
        drop_rate: dropout before the classifier; default 0.
        drop_path_rate: highest rate of stochastic depth; default the paper's.
        features_only: give the list of the stages' feature maps, NCHW, instead of logits;
            `.feature_info` tells their channels and reductions.
        out_indices: which stages, negative ones from the end; default all; with `features_only`
            alone.
        checkpoint_path: a .safetensors file, or a folder that `save_weights` wrote; loaded
            strictly.
        kwargs: the architecture's own options, see its config dataclass.

    Returns:
        The model, in training mode, with `.default_cfg`, and `.build_config` from which
        `load_model` makes it again.

    Raises:
        ValueError: unknown name or option (close matches are named), or `pretrained=True`.

    >>> create_model("medvitv2_micro", num_classes=10).num_features
    192
    """
    entry = _entry(name)
    if pretrained:
        raise ValueError(
            f"saccade distributes no weights, for {name} or any other model: give checkpoint_path "
            "a .safetensors file instead of pretrained=True."
        )
    if out_indices is not None and not features_only:
        raise ValueError(f"out_indices={list(out_indices)} needs features_only=True.")
    common = {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "drop_rate": drop_rate,
        "drop_path_rate": drop_path_rate,
    }
    options = {key: value for key, value in common.items() if value is not None} | kwargs
    classifier = entry.build(**options)
    model: Model = classifier
    if checkpoint_path:
        skipped = (entry.cfg.classifier,) if features_only else ()
        load_weights(classifier, checkpoint_path, exclude=skipped)
    if features_only:
        model = extractor = FeatureExtractor(classifier, out_indices)
        options |= {"features_only": True, "out_indices": extractor.out_indices}
    model.default_cfg = entry.cfg
    model.build_config = {"architecture": name, "kwargs": options}
    return model


def load_model(path: str | os.PathLike[str], **overrides: Any) -> Model:
    """Build the model that config.json names, and load the weights beside it strictly.

    Args:
        path: a folder that `save_weights` wrote, or the .safetensors file in it.
        overrides: options that replace those of config.json (`drop_path_rate=0.0`).

    Returns:
        The model, in training mode as from `create_model`; call `.eval()` before you predict.

    Raises:
        FileNotFoundError: weights or config.json are not there.
        ValueError: the config names no registered architecture, or the weights do not fit.
    """
    config = read_config(path)
    model = create_model(config["architecture"], **{**config.get("kwargs", {}), **overrides})
    load_weights(model, path)
    return model


def configure(config: ConfigT, options: dict[str, Any]) -> ConfigT:
    """A config dataclass with some fields replaced; lists, as JSON has them, become tuples.

    Raises:
        ValueError: a name is not a field, and close matches are named; or an option that all
            models share is out of range.
    """
    fields = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for key in options:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(fields)}."
            raise ValueError(f"{type(config).__name__} has no option {key!r}; {hint}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
    }
    if values.get("in_chans", 1) < 1:
        raise ValueError(f"in_chans must be at least 1, got {values['in_chans']}.")
    if not values.get("mlp_ratio", 1) > 0:
        raise ValueError(f"mlp_ratio must be above 0, got {values['mlp_ratio']}.")
    if not 0 <= values.get("drop_path_rate", 0) < 1:
        raise ValueError(f"drop_path_rate must be in [0, 1), got {values['drop_path_rate']}.")
    return dataclasses.replace(config, **values)  # type: ignore[type-var]
