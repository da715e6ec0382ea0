"""MedViTV2: parameter counts, parts against independent formulas, both layouts, tracing."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.models import MedViTV2Config, create_model
from saccade.models.medvitv2 import EMHSA, GFP, LFP, MHCA, PatchEmbed
from saccade.nn.kan import FasterKAN
from saccade.nn.neighborhood_attention import NeighborhoodAttention2d

COUNTS = [
    # variant, dims, (1000 classes with dead weights, 9 with, 9 without)
    ("tiny", (11_719_781, 11_338_246, 10_353_918)),
    ("small", (30_087_215, 29_578_832, 26_828_614)),
    ("base", (66_995_491, 66_233_412, 60_092_858)),
    ("large", (118_291_397, 117_275_622, 106_401_244)),
]
VERSIONS: list[dict[str, Any]] = [
    {"legacy_dead_params": True},
    {"legacy_dead_params": True, "num_classes": 9},
    {"num_classes": 9},
]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def micro(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model("medvitv2_micro", **options)


@pytest.mark.parametrize(("variant", "counts"), COUNTS, ids=[c[0] for c in COUNTS])
def test_parameter_counts_of_the_paper(variant: str, counts: tuple[int, ...]) -> None:
    with torch.device("meta"):
        models = [create_model(f"medvitv2_{variant}", **options) for options in VERSIONS]
    assert tuple(count(model) for model in models) == counts


def test_the_kans_of_tiny_and_the_bias_tables() -> None:
    with torch.device("meta"):
        model = create_model("medvitv2_tiny")
    kans = [module for module in model.modules() if isinstance(module, FasterKAN)]
    assert sum(map(count, kans)) == 7_607_552
    tables = [m.rpb.shape for m in model.modules() if isinstance(m, NeighborhoodAttention2d)]
    assert tables == [(width // 32, 13, 13) for width in (64, 64, 128, *[192] * 4)]
    layer = kans[0].layers[0]
    assert (layer.centre_range, layer.inv_width, layer.mode) == ((-2.0, 2.0), 1 / 0.33, "exact")


@pytest.mark.parametrize(
    ("options", "dilations"),
    [
        ({}, [1, 8, 1, 1, 2, 1, 2]),
        ({"dilation": "none"}, [1, 1, 1, 1, 1, 1, 1]),
        ({"img_size": 112}, [1, 4, 1, 1, 1, 1, 1]),
        ({"img_size": (224, 448)}, [1, 8, 1, 1, 2, 1, 2]),
        ({"img_size": 32}, [1, 1, 1, 1, 1, 1, 1]),
    ],
    ids=["dinat at 224", "none", "dinat at 112", "the shorter side counts", "nothing fits"],
)
def test_dilations(options: dict[str, Any], dilations: list[int]) -> None:
    with torch.device("meta"):
        model = create_model("medvitv2_tiny", **options)
    blocks = [block for block in model.features if isinstance(block, LFP)]
    assert [block.attn.dilation for block in blocks] == [(d, d) for d in dilations]


@pytest.mark.parametrize("size", [28, 36, 56], ids=["half", "odd grids", "the declared size"])
def test_a_smaller_square_gets_the_dilations_of_its_own_grid(size: int) -> None:
    declared, own = micro().eval(), micro(img_size=size).eval()
    x = image(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(declared(x), own(x), rtol=0, atol=0)
        undilated = micro(dilation="none").eval()(x)
    assert not torch.allclose(declared(x), undilated, rtol=1e-4)


def test_block_order_widths_and_drop_path() -> None:
    with torch.device("meta"):
        model = create_model("medvitv2_small", drop_path_rate=0.2)
    kinds = [type(block) for block in model.features]
    assert kinds == [LFP, LFP, LFP, GFP, LFP, LFP, GFP, LFP, LFP, GFP, GFP, GFP]
    splits = [
        (b.e_mhsa.proj.in_features, b.mhca.norm.num_features)
        for b in model.features
        if isinstance(b, GFP)
    ]
    assert splits == [(96, 32), (192, 64), (192, 64), (384, 128), (384, 128)]
    rates = [block.drop_path.rate for block in model.features]
    assert rates == pytest.approx(torch.linspace(0, 0.2, 12).tolist())
    last = model.features[-1]
    assert (last.mhsa_drop_path.rate, last.mhca_drop_path.rate) == pytest.approx((0.15, 0.05))


@pytest.mark.parametrize(
    ("shape", "classes"),
    [
        ((2, 3, 56, 56), 10),
        ((2, 3, 28, 28), 10),
        ((2, 1, 33, 70), 7),
        ((2, 3, 64, 32), 0),
        ((2, 3, 8, 8), 10),
    ],
    ids=["56", "28", "gray, odd, not square", "no classes", "grids of one token"],
)
def test_any_size(shape: tuple[int, ...], classes: int) -> None:
    model = micro(in_chans=shape[1], num_classes=classes).eval()
    x = image(*shape)
    with torch.no_grad():
        maps = model.forward_features(x)
        assert maps.shape == (2, 192, -(-shape[2] // 32), -(-shape[3] // 32))
        torch.testing.assert_close(model.forward_head(maps, pre_logits=True), maps.mean((2, 3)))
        y = model(x)
    assert y.shape == (2, classes or model.num_features)
    assert y.isfinite().all()


@pytest.mark.parametrize(
    "options", [{}, {"ffn": "mlp"}, {"legacy_layout": True}], ids=["kan", "mlp", "legacy layout"]
)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    model = micro(**options)
    nn.functional.cross_entropy(model(image(3, 3, 56, 56)), torch.tensor([1, 2, 3])).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    zero = [name for name, p in model.named_parameters() if not p.grad.any()]
    # a bias of all keys leaves the softmax as it is; the 3 ReLUs of a gate may all be shut at first
    may_be_zero = ("e_mhsa.k.bias", ".fc.0.weight", ".fc.0.bias", ".fc.2.weight")
    assert [name for name in zero if not name.endswith(may_be_zero)] == []


def test_only_the_documented_weights_are_dead() -> None:
    model = micro(legacy_dead_params=True)
    model(image(2, 3, 56, 56)).sum().backward()
    dead = {name for name, p in model.named_parameters() if p.grad is None}
    gfp = [
        f"features.{i}.conv." for i, block in enumerate(model.features) if isinstance(block, GFP)
    ]
    assert len(gfp) == 3
    assert dead == {name for name, _ in model.named_parameters() if name.startswith(tuple(gfp))}


def test_emhsa_without_pooling_is_torchs_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = EMHSA(96, 1), nn.MultiheadAttention(96, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x = image(2, 49, 96)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_emhsa_pools_keys_over_the_raster_sequence() -> None:
    torch.manual_seed(0)
    pooled, plain = EMHSA(32, 2).eval(), EMHSA(32, 1)
    plain.load_state_dict(
        {k: v for k, v in pooled.state_dict().items() if not k.startswith("norm")}
    )
    x = image(1, 10, 32)
    means = x[:, :8].reshape(1, 2, 4, 32).mean(2) / (1 + 1e-5) ** 0.5
    scores = (plain.q(x) @ plain.k(means).mT) * 32**-0.5
    torch.testing.assert_close(pooled(x), plain.proj(scores.softmax(-1) @ plain.v(means)))


def test_lfp_adds_its_feed_forward_twice_over_the_norm() -> None:
    block = micro().eval().features[0]
    x = image(1, 16, 14, 14)
    u = block.patch_embed(x)
    u = u + block.attn(block.norm1(u).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    y = block.norm2(u)
    torch.testing.assert_close(block(x), u + y + block.conv.conv(y))


@pytest.mark.parametrize("size", [(14, 14), (7, 5)], ids=["even", "odd"])
def test_patch_embed_averages_what_is_there(size: tuple[int, int]) -> None:
    block = PatchEmbed(8, 16, stride=2).eval()
    x = image(1, 8, *size)
    rows, columns = (-(-side // 2) for side in size)
    cells = [
        [x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(columns)]
        for i in range(rows)
    ]
    means = torch.stack([torch.stack(row, -1) for row in cells], -2)
    torch.testing.assert_close(block(x), block.norm(block.conv(means)))
    assert isinstance(PatchEmbed(8, 8).conv, nn.Identity)


def test_mhca_keeps_heads_apart_before_its_projection() -> None:
    block = MHCA(64).eval()
    block.projection = nn.Identity()
    x, y = image(1, 64, 5, 5), image(1, 64, 5, 5)
    y[:, 32:] += 1
    assert torch.equal(block(x)[:, :32], block(y)[:, :32])
    assert not torch.equal(block(x)[:, 32:], block(y)[:, 32:])


def test_layouts_agree_on_one_pixel_and_differ_elsewhere() -> None:
    right, legacy = micro().eval(), micro(legacy_layout=True).eval()
    legacy.load_state_dict(right.state_dict())
    with torch.no_grad():
        # 4 x 4 pixels are one token in every stage
        torch.testing.assert_close(right(image(2, 3, 4, 4)), legacy(image(2, 3, 4, 4)))
        for block_right, block_legacy in zip(right.features, legacy.features, strict=True):
            embed = block_right.patch_embed.conv
            x = image(2, getattr(embed, "in_channels", block_right.norm1.num_features), 6, 4)
            assert not torch.allclose(block_right(x), block_legacy(x), rtol=1e-3)


def test_legacy_layout_is_a_reshape() -> None:
    block = micro(legacy_layout=True).eval().features[0]
    x = block.norm1(block.patch_embed(image(1, 16, 6, 4)))
    wanted = block.attn(x.reshape(1, 6, 4, 32)).reshape(1, 32, 6, 4)
    torch.testing.assert_close(block.channels_last(block.attn, x), wanted)


def test_channels_last_memory_gives_the_same_values() -> None:
    for options in ({}, {"legacy_layout": True}):
        model = micro(**options).eval()
        x = image(2, 3, 40, 56)
        with torch.no_grad():
            wanted = model(x)
            model.to(memory_format=torch.channels_last)
            torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), wanted)


def test_checkpointed_gradients_are_the_same() -> None:
    x, grads = image(2, 3, 56, 56), []
    for enable in (False, True):
        model = micro(drop_path_rate=0.0)
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[1], grads[0])


def test_initial_weights() -> None:
    model = micro()
    for name, p in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if p.dim() > 1 and leaf in ("weight", "rpb"):
            assert p.std().item() == pytest.approx(0.02, rel=0.35), name
            assert p.abs().max() <= 2.0
        elif leaf == "bias":
            assert not p.any(), name
        else:
            assert (p == 1).all(), name


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    (
        "GFP of 64 channels",
        {"dims": (32, 64, 160, 192)},
        "of C = 64 attention takes 64 .* leaves 0",
    ),
    (
        "GFP of 96 channels",
        {"dims": (32, 96, 160, 192)},
        "of C = 96 attention takes 96 .* leaves 0",
    ),
    ("width not of 32", {"dims": (48, 128, 160, 192)}, "multiples of 32, got 48 in stage 0"),
    ("third depth", {"depths": (2, 2, 4, 1)}, "divide by 3, got 4"),
    ("three stages", {"depths": (2, 2, 3)}, "depths must hold 4 numbers"),
    ("no blocks", {"depths": (2, 0, 3, 1)}, "at least 1"),
    ("feed-forward", {"ffn": "moe"}, '"kan" or "mlp", got \'moe\''),
    ("dilation", {"dilation": 2}, '"dinat" or "none", got 2'),
    ("local kernel", {"local_kernels": (4, 3, 3, 3)}, "odd"),
    ("image size", {"img_size": 0}, "img_size must be at least 1, got 0"),
    ("classes", {"num_classes": -1}, "num_classes must be at least 0, got -1"),
    ("drop path", {"drop_path_rate": 1.5}, r"\[0, 1\), got"),
    ("option", {"kernel": 3}, "no option 'kernel'; did you mean kernel_size"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=text):
        create_model("medvitv2_micro", **options)


@pytest.mark.parametrize("width", [128, 160, 192, 256])
def test_split_of_the_sheet(width: int) -> None:
    wanted = {128: (96, 32), 160: (128, 32), 192: (160, 32), 256: (192, 64)}
    assert MedViTV2Config().split(width) == wanted[width]


def test_every_field_is_an_option() -> None:
    fields = dataclasses.asdict(MedViTV2Config(dims=(32, 128, 160, 192), num_classes=3))
    with torch.device("meta"):
        model = create_model("medvitv2_micro", **fields)
    assert dataclasses.asdict(model.cfg) == fields


def test_published_names_load() -> None:
    model, other = micro(), micro()
    published: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if ".kan." in key:
            key = key.replace(".centres", ".rbf.grid")
            if value.dim() == 3:
                key, value = key.replace(".weight", ".spline_linear.weight"), value.flatten(1)
        published["module." + key.replace("head.", "proj_head.0.")] = value
    published["module.features.4.conv.conv.0.weight"] = torch.zeros(256, 128, 1, 1)
    for p in other.parameters():
        nn.init.constant_(p, 0.5)
    other.load_state_dict(other.checkpoint_filter(published))
    torch.testing.assert_close(other.state_dict(), model.state_dict())
    assert model.checkpoint_filter(model.state_dict()).keys() == model.state_dict().keys()


@pytest.mark.slow
def test_blocks_train_the_same_under_inductor() -> None:
    x = image(2, 32, 14, 14)
    # the head of the second stage: LFP 32 -> 128 with stride 2, then GFP
    eager, compiled = (nn.Sequential(*micro(drop_path_rate=0.0).features[2:5:2]) for _ in range(2))
    step = torch.compile(compiled, fullgraph=True)
    outputs = [eager(x), step(x)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    for y in outputs:
        y.square().mean().backward()
    for (name, p), q in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-5, msg=name)
