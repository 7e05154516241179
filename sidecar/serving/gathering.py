"""Gathers what arrives while a write is under way, and sends it together with the next write.

Eight clients that send one event each cost OpenSearch three requests, not twenty-four, and two of
them that write about one user do not race each other. No caller waits on purpose: a lone caller
runs at once, in its own thread.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

CHECK_S = 0.5  # between two looks whether it is worth waiting on


class _Waiting(Generic[T]):
    """One caller: what it handed in, and how its run went."""

    __slots__ = ("error", "is_done", "items", "turn")

    def __init__(self, items: list[T]) -> None:
        self.items = items
        self.turn = threading.Event()  # set when its items are done, or when it is to lead
        self.is_done = False
        self.error: Exception | None = None


class Gatherer(Generic[T]):
    """Runs ``work`` on what all threads hand in, a few runs at a time; thread-safe.

    One caller leads a run and takes along the callers that have come in the meantime, in order of
    arrival. Then it hands the lead to the next caller and leaves.
    """

    def __init__(self, work: Callable[[list[T]], None], *, runs: int, most: int,
                 check: Callable[[], None] = lambda: None) -> None:
        """Allow ``runs`` runs at once, of at most ``most`` items, or of one caller's.

        ``check`` is called now and then while a caller waits; one that is in no run yet gets what
        it raises.
        """
        self._work = work
        self._check = check
        self._most = most
        self._free_runs = runs
        self._lock = threading.Lock()
        self._queue: deque[_Waiting[T]] = deque()

    def submit(self, items: list[T]) -> None:
        """Return when ``work`` is done with the items.

        Raises:
            Exception: what ``work`` raised; all callers of that run get it. Or what ``check`` did.
        """
        mine = _Waiting(items)
        with self._lock:
            leads = self._free_runs > 0
            if leads:
                self._free_runs -= 1
            else:
                self._queue.append(mine)
        if not leads:
            self._await_turn(mine)
        if not mine.is_done:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error

    def _await_turn(self, mine: _Waiting[T]) -> None:
        while not mine.turn.wait(CHECK_S):
            try:
                self._check()
            except Exception:
                if self._has_left(mine):
                    raise

    def _has_left(self, mine: _Waiting[T]) -> bool:
        """Take a caller out of the queue; False if it is in a run, or leads one, by now."""
        with self._lock:
            if mine not in self._queue:
                return False
            self._queue.remove(mine)
            return True

    def _lead(self, first: _Waiting[T]) -> None:
        run = self._gather(first)
        # stays if the work ends by what is no Exception
        error: Exception | None = RuntimeError("the run was cut off")
        try:
            self._work([item for waiting in run for item in waiting.items])
            error = None
        except Exception as raised:  # not handled: handed to the callers
            error = raised
        finally:
            self._finish(run, error)

    def _gather(self, first: _Waiting[T]) -> list[_Waiting[T]]:
        """Return the first caller, which leads, and those waiting that fit."""
        run, room = [first], self._most - len(first.items)
        with self._lock:
            while self._queue and len(self._queue[0].items) <= room:
                run.append(self._queue.popleft())
                room -= len(run[-1].items)
        return run

    def _finish(self, run: list[_Waiting[T]], error: Exception | None) -> None:
        """Let the callers go, and the next one lead."""
        for waiting in run:
            waiting.error = _twin(error)
            waiting.is_done = True
            waiting.turn.set()
        with self._lock:
            if self._queue:
                self._queue.popleft().turn.set()
            else:
                self._free_runs += 1


def _twin(error: Exception | None) -> Exception | None:
    """Return the error again, with a traceback of its own for one more thread to raise; the error
    itself, if its kind cannot be copied: the waiting thread needs one."""
    try:
        return copy.copy(error)
    except Exception:  # whatever its constructor asks for
        return error
