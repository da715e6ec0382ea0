"""Closed forms and invariants of the scans, which need no reference."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor

from saccade import ops

from .scan_problems import FOUR, PROBLEMS, conv, on_map, selective, ssd

pytestmark = pytest.mark.rungs("reference", "cpu", "cuda", "triton")

LIMIT = {"rtol": 2e-5, "atol": 2e-5}
# splits of a sequence in which the state is handed over
SPLITS = [(1, 99), (32, 68), (33, 1, 66), (50, 50)]


def test_without_decay_it_is_a_prefix_sum(backend: str, device: torch.device) -> None:
    u, B = torch.randn(2, 5, 70, device=device), torch.randn(2, 3, 70, device=device)
    C = torch.ones_like(B)
    out = ops.selective_scan(
        u, torch.ones_like(u), torch.zeros(5, 3, device=device), B, C, backend=backend
    )
    expected = (u[:, :, None] * B[:, None]).cumsum(-1).sum(2)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decay", [-float("inf"), -1e30, -200.0])
def test_with_full_decay_it_has_no_memory(decay: float, backend: str, device: torch.device) -> None:
    u, delta = torch.randn(1, 5, 40, device=device), torch.rand(1, 5, 40, device=device) + 1
    B, C = torch.randn(1, 3, 40, device=device), torch.randn(1, 3, 40, device=device)
    A = torch.full((5, 3), decay, device=device)
    out = ops.selective_scan(u, delta, A, B, C, backend=backend)
    torch.testing.assert_close(out, delta * u * (B * C).sum(1, keepdim=True), **LIMIT)


def test_one_state_is_an_exponential_average(backend: str, device: torch.device) -> None:
    u, step, kept = np.random.default_rng(0).standard_normal((3, 200)), 0.3, 0.8
    expected = scipy.signal.lfilter([step], [1, -kept], u)
    signal = torch.from_numpy(u)[None].float().to(device)
    A = torch.full((3, 1), np.log(kept) / step, device=device)
    one = torch.ones(3, 1, device=device)
    out = ops.selective_scan(signal, torch.full_like(signal, step), A, one, one, backend=backend)
    torch.testing.assert_close(out[0].cpu(), torch.from_numpy(expected).float(), **LIMIT)


def test_steps_and_decays_of_any_size_stay_finite(backend: str, device: torch.device) -> None:
    u = torch.randn(1, 4, 64, device=device, requires_grad=True)
    delta = torch.rand(1, 4, 64, device=device) * 50
    A = -torch.arange(1.0, 17.0, device=device).expand(4, 16)
    B = torch.randn(1, 16, 64, device=device)
    delta.requires_grad_()
    out = ops.selective_scan(u, delta, A, B, B, backend=backend)
    grads = torch.autograd.grad(out.sum(), (u, delta))
    assert all(t.isfinite().all() for t in (out, *grads))


def test_growth_beyond_the_range_is_infinite(backend: str, device: torch.device) -> None:
    u = torch.ones(1, 1, 3, device=device)
    one = torch.ones(1, 1, device=device)
    A = torch.full((1, 1), 100.0, device=device)
    state = torch.ones(1, 1, 1, device=device)
    out = ops.selective_scan(u, u, A, one, one, initial_state=state, backend=backend)
    assert out[0, 0].tolist() == [float("inf")] * 3


def cut(inputs: dict[str, Tensor], axis: dict[str, int], begin: int, end: int) -> dict[str, Tensor]:
    return {
        name: t.narrow(axis[name], begin, end - begin) if name in axis else t
        for name, t in inputs.items()
    }


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("kind", ["s6", "ssd", "conv"])
def test_the_state_can_be_handed_over(
    kind: str, split: tuple[int, ...], backend: str, device: torch.device
) -> None:
    problem, axis = {
        "s6": (
            selective(2, 5, 100, 4, extras="Dzbh", delta_softplus=True),
            dict.fromkeys(("u", "delta", "B", "C", "z"), 2),
        ),
        "ssd": (
            ssd(2, 100, 2, 6, 5, extras="Dzbh", dt_softplus=True),
            dict.fromkeys(("x", "dt", "B", "C", "z"), 1),
        ),
        "conv": (conv(2, 5, 100, 4, extras="bh", activation="silu"), {"x": 2}),
    }[kind]
    inputs = problem.draw(torch.float32, device)
    whole = problem.call(inputs, backend)
    state, outs, begin = inputs["initial_state"], [], 0
    for steps in split:
        part = cut(inputs, axis, begin, begin + steps)
        out, state = problem.call({**part, "initial_state": state}, backend)
        outs.append(out)
        begin += steps
    parts = (torch.cat(outs, next(iter(axis.values()))), state)
    for got, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, expected, **LIMIT)
    leaves = list(inputs.values())
    grads = [torch.autograd.grad(sum(t.square().sum() for t in r), leaves) for r in (whole, parts)]
    for expected, got in zip(*grads, strict=True):
        size = expected.abs().max().item()
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * size)


@pytest.mark.parametrize("length", [7, 33, 64, 131])
def test_padding_before_softplus_is_neutral(
    length: int, backend: str, device: torch.device
) -> None:
    problem = selective(2, 5, length, 4, extras="Dbh", delta_softplus=True)
    inputs = {n: t.detach() for n, t in problem.draw(torch.float32, device).items()}
    out, state = problem.call(inputs, backend)
    padded = {
        n: F.pad(t, (0, 29), value=-float("inf") if n == "delta" else 0.0)
        if n in ("u", "delta", "B", "C")
        else t
        for n, t in inputs.items()
    }
    more, kept = problem.call(padded, backend)
    torch.testing.assert_close(more[..., :length], out, **LIMIT)
    torch.testing.assert_close(kept, state, **LIMIT)


@pytest.mark.parametrize("name", [n for n in PROBLEMS if "sequences" in n])
def test_sequences_do_not_mix(name: str, backend: str, device: torch.device) -> None:
    problem = PROBLEMS[name]
    inputs = {n: t.detach() for n, t in problem.draw(torch.float32, device).items()}
    inputs.pop("initial_state", None)
    whole = problem.call(inputs, backend)[0]
    length, begin = sum(problem.lengths), 0
    axis = {n: s.index(length) for n, s in problem.shapes.items() if length in s}
    for steps in problem.lengths:
        part = cut(inputs, axis, begin, begin + steps)
        kwargs = {**problem.kwargs, "backend": backend}
        if problem.operator == "ssd_scan":
            kwargs["chunk_size"] = 64
        alone = getattr(ops, problem.operator)(**part, **kwargs)
        along = axis[next(iter(problem.shapes))]
        torch.testing.assert_close(whole.narrow(along, begin, steps), alone, **LIMIT)
        begin += steps


def test_reverse_is_a_flip_outside(backend: str, device: torch.device) -> None:
    problem = selective(2, 6, 45, 3, extras="Dzh")
    inputs = {n: t.detach() for n, t in problem.draw(torch.float32, device).items()}
    flipped = {
        n: t.flip(-1) if n in ("u", "delta", "B", "C", "z") else t for n, t in inputs.items()
    }
    out, state = problem.call(inputs, backend, reverse=True)
    expected, expected_state = problem.call(flipped, backend)
    torch.testing.assert_close(out, expected.flip(-1), **LIMIT)
    torch.testing.assert_close(state, expected_state, **LIMIT)


def test_directions_are_flips_and_transposes_outside(backend: str, device: torch.device) -> None:
    problem = on_map(2, 6, 5, 8, 3, FOUR, extras="Dzbh", delta_softplus=True)
    inputs = {n: t.detach() for n, t in problem.draw(torch.float32, device).items()}
    out, state = problem.call(inputs, backend)
    total = torch.zeros_like(out)
    for k, name in enumerate(FOUR):

        def line(t: Tensor, name: str = name) -> Tensor:
            t = (t.mT if name in ("tb", "bt") else t).flatten(-2)
            return t.flip(-1) if name in ("rl", "bt") else t

        alone, alone_state = ops.selective_scan(
            line(inputs["u"]), line(inputs["delta"][:, k]), inputs["A"][k],
            line(inputs["B"][:, k]), line(inputs["C"][:, k]), inputs["D"][k],
            delta_bias=inputs["delta_bias"][k], delta_softplus=True, return_last_state=True,
            initial_state=inputs["initial_state"][:, k], backend=backend,
        )  # fmt: skip
        alone = alone.flip(-1) if name in ("rl", "bt") else alone
        size = (8, 5) if name in ("tb", "bt") else (5, 8)
        alone = alone.unflatten(-1, size)
        total += alone.mT if name in ("tb", "bt") else alone
        torch.testing.assert_close(state[:, k], alone_state, **LIMIT)
    torch.testing.assert_close(out, total * F.silu(inputs["z"]), rtol=1e-4, atol=1e-4)


def test_ssd_with_one_channel_is_a_selective_scan(backend: str, device: torch.device) -> None:
    x, dt = torch.randn(2, 50, 6, 1, device=device), torch.rand(2, 50, 6, device=device)
    A = -torch.rand(6, device=device)
    B, C = (torch.randn(2, 50, 2, 5, device=device) for _ in range(2))
    out = ops.ssd_scan(x, dt, A, B, C, 16, backend=backend)
    expected = ops.selective_scan(
        x[..., 0].mT, dt.mT, A[:, None].expand(6, 5), B.permute(0, 2, 3, 1),
        C.permute(0, 2, 3, 1), backend=backend,
    )  # fmt: skip
    torch.testing.assert_close(out[..., 0], expected.mT, **LIMIT)


def test_ssd_is_masked_attention(backend: str, device: torch.device) -> None:
    length = 64
    x, dt = torch.randn(2, length, 3, 8, device=device), torch.rand(2, length, 3, device=device)
    A = -torch.rand(3, device=device)
    B, C = (torch.randn(2, length, 1, 5, device=device) for _ in range(2))
    out = ops.ssd_scan(x, dt, A, B, C, 16, backend=backend)
    total = (dt * A).cumsum(1).double()
    future = torch.ones(length, length, device=device).triu(1).bool()[..., None]
    decay = (total[:, :, None] - total[:, None]).masked_fill(future, -float("inf")).exp()
    scores = torch.einsum("bin,bjn->bij", C[:, :, 0], B[:, :, 0]).double()
    expected = torch.einsum("bijh,bij,bjh,bjhp->bihp", decay, scores, dt.double(), x.double())
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-4)


def test_chunk_size_does_not_matter(backend: str, device: torch.device) -> None:
    problem = PROBLEMS["ssd-all"]
    inputs = problem.draw(torch.float32, device)
    results = []
    for chunk in (16, 64, 256):
        out, state = problem.call(inputs, backend, chunk_size=chunk)
        grads = torch.autograd.grad(out.square().sum() + state.sum(), list(inputs.values()))
        results.append((out, state, *grads))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * a.abs().max().item())


@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_conv_is_a_padded_grouped_convolution(
    width: int, backend: str, device: torch.device
) -> None:
    x, weight = torch.randn(2, 6, 40, device=device), torch.randn(6, width, device=device)
    bias = torch.randn(6, device=device)
    out = ops.causal_conv1d(x, weight, bias, activation="silu", backend=backend)
    padded = F.conv1d(x, weight[:, None], bias, padding=width - 1, groups=6)
    torch.testing.assert_close(out, F.silu(padded[..., :40]), **LIMIT)


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("ring", [False, True], ids=["shifted", "ring"])
@pytest.mark.parametrize(("size", "steps"), [(3, 1), (3, 4), (5, 2), (7, 7)])
def test_conv_step_by_step(size: int, steps: int, ring: bool, backend: str) -> None:
    x, weight, bias = torch.randn(2, 6, 29), torch.randn(6, 4), torch.randn(6)
    expected = ops.causal_conv1d(x, weight, bias, activation="silu", backend=backend)
    state, outs = torch.zeros(2, 6, size), []
    for begin in range(0, 29, steps):
        piece = x[..., begin : begin + steps]
        piece = piece[..., 0] if steps == 1 else piece
        seen = torch.full((2,), begin) if ring else None
        out = ops.causal_conv1d_update(
            piece, state, weight, bias, activation="silu", cache_seqlens=seen
        )
        outs.append(out[..., None] if steps == 1 else out)
    torch.testing.assert_close(torch.cat(outs, -1), expected, **LIMIT)


@pytest.mark.rungs("cpu")
def test_a_ring_ignores_what_was_never_written(backend: str) -> None:
    x, weight = torch.randn(1, 3), torch.randn(3, 4)
    out = ops.causal_conv1d_update(
        x, torch.full((1, 3, 5), float("nan")), weight, cache_seqlens=torch.zeros(1).int()
    )
    torch.testing.assert_close(out, x * weight[:, -1])


def test_complex_states_stand_for_conjugate_pairs(backend: str, device: torch.device) -> None:
    if backend != "reference":
        pytest.skip("a complex A runs on the reference")
    # a rotating state: u convolved with 2 e^(-a t) cos(w t)
    rate, turn, length = 0.1, 0.7, 60
    u = torch.randn(1, 1, length, dtype=torch.float64)
    A = torch.tensor([[complex(-rate, turn)]], dtype=torch.complex128)
    one = torch.ones(1, 1, dtype=torch.complex128)
    interleaved = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(length)[None, None]
    kernel = 2 * np.exp(-rate * np.arange(length)) * np.cos(turn * np.arange(length))
    expected = np.convolve(u[0, 0], kernel)[:length]
    for coefficient in (one, interleaved):
        out = ops.selective_scan(u, torch.ones_like(u), A, coefficient, one)
        torch.testing.assert_close(out[0, 0], torch.from_numpy(expected))
