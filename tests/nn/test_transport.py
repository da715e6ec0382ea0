"""The layers of optimal transport compute what the functions do."""

from __future__ import annotations

import pytest
import torch

from saccade import ops
from saccade.nn import Sinkhorn, SinkhornLoss


def test_the_layer_is_the_function() -> None:
    cost, mask = torch.rand(2, 4, 5), torch.rand(2, 4, 5) < 0.9
    layer = Sinkhorn(0.2, max_iter=20, rho=1.0)
    expected = ops.sinkhorn(cost, eps=0.2, max_iter=20, rho=1.0, mask=mask)
    for got, true in zip(layer(cost, mask=mask), expected, strict=True):
        assert torch.equal(got, true)
    assert "rho=1.0" in repr(layer)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("debias", [False, True])
def test_the_loss_is_the_function(debias: bool, reduction: str) -> None:
    x, y = torch.rand(3, 6, 2, requires_grad=True), torch.rand(3, 5, 2)
    loss = SinkhornLoss(0.2, p=1, debias=debias, reduction=reduction, max_iter=30)(x, y)
    if debias:
        each = ops.sinkhorn_divergence(x, y, eps=0.2, p=1, max_iter=30)
    else:
        each = ops.sinkhorn_points(x, y, eps=0.2, p=1, max_iter=30).value
    assert torch.equal(loss, {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction])
    loss.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_reduction_that_is_none() -> None:
    with pytest.raises(ValueError, match="reduction must be mean, sum or none, got 'max'"):
        SinkhornLoss(0.1, reduction="max")
