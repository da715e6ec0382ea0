"""Rankers and searches: Kendall's tau, what rankers learn, and budgets that always hold."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LogisticRegression

from saccade.compress.search import (
    Architecture,
    Budget,
    EvolutionConfig,
    PairwiseScorer,
    Ranker,
    evolve,
    features,
    kendall_tau,
    macs,
    parameters,
    ranked_search,
    search_space,
)

MIXED = search_space("mixed")
CPU = search_space("mixed", "cpu")


def drawn(number: int, space: Any = MIXED, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.decode(space.sample(rng)) for _ in range(number)]


@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "few ties"])
def test_tau_is_scipys(levels: int) -> None:
    rng = np.random.default_rng(0)
    for size in (2, 7, 60):
        a, b = rng.integers(levels, size=(2, size))
        expected = scipy.stats.kendalltau(a, b).statistic
        assert kendall_tau(a, b) == pytest.approx(0.0 if np.isnan(expected) else expected)


def test_tau_of_lists_that_order_nothing() -> None:
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == 0.0
    assert kendall_tau([1], [2]) == kendall_tau([], []) == 0.0
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        kendall_tau([1, 2], [1, 2, 3])


def test_features() -> None:
    arch = Architecture(64, (2, 4, 4), (128, 192, 256), ("cosformer", "relative", "relative"))
    assert features([arch], "index").tolist() == [[64, 3, 192, 10 / 3, 7 / 3]]
    assert features([arch]).tolist() == [[64, 3, 192, 10 / 3, 1 / 3, 0, 2 / 3]]
    with pytest.raises(ValueError, match="index, fractions, got 'none'"):
        features([arch], "none")


def linear(archs: Sequence[Architecture]) -> np.ndarray:
    rows = features(archs)
    scaled = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    return scaled @ [1.0, 0.6, 0.8, 0.5, 0.3, 0.0, -0.3]


RANKERS = [
    ("trees", {"split": (1.0, 0.0, 0.0)}),
    ("pairs", {"objective": "pairwise", "split": (1.0, 0.0, 0.0)}),
]


def test_a_monotone_target_is_learned_from_a_hundred() -> None:
    archs = drawn(400)
    targets = linear(archs)
    taus = {}
    for name, options in RANKERS:
        ranker = Ranker(backend="sklearn", **options).fit(archs[:100], targets[:100])
        taus[name] = kendall_tau(ranker.predict(archs[100:]), targets[100:])
    assert taus["pairs"] > 0.9
    assert taus["trees"] > 0.7
    noise = np.random.default_rng(0).permutation(targets[:100])
    for _, options in RANKERS:
        blind = Ranker(backend="sklearn", **options).fit(archs[:100], noise)
        assert abs(kendall_tau(blind.predict(archs[100:]), targets[100:])) < 0.35


@pytest.mark.skipif(not importlib.util.find_spec("lightgbm"), reason="needs lightgbm")
def test_lightgbm_learns_what_the_other_trees_learn() -> None:
    archs = drawn(400)
    targets = linear(archs)
    ranker = Ranker(backend="lightgbm").fit(archs[:200], targets[:200])
    assert kendall_tau(ranker.predict(archs[200:]), targets[200:]) > 0.7
    assert Ranker().backend == "lightgbm"


def test_a_linear_pairwise_scorer_is_logistic_regression_on_differences() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(16, 3))
    targets = rows @ [1.0, -2.0, 0.5] + rng.normal(size=16)
    scorer = PairwiseScorer(hidden=0, steps=1500, lr=0.05, weight_decay=0.0).fit(rows, targets)
    i, j = np.triu_indices(16, 1)
    scaled = (rows - rows.mean(0)) / rows.std(0)
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8)
    oracle.fit(scaled[i] - scaled[j], targets[i] > targets[j])
    (weight,) = [p for p in scorer.net.parameters() if p.ndim == 2]
    np.testing.assert_allclose(weight.detach().numpy(), oracle.coef_, rtol=2e-3, atol=2e-3)


def test_an_ordinal_code_hides_what_fractions_show() -> None:
    # the middle code is the best: no order of the codes says so
    archs = drawn(600, CPU)
    targets = [float(np.mean([kind == "softmax" for kind in a.attention])) for a in archs]
    taus = []
    for encoding in ("index", "fractions"):
        ranker = Ranker("pairwise", encoding, split=(1.0, 0.0, 0.0))
        ranker.fit(archs[:100], targets[:100])
        taus.append(kendall_tau(ranker.predict(archs[100:]), targets[100:]))
    assert taus[1] > 0.8  # ties keep it from 1
    assert taus[0] < taus[1] - 0.2


def test_parts_order_and_duplicates() -> None:
    archs = drawn(200)
    targets = [float(a.dim + 0.01 * np.mean(a.hidden)) for a in archs]
    ranker = Ranker(backend="sklearn", keep=2).fit(archs + archs[:50], targets + targets[:50])
    assert set(ranker.order) == {0, 2}
    assert ranker.tau is not None
    assert ranker.tau > 0.7
    again = Ranker(backend="sklearn", keep=2).fit(archs, targets)
    np.testing.assert_array_equal(again.predict(archs), ranker.predict(archs))
    assert Ranker(split=(1.0, 0.0, 0.0), backend="sklearn").fit(archs, targets).tau is None


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("objective", {"objective": "l1"}, "regression, pairwise, got 'l1'"),
    ("encoding", {"encoding": "mean"}, "index, fractions, got 'mean'"),
    ("backend", {"backend": "xgboost"}, "auto, lightgbm, sklearn, got 'xgboost'"),
    ("split", {"split": (0.5, 0.5, 0.5)}, "three shares with sum 1"),
    ("keep", {"keep": 0}, "got 5, 300 and 0"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_of_rankers_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Ranker(**options)


def test_targets_that_do_not_fit_get_a_sentence() -> None:
    archs = drawn(3)
    for targets in ([1.0, 2.0], [1.0, 2.0, float("nan")]):
        with pytest.raises(ValueError, match="every one of the 3 architectures needs a finite"):
            Ranker().fit(archs, targets)
    with pytest.raises(ValueError, match="at least 2 architectures, got 1"):
        Ranker().fit(archs[:1], [1.0])


def test_published_sizes_of_the_evolution() -> None:
    cfg = EvolutionConfig()
    assert (cfg.population, cfg.parents, cfg.mutants, cfg.crossovers) == (125, 25, 50, 50)
    assert (cfg.rate, cfg.iterations) == (0.3, 30)
    with pytest.raises(ValueError, match="got 0, 50, 50 and 30"):
        EvolutionConfig(parents=0)
    with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\], got 0"):
        EvolutionConfig(rate=0.0)


SMALL = EvolutionConfig(parents=8, mutants=12, crossovers=12, iterations=12)


@pytest.mark.parametrize("method", ["evolution", "random"])
def test_both_budgets_hold_for_whatever_is_asked(method: str) -> None:
    asked: list[Architecture] = []

    def fitness(archs: Sequence[Architecture]) -> list[float]:
        asked.extend(archs)
        return [float(parameters(MIXED.config(arch))) for arch in archs]

    def latency(arch: Architecture) -> float:
        return macs(MIXED.config(arch)) / 3e8

    budget = Budget(MIXED.config, max_parameters=20e6, max_latency=14.0, latency=latency)
    if method == "evolution":
        found = evolve(MIXED, fitness, budget, SMALL)
    else:
        found = ranked_search(MIXED, fitness, budget, 60)
    assert found.asked == len(asked) == len(set(asked))
    for arch in asked:
        assert parameters(MIXED.config(arch)) <= 20e6
        assert latency(arch) <= 14.0
    assert found.fitness == max(parameters(MIXED.config(arch)) for arch in asked)
    assert found.fitness == parameters(MIXED.config(found.arch))


def test_evolution_climbs_and_repeats() -> None:
    def fitness(archs: Sequence[Architecture]) -> list[float]:
        return [float(parameters(CPU.config(a)) * a.attention.count("softmax")) for a in archs]

    found = evolve(CPU, fitness, config=EvolutionConfig(iterations=20))
    assert found.history == sorted(found.history)
    assert len(found.history) == 21
    assert found.arch.attention == ("softmax",) * 4
    assert set(found.arch.heads) == {4}
    assert set(found.arch.hidden) == {256}
    again = evolve(CPU, fitness, config=EvolutionConfig(iterations=20))
    assert again == found
    one = ranked_search(CPU, fitness, candidates=100)
    assert one.fitness <= found.fitness
    assert one == ranked_search(CPU, fitness, candidates=100)


@pytest.mark.parametrize("search", [evolve, ranked_search])
def test_a_budget_that_nothing_keeps_gets_a_sentence(search: Any) -> None:
    with pytest.raises(ValueError, match="none of 20000 architectures of the space mixed"):
        search(CPU, lambda archs: [0.0] * len(archs), lambda arch: False)


def test_no_candidates_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="candidates must be at least 1, got 0"):
        ranked_search(CPU, lambda archs: [], candidates=0)
