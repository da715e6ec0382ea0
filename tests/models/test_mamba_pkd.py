"""Mamba classifiers: parameter counts, order of the scan, causality, composition, start."""

from typing import Any

import pytest
import torch
from torch import nn

from saccade.models import create_model, list_models
from saccade.models.mamba_pkd import Block, MambaPKDConfig, snake
from saccade.nn import Mamba
from saccade.ops import selective_scan

COUNTS = {
    ("mamba_pkd_teacher", 1): 937_610,
    ("mamba_pkd_teacher", 3): 941_706,
    ("mamba_pkd_s1", 1): 7_258,
    ("mamba_pkd_s2", 1): 20_906,
    ("mamba_pkd_s3", 1): 30_890,
    ("mamba_pkd_s4", 1): 60_730,
    ("mamba_pkd_s5", 1): 100_170,
    ("mamba_pkd_s6", 1): 132_938,
    ("mamba_pkd_s7", 1): 198_170,
}
BLOCKS = {16: 3_360, 32: 9_920, 48: 19_680, 64: 32_640, 80: 48_800, 128: 116_480}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def micro(**options: Any) -> Any:
    torch.manual_seed(0)
    return create_model("mamba_pkd_micro_s3", **options)


@pytest.mark.parametrize(("variant", "channels"), COUNTS, ids=lambda value: str(value))
def test_parameter_counts(variant: str, channels: int) -> None:
    with torch.device("meta"):
        assert count(create_model(variant, in_chans=channels)) == COUNTS[variant, channels]


@pytest.mark.parametrize("dim", BLOCKS)
def test_parameter_counts_of_the_block(dim: int) -> None:
    assert count(Mamba(dim)) == BLOCKS[dim]


def test_teacher_seven_students_and_the_small_ones() -> None:
    names = list_models(module="mamba_pkd")
    assert len(names) == 1 + 7 + 1 + 5
    with torch.device("meta"):
        sizes = [count(create_model(f"mamba_pkd_s{k}")) for k in range(1, 8)]
    assert sizes == sorted(sizes)


def test_worked_example_of_the_scan() -> None:
    u = torch.tensor([[1, -0.5], [0.2, 0.3], [0, 1], [-1, 0.4]]).double()
    delta = torch.tensor([[0.1, 0.2], [0.5, 0.05], [0.3, 0.3], [0.2, 0.4]]).double()
    A = -torch.tensor([[1, 2, 3], [0.5, 1.5, 2.5]]).double()
    B = torch.tensor([[1, 0, 0.5], [0.2, 0.4, 0.6], [-1, 0.3, 0], [0.5, 0.5, 0.5]]).double()
    C = torch.tensor([[0.3, 0.2, 0.1], [1, 0, -1], [0.5, 0.5, 0.5], [0.2, -0.4, 0.6]]).double()
    D = torch.tensor([0.1, 0.2]).double()
    y = selective_scan(u.mT[None], delta.mT[None], A, B.mT[None], C.mT[None], D)
    expected = [
        [0.135, -0.135],
        [0.02949656, 0.00059385],
        [0.0553159, 0.04793519],
        [-0.12657606, 0.02529384],
    ]
    torch.testing.assert_close(y[0].mT, torch.tensor(expected).double(), atol=1e-8, rtol=0)


ORDERS = {
    "raster": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    "snake": [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11],
}


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("scan", ORDERS)
def test_tokens_are_read_in_order(scan: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    block = Block(MambaPKDConfig(dim=8, scan=scan, bidirectional=bidirectional), 0.0).double()
    x = torch.randn(1, 8, 3, 4).double().requires_grad_()
    order = ORDERS[scan]
    for position in (0, 5, 11):
        token = block(x).flatten(2)[0, :, order[position]]
        (grad,) = torch.autograd.grad(token.square().sum(), x)
        reached = grad.flatten(2)[0].abs().sum(0) > 0
        expected = set(range(12)) if bidirectional else set(order[: position + 1])
        assert set(reached.nonzero().flatten().tolist()) == expected


def test_a_map_of_one_row_read_both_ways_is_the_sum() -> None:
    torch.manual_seed(0)
    block = Block(MambaPKDConfig(dim=8, bidirectional=True), 0.0).double()
    x = torch.randn(2, 8, 1, 7).double()
    tokens = block.norm(x[:, :, 0].mT)
    turned = torch.stack([tokens[:, 6 - t] for t in range(7)], 1)
    back = block.mixer(turned)
    expected = [block.mixer(tokens)[:, t] + back[:, 6 - t] for t in range(7)]
    torch.testing.assert_close(block(x) - x, torch.stack(expected, 2)[:, :, None])


def test_snake_is_its_own_inverse() -> None:
    x = torch.randn(2, 3, 5, 4)
    assert not torch.equal(snake(x), x)
    torch.testing.assert_close(snake(snake(x)), x, atol=0, rtol=0)


def test_classify_of_hidden_is_the_model() -> None:
    model = micro().eval()
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(model.classify(model.hidden(x)), model(x))
    zeros = torch.zeros(3, 16, 4, 4)
    torch.testing.assert_close(model.hidden(x, zeros), model.hidden(x))
    assert (model.hidden(x, zeros + 1) - model.hidden(x)).abs().max() > 1e-3


def test_logits_are_the_head_of_the_mean_normed_token() -> None:
    model = micro().eval()
    x = torch.randn(3, 1, 8, 8)
    tokens = model.hidden(x).flatten(2).mT
    torch.testing.assert_close(model(x), model.head(model.norm(tokens).mean(1)))


def test_first_steps_survive_the_start() -> None:
    model = create_model("mamba_pkd_s4")
    for block in model.features:
        steps = nn.functional.softplus(block.mixer.dt_proj.bias)
        assert steps.min() >= 0.99e-3
        assert steps.max() <= 1.01e-1
        assert torch.equal(block.mixer.D, torch.ones_like(block.mixer.D))


def test_decay_spares_the_scan() -> None:
    assert micro().no_weight_decay() == {
        f"features.{block}.mixer.{name}" for block in (0, 1) for name in ("A_log", "D")
    }


@pytest.mark.parametrize("size", [(8, 8), (9, 5), (2, 31)], ids=["square", "odd", "one row"])
def test_sizes_features_and_heads(size: tuple[int, int]) -> None:
    x = torch.randn(2, 1, *size)
    grid = (size[0] // 2, size[1] // 2)
    assert micro(num_classes=0)(x).shape == (2, 16)
    (last,) = micro(features_only=True)(x)
    assert last.shape == (2, 16, *grid)
    model = micro()
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)


def test_checkpointing_changes_no_gradient() -> None:
    model, grads = micro(bidirectional=True, scan="snake"), []
    x = torch.randn(2, 1, 8, 8)
    for enable in (False, True):
        model.train().set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[1], grads[0])


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("dim", {"dim": 0}, "dim must be at least 1, got 0"),
    ("depth", {"depth": -1}, "depth must be at least 1, got -1"),
    ("scan", {"scan": "spiral"}, "scan must be one of raster, snake, got 'spiral'"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MambaPKDConfig(**options)


def test_maps_that_do_not_fit_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="at least 2 x 2 pixels, one patch, got 1 x 8"):
        micro()(torch.randn(1, 1, 1, 8))
    with pytest.raises(ValueError, match=r"shape \(1, 16, 4, 4\) of the embedded patches"):
        micro().hidden(torch.randn(1, 1, 8, 8), torch.randn(1, 16, 4, 5))
