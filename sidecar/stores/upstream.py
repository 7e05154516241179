"""The OpenSearch nodes behind the sidecar: which one to ask, and what may be asked twice.

Nodes are asked in turn. A node that took no connection, broke off before it answered, or did not
answer in time is left alone for a while, unless every node is in that state. The while doubles with
each failure in a row. Then one request tries the node, and the others only once that one has got
its answer: a node that hangs would hold them all until their time is up. A request is sent again
only where that is safe: no connection was made, so nothing was sent; or no byte of an answer came
and asking twice changes nothing (``idempotent``). Make one ``Upstream`` per process, after the
fork; many threads may use it.
"""

from __future__ import annotations

import itertools
import logging
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence

from sidecar.errors import UpstreamTimeout, UpstreamUnavailable
from sidecar.records import Headers, HttpRequest, HttpResponse, StreamedResponse
from sidecar.settings import Settings
from sidecar.stores.addresses import Address, addresses
from sidecar.stores.node_connection import NodeConnection, NothingReceived

log = logging.getLogger(__name__)

IDLE_CONNECTIONS = 64  # kept open a node; more are made under load and closed after it
IDLE_S = 55.0  # below the minute after which common load balancers drop idle connections
BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0


class Node:
    """One node: its idle connections, newest first, and how it has been answering."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.failures = 0
        self.dead_until = 0.0
        self._idle: deque[NodeConnection] = deque(maxlen=IDLE_CONNECTIONS)

    def connect(self, deadline: float, *, fresh: bool = False) -> NodeConnection:
        """Return an idle connection that is still good, or a new one; for the first request after
        a failure, which the others let try.

        Raises:
            UpstreamUnavailable: the node took no connection; it counts as dead for a while.
        """
        if self.failures:
            self.dead_until = min(deadline, time.monotonic() + LONGEST_BACKOFF_S)
        while not fresh:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if time.monotonic() - connection.idle_since < IDLE_S and not connection.is_stale():
                connection.is_reused = True
                return connection
            connection.close()
        try:
            return NodeConnection(self.address, deadline)
        except UpstreamUnavailable as error:
            self.failed(error)
            raise

    def give_back(self, connection: NodeConnection) -> None:
        """Take back a connection whose answer has been read, and note that the node is well."""
        if self.failures:
            log.info("node answers again", extra={"node": str(self.address)})
        self.failures = 0
        self.dead_until = 0.0
        if not connection.can_be_kept() or len(self._idle) >= IDLE_CONNECTIONS:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def failed(self, error: Exception) -> None:
        """Leave the node alone for a while: 1 s, then twice as long with every further failure."""
        if not self.failures:
            log.warning("node is left alone until it answers",
                        extra={"node": str(self.address), "error": str(error)})
        wait = min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.dead_until = time.monotonic() + wait

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()


class Exchange:
    """One request that has been sent, and its answer once it is asked for.

    Ask once, for ``result`` or ``stream``, or ``cancel``; used by one thread.
    """

    def __init__(self, upstream: Upstream, request: HttpRequest, *, idempotent: bool,
                 deadline: float, client: socket.socket | None) -> None:
        """Send at once; see ``Upstream.begin``."""
        self._upstream = upstream
        self._request = request
        self._may_repeat = idempotent and not isinstance(request.body, Iterator)
        self._deadline = deadline
        self._client = client
        self._node, self._connection = upstream.connect(deadline)
        self._send()

    def _send(self) -> None:
        try:
            self._connection.send(self._request, self._deadline)
        except BaseException:
            self._connection.close()
            raise

    def result(self, deadline: float | None = None) -> HttpResponse:
        """Return the whole answer.

        Args:
            deadline: instant on ``time.monotonic``'s clock; None: ``upstream_timeout_s`` after the
                request was sent.

        Raises:
            UpstreamTimeout: the deadline passed; the connection is closed, which cancels a search.
            UpstreamUnavailable: no answer, a broken one, or not HTTP.
            ClientGone: no client waits any longer.
        """
        until = self._deadline if deadline is None else deadline
        try:
            status, headers = self._read_head(until)
            body = self._connection.read_rest(until, self._client)
        except BaseException:
            self._connection.close()
            raise
        self._node.give_back(self._connection)
        return HttpResponse(status, headers, body)

    def answers_before(self, other: Exchange) -> bool:
        """Wait until one of two answers begins; True if this one has.

        False at once over TLS, where bytes on the socket need not be the answer's.
        """
        return self._connection.speaks_before(other._connection, other._deadline, other._client)

    def stream(self) -> StreamedResponse:
        """Return status and headers with the body still to come; raises as ``result``.

        While the body comes, ``upstream_timeout_s`` bounds the silence between two chunks.
        """
        try:
            status, headers = self._read_head(self._deadline)
        except BaseException:
            self._connection.close()
            raise
        return StreamedResponse(status, headers, self._chunks())

    def cancel(self) -> None:
        """Give up: close the connection, which cancels a search on OpenSearch's side."""
        self._connection.close()

    def _chunks(self) -> Iterator[bytes]:
        try:
            yield from self._connection.read_chunks(self._upstream.timeout_s, self._client)
        except BaseException:  # GeneratorExit too: half-read connections are of no use
            self._connection.close()
            raise
        self._node.give_back(self._connection)

    def _read_head(self, deadline: float) -> tuple[int, Headers]:
        try:
            return self._head(deadline)
        except NothingReceived:
            self._connection.close()
            if not self._may_repeat:
                raise
        self._node, self._connection = self._upstream.connect(deadline, fresh=True)
        self._send()
        return self._head(deadline)

    def _head(self, deadline: float) -> tuple[int, Headers]:
        """Read status and headers; a node that hangs, or closes a new connection, is left alone."""
        try:
            return self._connection.read_head(deadline, self._client)
        except UpstreamTimeout as error:
            if deadline >= self._deadline:  # not one who could wait no longer: the node hangs
                self._node.failed(error)
            raise
        except NothingReceived as error:
            if not self._connection.is_reused:
                self._node.failed(error)
            raise


