"""Rankers: from a few measured architectures to the order of all others."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional as F

from saccade._extras import require
from saccade.compress.search.space import Architecture
from saccade.models.mixformer import ATTENTION

ENCODINGS = ("index", "fractions")
OBJECTIVES = ("regression", "pairwise")
BACKENDS = ("auto", "lightgbm", "sklearn")
Values = NDArray[np.float64]


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b of two lists: concordant less discordant pairs, corrected for ties.

    Returns:
        In [-1, 1]; 0 where one list is constant, which orders nothing.

    >>> kendall_tau([1, 2, 3, 4], [1, 2, 4, 3])
    0.6666666666666666
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"tau needs two lists of one length, got {x.shape} and {y.shape}.")
    upper = np.triu_indices(len(x), 1)
    p, q = (np.sign(z[:, None] - z)[upper] for z in (x, y))
    scale = float(np.sqrt(np.square(p).sum() * np.square(q).sum()))
    return float((p * q).sum() / scale) if scale else 0.0


def features(archs: Sequence[Architecture], encoding: str = "fractions") -> Values:
    """What a ranker reads of architectures: [n, 5], or [n, 4 + kinds].

    Width, depth, mean width of the feed-forward, mean heads; then by `encoding` the kinds of
    attention: "index", the mean of their codes 1, 2, 3, as published, which puts an order into
    kinds that have none; or "fractions", the share of layers of every kind.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
    rows = []
    for arch in archs:
        codes = [list(ATTENTION).index(kind) + 1 for kind in arch.attention]
        kinds = [sum(codes) / arch.depth]
        if encoding == "fractions":
            kinds = [codes.count(code + 1) / arch.depth for code in range(len(ATTENTION))]
        rows.append([arch.dim, arch.depth, np.mean(arch.hidden), np.mean(arch.heads), *kinds])
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)


class _Scorer(Protocol):
    """What gives scores to rows of features."""

    def predict(self, rows: Values) -> Values:
        """[n, features] -> [n]."""


class PairwiseScorer:
    r"""Scores s learned from pairs: P(a before b) = sigmoid(s_a - s_b).

    .. math:: \overline{\log\left(1 + e^{-y (s_a - s_b)}\right)}, \quad y = \pm 1

    over all pairs of unequal targets, a being the larger where y = 1.

    Args:
        hidden: width of the scorer's hidden layer; 0 makes it linear, thus a logistic regression
            on differences.
        steps, lr, weight_decay: of AdamW on all pairs at once.
        seed: of the weights.

    Source:
        Hu et al., "RankNAS: Efficient Neural Architecture Search by Pairwise Ranking"
        (arXiv 2109.07383), section 3.1.
    """

    def __init__(
        self,
        hidden: int = 32,
        steps: int = 300,
        lr: float = 1e-2,
        weight_decay: float = 1e-2,
        seed: int = 0,
    ) -> None:
        self.hidden, self.steps, self.lr = hidden, steps, lr
        self.weight_decay, self.seed = weight_decay, seed

    def fit(self, rows: Values, targets: Values) -> PairwiseScorer:
        """Learn from rows [n, features] and targets [n]."""
        self.mean, self.std = rows.mean(0), rows.std(0)
        self.std[self.std == 0] = 1.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            width = rows.shape[1]
            self.net: nn.Module = nn.Linear(width, 1)
            if self.hidden:
                self.net = nn.Sequential(
                    nn.Linear(width, self.hidden), nn.Tanh(), nn.Linear(self.hidden, 1)
                )
        x, y = self._scaled(rows), torch.from_numpy(targets)
        first, second = torch.triu_indices(len(y), len(y), 1)
        unequal = y[first] != y[second]
        first, second = first[unequal], second[unequal]
        if not len(first):
            return self
        sign = torch.sign(y[first] - y[second]).float()
        optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=self.lr, weight_decay=self.weight_decay
        )
        with torch.enable_grad():
            for _ in range(self.steps):
                score = self.net(x)[:, 0]
                loss = F.softplus(-sign * (score[first] - score[second])).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return self

    def predict(self, rows: Values) -> Values:
        """Scores [n]."""
        with torch.no_grad():
            scores: Values = self.net(self._scaled(rows))[:, 0].double().numpy()
        return scores

    def _scaled(self, rows: Values) -> torch.Tensor:
        return torch.from_numpy((rows - self.mean) / self.std).float()


