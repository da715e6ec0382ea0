"""Search by a ranker under budgets: evolution, or the best of many drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from saccade.compress.search.space import Architecture, Genome, SearchSpace

Fitness = Callable[[Sequence[Architecture]], ArrayLike]
Feasible = Callable[[Architecture], bool]

# Draws in a row without a feasible architecture after which a search gives up.
PATIENCE = 20_000


class Found(NamedTuple):
    """The best architecture, its fitness, the best fitness after every iteration, and how many
    architectures were asked for theirs.
    """

    arch: Architecture
    fitness: float
    history: list[float]
    asked: int


@dataclass(frozen=True)
class EvolutionConfig:
    """Sizes of an evolution; the defaults are the published code's.

    Args:
        parents: the best, which survive.
        mutants: children of one parent.
        crossovers: children of two; with both and the parents this is the population.
        rate: probability that a gene of a mutant is drawn anew.
        iterations: generations.

    Raises:
        ValueError: a value out of range.
    """

    parents: int = 25
    mutants: int = 50
    crossovers: int = 50
    rate: float = 0.3
    iterations: int = 30

    def __post_init__(self) -> None:
        if self.parents < 1 or min(self.mutants, self.crossovers, self.iterations) < 0:
            raise ValueError(
                "parents must be at least 1, mutants, crossovers and iterations at least 0, got "
                f"{self.parents}, {self.mutants}, {self.crossovers} and {self.iterations}."
            )
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], got {self.rate}.")

    @property
    def population(self) -> int:
        """Members of a generation."""
        return self.parents + self.mutants + self.crossovers


class _Search:
    """Feasible genomes, and a memory of their fitness."""

    def __init__(self, space: SearchSpace, fitness: Fitness, feasible: Feasible, seed: int) -> None:
        self.space, self.fitness, self.feasible = space, fitness, feasible
        self.rng = np.random.default_rng(seed)
        self.known: dict[Architecture, float] = {}

    def draw(self, make: Callable[[], Genome]) -> Genome:
        """The first feasible genome that `make` gives."""
        for _ in range(PATIENCE):
            genome = make()
            if self.feasible(self.space.decode(genome)):
                return genome
        raise ValueError(
            f"none of {PATIENCE} architectures of the space {self.space.name} keeps the budget."
        )

    def score(self, genomes: Sequence[Genome]) -> list[float]:
        """Fitness of genomes; an architecture is asked for once."""
        archs = [self.space.decode(genome) for genome in genomes]
        new = [arch for arch in dict.fromkeys(archs) if arch not in self.known]
        if new:
            values = np.asarray(self.fitness(new), dtype=np.float64)
            self.known.update(zip(new, values.tolist(), strict=True))
        return [self.known[arch] for arch in archs]

    def found(self, genome: Genome, history: list[float]) -> Found:
        """The result, with the best genome."""
        arch = self.space.decode(genome)
        return Found(arch, self.known[arch], history, len(self.known))


def _anything(arch: Architecture) -> bool:
    return True


def evolve(
    space: SearchSpace,
    fitness: Fitness,
    feasible: Feasible = _anything,
    config: EvolutionConfig | None = None,
    seed: int = 0,
) -> Found:
    """Evolve architectures; the best of a generation are the parents of the next.

    Args:
        space: where to search.
        fitness: architectures to numbers, larger is better: `Ranker.predict`.
        feasible: what every member must satisfy, from the first generation on: a `Budget`.
        config: sizes; default the published ones.
        seed: of all draws.

    Returns:
        Found: the fittest architecture that was ever asked about.

    Raises:
        ValueError: no feasible architecture was found in 20,000 draws.
    """
    cfg = config or EvolutionConfig()
    search = _Search(space, fitness, feasible, seed)
    population = [search.draw(lambda: space.sample(search.rng)) for _ in range(cfg.population)]
    history = []
    for iteration in range(cfg.iterations + 1):
        scores = search.score(population)
        order = np.argsort(scores, kind="stable")[::-1]
        parents = [population[place] for place in order[: cfg.parents]]
        history.append(scores[order[0]])
        if iteration < cfg.iterations:
            population = [*parents, *_children(search, parents, cfg)]
    return search.found(parents[0], history)


def _children(search: _Search, parents: list[Genome], cfg: EvolutionConfig) -> list[Genome]:
    space, rng = search.space, search.rng

    def parent() -> Genome:
        return parents[int(rng.integers(len(parents)))]

    mutants = [
        search.draw(lambda: space.mutate(parent(), rng, cfg.rate)) for _ in range(cfg.mutants)
    ]
    crossed = [
        search.draw(lambda: space.cross(parent(), parent(), rng)) for _ in range(cfg.crossovers)
    ]
    return mutants + crossed


def ranked_search(
    space: SearchSpace,
    fitness: Fitness,
    feasible: Feasible = _anything,
    candidates: int = 500,
    seed: int = 0,
) -> Found:
    """The best of feasible architectures drawn at random.

    Args:
        space: where to search.
        fitness: architectures to numbers, larger is better.
        feasible: what every candidate must satisfy.
        candidates: number of draws, at least 1; equal ones are asked about once.
        seed: of all draws.

    Raises:
        ValueError: no candidates, or no feasible architecture in 20,000 draws.
    """
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}.")
    search = _Search(space, fitness, feasible, seed)
    drawn = [search.draw(lambda: space.sample(search.rng)) for _ in range(candidates)]
    scores = search.score(drawn)
    best = int(np.argmax(scores))
    return search.found(drawn[best], [scores[best]])
