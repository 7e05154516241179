"""How does a user's history grow? Sorted, without repetitions, and never longer than it may be.

Pure. The kept events depend only on the events taken: a late event is put in its place, and an
event that has left the history, or lies before it, changes nothing, however often it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from sidecar.ranking.kinds import is_impression
from sidecar.records import Event, History, UserState

KEPT_QUERY_CHARS = 256  # of a query in the history; the log has it whole

_ts = attrgetter("ts")


@dataclass(frozen=True, slots=True)
class Growth:
    """A history with events added.

    ``appended`` holds the new events, oldest first, where all came after the kept ones, so that
    the encoder may step on from its hidden state; it is None where one had to be put in between,
    and the encoder has to start over. ``added`` counts the events that entered the history,
    ``duplicates`` those whose id was there already.
    """

    history: History
    appended: History | None
    added: int
    duplicates: frozenset[int]


def grow(state: UserState, events: Sequence[Event], limit: int) -> Growth:
    """Add events (with ``ts`` and ``event_id``) to a state's history, in order of time.

    Events of equal time stay in the order they arrived. Left out are repetitions of a kept id,
    impressions, events with neither item nor query, and those before the kept ones; where
    events have left the history already, that includes those as old as its oldest, which may be
    one that left.

    Args:
        state: the state as read.
        events: this user's new events, in the order they arrived.
        limit: most events kept, at least 1.
    """
    new, duplicates = _news(state, events, limit)
    if not new:
        return Growth(state.history, History(), 0, duplicates)
    kept, appended = state.history, _columns(new)
    joined = _join(kept, appended)
    if kept.ts and appended.ts[0] < kept.ts[-1]:
        return Growth(_newest(_in_order(joined), limit), None, len(new), duplicates)
    return Growth(_newest(joined, limit), appended, len(new), duplicates)


def _news(state: UserState, events: Sequence[Event], limit: int,
          ) -> tuple[list[Event], frozenset[int]]:
    """Return the events that enter the history, sorted by time, and which were repetitions."""
    kept = state.history
    seen = set(kept.event_ids)
    new: list[Event] = []
    duplicates: set[int] = set()
    for position, event in enumerate(events):
        if event.event_id in seen:
            duplicates.add(position)
        elif leaves_trace(event) and not _is_before(kept, event, state.event_count, limit):
            new.append(event)
        seen.add(event.event_id or "")
    new.sort(key=_ts)
    return new, frozenset(duplicates)


def leaves_trace(event: Event) -> bool:
    """Return True for an event that belongs into a history: it names an item or a query, and tells
    more than that the item was shown."""
    has_content = event.item_id is not None or event.query is not None
    return has_content and not is_impression(event.event)


def _is_before(kept: History, event: Event, event_count: int, limit: int) -> bool:
    """True where the event lies before the history, or may have left it already."""
    assert event.ts is not None
    if event_count > len(kept):
        return bool(kept.ts) and event.ts <= kept.ts[0]
    return len(kept) >= limit and event.ts < kept.ts[0]


def _columns(events: Sequence[Event]) -> History:
    return History(
        item_ids=tuple(event.item_id for event in events),
        events=tuple(event.event for event in events),
        ts=tuple(event.ts or 0.0 for event in events),
        queries=tuple(event.query and event.query[:KEPT_QUERY_CHARS] for event in events),
        event_ids=tuple(event.event_id or "" for event in events),
    )


def _join(first: History, second: History) -> History:
    return History(first.item_ids + second.item_ids, first.events + second.events,
                   first.ts + second.ts, first.queries + second.queries,
                   first.event_ids + second.event_ids)


def _newest(history: History, limit: int) -> History:
    return history if len(history) <= limit else history.take(slice(len(history) - limit, None))


def _in_order(history: History) -> History:
    """Sort by time; events of equal time stay as they are."""
    return history.take(sorted(range(len(history)), key=history.ts.__getitem__))
