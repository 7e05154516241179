"""Are requests waiting for a thread? Then searches pass through unpersonalised until they are not.

A worker answers as many requests at once as it has threads; the others wait, and ranking makes all
of them wait longer. The worker notes how long each request waited before a thread took it up; once
that is longer than a ranking may take, and at least a tenth of a second, personalising would cost a
shopper more than it gives.
"""

from __future__ import annotations

import time

FRESH_S = 1.0  # an older observation says nothing of now


class Pressure:
    """The wait of the request that was taken up last; written and read by many threads."""

    def __init__(self, most_wait_ms: float) -> None:
        self._most_wait_s = most_wait_ms / 1000.0
        self._last = (0.0, 0.0)  # waited, when: one object, so that the two belong together

    def waited(self, seconds: float) -> None:
        """Note how long a request waited for a thread."""
        self._last = (seconds, time.monotonic())

    def is_high(self) -> bool:
        """Return True while requests wait longer than a ranking may take."""
        seconds, noted_at = self._last
        return seconds > self._most_wait_s and time.monotonic() - noted_at < FRESH_S
