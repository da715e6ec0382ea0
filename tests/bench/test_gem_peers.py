"""Everybody in the benchmark of gem computes the same projection or the same dual variables."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from saccade.bench._gate import evaluate, judge, solve
from saccade.bench._suite import FORWARD, Case, Peer, UnsupportedError
from saccade.bench.gem import SUITE, make_projection, make_quadratic
from saccade.bench.peers.gem import PEERS

CPU = torch.device("cpu")
CASES = [
    make_projection("one", "test", 1, 77),
    make_projection("three", "test", 3, 200),
    make_projection("nine", "test", 9, 1001),
    make_quadratic("quadratic", "test", 5, 6),
]


def runnable() -> list[Any]:
    """Every case and peer that the peer does not refuse."""
    return [
        pytest.param(peer, case, id=f"{peer.name}-{case.name}")
        for peer, case in itertools.product((SUITE.ours("auto"), *PEERS), CASES)
        if peer.refusal(case, FORWARD, CPU) is None
    ]


@pytest.mark.parametrize(("peer", "case"), runnable())
def test_peer_agrees_with_the_reference(peer: Peer, case: Case) -> None:
    inputs = case.inputs(CPU, torch.float32)
    doubles = {k: v.double() for k, v in inputs.items()}
    function = SUITE.truth.prepare(case, doubles)
    cotangents, truth = solve(function, doubles, torch.float32, training=False)
    try:
        results = evaluate(peer.prepare(case, inputs), inputs, cotangents, FORWARD)
    except UnsupportedError as error:
        pytest.skip(str(error))
    verdict = judge(results, truth[FORWARD], SUITE.tolerance(CPU, torch.float32))
    assert verdict.passed, verdict.text


@pytest.mark.parametrize("case", [SUITE.cases[0], SUITE.cases[3]], ids=["t10", "agem"])
def test_every_row_takes_part(case: Case) -> None:
    from saccade import ops

    inputs = case.inputs(CPU, torch.float32)
    _, dual, status = ops.gem_project(inputs["grad"], inputs["memory"], return_dual=True)
    assert status == 0
    assert (dual > 0).all()


def test_every_problem_has_a_peer() -> None:
    for case in (*SUITE.cases, SUITE.small):
        assert any(peer.refusal(case, FORWARD, CPU) is None for peer in PEERS), case.name
