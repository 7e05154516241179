"""One connection to one OpenSearch node: a request goes out, and its answer is read later.

Why not a ready-made client? Once warm, a raw socket costs 0.06 ms per request, http.client 0.15 and
opensearch-py 1.23. And because the answer is read later, one thread can have a search and a history
read under way together. llhttp (``httptools``) parses answers. Bodies pass as the bytes that came,
compressed or not. This module knows nothing of other nodes: see ``upstream``.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator

import httptools

from sidecar.errors import ClientGone, UpstreamTimeout, UpstreamUnavailable
from sidecar.records import Headers, HttpRequest
from sidecar.stores.addresses import Address

RECEIVE_BYTES = 64 * 1024
ONE_WRITE_BYTES = 64 * 1024  # below this, head and body leave in one write: one packet, one wake-up
CONNECT_TIMEOUT_S = 5.0
# Statuses of requests that a node could not read; their connections are not used again. After a 431
# a node swallows whatever follows on the connection, without an answer.
_UNREAD = frozenset({400, 413, 414, 431})


class NothingReceived(UpstreamUnavailable):
    """The node closed the connection before the first byte of its answer."""


class _Answer:
    """What the parser has told about one answer so far; the parser calls the ``on_`` methods."""

    __slots__ = ("done", "has_head", "headers", "is_dirty", "keep_alive", "parser", "parts",
                 "status")

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget the last answer."""
        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.parts: list[bytes] = []
        self.has_head = self.done = self.keep_alive = self.is_dirty = False

    def on_message_begin(self) -> None:
        self.is_dirty = self.done  # an answer that nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.status < 200:  # 100 Continue and its like announce the real answer
            self.headers.clear()
            return
        self.keep_alive = self.parser.should_keep_alive()
        self.has_head = True

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.done = self.has_head

    def ends_with_connection(self) -> bool:
        """Return True if only the end of the connection tells where the body ends."""
        return self.has_head and not any(
            name.lower() in ("content-length", "transfer-encoding") for name, _ in self.headers)


