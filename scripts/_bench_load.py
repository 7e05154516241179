"""How load is put on a server: in turn, in a closed loop, or open-loop at a given rate.

*In turn*: one connection per server and one request at a time. The arms run the same search one
after another, so that their latencies are pairs. *Closed loop*: N clients each wait for an answer
before they ask again, which finds the ceiling. *Open loop*: requests arrive at random instants, as
from independent clients. A latency counts from the instant at which the request was due, not from
when a connection was free for it, so a stall is charged to every request that it held up.
"""

from __future__ import annotations

import random
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scripts._bench_client import RawAnswer, RawConnection

Payload = tuple[str, bytes]  # (kind, request bytes); kinds are reported apart
NextPayload = Callable[[], Payload]


@dataclass(slots=True)
class Samples:
    """What a load saw: per kind, latencies in seconds; errors; outcomes; stage times in ms."""

    latencies: dict[str, list[float]] = field(default_factory=dict)
    errors: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    stages: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    never_sent: int = 0
    acknowledged: dict[str, int] = field(default_factory=dict)  # answers of status 2xx, by kind

    def add(self, kind: str, latency_s: float, answer: RawAnswer | None) -> None:
        """Note one request's end; ``answer`` None: the connection broke."""
        self.latencies.setdefault(kind, []).append(latency_s)
        if answer is None or answer.status >= 400:
            self.errors += 1
        if answer is None:
            return
        if answer.status < 300:
            self.acknowledged[kind] = self.acknowledged.get(kind, 0) + 1
        outcome = answer.header("x-personalize-status") or _told_by_the_plugin(answer.body)
        if outcome is not None:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        for part in (answer.header("server-timing") or "").split(", "):
            name, _, milliseconds = part.partition(";dur=")
            if milliseconds:
                self.stages.setdefault(name, []).append(float(milliseconds))

    @property
    def count(self) -> int:
        """Requests ended."""
        return sum(map(len, self.latencies.values()))


def _told_by_the_plugin(body: bytes) -> str | None:
    """Return what an answer's ext.personalize says was done; None where it has none."""
    told = body.rpartition(b'"personalize":{')[2]
    if told.startswith(b'"applied":true'):
        return "applied"
    return "skipped" if told.startswith(b'"applied":false') else None


def in_turn(urls: Mapping[str, str], rows: Iterator[Mapping[str, bytes]],
            warm_up: int) -> dict[str, Samples]:
    """Ask every arm for each row's search, starting with another arm each time.

    Args:
        urls: arm → server.
        rows: arm → request, one row a search.
        warm_up: rows at the start that are asked and not counted.
    """
    connections = {arm: RawConnection(url) for arm, url in urls.items()}
    samples = {arm: Samples() for arm in urls}
    arms = list(urls)
    for number, row in enumerate(rows):
        shift = number % len(arms)
        for arm in arms[shift:] + arms[:shift]:
            started = time.perf_counter()
            answer = connections[arm].ask(row[arm])
            latency_s = time.perf_counter() - started
            if number >= warm_up:
                samples[arm].add(arm, latency_s, answer)
    for connection in connections.values():
        connection.close()
    return samples


def closed_loop(url: str, next_payload: NextPayload, *, clients: int, seconds: float) -> Samples:
    """Let ``clients`` ask for ``seconds``, each as soon as it has its answer."""
    loop = _Loop(url, clients)
    started = time.perf_counter()
    end = started + seconds
    for connection in list(loop.idle):
        loop.send(connection, *next_payload(), due=time.perf_counter())
    while loop.busy:
        for connection in loop.wait(1.0):
            if time.perf_counter() < end:
                loop.send(connection, *next_payload(), due=time.perf_counter())
    loop.samples.seconds = time.perf_counter() - started
    loop.close()
    return loop.samples


def open_loop(url: str, next_payload: NextPayload, *, rate: float, seconds: float,
              connections: int = 64, seed: int = 0,
              each_second: Callable[[float], None] | None = None) -> Samples:
    """Let requests arrive at ``rate`` a second, exponentially spaced, for ``seconds``.

    Arrivals that find every connection busy wait, and their waiting counts. Those still waiting
    ten seconds after the end are ``never_sent``.
    """
    loop = _Loop(url, connections)
    arrivals = _arrivals(rate, seconds, random.Random(seed))
    started = time.perf_counter()
    due = next(arrivals, None)
    waiting: deque[float] = deque()
    next_tick = 1.0
    while due is not None or waiting or loop.busy:
        now = time.perf_counter() - started
        if now > seconds + 10.0:
            break
        while due is not None and due <= now:
            waiting.append(started + due)
            due = next(arrivals, None)
        while waiting and loop.idle:
            loop.send(loop.idle[-1], *next_payload(), due=waiting.popleft())
        if each_second is not None and now >= next_tick:
            each_second(now)
            next_tick += 1.0
        loop.wait(0.05 if due is None else max(0.0, started + due - time.perf_counter()))
    loop.samples.seconds = time.perf_counter() - started
    loop.samples.never_sent = len(waiting) + len(loop.busy)
    loop.close()
    return loop.samples


class _Loop:
    """Many connections to one server, in one thread."""

    def __init__(self, url: str, connections: int) -> None:
        self.samples = Samples()
        self.idle = [RawConnection(url) for _ in range(connections)]
        self.busy: dict[RawConnection, tuple[str, float]] = {}  # kind, when due
        self._url = url
        self._selector = selectors.DefaultSelector()

    def send(self, connection: RawConnection, kind: str, payload: bytes, *, due: float) -> None:
        """Send on an idle connection; on a new one in its place if the server has closed it."""
        self.idle.remove(connection)
        if connection.is_closed():
            connection.close()
            connection = RawConnection(self._url)
        self.busy[connection] = (kind, due)
        connection.send(payload)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def wait(self, timeout_s: float) -> Sequence[RawConnection]:
        """Read what has come; return the connections that became idle."""
        freed = []
        for key, _ in self._selector.select(timeout_s):
            connection: RawConnection = key.data
            try:
                answer = connection.receive()
            except OSError:
                freed.append(self._end(key.fileobj, connection, None))
                continue
            if answer is not None:
                freed.append(self._end(key.fileobj, connection, answer))
        return freed

    def close(self) -> None:
        """Close every connection."""
        for connection in [*self.idle, *self.busy]:
            connection.close()
        self._selector.close()

    def _end(self, registered: object, connection: RawConnection,
             answer: RawAnswer | None) -> RawConnection:
        now = time.perf_counter()
        self._selector.unregister(registered)  # type: ignore[arg-type]
        kind, due = self.busy.pop(connection)
        self.samples.add(kind, now - due, answer)
        if answer is None:
            connection.close()
            connection = RawConnection(self._url)
        self.idle.append(connection)
        return connection


def _arrivals(rate: float, seconds: float, random_source: random.Random) -> Iterator[float]:
    instant = random_source.expovariate(rate)
    while instant < seconds:
        yield instant
        instant += random_source.expovariate(rate)