class Upstream:
    """All nodes of the settings; thread-safe; made after the fork."""

    def __init__(self, settings: Settings) -> None:
        """Read where the nodes are; connects to none yet.

        Raises:
            SettingsError: an URL, certificate or key that cannot be used.
        """
        self.timeout_s = settings.upstream_timeout_s
        self.own_headers: tuple[tuple[str, str], ...] = (
            (("Authorization", settings.opensearch_authorization),)
            if settings.opensearch_authorization else ())
        self._nodes = [Node(address) for address in addresses(settings)]
        self._turn = itertools.count()

    def begin(self, request: HttpRequest, *, idempotent: bool, deadline: float | None = None,
              client: socket.socket | None = None) -> Exchange:
        """Connect, send, and return without waiting for the answer.

        Args:
            request: sent as it is; the sidecar's own reads and writes add ``own_headers``.
            idempotent: asking twice changes nothing, so it may be sent again.
            deadline: instant on ``time.monotonic``'s clock; None: ``upstream_timeout_s`` from now.
            client: the socket of the client that waits for the answer; when it closes, so does the
                upstream's connection, which cancels a search.

        Raises:
            UpstreamUnavailable: no node took the connection.
            UpstreamTimeout: the node stopped reading the request.
        """
        until = time.monotonic() + self.timeout_s if deadline is None else deadline
        return Exchange(self, request, idempotent=idempotent, deadline=until, client=client)

    def fetch(self, request: HttpRequest, *, idempotent: bool,
              deadline: float | None = None) -> HttpResponse:
        """Send and wait for the whole answer; raises as ``begin`` and ``Exchange.result``."""
        return self.begin(request, idempotent=idempotent, deadline=deadline).result()

    def fetch_together(self, requests: Sequence[HttpRequest], *, idempotent: bool,
                       client: socket.socket | None = None) -> list[HttpResponse]:
        """Send all, then wait for each; if one fails, the others are given up. Raises as ``fetch``,
        and ClientGone."""
        under_way: deque[Exchange] = deque()
        try:
            for request in requests:
                under_way.append(self.begin(request, idempotent=idempotent, client=client))
            return [under_way.popleft().result() for _ in requests]
        finally:
            for exchange in under_way:
                exchange.cancel()

    def connect(self, deadline: float, *, fresh: bool = False) -> tuple[Node, NodeConnection]:
        """Return a connection to the first node in turn that takes one."""
        broken: UpstreamUnavailable | None = None
        for node in self._in_turn():
            try:
                return node, node.connect(deadline, fresh=fresh)
            except UpstreamUnavailable as error:
                broken = error
        raise broken or UpstreamUnavailable("no node is configured")

    def close(self) -> None:
        """Close all idle connections."""
        for node in self._nodes:
            node.close()

    def _in_turn(self) -> list[Node]:
        """Return living nodes in turn; then the dead, the soonest to be tried again first."""
        if len(self._nodes) == 1:
            return self._nodes
        start = next(self._turn) % len(self._nodes)
        turned = self._nodes[start:] + self._nodes[:start]
        now = time.monotonic()
        living = [node for node in turned if node.dead_until <= now]
        dead = sorted((node for node in turned if node.dead_until > now),
                      key=lambda node: node.dead_until)
        return living + dead
