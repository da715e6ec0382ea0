"""Every rung of the scans against the reference in float64: results, states and every gradient."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import saccade
from saccade import ops

from .scan_problems import PROBLEMS, Problem, conv, on_map, selective, ssd

pytestmark = pytest.mark.rungs("reference", "cpu", "cuda", "triton")

# One place for what a type may be off against float64 on the same inputs, relative to the largest
# entry.
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
DTYPES = list(TOLERANCE)


def check_close(pairs: dict[str, tuple[Tensor, Tensor]], limit: float) -> None:
    """Each tensor is as near to the true one as allowed, NaN included."""
    for name, (got, true) in pairs.items():
        if true.numel() == 0:
            assert got.shape == true.shape
            continue
        size = max(true.abs().max().item(), 1e-3)
        torch.testing.assert_close(
            got.double(),
            true.double(),
            rtol=0,
            atol=limit * size,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def check_problem(problem: Problem, dtype: torch.dtype, backend: str, device: torch.device) -> None:
    """Results and every gradient of a rung against the reference in float64."""
    inputs = problem.draw(dtype, device)
    exact = {name: t.detach().double().requires_grad_() for name, t in inputs.items()}
    results, expected = problem.call(inputs, backend), problem.call(exact, "reference")
    assert results[0].dtype == dtype
    cotangents = [torch.randn_like(t) for t in results]
    torch.autograd.backward(results, cotangents)
    torch.autograd.backward(expected, [c.double() for c in cotangents])
    pairs = {f"result {i}": pair for i, pair in enumerate(zip(results, expected, strict=True))}
    for name, got in inputs.items():
        assert got.grad is not None, name
        assert got.grad.dtype == got.dtype
        pairs[f"gradient of {name}"] = (got.grad, exact[name].grad)
    check_close(pairs, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("name", PROBLEMS)
def test_equals_the_reference(
    name: str, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    if device.type == "cuda" and dtype == torch.float64:
        pytest.skip("the GPU kernels have no float64")
    if backend == "reference" and dtype == torch.float64:
        pytest.skip("that is the truth itself")
    check_problem(PROBLEMS[name], dtype, backend, device)


@pytest.mark.skipif("SACCADE_ISA" not in os.environ, reason="SACCADE_ISA is not set")
def test_the_instruction_set_is_the_one_asked_for() -> None:
    assert saccade.info()["isa"]["chosen"] == os.environ["SACCADE_ISA"]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "last-two-swapped": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    "padded": lambda t: torch.cat([t, t], -1)[..., : t.shape[-1]],
    "backwards": lambda t: t.movedim(-1, 0).contiguous().movedim(0, -1),
    "every-other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda t: t[:1].expand_as(t),
}


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["s6-all", "s6-four-ways", "s6-constant-b", "ssd-all", "conv-all"])
def test_strides_do_not_matter(name: str, layout: str, backend: str, device: torch.device) -> None:
    problem = PROBLEMS[name]
    with torch.no_grad():
        strided = {n: LAYOUTS[layout](t) for n, t in problem.draw(torch.float32, device).items()}
    results = []
    for inputs in (strided, {n: t.contiguous() for n, t in strided.items()}):
        leaves = {n: t.detach().requires_grad_() for n, t in inputs.items()}
        out = problem.call(leaves, backend)
        # a sum gives an expanded gradient of the output
        grads = torch.autograd.grad(sum(t.sum() for t in out), list(leaves.values()))
        results.append((*out, *grads))
    names = [*range(len(out)), *strided]
    pairs = {str(n): pair for n, *pair in zip(names, *results, strict=True)}
    check_close({n: (a, b) for n, (a, b) in pairs.items()}, 1e-6)


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("problem", [selective(2, 6, 9, 4), conv(2, 6, 9, 4)], ids=["s6", "conv"])
def test_results_are_laid_out_as_the_input(
    problem: Problem, backend: str, device: torch.device
) -> None:
    inputs = problem.draw(torch.float32, device)
    first = next(iter(inputs))
    out = problem.call(inputs, backend)[0]
    assert out.is_contiguous()
    inputs[first] = inputs[first].detach().mT.contiguous().mT.requires_grad_()
    out = problem.call(inputs, backend)[0]
    assert out.mT.is_contiguous()
    out.sum().backward()
    assert inputs[first].grad.stride() == inputs[first].stride()


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("name", ["s6-all", "ssd-all", "conv-all"])
def test_one_gradient_alone(name: str, backend: str, device: torch.device) -> None:
    problem = PROBLEMS[name]
    inputs = problem.draw(torch.float32, device)
    out = problem.call(inputs, backend)
    grads = torch.autograd.grad(sum(t.square().sum() for t in out), list(inputs.values()))
    for wanted, expected in zip(inputs, grads, strict=True):
        alone = {n: t.detach().requires_grad_(n == wanted) for n, t in inputs.items()}
        out = problem.call(alone, backend)
        loss = sum(t.square().sum() for t in out)
        assert torch.equal(torch.autograd.grad(loss, alone[wanted])[0], expected)


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("name", ["s6-all", "s6-constant", "s6-four-ways", "ssd-all", "conv-all"])
def test_without_gradients_the_results_are_the_same(
    name: str, backend: str, device: torch.device
) -> None:
    problem = PROBLEMS[name]
    inputs = problem.draw(torch.float32, device)
    with torch.no_grad():
        plain = problem.call(inputs, backend)
    for a, b in zip(plain, problem.call(inputs, backend), strict=True):
        assert torch.equal(a, b.detach())


@pytest.mark.rungs("cpu", "cuda", "triton")
@pytest.mark.parametrize("name", ["s6-all", "s6-four-ways", "s6-constant-b", "ssd-all", "conv-all"])
def test_same_bits_every_time(name: str, backend: str, device: torch.device) -> None:
    problem = PROBLEMS[name]
    inputs = problem.draw(torch.float32, device)
    runs = []
    threads = torch.get_num_threads()
    try:
        for count in (threads, 1, 2, 3):
            torch.set_num_threads(count)
            out = problem.call(inputs, backend)
            loss = sum(t.square().sum() for t in out)
            runs.append((*out, *torch.autograd.grad(loss, list(inputs.values()))))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert torch.equal(a, b)


SMALL = {
    "s6": selective(1, 2, 4, 2, extras="Dzbh", delta_softplus=True),
    "s6-constant": selective(2, 2, 3, 1, b="D", c="D", extras="h", reverse=True),
    "s6-sequences": selective(1, 2, 5, 2, extras="z", lengths=(2, 3)),
    "s6-map": on_map(1, 2, 2, 2, 2, ("tb", "rl"), extras="Dzbh"),
    "ssd": ssd(1, 4, 2, 2, 2, extras="Dzbh", dt_softplus=True),
    "conv": conv(1, 2, 4, 3, extras="bh", activation="silu"),
    "conv-sequences": conv(1, 2, 5, 3, lengths=(2, 3)),
}


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("name", SMALL)
def test_gradcheck(name: str, backend: str) -> None:
    problem = SMALL[name]
    inputs = problem.draw(torch.float64)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return problem.call(dict(zip(inputs, tensors, strict=True)), backend)

    assert torch.autograd.gradcheck(function, tuple(inputs.values()))
    assert torch.autograd.gradgradcheck(function, tuple(inputs.values()))


@pytest.mark.parametrize(
    "problem",
    [
        selective(0, 4, 7, 3, extras="Dzbh"),
        selective(2, 4, 0, 3, extras="Dzh"),
        selective(2, 0, 7, 3),
        on_map(2, 3, 0, 4, 2, ("tb", "lr"), extras="h"),
        ssd(0, 7, 2, 3, 4, extras="Dzbh"),
        ssd(2, 0, 2, 3, 4, extras="h"),
        conv(0, 4, 7, 3, extras="bh"),
        conv(2, 4, 0, 3, extras="h"),
        conv(2, 0, 5, 3),
    ],
    ids=lambda p: f"{p.operator}-{'-'.join(map(str, next(iter(p.shapes.values()))))}",
)
def test_empty(problem: Problem, backend: str, device: torch.device) -> None:
    inputs = problem.draw(torch.float32, device)
    out = problem.call(inputs, backend)
    assert out[0].shape == next(iter(inputs.values())).shape
    if "initial_state" in inputs and 0 in problem.shapes["initial_state"][:1]:
        assert out[1].shape == problem.shapes["initial_state"]
    grads = torch.autograd.grad(sum(t.sum() for t in out), list(inputs.values()), allow_unused=True)
    for (name, tensor), grad in zip(inputs.items(), grads, strict=True):
        assert grad is None or grad.shape == tensor.shape, name
        assert grad is None or name == "initial_state" or not grad.any(), name


@pytest.mark.rungs("reference", "cpu")
@pytest.mark.parametrize("name", ["s6-all", "s6-four-ways", "ssd-all", "conv-all"])
def test_meta_tensors_have_shapes(name: str, backend: str) -> None:
    problem = PROBLEMS[name]
    real = problem.call(problem.draw(torch.bfloat16), "reference")
    out = problem.call(problem.draw(torch.bfloat16, "meta"), backend)
    assert [(t.shape, t.dtype) for t in out] == [(t.shape, t.dtype) for t in real]


def test_nan_stays_in_its_channel_and_its_future(backend: str, device: torch.device) -> None:
    for name in ("u", "delta"):
        inputs = selective(1, 20, 50, 4).draw(torch.float32, device)
        with torch.no_grad():
            inputs[name][0, 3, 17] = float("nan")
            out = ops.selective_scan(**inputs, backend=backend)
        expected = torch.zeros(20, 50, dtype=torch.bool, device=device)
        expected[3, 17:] = True
        assert torch.equal(out[0].isnan(), expected), name


def test_nan_does_not_cross_a_sequence_border(backend: str, device: torch.device) -> None:
    problem = PROBLEMS["s6-sequences"]
    inputs = problem.draw(torch.float32, device)
    first, later = slice(0, 32), slice(32, None)
    out, _ = problem.call(inputs, backend)
    weight = torch.full_like(out[..., later], float("nan"))
    grads = torch.autograd.grad(out[..., later], [inputs["u"], inputs["delta"]], weight)
    for grad in grads:
        assert grad[..., later].isnan().all()
        assert not grad[..., first].any()
    with torch.no_grad():
        inputs["u"][:, :, 5] = float("inf")
        out, _ = problem.call(inputs, backend)
    assert not out[..., 5 : first.stop].isfinite().all()
    assert out[..., later].isfinite().all()


@pytest.mark.rungs("cpu")
def test_nan_does_not_cross_a_sequence_border_inside_a_block(
    backend: str, device: torch.device
) -> None:
    # sequences end at 72, 74 and 100: blocks of several steps would cross all of these
    problem = PROBLEMS["ssd-sequences"]
    inputs = problem.draw(torch.float32, device)
    first, later = slice(0, 74), slice(74, None)
    out, _ = problem.call(inputs, backend)
    weight = torch.full_like(out[:, later], float("nan"))
    names = ["x", "dt", "B", "C"]
    grads = torch.autograd.grad(out[:, later], [inputs[n] for n in names], weight)
    for name, grad in zip(names, grads, strict=True):
        assert grad[:, later].isnan().all(), name
        assert not grad[:, first].any(), name
    with torch.no_grad():
        inputs["x"][:, 72] = float("inf")
        out, _ = problem.call(inputs, backend)
    assert not out[:, 72 : first.stop].isfinite().all()
    assert out[:, later].isfinite().all()
