"""CvT: parameter counts, attention against torch's and its formula, shapes, translation."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.models import create_model
from saccade.models.cvt import Attention, CvTConfig


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def micro(**options: Any) -> Any:
    torch.manual_seed(0)
    return create_model("cvt_micro", **options)


@pytest.mark.parametrize(
    ("variant", "counts"),
    [
        ("cvt_13", (19_997_480, 19_616_330)),
        ("cvt_21", (31_622_696, 31_241_546)),
        ("cvt_w24", (277_196_392, 276_181_642)),
    ],
)
def test_parameter_counts_of_the_paper(variant: str, counts: tuple[int, int]) -> None:
    with torch.device("meta"):
        models = [create_model(variant, num_classes=classes) for classes in (1000, 10)]
    assert tuple(map(count, models)) == counts


def test_buffers_and_stride_do_not_change_the_count() -> None:
    with torch.device("meta"):
        model = create_model("cvt_13")
        assert sum(b.numel() for b in model.buffers()) == 25_767
        assert count(create_model("cvt_13", kv_stride=1)) == count(model)
        linear = count(create_model("cvt_13", projection="linear"))
    depthwise = sum(3 * (9 + 2) * c * d for c, d in ((64, 1), (192, 2), (384, 10)))
    assert count(model) - linear == depthwise


@pytest.mark.parametrize("size", [(224, 224), (65, 90)], ids=["224", "odd"])
def test_maps_of_the_stages(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        maps = create_model("cvt_13", features_only=True).eval()(torch.empty(1, 3, *size))
    sides, expected = list(size), []
    for kernel, stride, padding in ((7, 4, 2), (3, 2, 1), (3, 2, 1)):
        sides = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
        expected.append(tuple(sides))
    assert [tuple(m.shape[2:]) for m in maps] == expected
    assert [m.shape[1] for m in maps] == [64, 192, 384]


def _attention(projection: str, stride: int) -> tuple[Attention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    ours = Attention(24, 3, projection, stride).double().eval()
    theirs = nn.MultiheadAttention(24, 3, batch_first=True).double()
    with torch.no_grad():
        # torch divides the scores by the root of the head's width, CvT by that of all channels
        theirs.in_proj_weight.copy_(
            torch.cat([ours.proj_q.weight / 3**0.5, ours.proj_k.weight, ours.proj_v.weight])
        )
        theirs.in_proj_bias.copy_(
            torch.cat([ours.proj_q.bias / 3**0.5, ours.proj_k.bias, ours.proj_v.bias])
        )
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    return ours, theirs


@pytest.mark.parametrize("extra", [0, 1], ids=["tokens", "class token"])
def test_identity_convolutions_leave_plain_attention(extra: int) -> None:
    ours, theirs = _attention("dw_bn", 1)
    for conv in (ours.conv_q, ours.conv_k, ours.conv_v):
        nn.init.dirac_(conv[0].weight, groups=24)
        nn.init.constant_(conv[1].weight, (1 + conv[1].eps) ** 0.5)
    x = torch.randn(2, 15 + extra, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(x, (3, 5)), theirs(x, x, x, need_weights=False)[0])


def test_average_projection_pools_keys_and_values() -> None:
    ours, theirs = _attention("avg", 2)
    x = torch.randn(2, 30, 24, dtype=torch.float64)
    pooled = nn.functional.avg_pool2d(
        x.mT.unflatten(2, (5, 6)), 3, 2, padding=1, ceil_mode=True
    ).flatten(2)
    expected = theirs(x, pooled.mT, pooled.mT, need_weights=False)[0]
    torch.testing.assert_close(ours(x, (5, 6)), expected)


def test_shifted_image_shifts_tokens() -> None:
    model = micro(features_only=True, kv_stride=1).double().eval()
    x = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    x[..., 24:32, 24:32] = torch.rand(1, 3, 8, 8)
    # attention sums over all tokens, borders included, so the shift is exact for the first
    # embedding and the convolutions only
    embed = model.model.features[0].embed
    first, second = embed(x), embed(x.roll(8, 3))
    torch.testing.assert_close(second[..., 12:24, 8:28], first[..., 12:24, 4:24])


def test_position_encoding_is_resized() -> None:
    model = micro(pos_embed=True).eval()
    name = "features.0.pos_embed"
    assert model.get_parameter(name).shape == (1, 32, 16, 16)
    assert model.no_weight_decay() == {name, "features.2.class_token"}
    assert model(torch.rand(2, 3, 40, 24)).shape == (2, 10)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_token": False},
        {"projection": "avg"},
        {"projection": "linear", "pos_embed": True},
    ],
    ids=["paper", "mean of tokens", "avg", "linear"],
)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    model = micro(**options)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    nn.functional.cross_entropy(model(x), torch.tensor([1, 2, 3])).backward()
    zero = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias of all keys leaves the softmax as it is; the head reads the last block's class token,
    # whose query is not convolved
    unread = ("features.2.blocks.1.attn.conv_q.",) if model.cfg.class_token else ()
    assert [n for n in zero if not n.endswith("proj_k.bias") and not n.startswith(unread)] == []


def test_batch_of_one_and_checkpointing() -> None:
    model = micro(drop_path_rate=0.0).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x[:1]), model(x)[:1])
    grads: list[list[Tensor]] = []
    for enable in (False, True):
        model.train().set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[1], grads[0])


def test_drop_path_acts_in_the_last_stage_alone() -> None:
    with torch.device("meta"):
        model = create_model("cvt_13")
    rates = [[b.drop_path.rate for b in stage.blocks] for stage in model.features]
    assert rates[:2] == [[0.0], [0.0, 0.0]]
    assert rates[2] == pytest.approx(torch.linspace(0, 0.1, 10).tolist())


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("stages", {"depths": (1, 2)}, r"depths must hold .* each of the 3 stages, got \(1, 2\)"),
    ("no depth", {"depths": (1, 0, 1)}, r"positive number"),
    ("heads", {"heads": (1, 3, 3)}, "stage 1 has 64 channels and 3 heads"),
    ("projection", {"projection": "conv"}, "dw_bn, avg, linear, got 'conv'"),
    ("stride", {"kv_stride": 0}, "at least 1, got 0"),
    ("nothing", {"dims": (), "heads": (), "depths": ()}, r"positive number .* got \(\)"),
]


def test_an_image_smaller_than_the_first_kernel() -> None:
    with torch.device("meta"):
        model = create_model("cvt_13")
    with pytest.raises(ValueError, match="reads at least 3 x 3, got 2 x 2"):
        model(torch.zeros(1, 3, 2, 2, device="meta"))


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        CvTConfig(**{"heads": (1, 2, 3), "dims": (32, 64, 96), **options})
