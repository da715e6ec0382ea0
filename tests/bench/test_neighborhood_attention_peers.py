from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from saccade.bench import load
from saccade.bench._gate import evaluate, judge, solve
from saccade.bench._suite import FORWARD, PASSES, Case, Peer
from saccade.bench.neighborhood_attention import SUITE, make_case
from saccade.bench.peers.neighborhood_attention import PEERS, Windows, axis_windows
from saccade.reference.neighborhood_attention import window

CPU = torch.device("cpu")


def row(name: str, shape: tuple[int, ...], **kwargs: Any) -> Any:
    return pytest.param(make_case(name, "test", shape, **kwargs), id=name)


CASES = [
    row("2D", (2, 9, 7, 2, 8), kernel_size=3),
    row("2D-dilated-uneven-groups", (1, 11, 7, 2, 8), kernel_size=(3, 2), dilation=(3, 2)),
    row("2D-bias", (2, 9, 8, 3, 8), kernel_size=(3, 5), bias=True),
    row("1D-causal", (2, 17, 2, 8), kernel_size=5, is_causal=True),
    row("1D-full", (1, 7, 1, 4), kernel_size=7),
    row("3D-even-kernel", (1, 4, 6, 5, 2, 8), kernel_size=(3, 2, 4)),
    row(
        "2D-stride-causal",
        (1, 13, 11, 2, 8),
        kernel_size=(4, 5),
        stride=(2, 3),
        is_causal=(True, False),
    ),
]
FLEX = [peer for peer in PEERS if peer.name.startswith("flex")]


def runnable(peers: Sequence[Peer], phases: Sequence[str]) -> list[Any]:
    """Every case, peer and pass that no peer refuses."""
    found = []
    for peer, entry, phase in itertools.product(peers, CASES, phases):
        (case,) = entry.values
        if peer.refusal(case, phase, CPU) is None:
            found.append(pytest.param(peer, case, phase, id=f"{peer.name}-{entry.id}-{phase}"))
    return found


def check(peer: Peer, case: Case, phase: str) -> None:
    inputs = case.inputs(CPU, torch.float32)
    doubles = {k: v.double() for k, v in inputs.items()}
    cotangents, truth = solve(SUITE.truth.prepare(case, doubles), doubles, torch.float32)
    results = evaluate(peer.prepare(case, inputs), inputs, cotangents, phase)
    verdict = judge(results, truth[phase], SUITE.tolerance(CPU, torch.float32))
    assert verdict.passed, verdict.text


EAGER = runnable([peer for peer in PEERS if peer not in FLEX], PASSES)


@pytest.mark.parametrize(("peer", "case", "phase"), EAGER)
def test_peer_agrees_with_the_reference(peer: Peer, case: Case, phase: str) -> None:
    check(peer, case, phase)


@pytest.mark.parametrize(("peer", "case", "phase"), runnable(FLEX, [FORWARD]))
def test_mask_function_of_flex(peer: Any, case: Case, phase: str) -> None:
    mask = Windows(case).mask()
    token, zero = torch.arange(len(mask)), torch.tensor(0)
    assert torch.equal(peer.mask_mod(case, CPU)(zero, zero, token[:, None], token[None]), mask)


@pytest.mark.slow
@pytest.mark.parametrize("peer", FLEX, ids=lambda peer: peer.name)
def test_compiled_flex_agrees_with_the_reference(peer: Peer) -> None:
    check(peer, make_case("compiled", "test", (1, 14, 14, 2, 32), kernel_size=5), FORWARD)


AXES = [
    pytest.param(10, 4, 2, 1, False, id="even kernel and stride"),
    pytest.param(11, 3, 2, 3, False, id="dilation, uneven groups"),
    pytest.param(11, 4, 3, 2, True, id="causal"),
    pytest.param(5, 5, 1, 1, False, id="full"),
    pytest.param(1, 1, 1, 1, True, id="one token"),
]


@pytest.mark.parametrize(("length", "kernel", "stride", "dilation", "causal"), AXES)
def test_windows_of_an_axis(
    length: int, kernel: int, stride: int, dilation: int, causal: bool
) -> None:
    keys, valid = axis_windows(length, kernel, stride, dilation, causal)
    true = window(length, kernel, stride, dilation, causal)
    for query in range(length):
        assert set(keys[query][valid[query]].tolist()) == set(
            true.index[query][true.valid[query]].tolist()
        )


def test_pairs_of_a_causal_window() -> None:
    # 1 + 2 + 3 + 3 + 3 keys
    one = make_case("pairs", "test", (1, 5, 1, 1), kernel_size=3, is_causal=True)
    assert one.work[FORWARD].flops == 4 * 12


def test_targets_name_cases_and_peers_of_the_suite() -> None:
    suite = load("neighborhood_attention")
    names = {peer.name for peer in suite.peers}
    for target in suite.speed_targets:
        assert target.case in suite.default_cases
        assert names.issuperset(target.peers)
    assert names.issuperset(suite.quick_peers)
