"""Everybody in the benchmark of transport computes the same plan, gradient and least total."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from saccade.bench._gate import evaluate, judge, solve
from saccade.bench._suite import FORWARD, TRAINING, Case, Peer
from saccade.bench.peers.transport import PEERS
from saccade.bench.transport import SUITE, make_exact, make_plan, make_points

CPU = torch.device("cpu")
CASES = [
    make_plan("single", "test", (40, 33), training=True),
    make_plan("batch", "test", (3, 16, 16), training=True),
    make_points("points", "test", 70, 5),
    make_exact("matching", "test", "assignment", (17, 17)),
    make_exact("matchings", "test", "assignment", (3, 9, 9), "integers"),
    make_exact("nearest", "test", "assignment", (23, 23), "points"),
    make_exact("transport", "test", "emd", (13, 13)),
    make_exact("weights", "test", "emd", (13, 11), "points", weighted=True),
]


def runnable() -> list[Any]:
    """Every case, pass and peer that the peer does not refuse."""
    return [
        pytest.param(peer, case, phase, id=f"{peer.name}-{case.name}-{phase}")
        for peer, case in itertools.product((SUITE.ours("auto"), *PEERS), CASES)
        for phase in case.work
        if peer.refusal(case, phase, CPU) is None
    ]


@pytest.mark.parametrize(("peer", "case", "phase"), runnable())
def test_peer_agrees_with_the_reference(peer: Peer, case: Case, phase: str) -> None:
    inputs = case.inputs(CPU, torch.float32)
    doubles = {k: v.double() for k, v in inputs.items()}
    function = SUITE.truth.prepare(case, doubles)
    training = TRAINING in case.work
    cotangents, truth = solve(function, doubles, torch.float32, training=training)
    results = evaluate(peer.prepare(case, inputs), inputs, cotangents, phase)
    allowed = SUITE.allowed_error(case, CPU, torch.float32)
    # small problems converge more slowly than those that are timed; exact ones are exact
    slack = 10 if case.tolerance is None else 1
    verdict = judge(results, truth[phase], slack * allowed)
    assert verdict.passed, verdict.text


def test_every_problem_has_a_peer() -> None:
    for case in SUITE.cases:
        assert any(peer.refusal(case, FORWARD, CPU) is None for peer in PEERS), case.name


def test_a_matching_that_is_not_the_best_is_refused() -> None:
    case = make_exact("matching", "test", "assignment", (256, 9, 9))
    inputs = case.inputs(CPU, torch.float32)
    true = SUITE.truth.prepare(case, inputs)(inputs)
    assert isinstance(true, torch.Tensor)
    worse = true.clone()
    worse[7] *= 1 + 1e-5
    allowed = SUITE.allowed_error(case, CPU, torch.float32)
    assert judge({"total": true}, {"total": true}, allowed).passed
    assert not judge({"total": worse}, {"total": true}, allowed).passed
