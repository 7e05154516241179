"""gunicorn's threaded worker, with five changes that matter where every millisecond is looked at.

*Requests are read by llhttp* (``http_requests.py``), not by gunicorn's parser in Python.

*A thread stays with its connection for a moment.* gunicorn gives a kept-alive connection back to
its main thread after every answer and gets it back at the next request, which costs half of what
an empty request costs. Here the thread lingers for the next request itself, until it is needed: a
bell calls it away as soon as somebody else waits for a thread. With a new connection, too: a
client may open many and be silent on most, and gunicorn's thread waits five seconds with each.

*A request that is slow to come holds no thread.* Until it is gathered (``http_requests.py``), its
connection is parked with gunicorn's main thread whenever it falls silent.

*The worker with fewer connections accepts first.* All workers are woken by a new connection, and
an idle machine always lets the same one win: a pool of kept-alive connections, opened at once,
would then keep one worker busy while the others sleep.

*At a reload the old workers serve until the new ones do* (``handover.py``), and one that leaves
waits a moment for the first request on a connection that it has taken already, as gunicorn does
for the next request on one that it keeps alive.

Accepting, waiting for idle connections, signals and stopping are gunicorn's (27); so is everything
about a TLS connection, which is answered the usual way.
"""

from __future__ import annotations

import logging
import os
import select
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from gunicorn.workers import gthread

from sidecar.errors import BadRequest, ClientGone
from sidecar.web.handover import handover
from sidecar.web.http_replies import Reply, expectation_failed, refuse
from sidecar.web.http_requests import Body, Request, RequestReader, environ_of
from sidecar.web.idle_connections import IdleConnections

log = logging.getLogger(__name__)

