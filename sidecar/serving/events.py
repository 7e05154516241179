"""What happens to an event, from arrival to acknowledgement?

Read, step, write: raw events are checked one by one and grouped by user. The log takes them while
the users' states are read. The encoder steps over what is new, and each state is written only over
the version that was read. A writer that loses that race reads again and finds the other's events.

**Log first, state second, then the acknowledgement.** An acknowledged event is in both. If
anything fails in between, nothing is acknowledged and the client sends the batch again. The log
knows the events' ids and keeps its first copies; a state already written finds the ids among its
kept events; a state not yet written takes them. So a retry heals, whichever step was cut off, and
an id counts once, however many sidecars it is sent to. (An event with neither an id nor a time
looks like a new one when it is sent again: send one of them.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sidecar.errors import EventError, UpstreamError
from sidecar.ranking.kinds import is_impression
from sidecar.records import Event
from sidecar.serving.event_forms import parse_event, parse_query
from sidecar.serving.event_writer import Arrival, EventWriter
from sidecar.serving.faults import RateLimit
from sidecar.serving.gathering import Gatherer
from sidecar.serving.histories import leaves_trace
from sidecar.serving.models import RankerSource
from sidecar.serving.standstill import Standstill
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.documents import without_values
from sidecar.stores.protocols import EventLog, Logs, StateStore

log = logging.getLogger(__name__)

CHUNK_EVENTS = 500  # written at once: with full histories at most some 20 MB of states
FEW_EVENTS = 20  # a batch that may join others; a larger one would hold them up
APART_S = 1e-6  # events without a time, so that each of a batch is later than the one before it
WAITING_SHARE = 4  # a quarter of the threads may wait at each door where nothing gets through
RUNS = 2  # one would make two clients wait for each other, more would race about busy users


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
    nothing is kept of them (impressions, for one, are logged only). ``without_effect`` counts new
    events that cannot be ranked by: no item or query, or an item that the ranking does not know.
    """

    taken: int
    refused: tuple[Refusal, ...]
    states: Mapping[str, int]
    duplicates: int
    without_effect: int


class EventIntake:
    """Takes events in; one a worker process, used by all its threads."""

    def __init__(self, settings: Settings, states: StateStore, logs: Logs,
                 ranker_source: RankerSource, telemetry: Telemetry,
                 clock: Callable[[], float] = time.time) -> None:
        def into(one: EventLog) -> EventWriter:
            return EventWriter(states, one, ranker_source, telemetry, settings.history_events)

        most = max(1, settings.threads // WAITING_SHARE)
        self._events = _Door(parse_event, into(logs.events), Standstill(most))
        self._queries = _Door(parse_query, into(logs.queries), Standstill(most))
        self._ranker_source = ranker_source
        self._telemetry = telemetry
        self._clock = clock
        self._limit = RateLimit()

    def take(self, raw: Sequence[object]) -> IntakeAnswer:
        """Take events of either form in; see the module's head for what holds when.

        Args:
            raw: decoded JSON, one entry an event, in the order they happened where times are
                equal or unknown. An entry that is an ``EventError`` is refused with its message.

        Raises:
            UpstreamError: OpenSearch could not take them, or takes none at present and enough wait
                for it; nothing is acknowledged, send all again.
        """
        return self._take(raw, self._events)

    def take_queries(self, raw: Sequence[object]) -> IntakeAnswer:
        """Take entries of UBI's query log in, as events ``search``; raises as ``take``."""
        return self._take(raw, self._queries)

    def _take(self, raw: Sequence[object], door: _Door) -> IntakeAnswer:
        entries = door.read(raw, self._clock())
        arrivals = [entry for entry in entries if isinstance(entry, Arrival)]
        try:
            door.write(arrivals)
        except UpstreamError as error:
            self._tell_of(error, len(arrivals))
            raise
        answer = _answer(entries, self._count_without_effect(arrivals))
        self._telemetry.events(taken=answer.taken - answer.duplicates,
                               refused=len(answer.refused), duplicates=answer.duplicates)
        return answer

    def _count_without_effect(self, arrivals: Sequence[Arrival]) -> int:
        """Count events that were taken without effect, for one because the client's ids are not
        the catalogue's. Impressions are left out: they belong to no history."""
        taken = [arrival.event for arrival in arrivals
                 if arrival.refusal is None and not arrival.is_duplicate]
        items, ranker = [event.item_id for event in taken if event.item_id], self._ranker_source()
        names_nothing = sum(not leaves_trace(event) and not is_impression(event.event)
                            for event in taken)
        unknown_item = (0 if ranker is None or not items
                        else int((ranker.items.rows(items) < 0).sum()))
        self._telemetry.events_without_effect(names_nothing=names_nothing,
                                              unknown_item=unknown_item)
        return names_nothing + unknown_item

    def _tell_of(self, error: UpstreamError, count: int) -> None:
        self._telemetry.events(failed=count)
        if since_told := self._limit.due("events", count):
            log.warning("events not taken", extra={"error": without_values(str(error)),
                                                   "count": since_told})


class _Door:
    """One way in: how its entries are read, and who writes them."""

    def __init__(self, parse: Callable[[object, float], Event], writer: EventWriter,
                 standstill: Standstill) -> None:
        self._parse = parse
        self._writer = writer
        self._standstill = standstill
        self._gatherer = Gatherer(self._write, runs=RUNS, most=CHUNK_EVENTS,
                                  check=standstill.check)

    def read(self, raw: Sequence[object], now: float) -> list[Arrival | EventError]:
        """Parse entries one by one; a bad one leaves the others alone."""
        entries: list[Arrival | EventError] = []
        for place, entry in enumerate(raw):
            ours = now + place * APART_S
            try:
                if isinstance(entry, EventError):
                    raise entry
                event = self._parse(entry, ours)
                entries.append(Arrival(event, has_our_time=event.ts == ours))
            except EventError as error:
                entries.append(error)
        return entries

    def write(self, arrivals: list[Arrival]) -> None:
        """Write in order; few events join what others are sending."""
        if not arrivals:
            return
        with self._standstill.wait():
            if len(arrivals) <= FEW_EVENTS:
                self._gatherer.submit(arrivals)
                return
            for start in range(0, len(arrivals), CHUNK_EVENTS):
                self._write(arrivals[start:start + CHUNK_EVENTS])

    def _write(self, arrivals: list[Arrival]) -> None:
        self._writer.write(arrivals)
        self._standstill.moved()


def _answer(entries: Sequence[Arrival | EventError], without_effect: int) -> IntakeAnswer:
    refused: list[Refusal] = []
    states: dict[str, int] = {}
    duplicates = 0
    for position, entry in enumerate(entries):
        if isinstance(entry, EventError):
            refused.append(Refusal(position, str(entry)))
        elif entry.refusal is not None:
            refused.append(Refusal(position, entry.refusal))
        else:
            states[entry.event.user_id] = entry.version
            duplicates += entry.is_duplicate
    return IntakeAnswer(len(entries) - len(refused), tuple(refused), states, duplicates,
                        without_effect)
