"""mixFormer: parameter counts, the three kinds of attention, what the class token does."""

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from saccade.models import create_model, load_model, mixformer, save_weights
from saccade.models._cosformer import CHUNK, cosformer_attention
from saccade.models.mixformer import ATTENTION, MixFormerConfig

TINY: dict[str, Any] = {
    "dim": 24,
    "heads": (2, 3),
    "hidden": (16, 40),
    "head_dim": 8,
    "patch_size": 4,
    "img_size": 16,
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def tiny(attention: Any = ("cosformer", "softmax"), **options: Any) -> Any:
    torch.manual_seed(0)
    options = {**TINY, "attention": attention, "drop_path_rate": 0.0, **options}
    return create_model("mixformer_micro", **options).double()


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("variant", "options", "expected"),
    [
        ("mixformer_max", {}, 34_238_410),
        ("mixformer_max", {"attention": "softmax"}, 34_238_410),
        ("mixformer_max", {"attention": "relative"}, 34_238_410 + 14 * 29 * 64),
        ("mixformer_min", {}, 10_432_074),
        ("mixformer_found", {}, 24_357_386),
        ("mixformer_official", {}, 24_357_386),
    ],
)
def test_parameter_counts(variant: str, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count(create_model(variant, **options)) == expected


@pytest.mark.parametrize(
    ("variant", "expected"), [("mixformer_max", 2_414_272), ("mixformer_min", 843_232)]
)
def test_parameter_counts_of_a_layer(variant: str, expected: int) -> None:
    with torch.device("meta"):
        assert count(create_model(variant).features[0]) == expected


def explicit(
    q: Tensor, k: Tensor, v: Tensor, eps: float, causal: bool, m: int
) -> tuple[Tensor, Tensor]:
    """The N x N form, pair by pair, and its rows before they meet the values."""
    n, length = q.shape[-2], k.shape[-2]
    similarity = torch.zeros(*q.shape[:-1], length, dtype=q.dtype)
    for i in range(1, n + 1):
        for j in range(1, (i if causal else length) + 1):
            product = (q[..., i - 1, :].clamp(min=0) * k[..., j - 1, :].clamp(min=0)).sum(-1)
            similarity[..., i - 1, j - 1] = product * math.cos(math.pi / 2 * (i - j) / m)
    rows = similarity / similarity.sum(-1, keepdim=True).clamp(min=eps)
    return rows @ v, rows


WORKED = {
    "q": [[1.0, 2.0], [-1.0, 0.5], [0.3, -0.2]],
    "k": [[0.5, 1.0], [2.0, -1.0], [1.0, 1.0]],
    "v": [[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]],
}


def test_cosformer_of_the_sheet() -> None:
    q, k, v = (torch.tensor(WORKED[name], dtype=torch.float64) for name in "qkv")
    expected = [[0.95951697, 0.04048303], [1.5, -0.5], [0.75451431, 0.24548569]]
    y = cosformer_attention(q, k, v, eps=1e-6)
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-9)


