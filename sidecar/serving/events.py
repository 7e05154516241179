"""What happens to an event, from arrival to acknowledgement?

Read, step, write: raw events are checked one by one and grouped by user; the log takes them while
the users' states are read; the encoder steps over what is new; the states are written, each only
over the version that was read. Whoever loses that race reads again and finds the other's events.

**Log first, state second, then the acknowledgement.** An acknowledged event is in both. If
anything fails in between, nothing is acknowledged and the client sends the batch again: the log
knows the events' ids and keeps its first copies, a state already written finds the ids among its
kept events, one not yet written takes them. So a retry heals, whichever step was cut off, and
an id counts once however many sidecars it is sent to. (An event with neither an id nor a time
cannot be told from a new one: send either.)
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sidecar.errors import EventError, UpstreamUnavailable, VersionConflict
from sidecar.records import Event, FloatArray, UserState
from sidecar.serving.event_forms import parse_event, parse_query
from sidecar.serving.histories import Growth, grow
from sidecar.serving.models import RankerSource, Ranks
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.protocols import EventLog, Logs, PendingAppend, StateStore

log = logging.getLogger(__name__)

CHUNK_EVENTS = 500  # written at once: with full histories at most some 20 MB of states
PATIENCE_S = 10.0  # for conflicts and overload; beyond it the client is told to try again
LONGEST_PAUSE_S = 0.1

Parse = Callable[[object, float], Event]
Events = dict[int, Event]  # by position in the batch


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one event was not taken; ``position`` counts from 0 in the batch as it came."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class IntakeAnswer:
    """What became of a batch.

    ``taken`` counts the events that are in the log, ``duplicates`` those of them whose id was
    known already. ``states`` maps each user to the version that holds their events; -1 where
    nothing is kept of them (impressions, for one, are logged only).
    """

    taken: int
    refused: tuple[Refusal, ...]
    states: Mapping[str, int]
    duplicates: int


class EventIntake:
    """Takes events in; one a worker process, used by all its threads."""

    def __init__(self, settings: Settings, states: StateStore, logs: Logs,
                 ranker_source: RankerSource, telemetry: Telemetry,
                 clock: Callable[[], float] = time.time) -> None:
        self._limit = settings.history_events
        self._states = states
        self._logs = logs
        self._ranker_source = ranker_source
        self._telemetry = telemetry
        self._clock = clock

    def take(self, raw: Sequence[object]) -> IntakeAnswer:
        """Take events of either form in; see the module's head for what holds when.

        Args:
            raw: decoded JSON, one entry an event, in the order they happened where times are
                equal or unknown. An entry that is an ``EventError`` is refused with its message.

        Raises:
            UpstreamError: OpenSearch could not take them; nothing is acknowledged, send all again.
        """
        return self._take(raw, parse_event, self._logs.events)

    def take_queries(self, raw: Sequence[object]) -> IntakeAnswer:
        """Take entries of UBI's query log in, as events ``search``; raises as ``take``."""
        return self._take(raw, parse_query, self._logs.queries)

    def _take(self, raw: Sequence[object], parse: Parse, into: EventLog) -> IntakeAnswer:
        batch = _Batch.read(raw, parse, self._clock())
        for events in batch.chunks():
            self._commit(batch, events, into)
        answer = batch.answer()
        self._telemetry.events(taken=answer.taken - answer.duplicates,
                               refused=len(answer.refused), duplicates=answer.duplicates)
        return answer

    def _commit(self, batch: _Batch, events: Events, into: EventLog) -> None:
        """Bring a chunk of events into log and states."""
        deadline = time.monotonic() + PATIENCE_S
        pending = into.begin_append(list(events.values()))
        try:
            states = self._read({event.user_id: None for event in events.values()})
        except BaseException:
            pending.cancel()
            raise
        logged = self._finish_log(batch, events, pending, into, deadline)
        self._write(batch, _by_user(logged), states, deadline)

    def _read(self, user_ids: Iterable[str]) -> dict[str, UserState]:
        users = list(user_ids)
        return {user: state or UserState(user)
                for user, state in zip(users, self._states.get_many(users), strict=True)}

    def _finish_log(self, batch: _Batch, events: Events, pending: PendingAppend, into: EventLog,
                    deadline: float) -> Events:
        """Wait until every event is in the log, or refused by it for good; return the former."""
        logged, waiting = dict(events), events
        outcomes = pending.result()
        for attempt in itertools.count():
            left: Events = {}
            for (position, event), outcome in zip(waiting.items(), outcomes, strict=True):
                if isinstance(outcome, EventError):
                    batch.refuse(position, str(outcome))
                    del logged[position]
                elif isinstance(outcome, UpstreamUnavailable):
                    left[position] = event
                elif outcome is not None:
                    raise outcome
            if not left:
                break
            _pause(attempt, deadline, "the event log is overloaded")
            waiting, outcomes = left, into.append(list(left.values()))
        return logged

    def _write(self, batch: _Batch, by_user: Mapping[str, list[Event]],
               states: Mapping[str, UserState], deadline: float) -> None:
        """Step and write the users' states until each holds its events."""
        for attempt in itertools.count():
            growths = {user: grow(states[user], events, self._limit)
                       for user, events in by_user.items()}
            versions = self._put([self._step(states[user], growth)
                                  for user, growth in growths.items() if growth.added])
            overtaken = [user for user, version in versions.items() if version is None]
            for user, growth in growths.items():
                version = versions.get(user, states[user].version)
                if version is not None:
                    batch.settle(user, version, growth.duplicates)
            if not overtaken:
                break
            self._telemetry.state_conflict(len(overtaken))
            _pause(attempt, deadline, "a state is being written by too many at once")
            by_user = {user: by_user[user] for user in overtaken}
            states = self._read(overtaken)

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

    def _step(self, state: UserState, growth: Growth) -> UserState:
        """Return the state with the grown history and the encoder's hidden state after it."""
        ranker = self._ranker_source()
        hidden: FloatArray | None = None
        try:
            if ranker is not None:
                hidden = _advanced(ranker, state, growth)
        except Exception:  # an event is kept even if a model cannot step; searches recompute it
            log.exception("encoder step failed")
        return dataclasses.replace(
            state, history=growth.history, hidden=hidden,
            model_version=None if ranker is None or hidden is None else ranker.version,
            event_count=state.event_count + growth.added)


