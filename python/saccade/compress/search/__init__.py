"""Architecture search: a space, a super-net that shares its weights, rankers, and search under
budgets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade.compress.search.cost import Budget, Latency, macs, measure_latency, parameters
from saccade.compress.search.evolution import EvolutionConfig, Found, evolve, ranked_search
from saccade.compress.search.ranker import PairwiseScorer, Ranker, features, kendall_tau
from saccade.compress.search.space import (
    SPACES,
    TRANSLATION,
    Architecture,
    SearchSpace,
    TranslationSpace,
    search_space,
)
from saccade.compress.search.supernet import SuperNet

if TYPE_CHECKING:
    from saccade.compress.search.training import (
        SuperNetConfig,
        SuperNetModule,
        loader,
        score,
        train_supernet,
    )

__all__ = [
    "SPACES",
    "TRANSLATION",
    "Architecture",
    "Budget",
    "EvolutionConfig",
    "Found",
    "Latency",
    "PairwiseScorer",
    "Ranker",
    "SearchSpace",
    "SuperNet",
    "SuperNetConfig",
    "SuperNetModule",
    "TranslationSpace",
    "evolve",
    "features",
    "kendall_tau",
    "loader",
    "macs",
    "measure_latency",
    "parameters",
    "ranked_search",
    "score",
    "search_space",
    "train_supernet",
]

# these need Lightning, of the extra "train"
_LAZY = ("SuperNetConfig", "SuperNetModule", "loader", "score", "train_supernet")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module("saccade.compress.search.training"), name)
    raise AttributeError(f"module 'saccade.compress.search' has no attribute {name!r}")
