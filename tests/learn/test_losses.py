"""Hinge losses against the sheet's worked example, their gradient, and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from saccade.learn.losses import HingeLoss

WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, -1.0]], dtype=torch.float64)
SCORES = torch.tensor([[0.2, -0.3, 1.5], [-1.2, 0.4, 0.1]], dtype=torch.float64)
TARGETS = torch.tensor([2, 0])


@pytest.mark.parametrize(("reduction", "value"), [("mean", 2.865), ("sum", 8.595)])
def test_worked_example(reduction: str, value: float) -> None:
    loss = HingeLoss(reduction=reduction)(SCORES, TARGETS, WEIGHT)
    assert loss.item() == pytest.approx(value, abs=1e-9)


def test_hinge_of_order_one() -> None:
    signs = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, -1.0]])
    expected = WEIGHT.square().mean() + 2 * (1 - signs * SCORES).clamp(min=0).mean()
    torch.testing.assert_close(HingeLoss(C=2.0, p=1)(SCORES, TARGETS, WEIGHT), expected)


@pytest.mark.parametrize("C", [1.0, 0.25])
def test_zero_scores_cost_c(C: float) -> None:
    weight = torch.ones(3, 4)
    assert HingeLoss(C)(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long), weight) == 1 + C


def test_kept_margins_have_no_gradient() -> None:
    scores = torch.tensor([[3.0, -1.0, -2.0]], requires_grad=True)
    loss = HingeLoss()(scores, torch.tensor([0]), torch.ones(3, 4))
    loss.backward()
    assert loss == 1
    assert not scores.grad.any()


def test_gradient() -> None:
    scores = SCORES.clone().requires_grad_()
    HingeLoss(C=3.0)(scores, TARGETS, WEIGHT).backward()
    signs = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, -1.0]], dtype=torch.float64)
    expected = -2 * 3.0 * signs * (1 - signs * SCORES).clamp(min=0) / 6
    torch.testing.assert_close(scores.grad, expected)


def test_mixed_targets_stand_between_the_signs() -> None:
    one_hot = torch.nn.functional.one_hot(TARGETS, 3).double()
    loss = HingeLoss()
    torch.testing.assert_close(
        loss(SCORES, one_hot, WEIGHT), loss(SCORES, TARGETS, WEIGHT), rtol=0, atol=0
    )


def test_minimum_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5))
    y = rng.integers(0, 3, 90)
    x[np.arange(90), y] += 1.5
    weight = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    features, targets, loss = torch.tensor(x), torch.tensor(y), HingeLoss(C=9.0, reduction="sum")
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(features @ weight.T + bias, targets, weight)
        value.backward()
        return value

    optimizer.step(step)
    # a large intercept_scaling leaves the intercept unregularised
    svc = LinearSVC(C=9.0 / 90, dual=False, intercept_scaling=1e3, tol=1e-10, max_iter=10_000)
    expected = svc.fit(x, y).decision_function(x)
    scores = (features @ weight.T + bias).detach().numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"C": -1.0}, "C must be at least 0; got -1"),
        ({"p": 3}, "p must be 1 or 2; got 3"),
        ({"reduction": "none"}, "mean, sum; got 'none'"),
    ],
    ids=["C", "p", "reduction"],
)
def test_mistakes_get_a_sentence(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        HingeLoss(**options)
