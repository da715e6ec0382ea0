"""Transforms and corruptions on uint8 images."""

import pytest
import torch

from saccade.data import CORRUPTIONS, corrupt, load_data
from saccade.data.transforms import (
    AUGMENTATIONS,
    Jitter,
    Normalize,
    augmentation,
    batch_mixing,
    to_channels,
    to_square,
)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(8, 8, 56), (28, 28, 28), (9, 13, 7), (40, 11, 16)]
)
def test_to_square(height, width, size):
    image = torch.full((2, 3, height, width), 77, dtype=torch.uint8)
    out = to_square(image, size)
    assert out.shape == (2, 3, size, size)
    assert out.dtype == torch.uint8
    assert out.unique().tolist() == [77]


def test_gray_is_repeated_and_rgb_is_weighted():
    gray = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert torch.equal(to_channels(gray, 3), gray.repeat(1, 3, 1, 1))
    green = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    green[:, 1] = 255
    assert to_channels(green, 1).item() == pytest.approx(0.587 * 255, abs=1)
    with pytest.raises(ValueError, match="in_chans must be 1 or 3 for images of 3 channels; got 4"):
        to_channels(green, 4)


@pytest.mark.parametrize(
    ("normalize", "low", "high"),
    [("half", -1.0, 1.0), ("none", 0.0, 1.0), ("data", -0.3053 / 0.376, (1 - 0.3053) / 0.376)],
)
def test_normalize_maps_black_and_white(normalize, low, high):
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    out = Normalize(load_data("digits"), 3, normalize)(images)
    assert out.shape == (2, 3, 1, 1)
    assert out.dtype == torch.float32
    assert out[:, 0].flatten().tolist() == pytest.approx([low, high], abs=1e-5)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_give_uint8_of_the_right_size(name, channels):
    transform, sizes = augmentation(name, 16, mirrors=True)
    assert sizes == (name in ("crop", "medvitv2"))
    if transform is None:
        return
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(channels, 1, 1)
    outs = [transform(image) for _ in range(4)]
    assert all(out.shape == image.shape and out.dtype == torch.uint8 for out in outs)
    assert any(not torch.equal(out, image) for out in outs)


def test_digits_are_never_mirrored():
    transform, _ = augmentation("light", 16, mirrors=False)
    ramp = torch.arange(1, 17, dtype=torch.uint8).repeat(1, 16, 1)
    for _ in range(20):
        row = transform(ramp)[0, 8]
        inside = row[row > 0].int()
        assert torch.all(inside.diff() > 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_applies_its_operations_to_any_policy(channels):
    image = torch.randint(0, 256, (channels, 16, 12), dtype=torch.uint8)
    none, sizes = augmentation("none", 16, mirrors=True, rand_ops=2, rand_magnitude=30)
    assert not sizes
    torch.manual_seed(0)
    outs = [none(image) for _ in range(8)]
    assert all(out.shape == image.shape and out.dtype == torch.uint8 for out in outs)
    assert sum(not torch.equal(out, image) for out in outs) > 4
    crop, sizes = augmentation("crop", 9, mirrors=True, rand_ops=1)
    assert sizes
    assert crop(image).shape == (channels, 9, 9)
    assert augmentation("none", 16, mirrors=True)[0] is None


def test_randaugment_leaves_the_mean_where_it_moves_the_image_away():
    transform, _ = augmentation(
        "none", 16, mirrors=True, rand_ops=1, rand_magnitude=30, mean=(0.2, 0.4, 0.6)
    )
    white = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    corners = {tuple(transform(white)[:, 0, 0].tolist()) for _ in range(60)}
    assert (51, 102, 153) in corners


def test_erasing_sets_a_rectangle_to_the_mean():
    transform, sizes = augmentation("none", 20, mirrors=True, erase=1.0, mean=(0.2, 0.4, 0.6))
    assert not sizes
    image = torch.full((3, 20, 30), 255, dtype=torch.uint8)
    for seed in range(10):
        torch.manual_seed(seed)
        out = transform(image)
        gone = out[0] != 255
        rows, columns = gone.any(1).sum(), gone.any(0).sum()
        assert int(gone.sum()) == int(rows * columns)
        assert 0.01 < int(gone.sum()) / 600 < 0.36
        assert out[:, gone].unique(dim=1).flatten().tolist() == [51, 102, 153]
    assert torch.equal(image, torch.full_like(image, 255))


def test_erasing_has_its_probability():
    transform, _ = augmentation("none", 8, mirrors=True, erase=0.25)
    image = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    count = sum(not torch.equal(transform(image), image) for _ in range(400))
    assert 70 < count < 130


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rand_ops": -1}, r"rand_ops must be at least 0 .* got -1 and 9"),
        ({"rand_magnitude": 31}, r"rand_magnitude in \[0, 30\]; got 0 and 31"),
        ({"erase": 1.5}, r"erase must be in \[0, 1\]; got 1.5"),
    ],
    ids=["operations", "magnitude", "erase"],
)
def test_augmentation_mistakes(options, text):
    with pytest.raises(ValueError, match=text):
        augmentation("none", 8, mirrors=True, **options)


