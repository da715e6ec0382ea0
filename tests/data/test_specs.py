"""Data specs: what they load, and the sentence for everything that is absent or broken."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data import ImageDataModule, list_data, load_data
from saccade.data._images import balanced, carve
from saccade.data.cifar10 import CLASSES

REAL_DATA = os.environ.get("SACCADE_DATA") or None


def write_image(path: Path, value: int = 0, size: tuple[int, int] = (10, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)
    return path


def write_classes(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        for index in range(count):
            write_image(root / name / f"{index}.png", value=10 * index)
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">I", 0x0800 | array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, train: int = 40, test: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        pixels = rng.integers(0, 256, (count, 28, 28))
        write_idx(root / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(root / "MNIST" / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    return root


@pytest.fixture(autouse=True)
def no_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SACCADE_DATA", raising=False)


def test_digits_are_split_without_overlap_and_in_proportion():
    data = load_data("digits")
    parts = (data.train, data.val, data.test)
    pixels = torch.cat([part.images for part in parts]).flatten(1)
    assert len(pixels) == 1797
    # scikit-learn's digits hold no image twice, so a repeated one would mean overlapping splits.
    assert len(torch.unique(pixels, dim=0)) == 1797
    for part, total in zip(parts, (1295, 143, 359), strict=True):
        counts = torch.bincount(part.targets, minlength=10)
        assert len(part) == total
        assert counts.min() >= total // 10 - 4
    assert data.train.images.dtype == torch.uint8
    assert int(data.train.images.max()) == 255
    assert (data.channels, data.size, data.mirrors) == (1, (8, 8), False)


def test_splits_and_subsets_do_not_depend_on_the_global_seed():
    torch.manual_seed(1)
    first = load_data("digits", train_size=100, test_size=50)
    torch.manual_seed(2)
    second = load_data("digits", train_size=100, test_size=50)
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(first, split).images, getattr(second, split).images)
    assert torch.bincount(first.train.targets).tolist() == [10] * 10
    assert (len(first.val), len(first.test)) == (10, 50)


def test_a_subset_larger_than_the_data_is_the_data():
    assert len(load_data("digits", train_size=10**6).train) == 1295


def test_carve_keeps_both_sides_of_every_class():
    targets = torch.tensor([0] * 2 + [1] * 3 + [2] * 40)
    kept, carved = carve(targets, 0.1)
    assert sorted(kept.tolist() + carved.tolist()) == list(range(45))
    assert torch.bincount(targets[carved]).tolist() == [1, 1, 4]


def test_balanced_makes_up_for_a_class_that_runs_out():
    targets = torch.tensor([0] * 2 + [1] * 50)
    assert torch.bincount(targets[balanced(targets, 20)]).tolist() == [2, 18]


def test_mnist_reads_idx_files(tmp_path):
    data = load_data("mnist", write_mnist(tmp_path))
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 20)
    assert data.train[0][0].shape == (1, 28, 28)
    assert data.test.targets.tolist() == [i % 10 for i in range(20)]


@pytest.mark.skipif(REAL_DATA is None, reason="SACCADE_DATA names no folder")
@pytest.mark.parametrize(
    ("spec", "channels", "total"),
    [("mnist", 1, 60000), ("cifar10", 3, 50000)],
    ids=["mnist", "cifar10"],
)
def test_the_real_data_sets(spec, channels, total):
    try:
        data = load_data(spec, REAL_DATA)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert len(data.train) + len(data.val) == total
    assert len(data.test) == 10000
    image, target = data.test[17]
    assert image.shape == (channels, *data.size)
    assert torch.bincount(data.train.targets, minlength=10).min() > 4000 * total // 60000
    assert 0 <= target < 10
    step = len(data.train) // 200
    sample = torch.stack([data.train[i * step][0] for i in range(200)]).double() / 255
    assert torch.allclose(sample.mean((0, 2, 3)), torch.tensor(data.mean).double(), atol=0.05)


def cifar_zip(root: Path, per_class: int = 4) -> Path:
    with zipfile.ZipFile(root / "cifar10-jpeg.zip", "w") as archive:
        for split in ("train", "test"):
            for label, name in enumerate(CLASSES):
                for index in range(per_class):
                    file = write_image(root / "scratch.jpg", value=20 * label, size=(32, 32))
                    archive.write(file, f"{split}/{name}/{index:04d}.jpg")
    return root


def test_cifar10_zip_is_read_in_place_by_worker_processes(tmp_path):
    data = load_data("cifar10", cifar_zip(tmp_path))
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 40)
    # An inherited file handle would mix up the workers' reads.
    data.test[0]
    module = ImageDataModule(data, batch_size=10, num_workers=2)
    module._ready["test"] = data.test
    loader = module.test_dataloader()
    seen = [
        (int(i.float().mean()), int(t))
        for images, targets in loader
        for i, t in zip(images, targets, strict=True)
    ]
    assert len(seen) == 40
    assert all(abs(mean - 20 * target) <= 2 for mean, target in seen)


def test_cifar10_folder_tree(tmp_path):
    for split in ("train", "test"):
        write_classes(tmp_path / "cifar10" / split, dict.fromkeys(CLASSES, 2))
    data = load_data("cifar10", tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (10, 10, 20)
    assert data.classes == CLASSES


def test_pickled_batches_with_another_checksum_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="do not have the published checksums"):
        load_data("cifar10", tmp_path)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("layout", "sizes"),
    [
        ({"": 10}, (14, 2, 4)),
        ({"train": 10, "test": 3}, (18, 2, 6)),
        ({"train": 10, "val": 3}, (18, 2, 6)),
        ({"train": 10, "val": 2, "test": 3}, (20, 4, 6)),
    ],
    ids=["classes", "train-test", "imagenet", "all-three"],
)
def test_folder_layouts(tmp_path, layout, sizes):
    for split, count in layout.items():
        write_classes(tmp_path / split, {"cat": count, "dog": count})
    data = load_data(f"folder:{tmp_path}")
    assert (len(data.train), len(data.val), len(data.test)) == sizes
    assert data.classes == ("cat", "dog")
    assert data.train[0][0].shape == (3, 10, 8)
    names = [set(part.names) for part in (data.train, data.val, data.test)]
    assert len(set.union(*names)) == sum(sizes)


def broken_folder(root: Path, kind: str) -> Path:
    write_classes(root, {"cat": 6, "dog": 6})
    if kind == "text":
        for file in (root / "cat").iterdir():
            file.write_text("not an image")
    if kind == "truncated":
        for file in (root / "cat").iterdir():
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(file)
            file.write_bytes(file.read_bytes()[:6000])
    if kind == "sixteen":
        for file in (root / "cat").iterdir():
            Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(file)
    if kind == "empty":
        (root / "emu").mkdir()
    return root


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("text", r"cannot read the image .*\.png: it is no image that Pillow knows"),
        ("truncated", r"cannot read the image .*\.png: .*; remove the file or replace it"),
        ("sixteen", r"the image .*\.png has mode I;?1?6? \(more than 8 bits a channel\)"),
        ("empty", "the class folder .*emu holds no image"),
    ],
)
def test_broken_folders_say_which_file(tmp_path, kind, sentence):
    with pytest.raises(ValueError, match=sentence):
        ImageDataModule(load_data(f"folder:{broken_folder(tmp_path, kind)}"), batch_size=2).ready(
            "train"
        )


ABSENT = [
    ("mnist", "{empty}", FileNotFoundError, "MNIST/raw must hold train-images-idx3-ubyte"),
    ("mnist", None, FileNotFoundError, "needs a data directory: pass --data-dir"),
    ("cifar10", "{empty}", FileNotFoundError, "put cifar10-jpeg.zip"),
    ("cifar10", None, FileNotFoundError, "cifar10 needs a data directory"),
    ("folder:{empty}/none", None, FileNotFoundError, "does not exist"),
    ("folder:{empty}", None, ValueError, "at least 2; it holds 0"),
    ("folder:", None, ValueError, "folder:PATH"),
    ("digit", None, ValueError, "Did you mean 'digits'"),
    ("digits:8", None, ValueError, "data must be one of digits, mnist, cifar10, folder:PATH"),
    ("imagenet", None, ValueError, "got 'imagenet'"),
]


@pytest.mark.parametrize(
    ("spec", "directory", "kind", "sentence"), ABSENT, ids=[row[0] + str(row[1]) for row in ABSENT]
)
def test_absent_data_give_one_sentence(tmp_path, spec, directory, kind, sentence):
    with pytest.raises(kind, match=sentence) as caught:
        load_data(spec.format(empty=tmp_path), directory and directory.format(empty=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["train_size", "val_size", "test_size"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        load_data("digits", **{name: 0})


def test_folders_must_agree_on_classes(tmp_path):
    write_classes(tmp_path / "train", {"cat": 4, "dog": 4})
    write_classes(tmp_path / "test", {"cat": 4, "emu": 4})
    with pytest.raises(ValueError, match="has the classes cat, emu, but train/ has cat, dog"):
        load_data(f"folder:{tmp_path}")


def test_every_listed_source_is_loadable():
    assert [source.spec for source in list_data()] == ["digits", "mnist", "cifar10", "folder:PATH"]
