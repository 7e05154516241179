"""Keeps the items' counts as fresh as the event log, so that serving sees what evaluation sees.

A model brings the counts of the events that it was trained on, up to an instant; events since then,
whoever took them, are read from OpenSearch in the background and counted on top. All workers of all
sidecars read at the same instants of the clock: two pages of one search then come of the same
counts, whichever workers answer them, unless such an instant falls between the two.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from sidecar.records import ItemEvent
from sidecar.serving.event_forms import MAX_AHEAD_S
from sidecar.serving.instants import PERIOD_S, seconds_to_next
from sidecar.serving.models import RankerSource, Ranks

log = logging.getLogger(__name__)

PATIENCE_S = 10.0  # for reading events before a model ranks; the rest is read afterwards


class NewEvents(Protocol):
    """A reader of events that remembers how far it has read."""

    def poll(self) -> Iterable[Sequence[ItemEvent]]:
        """Yield batches of events written since the last poll."""
        ...


class PopularityRefresh:
    """Counts new events for the ranker in use; one a worker process."""

    def __init__(self, open_events: Callable[[float], NewEvents], ranker_source: RankerSource, *,
                 refresh_s: float = PERIOD_S) -> None:
        """``open_events`` opens a reader of events from an instant (seconds) on. Each look that
        finds events makes OpenSearch refresh their index."""
        self._open_events = open_events
        self._ranker_source = ranker_source
        self._refresh_s = refresh_s
        self._ranker: Ranks | None = None  # whom _events has been read for
        self._events: NewEvents | None = None
        self._prepared: tuple[Ranks, NewEvents] | None = None  # who is to be switched in
        self._stopped = threading.Event()
        self._has_looked = threading.Event()
        self._is_failing = False

    def refresh(self) -> int:
        """Count what was written since the last call; return how many events of known items."""
        ranker = self._ranker_source()
        if ranker is None:
            return 0
        if ranker is not self._ranker or self._events is None:
            self._ranker, self._events = ranker, self._reader_for(ranker)
        return _count(ranker, self._events.poll())

    def prepare(self, ranker: Ranks) -> None:
        """Count for a ranker what was written since its training, before it is switched in: as much
        as can be read in ``PATIENCE_S``. Raises nothing; ``refresh`` reads the rest."""
        try:
            events = self._open_events(ranker.counted_until)
            self._prepared = (ranker, events)
            _count(ranker, self._in_time(events.poll()))
        except Exception as error:  # the switch does not wait for popularity
            log.warning("popularity not prepared", extra={"error": repr(error)})

    def _in_time(self, batches: Iterable[Sequence[ItemEvent]]) -> Iterator[Sequence[ItemEvent]]:
        """Yield batches until it is late. The one that comes too late comes again; to ask for it
        tells the reader that the one before was taken."""
        until = time.monotonic() + PATIENCE_S
        for events in batches:
            if time.monotonic() > until or self._stopped.is_set():
                return
            yield events

    def _reader_for(self, ranker: Ranks) -> NewEvents:
        """Return the reader that has prepared a ranker, or a new one."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] is ranker:
            return prepared[1]
        return self._open_events(ranker.counted_until)

    def start(self) -> None:
        """Refresh in a thread of its own: at once, then whenever the clock shows a multiple of
        ``refresh_s``. Returns when it has looked once, or after ``PATIENCE_S``: the workers beside
        one that starts have counted the events since the model's training long ago."""
        threading.Thread(target=self._run, name="popularity-refresh", daemon=True).start()
        self._has_looked.wait(PATIENCE_S)

    def stop(self) -> None:
        """End the thread at its next look."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.refresh()
                if self._is_failing:
                    log.info("popularity refreshed again")
                self._is_failing = False
            except Exception as error:  # the counts stay as they are; the next look tries again
                if not self._is_failing:
                    log.warning("popularity refresh failed", extra={"error": repr(error)})
                self._is_failing = True
            self._has_looked.set()
            self._stopped.wait(seconds_to_next(time.time(), self._refresh_s))


def _count(ranker: Ranks, pages: Iterable[Sequence[ItemEvent]]) -> int:
    """Count events; a clock that is years ahead would make old what its item's counts hold, and all
    to come."""
    now = time.time()
    latest = now + MAX_AHEAD_S
    return ranker.count(([event for event in page if event.ts <= latest] for page in pages), now)
