"""Distillation: losses against formulas, weights and their signs, and what each rule trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from saccade.compress import MarginWeights, distillation_loss, margin_loss

pytest.importorskip("lightning")

from saccade.compress.progressive import DistillConfig, ProgressiveModule, distill
from saccade.learn._fit import quiet_lightning
from saccade.models import create_model


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with quiet_lightning():
        yield


def test_distillation_loss_is_its_formula() -> None:
    torch.manual_seed(0)
    f, g = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    y, alpha, tau = torch.tensor([0, 2, 1, 1]), 0.3, 4.0
    total = 0.0
    for i in range(4):
        p = [math.exp(v / tau) for v in g[i].tolist()]
        q = [math.exp(v / tau) for v in f[i].tolist()]
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        hard = -float(f[i, y[i]]) + math.log(sum(math.exp(v) for v in f[i].tolist()))
        total += alpha * hard + (1 - alpha) * tau**2 * kl
    assert float(distillation_loss(f, g, y, alpha, tau)) == pytest.approx(total / 4, rel=1e-12)


def test_soft_gradients_keep_their_size_over_temperatures() -> None:
    f = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    g, y = f.detach() + 0.1, torch.zeros(8, dtype=torch.int64)
    assert distillation_loss(f, g, y, 0.0, 3.0).item() == pytest.approx(0, abs=1e-12)
    g = g * 1.5
    limit = (f - g) - (f - g).mean(1, keepdim=True)
    (grad,) = torch.autograd.grad(distillation_loss(f, g, y, 0.0, 1e4), f)
    torch.testing.assert_close(grad, limit.detach() / (5 * 8), rtol=1e-3, atol=1e-6)


def test_margin_loss_is_its_formula() -> None:
    f, g = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    up, down = torch.tensor([[0.7, 0.1]]), torch.tensor([[0.3, 0.5]])
    aims = (0.5 * 0.4, 4 - 0.5 * 0.4 / 0.6)
    square = (1.0 * (1 - aims[0]) ** 2 + 0.6 * (2 - aims[1]) ** 2) / 2
    hard = math.log(math.e + math.e**2) - 2
    loss = margin_loss(f, g, torch.tensor([1]), up, down, gamma=0.5, alpha=0.25)
    assert float(loss) == pytest.approx(0.75 * square + 0.25 * hard, rel=1e-6)


def test_weights_grow_where_the_ensemble_is_wrong() -> None:
    torch.manual_seed(0)
    weights = MarginWeights(20, 4)
    assert weights.edge(torch.randn(20, 4).double()).tolist() == [0.0] * 4
    residual = torch.randn(20, 4).double()
    weights.update(residual)
    torch.testing.assert_close((weights.up + weights.down).sum(0), torch.ones(4).double())
    assert torch.equal(weights.up > weights.down, residual < 0)
    # repeating a mistake is no edge, mending it is one
    assert (weights.edge(residual) < 0).all()
    assert (weights.edge(-residual) > 0).all()
    ratio = (weights.up / weights.down).log()
    torch.testing.assert_close(ratio, -2 * residual / residual.abs().max())


def test_the_margin_makes_the_mean_of_two_answers_the_teachers() -> None:
    torch.manual_seed(0)
    residual = torch.randn(20, 4).double()
    weights = MarginWeights(20, 4, eta=1e-3)
    weights.update(residual)
    share = (weights.up - weights.down) / (weights.up + weights.down) / weights.eta
    torch.testing.assert_close(weights.largest * share, -residual, rtol=1e-6, atol=0)


def samples(count: int = 60) -> TensorDataset:
    torch.manual_seed(3)
    targets = torch.arange(count) % 3
    images = 0.5 * torch.randn(count, 1, 8, 8)
    for image, target in zip(images, targets.tolist(), strict=True):
        image[0, target // 2 :: 2, target % 2 :: 2] += 2
    return TensorDataset(images, targets)


class Teacher(nn.Module):
    """Knows the answer: the brightest of three places in a patch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 8, 8] -> [B, 3]."""
        places = [x[:, 0, k // 2 :: 2, k % 2 :: 2].mean((1, 2)) for k in range(3)]
        return self.scale * torch.stack(places, 1)


def students(count: int = 3) -> list[Any]:
    torch.manual_seed(0)
    return [create_model(f"mamba_pkd_micro_s{k + 1}", num_classes=3) for k in range(count)]


QUICK = {"epochs": 6, "batch_size": 20, "lr": 2e-2, "accelerator": "cpu"}


@pytest.mark.parametrize(
    ("mode", "compose", "cache"),
    [
        ("residual", False, True),
        ("residual", True, False),
        ("bdistil", False, False),
        ("bdistil", True, True),
        ("independent", True, True),
    ],
)
def test_every_rule_learns(mode: str, compose: bool, cache: bool) -> None:
    data, teacher = samples(), Teacher()
    images, targets = data.tensors
    assert (teacher(images).argmax(1) == targets).double().mean() > 0.95
    config = DistillConfig(mode=mode, compose=compose, cache=cache, **QUICK)
    ensemble, kept = distill(students(2), teacher, data, config)
    assert kept[0] == 0
    assert len(kept) == len(ensemble) >= (1 if mode == "bdistil" else 2)
    assert ensemble.combine == ("sum" if mode == "residual" else "mean")
    assert not ensemble.training
    assert (ensemble.predict(images) == targets).double().mean() >= 0.9
    assert teacher.training
    assert all(p.requires_grad for p in (*teacher.parameters(), *ensemble.parameters()))
    assert teacher.scale.item() == 4.0


@pytest.mark.parametrize("compose", [False, True], ids=["apart", "composed"])
@pytest.mark.parametrize("mode", ["residual", "independent"])
def test_cached_answers_change_no_result(mode: str, compose: bool) -> None:
    results = []
    for cache in (True, False):
        config = DistillConfig(mode=mode, compose=compose, cache=cache, **{**QUICK, "epochs": 2})
        ensemble = distill(students(2), Teacher(), samples(), config).ensemble
        results.append(ensemble(samples().tensors[0]).detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-3)


def test_the_same_seed_gives_the_same_bits() -> None:
    config = DistillConfig(compose=True, **{**QUICK, "epochs": 2})
    runs = [distill(students(2), Teacher(), samples(), config).ensemble for _ in range(2)]
    for one, other in zip(*(run.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)


def test_the_first_student_is_the_same_alone_and_in_the_sum() -> None:
    first = [
        distill(students(2), Teacher(), samples(), DistillConfig(mode=mode, **QUICK)).ensemble
        for mode in ("residual", "independent")
    ]
    one, other = (list(e.stages[0].parameters()) for e in first)
    assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))
    one, other = (list(e.stages[1].parameters()) for e in first)
    assert not all(torch.equal(p, q) for p, q in zip(one, other, strict=True))


def test_a_negative_edge_passes_a_student_over(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def edge(self: MarginWeights, residual: Tensor) -> Tensor:
        calls.append(residual.shape)
        return torch.tensor([1.0, -0.1 if len(calls) == 1 else 0.1, 1.0])

    monkeypatch.setattr(MarginWeights, "edge", edge)
    config = DistillConfig(mode="bdistil", **{**QUICK, "epochs": 1})
    given = students(3)
    ensemble, kept = distill(given, Teacher(), samples(), config)
    assert kept == [0, 2]
    assert ensemble.stages[1].student is given[2]
    assert calls == [(60, 3)] * 2


def test_only_the_student_is_optimised_and_the_scan_not_decayed() -> None:
    from types import SimpleNamespace

    from saccade.compress import AnytimeEnsemble

    ensemble = AnytimeEnsemble(students(1))
    stage = ensemble.stage(students(2)[1])
    module = ProgressiveModule(stage, ensemble, Teacher(), DistillConfig())
    module._trainer = SimpleNamespace(estimated_stepping_batches=10)
    module._fabric = None
    decayed, spared = module.configure_optimizers()["optimizer"].param_groups
    names = {id(p): n for n, p in stage.named_parameters()}
    assert {id(p) for group in (decayed, spared) for p in group["params"]} == set(names)
    assert not any("A_log" in names[id(p)] or p.ndim < 2 for p in decayed["params"])
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)


MISTAKES = [
    ({"mode": "boost"}, "residual, bdistil, independent, got 'boost'"),
    ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1.5"),
    ({"gamma": -1.0}, "at least 0, got -1.0"),
    ({"tau": 0.0}, "tau must be above 0, got 0.0"),
    ({"lr": float("nan")}, "lr must be above 0, got nan"),
    ({"epochs": 0}, "epochs must be at least 1, got 0"),
]


@pytest.mark.parametrize(("options", "text"), MISTAKES, ids=[next(iter(m[0])) for m in MISTAKES])
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DistillConfig(**options)


def test_nothing_to_distil_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="got 0 students and 60 images"):
        distill([], Teacher(), samples())
    with pytest.raises(ValueError, match="alpha must lie"):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]), alpha=-1)
