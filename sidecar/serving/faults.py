"""Which failures should an operator look at, and how often is one reported?"""

from __future__ import annotations

import logging
import threading
import time

from sidecar.errors import Skip
from sidecar.records import SkipReason
from sidecar.stores.documents import without_values

log = logging.getLogger(__name__)


class RateLimit:
    """Counts unreported faults, so that a lasting fault is one line a second; thread-safe."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._quiet_until: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def due(self, what: str, count: int = 1) -> int:
        """Add ``count`` occurrences; return how many there were since the last log line, 0 while
        another line would come too soon."""
        now = time.monotonic()
        with self._lock:
            count += self._counts.get(what, 0)
            is_quiet = now < self._quiet_until.get(what, 0.0)
            self._counts[what] = count if is_quiet else 0
            if is_quiet:
                return 0
            self._quiet_until[what] = now + self._every_s
        return count


class FaultLog:
    """Logs skips that an operator should look at: one line a reason a second, with their number."""

    FAULTS = frozenset({SkipReason.TIMEOUT, SkipReason.STATE_UNAVAILABLE, SkipReason.STATE_BEHIND,
                        SkipReason.RANKING_ERROR, SkipReason.OVERLOAD})

    def __init__(self, every_s: float = 1.0) -> None:
        self._limit = RateLimit(every_s)

    def log(self, skip: Skip) -> None:
        """Write the line, or count the skip towards the next one."""
        if skip.reason not in self.FAULTS:
            log.debug("search not personalised", extra={"reason": str(skip.reason)})
            return
        if not (count := self._limit.due(skip.reason)):
            return
        is_bug = skip.reason is SkipReason.RANKING_ERROR
        log.warning("search not personalised", exc_info=skip.__cause__ if is_bug else None,
                    extra={"reason": str(skip.reason), "detail": without_values(skip.detail),
                           "count": count})