LINGER_MS = 20  # a client that is busy asks again well within it
YIELD_S = 0.0005  # a waiting worker's accept takes a tenth of it
MOST_YIELDS = 4
TIMEOUT_S = 10.0  # longest silence in the middle of a request, or of an answer's reader
CLOSING_S = 2.0  # for a client to close what is answered
DRAINED_BYTES = 256 * 1024
CONTINUE = b"100-continue"  # the one expectation that there is
_PARK = object()  # a connection's mark: its request has begun and is not gathered


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """Answers a busy connection's requests one after another in one thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._is_tls = bool(self.cfg.is_ssl)
        self._held = 0  # threads that are with a connection
        self._lingering = 0  # those of them that wait for its next request
        self._waiting = 0  # connections that wait for a thread
        self._parked: IdleConnections  # in the middle of a request
        self._closing: IdleConnections  # answered, and not closed by their clients yet
        self._bell: _Bell
        self._is_loaded = False
        self._is_leaving = False  # told to, and waiting for those who take over

    def init_process(self) -> None:
        """Run the worker; called in its own process."""
        self._bell = _Bell()
        super().init_process()

    def run(self) -> None:
        """Serve until told to leave."""
        self._parked = IdleConnections(self.poller, TIMEOUT_S, readable=self._resume,
                                   expired=self._give_up)
        self._closing = IdleConnections(self.poller, CLOSING_S, readable=self._discard_rest,
                                    expired=self._close)
        super().run()

    def load_wsgi(self) -> None:
        """Load the application, and let the workers that this one replaces go."""
        try:
            super().load_wsgi()
        except BaseException:
            handover.leave(self.age)
            raise
        self._is_loaded = True
        handover.arrive(self.age)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Leave on SIGTERM, at a reload once others have taken over; at once while it loads, which
        may take longer than whoever stops the sidecar waits."""
        handover.leave(self.age)
        if not self._is_loaded:
            sys.exit(0)
        self._is_leaving = True
        if handover.may_go(self.age):
            super().handle_exit(sig, frame)

    def notify(self) -> None:
        """Tell the master that this worker lives, which it does every second; leave if it may."""
        super().notify()
        if self._is_leaving and handover.may_go(self.age):
            self.alive = False

    def accept(self, listener: Any) -> None:
        """Accept a connection, the later the more this worker has.

        One that has as many as it may closes the one that has been idle for longest, or else silent
        before or in its request: the kernel would keep the new one waiting until then, health
        checks included.
        """
        if self.cfg.workers > 1 and self.nr_conns:
            time.sleep(YIELD_S * min(self.nr_conns, MOST_YIELDS))
        if self.nr_conns + 1 >= self.worker_connections:
            silent = (self._closing or self.keepalived_conns or self.pending_conns
                      or self._parked)
            for conn in islice(silent, 1):
                conn.timeout = 0.0
            self.murder_keepalived()
            self.murder_pending()
        super().accept(listener)

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to the threads, and note since when it waits for one."""
        conn.waits_since = time.monotonic()
        with self._lock:
            self._waiting += 1
            is_needed = self._lingering > 0 and self._is_busy()
        super().enqueue_req(conn)
        if is_needed:
            self._bell.ring()

    def handle(self, conn: Any) -> Any:
        """Answer a connection's requests; as gunicorn's ``handle``.

        Returns:
            True to keep the connection, False to close it, gunicorn's mark if nothing came yet,
            this module's in the middle of a request.
        """
        with self._lock:
            self._waiting -= 1
            self._held += 1
        self._note_wait(conn)
        try:
            return self._handle(conn)
        finally:
            with self._lock:
                self._held -= 1

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take a connection back from a thread; as gunicorn's, in the main thread.

        gunicorn would drop one on which nothing came yet, if it is about to leave: its client's
        first search would fail. And it would wait here, up to two seconds and for nobody else, for
        a client to close the connection in its turn.
        """
        outcome = None if fs.cancelled() or fs.exception() else fs.result()
        try:
            if outcome is _PARK:
                self._parked.add(conn)
            elif outcome is False:
                self._half_close(conn)
            elif outcome is gthread._DEFER and not self.alive:
                self._await_first_request(conn)
            else:
                super().finish_request(conn, fs)
        except (OSError, ValueError, KeyError):  # its socket cannot be waited for any more
            self._close(conn)

    def _await_first_request(self, conn: Any) -> None:
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + gthread.STOP_KEEPALIVE_LINGER
        self.poller.register(conn.sock, selectors.EVENT_READ,
                             partial(self.on_pending_socket_readable, conn))
        self.pending_conns.append(conn)

    def murder_pending(self) -> None:
        """Close connections that have been silent for too long before a request, or in one."""
        super().murder_pending()
        self._parked.expire()
        self._closing.expire()

    def _resume(self, conn: Any) -> None:
        """Give a thread to a connection whose request goes on."""
        self._parked.remove(conn)
        conn.parser.waited(time.monotonic() - conn.idle_since)
        self.enqueue_req(conn)

    def _give_up(self, conn: Any) -> None:
        """Give a thread to a connection, to tell its client that the request did not come."""
        conn.parser.give_up()
        self.enqueue_req(conn)

    def _half_close(self, conn: Any) -> None:
        """Send no more, and close a connection once its client has: closed at once while bytes of
        it are unread, the client might never see the answer (RFC 9112, 9.6)."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        conn.unread_bytes = 0
        self._closing.add(conn)

    def _discard_rest(self, conn: Any) -> None:
        """Throw away what a client still sends, if it is little."""
        try:
            count = len(conn.sock.recv(DRAINED_BYTES))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        conn.unread_bytes += count
        if not count or conn.unread_bytes > DRAINED_BYTES:
            self._closing.remove(conn)
            self._close(conn)

    def _close(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _handle(self, conn: Any) -> Any:
        if not (conn.initialized or conn.data_ready or self._lingers(conn)):
            return gthread._DEFER
        if self._is_tls:
            return super().handle(conn)
        try:
            return self._serve(conn)
        except OSError:  # the client is gone, or too slow
            return False

    def _serve(self, conn: Any) -> Any:
        """Answer what has come; its socket has something to read, or its reader a request."""
        if not conn.initialized:
            conn.initialized, conn.parser = True, RequestReader(conn.sock)
        conn.sock.settimeout(TIMEOUT_S)
        reader: RequestReader = conn.parser
        try:
            while True:
                if reader.has_next:
                    if not self._answer(conn, reader, reader.next()):
                        return False
                elif not reader.read_on():
                    return False
                if not (reader.has_next or self._comes(conn, reader)):
                    return _PARK if reader.is_begun else True
        except BadRequest as error:
            self._refuse(conn, error)
        return False

    def _refuse(self, conn: Any, error: BadRequest) -> None:
        """Tell a client why the application does not answer it, and count that."""
        services = self._services()
        if services is not None:
            services.telemetry.refused("bad_request" if error.status < 500 else "internal_error")
        refuse(conn.sock, error)

    def _services(self) -> Any:
        """Return what the application is made of; None where it is not the sidecar's."""
        return getattr(self.wsgi, "extensions", {}).get("personalize")

    def _comes(self, conn: Any, reader: RequestReader) -> bool:
        """Wait for more of what the client sends; False gives the thread back."""
        began = time.monotonic()
        try:
            return self._lingers(conn)
        finally:
            reader.waited(time.monotonic() - began)

    def _answer(self, conn: Any, reader: RequestReader, request: Request) -> bool:
        """Answer one request; False if the connection is to be closed."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        reply = Reply(conn.sock, request, keeps_alive=request.keeps_alive and self.alive)
        expectation = request.expectation
        request.awaits_continue = expectation is not None and not request.is_complete
        application = self.wsgi if expectation in (None, CONTINUE) else expectation_failed
        try:
            pieces = application(self._environ(conn, reader, request), reply.start_response)
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
                self._refuse(conn, error)
            return False
        except Exception:
            log.exception("request failed")
            if not reply.is_begun:
                self._refuse(conn, BadRequest(500, "internal error; see the sidecar's log"))
            return False
        return reply.keeps_alive and reader.drain(request, DRAINED_BYTES)

    def _environ(self, conn: Any, reader: RequestReader, request: Request) -> dict[str, Any]:
        environ = environ_of(request)
        is_unix = isinstance(conn.server, str)
        host, port = (conn.server, "") if is_unix else conn.server[:2]
        environ |= {
            "SERVER_NAME": host, "SERVER_PORT": str(port),
            "REMOTE_ADDR": "" if is_unix else conn.client[0],
            "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.multithread": True,
            "wsgi.multiprocess": True, "wsgi.run_once": False, "wsgi.errors": _LogStream(),
            "wsgi.input_terminated": True, "gunicorn.socket": conn.sock,
            "wsgi.input": Body(reader, request, conn.sock)}
        return environ

    def _lingers(self, conn: Any) -> bool:
        """Wait for a request on the connection; False gives it back to the main thread."""
        with self._lock:
            is_needed = not self.alive or self._is_busy()
            self._lingering += 1
        try:
            return self._bell.silent_until(conn.sock, 0 if is_needed else LINGER_MS)
        finally:
            with self._lock:
                self._lingering -= 1

    def _is_busy(self) -> bool:
        """Return True while somebody waits for a thread; under the lock."""
        return self._waiting > 0 and self._waiting + self._held > self.cfg.threads

    def _note_wait(self, conn: Any) -> None:
        services = self._services()
        if services is not None:
            services.personalizer.pressure.waited(time.monotonic() - conn.waits_since)


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

    def silent_until(self, sock: Any, timeout_ms: float) -> bool:
        """Return True once something can be read from ``sock``; False after a ring, or too long.

        What is there already is seen even where there is no time to wait.
        """
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


class _LogStream:
    """Where an application writes its complaints."""

    def write(self, text: str) -> None:
        if text.strip():
            log.error("application wrote to wsgi.errors", extra={"text": text.strip()})

    def flush(self) -> None:
        pass
