"""The benchmark's HTTP client: raw kept-alive sockets, one code path for every server measured.

It reads no more of an answer than its head and length, so that what is measured is the server.
"""

from __future__ import annotations

import re
import select
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_RECV_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer; ``head`` ends before the empty line, ``body`` still has its chunk marks."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        found = re.search(rb"\r\n" + name.encode() + rb": *([^\r]*)", self.head, re.IGNORECASE)
        return found[1].decode("latin-1") if found else None


def request(url: str, method: str, target: str, body: bytes = b"",
            headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return the bytes of a request to the server at ``url``, whose path is the target's prefix."""
    parts = urlsplit(url)
    lines = [f"{method} {parts.path.rstrip('/')}{target} HTTP/1.1", f"host: {parts.netloc}",
             "content-type: application/json", f"content-length: {len(body)}",
             *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class RawConnection:
    """A kept-alive connection with at most one request under way."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self._needed: int | None = None  # bytes of the whole answer, once its head is there
        self._chunked_from: int | None = None
        self.socket = self._connect()

    def ask(self, payload: bytes) -> RawAnswer:
        """Send a request and wait for the answer."""
        self.send(payload)
        while (answer := self.receive()) is None:
            pass
        return answer

    def send(self, payload: bytes) -> None:
        """Send a request."""
        self._buffer.clear()
        self._needed = self._chunked_from = None
        self.socket.sendall(payload)

    def receive(self) -> RawAnswer | None:
        """Read what is there; the answer once it is complete.

        Raises:
            OSError: the server broke off.
        """
        data = self.socket.recv(_RECV_BYTES)
        if not data:
            host, port = self._address
            raise ConnectionResetError(f"{host}:{port} closed the connection before its answer")
        self._buffer += data
        return self._complete()

    def is_closed(self) -> bool:
        """Return True if the server has closed the connection, which it may while it is idle."""
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        return bool(waiting.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _connect(self) -> socket.socket:
        host, port = self._address
        try:
            opened = socket.create_connection(self._address, self._timeout_s)
        except OSError as error:
            raise ConnectionError(f"{host}:{port} takes no connection; is it running? {error}"
                                  ) from error
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def _complete(self) -> RawAnswer | None:
        if self._needed is None and self._chunked_from is None and not self._read_head():
            return None
        if self._chunked_from is not None:
            self._needed = _chunks_end(self._buffer, self._chunked_from)
        if self._needed is None or len(self._buffer) < self._needed:
            return None
        return self._answer()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        if _CHUNKED.search(head):
            self._chunked_from = end + 4
        else:
            found = _LENGTH.search(head)
            self._needed = end + 4 + (int(found[1]) if found else 0)
        return True

    def _answer(self) -> RawAnswer:
        end = self._buffer.find(b"\r\n\r\n")
        head, body = bytes(self._buffer[:end]), bytes(self._buffer[end + 4:self._needed])
        if _CLOSE.search(head):
            self.socket.close()
            self.socket = self._connect()
        return RawAnswer(int(head[9:12]), head, body)


def _chunks_end(buffer: bytearray, start: int) -> int | None:
    """Return where the chunked body that begins at ``start`` ends, None if it is not all there."""
    if not buffer.endswith(b"\r\n"):
        return None
    position = start
    while (line_end := buffer.find(b"\r\n", position)) >= 0:
        size = int(bytes(buffer[position:line_end]).split(b";")[0], 16)
        position = line_end + 2 + size + 2
        if size == 0:
            return position if position <= len(buffer) else None
        if position > len(buffer):
            return None
    return None
