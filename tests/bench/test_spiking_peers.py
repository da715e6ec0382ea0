from __future__ import annotations

import pytest
import torch

from saccade.bench._gate import evaluate, judge, solve
from saccade.bench._suite import PASSES, Peer
from saccade.bench.peers.spiking import PEERS
from saccade.bench.spiking import SUITE

CPU = torch.device("cpu")


@pytest.mark.parametrize("phase", PASSES)
@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(peer, id=peer.name, marks=[pytest.mark.slow] if peer.name == "compile" else [])
        for peer in PEERS
    ],
)
def test_peer_agrees_with_the_reference(peer: Peer, phase: str) -> None:
    case = SUITE.small
    reason = peer.refusal(case, phase, CPU)
    if reason:
        pytest.skip(reason)
    inputs = case.inputs(CPU, torch.float32)
    doubles = {k: v.double() for k, v in inputs.items()}
    cotangents, truth = solve(SUITE.truth.prepare(case, doubles), doubles, torch.float32)
    results = evaluate(peer.prepare(case, inputs), inputs, cotangents, phase)
    verdict = judge(results, truth[phase], SUITE.tolerance(CPU, torch.float32))
    assert verdict.passed, verdict.text


def test_targets_name_cases_and_peers_of_the_suite() -> None:
    names = {peer.name for peer in SUITE.peers}
    for target in SUITE.speed_targets:
        assert target.case in SUITE.default_cases
        assert names.issuperset(target.peers)
