"""What torch does to the scans: opcheck, compile, export, autocast, vmap, torch.func."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import _load, ops

from .scan_problems import FOUR, Problem, conv, on_map, selective, ssd

pytestmark = pytest.mark.rungs("reference", "cpu")
needs_kernels = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "permuted": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    "expanded": lambda t: t[:1].expand_as(t),
}
_AFTER = ["initial_state", "seq_idx"]
TENSORS = {
    "selective_scan": ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", *_AFTER],
    "ssd_scan": ["x", "dt", "A", "B", "C", "D", "z", "dt_bias", *_AFTER],
    "causal_conv1d": ["x", "weight", "bias", *_AFTER],
}
SIGNALS = ("u", "delta", "B", "C", "z", "x", "dt")


def canonical(problem: Problem, dtype: torch.dtype, layout: str) -> list[Tensor | None]:
    """The tensor arguments of the operator's schema."""
    inputs = {n: LAYOUTS[layout](t.detach()) for n, t in problem.draw(dtype).items()}
    if problem.operator == "selective_scan":
        for name in ("delta", "initial_state"):
            if name in inputs:
                inputs[name] = inputs[name][:, None]
        for name in ("A", "D", "delta_bias"):
            if name in inputs:
                inputs[name] = inputs[name][None]
        for name in "BC":
            constant = problem.is_constant(name)
            inputs[name] = inputs[name][None] if constant else inputs[name][:, None, None]
    if problem.operator == "ssd_scan" and "D" in inputs:
        inputs["D"] = inputs["D"][:, None].expand(-1, inputs["x"].shape[-1])
    if problem.lengths:
        numbers = torch.arange(len(problem.lengths)).repeat_interleave(
            torch.tensor(problem.lengths)
        )
        batch = next(iter(problem.shapes.values()))[0]
        inputs["seq_idx"] = numbers.int().expand(batch, -1)
    return [inputs.get(name) for name in TENSORS[problem.operator]]


OPCHECKED = {
    "s6-plain": (selective(2, 5, 35, 4), (False, [0], 1, 32)),
    "s6-all": (selective(2, 5, 35, 4, extras="Dzbh"), (True, [1], 1, 16)),
    "s6-mixed": (selective(2, 5, 6, 4, b="D", extras="z", lengths=(2, 4)), (True, [0], 1, 0)),
    "ssd-plain": (ssd(2, 35, 3, 4, 5), (False, 0.0, float("inf"), 32)),
    "ssd-all": (ssd(2, 5, 3, 4, 6, extras="Dzbh", lengths=(1, 4)), (True, 0.1, 1.0, 2)),
    "conv": (conv(2, 5, 9, 4, extras="bh"), (True,)),
    "conv-sequences": (conv(2, 5, 9, 3, lengths=(4, 5)), (False,)),
}


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPCHECKED)
def test_opcheck(name: str, layout: str, dtype: torch.dtype) -> None:
    problem, static = OPCHECKED[name]
    tensors = canonical(problem, dtype, layout)
    forward = getattr(torch.ops.saccade, f"{problem.operator}_forward").default
    backward = getattr(torch.ops.saccade, f"{problem.operator}_backward").default
    torch.library.opcheck(forward, (*tensors, *static))
    out = forward(*tensors, *static)
    out, saved = ((out,), ()) if isinstance(out, Tensor) else (out[:2], out[2:])
    if not saved or static[-1] > 0:
        grads = [LAYOUTS[layout](torch.randn_like(t)) for t in out]
        torch.library.opcheck(backward, (*grads, *tensors, *saved, *static))


