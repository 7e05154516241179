"""What does a thread do with a connection? It answers the connection's requests in turn.

It reads requests (``http_requests.py``), calls the WSGI application and sends its answers
(``http_replies.py``), and tells the client if the application fails. All that it knows of gunicorn
is in ``Host`` and ``idle_connections.ClientConnection``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from sidecar.errors import BadRequest, ClientGone
from sidecar.web.http_replies import ReplyWriter, expectation_failed, refuse
from sidecar.web.http_requests import DRAINED_BYTES, Body, ClientRequest, RequestReader, environ_of
from sidecar.web.idle_connections import ClientConnection
from sidecar.web.lingering import Lingering
from sidecar.web.places import Places

log = logging.getLogger(__name__)

CONTINUE = b"100-continue"  # the one expectation that there is
WITHOUT_OPENSEARCH = frozenset({b"/_personalize/health/live", b"/metrics"})
# What becomes of a connection:
PARK = object()  # its request has begun and is not gathered
AGAIN = object()  # its request is there, and has found no place


class Host(Protocol):
    """The worker in which connections are answered.

    ``wsgi`` is the application. Once ``alive`` is False, every answer ends its connection.
    ``places`` are for requests that may wait for OpenSearch, one fewer than there are threads: if
    OpenSearch hangs, the liveness probe still finds a thread. Without it, an orchestrator would
    restart every sidecar for OpenSearch's fault.
    """

    alive: bool
    wsgi: Callable[[dict[str, Any], Any], Iterable[bytes]]
    lingering: Lingering
    places: Places

    def count_request(self) -> None:
        """Count one more; clear ``alive`` if that was the last."""
        ...

    def count_refusal(self, error: BadRequest) -> None:
        """Count a request that the application does not answer."""
        ...


def converse(host: Host, connection: ClientConnection) -> Any:
    """Answer what has come; the socket has something to read, or its reader a request.

    Returns:
        True to keep the connection, False to close it, ``PARK`` in the middle of a request,
        ``AGAIN`` to put it at the end of the queue, so that others come up that need no place.

    Raises:
        OSError: the client is gone, or too slow.
    """
    reader = connection.parser
    try:
        while True:
            if reader.has_next:
                outcome = _answer_in_place(host, connection, reader, reader.next())
                if outcome is not True:
                    return outcome
            elif not reader.read_on():
                return False
            if not reader.has_next:
                began = time.monotonic()
                has_more = host.lingering.stays(connection.sock, host.alive)
                reader.waited(time.monotonic() - began)
                if not has_more:
                    return PARK if reader.is_begun else True
    except BadRequest as error:
        _refuse(host, connection, error)
    return False


def may_wait(target: bytes) -> bool:
    """Return False for a request for which OpenSearch is not asked."""
    return target.partition(b"?")[0] not in WITHOUT_OPENSEARCH


def _answer_in_place(host: Host, connection: ClientConnection, reader: RequestReader,
                     request: ClientRequest) -> Any:
    """Answer one request, if there is a place for it; returns as ``converse``."""
    if not may_wait(request.target):
        return _answer(host, connection, reader, request)
    if not host.places.enter():
        reader.put_back(request)
        return AGAIN
    try:
        return _answer(host, connection, reader, request)
    finally:
        host.places.leave()


def _refuse(host: Host, connection: ClientConnection, error: BadRequest) -> None:
    """Tell a client why the application does not answer it, and count that."""
    host.count_refusal(error)
    refuse(connection.sock, error)


def _answer(host: Host, connection: ClientConnection, reader: RequestReader,
            request: ClientRequest) -> bool:
    """Answer one request; False if the connection is to be closed."""
    host.count_request()
    reply = ReplyWriter(connection.sock, request, keeps_alive=request.keeps_alive and host.alive)
    expectation = request.expectation
    request.awaits_continue = expectation is not None and not request.is_complete
    application = host.wsgi if expectation in (None, CONTINUE) else expectation_failed
    try:
        pieces = application(_environ(connection, reader, request), reply.start_response)
        try:
            reply.send(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
    except OSError:
        raise
    except ClientGone:
        return False
    except BadRequest as error:
        if not reply.is_begun:
            _refuse(host, connection, error)
        return False
    except Exception:
        log.exception("request failed")
        if not reply.is_begun:
            _refuse(host, connection,
                    BadRequest(500, "internal error; see the sidecar's log"))
        return False
    return reply.keeps_alive and reader.drain(request, DRAINED_BYTES)


def _environ(connection: ClientConnection, reader: RequestReader,
             request: ClientRequest) -> dict[str, Any]:
    environ = environ_of(request)
    is_unix = isinstance(connection.server, str)
    host, port = (connection.server, "") if is_unix else connection.server[:2]
    environ |= {
        "SERVER_NAME": host, "SERVER_PORT": str(port),
        "REMOTE_ADDR": "" if is_unix else connection.client[0],
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.multithread": True,
        "wsgi.multiprocess": True, "wsgi.run_once": False, "wsgi.errors": _LogStream(),
        "wsgi.input_terminated": True, "gunicorn.socket": connection.sock,
        "wsgi.input": Body(reader, request, connection.sock)}
    return environ


class _LogStream:
    """Where an application writes its complaints."""

    def write(self, text: str) -> None:
        if text.strip():
            log.error("application wrote to wsgi.errors", extra={"text": text.strip()})

    def flush(self) -> None:
        pass
