"""The super-net: its slices, its gradients, its training, and models taken out of it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.compress.search import (
    Architecture,
    SuperNet,
    SuperNetConfig,
    SuperNetModule,
    loader,
    parameters,
    score,
    search_space,
    train_supernet,
)
from saccade.models import load_model, save_weights
from saccade.models._cosformer import cosformer_attention

SPACE = search_space("mixed", "cpu")


def supernet(**options: Any) -> SuperNet:
    torch.manual_seed(0)
    return SuperNet(SPACE, in_chans=1, **options)


def images(number: int = 3) -> Tensor:
    return torch.randn(number, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def drawn(number: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [SPACE.decode(SPACE.sample(rng)) for _ in range(number)]


def test_parameters_of_the_published_supernet() -> None:
    with torch.device("meta"):
        net = SuperNet(search_space("mixed"))
        alone = SuperNet(search_space("efficient"))
    assert sum(p.numel() for p in net.parameters()) == 56_949_322
    assert sum(p.numel() for p in alone.parameters()) == 34_238_410
    assert net.layers[0].attn["relative"].keys.shape == (29, 448)


def by_hand(net: SuperNet, arch: Architecture, x: Tensor, fused: bool) -> Tensor:
    """A sub-net's logits from the super-net's parameters, with slices written out."""
    d, p = arch.dim, dict(net.named_parameters())
    x = x.flatten(2).mT @ p["stem.proj.weight"][:d].flatten(1).T + p["stem.proj.bias"][:d]
    x = torch.cat([p["stem.cls_token"][..., :d].expand(len(x), -1, -1), x], 1)
    x = math.sqrt(d) * x + p["stem.pos_embed"][..., :d]
    for n, (heads, hidden, kind) in enumerate(
        zip(arch.heads, arch.hidden, arch.attention, strict=True)
    ):
        width, block, attn = 16 * heads, f"layers.{n}.", f"layers.{n}.attn.{kind}."
        weight, bias = p[f"{attn}qkv.weight"], p[f"{attn}qkv.bias"]
        # 64 rows each of queries, keys and values
        starts = [width * i for i in range(3)] if fused else [0, 64, 128]
        norm = [p[f"{block}norm1.{name}"][:d] for name in ("weight", "bias")]
        y = F.layer_norm(x, (d,), *norm)
        q, k, v = (
            (y @ weight[s : s + width, :d].T + bias[s : s + width])
            .unflatten(-1, (heads, 16))
            .transpose(1, 2)
            for s in starts
        )
        if kind == "cosformer":
            mixed = cosformer_attention(q, k, v, eps=1e-3)
        else:
            logits = q @ k.mT / 4
            if kind == "relative":
                place = torch.arange(65)
                table = p[f"{attn}keys"][:, :16]
                keys = table[(place[None] - place[:, None]).clamp(-14, 14) + 14]
                logits = logits + torch.einsum("bhid,ijd->bhij", q, keys) / 4
            mixed = logits.softmax(-1) @ v
        mixed = mixed.transpose(1, 2).flatten(2)
        x = x + mixed @ p[f"{attn}proj.weight"][:d, :width].T + p[f"{attn}proj.bias"][:d]
        norm = [p[f"{block}norm2.{name}"][:d] for name in ("weight", "bias")]
        y = F.layer_norm(x, (d,), *norm)
        y = y @ p[f"{block}mlp.0.weight"][:hidden, :d].T + p[f"{block}mlp.0.bias"][:hidden]
        y = y.relu() @ p[f"{block}mlp.3.weight"][:d, :hidden].T + p[f"{block}mlp.3.bias"][:d]
        x = x + y
    x = F.layer_norm(x, (d,), p["norm.weight"][:d], p["norm.bias"][:d])[:, 1:].mean(1)
    return x @ p["head.weight"][:, :d].T + p["head.bias"]


@pytest.mark.parametrize("fused", [False, True], ids=["apart", "fused"])
@pytest.mark.parametrize("arch", [SPACE.smallest(), SPACE.largest(), *drawn(4)], ids=str)
def test_a_subnet_is_the_leading_slice(arch: Architecture, fused: bool) -> None:
    net = supernet(fused_slice=fused).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = images().double()
    torch.testing.assert_close(net(x, arch), by_hand(net, arch, x, fused))


def test_fused_slices_mix_queries_and_keys() -> None:
    arch = Architecture(48, (2, 2), (96, 96), ("softmax", "softmax"))
    apart, fused = (supernet(fused_slice=f).weights(arch) for f in (False, True))
    key = "features.0.attn.qkv.weight"
    whole = supernet().layers[0].attn["softmax"].qkv.weight
    assert torch.equal(apart[key][32:64], whole[64:96, :48])
    assert torch.equal(fused[key][32:64], whole[32:64, :48])  # rows of the large one's queries
    full = Architecture(64, (4, 4), (96 * 2, 96 * 2), ("softmax", "softmax"))
    assert torch.equal(supernet().weights(full)[key], whole)


@pytest.mark.parametrize("arch", drawn(5, seed=3), ids=str)
def test_an_extracted_model_answers_alike(arch: Architecture, tmp_path: Any) -> None:
    net = supernet().eval()
    model = net.extract(arch)
    torch.testing.assert_close(model(images()), net(images(), arch), rtol=0, atol=1e-6)
    count = sum(p.numel() for p in model.parameters())
    assert count == parameters(SPACE.config(arch, in_chans=1))
    before = net(images(), arch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(net(images(), arch), before)
    save_weights(net.extract(arch), tmp_path)
    torch.testing.assert_close(load_model(tmp_path).eval()(images()), before)


def test_gradients_reach_the_slice_and_nothing_else() -> None:
    net = supernet().eval()
    arch = Architecture(48, (2, 4), (96, 192), ("relative", "cosformer"))
    net(images(), arch).square().sum().backward()
    touched = {n for n, p in net.named_parameters() if p.grad is not None}
    kinds = ("layers.0.attn.relative.", "layers.1.attn.cosformer.")
    expected = {
        n
        for n, _ in net.named_parameters()
        if not n.startswith(("layers.2.", "layers.3."))
        and (".attn." not in n or n.startswith(kinds))
    }
    assert touched == expected
    grad = net.layers[0].mlp[0].weight.grad
    assert grad[:96, :48].any(1).sum() > 48
    assert not grad[96:].any()
    assert not grad[:, 48:].any()
    qkv = net.layers[0].attn["relative"].qkv.weight.grad
    assert [bool(qkv[n : n + 32].any()) for n in range(0, 192, 32)] == [True, False] * 3
    assert not net.layers[0].attn["relative"].keys.grad[:, 16:].any()


def test_the_active_subnet_is_run() -> None:
    net = supernet().eval()
    arch = drawn(1)[0]
    assert torch.equal(net.activate(arch)(images()), net(images(), arch))
    with pytest.raises(ValueError, match="the space mixed has no architecture"):
        net.activate(Architecture(50, (2, 2), (100, 100), ("softmax", "softmax")))
    assert net.arch == arch


def test_subnets_of_an_update_depend_on_seed_and_number() -> None:
    module = SuperNetModule(supernet(), SuperNetConfig(seed=1))
    first = [module.drawn(step) for step in range(40)]
    assert first == [module.drawn(step) for step in range(40)]
    assert len({archs[0] for archs in first}) > 35
    assert {len(archs) for archs in first} == {1}
    other = SuperNetModule(supernet(), SuperNetConfig(seed=2))
    assert other.drawn(0) != first[0]
    sandwich = SuperNetModule(supernet(), SuperNetConfig(paths="sandwich")).drawn(0)
    assert sandwich[:2] == [SPACE.largest(), SPACE.smallest()]


def test_the_published_schedule() -> None:
    cfg = SuperNetConfig(warmup_steps=976)
    steps = 140_000
    assert cfg.rate(0, steps) == 1e-6
    assert cfg.rate(488, steps) == pytest.approx((1e-3 + 1e-6) / 2)
    assert cfg.rate(976, steps) == 1e-3
    assert cfg.rate(steps, steps) == pytest.approx(1e-7)
    assert cfg.rate((steps + 976) // 2, steps) == pytest.approx((1e-3 + 1e-7) / 2, rel=1e-4)


@pytest.mark.parametrize("paths", ["single", "sandwich"])
def test_training_fits_and_repeats(paths: str) -> None:
    from saccade.learn._fit import quiet_lightning

    # two classes that differ in the sign of half of the image
    x = images(64)
    y = torch.arange(64) % 2
    x[:, :, :4] += 2 * (2.0 * y - 1).view(-1, 1, 1, 1)
    cfg = SuperNetConfig(paths=paths, epochs=4, batch_size=16, lr=3e-3, label_smoothing=0.0)
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        net = SuperNet(search_space("mixed", "cpu", depths=(1, 2)), in_chans=1, num_classes=2)
        with quiet_lightning():
            nets.append(train_supernet(net, loader(x, y, cfg), cfg))
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)
    assert not nets[0].training
    rng = np.random.default_rng(0)
    archs = [net.space.decode(net.space.sample(rng)) for _ in range(5)]
    scores = score(nets[0], archs, x, y, batch_size=48)
    right = [float((nets[0](x, arch).argmax(1) == y).double().mean()) for arch in archs]
    assert scores == pytest.approx(right)
    assert np.mean(scores) > 0.9


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("paths", {"paths": "all"}, "single, sandwich, got 'all'"),
    ("epochs", {"epochs": 0}, "got 0, 64 and 0"),
    ("lr", {"lr": 0.0}, "lr must be above 0"),
    ("smoothing", {"label_smoothing": 1.0}, r"got 1\.0 and 0\.05"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SuperNetConfig(**options)
