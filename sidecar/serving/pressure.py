"""Are requests waiting for a thread? Then searches pass through unpersonalised until they are not.

A worker answers as many requests at once as it has threads; the others wait, and ranking makes all
of them wait longer. The worker notes how long each request waited before a thread took it up. Once
the average over the latest requests is long, personalising costs shoppers more than it gives.
Passing through takes a sixth of the processor time, so the queue empties. One late request is no
rush: on a busy machine any request may wait for a tenth of a second.
"""

from __future__ import annotations

import time

FRESH_S = 1.0  # an older observation says nothing of now
WEIGHT = 0.1  # of the latest request in the average
CLIP = 5.0  # times the longest allowed average: no single wait counts for more


class Pressure:
    """The average wait of the requests taken up last; written and read by many threads without a
    lock, since a lost note only delays a judgement."""

    def __init__(self, most_wait_ms: float) -> None:
        self._most_wait_s = most_wait_ms / 1000.0
        self._last = (0.0, 0.0)  # average, when: one object, so that the two belong together

    def waited(self, seconds: float) -> None:
        """Note how long a request waited for a thread."""
        now = time.monotonic()
        average, noted_at = self._last
        if now - noted_at > FRESH_S:
            average = 0.0
        counted = min(seconds, CLIP * self._most_wait_s)
        self._last = (average + WEIGHT * (counted - average), now)

    def is_high(self) -> bool:
        """Return True while requests wait longer than they should."""
        average, noted_at = self._last
        return average > self._most_wait_s and time.monotonic() - noted_at < FRESH_S
