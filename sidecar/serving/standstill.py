"""Where no event gets written, those who wait for that must not hold all threads of a worker.

An event waits for its write in the thread of its request. A log whose shard is not there, or a node
that hangs, lets nothing through; soon every thread would wait, and searches, which need nothing of
the log, would find none. So while nothing gets through, only a few go on waiting, and so notice
when it does again; whoever comes beyond them is told at once to come again later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar.errors import UpstreamError, UpstreamUnavailable

STILL_S = 2.0  # without a write that got through, while somebody waits: no pause of a healthy node


class Standstill:
    """Counts who waits for writes, and notices that none gets through; thread-safe."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``most`` is how many may wait while nothing gets through."""
        self._most = most
        self._clock = clock
        self._waiting = 0
        self._moved_at = 0.0
        self._is_long = False  # the last that got no further had waited for long
        self._lock = threading.Lock()

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Count among those who wait for as long as the writing inside takes.

        Raises:
            UpstreamUnavailable: nothing gets through, and enough wait for it already.
        """
        came_at = self._come()
        try:
            yield
        except UpstreamError:
            self._is_long = self._is_long or self._clock() - came_at > STILL_S
            raise
        finally:
            with self._lock:
                self._waiting -= 1

    def moved(self) -> None:
        """Note that a write got through."""
        self._moved_at, self._is_long = self._clock(), False

    def check(self) -> None:
        """Let one leave who waits and has not begun to write, if more wait than should.

        Raises:
            UpstreamUnavailable: nothing gets through, and too many wait for it.
        """
        if self._waiting > self._most and self._stands():
            raise _come_again()

    def _come(self) -> float:
        now = self._clock()
        with self._lock:
            if self._waiting >= self._most and self._stands():
                raise _come_again()
            if not self._waiting:
                self._moved_at = now
            self._waiting += 1
        return now

    def _stands(self) -> bool:
        return self._is_long or self._clock() - self._moved_at > STILL_S


def _come_again() -> UpstreamUnavailable:
    return UpstreamUnavailable("opensearch takes no events at present; send them again later")
