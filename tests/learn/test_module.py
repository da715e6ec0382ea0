"""Loss, schedule and parameter groups against their definitions."""

import math

import pytest
import torch
from torch import nn

from saccade.learn._report import per_class
from saccade.learn.config import TrainConfig
from saccade.learn.losses import classification_loss
from saccade.learn.module import _optimizer, cosine_factor, learning_rate, parameter_groups

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
TARGETS = torch.tensor([0, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_cross_entropy(smoothing, soft):
    one_hot = torch.nn.functional.one_hot(TARGETS, 3).float()
    smoothed = one_hot * (1 - smoothing) + smoothing / 3
    expected = -(smoothed * LOGITS.log_softmax(1)).sum(1).mean()
    loss = classification_loss(LOGITS, one_hot if soft else TARGETS, "ce", smoothing)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_binary_cross_entropy(smoothing, soft):
    one_hot = torch.nn.functional.one_hot(TARGETS, 3).float()
    target = one_hot * (1 - smoothing) + smoothing / 2
    chance = LOGITS.sigmoid()
    expected = -(target * chance.log() + (1 - target) * (1 - chance).log()).mean()
    loss = classification_loss(LOGITS, one_hot if soft else TARGETS, "bce", smoothing)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("step", "steps", "warmup", "floor", "factor"),
    [
        (0, 10, 0, 0.1, 1.0),
        (5, 10, 0, 0.1, 0.55),
        (10, 10, 0, 0.1, 0.1),
        (99, 10, 0, 0.1, 0.1),
        (0, 10, 4, 0.0, 0.25),
        (3, 10, 4, 0.0, 1.0),
        (4, 10, 4, 0.0, 1.0),
        (7, 10, 4, 0.0, 0.5),
        (2, 10, 0, 0.0, 0.5 * (1 + math.cos(0.2 * math.pi))),
        (0, 0, 0, 0.5, 1.0),
    ],
)
def test_cosine(step, steps, warmup, floor, factor):
    assert cosine_factor(step, steps, warmup, floor) == pytest.approx(factor)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.table = nn.Parameter(torch.zeros(2, 5))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def no_weight_decay(self):
        return {"table"}


def test_biases_and_norms_are_not_decayed():
    decayed, spared = parameter_groups(Named(), 0.05, decay_all=False)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 3)]
    assert sum(p.numel() for p in spared["params"]) == 2 + 2 + 2 + 10


def test_decay_all_is_one_group():
    (group,) = parameter_groups(Named(), 0.05, decay_all=True)
    assert len(group["params"]) == 5
    assert group["weight_decay"] == 0.05


def test_per_class_survives_empty_rows_and_columns():
    rows = per_class(torch.tensor([[2, 0, 1], [0, 0, 0], [1, 0, 3]]))
    assert [row["images"] for row in rows] == [3, 0, 4]
    assert [row["recall"] for row in rows] == [2 / 3, 0.0, 0.75]
    assert [row["precision"] for row in rows] == [2 / 3, 0.0, 0.75]


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({"schedule": "constant"}, [1.0] * 8),
        ({"schedule": "constant", "warmup_epochs": 2}, [0.25, 0.5, 0.75, *[1.0] * 5]),
        ({"schedule": "exponential"}, [*[1.0] * 4, *[0.94] * 4]),
        ({"schedule": "exponential", "lr_decay": 0.5, "lr_decay_epochs": 1}, None),
    ],
    ids=["constant", "with warm-up", "every two epochs", "every epoch"],
)
def test_schedules(options, factors):
    factor = learning_rate(TrainConfig(epochs=4, **options), steps=8)
    expected = factors or [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert [factor(step) for step in range(8)] == expected


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_is_tensorflows(momentum):
    p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    config = TrainConfig(optimizer="rmsprop", lr=0.045, momentum=momentum)
    optimizer = _optimizer([{"params": [p]}], config)
    square, velocity = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    expected = p.detach().clone()
    for step in range(3):
        p.grad = torch.tensor([0.3, -4.0], dtype=torch.float64) * (step + 1)
        square = 0.9 * square + 0.1 * p.grad**2
        velocity = momentum * velocity + 0.045 * p.grad / (square + 1.0).sqrt()
        expected -= velocity
        optimizer.step()
        torch.testing.assert_close(p.detach(), expected)
