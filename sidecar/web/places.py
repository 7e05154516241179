"""How many threads of a worker may wait for OpenSearch? As many as there are places.

A thread that waits for OpenSearch is held for as long as OpenSearch takes, minutes perhaps. So work
that may wait takes a place first, and there are fewer places than threads. The rest of the threads
is left to other work: to searches, if requests that are not searches wait (``gateway.py``); to the
liveness probe, if OpenSearch hangs and all requests wait (``conversation.py``).

It is worth waiting for a place while places get free, as they soon do if answers are quick.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Places:
    """The places of one worker for one kind of work; thread-safe."""

    def __init__(self, count: int, patience_s: float, *, least_s: float = 0.0,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """Make ``count`` places, at least one.

        Args:
            patience_s: longest wait for a place; it is cut short once no place was taken or given
                back for as long.
            least_s: shortest wait, however long nothing has moved.
        """
        self._free = max(1, count)
        self._patience_s = patience_s
        self._least_s = least_s
        self._clock = clock
        self._moved_at = clock()  # when a place was last taken or given back
        self._changed = threading.Condition()

    def enter(self) -> bool:
        """Take a place; False if none gets free in time."""
        with self._changed:
            came_at = self._clock()
            while not self._free:
                worth_until = max(self._moved_at + self._patience_s, came_at + self._least_s)
                left_s = min(worth_until, came_at + self._patience_s) - self._clock()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
            self._free -= 1
            self._moved_at = self._clock()
        return True

    def leave(self) -> None:
        """Give a place back."""
        with self._changed:
            self._free += 1
            self._moved_at = self._clock()
            self._changed.notify()
