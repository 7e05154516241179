"""The middle of the main path: history → interest → order, by a deadline, or a named skip.

``begin`` sends the history read and returns, so that the read runs beside the upstream search.
``order`` takes the hits once they are there. Whatever fails in between is logged and becomes a
``Skip``. The caller then serves the engine's order, and counts the outcome of the search.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass

import numpy as np

from sidecar.errors import Skip, UpstreamError, UpstreamTimeout
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
from sidecar.serving.telemetry import Telemetry, ms_since
from sidecar.settings import Settings
from sidecar.stores.protocols import PendingState, StateStore
from sidecar.stores.upstream import Exchange

log = logging.getLogger(__name__)

RANK_THREADS = 4  # with one, a slow ranking would hold every other search to its deadline
WAIT_SHARE = 0.1  # of the time for ranking: as long may requests wait for a thread, on average
REREAD_S = 0.002  # between reads while a demanded state version is not there yet


class _NotYet:
    """The mark of a history that has not been taken in."""


_NOT_YET = _NotYet()


@dataclass(slots=True)
class Timings:
    """Milliseconds waited for the history, beyond the upstream's answer, and for the order."""

    history_ms: float = 0.0
    rank_ms: float = 0.0


class Personalizer:
    """Begins the tickets of a worker process; used by all its threads, created after the fork."""

    def __init__(self, settings: Settings, states: StateStore, ranker_source: RankerSource,
                 telemetry: Telemetry) -> None:
        self.states = states
        self.ranker_source = ranker_source
        self.telemetry = telemetry
        self.orders_strangers = settings.without_history == "model"
        self.timeout_s = settings.timeout_ms / 1000.0
        self.pressure = Pressure(WAIT_SHARE * settings.timeout_ms)
        self._slots = threading.BoundedSemaphore(settings.max_searches)
        self._pool = ThreadPoolExecutor(RANK_THREADS, thread_name_prefix="rank")
        self._recomputer = Recomputer(states, telemetry)
        self._faults = FaultLog()
        self._pace = Pace()
        self._gated: Ranks | None = None  # a ranker that said so; it will say so to everybody

    def begin(self, context: QueryContext) -> Ticket:
        """Start one search's history read; never raises, never waits for an answer."""
        reason = self._refusal(context)
        if reason is not None:
            return Ticket(self, context, refusal=reason)
        ticket = Ticket(self, context, release=self._slots.release)
        ticket.read()
        return ticket

    def rank(self, candidates: Candidates, state: UserState | None, context: QueryContext,
             deadline: float) -> Ranking:
        """Rank here if that is sure to be quick, else in the pool, waiting until ``deadline``.

        A ranking that comes too late still ends, so that a state it recomputed serves the next
        search; one that has not begun is dropped.

        Raises:
            Skip: TIMEOUT, NO_MODEL, or the ranker's own reason.
        """
        ranker = self.ranker_source()
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

    def prepare(self, state: UserState) -> None:
        """Let the ranker work out what it can from a state before there are hits to rank. Never
        raises: a wrong state shows when it ranks."""
        ranker = self.ranker_source()
        if ranker is None or not self._recomputer.is_fit(state, ranker):
            return
        try:
            ranker.prepare(state)
        except Exception as error:  # it costs the search nothing yet
            log.debug("state not prepared", extra={"error": repr(error)})

    def report(self, skip: Skip) -> None:
        """Log why a search is not personalised, where an operator should look."""
        self._faults.log(skip)

    def close(self) -> None:
        """Drop rankings that wait; running ones and write-backs under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._recomputer.close()

    def _refusal(self, context: QueryContext) -> SkipReason | None:
        if context.user_id is None and not (self.orders_strangers or context.attributes):
            return SkipReason.ANONYMOUS
        ranker = self.ranker_source()
        if ranker is None:
            return SkipReason.NO_MODEL
        if ranker is self._gated:
            return SkipReason.GATED
        if self.pressure.is_high() or not self._slots.acquire(blocking=False):
            return SkipReason.OVERLOAD
        return None

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


class Ticket:
    """One search under way; ``order`` or ``cancel`` ends it and gives its slot back.

    ``refusal``, if there is one, is known at once: why ``order`` is going to step aside.
    """

    def __init__(self, personalizer: Personalizer, context: QueryContext, *,
                 refusal: SkipReason | None = None,
                 release: Callable[[], None] | None = None) -> None:
        self.context = context
        self.timings = Timings()
        self.state_version = NEVER_WRITTEN
        self._personalizer = personalizer
        self.refusal = refusal
        self._release = release
        self._pending: PendingState | None = None
        self._early: UserState | Exception | _NotYet | None = _NOT_YET

    def __del__(self) -> None:
        self.cancel()

    def read(self) -> None:
        """Send the history read; a store that cannot be asked shows in ``order``."""
        if self.context.user_id is None:
            return
        try:
            self._pending = self._personalizer.states.begin_get(self.context.user_id)
        except UpstreamError:
            self.refusal = SkipReason.STATE_UNAVAILABLE

    def receive_before(self, exchange: Exchange) -> None:
        """Take the history in if it comes before the answer to ``exchange`` does.

        Its decoding, and what the ranker makes of it alone, then cost no latency, as OpenSearch is
        still searching. Never raises: what went wrong shows in ``order``.
        """
        pending = self._pending
        if pending is None or not pending.comes_before(exchange):
            return
        self._pending = None
        try:
            state = pending.result(time.monotonic() + self._personalizer.timeout_s)
        except Exception as error:  # raised here, it would cost the answer that is still to come
            self._early = error
            return
        self._early = state
        if state is not None and len(state.history):
            self._personalizer.prepare(state)

    def order(self, candidates: Candidates, deadline: float) -> Ranking:
        """Return the personal order of the window's hits.

        Args:
            candidates: K hits in engine order.
            deadline: instant on ``time.monotonic``'s clock; the caller waits no longer.

        Raises:
            Skip: with the reason, for every failure; logged here, once.
        """
        try:
            return self._order(candidates, deadline)
        except Skip as skip:
            self._personalizer.report(skip)
            raise
        except Exception as error:  # the main path's edge: ranking never fails a search
            failure = Skip(SkipReason.RANKING_ERROR, type(error).__name__)
            failure.__cause__ = error
            self._personalizer.report(failure)
            raise failure from error
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Give the search up; harmless when it has ended."""
        pending, self._pending = self._pending, None
        release, self._release = self._release, None
        if pending is not None:
            pending.cancel()
        if release is not None:
            release()

    def _order(self, candidates: Candidates, deadline: float) -> Ranking:
        if self.refusal is not None:
            raise Skip(self.refusal)
        if not len(candidates):
            raise Skip(SkipReason.NO_HITS)
        started = time.perf_counter()
        try:
            state = self._state(deadline)
        finally:
            self.timings.history_ms = ms_since(started)
            self._personalizer.telemetry.timed("history", self.timings.history_ms)
        started = time.perf_counter()
        try:
            return self._personalizer.rank(candidates, state, self.context, deadline)
        finally:
            self.timings.rank_ms = ms_since(started)
            self._personalizer.telemetry.timed("rank", self.timings.rank_ms)

    def _state(self, deadline: float) -> UserState | None:
        state = self._read_at_least(self.context.min_state, deadline)
        if state is not None and len(state.history):
            self.state_version = state.version
            return state
        if not (self._personalizer.orders_strangers or self.context.attributes):
            raise Skip(SkipReason.NO_HISTORY)
        return None

    def _read_at_least(self, version: int | None, deadline: float) -> UserState | None:
        """Read until the state has reached ``version``; Skip(STATE_BEHIND) at the deadline."""
        state = self._result(deadline)
        while version is not None and _version(state) < version:
            if time.monotonic() + REREAD_S >= deadline:
                raise Skip(SkipReason.STATE_BEHIND)
            time.sleep(REREAD_S)
            self.read()
            if self._pending is None:
                raise Skip(self.refusal or SkipReason.ANONYMOUS)
            state = self._result(deadline, when_late=SkipReason.STATE_BEHIND)
        return state

    def _result(self, deadline: float,
                when_late: SkipReason = SkipReason.TIMEOUT) -> UserState | None:
        early, self._early = self._early, _NOT_YET
        pending, self._pending = self._pending, None
        try:
            if isinstance(early, Exception):
                raise early
            if not isinstance(early, _NotYet):
                return early
            return None if pending is None else pending.result(deadline)
        except UpstreamTimeout as error:
            raise Skip(when_late, "history read") from error
        except UpstreamError as error:
            raise Skip(SkipReason.STATE_UNAVAILABLE, str(error)) from error


def _version(state: UserState | None) -> int:
    return NEVER_WRITTEN if state is None else state.version


def _in_time(future: Future[Ranking], deadline: float) -> Ranking:
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except NotInTime as error:
        future.cancel()
        raise Skip(SkipReason.TIMEOUT, "ranking") from error


def _is_permutation(ranking: Ranking, count: int) -> bool:
    return (ranking.order.size == count
            and bool((np.bincount(ranking.order, minlength=count) == 1).all()))
