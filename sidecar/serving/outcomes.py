"""What became of one search, told in its answer's headers: status, state, and where time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.records import Headers, SkipReason
from sidecar.serving.telemetry import Telemetry

STAGES = ("upstream", "history", "rank")


class Outcome:
    """One search's measurements, begun when its request arrived.

    ``reason`` is None once hits were put in a personal order; ``state`` the version of the user's
    state that was used, -1 for none; ``times_ms`` maps each stage passed to its milliseconds.
    """

    __slots__ = ("_began", "_has_joined", "_telemetry", "is_counted", "reason", "state", "times_ms")

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._began = time.perf_counter()
        self._has_joined = False
        self.is_counted = False
        self.reason: SkipReason | None = None
        self.state = -1
        self.times_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside; a stage passed twice adds up."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.times_ms[name] = self.times_ms.get(name, 0.0) + _since(began)

    def skipped(self, reason: SkipReason, *, is_counted: bool = False) -> None:
        """Note why the engine's order is served, and count it if nobody has."""
        self.reason = reason
        if not is_counted and not self.is_counted:
            self._telemetry.searched(reason)
        self.is_counted = True

    def joined(self, reason: SkipReason | None, part: Outcome | None = None) -> None:
        """Take in one search of several: applied to one is applied, else the first reason counts.

        Args:
            reason: what became of that search.
            part: its measurements, if it was ranked.
        """
        self.reason = reason if not self._has_joined or reason is None else self.reason
        self._has_joined = True
        if part is not None:
            self.state = max(self.state, part.state)
            for stage in ("history", "rank"):
                self.times_ms[stage] = (self.times_ms.get(stage, 0.0)
                                        + part.times_ms.get(stage, 0.0))

    def headers(self) -> Headers:
        """Return the headers that tell the client, and time the whole."""
        total_ms = _since(self._began)
        self._telemetry.timed("total", total_ms)
        if "upstream" in self.times_ms:
            self._telemetry.timed("upstream", self.times_ms["upstream"])
        timing = ", ".join(f"{name};dur={self.times_ms.get(name, 0.0):.3f}" for name in STAGES)
        status = "applied" if self.reason is None else f"skipped; reason={self.reason}"
        told: Headers = (("X-Personalize-Status", status),
                         ("Server-Timing", f"{timing}, total;dur={total_ms:.3f}"))
        return told if self.state < 0 else (*told, ("X-Personalize-State", str(self.state)))


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000.0
