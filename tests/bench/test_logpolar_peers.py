from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from saccade.bench._gate import evaluate, judge, solve
from saccade.bench._suite import Peer
from saccade.bench.logpolar import SUITE, make_case
from saccade.bench.peers.logpolar import PEERS

CPU = torch.device("cpu")
CASES = [
    make_case("plain", "test", (2, 3, 20, 24), 2, 8, "none"),
    make_case("area", "test", (2, 2, 40, 36), 1, 32, "area"),
]


def runnable() -> list[Any]:
    """Every peer, case and pass that no peer refuses."""
    return [
        pytest.param(peer, case, phase, id=f"{peer.name}-{case.name}-{phase}")
        for peer, case in itertools.product(PEERS, CASES)
        for phase in case.work
        if peer.refusal(case, phase, CPU) is None
    ]


@pytest.mark.parametrize(("peer", "case", "phase"), runnable())
def test_peer_agrees_with_the_reference(peer: Peer, case: Any, phase: str) -> None:
    inputs = case.inputs(CPU, torch.float32)
    doubles = {k: v.double() for k, v in inputs.items()}
    truth = SUITE.truth.prepare(case, doubles)
    training = len(case.work) > 1
    cotangents, true = solve(truth, doubles, torch.float32, case.constants, training)
    results = evaluate(peer.prepare(case, inputs), inputs, cotangents, phase, case.constants)
    verdict = judge(results, true[phase], SUITE.tolerance(CPU, torch.float32))
    assert verdict.passed, verdict.text


def test_every_peer_is_tried() -> None:
    assert {param.values[0].name for param in runnable()} >= {
        "grid_sample",
        "grid_sample-cached",
        "supersample",
    }
