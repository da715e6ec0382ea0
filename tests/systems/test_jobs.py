"""Calls in turn and in processes of their own."""

import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from saccade.systems._jobs import run_all


@pytest.fixture(autouse=True)
def new_processes_find_this_file(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def square(number, *, started):
    started(f"squaring {number}")
    # the first takes longest, so that order of completion and of calls differ
    time.sleep(0.3 if number == 0 else 0)
    return number**2, torch.get_num_threads(), os.getpid()


def refuse(*, started):
    started("refusing")
    raise FileNotFoundError("mnist is not in /nowhere")


def leave(trace, *, started):
    trace.touch()
    time.sleep(0.5)


def vanish(*, started):
    os._exit(1)


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_answers_keep_their_order(jobs):
    said = []
    found = run_all([partial(square, n) for n in range(3)], jobs, lambda *news: said.append(news))
    assert [value for value, _, _ in found] == [0, 1, 4]
    assert sorted(said) == [(n, f"squaring {n}") for n in range(3)]
    threads = max(1, torch.get_num_threads() // min(jobs, 3))
    assert {count for _, count, _ in found} == {threads}
    assert (os.getpid() in {process for _, _, process in found}) == (jobs == 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_call_raises_comes_as_it_is(jobs):
    said = []
    with pytest.raises(FileNotFoundError, match="mnist is not in"):
        run_all([partial(square, 1), refuse], jobs, lambda *news: said.append(news))
    assert (1, "refusing") in said


def test_after_a_failure_nothing_starts(tmp_path):
    traces = [tmp_path / str(n) for n in range(8)]
    with pytest.raises(FileNotFoundError):
        run_all([refuse, *[partial(leave, trace) for trace in traces]], 2, lambda *news: None)
    # what ran beside it, and what its process took before the news was there; the pool has handed
    # out more
    assert len(list(tmp_path.iterdir())) <= 2


def test_a_process_that_vanishes_is_a_sentence():
    with pytest.raises(RuntimeError, match="one of 2 processes ended without an answer"):
        run_all([vanish, vanish], 2, lambda *news: None)
