"""Labelled uint8 images, in memory or read when asked for, and the three splits of a data set."""

from __future__ import annotations

import io
import os
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from saccade._extras import require
from saccade.data._seeds import generator

Self = TypeVar("Self", bound="Images")

# Splits that a data set does not bring are drawn by this seed, never by a run's, so that all runs
# agree on them.
SPLIT_SEED = 2026


class Images(Dataset[tuple[Tensor, int]]):
    """A sequence of (uint8 image [C, H, W], class index); `targets` is int64 [N]."""

    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image and class of one sample."""

    @abstractmethod
    def subset(self: Self, indices: Tensor) -> Self:
        """The same kind of data with the chosen samples, in the order of `indices`."""


class TensorImages(Images):
    """Images held in memory: `images` uint8 [N, C, H, W]."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images = images
        self.targets = targets.to(torch.int64)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.targets[index])

    def subset(self, indices: Tensor) -> TensorImages:
        return TensorImages(self.images[indices], self.targets[indices])


class FileImages(Images):
    """Image files, decoded when asked for and converted to `channels` (1 or 3)."""

    def __init__(self, names: Sequence[str], targets: Tensor, channels: int = 3) -> None:
        self.names = list(names)
        self.targets = targets.to(torch.int64)
        self.channels = channels

    def read(self, name: str) -> bytes:
        """The encoded bytes of one image."""
        return Path(name).read_bytes()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        name = self.names[index]
        return decode(self.read(name), name, self.channels), int(self.targets[index])

    def subset(self, indices: Tensor) -> FileImages:
        return FileImages(
            [self.names[i] for i in indices.tolist()], self.targets[indices], self.channels
        )


class ZipImages(FileImages):
    """Image files inside a zip archive, which is never unpacked."""

    def __init__(
        self, archive: str | Path, names: Sequence[str], targets: Tensor, channels: int = 3
    ) -> None:
        super().__init__(names, targets, channels)
        self.archive = str(archive)
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def read(self, name: str) -> bytes:
        # A handle inherited by a forked worker would share its file position with the parent's.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.archive))
        return self._open[1].read(name)

    def subset(self, indices: Tensor) -> ZipImages:
        names = [self.names[i] for i in indices.tolist()]
        return ZipImages(self.archive, names, self.targets[indices], self.channels)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}


def decode(data: bytes, name: str, channels: int) -> Tensor:
    """Decode an encoded image into uint8 [channels, H, W].

    Raises:
        ValueError: the bytes are no image that Pillow reads, or one of more than 8 bits a channel;
            the sentence names the file.
    """
    image_module = require("PIL.Image", extra="train", purpose="reading image files")
    functional = require(
        "torchvision.transforms.v2.functional", extra="train", purpose="reading image files"
    )
    try:
        image = image_module.open(io.BytesIO(data))
        mode = image.mode
        converted = image.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        reason = (
            "it is no image that Pillow knows" if "cannot identify" in str(error) else str(error)
        )
        raise ValueError(
            f"cannot read the image {name}: {reason}; remove the file or replace it"
        ) from error
    if mode.startswith(("I", "F")):
        raise ValueError(
            f"the image {name} has mode {mode} (more than 8 bits a channel); convert it to 8 bits"
        )
    pixels: Tensor = functional.pil_to_tensor(converted)
    return pixels


@dataclass(frozen=True)
class ImageData:
    """A classification data set with its three splits.

    Args:
        name: the spec that it was loaded by.
        train, val, test: the splits; `val` is for every choice, `test` for the final figure alone.
        classes: names in the order of the class indices.
        channels: 1 (gray) or 3 (RGB).
        size: (H, W) of the images, or of the first image where sizes differ.
        mean, std: one number a channel, for images scaled to [0, 1].
        mirrors: whether a mirrored image keeps its class (digits do not).
    """

    name: str
    train: Images
    val: Images
    test: Images
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrors: bool

    def limited(
        self, train_size: int | None, val_size: int | None, test_size: int | None
    ) -> ImageData:
        """The same data with class-balanced subsets of at most these sizes, drawn by a fixed seed.

        None keeps a split whole.
        """
        return replace(
            self,
            train=_at_most(self.train, train_size),
            val=_at_most(self.val, val_size),
            test=_at_most(self.test, test_size),
        )


def _at_most(images: Images, size: int | None) -> Images:
    if size is None or size >= len(images):
        return images
    return images.subset(balanced(images.targets, size))


def carve(targets: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Split indices in two, each class in the same proportion: (kept, carved), both sorted.

    A class of at least two samples gives at least one to each side.
    """
    rng = generator(SPLIT_SEED)
    kept, carved = [], []
    for label in torch.unique(targets).tolist():
        members = (targets == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=rng)]
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        kept.append(members[count:])
        carved.append(members[:count])
    return torch.cat(kept).sort().values, torch.cat(carved).sort().values


def balanced(targets: Tensor, size: int) -> Tensor:
    """Sorted indices of `size` samples, equally many a class; a class that runs out is made up by
    others.

    Raises:
        ValueError: `size` is not between 1 and the number of samples.
    """
    if not 1 <= size <= len(targets):
        raise ValueError(f"a subset must have 1 to {len(targets)} images; got {size}")
    rng = generator(SPLIT_SEED, 1)
    turn = torch.empty(len(targets), dtype=torch.float64)
    for label in torch.unique(targets).tolist():
        members = (targets == label).nonzero().flatten()
        turn[members] = torch.randperm(len(members), generator=rng).to(torch.float64)
    # Within one turn every class gives one sample; the fraction decides which classes when the last
    # turn is not full.
    turn += torch.rand(len(targets), generator=rng, dtype=torch.float64)
    return turn.argsort()[:size].sort().values
