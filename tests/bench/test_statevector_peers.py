"""Everybody in the benchmark of statevector computes the same values and gradients."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from saccade.bench._gate import evaluate, judge, solve
from saccade.bench._suite import FORWARD, TRAINING, Case, Peer, UnsupportedError
from saccade.bench.peers.statevector import PEERS
from saccade.bench.statevector import SUITE, make_case

CPU = torch.device("cpu")
CASES = [make_case("three", "test", 4, 3, 2), make_case("six", "test", 2, 6, 1)]


def runnable() -> list[Any]:
    """Every case, pass and peer that the peer does not refuse."""
    return [
        pytest.param(peer, case, phase, id=f"{peer.name}-{case.name}-{phase}")
        for peer, case, phase in itertools.product(
            (SUITE.ours("auto"), *PEERS), CASES, (FORWARD, TRAINING)
        )
        if peer.refusal(case, phase, CPU) is None
    ]


@pytest.mark.parametrize(("peer", "case", "phase"), runnable())
def test_peer_agrees_with_the_reference(peer: Peer, case: Case, phase: str) -> None:
    inputs = case.inputs(CPU, torch.float32)
    doubles = {k: v.double() for k, v in inputs.items()}
    function = SUITE.truth.prepare(case, doubles)
    cotangents, truth = solve(function, doubles, torch.float32, training=phase == TRAINING)
    try:
        results = evaluate(peer.prepare(case, inputs), inputs, cotangents, phase)
    except UnsupportedError as error:
        pytest.skip(str(error))
    verdict = judge(results, truth[phase], SUITE.tolerance(CPU, torch.float32))
    assert verdict.passed, verdict.text
