"""The parts (gram_dot, combine, nnqp), A-GEM, and the list form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from saccade import ops

pytestmark = pytest.mark.rungs("reference", "cpu", "cuda", "triton")

SHAPES = {
    "one": ((), 1, 1),
    "odd": ((), 3, 17),
    "batch": ((2, 3), 5, 129),
    "long": ((), 9, 40_001),
    "rows": ((2,), 33, 70),
    "no-columns": ((2,), 3, 0),
    "no-rows": ((2,), 0, 7),
    "no-batch": ((0,), 3, 7),
}


@pytest.mark.parametrize("name", SHAPES)
def test_products(name: str, backend: str, device: torch.device) -> None:
    batch, t, p = SHAPES[name]
    memory = torch.randn(*batch, t, p, device=device)
    grad = torch.randn(*batch, p, device=device)
    gram, dot = ops.gram_dot(memory, grad, backend=backend)
    assert (gram.dtype, dot.dtype) == (torch.float64, torch.float64)
    assert backend == "reference" or torch.equal(gram, gram.mT)
    true = memory.double() @ memory.double().mT
    torch.testing.assert_close(gram, true, rtol=1e-5, atol=1e-5 * max(p, 1) ** 0.5)
    true = (memory.double() @ grad.double()[..., None])[..., 0]
    torch.testing.assert_close(dot, true, rtol=1e-5, atol=1e-5 * max(p, 1) ** 0.5)


@pytest.mark.parametrize("name", SHAPES)
def test_combination(name: str, backend: str, device: torch.device) -> None:
    batch, t, p = SHAPES[name]
    memory = torch.randn(*batch, t, p, device=device)
    grad = torch.randn(*batch, p, device=device)
    dual = torch.rand(*batch, t, device=device).relu()
    dual[..., ::3] = 0.0
    memory[..., ::3, :] = torch.nan
    v = ops.combine(grad, memory, dual, backend=backend)
    true = grad.double() + (dual[..., None].double() * memory.double().nan_to_num()).sum(-2)
    torch.testing.assert_close(v.double(), true, rtol=1e-6, atol=1e-5)


@pytest.mark.rungs("reference", "cpu")
def test_gradients_of_the_parts(backend: str) -> None:
    memory = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    dual = torch.rand(2, 3, dtype=torch.float64).add(0.1).requires_grad_()
    products = (lambda m, g: ops.gram_dot(m, g, backend=backend), (memory, grad))
    combination = (lambda g, m, d: ops.combine(g, m, d, backend=backend), (grad, memory, dual))
    for function, inputs in (products, combination):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.rungs("reference", "cpu")
def test_gradients_of_the_quadratic_problem(backend: str) -> None:
    factor = torch.randn(4, 3, 6, dtype=torch.float64)
    gram = (factor @ factor.mT).requires_grad_()
    linear = torch.randn(4, 3, dtype=torch.float64).mul(3).requires_grad_()
    valid = torch.tensor([True, True, False])

    def function(k: Tensor, c: Tensor) -> Tensor:
        # the symmetric part counts, so the gradient is symmetric
        return ops.nnqp(k, c, lower=0.2, ridge=0.1, valid=valid, backend=backend)[0]

    dual = function(gram, linear)
    assert (dual > 0.2).any()
    assert (dual[:, :2] == 0.2).any()
    assert not dual[:, 2].any()
    assert torch.autograd.gradcheck(function, (gram, linear))


def test_the_parts_make_the_whole(backend: str, device: torch.device) -> None:
    memory = torch.randn(3, 6, 200, device=device)
    grad = torch.randn(3, 200, device=device) - memory.mean(-2)
    slack = torch.rand(3, 6, device=device)
    gram, dot = ops.gram_dot(memory, grad, backend=backend)
    dual, status = ops.nnqp(gram, dot + slack, lower=0.3, ridge=0.5, backend=backend)
    v = ops.combine(grad, memory, dual, backend=backend)
    whole = ops.gem_project(
        grad, memory, memory_strength=0.3, slack=slack, ridge=0.5, return_dual=True,
        backend=backend,
    )  # fmt: skip
    torch.testing.assert_close(v, whole[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dual, whole[1], rtol=1e-9, atol=1e-9)
    assert torch.equal(status, whole[2])


def enumerate_active_sets(gram: np.ndarray, linear: np.ndarray, lower: float) -> np.ndarray:
    """The minimum by trying all 2^t sets of variables that are not at their bound."""
    t, best, value = len(linear), np.full(len(linear), lower), np.inf
    for code in range(2**t):
        free = [i for i in range(t) if code >> i & 1]
        x = np.full(t, lower)
        if free:
            fixed = [i for i in range(t) if i not in free]
            right = -linear[free] - gram[np.ix_(free, fixed)] @ x[fixed]
            x[free] = np.linalg.solve(gram[np.ix_(free, free)], right)
        if (x >= lower - 1e-12).all():
            found = x @ gram @ x / 2 + linear @ x
            if found < value:
                best, value = x, found
    return best


@pytest.mark.parametrize("lower", [0.0, 0.5])
@pytest.mark.parametrize("t", [1, 2, 3, 5, 6])
def test_quadratic_problem_against_all_active_sets(
    t: int, lower: float, backend: str, device: torch.device
) -> None:
    factor = torch.randn(20, t, t + 2, dtype=torch.float64)
    gram, linear = factor @ factor.mT, 3 * torch.randn(20, t, dtype=torch.float64)
    dual, status = ops.nnqp(gram.to(device), linear.to(device), lower=lower, backend=backend)
    assert not status.any()
    for i in range(20):
        true = enumerate_active_sets(gram[i].numpy(), linear[i].numpy(), lower)
        np.testing.assert_allclose(dual[i].cpu().numpy(), true, rtol=1e-9, atol=1e-10)


def test_quadratic_problem_takes_the_symmetric_part(backend: str, device: torch.device) -> None:
    factor = torch.randn(4, 8, dtype=torch.float64, device=device)
    gram, linear = factor @ factor.mT, torch.randn(4, dtype=torch.float64, device=device)
    skew = torch.randn(4, 4, dtype=torch.float64, device=device)
    one = ops.nnqp(gram, linear, backend=backend)[0]
    other = ops.nnqp(gram + skew - skew.mT, linear, backend=backend)[0]
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_agem_is_the_closed_form(backend: str, device: torch.device) -> None:
    grad, other = torch.randn(2, 50, 31, device=device)
    v = ops.agem_project(grad, other, backend=backend)
    dot = (grad.double() * other.double()).sum(-1, keepdim=True)
    true = grad.double() - dot.clamp(max=0) / other.double().square().sum(-1, keepdim=True) * other
    torch.testing.assert_close(v.double(), true, rtol=2e-6, atol=2e-6)
    calm = (dot >= 0).squeeze(-1)
    assert 0 < calm.sum() < 50
    assert torch.equal(v[calm], grad[calm])
    assert torch.equal(ops.agem_project(grad, torch.zeros_like(other), backend=backend), grad)


PARAMETERS = [(7, 3), (), (5,), (2, 3, 4, 5), (1,), (0,), (700, 60)]


def make_lists(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    def draw() -> list[Tensor]:
        return [torch.randn(shape, device=device).to(dtype) for shape in PARAMETERS]

    return draw(), [draw() for _ in range(6)]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


@pytest.mark.parametrize("stacked", [False, True], ids=["rows", "stacked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_lists_are_one_vector(
    dtype: torch.dtype, stacked: bool, backend: str, device: torch.device
) -> None:
    grads, rows = make_lists(device, dtype)
    memory = torch.stack([flat(row) for row in rows])
    slack = torch.rand(6, device=device).double()
    options: dict[str, Any] = {"memory_strength": 0.3, "slack": slack, "trigger": "always"}
    expected = ops.gem_project(
        flat(grads), memory, **options, return_dual=True, backend="reference"
    )
    given = [grad.clone() for grad in grads]
    places = [grad.data_ptr() for grad in given]
    out, dual, status = ops.gem_project_(
        given, memory if stacked else rows, **options, return_dual=True, backend=backend
    )
    assert out is given
    assert [grad.data_ptr() for grad in given] == places
    limit = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(flat(given), expected[0], rtol=limit, atol=limit)
    torch.testing.assert_close(dual, expected[1], rtol=1e-4, atol=1e-4)
    assert torch.equal(status, expected[2])


def test_lists_with_other_layouts(backend: str, device: torch.device) -> None:
    grads = [torch.randn(4, 6, device=device), torch.randn(2, 3, 5, 5, device=device)]
    rows = [[torch.randn_like(grad) for grad in grads] for _ in range(3)]
    expected = [grad.clone() for grad in grads]
    ops.gem_project_(expected, rows, memory_strength=0.5, trigger="always", backend=backend)
    given = [grads[0].mT.contiguous().mT, grads[1].to(memory_format=torch.channels_last)]
    ops.gem_project_(given, rows, memory_strength=0.5, trigger="always", backend=backend)
    for got, true in zip(given, expected, strict=True):
        torch.testing.assert_close(got, true, rtol=1e-6, atol=1e-6)


def test_what_is_none_in_a_list(backend: str, device: torch.device) -> None:
    grads, rows = make_lists(device)
    # a gradient that is None: its part is left out; an entry of a row that is None: zeros
    present = [0, 3, 4, 6]
    rows[1][3] = rows[4][0] = None
    given = [grad.clone() if k in present else None for k, grad in enumerate(grads)]
    ops.gem_project_(given, rows, trigger="always", memory_strength=0.2, backend=backend)
    full = [
        torch.cat([torch.zeros(grads[k].numel(), device=device) if row[k] is None
                   else row[k].reshape(-1) for k in present])
        for row in rows
    ]  # fmt: skip
    expected = ops.gem_project(
        flat([grads[k] for k in present]), torch.stack(full), trigger="always",
        memory_strength=0.2, backend="reference",
    )  # fmt: skip
    assert [k for k, grad in enumerate(given) if grad is not None] == present
    got = flat([grad for grad in given if grad is not None])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["rows", "stacked", "none"])
def test_lists_with_one_row(form: str, backend: str, device: torch.device) -> None:
    grads, rows = make_lists(device)
    row = [-grad + 0.1 * other for grad, other in zip(grads, rows[0], strict=True)]
    if form == "none":
        row[0] = torch.zeros_like(grads[0])
    expected = ops.agem_project(flat(grads), flat(row), backend="reference")
    given = [row if form != "none" else [None, *row[1:]]]
    memory = flat(row)[None] if form == "stacked" else given
    ops.gem_project_(grads, memory, backend=backend)
    torch.testing.assert_close(flat(grads), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trigger", ["violation", "always"])
def test_lists_without_work(trigger: str, backend: str, device: torch.device) -> None:
    grads, _ = make_lists(device)
    before = [grad.clone() for grad in grads]
    code = 0 if trigger == "always" else 1
    for given, memory in ((grads, []), ([None, None], [[None, None]]), ([], [[]])):
        _, dual, status = ops.gem_project_(
            given, memory, trigger=trigger, return_dual=True, backend=backend
        )
        assert dual.shape == (len(memory),)
        assert status == code
    assert all(torch.equal(a, b) for a, b in zip(grads, before, strict=True))


def test_gradients_of_a_model_in_place(backend: str, device: torch.device) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    model.to(device)
    rows = []
    for _ in range(3):
        model.zero_grad()
        model(torch.randn(6, 5, device=device)).square().sum().backward()
        rows.append([p.grad.clone() for p in model.parameters()])
    model.zero_grad()
    (-model(torch.randn(6, 5, device=device)).square().sum()).backward()
    grads = [p.grad for p in model.parameters()]
    ops.gem_project_(grads, rows, backend=backend)
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    products = torch.stack([flat(row) for row in rows]) @ flat(grads)
    assert (products > -1e-4).all()
