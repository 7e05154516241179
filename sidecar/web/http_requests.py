"""Reads requests off a connection with llhttp (httptools), for the worker.

gunicorn's own parser is written in Python and takes a third of what an empty request costs.
llhttp is node's parser, strict by default: it refuses what request smuggling lives on (two lengths,
a length beside chunks, bare line feeds, spaces before colons).

**A request is gathered before it is answered**: its head, and its body up to ``GATHERED_BYTES``.
Until then no thread waits for it (``parking.py`` keeps the connection), so that slow clients cannot
hold all threads. The thread that answers reads the rest of a longer body as it comes.

**A request has a time limit.** It may take ``PATIENCE_S``, and longer for its body, at
``LEAST_BYTES_S``; otherwise a client could stay for ever by sending a byte now and then. Only
waiting for the client counts, so a body which OpenSearch takes slowly has its time.
"""

from __future__ import annotations

import io
import socket
import time
from collections import deque
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from sidecar.errors import BadRequest, ClientGone
from sidecar.search.targets import origin_form
from sidecar.web.http_heads import Heads

RECV_BYTES = 64 * 1024
MOST_HEAD_BYTES = 64 * 1024  # a search in the source parameter is a few thousand
PATIENCE_S = 20.0  # for a head, and for a body's pauses
LEAST_BYTES_S = 16 * 1024  # of a body in a second: 100 MB may take nearly two hours
GATHERED_BYTES = 64 * 1024  # of a body; a thousand slow clients hold 64 MB
DRAINED_BYTES = 256 * 1024  # of what nobody asked for: more ends the connection
HEADERS = "sidecar.headers"  # the environ's key for pairs of name and value


class ClientRequest:
    """One request whose head is there; what is not gathered of its body is read when asked for."""

    __slots__ = ("awaits_continue", "body_bytes", "headers", "is_broken", "is_complete",
                 "keeps_alive", "method", "parts", "target", "version")

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: deque[bytes] = deque()
        self.body_bytes = 0  # that have come
        self.is_complete = False
        self.is_broken = False  # the rest of it will not come, or cannot be read
        self.keeps_alive = True
        self.awaits_continue = False  # the client sends its body once it is told to

    @property
    def expectation(self) -> bytes | None:
        """Return what the client expects beyond an answer, in small letters; None: nothing."""
        if self.version == "1.0":
            return None
        return next((value.lower() for name, value in self.headers if name.lower() == b"expect"),
                    None)

    @property
    def is_gathered(self) -> bool:
        """Return True if it can be answered; a client that expects an answer sends no body yet."""
        return (self.is_complete or self.body_bytes >= GATHERED_BYTES
                or self.expectation is not None)


