"""The user's own images: PATH/<class>/*, or PATH/train, PATH/val and PATH/test with class folders
in each.
"""

from __future__ import annotations

from pathlib import Path

import torch

from saccade.data._images import FileImages, ImageData, Images, carve

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TEST_FRACTION = 0.2


def load(root: Path, val_fraction: float) -> ImageData:
    """The images under `root`, as RGB.

    Without train/ and test/ folders a fifth of the images, each class in proportion, is the test
    split. With train/
    and val/ alone (ImageNet's layout) val/ is the test split, and validation is carved from train/.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"the folder {root} does not exist: it must hold one folder of images per class"
        )
    train_set: Images
    if (root / "train").is_dir():
        train_set, classes = read_classes(root / "train")
        held_out = {
            name: _same_classes(root / name, classes)
            for name in ("val", "test")
            if (root / name).is_dir()
        }
        if not held_out:
            raise ValueError(
                f"{root} has train/ but neither test/ nor val/; add one, or put the class folders "
                f"into {root} itself"
            )
        test: Images = held_out["test"] if "test" in held_out else held_out["val"]
        val: Images | None = held_out["val"] if len(held_out) == 2 else None
    else:
        everything, classes = read_classes(root)
        rest, chosen = carve(everything.targets, TEST_FRACTION)
        train_set, test, val = everything.subset(rest), everything.subset(chosen), None
    if val is None:
        kept, carved = carve(train_set.targets, val_fraction)
        train_set, val = train_set.subset(kept), train_set.subset(carved)
    if not len(val) or not len(test):
        raise ValueError(
            f"{root} has too few images to split ({len(train_set)} left to train on): give every "
            "class at least 3"
        )
    height, width = train_set[0][0].shape[1:]
    return ImageData(
        name=f"folder:{root}",
        train=train_set,
        val=val,
        test=test,
        classes=classes,
        channels=3,
        size=(height, width),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        mirrors=True,
    )


def read_classes(root: Path) -> tuple[FileImages, tuple[str, ...]]:
    """Image files of root's class folders in sorted order, and the names of the classes.

    Raises:
        ValueError: fewer than two class folders, or one with fewer than 2 images.
    """
    folders = sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if len(folders) < 2:
        raise ValueError(
            f"{root} must hold one folder of images per class, at least 2; it holds {len(folders)}"
        )
    names: list[str] = []
    targets: list[int] = []
    for label, directory in enumerate(folders):
        files = sorted(
            str(path)
            for path in directory.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not files:
            raise ValueError(f"the class folder {directory} holds no image ({', '.join(SUFFIXES)})")
        names += files
        targets += [label] * len(files)
    return FileImages(names, torch.tensor(targets)), tuple(path.name for path in folders)


def _same_classes(root: Path, classes: tuple[str, ...]) -> FileImages:
    images, found = read_classes(root)
    if found != classes:
        raise ValueError(
            f"{root} has the classes {', '.join(found)}, but train/ has {', '.join(classes)}"
        )
    return images
