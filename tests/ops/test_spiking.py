"""Every rung against the loop in plain torch: the same spikes, bit by bit, and every gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import _load, ops
from saccade.reference.spiking import SURROGATES, pack_spikes, unpack_spikes

from .processes import check_level, every_level

pytestmark = pytest.mark.rungs("reference", "cpu")

# Gradients against float64, relative to the largest entry; spikes and potentials are equal.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}

# name: shape of x, options, learnable inputs
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any], tuple[str, ...]]] = {
    "lif": ((4, 3, 5, 2, 3), {}, ()),
    "lif-two-axes": ((7, 11), {"tau": 2.7}, ()),
    "one-step": ((1, 1), {"detach_reset": True}, ()),
    "soft": ((4, 2, 3, 17), {"v_reset": None, "tau": 1.3}, ("v0",)),
    "soft-detached": ((5, 2, 3), {"v_reset": None, "detach_reset": True}, ("v0", "v_threshold")),
    "hard-to-minus": ((9, 2, 37), {"v_reset": -0.3, "v_threshold": 0.7}, ("v0",)),
    "leak": ((7, 2, 3, 5), {"decay_input": False, "tau": 4.0}, ("v0",)),
    "leak-soft": ((4, 1, 67), {"decay_input": False, "v_reset": None, "tau": 3.0}, ()),
    "if": ((6, 2, 19), {"tau": math.inf}, ("v0", "v_threshold")),
    "if-soft": ((6, 2, 19), {"tau": math.inf, "v_reset": None}, ("v_threshold",)),
    "plif": ((5, 3, 7), {}, ("tau",)),
    "plif-leak": ((5, 3, 7), {"decay_input": False, "v_reset": 0.2}, ("tau", "v0")),
    "channels": ((4, 2, 5, 3, 3), {}, ("tau[C]", "v_threshold[C]", "v0")),
    "channels-soft": (
        (4, 2, 5, 3, 3), {"v_reset": None, "decay_input": False}, ("tau[C]", "v_threshold[C]"),
    ),
    "channels-last-axis": ((4, 3, 19), {}, ("tau[C]", "v_threshold", "weight", "bias")),
    "affine": ((4, 2, 5, 7), {}, ("weight", "bias")),
    "residual": ((4, 2, 5, 3, 3), {"v_reset": None}, ("weight", "bias", "residual", "v0")),
    "everything": (
        (3, 2, 3, 11),
        {"v_reset": -0.1, "decay_input": False},
        ("v0", "tau[C]", "v_threshold[C]", "weight", "bias", "residual"),
    ),
    "many-neurons": ((4, 3, 5, 31, 17), {}, ("tau[C]", "weight", "bias")),
    "long": ((100, 2, 9), {"tau": 5.0, "v_threshold": 0.5}, ("v0",)),
    "thirty-three": ((33, 1, 33), {"tau": 3.0, "v_reset": None}, ()),
}  # fmt: skip


def make_inputs(
    case: str, dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a case, and its other options."""
    shape, options, learnable = CASES[case]
    generator = torch.Generator().manual_seed(7)
    state = torch.promote_types(dtype, torch.float32)

    def draw(sizes: tuple[int, ...], kind: torch.dtype) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64).to(device, kind)

    tensors = {"x": 1.5 * draw(shape, dtype)}
    for name in learnable:
        word, per_channel, _ = name.partition("[C]")
        if word == "residual":
            tensors[word] = draw(shape, dtype)
        elif word == "v0":
            tensors[word] = 0.5 * draw(shape[1:], state)
        elif word in ("weight", "bias"):
            tensors[word] = 1 + 0.5 * draw((shape[2],), state)
        else:
            base = 2.0 if word == "tau" else 0.8
            sizes = (shape[2],) if per_channel else ()
            tensors[word] = base + 0.5 * draw(sizes, state).abs()
    return {name: t.detach().requires_grad_() for name, t in tensors.items()}, options


