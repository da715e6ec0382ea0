"""CIFAR-10 as JPEG or PNG files in a zip, as a folder tree, or as torchvision's batches."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from saccade._extras import require
from saccade.data import folder
from saccade.data._images import ImageData, Images, TensorImages, ZipImages, carve

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE, TREE, BATCHES = "cifar10-jpeg.zip", "cifar10", "cifar-10-batches-py"


def load(directory: Path, val_fraction: float) -> ImageData:
    """CIFAR-10 from the first of cifar10-jpeg.zip (read in place), cifar10/{train,test}/<class>/
    and cifar-10-batches-py.
    """
    if (directory / ARCHIVE).is_file():
        train_set, test_set = (_zipped(directory / ARCHIVE, split) for split in ("train", "test"))
    elif (directory / TREE).is_dir():
        train_set, test_set = (_tree(directory / TREE / split) for split in ("train", "test"))
    elif (directory / BATCHES).is_dir():
        datasets = require("torchvision.datasets", extra="train", purpose="the data set cifar10")
        train_set, test_set = (_batches(datasets, directory, train) for train in (True, False))
    else:
        raise FileNotFoundError(
            f"cifar10 is not in {directory}: put {ARCHIVE} (train|test/<class>/NNNN.jpg) there, or "
            f"the same tree as {TREE}/, "
            f"or {BATCHES}/ of https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
        )
    train, val = carve(train_set.targets, val_fraction)
    return ImageData(
        name="cifar10",
        train=train_set.subset(train),
        val=train_set.subset(val),
        test=test_set,
        classes=CLASSES,
        channels=3,
        size=(32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        mirrors=True,
    )


def _zipped(archive: Path, split: str) -> Images:
    with zipfile.ZipFile(archive) as opened:
        parts = [name.split("/") for name in sorted(opened.namelist())]
    files = [
        part
        for part in parts
        if part[0] == split
        and len(part) == 3
        and part[1] in CLASSES
        and part[2].lower().endswith(folder.SUFFIXES)
    ]
    if not files:
        raise ValueError(
            f"{archive} holds no image as {split}/<class>/NNNN.jpg "
            f"with the classes {', '.join(CLASSES)}"
        )
    targets = torch.tensor([CLASSES.index(part[1]) for part in files])
    return ZipImages(archive, ["/".join(part) for part in files], targets)


def _tree(root: Path) -> Images:
    images, classes = folder.read_classes(root)
    if classes != CLASSES:
        raise ValueError(
            f"{root} must hold the class folders {', '.join(CLASSES)}; it holds "
            f"{', '.join(classes)}"
        )
    return images


def _batches(datasets: Any, directory: Path, train: bool) -> Images:
    try:
        # The batches are pickles: torchvision opens them only when each file has the published
        # checksum.
        part = datasets.CIFAR10(str(directory), train=train, download=False)
    except RuntimeError as error:
        raise ValueError(
            f"{directory / BATCHES} is incomplete or its files do not have the published "
            "checksums, so they are not opened; "
            "unpack cifar-10-python.tar.gz again"
        ) from error
    return TensorImages(
        torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)
    )
