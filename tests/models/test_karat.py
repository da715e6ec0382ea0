"""KArAt: parameter counts, the formula, rank, periods, sharing, timm's outputs, memory."""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ot
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models import create_model, karat, load_model, save_weights
from saccade.models.karat import KArAtConfig, Operator, project_simplex

# 17 tokens, two heads of 4 channels
SMALL: dict[str, Any] = {"dim": 8, "heads": 2, "depth": 3, "patch_size": 4, "img_size": 16}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(**options: Any) -> Any:
    torch.manual_seed(0)
    return create_model("karat_micro", **{**SMALL, "rank": 5, **options}).double()


def operator(**options: Any) -> Operator:
    torch.manual_seed(0)
    return Operator(KArAtConfig(**{**SMALL, "rank": 5, **options})).double()


def scores(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(*(shape or (2, 3, 17, 17)), generator=generator, dtype=torch.float64)


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
def test_parameter_counts_of_the_paper(
    variant: str, options: dict[str, Any], expected: int
) -> None:
    with torch.device("meta"):
        assert count(create_model(variant, **options)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2 * 2 * (4 * 17 * 5) + 2 * 17 * 5),
        ({"include_dc": False}, 2 * 2 * (3 * 17 * 5) + 2 * 17 * 5),
        ({"modular": False}, 2 * 2 * (4 * 17 * 17)),
        ({"basis": "rational"}, 2 * 10 * 17 * 5 + 2 * 17 * 5),
        ({"basis": "dog"}, 2 * 17 * 5 + 2 * 17 * 5),
    ],
    ids=["published totals", "equation 2", "ideal", "rational", "wavelet"],
)
def test_parameters_of_an_operator(options: dict[str, Any], expected: int) -> None:
    assert count(operator(**options)) == expected


FUNCTIONS = {
    "zero": torch.zeros_like,
    "identity": lambda a: a,
    "silu": F.silu,
    "gelu": F.gelu,
}


def _by_hand(layer: Operator, a: Tensor) -> Tensor:
    """u of the paper, with a loop over every frequency and every component."""
    cfg = layer.cfg
    components = []
    for p in range(layer.phi.shape[1]):
        c = layer.phi[:, p].unsqueeze(1).unsqueeze(1)  # h, B, rows, N, n
        if cfg.basis == "rational":
            above = sum(c[..., i] * a**i for i in range(6))
            below = 1 + sum(c[..., 6 + i] * a ** (i + 1) for i in range(4)).abs()
            unit = above / below
        else:
            first = 0 if cfg.include_dc else 1
            number = cfg.grid + 1 - first
            unit = torch.zeros_like(a)
            for i, m in enumerate(range(first, cfg.grid + 1)):
                unit = unit + c[..., i] * torch.cos(m * a)
                if m:
                    unit = unit + c[..., number + i - (1 - first)] * torch.sin(m * a)
        components.append((unit + FUNCTIONS[cfg.base](a)).sum(-1))
    return torch.stack(components, -1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"include_dc": False},
        {"attention": "G1B"},
        {"attention": "G11U"},
        {"modular": False},
        {"base": "identity"},
        {"base": "silu"},
        {"base": "gelu", "basis": "rational"},
        {"basis": "rational", "coef_init": "paper"},
        {"coef_init": "paper"},
    ],
    ids=lambda options: " ".join(map(str, options.values())) or "default",
)
def test_operator_is_the_formula(options: dict[str, Any]) -> None:
    layer, a = operator(**options), scores()
    if layer.cfg.basis == "fourier" and layer.cfg.include_dc:
        # order 1, cosines, sines; the last coefficient is the sine of 0
        assert layer.phi.shape[-1] == 2 * layer.cfg.grid + 2
    u = _by_hand(layer, a)
    torch.testing.assert_close(layer.reduce(a), u)
    expected = u if layer.lift is None else torch.einsum("hbkr,hnr->hbkn", u, layer.lift)
    torch.testing.assert_close(layer(a), expected)


