"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, inside its package."""

from __future__ import annotations

import torch

from saccade._extras import require
from saccade.data._images import ImageData, TensorImages, carve

TEST_FRACTION = 0.2


def load(val_fraction: float) -> ImageData:
    """The digits; a fifth of them, each class in proportion, is the test split."""
    datasets = require("sklearn.datasets", extra="train", purpose="the data set digits")
    bunch = datasets.load_digits()
    # Gray values run from 0 to 16.
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)
    images = TensorImages(pixels.unsqueeze(1), torch.from_numpy(bunch.target))
    rest, test = carve(images.targets, TEST_FRACTION)
    known = images.subset(rest)
    train, val = carve(known.targets, val_fraction)
    return ImageData(
        name="digits",
        train=known.subset(train),
        val=known.subset(val),
        test=images.subset(test),
        classes=tuple(str(label) for label in bunch.target_names),
        channels=1,
        size=(8, 8),
        mean=(0.3053,),
        std=(0.3760,),
        mirrors=False,
    )
