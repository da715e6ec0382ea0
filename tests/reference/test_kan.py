"""The KAN reference against closed forms and an elementwise sum written from the definition."""

import math

import pytest
import torch

from saccade.reference.kan import kan_basis, kan_linear

MEDVIT = {"centres": torch.linspace(-2, 2, 8, dtype=torch.float64), "inv_width": 1 / 0.33}


def sech2(z: float) -> float:
    return 1.0 / math.cosh(z) ** 2


def test_basis_is_one_at_its_centres() -> None:
    phi = kan_basis(MEDVIT["centres"], "rswaf", **MEDVIT)
    torch.testing.assert_close(phi.diagonal(), torch.ones(8, dtype=torch.float64))


def test_sum_of_the_eight_functions_at_zero() -> None:
    total = kan_basis(torch.zeros(1, dtype=torch.float64), "rswaf", **MEDVIT).sum()
    assert total.item() == pytest.approx(2 * (2.177e-5 + 6.947e-4 + 2.1937e-2 + 0.51107), abs=1e-5)
    assert total.item() == pytest.approx(1.06745, abs=5e-6)


@pytest.mark.parametrize(
    ("mode", "inv_width", "used"),
    [("exact", 0.5, 0.5), ("exact", 3.0, 3.0), ("fasterkan", 0.5, 1.0)],
    ids=["exact-half", "exact-3", "fasterkan ignores the width"],
)
def test_layer_is_the_double_sum(mode: str, inv_width: float, used: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, 7, dtype=torch.float64)
    base, bias = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    y = kan_linear(
        x, weight, basis="rswaf", base_weight=base, bias=bias, inv_width=inv_width, mode=mode
    )
    centres = [-1.2 + 1.4 * n / 6 for n in range(7)]
    for b in range(3):
        for o in range(4):
            total = bias[o].item()
            for i in range(5):
                u = x[b, i].item()
                total += base[o, i].item() * u / (1 + math.exp(-u))
                total += sum(
                    sech2((u - c) * used) * weight[o, i, n].item() for n, c in enumerate(centres)
                )
            assert y[b, o].item() == pytest.approx(total, rel=1e-12)


def test_derivative_is_the_closed_form() -> None:
    u = torch.linspace(-3, 3, 41, dtype=torch.float64, requires_grad=True)
    phi = kan_basis(u, "rswaf", **MEDVIT)
    (grad,) = torch.autograd.grad(phi.sum(), u)
    t = torch.tanh((u.detach()[:, None] - MEDVIT["centres"]) / 0.33)
    torch.testing.assert_close(grad, (-2 * t * (1 - t**2) / 0.33).sum(-1))


@pytest.mark.parametrize("inv_width", [0.5, 0.25, 3.0])
def test_fasterkan_scales_the_true_gradient_by_the_inverse_width(inv_width: float) -> None:
    x = torch.randn(
        6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()
    cotangent = torch.randn(
        6, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    published = kan_basis(x, "rswaf", inv_width=inv_width, mode="fasterkan")
    true = kan_basis(x, "rswaf", inv_width=1.0)
    assert torch.equal(published, true)
    (dx,) = torch.autograd.grad(published, x, cotangent)
    (true_dx,) = torch.autograd.grad(true, x, cotangent)
    torch.testing.assert_close(dx, inv_width * true_dx, rtol=1e-14, atol=0)


def test_far_inputs_give_zero_and_no_nan() -> None:
    x = torch.tensor([-1e4, 1e4, 1e30], requires_grad=True)
    phi = kan_basis(x, "rswaf", inv_width=1 / 0.33)
    phi.sum().backward()
    assert torch.equal(phi, torch.zeros(3, 8))
    assert torch.equal(x.grad, torch.zeros(3))
    assert kan_basis(torch.tensor([float("nan")]), "rswaf").isnan().all()
