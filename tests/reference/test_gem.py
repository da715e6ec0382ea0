"""The reference against independent sources: quadprog, scipy, closed forms, finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from saccade.reference import gem


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("strength", [0.0, 0.5])
@pytest.mark.parametrize("t", range(1, 9))
def test_projection_by_quadprog(t: int, strength: float) -> None:
    quadprog = pytest.importorskip("quadprog")
    for _ in range(10):
        p = t + int(torch.randint(0, 40, ()))
        grad, memory, slack = draw(p), draw(t, p), draw(t).abs()
        v, _, status = gem.gem_project(grad, memory, strength, slack, always=True)
        shifted = (grad + strength * memory.sum(0)).numpy()
        constraints = np.ascontiguousarray(memory.numpy().T)
        true, *_ = quadprog.solve_qp(np.eye(p), shifted, constraints, -slack.numpy())
        assert status == gem.SOLVED
        np.testing.assert_allclose(v.numpy(), true, rtol=0, atol=1e-10)


def test_dual_by_scipy() -> None:
    minimize = pytest.importorskip("scipy.optimize").minimize
    for _ in range(5):
        memory = draw(4, 9)
        gram, linear = memory @ memory.mT, 4 * draw(4)
        dual, _ = gem.nnqp(gram, linear, 0.3, 0.2)
        k, c = (gram + 0.2 * torch.eye(4)).numpy(), linear.numpy()
        found = minimize(
            lambda x, k=k, c=c: x @ k @ x / 2 + c @ x, np.ones(4),
            jac=lambda x, k=k, c=c: k @ x + c, bounds=[(0.3, None)] * 4, method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-11},
        )  # fmt: skip
        np.testing.assert_allclose(dual.numpy(), found.x, rtol=0, atol=1e-6)


def test_one_row_is_the_closed_form() -> None:
    for _ in range(20):
        grad, row = draw(6), draw(1, 6)
        dot = (row @ grad).item()
        v, dual, status = gem.gem_project(grad, row)
        expected = max(-dot, 0.0) / (row @ row.mT).item()
        assert dual.item() == pytest.approx(expected)
        assert status == (gem.UNTOUCHED if dot >= 0 else gem.SOLVED)
        torch.testing.assert_close(v, grad + expected * row[0])


def test_statuses() -> None:
    row = torch.tensor([[1.0, 0.0]])
    cases = [
        (torch.tensor([1.0, 2.0]), row, None, gem.UNTOUCHED),
        (torch.tensor([-1.0, 2.0]), row, None, gem.SOLVED),
        (torch.tensor([-1.0, 2.0]), torch.cat([row, -row]), torch.tensor([-1.0] * 2),
         gem.INFEASIBLE),
        (torch.tensor([math.nan, 2.0]), row, None, gem.NOT_FINITE),
        (torch.tensor([-1.0, 2.0]), row, torch.tensor([math.inf]), gem.UNTOUCHED),
    ]  # fmt: skip
    for grad, memory, slack, expected in cases:
        v, _, status = gem.gem_project(grad, memory, slack=slack)
        assert status == expected
        if expected != gem.SOLVED:
            assert torch.equal(v.nan_to_num(), grad.nan_to_num())


def test_gradients_of_any_order() -> None:
    memory = draw(3, 6)
    grad = -memory.sum(0) + 0.1 * draw(6)
    inputs = tuple(x.requires_grad_() for x in (grad, memory, draw(3).abs()))

    def project(g: Tensor, m: Tensor, w: Tensor) -> Tensor:
        return gem.gem_project(g, m, 0.1, w, 0.05)[0]

    assert (gem.gem_project(*inputs[:2], 0.1, inputs[2], 0.05)[1] > 0.1).any()
    assert torch.autograd.gradcheck(project, inputs)
    assert torch.autograd.gradgradcheck(project, inputs)


def test_half_types_are_rounded_once() -> None:
    grad, memory = draw(3, 20).half(), draw(3, 4, 20).half()
    v, _, _ = gem.gem_project(grad, memory)
    true, _, _ = gem.gem_project(grad.double(), memory.double())
    assert torch.equal(v, true.half())
