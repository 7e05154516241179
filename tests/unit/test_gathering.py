"""Callers that come while a run is under way go together with the next one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sidecar.errors import EventError, RowError
from sidecar.serving import gathering
from sidecar.serving.gathering import Gatherer

LONG_S = 10.0


class Runs:
    """Work that records each run, and holds the first one until it is let go."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.waiting: set[int] = set()
        self.error: BaseException | None = None

    def __call__(self, items: list[int]) -> None:
        self.runs.append(items)
        self.has_begun.set()
        assert self.may_end.wait(LONG_S)
        if self.error is not None and len(self.runs) > 1:
            raise self.error


    def check(self) -> None:
        """Note a caller that waits for its run."""
        self.waiting.add(threading.get_ident())


@pytest.fixture(autouse=True)
def _checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "CHECK_S", 0.001)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def held(gatherer: Gatherer[int], runs: Runs, pool: ThreadPoolExecutor) -> Future[None]:
    """Start a run that is held up."""
    first = pool.submit(gatherer.submit, [0])
    assert runs.has_begun.wait(LONG_S)
    return first


def waiting(gatherer: Gatherer[int], runs: Runs, pool: ThreadPoolExecutor, *batches: list[int],
            ) -> list[Future[None]]:
    """Hand batches in, one after the other."""
    futures = []
    for count, batch in enumerate(batches, 1):
        futures.append(pool.submit(gatherer.submit, batch))
        until = time.monotonic() + LONG_S
        while len(runs.waiting) < count:
            assert time.monotonic() < until
            time.sleep(0.001)
    return futures


def test_lone_caller_runs_in_its_own_thread() -> None:
    threads: list[threading.Thread] = []
    gatherer = Gatherer[int](lambda items: threads.append(threading.current_thread()),
                             runs=1, most=10)
    gatherer.submit([1])
    assert threads == [threading.current_thread()]


def test_callers_that_come_meanwhile_go_together_in_order(pool: ThreadPoolExecutor) -> None:
    runs = Runs()
    gatherer = Gatherer[int](runs, runs=1, most=10, check=runs.check)
    futures = [held(gatherer, runs, pool), *waiting(gatherer, runs, pool, [1, 2], [3], [4])]
    runs.may_end.set()
    for future in futures:
        future.result(LONG_S)
    assert runs.runs == [[0], [1, 2, 3, 4]]


def test_run_holds_no_more_than_it_may(pool: ThreadPoolExecutor) -> None:
    runs = Runs()
    gatherer = Gatherer[int](runs, runs=1, most=3, check=runs.check)
    futures = [held(gatherer, runs, pool),
               *waiting(gatherer, runs, pool, [1, 2], [3], [4], [5, 6, 7, 8], [9])]
    runs.may_end.set()
    for future in futures:
        future.result(LONG_S)
    assert runs.runs == [[0], [1, 2, 3], [4], [5, 6, 7, 8], [9]]


def test_as_many_runs_as_allowed_go_at_once(pool: ThreadPoolExecutor) -> None:
    runs = Runs()
    gatherer = Gatherer[int](runs, runs=2, most=10, check=runs.check)
    futures = [held(gatherer, runs, pool)]
    runs.has_begun.clear()
    futures += [held(gatherer, runs, pool), *waiting(gatherer, runs, pool, [1], [2])]
    assert runs.runs == [[0], [0]]
    runs.may_end.set()
    for future in futures:
        future.result(LONG_S)
    assert sorted(item for run in runs.runs for item in run) == [0, 0, 1, 2]


@pytest.mark.parametrize("error", [
    ValueError("full"),
    RowError("events.jsonl", 3, "full")])  # cannot be copied: of its message alone it is not made
def test_error_reaches_every_caller_of_its_run_and_no_other(pool: ThreadPoolExecutor,
                                                            error: Exception) -> None:
    runs = Runs()
    runs.error = error
    gatherer = Gatherer[int](runs, runs=1, most=2, check=runs.check)
    first = held(gatherer, runs, pool)
    failed = waiting(gatherer, runs, pool, [1], [2])
    runs.may_end.set()
    first.result(LONG_S)
    for future in failed:
        with pytest.raises(type(error), match="full"):
            future.result(LONG_S)
    runs.error = None
    gatherer.submit([3])


def test_run_that_is_cut_off_leaves_nobody_waiting(pool: ThreadPoolExecutor) -> None:
    runs = Runs()
    runs.error = SystemExit()
    gatherer = Gatherer[int](runs, runs=1, most=2, check=runs.check)
    first = held(gatherer, runs, pool)
    leader, follower = waiting(gatherer, runs, pool, [1], [2])
    runs.may_end.set()
    first.result(LONG_S)
    with pytest.raises(SystemExit):
        leader.result(LONG_S)
    with pytest.raises(RuntimeError, match="cut off"):
        follower.result(LONG_S)
    runs.error = None
    gatherer.submit([3])


def test_many_threads_each_get_their_own_done() -> None:
    done: set[int] = set()
    gatherer = Gatherer[int](done.update, runs=2, most=7)

    def work(number: int) -> bool:
        gatherer.submit([number])
        return number in done

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(2000)))
    assert done == set(range(2000))


def test_caller_in_no_run_yet_may_leave(pool: ThreadPoolExecutor) -> None:
    runs, is_in_vain = Runs(), threading.Event()

    def check() -> None:
        runs.check()
        if is_in_vain.is_set():
            raise EventError("in vain")

    gatherer = Gatherer[int](runs, runs=1, most=10, check=check)
    first = held(gatherer, runs, pool)
    [waits] = waiting(gatherer, runs, pool, [1])
    is_in_vain.set()
    with pytest.raises(EventError):
        waits.result(LONG_S)
    is_in_vain.clear()
    runs.waiting.clear()
    later = waiting(gatherer, runs, pool, [2])
    runs.may_end.set()
    for future in (first, *later):
        future.result(LONG_S)
    assert runs.runs == [[0], [2]]
