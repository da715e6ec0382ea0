"""KArAt: parameter counts, the formula, rank, periods, sharing, timm's outputs, memory."""

import pytest
import torch
from torch import nn

from saccade.models import create_model


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("variant", "options", "expected"),
    [
        ("karat_tiny", {"attention": "softmax", "num_classes": 10}, 5_526_346),
        ("karat_tiny", {"num_classes": 10}, 6_292_282),
        ("karat_tiny", {"attention": "G3U", "num_classes": 10}, 5_590_174),
        ("karat_small", {}, 23_582_536),
        ("karat_small", {"attention": "G3U"}, 22_178_320),
        ("karat_base", {"num_classes": 10}, 87_508_426),
        ("karat_base", {"attention": "G1U", "num_classes": 10}, 85_948_186),
    ],
)
def test_parameter_counts_of_the_paper(variant: str, options: dict, expected: int) -> None:
    with torch.device("meta"):
        assert count(create_model(variant, **options)) == expected
