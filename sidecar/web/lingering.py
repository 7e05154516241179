"""How long does a thread stay with its connection? Until another connection waits for a thread.

gunicorn gives a kept-alive connection back to its main thread after every answer and gets it back
at the next request, which costs half of what an empty request costs. Here the thread lingers for
the next request itself. A bell calls it away as soon as a connection waits and no thread is free.
A thread lingers with a new connection too: a client may open many and be silent on most, and
gunicorn's thread waits five seconds with each.

It uses threads, sockets and a pipe, and knows nothing of gunicorn.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import suppress

LINGER_MS = 20  # a client that is busy asks again well within it


class Lingering:
    """Decides which of a worker's threads may stay; made in the worker's process, thread-safe."""

    def __init__(self, threads: int) -> None:
        """Count for a pool of so many threads."""
        self._threads = threads
        self._lock = threading.Lock()
        self._held = 0  # threads that are with a connection
        self._lingering = 0  # those of them that wait for its next request
        self._waiting = 0  # connections that wait for a thread
        self._bell = _Bell()

    def begin_waiting(self) -> bool:
        """Count a connection that goes to the threads; True if ``call`` is to follow."""
        with self._lock:
            self._waiting += 1
            return self._lingering > 0 and self._is_busy()

    def call(self) -> None:
        """Call one lingering thread away."""
        self._bell.ring()

    def take(self) -> None:
        """Count a thread that begins with a connection; the connection waits no longer."""
        with self._lock:
            self._waiting -= 1
            self._held += 1

    def leave(self) -> None:
        """Count a thread that gives its connection back."""
        with self._lock:
            self._held -= 1

    def stays(self, sock: socket.socket, may_wait: bool) -> bool:
        """Wait until there is something to read; False: give the connection to the main thread.

        Bytes that are there already are seen even without time to wait.
        """
        with self._lock:
            is_needed = not may_wait or self._is_busy()
            self._lingering += 1
        try:
            return self._bell.silent_until(sock, 0 if is_needed else LINGER_MS)
        finally:
            with self._lock:
                self._lingering -= 1

    def _is_busy(self) -> bool:
        """Return True while somebody waits for a thread; under the lock."""
        return self._waiting > 0 and self._waiting + self._held > self._threads


class _Bell:
    """Calls one lingering thread away at each ring; those that are not needed linger on."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)

    def ring(self) -> None:
        """Call one thread away."""
        with suppress(BlockingIOError):  # thousands of rings that nobody heard are enough
            os.write(self._write_end, b"!")

    def silent_until(self, sock: socket.socket, timeout_ms: float) -> bool:
        """Return True once something can be read from ``sock``; False after a ring, or too long."""
        waiting = select.poll()
        waiting.register(sock, select.POLLIN)
        waiting.register(self._read_end, select.POLLIN)
        deadline = time.monotonic() + timeout_ms / 1000.0
        left_ms = timeout_ms
        while left_ms >= 0:
            ready = {number for number, _ in waiting.poll(left_ms)}
            if sock.fileno() in ready:
                return True
            if not ready or (self._read_end in ready and self._is_mine()):
                return False
            left_ms = (deadline - time.monotonic()) * 1000.0
        return False

    def _is_mine(self) -> bool:
        try:
            return bool(os.read(self._read_end, 1))
        except BlockingIOError:  # another thread was faster
            return False
