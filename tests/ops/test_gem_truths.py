"""What must hold whatever the code: published solvers, KKT conditions, closed forms, invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from saccade import ops

quadprog = pytest.importorskip("quadprog")

pytestmark = pytest.mark.rungs("reference", "cpu")


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def primal(grad: Tensor, memory: Tensor, slack: Tensor) -> np.ndarray:
    """The projection by quadprog on all P variables."""
    constraints = np.ascontiguousarray(memory.numpy().T)
    solution, *_ = quadprog.solve_qp(np.eye(len(grad)), grad.numpy(), constraints, -slack.numpy())
    return solution


@pytest.mark.parametrize("strength", [0.0, 0.5])
@pytest.mark.parametrize("with_slack", [False, True], ids=["", "slack"])
@pytest.mark.parametrize("t", range(1, 9))
def test_equals_quadprog_on_the_primal(
    t: int, with_slack: bool, strength: float, backend: str
) -> None:
    for p in (t, t + 3, 40):
        for _ in range(5):
            grad, memory = 2 * draw(p), draw(t, p)
            slack = draw(t).abs() if with_slack else torch.zeros(t, dtype=torch.float64)
            v, _, status = ops.gem_project(
                grad, memory, memory_strength=strength, slack=slack, trigger="always",
                return_dual=True, backend=backend,
            )  # fmt: skip
            assert status == 0
            shifted = grad + strength * memory.sum(0)
            true = primal(shifted, memory, slack)
            np.testing.assert_allclose(v.numpy(), true, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
@pytest.mark.parametrize("strength", [0.0, 0.5])
@pytest.mark.parametrize("t", [1, 2, 5, 10, 20, 50])
def test_equals_quadprog_on_the_dual(t: int, strength: float, ridge: float, backend: str) -> None:
    for _ in range(5):
        memory = draw(t, t + 20)
        gram, linear = memory @ memory.mT, 5 * draw(t)
        dual, status = ops.nnqp(gram, linear, lower=strength, ridge=ridge, backend=backend)
        true, *_ = quadprog.solve_qp(
            (gram + ridge * torch.eye(t)).numpy(), -linear.numpy(), np.eye(t),
            np.full(t, strength),
        )  # fmt: skip
        assert status == 0
        np.testing.assert_allclose(dual.numpy(), true, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [2, 7, 20])
def test_equals_non_negative_least_squares(t: int, backend: str) -> None:
    nnls = pytest.importorskip("scipy.optimize").nnls
    for _ in range(5):
        memory, grad = draw(t, 3 * t), 3 * draw(3 * t)
        _, dual, _ = ops.gem_project(
            grad, memory, trigger="always", return_dual=True, backend=backend
        )
        true, _ = nnls(memory.numpy().T, -grad.numpy())
        np.testing.assert_allclose(dual.numpy(), true, rtol=1e-10, atol=1e-10)


def published(grad: Tensor, memories: Tensor, margin: float, eps: float) -> np.ndarray:
    """The steps of GEM's published method in numpy: products, ridge, quadprog, combination."""
    rows, g = memories.numpy(), grad.numpy()
    gram = rows @ rows.T
    gram = (gram + gram.T) / 2 + eps * np.eye(len(rows))
    dual, *_ = quadprog.solve_qp(gram, -(rows @ g), np.eye(len(rows)), np.full(len(rows), margin))
    return dual @ rows + g


@pytest.mark.parametrize("t", [1, 3, 9])
def test_compatible_with_gem_as_published(t: int, backend: str) -> None:
    for _ in range(10):
        grad, memory = draw(60), draw(t, 60)
        v = ops.gem_project(grad, memory, memory_strength=0.5, ridge=1e-3, backend=backend)
        calm = bool((memory @ grad >= 0).all())
        true = grad.numpy() if calm else published(grad, memory, 0.5, 1e-3)
        np.testing.assert_allclose(v.numpy(), true, rtol=0, atol=1e-10)


def test_kkt_conditions(backend: str) -> None:
    grad, memory, slack = draw(50, 30), draw(50, 9, 30), draw(50, 9).abs()
    v, dual, _ = ops.gem_project(
        grad, memory, slack=slack, trigger="always", return_dual=True, backend=backend
    )
    room = (memory @ v[..., None])[..., 0] + slack
    assert (dual >= 0).all()
    assert (room > -1e-10).all()
    assert (dual * room).abs().max() < 1e-10
    assert (v - grad - (dual[..., None] * memory).sum(-2)).abs().max() < 1e-12
    assert (dual > 0).any()
    assert (dual == 0).any()


def test_memory_strength_is_a_shift_of_the_gradient(backend: str) -> None:
    grad, memory = draw(20, 25), draw(20, 6, 25)
    options = {"trigger": "always", "backend": backend}
    v = ops.gem_project(grad, memory, memory_strength=0.7, **options)
    shifted = ops.gem_project(grad + 0.7 * memory.sum(-2), memory, **options)
    torch.testing.assert_close(v, shifted, rtol=0, atol=1e-12)


def test_slack_is_a_shift_of_the_products(backend: str) -> None:
    # slack = -G b constrains v - b, so the projection of g is b + that of g - b
    grad, memory, shift = draw(25), draw(6, 25), draw(25)
    options = {"trigger": "always", "backend": backend}
    v = ops.gem_project(grad, memory, slack=-(memory @ shift), **options)
    moved = shift + ops.gem_project(grad - shift, memory, **options)
    torch.testing.assert_close(v, moved, rtol=0, atol=1e-12)


def test_the_trigger_keeps_what_violates_nothing(backend: str) -> None:
    memory = draw(4, 20)
    grad = memory.sum(0) * 3 + 0.01 * draw(20)
    assert (memory @ grad > 0).all()
    v, dual, status = ops.gem_project(
        grad, memory, memory_strength=0.5, return_dual=True, backend=backend
    )
    assert torch.equal(v, grad)
    assert (status, dual.abs().max()) == (1, 0)
    v, dual, status = ops.gem_project(
        grad, memory, trigger="always", return_dual=True, backend=backend
    )
    assert torch.equal(v, grad)
    assert (status, dual.abs().max()) == (0, 0)
    _, dual, _ = ops.gem_project(
        grad, memory, memory_strength=0.5, trigger="always", return_dual=True, backend=backend
    )
    assert (dual == 0.5).all()
    # a row that takes no part does not trigger
    opposed = torch.cat([memory, -grad[None]])
    valid = torch.tensor([True] * 4 + [False])
    assert ops.gem_project(grad, opposed, valid=valid, return_dual=True, backend=backend)[2] == 1
    # nor does a violation within the slack
    slack = (opposed @ grad).abs() * 1.001
    assert ops.gem_project(grad, opposed, slack=slack, return_dual=True, backend=backend)[2] == 1


def test_invariants_of_a_projection_onto_a_cone(backend: str) -> None:
    grad, other, memory = draw(40, 15), draw(40, 15), draw(40, 6, 15)

    def project(g: Tensor, m: Tensor = memory) -> Tensor:
        return ops.gem_project(g, m, backend=backend)

    v, w = project(grad), project(other)
    close = {"rtol": 0.0, "atol": 1e-11}
    torch.testing.assert_close(project(v), v, **close)
    assert (v.norm(dim=-1) <= grad.norm(dim=-1) + 1e-12).all()
    assert ((v - w).norm(dim=-1) <= (grad - other).norm(dim=-1) + 1e-12).all()
    # Moreau: what is taken away is orthogonal to what is left
    assert (v * (grad - v)).sum(-1).abs().max() < 1e-11
    torch.testing.assert_close(project(3.7 * grad), 3.7 * v, **close)
    scales = torch.rand(40, 6, 1, dtype=torch.float64) * 100 + 0.01
    torch.testing.assert_close(project(grad, scales * memory), v, **close)
    order = torch.randperm(6)
    torch.testing.assert_close(project(grad, memory[:, order]), v, **close)


A, B = draw(2, 30)
C = draw(30)
DEPENDENT = {
    "duplicate": [A, A, B],
    "scaled-duplicate": [A, 3 * A, B],
    "opposite": [A, -A, B],
    "sum": [A, B, A + B],
    "difference": [A, B, A - B],
    "zero": [A, torch.zeros(30, dtype=torch.float64), B],
    "all-the-same": [A] * 8,
    "almost-the-same": [A, A + 1e-9 * C, B],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8], ids=["", "tiny", "huge"])
@pytest.mark.parametrize("name", DEPENDENT)
def test_dependent_rows(name: str, scale: float, dtype: torch.dtype, backend: str) -> None:
    rows = torch.stack(DEPENDENT[name])
    grad = -rows.sum(0) + draw(30)
    memory = (scale * rows).to(dtype)
    v, dual, status = ops.gem_project(
        (scale * grad).to(dtype), memory, return_dual=True, backend=backend
    )
    assert status == 0
    assert (dual >= 0).all()
    # the same cone from independent rows, by a solver that needs them
    keep = {"duplicate": [0, 2], "scaled-duplicate": [0, 2], "sum": [0, 1], "zero": [0, 2],
            "all-the-same": [0], "almost-the-same": [0, 2]}  # fmt: skip
    if name in keep:
        independent = rows[keep[name]]
    elif name == "opposite":
        # v is orthogonal to a
        independent = torch.stack([A, B])
        grad = grad - (grad @ A) / (A @ A) * A
        independent[1] = B - (B @ A) / (A @ A) * A
    else:
        independent = rows
    if name == "difference":
        # a.v >= b.v >= 0 says a.v >= 0 too
        independent = rows[1:]
    true = primal(grad, independent, torch.zeros(len(independent), dtype=torch.float64))
    limit = 1e-7 if name == "almost-the-same" else 1e-10
    limit = limit if dtype == torch.float64 else 3e-5
    np.testing.assert_allclose(v.double().numpy() / scale, true, rtol=0, atol=limit)


def test_more_rows_than_columns(backend: str) -> None:
    for _ in range(20):
        grad, memory = draw(4), draw(30, 4)
        v, _, status = ops.gem_project(grad, memory, return_dual=True, backend=backend)
        assert status == 0
        assert (memory @ v > -1e-9).all()
        # quadprog solves it as long as it is asked for v and not for the dual
        true = primal(grad, memory, torch.full((30,), 1e-12, dtype=torch.float64))
        np.testing.assert_allclose(v.numpy(), true, rtol=0, atol=1e-9)


def test_what_makes_the_peers_fail(backend: str) -> None:
    # a singular Gram matrix is an error there
    memory = torch.ones(2, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="not positive definite"):
        quadprog.solve_qp((memory @ memory.mT).numpy(), np.ones(2), np.eye(2), np.zeros(2))
    v = ops.gem_project(-memory[0], memory, backend=backend)
    assert v.abs().max() < 1e-12
    # a ridge of 1e-3 is more than small gradients have
    grad, small = 1e-8 * draw(60), 1e-8 * draw(3, 60)
    grad -= small.sum(0)
    assert (small.numpy() @ published(grad, small, 0.0, 1e-3) < -1e-17).any()
    v = ops.gem_project(grad, small, backend=backend)
    assert (small @ v > -1e-27).all()


def test_equals_the_loop_and_deleted_rows(backend: str) -> None:
    grad, memory, slack = draw(7, 30), draw(7, 8, 30), draw(7, 8).abs()
    valid = torch.rand(7, 8) < 0.6
    valid[0] = False
    v, dual, status = ops.gem_project(
        grad, memory, slack=slack, valid=valid, memory_strength=0.2, return_dual=True,
        backend=backend,
    )  # fmt: skip
    for i in range(7):
        rows = valid[i]
        alone = ops.gem_project(
            grad[i], memory[i][rows], slack=slack[i][rows], memory_strength=0.2, return_dual=True,
            backend=backend,
        )  # fmt: skip
        torch.testing.assert_close(v[i], alone[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(dual[i][rows], alone[1], rtol=1e-12, atol=1e-12)
        assert not dual[i][~rows].any()
        assert status[i] == alone[2]


@pytest.mark.rungs("cpu")
def test_float32_holds_the_conditions_over_many_columns(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(6, 1_000_003, generator=generator)
    memory += torch.randn(1_000_003, generator=generator)
    grad = torch.randn(1_000_003, generator=generator) - 0.4 * memory.sum(0)
    v, dual, status = ops.gem_project(grad, memory, return_dual=True, backend=backend)
    assert status == 0
    rows, out = memory.double(), v.double()
    room = (rows @ out) / (rows.norm(dim=1) * grad.double().norm())
    assert room.min() > -1e-6
    assert (dual * room)[dual > 0].abs().max() < 1e-6
    exact = ops.gem_project(grad.double(), rows, backend=backend)
    assert (out - exact).norm() / exact.norm() < 1e-6


@pytest.mark.rungs("cpu")
def test_many_hard_problems_are_solved(backend: str) -> None:
    """Ill-conditioned and integer problems, where ties and dependence are everywhere."""
    generator = torch.Generator().manual_seed(0)
    batch, t = 2000, 8
    rows = torch.randint(-2, 3, (batch, t, 6), generator=generator).double()
    grad = torch.randint(-3, 4, (batch, 6), generator=generator).double()
    v, dual, status = ops.gem_project(
        grad, rows, trigger="always", return_dual=True, backend=backend
    )
    assert not status.any()
    room = (rows @ v[..., None])[..., 0]
    assert room.min() > -1e-9
    assert (dual >= 0).all()
    assert (dual * room).abs().max() < 1e-8
    assert (v * (grad - v)).sum(-1).abs().max() < 1e-8