WAVELETS = {
    "mexican_hat": lambda z: 2 / (3**0.5 * math.pi**0.25) * (z * z - 1) * (-z * z / 2).exp(),
    "morlet": lambda z: (5 * z).cos() * (-z * z / 2).exp(),
    "dog": lambda z: -z * (-z * z / 2).exp(),
    "shannon": lambda z: torch.where(z == 0, 1.0, z.sin() / z),
}


@pytest.mark.parametrize("basis", karat.WAVELETS)
def test_wavelets(basis: str) -> None:
    layer, a = operator(basis=basis), scores()
    u = layer.reduce(a)
    if basis in WAVELETS:
        torch.testing.assert_close(
            u, torch.einsum("hbkq,hpq->hbkp", WAVELETS[basis](a), layer.phi[..., 0])
        )
    u.sum().backward()
    assert layer.phi.grad.any(-1).all()


def test_the_sine_of_the_scores() -> None:
    layer, a = operator(modular=False, attention="G1B", include_dc=False), scores()
    with torch.no_grad():
        layer.phi.zero_()
        layer.phi[..., 1] = torch.eye(17)
    torch.testing.assert_close(layer(a), a.sin())


def test_constants_alone_give_constant_rows() -> None:
    layer, a = operator(modular=False), scores()
    with torch.no_grad():
        layer.phi.zero_()
        layer.phi[..., 0] = 1 / 17
    torch.testing.assert_close(layer(a), torch.ones_like(a))


