"""Writes answers to a connection, as WSGI gives them, for the worker."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from sidecar.errors import BadRequest
from sidecar.web.errors import error_body
from sidecar.web.http_requests import ClientRequest

WsgiHeaders = list[tuple[str, str]]

SEND_BYTES = 256 * 1024  # which the client has to take within the socket's timeout, then the next
BODILESS = frozenset({"204", "304"})
PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class ReplyWriter:
    """One answer on its way: WSGI's ``start_response``, and what is sent.

    Head and first piece leave in one packet. ``keeps_alive`` is False if only closing the
    connection shows where the answer ends, or if the connection cannot be trusted any more.
    """

    def __init__(self, connection: socket.socket, request: ClientRequest, *,
                 keeps_alive: bool) -> None:
        self._connection = connection
        self._request = request
        self._status = ""
        self._headers: WsgiHeaders = []
        self._left: int | None = None  # bytes of the body still to come, where that is known
        self._is_chunked = False
        self.keeps_alive = keeps_alive
        self.is_begun = False

    def start_response(self, status: str, headers: WsgiHeaders, exc_info: Any = None) -> Any:
        """Take status and headers; see PEP 3333."""
        if exc_info is not None and self.is_begun:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._headers = status, headers
        return self.write

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send the whole answer.

        Raises:
            OSError: the client is gone.
        """
        for piece in pieces:
            if piece:
                self.write(piece)
        if not self.is_begun:
            self._connection.sendall(self._head(b""))
        elif self._is_chunked:
            self._connection.sendall(b"0\r\n\r\n")
        if self._left:
            self.keeps_alive = False  # the client waits for bytes that nobody has

    def write(self, piece: bytes) -> None:
        """Send a piece of the body."""
        head = b"" if self.is_begun else self._head(piece)
        if self._request.method == "HEAD" or self._status[:3] in BODILESS:
            piece = b""
        elif self._is_chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        elif self._left is not None:
            piece = piece[:self._left]
            self._left -= len(piece)
        data = memoryview(head + piece)
        for start in range(0, len(data), SEND_BYTES):  # all at once would have one timeout
            self._connection.sendall(data[start:start + SEND_BYTES])

    def _head(self, first: bytes) -> bytes:
        lines = [f"HTTP/1.1 {self._status}"]
        length = None
        for name, value in self._headers:
            if "\n" in value or "\r" in value or "\n" in name or "\r" in name:
                raise ValueError(f"header {name!r} holds a line break")
            if name.lower() == "content-length":
                length = int(value)
            lines.append(f"{name}: {value}")
        self._frame(lines, length, bool(first))
        if self._request.is_broken:
            self.keeps_alive = False
        if not self.keeps_alive:
            lines.append("Connection: close")
        elif self._request.version == "1.0":
            lines.append("Connection: keep-alive")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self.is_begun = True
        return head

    def _frame(self, lines: list[str], length: int | None, has_body: bool) -> None:
        """Choose how the client is to tell the body's end."""
        if self._request.method == "HEAD" or self._status[:3] in BODILESS:
            return
        if length is not None:
            self._left = length
        elif not has_body:
            lines.append("Content-Length: 0")
        elif self._request.version == "1.1":
            self._is_chunked = True
            lines.append("Transfer-Encoding: chunked")
        else:
            self.keeps_alive = False


def expectation_failed(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer a request with an unknown Expect header, as OpenSearch does; a WSGI call."""
    start_response("417 Expectation Failed", [("Content-Length", "0")])
    return ()


def refuse(connection: socket.socket, error: BadRequest) -> None:
    """Send an error in OpenSearch's shape, after which the connection is to be closed."""
    kind = "illegal_argument_exception" if error.status < 500 else "exception"
    body = error_body(error.status, kind, error.reason)
    connection.sendall(
        b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Connection: close\r\n\r\n%b"
        % (error.status, PHRASES.get(error.status, b"Internal Server Error"), len(body), body))
