"""MNIST from its four IDX files, in torchvision's layout: DIR/MNIST/raw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saccade._extras import require
from saccade.data._images import ImageData, TensorImages, carve


def load(directory: Path, val_fraction: float) -> ImageData:
    """MNIST; the validation split is carved from the 60,000 training images."""
    datasets = require("torchvision.datasets", extra="train", purpose="the data set mnist")
    train_set, test_set = (_read(datasets, directory, train) for train in (True, False))
    train, val = carve(train_set.targets, val_fraction)
    return ImageData(
        name="mnist",
        train=train_set.subset(train),
        val=train_set.subset(val),
        test=test_set,
        classes=tuple(str(digit) for digit in range(10)),
        channels=1,
        size=(28, 28),
        mean=(0.1307,),
        std=(0.3081,),
        mirrors=False,
    )


def _read(datasets: Any, directory: Path, train: bool) -> TensorImages:
    try:
        part = datasets.MNIST(str(directory), train=train, download=False)
    except RuntimeError as error:
        raise FileNotFoundError(
            f"mnist is not in {directory}: {directory / 'MNIST' / 'raw'} must hold "
            "train-images-idx3-ubyte, train-labels-idx1-ubyte, "
            "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte; "
            f"torchvision.datasets.MNIST({str(directory)!r}, download=True) fetches them where "
            "there is a network"
        ) from error
    return TensorImages(part.data.unsqueeze(1), part.targets)