def run(tensors: dict[str, Tensor], options: dict[str, Any], backend: str, **more: Any) -> Any:
    function = ops.affine_lif if "weight" in tensors else ops.lif
    return function(**tensors, **options, **more, backend=backend)


def gradients(tensors: dict[str, Tensor], results: tuple[Tensor, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(r.shape, generator=generator, dtype=torch.float64) for r in results]
    loss = sum((r.double() * w.to(r.device)).sum() for r, w in zip(results, weights, strict=True))
    found = torch.autograd.grad(loss, list(tensors.values()), materialize_grads=True)
    return dict(zip(tensors, found, strict=True))


def compare(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, true in expected.items():
        size = max(1.0, true.abs().max().item())
        torch.testing.assert_close(
            got[name].double(), true.double(), rtol=tolerance, atol=tolerance * size,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_and_gradients(
    case: str, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    results, grads = [], []
    for rung in (backend, "reference"):
        tensors, options = make_inputs(case, dtype, device)
        results.append(run(tensors, options, rung, store_v=True))
        grads.append(gradients(tensors, results[-1]))
    for got, expected in zip(*results, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    assert results[0][0].dtype == dtype
    assert 0.02 < results[0][0].float().mean() < 0.98 or results[0][0].numel() < 4
    for name, grad in grads[0].items():
        assert grad.dtype == tensors[name].dtype
    compare(*grads, TOLERANCE[dtype])


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", [0.0, None], ids=["hard", "soft"])
@pytest.mark.parametrize("tau", [math.inf, 2.0, "plif"], ids=["if", "lif", "plif"])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate(
    surrogate: str, tau: Any, reset: float | None, detach: bool, backend: str, device: torch.device
) -> None:
    grads = []
    for rung in (backend, "reference"):
        tensors, _ = make_inputs("plif" if tau == "plif" else "lif", torch.float32, device)
        options = {} if tau == "plif" else {"tau": tau}
        results = run(
            tensors, options, rung, v_reset=reset, detach_reset=detach, surrogate=surrogate,
            alpha=1.7,
        )  # fmt: skip
        grads.append(gradients(tensors, results))
    compare(*grads, 3e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 16, 33, 100])
def test_any_number_of_steps(steps: int, backend: str) -> None:
    x = torch.randn(steps, 3, 7)
    spikes, v = ops.lif(x, tau=3.0, backend=backend)
    potential = torch.zeros(3, 7)
    for t in range(steps):
        h = potential + (x[t] - potential) / 3.0
        assert torch.equal(spikes[t], (h >= 1).float())
        potential = torch.where(h >= 1, 0.0, h)
    assert torch.equal(v, potential)


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("surrogate", ["atan", "sigmoid", "erf"])
def test_gradcheck_with_a_smooth_step(
    case: str, surrogate: str, backend: str, device: torch.device
) -> None:
    if CASES[case][0][0] > 10 or case == "many-neurons":
        pytest.skip("large")
    tensors, options = make_inputs(case, torch.float64, device)
    names = list(tensors)

    def function(*given: Tensor) -> Any:
        return run(
            dict(zip(names, given, strict=True)), options, backend, smooth=True, store_v=True,
            surrogate=surrogate,
        )  # fmt: skip

    given = tuple(tensors.values())
    if options.get("detach_reset"):
        # a detached gradient is not that of the function
        expected = run(tensors, options, "reference", smooth=True, surrogate=surrogate)
        got = run(tensors, options, backend, smooth=True, surrogate=surrogate)
        torch.testing.assert_close(got, expected)
        compare(gradients(tensors, got), gradients(tensors, expected), 1e-10)
    else:
        assert torch.autograd.gradcheck(function, given, fast_mode=True)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_slopes_are_the_derivatives_of_the_smooth_steps(surrogate: str, backend: str) -> None:
    # one step of integrate and fire from 0: the spike is p(x - 1)
    d = torch.linspace(-2.31, 2.29, 41, dtype=torch.float64)
    x = (d + 1).reshape(1, -1).requires_grad_()

    def step(x: Tensor) -> Tensor:
        return ops.lif(x, tau=math.inf, smooth=True, surrogate=surrogate, backend=backend)[0]

    assert torch.autograd.gradcheck(step, (x,))
    hard, _ = ops.lif(x, tau=math.inf, surrogate=surrogate, backend=backend)
    slopes = [torch.autograd.grad(s.sum(), x)[0] for s in (hard, step(x))]
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-12)


@pytest.mark.rungs("cpu")
def test_double_backward(backend: str, device: torch.device) -> None:
    found = []
    for rung in (backend, "reference"):
        tensors, options = make_inputs("everything", torch.float64, device)
        spikes, v = run(tensors, options, rung, surrogate="sigmoid")
        first = torch.autograd.grad((spikes * v).sum(), list(tensors.values()), create_graph=True)
        found.append(
            torch.autograd.grad(sum(g.square().sum() for g in first), list(tensors.values()))
        )
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)


@pytest.mark.rungs("cpu")
def test_saves_nothing_but_x(backend: str) -> None:
    saved: list[Tensor] = []
    x = torch.randn(4, 3, 5, 7, requires_grad=True)

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        spikes, _ = ops.lif(x, backend=backend)
    assert {t.untyped_storage().data_ptr() for t in saved} == {x.untyped_storage().data_ptr()}
    spikes.sum().backward()
    assert x.grad is not None


def test_closed_forms(backend: str) -> None:
    # below the threshold: v -> x (1 - (1 - 1 / tau)^t), and no spike
    x = torch.full((30, 1), 0.9, dtype=torch.float64)
    spikes, _, v = ops.lif(x, tau=3.0, store_v=True, backend=backend)
    t = torch.arange(1, 31, dtype=torch.float64)[:, None]
    torch.testing.assert_close(v, 0.9 * (1 - (2 / 3) ** t))
    assert not spikes.any()
    # integrate and fire counts: the period is ceil(1 / c)
    spikes, _ = ops.lif(torch.full((24, 1), 0.375), tau=math.inf, backend=backend)
    assert spikes.flatten().nonzero().flatten().tolist() == list(range(2, 24, 3))
    # equality fires
    assert ops.lif(torch.ones(1, 1), tau=math.inf, backend=backend)[0].item() == 1
    # no leak at all
    x = torch.randn(9, 4)
    for got, expected in zip(
        ops.lif(x, tau=1e30, decay_input=False, backend=backend),
        ops.lif(x, tau=math.inf, backend=backend),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_time_can_be_split(backend: str) -> None:
    x = torch.randn(9, 3, 5, requires_grad=True)
    whole = ops.lif(x, backend=backend)
    first, v = ops.lif(x[:4], backend=backend)
    second, v = ops.lif(x[4:], v, backend=backend)
    parts = (torch.cat([first, second]), v)
    cotangents = [torch.randn_like(t) for t in whole]
    for got, expected in zip(parts, whole, strict=True):
        assert torch.equal(got, expected)
    grads = [torch.autograd.grad(r, x, cotangents) for r in (parts, whole)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("width", [1, 5, 8, 9, 16, 31, 2100])
def test_spikes_as_bytes_and_bits(width: int, backend: str) -> None:
    x = 2 * torch.randn(3, 2, 3, width)
    spikes, v = ops.lif(x, backend=backend)
    as_bytes, v_bytes = ops.lif(x, spike_dtype=torch.uint8, backend=backend)
    bits, v_bits = ops.lif(x, spike_dtype="bits", backend=backend)
    assert torch.equal(as_bytes, spikes.to(torch.uint8))
    assert torch.equal(bits, pack_spikes(spikes))
    assert torch.equal(unpack_spikes(bits, width), spikes)
    assert torch.equal(v_bytes, v)
    assert torch.equal(v_bits, v)


@pytest.mark.parametrize("spike_dtype", [torch.uint8, "bits"], ids=str)
def test_potentials_have_gradients_beside_integer_spikes(spike_dtype: Any, backend: str) -> None:
    x = torch.randn(4, 2, 9, requires_grad=True)
    spikes, v = ops.lif(x, spike_dtype=spike_dtype, backend=backend)
    assert not spikes.requires_grad
    (grad,) = torch.autograd.grad(v.square().sum(), x)
    _, v = ops.lif(x, backend=backend)
    torch.testing.assert_close(grad, torch.autograd.grad(v.square().sum(), x)[0])


@pytest.mark.rungs("cpu")
@pytest.mark.parametrize("layout", ["channels-last", "time-inside", "expanded", "every-other"])
@pytest.mark.parametrize("learnable", [False, True], ids=["plain", "per-channel"])
def test_layouts(layout: str, learnable: bool, backend: str) -> None:
    x = torch.randn(4, 3, 5, 2, 6)
    x = {
        "channels-last": lambda: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
        "time-inside": lambda: x.transpose(0, 1).contiguous().transpose(0, 1),
        "expanded": lambda: x[:1].expand(4, -1, -1, -1, -1),
        "every-other": lambda: torch.cat([x, x], -1)[..., ::2],
    }[layout]()
    tau: Any = torch.linspace(1.5, 3, 5).requires_grad_() if learnable else 2.0
    results = []
    for given in (x, x.contiguous()):
        leaf = given.detach().requires_grad_()
        assert leaf.stride() == given.stride()
        spikes, v = ops.lif(leaf, tau=tau, v_threshold=0.6, backend=backend)
        wanted = [leaf, tau] if learnable else [leaf]
        results.append((spikes, v, *torch.autograd.grad(spikes.sum() + v.square().sum(), wanted)))
        if layout == "channels-last" and given is x:
            assert spikes.stride() == x.stride()
            assert v.stride() == x[0].stride()
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


EMPTY = {"no-batch": (3, 0, 4, 2), "no-neurons": (3, 2, 0), "no-steps": (0, 2, 3)}


@pytest.mark.parametrize("shape", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("spike_dtype", [None, torch.uint8, "bits"], ids=str)
def test_empty(shape: tuple[int, ...], spike_dtype: Any, backend: str) -> None:
    x = torch.randn(shape, requires_grad=True)
    tau = torch.full((shape[2],), 2.0, requires_grad=True)
    v0 = torch.randn(shape[1:], requires_grad=True)
    spikes, v, v_seq = ops.lif(
        x, v0, tau=tau, store_v=True, spike_dtype=spike_dtype, backend=backend
    )
    assert spikes.shape[:-1] == x.shape[:-1]
    assert v_seq.shape == x.shape
    if shape[0] == 0:
        assert torch.equal(v, v0)
    grads = torch.autograd.grad(v.sum() + v_seq.sum(), (x, v0, tau), materialize_grads=True)
    assert [g.shape for g in grads] == [x.shape, v0.shape, tau.shape]
    assert not grads[2].any()
    if shape[0] == 0:
        assert (grads[1] == 1).all()


def test_nan_stays_in_the_potential(backend: str) -> None:
    x = torch.randn(5, 1, 40)
    x[1, 0, 7] = math.nan
    x.requires_grad_()
    spikes, v = ops.lif(x, backend=backend)
    expected = torch.zeros(40, dtype=torch.bool)
    expected[7] = True
    assert torch.equal(v[0].isnan(), expected)
    assert not spikes[1:, 0, 7].any()
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert torch.equal(grad[:, 0].isnan().any(0), expected)


def test_half_types_hold_their_state_in_float32(backend: str) -> None:
    x = torch.full((3000, 1), 1e-3, dtype=torch.bfloat16)
    _, v = ops.lif(x, tau=math.inf, v_threshold=10.0, backend=backend)
    assert v.dtype == torch.float32
    assert v.item() == pytest.approx(3000 * x[0].item(), rel=1e-4)


@pytest.mark.rungs("cpu")
def test_threads_do_not_change_bits(backend: str, device: torch.device) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            tensors, options = make_inputs("many-neurons", torch.float32, device)
            results = run(tensors, options, backend)
            found.append((*results, *gradients(tensors, results).values()))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("wanted", ["x", "v0", "tau", "v_threshold", "weight", "bias", "residual"])
def test_one_gradient_alone(wanted: str, backend: str, device: torch.device) -> None:
    tensors, options = make_inputs("everything", torch.float64, device)
    expected = gradients(tensors, run(tensors, options, backend))[wanted]
    alone = {name: t.detach().requires_grad_(name == wanted) for name, t in tensors.items()}
    generator = torch.Generator().manual_seed(3)
    loss = sum(
        (r * torch.randn(r.shape, generator=generator, dtype=torch.float64)).sum()
        for r in run(alone, options, backend)
    )
    torch.testing.assert_close(torch.autograd.grad(loss, alone[wanted])[0], expected)


LINEAR = {"odd": (5, 13, 70), "one": (1, 1, 1), "wide": (3, 200, 64), "no-rows": (0, 4, 9)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", LINEAR.values(), ids=LINEAR)
def test_spike_linear(sizes: tuple[int, int, int], dtype: torch.dtype, backend: str) -> None:
    rows, outputs, inputs = sizes
    spikes = (torch.rand(rows, inputs) < 0.3).to(torch.float64)
    weight = torch.randn(outputs, inputs, dtype=torch.float64).to(dtype).requires_grad_()
    bias = torch.randn(outputs, dtype=torch.float64).to(dtype).requires_grad_()
    bits = pack_spikes(spikes)
    if inputs % 8 and rows:
        bits[:, -1] |= 0x80  # behind the last input: does not count
    for given in (bits, spikes.to(torch.uint8), spikes.bool(), spikes.to(dtype)):
        out = ops.spike_linear(given, weight, bias)
        exact = spikes @ weight.double().T + bias.double()
        limit = TOLERANCE[dtype]
        torch.testing.assert_close(out.double(), exact, rtol=limit, atol=limit * 10)
        cotangent = torch.randn_like(out)
        grads = torch.autograd.grad(out, (weight, bias), cotangent)
        torch.testing.assert_close(
            grads[0].double(), cotangent.double().T @ spikes, rtol=limit, atol=limit * 10
        )
        torch.testing.assert_close(
            grads[1].double(), cotangent.double().sum(0), rtol=limit, atol=limit * 10
        )


@every_level
@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
def test_every_instruction_set(level: str) -> None:
    wanted = "cpu and (same_bits and float32 or as_bytes or test_spike_linear or slopes)"
    check_level(level, wanted, "test_spiking.py")


@pytest.mark.rungs("cpu")
def test_the_operators_themselves_check(backend: str) -> None:
    if not _load.has("_C"):
        pytest.skip(_load.reason("_C"))
    x = torch.zeros(2, 1, 3, 2)
    static = (2.0, 1.0, 0.0, 2.0, 1, True, False, 1, False)
    for bad in (
        (x[0], *[None] * 6),
        (x, torch.zeros(1, 3), *[None] * 5),
        (x, None, torch.ones(2), *[None] * 4),
        (x, None, None, None, torch.ones(3), None, None),
        (x, *[None] * 5, x[:1]),
    ):
        with pytest.raises(RuntimeError):
            torch.ops.saccade.lif_forward(*bad, *static, False, 0, 1)
    with pytest.raises(RuntimeError, match="row must divide"):
        torch.ops.saccade.lif_forward(x, *[None] * 6, *static, False, 2, 4)
    with pytest.raises(RuntimeError, match="grad_spikes"):
        torch.ops.saccade.lif_backward(x[:1], None, None, x, *[None] * 6, *static, 1)
