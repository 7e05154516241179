"""Connections for which a worker's main thread waits, so that no thread of the pool has to."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from typing import Any, Protocol

from sidecar.web.http_requests import RequestReader


class ClientConnection(Protocol):
    """A connection as gunicorn makes it, as far as the sidecar looks at it.

    ``server`` and ``client`` are the addresses of its ends: a path, or host and port first;
    ``timeout`` is when it is to be given up; the last two are the sidecar's own.
    """

    sock: socket.socket
    server: Any
    client: Any
    parser: RequestReader
    timeout: float
    idle_since: float
    unread_bytes: int


Handler = Callable[[ClientConnection], None]


class IdleConnections:
    """gunicorn's connections, each with a time limit for new data; for one thread.

    Args:
        poller: the main thread's selector.
        timeout_s: how long a connection may be idle, from when it was added.
        readable: called with a connection on which something can be read, which stays here.
        expired: called with one whose time is up, which was removed.
    """

    def __init__(self, poller: selectors.BaseSelector, timeout_s: float, *, readable: Handler,
                 expired: Handler) -> None:
        self._poller = poller
        self._timeout_s = timeout_s
        self._readable = readable
        self._expired = expired
        self._connections: dict[ClientConnection, None] = {}  # the one that was added first, first

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._connections)

    def __iter__(self) -> Iterator[ClientConnection]:
        """Go through them, the one that was added first, first."""
        return iter(self._connections)

    def add(self, connection: ClientConnection) -> None:
        """Wait for a connection, whose ``idle_since`` and ``timeout`` are set.

        Raises:
            OSError, ValueError, KeyError: its socket cannot be waited for.
        """
        connection.sock.setblocking(False)
        connection.idle_since = time.monotonic()
        connection.timeout = connection.idle_since + self._timeout_s
        self._poller.register(connection.sock, selectors.EVENT_READ,
                              partial(self._on_readable, connection))
        self._connections[connection] = None

    def remove(self, connection: ClientConnection) -> None:
        """Wait for it no longer."""
        del self._connections[connection]
        self._poller.unregister(connection.sock)

    def expire(self) -> None:
        """Remove those whose time is up."""
        now = time.monotonic()
        for connection in list(takewhile(lambda one: one.timeout <= now, self._connections)):
            self.remove(connection)
            self._expired(connection)

    def _on_readable(self, connection: ClientConnection, _: Any) -> None:
        self._readable(connection)
