"""Which instants do all workers share?

Popularity is counted, and hits are ranked, as of the clock's last multiple of ``PERIOD_S``. Two
pages of a search that are asked for within a period then agree, whichever workers order them.
(With each request's own instant, two hits of nearly the same score changed places within nine
seconds in one window of 300.)
"""

from __future__ import annotations

import time

PERIOD_S = 10.0


def shared_instant() -> float:
    """Return the last instant (seconds since 1970) that all workers share."""
    now = time.time()
    return now - now % PERIOD_S


def seconds_to_next(now: float, every_s: float) -> float:
    """Return how long it is from ``now`` (seconds) to the next multiple of ``every_s``."""
    return every_s - now % every_s
