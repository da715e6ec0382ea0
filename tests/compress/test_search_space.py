"""Spaces, their genes, costs and budgets."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from saccade.compress import count_macs
from saccade.compress.search import (
    SPACES,
    TRANSLATION,
    Architecture,
    Budget,
    Latency,
    SearchSpace,
    macs,
    measure_latency,
    parameters,
    search_space,
)
from saccade.compress.search.cost import layer_macs, layer_parameters
from saccade.models import create_model
from saccade.models.mixformer import MixFormerConfig

CPU = search_space("mixed", "cpu")


def drawn(space: SearchSpace, number: int = 30) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.decode(space.sample(rng)) for _ in range(number)]


@pytest.mark.parametrize(
    ("name", "kinds", "expected"),
    [
        ("mixed", {"cosformer", "softmax", "relative"}, 4.28e23),
        ("mixed2", {"cosformer", "softmax"}, 3 * (30**12 + 30**13 + 30**14)),
        ("softmax", {"softmax"}, 9.38e16),
        ("efficient", {"cosformer"}, 9.38e16),
    ],
)
def test_named_spaces(name: str, kinds: set[str], expected: float) -> None:
    space = search_space(name)
    assert set(space.attention) == set(SPACES[name]) == kinds
    assert space.count() == pytest.approx(expected, rel=2e-3)
    found = drawn(space, 300)
    assert {arch.dim for arch in found} == {320, 384, 448}
    assert {arch.depth for arch in found} == {12, 13, 14}
    assert {h for arch in found for h in arch.heads} == {5, 6, 7}
    assert {f for arch in found for f in arch.hidden} == {672, 896, 1344, 1568, 1792}
    assert {kind for arch in found for kind in arch.attention} == kinds


def test_the_cpu_space() -> None:
    found = drawn(CPU, 300)
    assert {(arch.dim, f // arch.dim) for arch in found for f in arch.hidden} == {
        (dim, ratio) for dim in (48, 64) for ratio in (2, 3, 4)
    }
    assert {arch.depth for arch in found} == {2, 3, 4}
    assert all(f % arch.dim == 0 for arch in found for f in arch.hidden)


def test_every_architecture_is_counted_once() -> None:
    small = search_space("mixed2", "cpu", depths=(1, 2), hidden=(2,))
    found = drawn(small, 4000)
    assert len(set(found)) == small.count() == 2 * (4 + 16)


def test_genes_beyond_the_depth_are_kept_and_do_nothing() -> None:
    rng = np.random.default_rng(1)
    genome = (0, 0, *CPU.sample(rng)[2:])  # two of four layers
    tails = [2 + part * 4 + layer for part in range(3) for layer in (2, 3)]
    other = list(genome)
    for place in tails:
        other[place] = (other[place] + 1) % CPU.choices[place]
    assert CPU.decode(genome) == CPU.decode(other)
    deep = (0, 2, *genome[2:])
    assert CPU.decode(deep) != CPU.decode((0, 2, *other[2:]))
    children = [CPU.cross(genome, tuple(other), rng) for _ in range(20)]
    assert {child[tails[0]] for child in children} == {genome[tails[0]], other[tails[0]]}


def test_mutation_and_crossover() -> None:
    rng = np.random.default_rng(2)
    genome = CPU.sample(rng)
    assert CPU.mutate(genome, rng, 0.0) == genome
    changed = np.mean(
        [np.not_equal(CPU.mutate(genome, rng, 0.3), genome).mean() for _ in range(2000)]
    )
    expected = np.mean([0.3 * (1 - 1 / number) for number in CPU.choices])
    assert changed == pytest.approx(expected, abs=0.01)
    one, other = CPU.sample(rng), CPU.sample(rng)
    share = np.mean([np.equal(CPU.cross(one, other, rng), one).mean() for _ in range(2000)])
    assert share == pytest.approx(0.5 + 0.5 * np.equal(one, other).mean(), abs=0.02)


def test_smallest_and_largest() -> None:
    space = search_space("efficient")
    small, large = space.config(space.smallest()), space.config(space.largest())
    assert (parameters(small), parameters(large)) == (10_432_074, 34_238_410)
    assert small.ffn_drop_rate == pytest.approx(0.1 * 320 / 448)
    assert (small.drop_path_depth, large.ffn_drop_rate) == (14, 0.1)


@pytest.mark.parametrize("arch", drawn(CPU, 6), ids=str)
def test_closed_forms_are_the_models(arch: Architecture) -> None:
    cfg = CPU.config(arch, in_chans=1, num_classes=7)
    model = create_model("mixformer_max", **CPU.options(arch), in_chans=1, num_classes=7)
    assert parameters(cfg) == sum(p.numel() for p in model.parameters())
    # what hooks see: patches, projections, feed-forward, head; relative keys have no module
    mixing = sum(
        layer_macs(cfg, n) - 4 * 65 * cfg.dim * cfg.heads[n] * 16 - 2 * 65 * cfg.dim * cfg.hidden[n]
        for n in range(cfg.depth)
    )
    assert count_macs(model, torch.zeros(1, 1, 8, 8)) == macs(cfg) - mixing


COUNTS = [
    ("cosformer", 49, 123.6),
    ("softmax", 49, 120.2),
    ("cosformer", 128, 323.0),
    ("softmax", 128, 323.0),
    ("cosformer", 197, 497.1),
    ("softmax", 197, 509.2),
    ("relative", 197, 526.6),
    ("cosformer", 1024, 2583.7),
    ("softmax", 1024, 3405.8),
]


@pytest.mark.parametrize(("kind", "tokens", "millions"), COUNTS)
def test_multiply_accumulates_of_a_layer(kind: str, tokens: int, millions: float) -> None:
    cfg = MixFormerConfig(attention=kind)
    assert layer_macs(cfg, 0, tokens) / 1e6 == pytest.approx(millions, abs=0.05)
    both = [layer_macs(MixFormerConfig(attention=k), 0, 128) for k in ("cosformer", "softmax")]
    assert both[0] == both[1]


def test_parameters_of_a_layer() -> None:
    large, small = MixFormerConfig(), MixFormerConfig(dim=320, heads=(5,), hidden=(672,))
    assert (layer_parameters(large, 0), layer_parameters(small, 0)) == (2_414_272, 843_232)
    relative = MixFormerConfig(attention="relative")
    # the sub-net's table, not the super-net's, and no buffer
    assert layer_parameters(relative, 0) == 2_414_272 + 29 * 64


def test_budgets() -> None:
    space = search_space("efficient")
    tight = Budget(space.config, max_parameters=25e6)
    assert tight(space.smallest())
    assert not tight(space.largest())
    cfg = space.config(space.smallest())
    assert Budget(space.config, max_macs=macs(cfg))(space.smallest())
    assert not Budget(space.config, max_macs=macs(cfg) - 1)(space.smallest())
    slow = Budget(space.config, max_latency=15.06, latency=lambda arch: float(arch.depth))
    assert slow(space.largest())
    assert not dataclasses.replace(slow, max_latency=13.9)(space.largest())
    with pytest.raises(ValueError, match=r"max_latency=1\.0 needs latency"):
        Budget(space.config, max_latency=1.0)


def test_latency_is_a_trimmed_mean() -> None:
    def timed(*seconds: float) -> Latency:
        clock = iter([tick for length in seconds for tick in (0.0, length)])
        return measure_latency(nn.Identity(), torch.zeros(1), clock=lambda: next(clock))

    # of 20 passes the two fastest and the two slowest are left out
    latency = timed(0.0, 0.0, 50.0, 50.0, *[1.0] * 15, 1.01)
    assert latency.mean == pytest.approx((15 + 1.01) / 16)
    assert latency.steady
    assert not timed(*[1.0, 1.1] * 10).steady
    with pytest.raises(ValueError, match=r"got 0, 5 and 0\.1"):
        measure_latency(nn.Identity(), torch.zeros(1), runs=0)


def test_translation_choices_are_on_record() -> None:
    wmt, hat = TRANSLATION["wmt_large"], TRANSLATION["hat"]
    assert (wmt.embed, wmt.ffn) == ((640, 768, 1024), (2048, 3072, 4096, 5120))
    assert (wmt.heads, wmt.qkv_dim, wmt.context) == ((4, 8, 16), 1024, (-1, 1, 2))
    assert (wmt.encoder_layers, wmt.decoder_layers) == ((6,), (1, 2, 3, 4, 5, 6))
    assert (hat.embed, hat.ffn, hat.heads) == ((512, 640), (1024, 2048, 3072), (4, 8))


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("name", {"name": "hard"}, "softmax, efficient, mixed, mixed2 and scale of cifar10, cpu"),
    ("scale", {"scale": "tpu"}, "got 'mixed' and 'tpu'"),
    ("order", {"dims": (64, 48)}, r"dims must hold ascending positive numbers, got \(64, 48\)"),
    ("nothing", {"heads": ()}, r"heads must hold ascending positive numbers, got \(\)"),
    ("kind", {"attention": ("hard",)}, r"attention must name kinds of .* got \('hard',\)"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        search_space(**{"name": "mixed", **options})


def test_architectures_of_other_spaces_are_refused() -> None:
    arch = search_space("softmax", "cpu").smallest()
    with pytest.raises(ValueError, match="the space efficient has no architecture"):
        search_space("efficient", "cpu").options(arch)
    assert arch in CPU
