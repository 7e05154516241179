"""Connections that a worker's main thread waits for, so that no thread of the pool has to."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from typing import Any

Handler = Callable[[Any], None]


class WaitingRoom:
    """gunicorn's connections, each with a time by which something has to come; for one thread.

    Args:
        poller: the main thread's selector.
        seconds: how long a connection may be silent, from when it enters.
        readable: called with a connection on which something can be read; it is still in the room.
        late: called with one whose time is up; it has left.
    """

    def __init__(self, poller: selectors.BaseSelector, seconds: float, *, readable: Handler,
                 late: Handler) -> None:
        self._poller = poller
        self._seconds = seconds
        self._readable = readable
        self._late = late
        self._connections: dict[Any, None] = {}  # the one that entered first, first

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._connections)

    def __iter__(self) -> Iterator[Any]:
        """Go through them, the one that entered first, first."""
        return iter(self._connections)

    def enter(self, connection: Any) -> None:
        """Wait for a connection, whose ``silent_since`` and ``timeout`` are set.

        Raises:
            OSError, ValueError, KeyError: its socket cannot be waited for.
        """
        connection.sock.setblocking(False)
        connection.silent_since = time.monotonic()
        connection.timeout = connection.silent_since + self._seconds
        self._poller.register(connection.sock, selectors.EVENT_READ,
                              partial(self._on_readable, connection))
        self._connections[connection] = None

    def leave(self, connection: Any) -> None:
        """Wait for it no longer."""
        del self._connections[connection]
        self._poller.unregister(connection.sock)

    def show_out(self) -> None:
        """Let those leave whose time is up."""
        now = time.monotonic()
        for connection in list(takewhile(lambda one: one.timeout <= now, self._connections)):
            self.leave(connection)
            self._late(connection)

    def _on_readable(self, connection: Any, _: Any) -> None:
        self._readable(connection)