class RequestReader:
    """The requests of one connection, in turn; used by one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._parser = httptools.HttpRequestParser(self)
        self._coming = ClientRequest()
        self._ready: deque[ClientRequest] = deque()  # head complete, not yet handed out
        self._head_bytes = 0
        self._has_head = False
        self._heads = Heads()
        self._is_between = True  # the next byte begins a request
        self._target: bytes | None = None  # of the request that comes, if the parser sees another
        self._refusal: BadRequest | None = None  # of what came behind requests in hand
        self._left_s = PATIENCE_S
        self._in_hand: ClientRequest | None = None  # handed out last
        self._again: ClientRequest | None = None  # whose head is read once more: see _decline

    @property
    def has_next(self) -> bool:
        """Return True if a request is gathered, or what came is to be refused."""
        return self._refusal is not None or (bool(self._ready) and self._ready[0].is_gathered)

    @property
    def is_begun(self) -> bool:
        """Return True in the middle of a request."""
        return not self._is_between or len(self._heads) > 0

    def next(self) -> ClientRequest:
        """Hand out the next request; only where ``has_next``.

        Raises:
            BadRequest: what came is not HTTP, its head is too large, or it did not come in time.
        """
        if self._ready and self._ready[0].is_gathered:
            self._in_hand = self._ready.popleft()
            return self._in_hand
        assert self._refusal is not None, "no request is gathered"
        raise self._refusal

    def put_back(self, request: ClientRequest) -> None:
        """Take a request back that was just handed out, to hand it out again."""
        self._ready.appendleft(request)
        self._in_hand = None

    def waited(self, seconds: float) -> None:
        """Count time that passed without a byte, if a request is in its middle."""
        if self.is_begun:
            self._left_s -= seconds

    def give_up(self) -> None:
        """Refuse the request that has not come to its end."""
        self._refusal = _stopped()

    def drain(self, request: ClientRequest, most_bytes: int) -> bool:
        """Read what an application left of a body, if it is little; False if it is not."""
        taken = 0
        while not request.is_complete and not request.awaits_continue and taken <= most_bytes:
            try:
                if not self.read_on():
                    return False
            except BadRequest:  # it has its answer
                return False
            taken += sum(map(len, request.parts))
            request.parts.clear()
        return request.is_complete

    def read_on(self) -> bool:
        """Wait for more of the request in hand; False once the client has closed.

        Raises:
            BadRequest: what came is not HTTP, or too little came for too long.
            OSError: the connection broke, or was silent before a request.
        """
        if self._left_s < 0.0:
            raise BadRequest(408, f"request comes too slowly: it may take {PATIENCE_S:.0f} s, and "
                                  f"1 s more for each {LEAST_BYTES_S} bytes of its body")
        began = time.monotonic()
        try:
            data = self._connection.recv(RECV_BYTES)
        except TimeoutError:
            if self.is_begun:
                raise _stopped() from None
            raise
        self._left_s -= time.monotonic() - began
        if data:
            self._feed(data)
        return bool(data)

    def _feed(self, data: bytes) -> None:
        self._head_bytes += len(data)
        if self._is_between:
            data, self._target = self._heads.take(data)
        try:
            if data:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[int(upgrade.args[0]):])
        except httptools.HttpParserError as error:
            self._refusal = BadRequest(400, f"request is not HTTP: {error}")
            if self._coming is self._in_hand and not self._coming.is_complete:
                raise self._refusal from error  # to whoever reads its body
            return
        is_waiting = len(self._heads) > 0 or not (self._ready or self._has_head)
        if self._head_bytes > MOST_HEAD_BYTES and is_waiting:
            self._refusal = BadRequest(
                431, f"request's head is larger than {MOST_HEAD_BYTES} bytes")

    def _decline(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 after a request that offered another protocol (Java's clients do).

        llhttp takes what follows such a request's head for the other protocol. So a new parser is
        shown the same head less the offer, and finds the body where it is.
        """
        request = self._coming
        if request.method == "CONNECT":
            raise BadRequest(400, "CONNECT is for proxies; ask for a path")
        framing = [b"%b: %b\r\n" % (name, value) for name, value in request.headers
                   if name.lower() in (b"content-length", b"transfer-encoding")]
        request.is_complete = False
        self._again = request
        self._parser = httptools.HttpRequestParser(self)
        self._feed(b"".join((request.method.encode(), b" / HTTP/1.1\r\n", *framing, b"\r\n", rest)))

    # -- called by the parser

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._coming, self._has_head = self._again or ClientRequest(), self._again is not None
        self._is_between = False

    def on_url(self, part: bytes) -> None:
        """Take a piece of the target."""
        if not self._has_head:
            self._coming.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a chunked body come too late to count."""
        if not self._has_head:
            self._coming.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the request out; its body may still be coming."""
        if self._again is not None:
            self._again = None
            return
        coming = self._coming
        if self._target is not None:
            coming.target, self._target = self._target, None
        coming.method = self._parser.get_method().decode("ascii")
        coming.version = self._parser.get_http_version()
        coming.keeps_alive = self._parser.should_keep_alive()
        self._has_head, self._head_bytes = True, 0
        self._ready.append(coming)

    def on_body(self, part: bytes) -> None:
        """Take a piece of the body."""
        self._coming.parts.append(part)
        self._coming.body_bytes += len(part)
        self._left_s = min(PATIENCE_S, self._left_s + len(part) / LEAST_BYTES_S)

    def on_message_complete(self) -> None:
        """End the request."""
        self._coming.is_complete = self._is_between = True
        self._head_bytes = 0
        self._left_s = PATIENCE_S


def _stopped() -> BadRequest:
    return BadRequest(408, "request stopped in its middle; send it again")


class Body(io.RawIOBase):
    """A request's body as WSGI wants it; asks for it with 100 Continue where the client waits."""

    def __init__(self, reader: RequestReader, request: ClientRequest,
                 connection: socket.socket) -> None:
        self._reader = reader
        self._request = request
        self._connection = connection
        self._left = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Read ``size`` bytes, or all; less only at the end."""
        if size is None or size < 0:
            return b"".join(iter(self._piece, b""))
        found = []
        while size > 0 and (piece := self._piece()):
            found.append(piece[:size])
            self._left = piece[size:]
            size -= len(found[-1])
        return found[0] if len(found) == 1 else b"".join(found)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; what ``readline`` and iteration are made of."""
        piece = self._piece()
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        self._left = piece[count:]
        return count

    def _piece(self) -> bytes:
        """Return what comes next, waiting for it; empty at the end.

        Raises:
            BadRequest: the rest cannot be read, or does not come in time.
            ClientGone: the client has closed in the middle; what came is no whole body.
        """
        if self._left:
            piece, self._left = self._left, b""
            return piece
        while not self._request.parts:
            if self._request.is_complete:
                return b""
            self._read_on()
        return self._request.parts.popleft()

    def _read_on(self) -> None:
        if self._request.awaits_continue:
            self._request.awaits_continue = False
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if not self._reader.read_on():
                raise ClientGone("the client hung up in the middle of its body")
        except BaseException:
            self._request.is_broken = True
            raise


def environ_of(request: ClientRequest) -> dict[str, Any]:
    """Return the part of WSGI's environ that the request gives; the server adds its own.

    A header with an underscore is dropped: it could pass for another with a dash. WSGI joins
    headers that come twice, and OpenSearch refuses some of those: HEADERS holds all as they came.
    """
    headers = tuple((name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in request.headers)
    target = request.target.decode("latin-1")
    path, _, query = origin_form(target).partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method, "SCRIPT_NAME": "", "RAW_URI": target,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
        "QUERY_STRING": query, "SERVER_PROTOCOL": f"HTTP/{request.version}", HEADERS: headers}
    for name, text in headers:
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ
