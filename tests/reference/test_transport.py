"""The reference against POT, closed forms, and automatic differentiation of its own loop."""

from __future__ import annotations

import math

import pytest
import torch

from saccade.reference import transport

F64 = torch.float64
INF = math.inf


def draw(n: int, m: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    a, b = torch.rand(n, dtype=F64) + 0.1, torch.rand(m, dtype=F64) + 0.1
    return torch.rand(n, m, dtype=F64), a / a.sum(), b / b.sum()


def test_two_by_two() -> None:
    cost, eps = torch.rand(2, 2, dtype=F64), 0.3
    half = torch.full((2,), 0.5, dtype=F64)
    plan = transport.sinkhorn(cost, half, half, eps=eps, max_iter=500).plan
    gap = cost[0, 1] + cost[1, 0] - cost[0, 0] - cost[1, 1]
    assert plan[0, 0].item() == pytest.approx(
        0.5 * torch.sigmoid(gap / (2 * eps)).item(), abs=1e-12
    )


@pytest.mark.parametrize("rho", [0.2, 5.0])
def test_one_pair_relaxed(rho: float) -> None:
    cost, eps = torch.tensor([[0.7]], dtype=F64), 0.3
    a, b = torch.tensor([0.4], dtype=F64), torch.tensor([1.7], dtype=F64)
    got = transport.sinkhorn(cost, a, b, eps=eps, rho=(rho, rho), max_iter=2000).plan
    true = torch.exp(((eps + rho) * torch.log(a * b) - cost[0]) / (eps + 2 * rho))
    torch.testing.assert_close(got[0], true, rtol=1e-12, atol=0.0)


def test_limits_of_eps() -> None:
    cost, a, b = draw(5, 7)
    wide = transport.sinkhorn(cost, a, b, eps=1e6, max_iter=100).plan
    torch.testing.assert_close(wide, torch.outer(a, b), rtol=1e-5, atol=0.0)
    cost = torch.rand(6, 6, dtype=F64)
    uniform = torch.full((6,), 1 / 6, dtype=F64)
    sharp = transport.sinkhorn(
        cost, uniform, uniform, eps=4e-3, max_iter=3000, tol=1e-5, eps_scaling=0.5
    )
    scipy_optimize = pytest.importorskip("scipy.optimize")
    rows, columns = scipy_optimize.linear_sum_assignment(cost.numpy())
    assert sharp.value_linear.item() == pytest.approx(cost[rows, columns].mean().item(), abs=8e-3)


def test_what_is_added_to_rows_and_columns_moves_nothing() -> None:
    cost, a, b = draw(5, 7)
    shifted = cost + torch.randn(5, 1, dtype=F64) + torch.randn(7, dtype=F64)
    one, other = (transport.sinkhorn(c, a, b, eps=0.1, max_iter=500) for c in (cost, shifted))
    torch.testing.assert_close(one.plan, other.plan, rtol=1e-9, atol=1e-12)


def test_one_dimensional_gaussians() -> None:
    grid = torch.linspace(-6, 6, 161, dtype=F64)
    cost, eps = (grid[:, None] - grid).square(), 0.5

    def density(mean: float, spread: float) -> torch.Tensor:
        p = torch.exp(-((grid - mean) ** 2) / (2 * spread**2))
        return p / p.sum()

    one, two = 0.6, 0.9
    plan = transport.sinkhorn(cost, density(0.2, one), density(-0.3, two), eps=eps, tol=1e-12,
                              max_iter=3000).plan  # fmt: skip
    x, y = grid[:, None] - 0.2, grid + 0.3
    covariance = (plan * x * y).sum().item()
    # the coupling of two Gaussians, Janati et al., arXiv 2006.02572, in one dimension
    true = 0.5 * (math.sqrt(4 * one**2 * two**2 + eps**2 / 4) - eps / 2)
    assert covariance == pytest.approx(true, abs=1e-6)


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
@pytest.mark.parametrize("rho", [(INF, INF), (0.3, 0.5), (INF, 0.5)], ids=str)
def test_plans_of_pot(rho: tuple[float, float], reg_type: str) -> None:
    ot = pytest.importorskip("ot")
    cost, a, b = draw(9, 12)
    kl = reg_type == "kl"
    if rho == (INF, INF):
        true = ot.sinkhorn(a.numpy(), b.numpy(), cost.numpy(), 0.1, stopThr=1e-15,
                           numItermax=5000)  # fmt: skip
    else:
        b = 1.3 * b
        # POT says that an entropy has no reference measure
        quiet = pytest.MonkeyPatch.context()
        with quiet if kl else pytest.warns(UserWarning, match="reg_type"):
            true = ot.unbalanced.sinkhorn_unbalanced(
                a.numpy(), b.numpy(), cost.numpy(), 0.1, rho, reg_type=reg_type, stopThr=1e-15,
                numItermax=5000,
            )  # fmt: skip
    got = transport.sinkhorn(cost, a, b, eps=0.1, rho=rho, kl=kl, max_iter=3000).plan
    torch.testing.assert_close(got, torch.from_numpy(true), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
def test_values_of_pot(reg_type: str) -> None:
    ot = pytest.importorskip("ot")
    cost, a, b = draw(9, 12)
    true = ot.solve(cost.numpy(), a.numpy(), b.numpy(), reg=0.1, max_iter=5000, tol=1e-14,
                    reg_type="KL" if reg_type == "kl" else "entropy")  # fmt: skip
    got = transport.sinkhorn(cost, a, b, eps=0.1, kl=reg_type == "kl", max_iter=3000)
    assert got.value.item() == pytest.approx(true.value, rel=1e-9)
    assert got.value_linear.item() == pytest.approx(true.value_linear, rel=1e-9)


def test_the_value_is_what_is_minimised() -> None:
    cost, a, b = draw(5, 7)
    eps, rho = 0.2, (0.4, 0.9)
    for kl in (True, False):
        solution = transport.sinkhorn(cost, a, 1.2 * b, eps=eps, rho=rho, kl=kl, max_iter=500)

        def objective(plan: torch.Tensor, kl: bool = kl) -> torch.Tensor:
            def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
                return (p * (p / q).log() - p + q).sum()

            entropy = (
                divergence(plan, torch.outer(a, 1.2 * b))
                if kl
                else (plan * (plan.log() - 1)).sum() + 1
            )
            relaxed = rho[0] * divergence(plan.sum(1), a) + rho[1] * divergence(
                plan.sum(0), 1.2 * b
            )
            return (cost * plan).sum() + eps * entropy + relaxed

        plan = solution.plan.clone().requires_grad_()
        value = objective(plan)
        torch.testing.assert_close(value.detach(), solution.value, rtol=1e-10, atol=1e-12)
        (slope,) = torch.autograd.grad(value, plan)
        assert slope.abs().max() < 1e-9


def test_relaxation_without_end_is_balanced() -> None:
    cost, a, b = draw(5, 7)
    strict = transport.sinkhorn(cost, a, b, eps=0.1, max_iter=500)
    loose = transport.sinkhorn(cost, a, b, eps=0.1, rho=(1e7, 1e7), max_iter=500)
    torch.testing.assert_close(strict.plan, loose.plan, rtol=1e-4, atol=1e-9)


def test_marginals_after_as_many_sweeps_as_pot() -> None:
    ot = pytest.importorskip("ot")
    cost, a, b = draw(15, 11)
    for sweeps in (1, 3, 10):
        _, log = ot.bregman.sinkhorn_log(a.numpy(), b.numpy(), cost.numpy(), 0.05, warn=False,
                                         numItermax=sweeps, stopThr=0.0, log=True)  # fmt: skip
        got = transport.sinkhorn(cost, a, b, eps=0.05, max_iter=sweeps)
        # POT updates the columns first
        swapped = transport.sinkhorn(cost.mT, b, a, eps=0.05, max_iter=sweeps)
        potentials = torch.from_numpy(log["log_u"])[:, None] + torch.from_numpy(log["log_v"])
        ours = {True: got, False: swapped}
        plans = [
            (ours[True].f[:, None] + ours[True].g) / 0.05,
            ((ours[False].f[:, None] + ours[False].g) / 0.05).mT,
        ]
        assert min((plan - potentials).abs().max() for plan in plans) < 1e-9