class NodeConnection:
    """One socket to one node; used by one thread at a time, for one request after the other."""

    def __init__(self, address: Address, deadline: float) -> None:
        """Connect.

        Raises:
            UpstreamUnavailable: refused, unreachable, not in time, or its certificate is not
                trusted.
        """
        self.address = address
        self.is_reused = False
        self.idle_since = 0.0
        self._answer = _Answer()
        self._is_head_request = False
        self._may_keep = True
        timeout = max(0.001, min(CONNECT_TIMEOUT_S, deadline - time.monotonic()))
        try:
            self._socket = self._open(timeout)
        except OSError as error:
            raise UpstreamUnavailable(f"{address} took no connection: {_why(error)}") from error
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def _open(self, timeout: float) -> socket.socket:
        plain = socket.create_connection((self.address.host, self.address.port), timeout)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.address.tls is not None:
                plain = self.address.tls.wrap_socket(plain, server_hostname=self.address.host)
            plain.setblocking(False)
        except BaseException:
            plain.close()
            raise
        return plain

    def is_stale(self) -> bool:
        """Return True if the idle connection was closed, or talks without having been asked."""
        return bool(self._poll.poll(0))

    def speaks_before(self, other: NodeConnection, deadline: float,
                      client: socket.socket | None) -> bool:
        """Wait until bytes come on one of two connections; True if they came on this one."""
        if self.address.tls is not None or other.address.tls is not None:
            return False
        self._poll.register(other._socket, select.POLLIN)
        if client is not None:
            self._poll.register(client, select.POLLRDHUP)
        try:
            happened = self._poll.poll(max(0.0, (deadline - time.monotonic()) * 1000))
        finally:
            self._poll.unregister(other._socket)
            if client is not None:
                self._poll.unregister(client)
        own = self._socket.fileno()
        return any(descriptor == own for descriptor, _ in happened)

    def close(self) -> None:
        """Close the socket; OpenSearch cancels a search whose connection closes."""
        self._socket.close()

    # -- sending

    def send(self, request: HttpRequest, deadline: float) -> None:
        """Send a request; a connection that breaks meanwhile shows when the answer is read.

        Raises:
            UpstreamTimeout: the node stopped reading.
        """
        self._answer.start()
        self._is_head_request = request.method == "HEAD"
        self._may_keep = True
        head = _head(request, self.address)
        try:
            if isinstance(request.body, bytes) and len(request.body) < ONE_WRITE_BYTES:
                self._write(head + request.body, deadline)
            else:
                self._write(head, deadline)
                self._send_body(request, deadline)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            self._may_keep = False  # the node may have answered before it closed

    def _send_body(self, request: HttpRequest, deadline: float) -> None:
        if request.body is None or isinstance(request.body, bytes):
            if request.body:
                self._write(request.body, deadline)
            return
        is_chunked = not _names_length(request.headers)
        patience = deadline - time.monotonic()
        for chunk in request.body:
            framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked else chunk
            if chunk and not self._write(framed, time.monotonic() + patience):
                return
        if is_chunked:
            self._write(b"0\r\n\r\n", time.monotonic() + patience)

    def _write(self, data: bytes, deadline: float) -> bool:
        """Write all of ``data``; False if the node began to answer before it had read it."""
        sent = 0
        while True:
            try:
                sent += self._socket.send(memoryview(data)[sent:] if sent else data)
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass
            except ssl.SSLWantReadError:
                self._wait(deadline, None)
            if sent >= len(data):
                return True
            if not self._wait_writable(deadline):
                self._may_keep = False
                return False

    def _wait_writable(self, deadline: float) -> bool:
        """Wait until the node reads on; False if it answers instead (seen without TLS only)."""
        listen = 0 if self.address.tls else select.POLLIN
        self._poll.modify(self._socket, select.POLLOUT | listen)
        try:
            happened = self._poll.poll(max(0.0, (deadline - time.monotonic()) * 1000))
        finally:
            self._poll.modify(self._socket, select.POLLIN)
        if not happened:
            raise UpstreamTimeout(f"{self.address} stopped reading the request")
        return bool(happened[0][1] & select.POLLOUT)

    # -- receiving

    def read_head(self, deadline: float, client: socket.socket | None) -> tuple[int, Headers]:
        """Read status and headers; interim answers (1xx) are swallowed.

        Args:
            deadline: instant on ``time.monotonic``'s clock.
            client: the socket of the client that waits for this, watched for its end; or None.

        Raises:
            NothingReceived: closed before the first byte: the one case that may be sent again.
            UpstreamUnavailable: broken off, or not HTTP.
            UpstreamTimeout: the deadline passed.
            ClientGone: no client waits any longer.
        """
        answer = self._answer
        received = False
        while not answer.has_head:
            received = self._receive(deadline, client, received)
        if self._is_head_request:
            answer.done = True
        return answer.status, tuple(answer.headers)

    def read_rest(self, deadline: float, client: socket.socket | None) -> bytes:
        """Return the whole body; raises as ``read_head``, without ``NothingReceived``."""
        answer = self._answer
        while not answer.done:
            self._receive(deadline, client, True)
        return answer.parts[0] if len(answer.parts) == 1 else b"".join(answer.parts)

    def read_chunks(self, patience_s: float, client: socket.socket | None) -> Iterator[bytes]:
        """Yield the body as it comes; ``patience_s`` is the longest silence between two chunks."""
        answer = self._answer
        while True:
            parts, answer.parts = answer.parts, []
            yield from parts
            if answer.done and not answer.parts:
                return
            self._receive(time.monotonic() + patience_s, client, True)

    def can_be_kept(self) -> bool:
        """Return True if the answer is complete and the connection may carry another request."""
        answer = self._answer
        return (self._may_keep and answer.done and answer.keep_alive and not answer.is_dirty
                and answer.status not in _UNREAD)

    def _receive(self, deadline: float, client: socket.socket | None, received: bool) -> bool:
        """Feed the parser with what comes next; returns True once anything was received."""
        data = self._read(deadline, client)
        if data is None:
            return received
        if not data:
            self._end(received)
            return received
        try:
            self._answer.parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise UpstreamUnavailable(f"{self.address} answered with broken HTTP: {error}"
                                      ) from error
        return True

    def _read(self, deadline: float, client: socket.socket | None) -> bytes | None:
        """Return the next bytes, b"" at the end of the connection, None if TLS needs more."""
        try:
            if not isinstance(self._socket, ssl.SSLSocket) or not self._socket.pending():
                self._wait(deadline, client)
            return self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:  # reset: the same as closed
            return b""

    def _end(self, received: bool) -> None:
        if not received:
            raise NothingReceived(f"{self.address} closed the connection without an answer")
        if not self._answer.ends_with_connection():
            raise UpstreamUnavailable(f"{self.address} broke off in the middle of its answer")
        self._answer.done = True

    def _wait(self, deadline: float, client: socket.socket | None) -> None:
        if client is not None:
            self._poll.register(client, select.POLLRDHUP)
        try:
            happened = self._poll.poll(max(0.0, (deadline - time.monotonic()) * 1000))
        finally:
            if client is not None:
                self._poll.unregister(client)
        if not happened:
            raise UpstreamTimeout(f"{self.address} did not answer in time")
        if client is not None and all(fd == client.fileno() for fd, _ in happened):
            raise ClientGone("the client hung up before its answer was there")


def _why(error: OSError) -> str:
    """Return what went wrong in words alone: what stands in brackets is kept out of logs, where
    OpenSearch's brackets quote users."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or str(error)


def _head(request: HttpRequest, address: Address) -> bytes:
    lines = [f"{request.method} {address.prefix}{request.target} HTTP/1.1\r\n"
             f"Host: {address.host_header}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in request.headers]
    if not _names_length(request.headers):
        if isinstance(request.body, bytes):
            lines.append(f"Content-Length: {len(request.body)}\r\n")
        elif request.body is not None:
            lines.append("Transfer-Encoding: chunked\r\n")
    head = "".join(lines)
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise UpstreamUnavailable("a header or target holds a line break; it was not sent")
    return head.encode("latin-1") + b"\r\n"


def _names_length(headers: Headers) -> bool:
    return any(name.lower() == "content-length" for name, _ in headers)
