"""What became of one search, or of several that came together. The answer's headers say it (status,
state, and where time went), and it is then counted as they say it, once per search.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sidecar.records import NEVER_WRITTEN, Headers, SkipReason
from sidecar.serving.telemetry import Telemetry, ms_since

# Reading the request and OpenSearch's answers; waiting for OpenSearch, and for the history beyond
# that; ordering; putting the page together.
SEARCH_STAGES = ("parse", "upstream", "history", "rank", "write")


class Outcome:
    """One request's measurements, begun when it arrived.

    ``reason`` is None unless the engine's order is served; ``state`` the version of the user's
    state that was used, NEVER_WRITTEN for none; ``times_ms`` maps each stage passed to its
    milliseconds. ``searches`` is how many the request holds.
    """

    __slots__ = ("_began", "_joined", "_stages", "_telemetry", "reason", "searches", "state",
                 "times_ms")

    def __init__(self, telemetry: Telemetry | None, stages: Sequence[str] = SEARCH_STAGES) -> None:
        """Begin.

        Args:
            telemetry: None for a request that is not a search, which is neither counted nor timed.
            stages: those that the client sees.
        """
        self._telemetry = telemetry
        self._stages = stages
        self._began = time.perf_counter()
        self._joined: list[SkipReason | None] = []
        self.searches = 1
        self.reason: SkipReason | None = None
        self.state = NEVER_WRITTEN
        self.times_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside; a stage passed twice adds up."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add(name, ms_since(began))

    def skipped(self, reason: SkipReason, each: Sequence[SkipReason] = ()) -> None:
        """Note why the engine's order is served, whatever was noted before.

        Args:
            reason: the one that the client sees.
            each: for several searches, each one's reason, if they may differ.
        """
        self.reason = reason
        self._joined = list(each)

    def joined(self, reason: SkipReason | None, part: Outcome | None = None) -> None:
        """Take in one search of several: applied to one is applied, else the first reason counts.

        Args:
            reason: what became of that search.
            part: its measurements, if it was ranked.
        """
        self.reason = reason if not self._joined or reason is None else self.reason
        self._joined.append(reason)
        if part is not None:
            self.state = max(self.state, part.state)
            for name, milliseconds in part.times_ms.items():
                self._add(name, milliseconds)

    def failed(self) -> None:
        """Count and time what OpenSearch gave no answer to, and so has no headers."""
        self.skipped(SkipReason.UPSTREAM_ERROR)
        self._end()

    def headers(self) -> Headers:
        """Return the headers that tell the client; count each search, and time the whole."""
        total_ms = self._end()
        timing = ", ".join(f"{name};dur={self.times_ms.get(name, 0.0):.3f}"
                           for name in self._stages)
        status = "applied" if self.reason is None else f"skipped; reason={self.reason}"
        told: Headers = (("X-Personalize-Status", status),
                         ("Server-Timing", f"{timing}, total;dur={total_ms:.3f}"))
        return told if self.state < 0 else (*told, ("X-Personalize-State", str(self.state)))

    def _add(self, stage: str, milliseconds: float) -> None:
        self.times_ms[stage] = self.times_ms.get(stage, 0.0) + milliseconds

    def _end(self) -> float:
        """Count each search and time the whole; return the milliseconds since the beginning."""
        total_ms = ms_since(self._began)
        if self._telemetry is None:
            return total_ms
        for reason in self._joined or [self.reason] * self.searches:
            self._telemetry.searched(reason)
        self._telemetry.timed("total", total_ms)
        if "upstream" in self.times_ms:
            self._telemetry.timed("upstream", self.times_ms["upstream"])
        return total_ms
