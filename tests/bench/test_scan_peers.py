"""The scans' peers agree with the reference, so that what is timed is the same thing."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from saccade.bench._gate import evaluate, judge, solve
from saccade.bench._suite import PASSES, Case, Peer
from saccade.bench.peers.scan import PEERS
from saccade.bench.scan import SUITE, conv_case, selective_case, ssd_case

CPU = torch.device("cpu")
CASES = {
    "sequence": selective_case("sequence", "test", 2, 6, (13,), 4),
    "map": selective_case("map", "test", 2, 6, (3, 5), 4, ("lr", "rl", "tb", "bt")),
    "ssd": ssd_case("ssd", "test", 2, 32, 4, 5, 3, chunk=8),
    "conv": conv_case("conv", "test", 2, 6, 17, 4),
}
RUNNABLE = [
    pytest.param(peer, case, phase, id=f"{peer.name}-{name}-{phase}")
    for peer in PEERS
    for name, case in CASES.items()
    for phase in PASSES
    if peer.refusal(case, phase, CPU) is None
    or (peer.name == "mambapy" and name in ("sequence", "map"))
]


@pytest.mark.parametrize(("peer", "case", "phase"), RUNNABLE)
def test_agrees_with_the_reference(peer: Peer, case: Case, phase: str) -> None:
    if peer.name == "mambapy" and importlib.util.find_spec("mambapy") is None:
        pytest.skip("mambapy is not installed")
    inputs = case.inputs(CPU, torch.float32)
    doubles = {k: v.double() for k, v in inputs.items()}
    cotangents, truth = solve(SUITE.truth.prepare(case, doubles), doubles, torch.float32)
    results = evaluate(peer.prepare(case, inputs), inputs, cotangents, phase)
    verdict = judge(results, truth[phase], SUITE.tolerance(CPU, torch.float32))
    assert verdict.passed, verdict.text


def test_every_case_has_a_peer_on_the_cpu() -> None:
    for case in SUITE.cases:
        found = [p.name for p in PEERS if p.refusal(case, "forward", CPU) is None]
        assert found, case.name
