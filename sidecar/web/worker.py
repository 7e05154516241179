"""gunicorn's threaded worker, changed where every millisecond counts. This is the only file that
knows the inside of a gunicorn worker (``gunicorn_conf.py`` knows the master).

*Requests are read by llhttp* (``http_requests.py``) and answered one after another
(``conversation.py``), not by gunicorn's parser in Python.

*A thread stays with its connection for a moment* (``lingering.py``).

*A client that is slow holds no thread* (``parking.py``).

*One thread is left to answer what needs nothing of OpenSearch* (``places.py``).

*The worker with fewer connections accepts first.* All workers are woken by a new connection, and
an idle machine always lets the same one win: a pool of kept-alive connections, opened at once,
would then keep one worker busy while the others sleep.

*At a reload the old workers serve until the new ones do* (``handover.py``), and one that leaves
waits a moment for the first request on a connection that it has taken already, as gunicorn does
for the next request on one that it keeps alive.

Accepting, waiting for idle connections, signals and stopping are gunicorn's (27); so is everything
about a TLS connection, which is answered the usual way.

**What all of it relies upon**, though gunicorn does not document it (``gunicorn.workers.base`` and
``gthread``; ``pyproject.toml`` holds them to one series). Each method says what else it needs.

- ``age`` numbers the workers in the order of their forks. ``load_wsgi`` sets ``wsgi``. Only the
  worker reads ``nr`` and ``max_requests``.
- Once ``alive`` is False, ``run`` ends its loop at the next round, and then gives kept connections
  two seconds. ``run`` calls the ``data`` of each ready key of ``poller`` with its socket.
- A connection (``TConn``) has the attributes of ``idle_connections.ClientConnection`` and takes new
  ones. ``accept`` adds it to ``nr_conns``, and the code that closes it subtracts it.
- ``handle``, and what it calls, runs in the pool's threads. Everything else runs in the main one.
"""

from __future__ import annotations

import io
import selectors
import sys
import time
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

from gunicorn.workers import gthread

from sidecar.errors import BadRequest
from sidecar.web.conversation import AGAIN, PARK, converse
from sidecar.web.handover import handover
from sidecar.web.http_requests import RequestReader
from sidecar.web.lingering import Lingering
from sidecar.web.parking import Parking
from sidecar.web.places import Places