def test_scores_have_a_period() -> None:
    layer, a = operator(), scores()
    turns = torch.randint(-3, 4, a.shape, generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(layer(a + 2 * math.pi * turns), layer(a))
    assert not torch.allclose(layer(a + math.pi * turns), layer(a))


def test_rank_of_the_attention() -> None:
    x = torch.randn(2, 17, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ranks = {}
    for attention in ("G3B", "softmax"):
        layer = small(attention=attention).features[1].attn
        with torch.no_grad():
            layer.qkv.weight.mul_(50)
        ranks[attention] = torch.linalg.matrix_rank(layer.attention(x), rtol=1e-10)
    assert ranks["G3B"].tolist() == [[5, 5], [5, 5]]
    assert (ranks["softmax"] > 5).all()


def test_queries_may_be_permuted_and_keys_may_not() -> None:
    layer, a = operator(), scores()
    order = torch.randperm(17, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(layer(a[:, :, order]), layer(a)[:, :, order])
    assert not torch.allclose(layer(a[..., order]), layer(a)[..., order])


@pytest.mark.parametrize(
    "options",
    [{}, {"simplex": True}, {"modular": False}, {"attention": "softmax"}],
    ids=["direct", "simplex", "ideal", "softmax"],
)
def test_attention_is_the_formula(options: dict[str, Any]) -> None:
    layer = small(**options).features[2].attn
    x = torch.randn(3, 17, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    q, k, v = layer.qkv(x).chunk(3, -1)
    heads = []
    for i in range(2):
        at = slice(4 * i, 4 * i + 4)
        a = q[..., at] @ k[..., at].mT / 2
        if options.get("attention") == "softmax":
            sigma = a.exp() / a.exp().sum(-1, keepdim=True)
        else:
            both = a.expand(2, *a.shape)
            u = _by_hand(layer.operator, both)[i]
            sigma = u if layer.operator.lift is None else u @ layer.operator.lift[i].mT
            if options.get("simplex"):
                rows = sigma.detach().flatten(0, 1).numpy()
                sigma = torch.tensor(ot.utils.proj_simplex(rows.T).T).view_as(sigma)
        torch.testing.assert_close(layer.attention(x)[i], sigma)
        heads.append(sigma @ v[..., at])
    torch.testing.assert_close(layer(x), layer.proj(torch.cat(heads, -1)))


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([0.5, 0.2, -0.1, 0.9], [0.3, 0.0, 0.0, 0.7]),
        ([2.0, 1.9, 0.3, -4.0, 1.5], [0.5333333, 0.4333333, 0.0, 0.0, 0.0333333]),
        ([-7.0], [1.0]),
        ([1.0, 1.0], [0.5, 0.5]),
    ],
)
def test_simplex(y: list[float], expected: list[float]) -> None:
    x = project_simplex(torch.tensor(y, dtype=torch.float64))
    torch.testing.assert_close(x, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)
    torch.testing.assert_close(project_simplex(x), x)


def test_simplex_has_a_gradient_and_passes_nan_on() -> None:
    y = scores(4, 6).requires_grad_()
    assert torch.autograd.gradcheck(project_simplex, y)
    assert project_simplex(torch.tensor([1.0, math.nan, 0.0])).isnan().any()


def test_dropout_acts_on_the_attention() -> None:
    layer = small(attn_drop_rate=0.5, modular=False, attention="G1B").features[0].attn
    with torch.no_grad():
        # equal attention to equal values, so that the mean over the seeds is known
        layer.operator.phi.zero_()
        layer.operator.phi[..., 0] = 1 / 17
    x = torch.randn(1, 17, 8, dtype=torch.float64).expand(400, 17, 8)
    whole = layer.eval()(x[:1])
    assert torch.equal(layer(x[:1]), whole)
    dropped = layer.train()(x)
    assert not torch.allclose(dropped[0], dropped[1])
    torch.testing.assert_close(dropped.mean((0, 1)), whole[0, 0], rtol=0.1, atol=1e-3)


def test_blocks_share_the_universal_operator() -> None:
    shared, own = small(attention="G3U"), small(attention="G3B")
    operators = {block.attn._shared[0] for block in shared.features}
    assert operators == {shared.features[0].attn.operator}
    assert sum("operator" in name for name in shared.state_dict()) == 2
    for block in own.features:
        block.load_state_dict(shared.features[0].state_dict())
    for theirs, block in zip(own.features, shared.features, strict=True):
        theirs.load_state_dict(block.state_dict(), strict=False)
        theirs.attn.operator.load_state_dict(shared.features[0].attn.operator.state_dict())
    for name in ("stem", "norm", "head"):
        getattr(own, name).load_state_dict(getattr(shared, name).state_dict())
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    outputs = [model(x) for model in (shared, own)]
    torch.testing.assert_close(*outputs)
    for y in outputs:
        y.square().sum().backward()
    for name in ("phi", "lift"):
        parts = [getattr(block.attn.operator, name).grad for block in own.features]
        total = getattr(shared.features[0].attn.operator, name).grad
        torch.testing.assert_close(total, sum(parts))
        assert all(part.any() for part in parts)


def test_a_copy_shares_its_own_operator(tmp_path: Path) -> None:
    model = small(attention="G3U").float().eval()
    x = torch.randn(2, 3, 16, 16)
    for again in (copy.deepcopy(model), load_model(save_weights(model, tmp_path)).eval()):
        assert again.features[2].attn._shared[0] is again.features[0].attn.operator
        assert again.features[0].attn.operator is not model.features[0].attn.operator
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
        with torch.no_grad():
            again.features[0].attn.operator.phi.zero_()
        assert not torch.allclose(again(x), model(x))


@pytest.mark.parametrize("variant", ["tiny", "small"])
def test_timms_weights_give_timms_outputs(variant: str) -> None:
    torch.manual_seed(0)
    options = {"num_classes": 10, "depth": 2}
    theirs = timm.create_model(f"vit_{variant}_patch16_224", **options).eval().double()
    ours = create_model(f"karat_{variant}", attention="softmax", **options).eval().double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(std=0.05)
    ours.load_state_dict(ours.checkpoint_filter(theirs.state_dict()))
    own = ours.state_dict()
    assert set(ours.checkpoint_filter(own)) == set(own)
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "G3U"},
        {"include_dc": False, "base": "silu"},
        {"basis": "rational"},
        {"basis": "morlet"},
        {"simplex": True, "coef_init": "paper"},
        {"modular": False},
        {"freeze_phi": True},
    ],
    ids=lambda options: " ".join(map(str, options.values())) or "default",
)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    model = small(**options)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    F.cross_entropy(model(x), torch.tensor([1, 2, 3])).backward()
    zero = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    frozen = [n for n, _ in model.named_parameters() if n.endswith("phi")]
    assert zero == (frozen if model.cfg.freeze_phi else [])
    if not options:
        # of the published totals only the sine of 0 does nothing
        dead = ~model.features[0].attn.operator.phi.grad.any(2)
        assert dead[..., -1].all()
        assert not dead[..., :-1].any()


