"""Which skips an operator should look at, and how often they are told of one."""

from __future__ import annotations

import logging
import threading
import time

from sidecar.errors import Skip
from sidecar.records import SkipReason

log = logging.getLogger(__name__)


class FaultLog:
    """Logs skips that an operator should look at: one line a reason a second, with their number."""

    FAULTS = frozenset({SkipReason.TIMEOUT, SkipReason.STATE_UNAVAILABLE, SkipReason.STATE_BEHIND,
                        SkipReason.RANKING_ERROR, SkipReason.OVERLOAD})

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._quiet_until: dict[SkipReason, float] = {}
        self._unsaid: dict[SkipReason, int] = {}

    def log(self, skip: Skip) -> None:
        """Write the line, or count the skip towards the next one."""
        if skip.reason not in self.FAULTS:
            log.debug("search not personalised", extra={"reason": str(skip.reason)})
            return
        now = time.monotonic()
        with self._lock:
            count = self._unsaid.get(skip.reason, 0) + 1
            is_quiet = now < self._quiet_until.get(skip.reason, 0.0)
            self._unsaid[skip.reason] = count if is_quiet else 0
            if is_quiet:
                return
            self._quiet_until[skip.reason] = now + self._every_s
        is_bug = skip.reason is SkipReason.RANKING_ERROR
        log.warning("search not personalised", exc_info=skip.__cause__ if is_bug else None,
                    extra={"reason": str(skip.reason), "detail": skip.detail, "count": count})
