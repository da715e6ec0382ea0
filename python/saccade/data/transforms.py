"""Geometry on uint8 images, augmentation policies by name, and what turns a uint8 batch into a
model's input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from saccade.data._images import ImageData

AUGMENTATIONS = ("none", "light", "crop", "medvitv2")
# Largest magnitude of RandAugment; timm's magnitude 10 is 30 here.
LARGEST_MAGNITUDE = 30


def to_square(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` and crop the centre: uint8 [..., C, H, W] to [..., C, size,
    size].

    >>> to_square(torch.zeros(2, 1, 8, 12, dtype=torch.uint8), 16).shape
    torch.Size([2, 1, 16, 16])
    """
    if images.shape[-2:] == (size, size):
        return images
    squared: Tensor = F.center_crop(F.resize(images, [size], antialias=True), [size, size])
    return squared


def augmentation(
    name: str,
    size: int,
    mirrors: bool,
    *,
    rand_ops: int = 0,
    rand_magnitude: int = 9,
    erase: float = 0.0,
    mean: Sequence[float] = (0.0,),
) -> tuple[Callable[[Tensor], Tensor] | None, bool]:
    """The training transform of one uint8 image [C, H, W], and whether it sets the size by itself.

    Args:
        name: "none"; "light": a shift by at most an eighth of the side, and a mirror image half of
            the time; "crop": random resized crop, and the mirror image;
            "medvitv2": random resized crop, AugMix (alpha 0.4), and a mirror image with probability
                0.4.
        size: side of the output in pixels.
        mirrors: whether a mirrored image keeps its class; False leaves the mirroring out.
        rand_ops: operations of RandAugment on an image after that; 0 for none.
        rand_magnitude: their strength, 0 to 30.
        erase: probability that a rectangle of 2 to 33 % of the image is erased at the end.
        mean: of the data's channels, in [0, 1]: what RandAugment leaves open and what is erased.

    Raises:
        ValueError: the name is not one of AUGMENTATIONS, or a number is out of range.

    Source: "medvitv2" is the training code of arXiv 2502.13693; RandAugment, arXiv 1909.13719;
        random erasing, arXiv 1708.04896. Both are torchvision's.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}; got {name!r}")
    if rand_ops < 0 or not 0 <= rand_magnitude <= LARGEST_MAGNITUDE:
        raise ValueError(
            f"rand_ops must be at least 0 and rand_magnitude in [0, {LARGEST_MAGNITUDE}]; got "
            f"{rand_ops} and {rand_magnitude}"
        )
    if not 0 <= erase <= 1:
        raise ValueError(f"erase must be in [0, 1]; got {erase}")
    fill = [round(255 * channel) for channel in mean]
    policy: list[torch.nn.Module] = []
    sizes = name in ("crop", "medvitv2")
    if sizes:
        policy.append(v2.RandomResizedCrop(size, antialias=True))
    if name == "light":
        policy.append(v2.RandomCrop(size, padding=max(size // 8, 1)))
    if name == "medvitv2":
        policy.append(v2.AugMix(alpha=0.4))
    if mirrors and name != "none":
        policy.append(v2.RandomHorizontalFlip(0.4 if name == "medvitv2" else 0.5))
    if rand_ops:
        policy.append(v2.RandAugment(rand_ops, rand_magnitude, LARGEST_MAGNITUDE + 1, fill=fill))
    if erase:
        policy.append(v2.RandomErasing(erase, value=fill))
    return v2.Compose(policy) if policy else None, sizes


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Gray to RGB by repetition, RGB to gray by luminance; channels are the third last axis."""
    if images.shape[-3] == channels:
        return images
    if images.shape[-3] == 1:
        return images.expand(*images.shape[:-3], channels, *images.shape[-2:])
    if channels == 1:
        gray: Tensor = F.rgb_to_grayscale(images)
        return gray
    raise ValueError(
        f"in_chans must be 1 or 3 for images of {images.shape[-3]} channels; got {channels}"
    )


