"""How long do rankings take? This decides in which thread the next one runs.

A ranking in a thread of the pool can be abandoned at its deadline. But handing it over and waking
up again makes the interpreter switch threads twice, which takes milliseconds on a busy machine. So
a ranker that has proved quick ranks in the request's own thread. One that has not, or whose latest
rankings came near their deadline, ranks in the pool.
"""

from __future__ import annotations

import time

LEAST_PROOFS = 8
MARGIN = 4.0  # how many times over the slowest of late must fit before the deadline
DECAY = 0.9  # with every ranking the slowest of late counts this much less


class Pace:
    """The slowest ranking of late, by the ranker in use; written by many threads without a lock,
    since a lost note only delays a judgement."""

    def __init__(self) -> None:
        self._ranker: object = None
        self._proofs = 0
        self._slowest_s = 0.0

    def note(self, ranker: object, seconds: float) -> None:
        """Note how long a ranking took."""
        if ranker is not self._ranker:
            self._ranker, self._proofs, self._slowest_s = ranker, 0, 0.0
        self._proofs += 1
        self._slowest_s = max(seconds, DECAY * self._slowest_s)

    def fits(self, ranker: object, deadline: float) -> bool:
        """Return True if a ranking by ``ranker`` is all but sure to end before ``deadline``."""
        return (ranker is self._ranker and self._proofs >= LEAST_PROOFS
                and MARGIN * self._slowest_s < deadline - time.monotonic())