class Ranker:
    """Orders architectures by a figure measured on some of them: accuracy, seconds ...

    Duplicates are dropped, and the rest is split into parts to learn from, to stop by, and to
    judge by. Features are put in the order of their |tau| with the target, and the best are kept.

    Args:
        objective: "regression", boosted trees on the figure itself; "pairwise", `PairwiseScorer`.
        encoding: of the kinds of attention, see `features`.
        keep: number of features kept; default all.
        split: shares to learn from, to stop by, and to judge by. Without the second the trees are
            not stopped, without the third `tau` is None.
        patience: rounds without gain on the second part after which the trees stop.
        rounds: trees at most.
        backend: of the trees: "lightgbm", "sklearn", or "auto", the first where it is installed.
        seed: of the split and the scorer.

    Raises:
        ValueError: a setting out of range.

    Source:
        the published code's settings: depth 6, 30 leaves, learning rate 0.1, patience 5, and
        80 / 10 / 10 parts of 2,000 sub-nets. With fewer sub-nets leaves take fewer samples.
    """

    def __init__(
        self,
        objective: str = "regression",
        encoding: str = "fractions",
        *,
        keep: int | None = None,
        split: tuple[float, float, float] = (0.8, 0.1, 0.1),
        patience: int = 5,
        rounds: int = 300,
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        for name, value, among in (
            ("objective", objective, OBJECTIVES),
            ("encoding", encoding, ENCODINGS),
            ("backend", backend, BACKENDS),
        ):
            if value not in among:
                raise ValueError(f"{name} must be one of {', '.join(among)}, got {value!r}.")
        if split[0] <= 0 or min(split) < 0 or abs(sum(split) - 1) > 1e-9:
            raise ValueError(f"split must hold three shares with sum 1, got {split}.")
        if patience < 1 or rounds < 1 or (keep is not None and keep < 1):
            raise ValueError(
                f"patience, rounds and keep must be at least 1, got {patience}, {rounds} and "
                f"{keep}."
            )
        self.objective, self.encoding, self.keep, self.split = objective, encoding, keep, split
        self.patience, self.rounds, self.seed = patience, rounds, seed
        installed = importlib.util.find_spec("lightgbm") is not None
        self.backend = ("lightgbm" if installed else "sklearn") if backend == "auto" else backend
        self.tau: float | None = None

    def fit(self, archs: Sequence[Architecture], targets: Sequence[float]) -> Ranker:
        """Learn from architectures and their figures.

        Raises:
            ValueError: two lengths, figures that are not finite, or too few for the parts.
        """
        if len(archs) != len(targets) or not np.isfinite(targets).all():
            raise ValueError(
                f"every one of the {len(archs)} architectures needs a finite target, got "
                f"{len(targets)} targets."
            )
        known = dict(zip(archs, targets, strict=True))
        rows = features(list(known), self.encoding)
        wanted = np.array(list(known.values()), dtype=np.float64)
        count = len(wanted)
        ends = np.round(np.cumsum(self.split) * count).astype(int)
        order = np.random.default_rng(self.seed).permutation(count)
        learn, stop, judge = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]
        if len(learn) < 2:
            raise ValueError(f"a ranker learns from at least 2 architectures, got {len(learn)}.")
        relation = [abs(kendall_tau(column, wanted)) for column in rows.T]
        self.order = np.argsort(relation, kind="stable")[::-1][: self.keep]
        rows = rows[:, self.order]
        self.scorer = self._fit(rows[learn], wanted[learn], rows[stop], wanted[stop])
        self.tau = None
        if len(judge) > 1:
            self.tau = kendall_tau(self.scorer.predict(rows[judge]), wanted[judge])
        return self

    def predict(self, archs: Sequence[Architecture]) -> Values:
        """Scores [n] that order architectures as their figures are expected to."""
        return np.asarray(self.scorer.predict(features(archs, self.encoding)[:, self.order]))

    def _fit(self, rows: Values, targets: Values, stop: Values, known: Values) -> _Scorer:
        if self.objective == "pairwise":
            return PairwiseScorer(seed=self.seed).fit(rows, targets)
        # 20 a leaf is the default of both packages for their thousands of samples
        leaf = max(1, min(20, len(rows) // 20))
        if self.backend == "lightgbm":
            return self._lightgbm(rows, targets, stop, known, leaf)
        ensemble = require("sklearn.ensemble", extra="train", purpose="a ranker of trees")
        options: dict[str, Any] = {"early_stopping": False}
        held = {}
        if len(stop):
            options = {"early_stopping": True, "n_iter_no_change": self.patience}
            held = {"X_val": stop, "y_val": known}
        trees = ensemble.HistGradientBoostingRegressor(
            max_depth=6,
            max_leaf_nodes=30,
            learning_rate=0.1,
            max_iter=self.rounds,
            min_samples_leaf=leaf,
            random_state=self.seed,
            **options,
        )
        scorer: _Scorer = trees.fit(rows, targets, **held)
        return scorer

    def _lightgbm(
        self, rows: Values, targets: Values, stop: Values, known: Values, leaf: int
    ) -> _Scorer:
        lightgbm = require("lightgbm", extra="train", purpose='backend="lightgbm"')
        trees = lightgbm.LGBMRegressor(
            max_depth=6,
            num_leaves=30,
            learning_rate=0.1,
            n_estimators=self.rounds,
            min_child_samples=leaf,
            random_state=self.seed,
            n_jobs=1,
            verbose=-1,
        )
        held = {}
        if len(stop):
            held = {
                "eval_set": [(stop, known)],
                "callbacks": [lightgbm.early_stopping(self.patience, verbose=False)],
            }
        scorer: _Scorer = trees.fit(rows, targets, **held)
        return scorer
