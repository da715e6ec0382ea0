"""From a data spec ("digits", "mnist", "cifar10", "folder:PATH") to the loaded data set."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saccade.data._images import ImageData

VAL_FRACTION = 0.1


@dataclass(frozen=True)
class Source:
    """One kind of data: what it is, and where it comes from."""

    spec: str
    title: str
    where: str


SOURCES = (
    Source(
        "digits", "1,797 handwritten digits, 8x8 gray, 10 classes", "scikit-learn's, always there"
    ),
    Source(
        "mnist",
        "70,000 handwritten digits, 28x28 gray, 10 classes",
        "MNIST/raw in the data directory",
    ),
    Source(
        "cifar10",
        "60,000 photographs, 32x32 RGB, 10 classes",
        "cifar10-jpeg.zip, cifar10/ or cifar-10-batches-py/ in the data directory",
    ),
    Source(
        "folder:PATH",
        "your own images",
        "PATH/<class>/*.png, or PATH/{train,val,test}/<class>/*.png",
    ),
)


def list_data() -> tuple[Source, ...]:
    """The data specs that `load_data` reads."""
    return SOURCES


def data_directory(data_dir: str | Path | None) -> Path | None:
    """`data_dir`, else the environment variable SACCADE_DATA, else None."""
    chosen = data_dir or os.environ.get("SACCADE_DATA")
    return Path(chosen).expanduser() if chosen else None


def load_data(
    spec: str,
    data_dir: str | Path | None = None,
    *,
    train_size: int | None = None,
    val_size: int | None = None,
    test_size: int | None = None,
) -> ImageData:
    """Load a data set by its spec, with train, validation and test splits.

    A split that the data set does not bring is carved from `train` by a fixed seed: the validation
    split is 10 % of
    it, each class in proportion. Subsets are class-balanced and drawn by a fixed seed, the same for
    every run.

    Args:
        spec: "digits", "mnist", "cifar10" or "folder:PATH".
        data_dir: directory that holds the files; default: the environment variable SACCADE_DATA.
        train_size: at most this many training images, at least 1; default all.
        val_size: at most this many validation images; default all, or a tenth of `train_size` where
            that is
            given.
        test_size: at most this many test images; default all.

    Returns:
        ImageData: splits of (uint8 [C, H, W], class index), class names, channels, size, mean and
            std.

    Raises:
        ValueError: an unknown spec, a size out of range, an unreadable image, an empty class
            folder.
        FileNotFoundError: the files are absent; the sentence says what to fetch and where to put
            it.
        ImportError: a package of the extra `train` is missing.

    Notes:
        Deterministic; never touches the network.

    >>> data = load_data("digits")
    >>> len(data.train), len(data.val), len(data.test)
    (1295, 143, 359)
    """
    kind, _, argument = spec.partition(":")
    loaders: dict[str, Callable[[], ImageData]] = {
        "digits": _digits,
        "mnist": lambda: _from("mnist", data_dir),
        "cifar10": lambda: _from("cifar10", data_dir),
        "folder": lambda: _folder(argument),
    }
    if kind not in loaders or (argument and kind != "folder"):
        close = difflib.get_close_matches(spec, [source.spec for source in SOURCES], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        known = ", ".join(source.spec for source in SOURCES)
        raise ValueError(f"data must be one of {known}; got {spec!r}.{hint}")
    for name, size in (("train", train_size), ("val", val_size), ("test", test_size)):
        if size is not None and size < 1:
            raise ValueError(f"{name}_size must be at least 1; got {size}")
    data = loaders[kind]()
    if train_size is not None and val_size is None:
        val_size = max(round(train_size * VAL_FRACTION), 1)
    return data.limited(train_size, val_size, test_size)


def _digits() -> ImageData:
    from saccade.data.digits import load

    return load(VAL_FRACTION)


def _from(name: str, data_dir: str | Path | None) -> ImageData:
    directory = data_directory(data_dir)
    if directory is None:
        raise FileNotFoundError(
            f"{name} needs a data directory: pass --data-dir DIR (data_dir in Python) or set "
            "SACCADE_DATA; "
            f"it is looked for as {next(source.where for source in SOURCES if source.spec == name)}"
        )
    if name == "mnist":
        from saccade.data.mnist import load
    else:
        from saccade.data.cifar10 import load
    return load(directory, VAL_FRACTION)


def _folder(path: str) -> ImageData:
    from saccade.data.folder import load

    if not path:
        raise ValueError(
            "a folder spec names its directory: folder:PATH, for example folder:./photos"
        )
    return load(Path(path).expanduser(), VAL_FRACTION)