# batch, length: Dynamo ties sizes that are equal in the first row
SIZES = [(7, 41), (3, 19), (10, 66)]


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def block(backend: str) -> Callable[..., tuple[Tensor, ...]]:
    """All operators in a row, as in a model."""

    def function(
        x: Tensor, weight: Tensor, A: Tensor, heads: Tensor, state: Tensor
    ) -> tuple[Tensor, ...]:
        u, last = ops.causal_conv1d(
            x, weight, activation="silu", return_final_states=True, backend=backend
        )
        B = u[:, :4]
        y, end = ops.selective_scan(
            u, x.abs(), A, B, 2 * B, z=x, delta_softplus=True, return_last_state=True,
            initial_state=state, backend=backend,
        )  # fmt: skip
        tokens = y.mT.unflatten(-1, (3, 2))
        out = ops.ssd_scan(
            tokens, tokens[..., 0].abs(), heads, tokens, tokens, 16, D=heads, backend=backend
        )
        return out, last, end

    return function


def _draw(batch: int, length: int, train: bool) -> list[Tensor]:
    shapes = ((batch, 6, length), (6, 3), (6, 4), (3,), (batch, 6, 4))
    inputs = [torch.randn(shape) * 0.3 for shape in shapes]
    inputs[2:4] = [-t.abs() for t in inputs[2:4]]
    return [t.requires_grad_(train) for t in inputs]


def _compare(
    function: Callable[..., Any], compiled: Callable[..., Any], train: bool, mark: bool
) -> None:
    for i, (batch, length) in enumerate(SIZES):
        inputs = _draw(batch, length, train)
        if mark:
            torch._dynamo.mark_dynamic(inputs[0], 0)
            torch._dynamo.mark_dynamic(inputs[0], 2)
            torch._dynamo.mark_dynamic(inputs[4], 0)
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got = compiled(*inputs)
        expected = function(*inputs)
        if train:
            got, expected = (
                (*r, *torch.autograd.grad(sum(t.square().sum() for t in r), inputs))
                for r in (got, expected)
            )
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_compiles_once_for_all_sizes(train: bool) -> None:
    function = block("cpu")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    _compare(function, compiled, train, mark=False)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
def test_inductor_with_marked_sizes() -> None:
    def function(
        x: Tensor, weight: Tensor, A: Tensor, heads: Tensor, state: Tensor
    ) -> tuple[Tensor, ...]:
        u = ops.causal_conv1d(x, weight, activation="silu")
        return ops.selective_scan(
            u, x, A, u[:, :4], u[:, :4], heads.repeat(2), delta_softplus=True,
            return_last_state=True, initial_state=state,
        )  # fmt: skip

    _compare(function, torch.compile(function, fullgraph=True), train=True, mark=True)


