"""How many threads of a worker may wait for answers to what is no search?

A reindex, a wait for green or a bulk request that OpenSearch holds up takes a thread for as long as
it takes OpenSearch, minutes perhaps. Three quarters of the threads may wait so; the others are left
for searches and for the sidecar's own paths, its health among them. Whoever comes while all places
are taken waits for one that gets free, as it soon does where answers are quick, and no longer than
a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

KEPT_SHARE = 4  # a quarter of the threads
WAIT_S = 2.0


class PassingRoom:
    """The places of one worker; thread-safe."""

    def __init__(self, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``threads`` is how many the worker has."""
        self._places = max(1, threads - max(1, threads // KEPT_SHARE))
        self._clock = clock
        self._taken = 0
        self._moved_at = clock()  # when somebody last came in, or left
        self._changed = threading.Condition()

    def enter(self) -> bool:
        """Take a place; False if none gets free in ``WAIT_S``, or none did for as long before."""
        until = self._clock() + WAIT_S
        with self._changed:
            while self._taken >= self._places:
                left_s = min(until, self._moved_at + WAIT_S) - self._clock()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
            self._taken += 1
            self._moved_at = self._clock()
        return True

    def leave(self) -> None:
        """Give a place back."""
        with self._changed:
            self._taken -= 1
            self._moved_at = self._clock()
            self._changed.notify()
