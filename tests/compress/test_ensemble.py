"""The anytime ensemble: prefixes, early exit, composition, and the count of its work."""

from typing import Any

import pytest
import torch
from torch import nn

from saccade.compress import AnytimeEnsemble, count_macs
from saccade.models import create_model

STUDENTS = (1, 2, 3)


def students() -> list[Any]:
    torch.manual_seed(0)
    return [create_model(f"mamba_pkd_micro_s{k}") for k in STUDENTS]


def images(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_prefixes_are_sums_and_means_of_the_students(combine: str) -> None:
    alone = students()
    ensemble, x = AnytimeEnsemble(alone, combine).eval(), images()
    with torch.no_grad():
        for count in STUDENTS:
            expected = sum(student(x) for student in alone[:count])
            expected = expected / count if combine == "mean" else expected
            torch.testing.assert_close(ensemble(x, count), expected)
            assert torch.equal(ensemble.predict(x, n_students=count), expected.argmax(1))
        assert torch.equal(ensemble(x), ensemble(x, 3))


@pytest.mark.parametrize("compose", [False, True], ids=["apart", "composed"])
def test_students_with_zero_heads_change_nothing(compose: bool) -> None:
    ensemble, x = AnytimeEnsemble(students(), compose=compose).eval(), images()
    for stage in ensemble.stages[1:]:
        nn.init.zeros_(stage.student.head.weight)
        nn.init.zeros_(stage.student.head.bias)
    with torch.no_grad():
        torch.testing.assert_close(ensemble(x, 3), ensemble(x, 1), rtol=0, atol=0)


def test_composed_students_read_the_hidden_map_before() -> None:
    alone = students()
    ensemble, x = AnytimeEnsemble(alone, compose=True).eval(), images()
    bridge = ensemble.stages[1].bridge
    with torch.no_grad():
        torch.testing.assert_close(ensemble(x, 2) - ensemble(x, 1), alone[1](x))
    nn.init.normal_(bridge.weight)
    with torch.no_grad():
        hidden = alone[0].hidden(x)
        mapped = torch.einsum("oc,bchw->bohw", bridge.weight[..., 0, 0], hidden)
        second = alone[1].classify(alone[1].hidden(x, mapped))
        torch.testing.assert_close(ensemble(x, 2) - ensemble(x, 1), second)
    ensemble(x, 2).sum().backward()
    assert bridge.weight.grad.any()
    # the first student learns from its own logits alone
    apart = students()[0].eval()
    apart(x).sum().backward()
    for one, other in zip(alone[0].parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("compose", [False, True], ids=["apart", "composed"])
@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_early_exit_is_the_first_confident_prefix(combine: str, compose: bool) -> None:
    ensemble, x = AnytimeEnsemble(students(), combine, compose).eval(), images(40)
    for stage in ensemble.stages:
        stage.student.head.weight.data *= 10
    with torch.no_grad():
        steps = torch.stack([ensemble(x, count).softmax(1) for count in STUDENTS])
    # half of the images leave after the first student, and no rounding decides
    threshold = float(steps[0].amax(1).sort().values[19:21].mean())
    found = ensemble.predict_early(x, threshold)
    costs = torch.tensor(ensemble.macs(x[:1])).cumsum(0)
    for i in range(40):
        sure = [k for k in range(3) if steps[k, i].max() >= threshold]
        last = sure[0] if sure else 2
        assert found.students[i] == last + 1
        assert found.classes[i] == steps[last, i].argmax()
        assert found.macs[i] == costs[last]
    assert (found.students == 1).sum() == 20


@pytest.mark.parametrize(("threshold", "asked"), [(0.0, 1), (1.1, 3)], ids=["one", "all"])
def test_thresholds_at_the_ends(threshold: float, asked: int) -> None:
    found = AnytimeEnsemble(students()).eval().predict_early(images(), threshold)
    assert found.students.tolist() == [asked] * 6


def test_no_image_and_images_of_nan() -> None:
    ensemble = AnytimeEnsemble(students()).eval()
    assert ensemble.predict_early(images(0), 0.5).classes.shape == (0,)
    found = ensemble.predict_early(images() * torch.nan, 0.0)
    assert found.students.tolist() == [3] * 6


def _block_macs(dim: int, depth: int) -> int:
    """By hand: projections, convolution of 4 taps, 3 for every channel and state."""
    inner, rank, state = 2 * dim, -(-dim // 16), 16
    projections = 2 * dim * inner + inner * (rank + 2 * state) + rank * inner + inner * dim
    return depth * (projections + 4 * inner + 3 * inner * state)


@pytest.mark.parametrize(
    ("name", "dim", "depth"), [("s1", 16, 2), ("s7", 80, 4), ("teacher", 128, 8)]
)
def test_macs_by_hand(name: str, dim: int, depth: int) -> None:
    tokens = 49
    expected = tokens * (16 * dim + _block_macs(dim, depth)) + 10 * dim
    assert count_macs(create_model(f"mamba_pkd_{name}"), torch.zeros(2, 1, 28, 28)) == expected


def test_both_directions_cost_two_scans() -> None:
    x = torch.zeros(1, 1, 28, 28)
    one, two = (
        count_macs(create_model("mamba_pkd_s1", bidirectional=ways), x) for ways in (False, True)
    )
    assert two - one == 49 * _block_macs(16, 2)


def test_shares_of_the_work_of_the_abstract() -> None:
    sizes = [(16, 2), (32, 2), (32, 3), (48, 3), (64, 3), (64, 4), (80, 4)]
    shares = [100 * _block_macs(*size) / _block_macs(128, 8) for size in sizes]
    assert shares == pytest.approx([0.87, 2.4, 3.6, 6.8, 11.0, 14.7, 21.6], abs=0.06)
    x = torch.zeros(1, 1, 28, 28)
    ensemble = AnytimeEnsemble([create_model(f"mamba_pkd_s{k}") for k in range(1, 8)])
    fractions = ensemble.fractions(create_model("mamba_pkd_teacher"), x)
    assert fractions == sorted(fractions)
    assert fractions[0] == pytest.approx(0.01, abs=0.003)
    assert fractions[-1] == pytest.approx(0.61, abs=0.02)


def test_bridges_are_counted() -> None:
    apart, composed = (AnytimeEnsemble(students(), compose=c).macs(images(1)) for c in (0, 1))
    assert [b - a for a, b in zip(apart, composed, strict=True)] == [0, 16 * 8 * 16, 16 * 16 * 16]


def test_the_state_is_restored() -> None:
    first = AnytimeEnsemble(students(), compose=True)
    torch.manual_seed(9)
    fresh = [create_model(f"mamba_pkd_micro_s{k}") for k in STUDENTS]
    second = AnytimeEnsemble(fresh, compose=True)
    assert not torch.equal(first(images()), second(images()))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(images()), second(images()))


def test_mistakes_get_a_sentence() -> None:
    ensemble = AnytimeEnsemble(students())
    with pytest.raises(ValueError, match="between 1 and 3, got 4"):
        ensemble(images(), 4)
    with pytest.raises(ValueError, match="between 1 and 0, got 0"):
        AnytimeEnsemble().predict(images())
    with pytest.raises(ValueError, match="sum, mean, got 'vote'"):
        AnytimeEnsemble(combine="vote")
    with pytest.raises(TypeError, match=r"hidden\(\) and classify\(\); Linear has none"):
        AnytimeEnsemble([nn.Linear(2, 2)], compose=True)
    with pytest.raises(ValueError, match="at least one image"):
        count_macs(nn.Linear(2, 2), torch.zeros(0, 2))


def test_students_without_hidden_maps_are_combined_too() -> None:
    parts = [nn.Linear(4, 3), nn.Linear(4, 3)]
    x = torch.randn(5, 4)
    torch.testing.assert_close(AnytimeEnsemble(parts)(x), parts[0](x) + parts[1](x))
