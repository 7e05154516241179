"""Keeps the item table as fresh as the catalogue, without a restart and off the request's path.

A model brings a snapshot of the items that it was trained with. Later changes and new products are
read from OpenSearch in the background and written into the ranker's table.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from sidecar.ranking.items import Storage
from sidecar.serving.models import RankerSource, Ranks
from sidecar.serving.telemetry import Telemetry

log = logging.getLogger(__name__)

PATIENCE_S = 120.0  # for another process to read a catalogue before a model is switched in
FOLLOW_S = 0.1
PIECE = 50  # rows taken in at once: a few milliseconds of the interpreter
REST = 1.0  # time given to searches, per time spent on rows


class Changes(Protocol):
    """A reader of product changes that remembers how far it has read.

    ``uuids`` maps the catalogue's indices, as of the last poll, to their uuids.
    """

    uuids: Mapping[str, str]

    @property
    def progress(self) -> Any:
        """Return how far it has read."""
        ...

    def resume(self, progress: Any) -> None:
        """Go on where another reader was."""
        ...

    def look(self) -> None:
        """Bring ``uuids`` up to date, and read nothing."""
        ...

    def poll(self) -> Iterable[Sequence[Mapping[str, Any]]]:
        """Yield batches of rows changed since the last poll; the first poll: every row."""
        ...


class CatalogueRefresh:
    """Brings product changes to the ranker in use; one a worker process."""

    def __init__(self, open_changes: Callable[[], Changes], ranker_source: RankerSource,
                 telemetry: Telemetry, *, refresh_s: float, index: str = "") -> None:
        """``index`` is what the log calls the catalogue."""
        self._open_changes = open_changes
        self._ranker_source = ranker_source
        self._telemetry = telemetry
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._ranker: Ranks | None = None  # whom _changes has been read for
        self._next: Ranks | None = None  # who is to be switched in
        self._changes: Changes | None = None
        self._storage: Storage | None = None
        self._is_writing = False
        self._reads_anew = False  # what a writer before may have left half written
        self._noted: Any = None
        self._uuids: Mapping[str, str] = {}
        self._polled_at = -math.inf
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False
        self._is_absent = False
        self._index = index

    def uuid_of(self, index: str) -> str | None:
        """Return the uuid that one of the catalogue's indices had a moment ago; None: not known."""
        if time.monotonic() - self._polled_at > max(3.0 * self._refresh_s, 1.0):
            return None
        return self._uuids.get(index)

    def refresh(self) -> int:
        """Take in what changed since the last call; return how many items did.

        While a new ranker is being prepared, its table is refreshed, not that of the ranker in use:
        switching back would release this process's writer lock on the new table.
        """
        with self._lock:
            ranker = self._ranker_source()
            if ranker is self._next:
                self._next = None  # it has been switched in
            ranker = self._next or ranker
            return 0 if ranker is None else self._bring_up_to_date(ranker)

    def bring_up_to_date(self, ranker: Ranks) -> int:
        """Take in every change that ``ranker`` has not seen, before or after it is in use.

        If processes share the table, one of them does that for all; the others only switch to what
        it has made.
        """
        with self._lock:
            return self._bring_up_to_date(ranker)

    def prepare(self, ranker: Ranks) -> None:
        """Bring a ranker up to date before it is switched in, whichever process does the reading.

        A process that does not read waits until the catalogue was read once, or ``PATIENCE_S``.
        """
        with self._lock:
            self._next = ranker
        try:
            self._prepare(ranker)
        except BaseException:
            with self._lock:
                self._next = None
            raise

    def _prepare(self, ranker: Ranks) -> None:
        until = time.monotonic() + PATIENCE_S
        self.bring_up_to_date(ranker)
        while (self._storage is not None and self._storage.progress is None
               and time.monotonic() < until and not self._stopped.wait(FOLLOW_S)):
            self.bring_up_to_date(ranker)
        if self._storage is not None:
            self._storage.remove_others()

    def _bring_up_to_date(self, ranker: Ranks) -> int:
        """Do what ``bring_up_to_date`` says; under the lock. Nothing once it was stopped, when
        another process may write."""
        if self._stopped.is_set():
            return 0
        if ranker is not self._ranker or self._changes is None:
            self._turn_to(ranker)
        assert self._changes is not None
        began, storage, changed = time.monotonic(), self._storage, 0
        if storage is not None:
            storage.follow(ranker.items)  # type: ignore[arg-type] # it came from the table
        if storage is None or self._may_write(storage, self._changes):
            changed = self._read(ranker, self._changes, storage)
        else:
            self._changes.look()
        self._uuids, self._polled_at = dict(self._changes.uuids), began
        self._tell_whether_there()
        self._telemetry.catalogue(len(ranker.items), changed)
        return changed

    def _tell_whether_there(self) -> None:
        """Log once that there is no such index: it may be made yet, or be misspelt."""
        if self._uuids and self._is_absent:
            log.info("catalogue is there", extra={"index": self._index})
        elif not self._uuids and not self._is_absent:
            log.warning("catalogue is not there; load it, or set SIDECAR_PRODUCTS_INDEX",
                        extra={"index": self._index})
        self._is_absent = not self._uuids

    def _turn_to(self, ranker: Ranks) -> None:
        if self._storage is not None:
            self._storage.close()
        self._ranker, self._changes = ranker, self._open_changes()
        self._storage, self._is_writing = getattr(ranker.items, "storage", None), False
        self._reads_anew = False
        self._noted = None  # another table: nobody has noted there how far it was read

    def _may_write(self, storage: Storage, changes: Changes) -> bool:
        if not self._is_writing and storage.may_write():
            self._is_writing, self._reads_anew = True, storage.was_written
            if (progress := storage.progress) is not None:
                changes.resume(progress)
        return self._is_writing

    def _read(self, ranker: Ranks, changes: Changes, storage: Storage | None) -> int:
        changed = 0
        for rows in changes.poll():
            changed += self._take(ranker, rows)
            if self._stopped.is_set():
                return changed  # what is not noted, the next writer reads again
        self._reads_anew = False
        if storage is not None and changes.progress != self._noted:
            self._noted = changes.progress
            storage.note(self._noted)
        return changed

    def _take(self, ranker: Ranks, rows: Sequence[Mapping[str, Any]]) -> int:
        """Take rows in small pieces, resting in between, so that searches hardly notice."""
        changed = 0
        for start in range(0, len(rows), PIECE):
            began = time.perf_counter()
            changed += ranker.items.upsert(rows[start:start + PIECE], anew=self._reads_anew)
            if self._stopped.wait(REST * (time.perf_counter() - began)):
                break
        return changed

    def start(self) -> None:
        """Refresh every ``refresh_s`` in a thread of its own; the first time at once."""
        self._thread = threading.Thread(target=self._run, name="catalogue-refresh", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread at its next look, or after the few rows that it is just writing; only then
        may another process write."""
        self._stopped.set()
        if self._thread is None:
            self._close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._refresh_or_log()
            self._stopped.wait(self._refresh_s)
        self._close()

    def _close(self) -> None:
        with self._lock:
            if self._storage is not None:
                self._storage.close()

    def _refresh_or_log(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # the table stays as it is; the next look tries again
            if not self._is_failing:
                log.warning("catalogue refresh failed", extra={"error": repr(error)})
            self._is_failing = True
        else:
            if self._is_failing:
                log.info("catalogue refresh works again")
            self._is_failing = False