def test_the_configuration_knows_every_policy():
    from saccade.learn import TrainConfig

    for name in AUGMENTATIONS:
        assert TrainConfig(augment=name).augment == name


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError, match="augment must be one of none, light, crop, medvitv2; got 'heavy'"
    ):
        augmentation("heavy", 16, mirrors=True)
    with pytest.raises(ValueError, match="corruption must be one of gaussian_noise"):
        corrupt(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "fog")


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_batch_mixing_gives_soft_targets_that_sum_to_one(mixup, cutmix):
    mixing = batch_mixing(mixup, cutmix, 10)
    _, targets = mixing(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))
    assert targets.shape == (4, 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    assert batch_mixing(0.0, 0.0, 10) is None


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_change_images_the_same_way_each_time(name):
    images = load_data("digits").test.images[:8]
    large = to_square(images, 28)
    once, twice = corrupt(large, name, seed=3), corrupt(large, name, seed=3)
    assert once.dtype == torch.uint8
    assert once.shape == large.shape
    assert torch.equal(once, twice)
    assert not torch.equal(once, large)


def test_noise_has_the_stated_strength_and_follows_its_seed():
    gray = torch.full((4, 1, 64, 64), 128, dtype=torch.uint8)
    noisy = corrupt(gray, "gaussian_noise", seed=0).double()
    assert noisy.std().item() == pytest.approx(0.15 * 255, rel=0.02)
    assert not torch.equal(noisy, corrupt(gray, "gaussian_noise", seed=1).double())


def test_pixelate_makes_blocks_and_keeps_the_mean():
    image = torch.randint(
        0, 256, (1, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    blocks = corrupt(image, "pixelate").reshape(14, 2, 14, 2).permute(0, 2, 1, 3).reshape(196, 4)
    assert torch.equal(blocks.min(1).values, blocks.max(1).values)
    assert blocks.double().mean().item() == pytest.approx(image.double().mean().item(), abs=1)


class TestJitter:
    def image(self):
        rng = torch.Generator().manual_seed(0)
        return torch.rand(3, 2, 6, 9, generator=rng)

    def test_nothing_asked_is_the_identity(self):
        torch.testing.assert_close(Jitter()(self.image()), self.image())

    def test_mirrors_half(self):
        images = self.image()[:1].repeat(64, 1, 1, 1)
        moved = Jitter(mirror=True, seed=0)(images)
        flipped = [
            torch.allclose(m, i.flip(2), atol=1e-6) for m, i in zip(moved, images, strict=True)
        ]
        same = [torch.allclose(m, i, atol=1e-6) for m, i in zip(moved, images, strict=True)]
        assert all(a != b for a, b in zip(flipped, same, strict=True))
        assert 16 < sum(flipped) < 48

    def test_turns_keep_shapes_round(self):
        """A disc of an oblong image stays itself under any turn: angles are those of pixels."""
        y, x = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(41) - 20.0, indexing="ij")
        disc = (8 - (y**2 + x**2).sqrt()).clamp(0, 1)[None, None].repeat(16, 1, 1, 1)
        torch.testing.assert_close(Jitter(180, seed=0)(disc), disc, rtol=0, atol=0.3)

    def test_shift_is_a_share_of_the_side(self):
        images = torch.zeros(200, 1, 40, 20)
        images[:, :, 20, 10] = 1
        moved = Jitter(shift=0.2, seed=0)(images)
        rows = (moved.sum((1, 3)) * torch.arange(40)).sum(1) / moved.sum((1, 2, 3))
        columns = (moved.sum((1, 2)) * torch.arange(20)).sum(1) / moved.sum((1, 2, 3))
        assert 6.5 < (rows - 20).abs().max() <= 8.01
        assert 3 < (columns - 10).abs().max() <= 4.01

    def test_zoom_and_brightness(self):
        images = torch.full((200, 1, 30, 30), 0.9)
        images[:, :, :10] = images[:, :, 20:] = 0
        heights = (Jitter(zoom=0.2, seed=0)(images)[:, 0, :, 15] / 0.9).sum(1)
        assert 7.9 < heights.min() < 8.5
        assert 11.5 < heights.max() < 12.1
        bright = Jitter(brightness=0.1, seed=0)(images)
        assert bright.max() < 0.99 + 1e-6
        assert Jitter(brightness=0.5, seed=0)(images).max() == 1

    def test_every_image_by_itself_and_by_the_seed(self):
        images = self.image()[:1].repeat(4, 1, 1, 1)
        one, two = (Jitter(15, 0.1, 0.1, 0.1, seed=3)(images) for _ in range(2))
        assert torch.equal(one, two)
        assert not torch.allclose(one[0], one[1])
        torch.manual_seed(5)
        drawn = Jitter(15)(images)
        torch.manual_seed(5)
        assert torch.equal(Jitter(15)(images), drawn)

    @pytest.mark.parametrize(
        ("options", "text"),
        [({"shift": 1.0}, r"shift must be in \[0, 1\), got 1.0"), ({"degrees": -1}, "got -1")],
    )
    def test_mistakes(self, options, text):
        with pytest.raises(ValueError, match=text):
            Jitter(**options)
