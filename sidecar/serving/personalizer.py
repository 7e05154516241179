"""The middle of the main path: history → interest → order, by a deadline, or a named skip.

``begin`` sends the history read and returns, so that the read runs beside the upstream search.
``order`` takes the hits once they are there. Whatever fails in between is logged and becomes a
``Skip``. The caller then serves the engine's order, and counts the outcome of the search.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager

import numpy as np

from sidecar.errors import Skip
from sidecar.records import (
    NEVER_WRITTEN,
    Candidates,
    QueryContext,
    Ranking,
    SkipReason,
    UserState,
)
from sidecar.serving.faults import FaultLog
from sidecar.serving.models import RankerSource, Ranks
from sidecar.serving.pace import Pace
from sidecar.serving.pressure import Pressure
from sidecar.serving.recompute import Recomputer
from sidecar.serving.state_reads import StateRead
from sidecar.serving.telemetry import Telemetry, ms_since
from sidecar.settings import Settings
from sidecar.stores.protocols import StateStore
from sidecar.stores.upstream import Exchange

log = logging.getLogger(__name__)

RANK_THREADS = 4  # with one, a slow ranking would hold every other search to its deadline
WAIT_SHARE = 0.1  # of the time for ranking: as long may requests wait for a thread, on average


class Ticket:
    """One search under way; ``Personalizer.order`` or ``cancel`` ends it and gives its slot back.

    ``refusal``, if there is one, is known at once: why ``order`` is going to step aside.
    ``state_version`` is that of the state which it is ranked by; ``times_ms`` maps ``history`` (the
    wait beyond the upstream's answer) and ``rank`` to milliseconds.
    """

    def __init__(self, context: QueryContext, refusal: SkipReason | None,
                 release: Callable[[], None] | None) -> None:
        self.context = context
        self.refusal = refusal
        self.read: StateRead | None = None
        self.state_version = NEVER_WRITTEN
        self.times_ms: dict[str, float] = {}
        self._release = release

    def __del__(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Give the search up; harmless when it has ended."""
        release, self._release = self._release, None
        if self.read is not None:
            self.read.cancel()
        if release is not None:
            release()


class Personalizer:
    """Begins the tickets of a worker process; used by all its threads, created after the fork."""

    def __init__(self, settings: Settings, states: StateStore, ranker_source: RankerSource,
                 telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.pressure = Pressure(WAIT_SHARE * settings.timeout_ms)
        self._states = states
        self._ranker_source = ranker_source
        self._orders_strangers = settings.without_history == "model"
        self._timeout_s = settings.timeout_ms / 1000.0
        self._slots = threading.BoundedSemaphore(settings.max_searches)
        self._pool = ThreadPoolExecutor(RANK_THREADS, thread_name_prefix="rank")
        self._recomputer = Recomputer(states, telemetry)
        self._faults = FaultLog()
        self._pace = Pace()
        self._gated: Ranks | None = None  # a ranker that said so; it will say so to everybody

    def begin(self, context: QueryContext) -> Ticket:
        """Start one search's history read; never raises, never waits for an answer."""
        reason = self._refusal(context)
        ticket = Ticket(context, reason, self._slots.release if reason is None else None)
        if reason is None:
            ticket.read = StateRead(self._states, context.user_id)
        return ticket

    def receive_before(self, ticket: Ticket, exchange: Exchange) -> None:
        """Take the history in if it comes before the answer to ``exchange`` does, and let the
        ranker work out from it what needs no hits. Never raises: what went wrong shows in
        ``order``."""
        if ticket.read is None:
            return
        state = ticket.read.receive_before(exchange, self._timeout_s)
        ranker = self._ranker_source()
        if (state is None or not len(state.history) or ranker is None
                or not self._recomputer.is_fit(state, ranker)):
            return
        try:
            ranker.prepare(state)
        except Exception as error:  # it costs the search nothing yet
            log.debug("state not prepared", extra={"error": repr(error)})

    def order(self, ticket: Ticket, candidates: Candidates, deadline: float) -> Ranking:
        """Return the personal order of the window's hits.

        Args:
            ticket: the search, which this ends.
            candidates: K hits in engine order.
            deadline: instant on ``time.monotonic``'s clock; the caller waits no longer.

        Raises:
            Skip: with the reason, for every failure; logged here, once.
        """
        try:
            return self._order(ticket, candidates, deadline)
        except Skip as skip:
            self.report(skip)
            raise
        except Exception as error:  # the main path's edge: ranking never fails a search
            failure = Skip(SkipReason.RANKING_ERROR, type(error).__name__)
            failure.__cause__ = error
            self.report(failure)
            raise failure from error
        finally:
            ticket.cancel()

    def report(self, skip: Skip) -> None:
        """Log why a search is not personalised, where an operator should look."""
        self._faults.log(skip)

    def close(self) -> None:
        """Drop rankings that wait; running ones and write-backs under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._recomputer.close()

    def _refusal(self, context: QueryContext) -> SkipReason | None:
        if context.user_id is None and not (self._orders_strangers or context.attributes):
            return SkipReason.ANONYMOUS
        ranker = self._ranker_source()
        if ranker is None:
            return SkipReason.NO_MODEL
        if ranker is self._gated:
            return SkipReason.GATED
        if self.pressure.is_high() or not self._slots.acquire(blocking=False):
            return SkipReason.OVERLOAD
        return None

    def _order(self, ticket: Ticket, candidates: Candidates, deadline: float) -> Ranking:
        if ticket.refusal is not None:
            raise Skip(ticket.refusal)
        assert ticket.read is not None
        if not len(candidates):
            raise Skip(SkipReason.NO_HITS)
        with self._timed(ticket, "history"):
            state = ticket.read.at_least(ticket.context.min_state, deadline)
        if state is not None and len(state.history):
            ticket.state_version = state.version
        elif self._orders_strangers or ticket.context.attributes:
            state = None
        else:
            raise Skip(SkipReason.NO_HISTORY)
        with self._timed(ticket, "rank"):
            return self._rank_in_time(candidates, state, ticket.context, deadline)

    @contextmanager
    def _timed(self, ticket: Ticket, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            ticket.times_ms[stage] = ms_since(began)
            self.telemetry.timed(stage, ticket.times_ms[stage])

    def _rank_in_time(self, candidates: Candidates, state: UserState | None,
                      context: QueryContext, deadline: float) -> Ranking:
        """Rank here if that is sure to be quick, else in the pool, waiting until ``deadline``.

        A ranking that comes too late still ends, so that a state it recomputed serves the next
        search; one that has not begun is dropped.

        Raises:
            Skip: TIMEOUT, NO_MODEL, or the ranker's own reason.
        """
        ranker = self._ranker_source()
        if ranker is None:
            raise Skip(SkipReason.NO_MODEL)
        has_state = state is None or self._recomputer.is_fit(state, ranker)
        if has_state and self._pace.fits(ranker, deadline):
            ranking = self._rank(ranker, candidates, state, context)
            if time.monotonic() > deadline:  # it proved quick, and then was not
                raise Skip(SkipReason.TIMEOUT, "ranking")
            return ranking
        future = self._pool.submit(self._rank, ranker, candidates, state, context)
        return _in_time(future, deadline)

    def _rank(self, ranker: Ranks, candidates: Candidates, state: UserState | None,
              context: QueryContext) -> Ranking:
        if state is not None:
            state = self._recomputer.fit(state, ranker)
        began = time.perf_counter()
        try:
            ranking = ranker.rank(candidates, state, context)
        except Skip as skip:
            if skip.reason is SkipReason.GATED:
                self._gated = ranker
            raise
        self._pace.note(ranker, time.perf_counter() - began)
        if not _is_permutation(ranking, len(candidates)):
            raise ValueError(f"ranker {ranker.version} returned no permutation of its candidates")
        return ranking


def _in_time(future: Future[Ranking], deadline: float) -> Ranking:
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except NotInTime as error:
        future.cancel()
        raise Skip(SkipReason.TIMEOUT, "ranking") from error


def _is_permutation(ranking: Ranking, count: int) -> bool:
    return (ranking.order.size == count
            and bool((np.bincount(ranking.order, minlength=count) == 1).all()))
