"""Calls that need nothing of each other: in turn, or in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")

# Told of what a call starts: its index among the calls, and a word.
Started = Callable[[int, str], None]

# In a process of `run_all`: where `started` writes, and whether no further call begins.
_news: Any = None
_stop: Any = None


def run_all(calls: Sequence[Callable[..., T]], jobs: int, started: Started) -> list[T]:
    """What every call gives, in their order.

    Args:
        calls: each takes `started`, a function of one word; with several jobs it can be pickled.
        jobs: processes, at least 1; one runs the calls here. torch's threads are divided among
            them.
        started: called here for every word that a call says.

    Raises:
        RuntimeError: a process ended without an answer; what a call raises comes as it is.
    """
    jobs = min(jobs, len(calls))
    if jobs == 1:
        return [
            call(started=lambda word, index=index: started(index, word))
            for index, call in enumerate(calls)
        ]
    import torch

    context = get_context("spawn")
    # no thread behind it: a word is there before its call ends
    news, stop = context.SimpleQueue(), context.Event()
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, context, _prepare, (threads, news, stop)) as pool:
        waiting = [pool.submit(_call, call, index) for index, call in enumerate(calls)]
        try:
            _follow(waiting, news, started)
            return [done.result() for done in waiting]
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of {jobs} processes ended without an answer; the machine may have stopped it "
                "for its memory, of which fewer jobs need less"
            ) from error
        finally:
            # the pool hands out calls in advance, which it cannot cancel
            stop.set()
            pool.shutdown(cancel_futures=True)


def _follow(waiting: list[Future[T]], news: Any, started: Started) -> None:
    """Pass on what the processes say, until all calls are done or one raises."""
    while waiting:
        done, pending = wait(waiting, timeout=0.1, return_when=FIRST_EXCEPTION)
        waiting = list(pending)
        while not news.empty():
            started(*news.get())
        for call in done:
            call.result()


def _prepare(threads: int, news: Any, stop: Any) -> None:
    """In a new process: its threads, and how it talks with the one that made it."""
    import torch

    global _news, _stop
    _news, _stop = news, stop
    torch.set_num_threads(threads)


def _call(call: Callable[..., T], index: int) -> T:
    if _stop.is_set():
        raise CancelledError
    return call(started=lambda word: _news.put((index, word)))