@needs_kernels
@pytest.mark.usefixtures("dynamo")
def test_compiles_over_maps() -> None:
    def function(u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return ops.selective_scan(u, delta, A, B, B, directions=FOUR)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for i, (height, width) in enumerate([(3, 5), (4, 7), (6, 2)]):
        inputs = on_map(2, 6, height, width, 4, FOUR).draw(torch.float32)
        tensors = [inputs[name] for name in ("u", "delta", "A", "B")]
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got = compiled(*tensors)
        torch.testing.assert_close(got, function(*tensors))


class _Block(torch.nn.Module):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return block("auto")(*inputs)


@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_dynamic_batch_and_length(strict: bool) -> None:
    if not _load.has("_C"):
        pytest.skip("the reference unrolls its loop")
    dynamic = torch.export.Dim.DYNAMIC
    shapes = (({0: dynamic, 2: dynamic}, None, None, None, {0: dynamic}),)
    program = torch.export.export(
        _Block(), tuple(_draw(2, 9, False)), dynamic_shapes=shapes, strict=strict
    )
    inputs = _draw(3, 17, False)
    for a, b in zip(program.module()(*inputs), _Block()(*inputs), strict=True):
        torch.testing.assert_close(a, b)
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    for name in TENSORS:
        assert any(f"saccade.{name}_forward" in graph.code for graph in graphs)


AUTOCAST = {
    "s6": selective(1, 6, 9, 4, extras="Dzbh", delta_softplus=True),
    "s6-constant": selective(1, 6, 9, 4, b="D", c="D"),
    "ssd": ssd(1, 9, 2, 3, 4, extras="Dzbh"),
    "conv": conv(1, 6, 9, 4, extras="bh"),
}


@pytest.mark.parametrize("name", AUTOCAST)
def test_autocast_casts_signals_and_leaves_parameters(name: str, backend: str) -> None:
    problem = AUTOCAST[name]
    inputs = problem.draw(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = problem.call(inputs, backend)
        double = problem.call(problem.draw(torch.float64), backend)
    assert [t.dtype for t in double] == [torch.float64] * len(double)
    assert got[0].dtype == torch.bfloat16
    cast = {
        n: t.bfloat16()
        if (n in SIGNALS and not (n in "BC" and problem.is_constant(n)))
        or (problem.operator == "causal_conv1d" and n == "initial_state")
        else t
        for n, t in inputs.items()
    }
    expected = problem.call(cast, backend)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)
    grads = torch.autograd.grad(got[0].float().sum(), list(inputs.values()))
    assert {grad.dtype for grad in grads} == {torch.float32}


MAPPED = {
    "s6": selective(2, 4, 7, 3, extras="Dzbh"),
    "s6-groups": selective(2, 4, 7, 3, b="G", c="G", groups=2),
    "s6-constant": selective(2, 4, 7, 3, b="D", c="N"),
    "s6-map": on_map(2, 4, 2, 3, 3, ("tb", "rl"), extras="D"),
    "ssd": ssd(2, 7, 4, 3, 2, extras="Dzbh", groups=2),
    "conv": conv(2, 4, 7, 3, extras="bh", activation="silu"),
}


@pytest.mark.parametrize("name", MAPPED)
def test_vmap_and_gradients_of_every_sample(name: str, backend: str) -> None:
    problem = MAPPED[name]
    samples = [problem.draw(torch.float32) for _ in range(3)]
    names = list(samples[0])
    # every other tensor is shared
    mapped = names[::2]
    stacked = [
        torch.stack([s[n].detach() for s in samples], -1) if n in mapped else samples[0][n].detach()
        for n in names
    ]
    dims = tuple(-1 if n in mapped else None for n in names)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return problem.call(dict(zip(names, tensors, strict=True)), backend)

    def loss(*tensors: Tensor) -> Tensor:
        return sum(t.square().sum() for t in function(*tensors))

    gradient = torch.func.grad(loss, argnums=tuple(range(len(names))))
    for what in (function, gradient):
        got = torch.vmap(what, in_dims=dims)(*stacked)
        apart = [
            what(
                *(
                    t.select(-1, i) if d is not None else t
                    for t, d in zip(stacked, dims, strict=True)
                )
            )
            for i in range(3)
        ]
        for a, b in zip(got, map(torch.stack, zip(*apart, strict=True)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_vmap_over_seq_idx_is_refused() -> None:
    if not _load.has("_C"):
        pytest.skip("the reference can do it")
    u, A = torch.randn(1, 4, 6), -torch.rand(4, 2)
    B = torch.randn(1, 2, 6)

    def function(numbers: Tensor) -> Tensor:
        return ops.selective_scan(u, u.abs(), A, B, B, seq_idx=numbers, backend="cpu")

    with pytest.raises(NotImplementedError, match="vmap over seq_idx"):
        torch.vmap(function)(torch.zeros(3, 1, 6, dtype=torch.int32))


@pytest.mark.parametrize("name", ["s6", "ssd", "conv"])
def test_functional_derivatives(name: str, backend: str) -> None:
    problem = MAPPED[name]
    inputs = {n: t.detach() for n, t in problem.draw(torch.float64).items()}
    first = next(iter(inputs))

    def loss(rung: str) -> Callable[[Tensor], Tensor]:
        return lambda t: problem.call({**inputs, first: t}, rung)[0].square().sum()

    x = inputs[first]
    tangent = torch.randn_like(x)
    _, forward = torch.func.jvp(loss("auto"), (x,), (tangent,))
    torch.testing.assert_close(forward, (torch.func.grad(loss(backend))(x) * tangent).sum())
    if backend != "reference":
        with pytest.raises(NotImplementedError, match="forward-mode"):
            torch.func.jvp(loss(backend), (x,), (tangent,))
