"""gunicorn's threaded worker, less a hand-over: a thread stays with its connection for a moment.

gunicorn gives a kept-alive connection back to its main thread after every answer and gets it back
at the next request, which costs more than half of what an empty request costs. Here the thread
waits a little for the next request itself, as long as another thread is free for somebody else.
"""

from __future__ import annotations

import select
import threading
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

LINGER_MS = 20  # a client that is busy asks again well within it


class LingeringWorker(ThreadWorker):  # type: ignore[misc]
    """Answers a busy connection's requests one after another in one thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._held = 0  # threads that are with a connection

    def handle(self, conn: Any) -> Any:
        """Answer one request, and those that follow it closely; as gunicorn's ``handle``."""
        self._count(1)
        try:
            kept = super().handle(conn)
            while kept is True and not conn.is_http2 and self._has_next(conn):
                kept = super().handle(conn)
            return kept
        finally:
            self._count(-1)

    def _has_next(self, conn: Any) -> bool:
        """Wait for another request on the connection; False gives it back to the main thread."""
        if conn.parser.unreader.buf.getvalue():  # gunicorn knows what to do with read-ahead bytes
            return False
        if not self.alive or self._held >= self.cfg.threads:
            return False
        waiting = select.poll()
        waiting.register(conn.sock, select.POLLIN)
        return bool(waiting.poll(LINGER_MS)) and self.alive

    def _count(self, change: int) -> None:
        with self._lock:
            self._held += change
