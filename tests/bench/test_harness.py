from __future__ import annotations

import pytest

from saccade.bench._harness import Budget, Call, WallClock, interleave, summarize


class FakeClock:
    """Knows what each function costs, and keeps a diary instead of running anything."""

    def __init__(self, cost: dict[Call, float]) -> None:
        self.cost, self.diary = cost, []

    def time(self, function: Call, calls: int) -> list[float]:
        self.diary += [function] * calls
        return [self.cost[function]] * calls


def fast() -> None:
    pass


def slow() -> None:
    pass


def test_summary_is_the_median_with_percentiles() -> None:
    timing = summarize([0.001 * i for i in range(11)])
    assert (timing.median_ms, timing.p20_ms, timing.p80_ms) == pytest.approx((5.0, 2.0, 8.0))
    assert timing.samples == 11


def test_summary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 sample, got 0"):
        summarize([])


BUDGETS = [
    pytest.param(1e-4, 15 * 5, id="fast: every round, five calls each"),
    pytest.param(0.02, 15 * 2, id="a block of 50 ms holds two calls"),
    pytest.param(0.5, 10, id="the budget of 5 s ends it"),
    pytest.param(60.0, 3, id="slow: three rounds all the same"),
]


@pytest.mark.parametrize(("seconds", "samples"), BUDGETS)
def test_samples_follow_the_budget(seconds: float, samples: int) -> None:
    timing = interleave({"fast": fast}, FakeClock({fast: seconds}), Budget())["fast"]
    assert timing.samples == samples
    assert timing.median_ms == pytest.approx(seconds * 1e3)


def test_very_slow_functions_are_warmed_up_once() -> None:
    clock = FakeClock({slow: 60.0})
    interleave({"slow": slow}, clock, Budget())
    assert len(clock.diary) == 1 + 3


def test_rounds_are_interleaved_over_the_whole_run() -> None:
    clock = FakeClock({fast: 1e-3, slow: 2.0})
    timings = interleave({"fast": fast, "slow": slow}, clock, Budget(rounds=12))
    assert timings["slow"].samples == 3
    diary = clock.diary[4:]
    third = len(diary) // 3
    assert [diary[i : i + third + 1].count(slow) for i in (0, third, 2 * third)] == [1, 1, 1]


def test_order_rotates() -> None:
    clock = FakeClock({fast: 1.0, slow: 1.0})
    interleave({"fast": fast, "slow": slow}, clock, Budget(rounds=4, seconds=4.0))
    assert clock.diary[4:] == [fast, slow, slow, fast] * 2


def test_nothing_to_time() -> None:
    assert interleave({}, FakeClock({}), Budget()) == {}


def test_wall_clock_measures_each_call() -> None:
    calls: list[int] = []
    seconds = WallClock().time(lambda: calls.append(1), 4)
    assert len(calls) == len(seconds) == 4
    assert all(s >= 0 for s in seconds)
