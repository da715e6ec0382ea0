"""A suite that costs nothing: the small case, with peers that the tests bring."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from saccade.bench import Suite, load
from saccade.bench._report import Report
from saccade.bench._run import Options, run
from saccade.bench._suite import Case, Function, Inputs, Peer


class Scaled(Peer):
    """The truth times a factor: right for 1, wrong for anything else."""

    def __init__(self, name: str, factor: float) -> None:
        self.name, self.factor = name, factor

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        truth = load("neighborhood_attention").truth.prepare(case, inputs)
        return lambda x: truth(x) * self.factor


class Broken(Peer):
    name = "broken"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        raise RuntimeError("no such kernel\nsecond line")


def make_suite(*peers: Peer, ours: Peer | None = None) -> Suite:
    own = ours or Scaled("saccade", 1.0)
    return replace(
        load("neighborhood_attention"),
        cases=(),
        default_cases=("small",),
        ours=lambda backend: own,
        peers=peers,
        speed_targets=(),
        memory_targets=(),
    )


@pytest.fixture
def suite() -> Callable[..., Suite]:
    return make_suite


@pytest.fixture
def scaled() -> type[Scaled]:
    return Scaled


@pytest.fixture
def broken() -> Broken:
    return Broken()


@pytest.fixture(scope="session")
def finished() -> Report:
    peers = (Scaled("right", 1.0), Scaled("wrong", 1.1), Broken())
    names = ("right", "wrong", "broken")
    return run(make_suite(*peers), Options(quick=True, peers=names, memory=False))


@pytest.fixture
def report(finished: Report) -> Report:
    """A run with a right peer, one that is refused and one that breaks; a copy for each test."""
    return copy.deepcopy(finished)
