"""The Lightning data module: uint8 images to normalised batches, in an order that the seed and the
epoch decide alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from saccade.data._images import ImageData, Images, TensorImages
from saccade.data._seeds import generator, scoped_seed
from saccade.data.transforms import Normalize, augmentation, to_square

# Decoded images of one split are kept in memory up to this many bytes; more are decoded anew each
# epoch, by workers.
CACHE_BYTES = 2**30

Draw = tuple[int, int]
Batch = tuple[Tensor, Tensor]


def finished_epochs(trainer: Trainer) -> int:
    """Epochs behind a trainer, those of the checkpoint that it resumed from included."""
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]


class EpochSampler(Sampler[Draw]):
    """Draws (epoch, index) of one process: the global batches of an epoch, cut into equal shares.

    The union of all processes' k-th batches is the k-th batch of a single process, whatever their
    number.

    Args:
        size: number of samples.
        batch_size: global batch; what remains after the last whole one is left out in this epoch.
        seed: of the order, together with the epoch.
        epoch: the first epoch; Lightning calls `set_epoch` later.
        rank, world_size: this process and the number of processes.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, epoch
        self.rank, self.share = rank, batch_size // world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.batch_size * self.share

    def __iter__(self) -> Iterator[Draw]:
        order = torch.randperm(self.size, generator=generator(self.seed, self.epoch))
        whole = order[: self.size // self.batch_size * self.batch_size].view(-1, self.batch_size)
        mine = whole[:, self.rank * self.share : (self.rank + 1) * self.share].flatten().tolist()
        return iter([(self.epoch, index) for index in mine])


class Augmented(Dataset[tuple[Tensor, int]]):
    """Training samples by (epoch, index); the augmentation of a sample depends on seed, epoch and
    index alone.
    """

    def __init__(
        self,
        images: Dataset[tuple[Tensor, int]],
        transform: Callable[[Tensor], Tensor] | None,
        seed: int,
    ) -> None:
        self.images, self.transform, self.seed = images, transform, seed

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        epoch, index = draw
        image, target = self.images[index]
        if self.transform is not None:
            with scoped_seed(self.seed, epoch, index):
                image = self.transform(image)
        return image, target


class Squared(Dataset[tuple[Tensor, int]]):
    """Images brought to one size as they are read."""

    def __init__(self, images: Images, size: int) -> None:
        self.images, self.size = images, size
        self.targets = images.targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = self.images[index]
        return to_square(image, self.size), target


class ImageDataModule(LightningDataModule):
    """Feeds an `ImageData` to a model, one global batch a step.

    Args:
        data: what `load_data` returns.
        img_size: side of the square input in pixels; default the shorter native side.
        batch_size: global batch, over all processes.
        in_chans: channels of the model's input, 1 or 3.
        augment: "none", "light", "crop" or "medvitv2".
        rand_ops, rand_magnitude: operations of RandAugment on a training image, and their strength.
        erase: probability that a rectangle of a training image is erased.
        normalize: "data", "half" (mean and std 0.5) or "none" (values stay in [0, 1]).
        num_workers: loader processes; default 0 for data in memory, else one a core, at most 8.
        seed: of order and augmentation.

    Raises:
        ValueError: an option out of range, or a batch that the processes cannot share evenly
            (numbers given).
    """

    def __init__(
        self,
        data: ImageData,
        *,
        img_size: int | None = None,
        batch_size: int = 64,
        in_chans: int = 3,
        augment: str = "none",
        rand_ops: int = 0,
        rand_magnitude: int = 9,
        erase: float = 0.0,
        normalize: str = "data",
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size > len(data.train):
            raise ValueError(
                f"batch_size must be at most {len(data.train)}, the training images of "
                f"{data.name}; got {batch_size}"
            )
        self.data = data
        self.img_size = img_size or min(data.size)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.normalize = Normalize(data, in_chans, normalize)
        self.transform, self.transform_sizes = augmentation(
            augment,
            self.img_size,
            data.mirrors,
            rand_ops=rand_ops,
            rand_magnitude=rand_magnitude,
            erase=erase,
            mean=data.mean,
        )
        self._ready: dict[str, Images | Squared] = {}

    def share(self) -> int:
        """Batch of one process: the global batch over the number of processes."""
        world = self.trainer.world_size if self.trainer else 1
        if self.batch_size % world:
            raise ValueError(
                f"batch_size is the global batch and must be a multiple of the {world} processes; "
                f"got {self.batch_size}"
            )
        return self.batch_size // world

    def ready(self, split: str) -> Images | Squared:
        """Images of a split at the model's size, in memory where they fit; "train" at its native
        size if the augmentation resizes.
        """
        if split not in self._ready:
            self._ready[split] = self._prepare(split)
        return self._ready[split]

    def _prepare(self, split: str) -> Images | Squared:
        images: Images = getattr(self.data, split)
        if split == "train" and self.transform_sizes:
            return images
        if len(images) * self.data.channels * self.img_size**2 > CACHE_BYTES:
            return Squared(images, self.img_size)
        if isinstance(images, TensorImages):
            # In chunks: resizing works in float32, four times the bytes.
            squared = torch.cat(
                [to_square(chunk, self.img_size) for chunk in torch.split(images.images, 4096)]
            )
        else:
            squared = torch.stack(
                [to_square(images[i][0], self.img_size) for i in range(len(images))]
            )
        return TensorImages(squared, images.targets)

    def _loader(
        self, dataset: Dataset[Any], in_memory: bool, sampler: Iterable[Any], drop_last: bool
    ) -> DataLoader[Batch]:
        workers = self.num_workers
        if workers is None:
            workers = 0 if in_memory else min(8, os.cpu_count() or 1)
        # Its own generator: a loader without one draws from the global stream, and a resumed run
        # opens another number of loaders.
        rng = generator(self.seed)
        pin = torch.cuda.is_available()
        return DataLoader(
            dataset,
            batch_size=self.share(),
            num_workers=workers,
            generator=rng,
            pin_memory=pin,
            sampler=sampler,
            drop_last=drop_last,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled by (seed, epoch); whole batches only."""
        images = self.ready("train")
        rank, world, epoch = 0, 1, 0
        if self.trainer:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            # Lightning opens the loader before it tells the sampler the epoch, which matters when a
            # run is resumed.
            epoch = finished_epochs(self.trainer)
        sampler = EpochSampler(len(images), self.batch_size, self.seed, epoch, rank, world)
        dataset = Augmented(images, self.transform, self.seed)
        return self._loader(dataset, isinstance(images, TensorImages), sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order, each process its share, nothing twice."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """In order, each process its share, nothing twice."""
        return self._evaluation("test")

    def _evaluation(self, split: str) -> DataLoader[Batch]:
        images = self.ready(split)
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        sampler = range(rank, len(images), world)
        return self._loader(images, isinstance(images, TensorImages), sampler, drop_last=False)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 to normalised float32 on the model's device."""
        return self.normalize(batch[0]), batch[1]
