"""Which requests may wait for OpenSearch now? All but one of a worker's threads may be with one.

If OpenSearch hangs, the threads would soon all wait for it, and the liveness probe would find none:
an orchestrator would restart every sidecar for OpenSearch's fault. So a request that may need
OpenSearch takes a turn, and there is one turn fewer than there are threads. One that gets none goes
to the end of the queue again, and what needs nothing of OpenSearch soon comes up.
"""

from __future__ import annotations

import threading
import time

TURN_S = 0.1  # that a request waits for a turn, before it queues up again
NO_TURN_S = 0.005  # the same, if no turn has ended for TURN_S
WITHOUT_OPENSEARCH = frozenset({b"/_personalize/health/live", b"/metrics"})


class Turns:
    """The turns of one worker; thread-safe."""

    def __init__(self, threads: int) -> None:
        """Make turns for a pool of so many threads; at least one."""
        self._free = threading.Semaphore(max(1, threads - 1))
        self._ended_at = 0.0  # on the monotonic clock, when the latest turn ended

    def begin(self) -> bool:
        """Take a turn; False if none gets free in a moment."""
        does_move = time.monotonic() - self._ended_at < TURN_S
        return self._free.acquire(timeout=TURN_S if does_move else NO_TURN_S)

    def end(self) -> None:
        """Give a turn back."""
        self._ended_at = time.monotonic()
        self._free.release()


def needs_turn(target: bytes) -> bool:
    """Return False for a request that OpenSearch is not asked for."""
    return target.partition(b"?")[0] not in WITHOUT_OPENSEARCH