@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("tokens", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 37])
def test_linear_form_is_the_explicit_form(tokens: int, causal: bool) -> None:
    q, k, v = (x.requires_grad_() for x in draw(3, 2, tokens, 5).unbind(0))
    y = cosformer_attention(q, k, v, causal=causal, eps=1e-3)
    expected, rows = explicit(q, k, v, 1e-3, causal, tokens)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    weight = draw(*y.shape)
    grads = torch.autograd.grad((weight * y).sum(), (q, k, v))
    for grad, other in zip(
        grads, torch.autograd.grad((weight * expected).sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(grad, other, rtol=0, atol=1e-10)
    assert (rows >= 0).all()
    sums = rows.sum(-1)
    seen = sums > 0.5
    torch.testing.assert_close(sums[seen], torch.ones_like(sums[seen]))


def test_queries_and_keys_of_two_lengths_share_the_longer_one() -> None:
    q, k, v = draw(2, 7, 4), draw(2, 11, 4), draw(2, 11, 3)
    expected, _ = explicit(q, k, v, 1e-6, False, 11)
    torch.testing.assert_close(cosformer_attention(q, k, v), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_a_query_without_a_positive_component_gives_zero(causal: bool) -> None:
    q, k, v = draw(3, 1, 6, 4).unbind(0)
    q = q.abs()
    q[:, 2] *= -1
    y = cosformer_attention(q, k.abs(), v, causal=causal)
    assert (y[:, 2] == 0).all()
    assert (y[:, [0, 1, 3, 4, 5]] != 0).all()
    empty = cosformer_attention(q[:, :0], k[:, :0], v[:, :0], causal=causal, max_length=1)
    assert empty.shape == (1, 0, 4)


def test_a_long_cosine_leaves_plain_linear_attention() -> None:
    q, k, v = draw(3, 2, 9, 4).unbind(0)
    s = q.relu() @ k.relu().mT
    expected = s @ v / s.sum(-1, keepdim=True).clamp(min=1e-6)
    y = cosformer_attention(q, k, v, max_length=10**9)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    assert (cosformer_attention(q, k, v) - expected).abs().max() > 1e-2


def test_nan_goes_where_it_is_seen() -> None:
    q, k, v = draw(3, 1, 100, 4).abs().unbind(0)
    v[:, 80, 1] = float("nan")
    y = cosformer_attention(q, k, v, causal=True)
    # a product with 0 carries it through its own chunk, no further back
    assert y[:, :CHUNK].isfinite().all()
    assert y[:, 80:, 1].isnan().all()
    assert cosformer_attention(q, k, v)[..., 1].isnan().all()


def test_half_precision_computes_in_float32() -> None:
    q, k, v = (100 * draw(3, 1, 300, 8)).half().unbind(0)
    y = cosformer_attention(q, k, v)
    assert y.dtype == torch.float16
    expected = cosformer_attention(q.float(), k.float(), v.float())
    torch.testing.assert_close(y, expected.half())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cosformer_attention(q.float(), k.float(), v.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_length": 5}, "at least 6, the tokens, got 5"),
        ({"eps": 0.0}, "above 0, got 0"),
        ({"causal": True}, "as many queries as keys, got 4 and 6"),
    ],
    ids=["length", "eps", "causal"],
)
def test_mistakes_of_cosformer_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        cosformer_attention(draw(1, 4, 2), draw(1, 6, 2), draw(1, 6, 2), **options)


@pytest.mark.parametrize("tokens", [2, 40], ids=["short", "clipped"])
def test_relative_keys_are_those_of_the_clipped_distance(tokens: int) -> None:
    torch.manual_seed(0)
    cfg = MixFormerConfig(head_dim=8)
    layer = mixformer.Relative(12, 3, cfg).double()
    q, k, v = draw(3, 2, 3, tokens, 8).unbind(0)
    logits = torch.zeros(2, 3, tokens, tokens, dtype=torch.float64)
    for i in range(tokens):
        for j in range(tokens):
            key = k[:, :, j] + layer.keys[max(-14, min(14, j - i)) + 14]
            logits[:, :, i, j] = (q[:, :, i] * key).sum(-1) / math.sqrt(8)
    torch.testing.assert_close(layer.mix(q, k, v), logits.softmax(-1) @ v)


@pytest.mark.parametrize("kind", ATTENTION)
def test_a_model_step_by_step(kind: str) -> None:
    model = tiny(kind, ffn_drop_rate=0.3).eval()
    images = draw(2, 3, 16, 16)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(2, 16, 48)
    stem = model.stem
    x = patches @ stem.proj.weight.flatten(1).T + stem.proj.bias
    x = torch.cat([stem.cls_token.expand(2, -1, -1), x], 1) * math.sqrt(24) + stem.pos_embed
    for heads, block in zip(TINY["heads"], model.features, strict=True):
        q, k, v = block.attn.qkv(F.layer_norm(x, (24,))).chunk(3, -1)
        mixed = []
        for head in range(heads):
            part = slice(8 * head, 8 * head + 8)
            a, b, c = q[..., part], k[..., part], v[..., part]
            if kind == "cosformer":
                mixed.append(explicit(a, b, c, 1e-3, False, 17)[0])
                continue
            logits = a @ b.mT / math.sqrt(8)
            if kind == "relative":
                place = torch.arange(17)
                keys = block.attn.keys[(place[None] - place[:, None]).clamp(-14, 14) + 14]
                logits = logits + torch.einsum("bid,ijd->bij", a, keys) / math.sqrt(8)
            mixed.append(logits.softmax(-1) @ c)
        x = x + block.attn.proj(torch.cat(mixed, -1))
        first, _, _, last = block.mlp
        x = x + last(first(F.layer_norm(x, (24,))).clamp(min=0))
    expected = model.head(F.layer_norm(x, (24,))[:, 1:].mean(1))
    torch.testing.assert_close(model(images), expected)


def test_the_class_token_is_seen_and_not_read() -> None:
    features = tiny().eval().forward_features(draw(1, 3, 16, 16))
    changed = features.clone()
    changed[:, 0] += 1
    model = tiny().eval()
    assert torch.equal(model.forward_head(features), model.forward_head(changed))
    other = tiny().eval()
    with torch.no_grad():
        other.stem.cls_token += draw(1, 1, 24)
    images = draw(1, 3, 16, 16)
    assert not torch.allclose(model(images), other(images))


def test_causal_tokens_see_what_is_before_them() -> None:
    model = tiny("cosformer", causal=True).eval()
    images = draw(1, 3, 16, 16)
    changed = images.clone()
    changed[..., 8:12, 4:8] += 1  # patch 9, token 10
    one, other = (model.forward_features(x) for x in (images, changed))
    differs = (one != other).any(-1)[0]
    assert not differs[:10].any()
    assert differs[10:].all()
    with torch.no_grad():
        block = model.features[0]
        x = block.norm1(model.stem(images))
        alone = block.attn(x)[:, 0]
        values = block.attn.qkv(x[:, 0])[:, -16:]
        queries, keys = block.attn.qkv(x[:, 0])[:, :32].relu().chunk(2, -1)
    # the class token's output is its own value, head by head, where its similarity is not clamped
    own = (queries * keys).view(1, 2, 8).sum(-1, keepdim=True)
    expected = (own * values.view(1, 2, 8) / own.clamp(min=1e-3)).flatten(1)
    torch.testing.assert_close(alone, block.attn.proj(expected))
    assert create_model("mixformer_official", **TINY, attention="cosformer").cfg.causal


def test_rates_of_dropout() -> None:
    with torch.device("meta"):
        found = create_model("mixformer_found")
        small = create_model("mixformer_min")
    rates = [block.drop_path.rate for block in found.features]
    assert rates == pytest.approx([0.1 * layer / 13 for layer in range(12)])
    assert {block.mlp[2].p for block in found.features} == {0.1}
    assert {round(block.mlp[2].p, 6) for block in small.features} == {round(0.1 * 320 / 448, 6)}
    assert found.no_weight_decay() == {"stem.cls_token", "stem.pos_embed"}


def test_a_kind_of_your_own() -> None:
    class Mean(mixformer.Attention):
        def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return v.mean(2, keepdim=True).expand_as(q)

    ATTENTION["mean"] = Mean
    try:
        assert tiny(("mean", "softmax"))(draw(2, 3, 16, 16)).shape == (2, 10)
    finally:
        del ATTENTION["mean"]


def test_features_compile_export_and_round_trip(tmp_path: Any) -> None:
    kinds = ("cosformer", "relative")
    model = tiny(kinds).float().eval()
    images = draw(2, 3, 16, 16).float()
    maps = create_model("mixformer_micro", **TINY, attention=kinds, features_only=True)(images)
    assert [tuple(y.shape) for y in maps] == [(2, 24, 4, 4)] * 2
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), model(images))
    save_weights(model, tmp_path)
    torch.testing.assert_close(load_model(tmp_path).eval()(images), model(images))


