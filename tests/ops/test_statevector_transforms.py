"""What torch does to the operator: opcheck, compile, export, autocast, vmap, torch.func."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from saccade import _load, ops
from saccade.ops._statevector_op import plan

from .statevector_circuits import N_INPUTS, random_program, random_state, random_values, ring

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))

SUMS = ops.pauli_sums(["ZIII", {"XXII": 0.5, "IZZI": -1.0}], 4)


@pytest.mark.parametrize("start", [False, True], ids=["zero", "given"])
@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "permuted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck(dtype: torch.dtype, strided: bool, start: bool) -> None:
    program = random_program(4, 40, seed=1)
    params, inputs = random_values(3, seed=1, dtype=dtype)
    state = torch.view_as_real(random_state(3, 4, seed=1)).to(dtype) if start else None
    if strided:
        inputs = inputs.T.contiguous().T
        state = None if state is None else state.movedim(-1, 0).contiguous().movedim(0, -1)
    saccade = torch.ops.saccade
    whole, cone = plan(program, not start, False, None), plan(program, not start, False, SUMS)
    of_state = (params, inputs, state, whole.ints, whole.floats, whole.bits)
    torch.library.opcheck(saccade.statevector_forward.default, of_state)
    out = saccade.statevector_forward(*of_state)
    backward = (torch.randn_like(out), params, inputs, state, out, *of_state[3:])
    torch.library.opcheck(saccade.statevector_backward.default, backward)
    of_values = (params, inputs, state, cone.ints, cone.floats, cone.bits, cone.observables)
    for keep in (False, True):
        torch.library.opcheck(saccade.statevector_expval_forward.default, (*of_values, keep))
    values, kept = saccade.statevector_expval_forward(*of_values, True)
    backward = (torch.randn_like(values), params, inputs, state, kept, *of_values[3:6])
    torch.library.opcheck(saccade.statevector_expval_backward.default, backward)


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


RING = ring(4, 2)


def function(params: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    psi = ops.statevector(RING, params, inputs, backend="cpu")
    return ops.statevector_expval(RING, params, inputs, SUMS, backend="cpu"), psi.abs()


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_compiles_once_for_all_sizes(train: bool) -> None:
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for i, batch in enumerate((3, 5, 19)):
        tensors = [torch.randn(24, requires_grad=train), torch.randn(batch, 4, requires_grad=train)]
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got: tuple[Tensor, ...] = compiled(*tensors)
        expected: tuple[Tensor, ...] = function(*tensors)
        if train:
            loss = [r[0].square().sum() + r[1].sum() for r in (got, expected)]
            got += torch.autograd.grad(loss[0], tensors)
            expected += torch.autograd.grad(loss[1], tensors)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


class Layer(torch.nn.Module):
    def forward(self, params: Tensor, inputs: Tensor) -> Tensor:
        return ops.statevector_expval(RING, params, inputs, SUMS)


@pytest.mark.parametrize("strict", [False, True], ids=["tracing", "dynamo"])
def test_export_with_a_dynamic_batch(strict: bool) -> None:
    program = torch.export.export(
        Layer(),
        (torch.randn(24), torch.randn(5, 4)),
        dynamic_shapes=({}, {0: torch.export.Dim.DYNAMIC}),
        strict=strict,
    )
    given = (torch.randn(24), torch.randn(18, 4))
    torch.testing.assert_close(program.module()(*given), Layer()(*given))
    assert "saccade.statevector_expval_forward" in program.graph_module.code


def test_autocast_changes_nothing() -> None:
    params, inputs = torch.randn(24), torch.randn(3, 4)
    plain = Layer()(params, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Layer()(params, inputs), plain)


def test_no_second_derivative_is_wrong() -> None:
    params = torch.randn(24, requires_grad=True)
    values = Layer()(params, torch.randn(3, 4))
    (slope,) = torch.autograd.grad(values.square().sum(), params, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_forward_mode_takes_the_reference() -> None:
    params, inputs = torch.randn(24, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    options = {"dtype": torch.complex128}
    tangent = torch.randn_like(params)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(params, tangent)
        values = ops.statevector_expval(RING, dual, inputs, SUMS, **options)  # type: ignore[arg-type]
        slope = forward_ad.unpack_dual(values).tangent
        with pytest.raises(NotImplementedError, match="forward-mode"):
            ops.statevector_expval(RING, dual, inputs, SUMS, backend="cpu")
    assert slope is not None
    step = 1e-6
    ends = [
        ops.statevector_expval(RING, params + s * tangent, inputs, SUMS, **options)  # type: ignore[arg-type]
        for s in (step, -step)
    ]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * step), rtol=0, atol=1e-7)


def test_inputs_that_need_no_gradient_get_none() -> None:
    program = random_program(3, 30, seed=1)
    params, inputs = torch.randn(5), torch.randn(2, N_INPUTS, requires_grad=True)
    ops.statevector_expval(program, params, inputs, ["ZZZ"]).sum().backward()
    assert inputs.grad is not None
    assert params.grad is None


# which of params, inputs and state are mapped, and along which axis
MAPPED = [(0, None, None), (None, 1, None), (None, None, 0), (1, 0, 1), (0, None, 2)]


def _mapped(n: int, dims: tuple[int | None, ...], batch: int = 3) -> tuple[Tensor, ...]:
    """Params [P], inputs [B, Pb] and a state [B, 2**n], of which some have 5 of each."""
    seeds = range(5)
    many = [
        [random_values(batch, seed)[0] for seed in seeds],
        [random_values(batch, seed)[1] for seed in seeds],
        [random_state(batch, n, seed) for seed in seeds],
    ]
    return tuple(
        each[0] if axis is None else torch.stack(each, axis)
        for each, axis in zip(many, dims, strict=True)
    )


# 4 bits: samples in the lanes of vectors; 9: amplitudes
@pytest.mark.parametrize("n", [4, 9])
@pytest.mark.parametrize("dims", MAPPED, ids=str)
def test_vmap_is_a_loop(dims: tuple[int | None, ...], n: int) -> None:
    program = random_program(n, 40, seed=2)
    sums = ops.pauli_sums(["Z" * n, "XY" + "I" * (n - 2)], n)
    given = _mapped(n, dims)

    def run(params: Tensor, inputs: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        options = {"state": state, "dtype": torch.complex128, "backend": "cpu"}

        def loss(*leaves: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            own = options | {"state": leaves[2]}
            values = ops.statevector_expval(program, *leaves[:2], sums, **own)  # type: ignore[arg-type]
            psi = ops.statevector(program, *leaves[:2], **own)  # type: ignore[arg-type]
            total = values.square().sum() + psi.real.pow(3).sum() + psi.imag.sum()
            return total, (values, psi)

        gradients, results = torch.func.grad(loss, argnums=(0, 1, 2), has_aux=True)(
            params, inputs, state
        )
        return *results, *gradients

    got = torch.vmap(run, dims)(*given)
    for i in range(5):
        one = [
            x if axis is None else x.select(axis, i) for x, axis in zip(given, dims, strict=True)
        ]
        for a, b in zip(got, run(*one), strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n", [4, 9])
def test_nested_vmap_and_jacobian(n: int) -> None:
    program = random_program(n, 30, seed=3)
    sums = ops.pauli_sums(["Z" * n, "X" * n], n)
    params, inputs = random_values(2, seed=1)
    many = torch.stack([inputs + k for k in range(3)])

    def values(p: Tensor, x: Tensor) -> Tensor:
        return ops.statevector_expval(program, p, x, sums, dtype=torch.complex128, backend="cpu")

    scaled = torch.stack([params, 2 * params])
    nested = torch.vmap(torch.vmap(values, (None, 0)), (0, None))(scaled, many)
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(nested[i, j], values(scaled[i], many[j]))
    whole = torch.func.jacrev(values, argnums=(0, 1))(params, inputs)
    leaf, row = params.clone().requires_grad_(), inputs.clone().requires_grad_()
    loops = torch.autograd.functional.jacobian(values, (leaf, row))
    for a, b in zip(whole, loops, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
