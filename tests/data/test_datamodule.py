"""The data module: order, shares of a global batch, augmentation that knows the sample alone."""

import pytest
import torch

from saccade.data import ImageDataModule, load_data
from saccade.data._seeds import derive_seed, scoped_seed
from saccade.data.datamodule import EpochSampler


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", train_size=100, test_size=37)


@pytest.mark.parametrize(
    ("size", "batch", "world"), [(100, 12, 1), (100, 12, 2), (101, 12, 3), (24, 24, 4), (53, 7, 1)]
)
def test_processes_share_every_global_batch(size, batch, world):
    whole = list(EpochSampler(size, batch, seed=5, epoch=2))
    shares = [
        EpochSampler(size, batch, seed=5, epoch=2, rank=rank, world_size=world)
        for rank in range(world)
    ]
    lists = [list(share) for share in shares]
    assert [len(share) for share in shares] == [size // batch * batch // world] * world
    for step in range(size // batch):
        part = batch // world
        union = [draw for one in lists for draw in one[step * part : (step + 1) * part]]
        assert union == whole[step * batch : (step + 1) * batch]
    assert len({index for _, index in whole}) == size // batch * batch


def test_order_follows_seed_and_epoch():
    sampler = EpochSampler(50, 10, seed=0)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert [i for _, i in sampler] != [i for _, i in first]
    assert [i for _, i in EpochSampler(50, 10, seed=1)] != [i for _, i in first]


def test_augmentation_depends_on_seed_epoch_and_index_alone(digits):
    def augmented(draw, noise, seed=0):
        module = ImageDataModule(
            digits, img_size=16, batch_size=10, augment="light", rand_ops=1, erase=0.5, seed=seed
        )
        torch.manual_seed(noise)
        return module.train_dataloader().dataset[draw][0]

    assert torch.equal(augmented((3, 7), noise=0), augmented((3, 7), noise=1))
    images = [augmented((epoch, 7), noise=0) for epoch in range(6)]
    assert any(not torch.equal(images[0], image) for image in images[1:])
    others = [augmented((3, 7), noise=0, seed=seed) for seed in range(6)]
    assert any(not torch.equal(others[0], image) for image in others[1:])


def test_loaders_leave_the_global_generator_alone(digits):
    module = ImageDataModule(digits, batch_size=10, augment="light")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(module.train_dataloader()))
    next(iter(module.test_dataloader()))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_give_the_same_batches(digits):
    batches = [
        torch.stack(
            [
                images
                for images, _ in ImageDataModule(
                    digits, batch_size=20, augment="light", num_workers=workers
                ).train_dataloader()
            ]
        )
        for workers in (0, 2)
    ]
    assert torch.equal(*batches)


def test_evaluation_sees_every_image_once_in_order(digits):
    module = ImageDataModule(digits, batch_size=10)
    targets = torch.cat([targets for _, targets in module.test_dataloader()])
    assert torch.equal(targets, digits.test.targets)


def test_batches_become_normalised_floats(digits):
    module = ImageDataModule(digits, img_size=16, batch_size=10, in_chans=3)
    images, targets = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert images.shape == (10, 3, 16, 16)
    assert images.dtype == torch.float32
    assert targets.dtype == torch.int64


def test_data_too_large_for_memory_are_resized_as_they_are_read(digits, monkeypatch):
    cached = ImageDataModule(digits, img_size=16, batch_size=10).ready("test")
    monkeypatch.setattr("saccade.data.datamodule.CACHE_BYTES", 100)
    lazy = ImageDataModule(digits, img_size=16, batch_size=10).ready("test")
    assert not hasattr(lazy, "names")
    assert type(lazy) is not type(cached)
    assert torch.equal(lazy[5][0], cached[5][0])
    assert lazy[5][1] == cached[5][1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"batch_size": 101},
            "batch_size must be at most 100, the training images of digits; got 101",
        ),
        ({"in_chans": 4}, "in_chans must be 1 or 3; got 4"),
        ({"normalize": "imagenet"}, "normalize must be 'data', 'half' or 'none'; got 'imagenet'"),
        ({"augment": "heavy"}, "augment must be one of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes(digits, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ImageDataModule(digits, **{"batch_size": 10, **options})


def test_a_batch_that_processes_cannot_share(digits):
    module = ImageDataModule(digits, batch_size=10)
    module.trainer = type("Trainer", (), {"world_size": 4})()
    with pytest.raises(ValueError, match="must be a multiple of the 4 processes; got 10"):
        module.share()


def test_derived_seeds_differ_and_scopes_restore():
    assert len({derive_seed(a, b) for a in range(30) for b in range(30)}) == 900
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with scoped_seed(1, 2):
        inside = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with scoped_seed(1, 2):
        assert torch.equal(torch.rand(3), inside)