class _Batch:
    """The events of one call, by position, and what has become of them."""

    def __init__(self) -> None:
        self.events: Events = {}
        self._refusals: dict[int, str] = {}
        self._versions: dict[str, int] = {}
        self._duplicates = 0

    @classmethod
    def read(cls, raw: Sequence[object], parse: Parse, now: float) -> _Batch:
        """Parse events one by one; a bad one is refused and leaves the others alone."""
        batch = cls()
        for position, entry in enumerate(raw):
            try:
                if isinstance(entry, EventError):
                    raise entry
                batch.events[position] = parse(entry, now)
            except EventError as error:
                batch.refuse(position, str(error))
        return batch

    def chunks(self) -> Iterator[Events]:
        """Yield the events in order, as many at a time as are written at once."""
        entries = iter(list(self.events.items()))
        while chunk := dict(itertools.islice(entries, CHUNK_EVENTS)):
            yield chunk

    def refuse(self, position: int, reason: str) -> None:
        """Note why an event is not taken."""
        self._refusals[position] = reason

    def settle(self, user_id: str, version: int, duplicates: int) -> None:
        """Note the version of a user's state that holds their events."""
        self._versions[user_id] = version
        self._duplicates += duplicates

    def answer(self) -> IntakeAnswer:
        """Return what is acknowledged."""
        refused = tuple(Refusal(position, reason)
                        for position, reason in sorted(self._refusals.items()))
        taken = len(self.events.keys() - self._refusals.keys())
        return IntakeAnswer(taken, refused, self._versions, self._duplicates)


def _by_user(events: Events) -> dict[str, list[Event]]:
    grouped: dict[str, list[Event]] = {}
    for event in events.values():
        grouped.setdefault(event.user_id, []).append(event)
    return grouped


def _advanced(ranker: Ranks, state: UserState, growth: Growth) -> FloatArray:
    """Step on from the state's hidden vector where it is this model's and nothing came late."""
    is_current = state.hidden is not None and state.model_version == ranker.version
    if is_current and growth.appended is not None:
        return ranker.advance(state.hidden, growth.appended)
    return ranker.advance(None, growth.history)


def _pause(attempt: int, deadline: float, reason: str) -> None:
    """Wait a random moment, longer with every attempt, so that rivals part.

    Raises:
        UpstreamUnavailable: the deadline has passed.
    """
    if time.monotonic() > deadline:
        raise UpstreamUnavailable(f"{reason}; send the events again later")
    time.sleep(random.uniform(0.0, min(LONGEST_PAUSE_S, 0.002 * 2.0 ** min(attempt, 10))))