class Normalize:
    """uint8 batches [B, C, H, W] to float32 [B, in_chans, H, W]: channels, then [0, 1], then mean
    and std.

    Args:
        data: gives mean and std.
        in_chans: channels of the model's input, 1 or 3.
        normalize: "data": the data set's own mean and std; "half": 0.5 and 0.5; "none": 0 and 1.
    """

    def __init__(self, data: ImageData, in_chans: int, normalize: str) -> None:
        if normalize not in ("data", "half", "none"):
            raise ValueError(f"normalize must be 'data', 'half' or 'none'; got {normalize!r}")
        if in_chans not in (1, 3):
            raise ValueError(f"in_chans must be 1 or 3; got {in_chans}")
        mean, std = {
            "data": (data.mean, data.std),
            "half": ((0.5,), (0.5,)),
            "none": ((0.0,), (1.0,)),
        }[normalize]
        if len(mean) == 3 and in_chans == 1:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        self.in_chans = in_chans
        self.mean = list(mean) * (in_chans // len(mean))
        self.std = list(std) * (in_chans // len(std))

    def __call__(self, images: Tensor) -> Tensor:
        """Apply to one batch."""
        scaled = F.to_dtype(to_channels(images, self.in_chans), torch.float32, scale=True)
        normalized: Tensor = F.normalize(scaled, self.mean, self.std)
        return normalized


def batch_mixing(mixup: float, cutmix: float, num_classes: int) -> v2.Transform | None:
    """MixUp or CutMix of a batch and its targets, which become [B, num_classes]; None when both
    alphas are 0.

    Args:
        mixup: alpha of MixUp's Beta distribution; 0 leaves it out.
        cutmix: alpha of CutMix's; with both, one of the two is drawn for each batch.
        num_classes: number of classes.
    """
    chosen: list[v2.Transform] = []
    if mixup:
        chosen.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix:
        chosen.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    if not chosen:
        return None
    return chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)


class Jitter:
    """Turn, shift, zoom and brighten every image of a batch by numbers of its own.

    All are uniform; pixels from outside are 0. One bilinear sampling of the batch, where it lies.

    Args:
        degrees: largest turn, in degrees.
        shift: largest shift along each axis, as a share of the side.
        zoom: largest change of scale, as a share.
        brightness: largest change of brightness, as a share; values are cut to [0, 1].
        mirror: mirror half of the images.
        seed: of the numbers; None draws them from torch's global generator.

    Raises:
        ValueError: a share is not in [0, 1), or the turn is not in [0, 180].

    >>> Jitter(15)(torch.rand(4, 1, 28, 28)).shape
    torch.Size([4, 1, 28, 28])
    """

    def __init__(
        self,
        degrees: float = 0.0,
        shift: float = 0.0,
        zoom: float = 0.0,
        brightness: float = 0.0,
        mirror: bool = False,
        seed: int | None = None,
    ) -> None:
        for name, value in (("shift", shift), ("zoom", zoom), ("brightness", brightness)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}.")
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees must be in [0, 180], got {degrees}.")
        self.degrees, self.shift, self.zoom, self.brightness = degrees, shift, zoom, brightness
        self.mirror = mirror
        self.rng = None if seed is None else torch.Generator().manual_seed(seed)

    def _draw(self, count: int, largest: float) -> Tensor:
        # on the CPU, so that every device sees the same numbers
        return (2 * torch.rand(count, generator=self.rng) - 1) * largest

    def __call__(self, images: Tensor) -> Tensor:
        """Apply to a float batch [B, C, H, W] with values in [0, 1]."""
        count, _, height, width = images.shape
        angle = self._draw(count, math.radians(self.degrees))
        scale = 1 / (1 + self._draw(count, self.zoom))
        shift = [self._draw(count, 2 * self.shift) for _ in range(2)]
        flip = torch.ones(count)
        if self.mirror:
            flip = 1 - 2 * torch.randint(2, (count,), generator=self.rng).float()
        # maps positions of the output to those of the input, in units of half the sides
        cos, sin, ratio = scale * angle.cos(), scale * angle.sin(), height / width
        rows = [
            torch.stack([flip * cos, -sin * ratio, shift[0]], 1),
            torch.stack([flip * sin / ratio, cos, shift[1]], 1),
        ]
        theta = torch.stack(rows, 1).to(images)
        grid = nnf.affine_grid(theta, list(images.shape), align_corners=False)
        moved = nnf.grid_sample(images, grid, align_corners=False)
        gain = 1 + self._draw(count, self.brightness).to(images)
        return (moved * gain[:, None, None, None]).clamp(0, 1)