YIELD_S = 0.0005  # a waiting worker's accept takes a tenth of it
MOST_YIELDS = 4
PLACE_S = 0.1  # that a request waits for a place, before it queues up again
NO_PLACE_S = 0.005  # the same, if no place has got free for PLACE_S
TIMEOUT_S = 10.0  # longest silence in the middle of a request, or of an answer's reader


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """Answers a busy connection's requests one after another in one thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The master calls this before the fork, so init_process and run make what holds files.
        super().__init__(*args, **kwargs)
        self.lingering: Lingering
        self.places: Places
        self._parking: Parking
        self._is_tls = bool(self.cfg.is_ssl)
        self._is_loaded = False
        self._is_leaving = False  # told to, and waiting for those who take over

    # -- from start to end

    def init_process(self) -> None:
        """Run the worker; called in its own process."""
        self.lingering = Lingering(self.cfg.threads)
        self.places = Places(self.cfg.threads - 1, PLACE_S, least_s=NO_PLACE_S)
        super().init_process()  # makes the poller, calls load_wsgi and then run

    def run(self) -> None:
        """Serve until told to leave."""
        self._parking = Parking(self.poller, TIMEOUT_S, enqueue=self.enqueue_req, close=self._close)
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
            super().handle_exit(sig, frame)  # clears alive, and wakes the poller

    def notify(self) -> None:
        """Tell the master that this worker lives, which it does every second; leave if it may."""
        super().notify()
        if self._is_leaving and handover.may_go(self.age):
            self.alive = False  # run calls this just before it waits, and looks at alive after that

    # -- a connection's way

    def accept(self, listener: Any) -> None:
        """Accept a connection, the later the more this worker has.

        One that has as many as it may closes the one that has been idle for longest, or else silent
        before or in its request: the kernel would keep the new one waiting until then, health
        checks included.
        """
        if self.cfg.workers > 1 and self.nr_conns:
            time.sleep(YIELD_S * min(self.nr_conns, MOST_YIELDS))
        # Relied upon: run accepts nothing more at worker_connections. keepalived_conns and
        # pending_conns (silent since they were accepted) are in the order of their timeouts, and
        # the murder_ methods close connections from the left until one has time left.
        if self.nr_conns + 1 >= self.worker_connections:
            parking = self._parking
            silent = (parking.closing or self.keepalived_conns or self.pending_conns
                      or parking.parked)
            for conn in islice(silent, 1):
                conn.timeout = 0.0
            self.murder_keepalived()
            self.murder_pending()
        super().accept(listener)

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to the threads, and note since when it waits for one."""
        # Relied upon: every connection comes to a thread through here, and there to handle.
        conn.waits_since = time.monotonic()
        is_needed = self.lingering.begin_waiting()
        super().enqueue_req(conn)
        if is_needed:
            self.lingering.call()

    def handle(self, conn: Any) -> Any:
        """Answer a connection's requests; as gunicorn's ``handle``, in one of the threads.

        Returns:
            True to keep the connection, False to close it, gunicorn's mark if nothing came yet,
            ``PARK`` in the middle of a request, ``AGAIN`` for one that has found no place.
        """
        self.lingering.take()
        try:
            self._note_wait(conn)
            return self._handle(conn)
        finally:
            self.lingering.leave()

    def _handle(self, conn: Any) -> Any:
        # Relied upon: initialized is False until handle sets a parser. data_ready is True once the
        # poller saw the first bytes. On _DEFER, finish_request puts the connection into
        # pending_conns.
        if not (conn.initialized or conn.data_ready
                or self.lingering.stays(conn.sock, self.alive)):
            return gthread._DEFER
        if self._is_tls:
            return super().handle(conn)
        try:
            if not conn.initialized:
                conn.initialized, conn.parser = True, _Parser(conn.sock)
            conn.sock.settimeout(TIMEOUT_S)
            return converse(self, conn)
        except OSError:  # the client is gone, or too slow
            return False

    def count_request(self) -> None:
        """Count a request; after the last that a worker may take, it leaves."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take a connection back from a thread; as gunicorn's, in the main thread.

        gunicorn would drop one on which nothing came yet, if it is about to leave: its client's
        first search would fail. And it would wait here for a client to close the connection.
        """
        # Relied upon: gunicorn calls this once for each enqueue_req, with the future of handle. Its
        # own method keeps a connection after any other true result, and closes it after a failure.
        outcome = None if fs.cancelled() or fs.exception() else fs.result()
        try:
            if outcome is PARK:
                self._parking.parked.add(conn)
            elif outcome is AGAIN:
                self.enqueue_req(conn)
            elif outcome is False:
                self._parking.half_close(conn)
            elif outcome is gthread._DEFER and not self.alive:
                self._await_first_request(conn)
            else:
                super().finish_request(conn, fs)
        except (OSError, ValueError, KeyError):  # its socket cannot be waited for any more
            self._close(conn)

    def _await_first_request(self, conn: Any) -> None:
        # The same as gunicorn does on _DEFER, with a shorter time.
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + gthread.STOP_KEEPALIVE_LINGER
        self.poller.register(conn.sock, selectors.EVENT_READ,
                             partial(self.on_pending_socket_readable, conn))
        self.pending_conns.append(conn)

    def murder_pending(self) -> None:
        """Close connections that have been silent for too long before a request, or in one."""
        super().murder_pending()  # run calls this after each round of the poller, to the very end
        self._parking.expire()

    def _cap_keepalive(self, deadline: float) -> None:
        # run calls this once, when it has ceased to accept: kept connections end by the deadline.
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _close(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

    # -- what the application's own parts are told

    def count_refusal(self, error: BadRequest) -> None:
        """Count a request that the application does not answer."""
        services = self._services()
        if services is not None:
            services.telemetry.refused("bad_request" if error.status < 500 else "internal_error")

    def _note_wait(self, conn: Any) -> None:
        services = self._services()
        if services is not None:
            services.personalizer.pressure.waited(time.monotonic() - conn.waits_since)

    def _services(self) -> Any:
        """Return what the application is made of; None where it is not the sidecar's."""
        return getattr(self.wsgi, "extensions", {}).get("personalize")


class _Parser(RequestReader):
    """A connection's parser with the one attribute that gunicorn's main thread reads."""

    # finish_request gives a kept connection back to the threads if bytes that were read ahead are
    # in this buffer. It is always empty: a thread answers all that it has read before it leaves.
    unreader = SimpleNamespace(buf=io.BytesIO())
