"""The log of what was shown: each personalised search with its hits in the order the client saw.

Written behind the search's back: a bounded queue and one thread. A search never waits for it; when
OpenSearch cannot keep up, entries are dropped and counted.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from sidecar.settings import Settings
from sidecar.stores.documents import Documents, without_values
from sidecar.stores.event_log import create_line
from sidecar.stores.ubi import timestamp
from sidecar.stores.upstream import Upstream

log = logging.getLogger(__name__)

WAITING = 4096  # entries of a page each, some 1 KB
BULK = 500
GATHER_S = 0.1  # lets a bulk request gather, so that logging costs a fraction of a search
CLOSE_S = 5.0

_encode = msgspec.json.Encoder().encode


class QueryLog:
    """Appends to the index of UBI queries; thread-safe, one a process, made after the fork.

    ``dropped`` counts the entries that are not in the log: the queue was full, OpenSearch refused
    them or could not be asked, or the log was closed before they came or were written.
    """

    def __init__(self, settings: Settings, upstream: Upstream,
                 tell: Callable[[int], None] | None = None) -> None:
        """``tell`` is called with how many entries were dropped, each time some are."""
        self.dropped = 0
        self._tell = tell
        self._documents = Documents(upstream, settings.queries_index, "ubi_queries")
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._is_closed = False  # nothing is put into the queue any more, but for its end

    def append(self, record: Mapping[str, Any]) -> None:
        """Log one search; never waits, never raises.

        Args:
            record: a document as UBI's query log has it (``query_id``, ``query_response_id``,
                ``user_query``, ``client_id``, ``query_response_hit_ids`` in shown order, …).
                Its ``query_response_id`` becomes the ``_id``; the time is added where it lacks.
        """
        entry = {"timestamp": timestamp(time.time()), **record}
        with self._lock:
            is_taken = not (self._is_closed or self._waiting.full())
            if is_taken:
                self._waiting.put_nowait(entry)
                if self._writer is None:
                    self._writer = threading.Thread(target=self._write, name="query-log",
                                                    daemon=True)
                    self._writer.start()
        if not is_taken:
            self._drop(1)

    def close(self) -> None:
        """Write what waits, and end the thread; gives up after ``CLOSE_S``.

        What waits even then is dropped, as is what is appended from now on.
        """
        with self._lock:
            self._is_closed = True
            writer = self._writer
        if writer is None:
            return
        with suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_S)
            writer.join(CLOSE_S)
        self._drop_waiting()

    def _drop_waiting(self) -> None:
        """Take what waits from the writer, which may be with OpenSearch still."""
        entries = 0
        with suppress(queue.Empty):
            while True:
                entries += self._waiting.get_nowait() is not None
        self._waiting.put_nowait(None)  # its end may have been among them
        if entries:
            self._drop(entries)
            log.warning("shown orders were not logged before the end", extra={"entries": entries})

    def _write(self) -> None:
        is_open = True
        while is_open:
            records = [self._waiting.get()]
            if records[0] is not None:
                time.sleep(GATHER_S)
            while len(records) < BULK and not self._waiting.empty():
                records.append(self._waiting.get())
            is_open = None not in records
            self._send([record for record in records if record is not None])

    def _send(self, records: list[Mapping[str, Any]]) -> None:
        try:
            lines: list[bytes] = []
            for record in records:
                doc_id = record.get("query_response_id") or secrets.token_urlsafe(12)
                lines += (create_line(str(doc_id)), _encode(record))
            outcomes = self._documents.begin_bulk(lines, len(records)).result()
        except Exception as error:  # nobody waits for this; the thread has to outlive it
            self._drop(len(records))
            log.warning("shown orders were not logged",
                        extra={"entries": len(records), "error": repr(error)})
            return
        refused = [outcome for outcome in outcomes
                   if outcome.status >= 300 and outcome.status != 409]
        if refused:
            self._drop(len(refused))
            log.warning("shown orders were refused",
                        extra={"entries": len(refused),
                               "error": without_values(refused[0].reason)})

    def _drop(self, count: int) -> None:
        with self._lock:
            self.dropped += count
        if self._tell is not None:
            self._tell(count)
