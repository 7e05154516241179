"""Brings parsed events into the log and the states: log first, states second.

``events`` uses it, and its docstring says why this order.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sidecar.errors import EventError, UpstreamUnavailable, VersionConflict
from sidecar.records import NEVER_WRITTEN, Event, History, UserState
from sidecar.serving.histories import Growth, grow
from sidecar.serving.models import RankerSource
from sidecar.serving.stepping import step
from sidecar.serving.telemetry import Telemetry
from sidecar.stores.protocols import EventLog, PendingAppend, StateStore

PATIENCE_S = 10.0  # for conflicts and overload; beyond it the client is told to try again
LONGEST_PAUSE_S = 0.1


@dataclass(slots=True)
class Arrival:
    """One event on its way in, and what has become of it.

    ``has_our_time``: the client sent no time, so it has that of its arrival. ``refusal`` says why
    the log does not take it; ``version`` is that of the user's state which holds it (NEVER_WRITTEN:
    nothing is kept of this user), ``is_duplicate`` that its id was there already.
    """

    event: Event
    has_our_time: bool = False
    refusal: str | None = None
    is_duplicate: bool = False
    version: int = NEVER_WRITTEN

    def event_after(self, kept: History) -> Event:
        """Return the event as it joins a history: without a time of its own, it is the latest.

        Requests that arrive at once are written in any order. What came a millisecond before an
        event that is kept already would be late by its time, and make the encoder start over.
        """
        late_s = kept.ts[-1] - (self.event.ts or 0.0) if kept.ts else 0.0
        # No event waits longer to be written: further ahead, the kept one has a client's time.
        if not self.has_our_time or not 0.0 < late_s <= PATIENCE_S:
            return self.event
        return dataclasses.replace(self.event, ts=kept.ts[-1])


class EventWriter:
    """Writes events of many users at once; thread-safe."""

    def __init__(self, states: StateStore, events: EventLog, ranker_source: RankerSource,
                 telemetry: Telemetry, history_events: int) -> None:
        self._states = states
        self._log = events
        self._ranker_source = ranker_source
        self._telemetry = telemetry
        self._limit = history_events

    def write(self, arrivals: list[Arrival]) -> None:
        """Log the events, step and write their users' states, and note on each what became of it.

        Raises:
            UpstreamError: OpenSearch could not take them; any part of them may be written.
        """
        deadline = time.monotonic() + PATIENCE_S
        pending = self._log.begin_append([arrival.event for arrival in arrivals])
        try:
            states = self._read({arrival.event.user_id: None for arrival in arrivals})
        except BaseException:
            pending.cancel()
            raise
        self._finish_log(arrivals, pending, deadline)
        self._write_states(_by_user(arrivals), states, deadline)

    def _read(self, user_ids: Iterable[str]) -> dict[str, UserState]:
        users = list(user_ids)
        return {user: state or UserState(user)
                for user, state in zip(users, self._states.get_many(users), strict=True)}

    def _finish_log(self, arrivals: Sequence[Arrival], pending: PendingAppend,
                    deadline: float) -> None:
        """Wait until every event is in the log, or refused by it for good."""
        outcomes = pending.result()
        for attempt in itertools.count():
            left: list[Arrival] = []
            for arrival, outcome in zip(arrivals, outcomes, strict=True):
                if isinstance(outcome, EventError):
                    arrival.refusal = str(outcome)
                elif isinstance(outcome, UpstreamUnavailable):
                    left.append(arrival)
                elif outcome is not None:
                    raise outcome
            if not left:
                return
            _pause(attempt, deadline, "the event log is overloaded")
            arrivals = left
            outcomes = self._log.append([arrival.event for arrival in left])

    def _write_states(self, by_user: Mapping[str, list[Arrival]],
                      states: Mapping[str, UserState], deadline: float) -> None:
        """Step and write until each user's state holds their events."""
        for attempt in itertools.count():
            growths = {user: self._grown(states[user], mine) for user, mine in by_user.items()}
            grown = [user for user, growth in growths.items() if growth.added]
            written = self._put(step(self._ranker_source(), [states[user] for user in grown],
                                     [growths[user] for user in grown]))
            overtaken = [user for user, version in written.items() if version is None]
            for user, growth in growths.items():
                version = written.get(user, states[user].version)
                if version is not None:
                    _settle(by_user[user], growth, version)
            if not overtaken:
                return
            self._telemetry.state_conflict(len(overtaken))
            _pause(attempt, deadline, "a state is being written by too many at once")
            by_user = {user: by_user[user] for user in overtaken}
            states = self._read(overtaken)

    def _grown(self, state: UserState, arrivals: Sequence[Arrival]) -> Growth:
        events = [arrival.event_after(state.history) for arrival in arrivals]
        return grow(state, events, self._limit)

    def _put(self, states: Sequence[UserState]) -> dict[str, int | None]:
        """Write states; map each user to the new version, None where it has to be tried again."""
        versions: dict[str, int | None] = {}
        for state, written in zip(states, self._states.put_many(states), strict=True):
            if isinstance(written, UserState):
                versions[state.user_id] = written.version
            elif isinstance(written, (VersionConflict, UpstreamUnavailable)):
                versions[state.user_id] = None
            else:
                raise written
        return versions


def _by_user(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    grouped: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        if arrival.refusal is None:
            grouped.setdefault(arrival.event.user_id, []).append(arrival)
    return grouped


def _settle(arrivals: Sequence[Arrival], growth: Growth, version: int) -> None:
    for position, arrival in enumerate(arrivals):
        arrival.version = version
        arrival.is_duplicate = position in growth.duplicates


def _pause(attempt: int, deadline: float, reason: str) -> None:
    """Wait a random moment, longer with every attempt, so that rivals part.

    Raises:
        UpstreamUnavailable: the deadline has passed.
    """
    if time.monotonic() > deadline:
        raise UpstreamUnavailable(f"{reason}; send the events again later")
    time.sleep(random.uniform(0.0, min(LONGEST_PAUSE_S, 0.002 * 2.0 ** min(attempt, 10))))