def test_scores_reach_the_operator_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
        seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
        return whole(x, weight, **options)

    whole = karat.kan_linear
    monkeypatch.setattr(karat, "kan_linear", spy)
    model, x = small().float().eval(), torch.randn(2, 3, 16, 16)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).float(), expected, rtol=0, atol=0.02)
    torch.testing.assert_close(model.bfloat16()(x.bfloat16()).float(), expected, rtol=0, atol=0.02)
    assert set(seen) == {(torch.float32, False)}


def test_batch_of_one_and_checkpointing() -> None:
    model = small(attention="G3U").eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x[:1]), model(x)[:1])
        assert model(x[:0]).shape == (0, 10)
    grads: list[list[Tensor]] = []
    for enable in (False, True):
        model.train().set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[1], grads[0])


def test_blocks_are_the_feature_maps() -> None:
    model = small(features_only=True, out_indices=(0, -1))
    maps = model(torch.randn(2, 3, 16, 16, dtype=torch.float64))
    assert [tuple(m.shape) for m in maps] == [(2, 8, 4, 4)] * 2
    assert model.feature_info.reduction() == [4, 4]


TRAINING_STEP = """
import json, sys, torch
from saccade.models import karat

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

def plain(x, weight, basis, include_dc):
    # the formulation of the paper: cosines and sines of all frequencies stand in memory
    angle = x.unsqueeze(-1) * torch.arange(weight.shape[-1] // 2 + 1)
    features = torch.cat([angle.cos(), angle[..., 1:].sin()], -1)
    return torch.einsum("hmqn,hpqn->hmp", features, weight)

def step(batch):
    a = torch.randn(3, batch, 197, 197, requires_grad=True)
    operator.reduce(a).sum().backward()
    return a.nbytes

if sys.argv[1] == "plain":
    karat.kan_linear = plain
operator = karat.Operator(karat.KArAtConfig())
step(1)
before = kilobytes("VmRSS")
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
scores = step(32)
print(json.dumps({"scores": scores, "peak": 1024 * (kilobytes("VmHWM") - before)}))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_a_training_step_holds_no_features() -> None:
    memory = {}
    for formulation in ("ours", "plain"):
        run = subprocess.run(
            [sys.executable, "-c", TRAINING_STEP, formulation],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr[-4000:]
        memory[formulation] = json.loads(run.stdout.splitlines()[-1])
    ours, plain = memory["ours"]["peak"], memory["plain"]["peak"]
    # scores and their gradient, against seven features a score and what their gradients need
    assert ours < 3 * memory["ours"]["scores"], memory
    assert plain > 4 * ours, memory


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("heads", {"heads": 3}, "8 channels and 3 heads"),
    ("patches", {"patch_size": 5}, "must divide img_size, got 5 and 16"),
    ("no depth", {"depth": 0}, "depth must be at least 1, got 0"),
    ("attention", {"attention": "G0B"}, "grid size of at least 1 .* got 'G0B'"),
    ("mode", {"attention": "G3"}, "got 'G3'"),
    ("basis", {"basis": "haar"}, "basis must be one of fourier, rational, .* got 'haar'"),
    ("base", {"base": "relu"}, "base must be one of zero, identity, silu, gelu, got 'relu'"),
    ("init", {"coef_init": "xavier"}, "coef_init must be one of scaled, paper"),
    ("dropout", {"attn_drop_rate": 1.0}, r"\[0, 1\), got 1\.0"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        KArAtConfig(**{**SMALL, **options})


def test_another_size_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"must be 16 x 16 pixels, .* got 16 x 20"):
        small()(torch.randn(1, 3, 16, 20, dtype=torch.float64))