@pytest.mark.slow
def test_compiles_in_one_graph() -> None:
    model = tiny(("cosformer", "relative")).float().eval()
    images = draw(2, 3, 16, 16).float()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), model(images))


def test_cosformer_doubles_where_softmax_quadruples() -> None:
    def work(kind: str, tokens: int) -> int:
        q = torch.zeros(1, 2, tokens, 64)
        layer = ATTENTION[kind](8, 2, MixFormerConfig())
        # products of a fused kernel are not counted
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            layer.mix(q, q, q)
        return counter.get_total_flops()

    assert work("cosformer", 4096) == 2 * work("cosformer", 2048)
    assert work("softmax", 4096) == 4 * work("softmax", 2048)
    # the column of ones is the denominator's, which the published model leaves out
    assert work("cosformer", 2048) == 2 * ATTENTION["cosformer"].macs(2048, 128, 64) * 65 // 64
    assert work("softmax", 2048) == 2 * ATTENTION["softmax"].macs(2048, 128, 64)


@pytest.mark.slow
def test_time_grows_as_the_work_does() -> None:
    def seconds(kind: str, tokens: int) -> float:
        q = torch.randn(1, 2, tokens, 64)
        layer = ATTENTION[kind](8, 2, MixFormerConfig())
        times = []
        for _ in range(7):
            started = time.process_time()
            layer.mix(q, q, q)
            times.append(time.process_time() - started)
        return min(times)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        linear = seconds("cosformer", 16384) / seconds("cosformer", 4096)
        square = seconds("softmax", 16384) / seconds("softmax", 4096)
    finally:
        torch.set_num_threads(threads)
    assert linear < 8 < square


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("dim", {"dim": 0}, "dim must be at least 1, got 0"),
    ("heads", {"heads": ()}, r"positive number for each layer, got \(\)"),
    ("hidden", {"hidden": (8,)}, r"each of the 14 layers, got \(8,\)"),
    ("names", {"attention": ("softmax",)}, r"each of the 14 layers, or be one name, got"),
    ("kind", {"attention": "hard"}, "cosformer, softmax, relative, got hard"),
    ("patch", {"patch_size": 15}, "must divide img_size, got 15 and 224"),
    ("eps", {"eps": 0.0}, "eps must be above 0, got 0"),
    ("depth", {"drop_path_depth": 3}, "at least the 14 layers, got 3"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MixFormerConfig(**options)


def test_other_sizes_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="16 x 16 pixels, as img_size says, got 16 x 20"):
        tiny()(draw(1, 3, 16, 20))
