"""Where do connections wait for slow clients? With the main thread, so that they hold no other.

*In the middle of a request.* Until a request is gathered (``http_requests.py``), its connection is
parked whenever the client falls silent. It gets a thread again when more comes, or when the time is
up, to tell the client so.

*After the last answer.* The connection waits until the client has closed. gunicorn would wait for
that in its main thread, up to two seconds, and serve nobody else meanwhile.

All that it knows of gunicorn is in ``idle_connections.ClientConnection``.
"""

from __future__ import annotations

import selectors
import socket
import time

from sidecar.web.http_requests import DRAINED_BYTES
from sidecar.web.idle_connections import ClientConnection, Handler, IdleConnections

CLOSING_S = 2.0  # for a client to close what is answered


class Parking:
    """Connections that wait for their clients; for one thread.

    ``parked`` are in the middle of a request. ``closing`` are answered, and their clients have not
    closed them yet.
    """

    def __init__(self, poller: selectors.BaseSelector, timeout_s: float, *, enqueue: Handler,
                 close: Handler) -> None:
        """Wait by ``poller``, up to ``timeout_s`` for the rest of a request.

        ``enqueue`` gives a connection to the threads, ``close`` closes one for good.
        """
        self._enqueue = enqueue
        self._close = close
        self.parked = IdleConnections(poller, timeout_s, readable=self._resume,
                                      expired=self._give_up)
        self.closing = IdleConnections(poller, CLOSING_S, readable=self._discard_rest,
                                       expired=close)

    def half_close(self, connection: ClientConnection) -> None:
        """Send no more, and close a connection once its client has. If it were closed at once while
        bytes of it are unread, the client might never see the answer (RFC 9112, 9.6).

        Raises:
            OSError, ValueError, KeyError: it cannot be waited for.
        """
        connection.sock.shutdown(socket.SHUT_WR)
        connection.unread_bytes = 0
        self.closing.add(connection)

    def expire(self) -> None:
        """See to those that have waited for too long."""
        self.parked.expire()
        self.closing.expire()

    def _resume(self, connection: ClientConnection) -> None:
        """Give a thread to a connection whose request goes on."""
        self.parked.remove(connection)
        connection.parser.waited(time.monotonic() - connection.idle_since)
        self._enqueue(connection)

    def _give_up(self, connection: ClientConnection) -> None:
        """Give a thread to a connection, to tell its client that the request did not come."""
        connection.parser.give_up()
        self._enqueue(connection)

    def _discard_rest(self, connection: ClientConnection) -> None:
        """Throw away what a client still sends, if it is little."""
        try:
            count = len(connection.sock.recv(DRAINED_BYTES))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        connection.unread_bytes += count
        if not count or connection.unread_bytes > DRAINED_BYTES:
            self.closing.remove(connection)
            self._close(connection)
