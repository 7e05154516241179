"""Makes one log from two sources: an events file, and the histories in cases."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sidecar.ranking.kinds import meaning
from sidecar.ranking.statistics import DAY_S
from sidecar.records import Case, Event

_INSTANT = 1e-3  # seconds: as finely as files tell times
_EventKey = tuple[str, str | None, str]  # user, item, what was done


def merged_events(events: Iterable[Event], cases: Sequence[Case]) -> Iterable[Event]:
    """Yield the file's events, then those that only a case's history knows.

    A history may use another word for the same (``order``, ``purchase``), may still call a purchase
    what the file's negative quantity makes a return, and may tell its times to the day alone, or
    none: then only what it holds more often than the file does is new.
    """
    asked = {case.user_id for case in cases}
    known: dict[_EventKey, list[float]] = defaultdict(list)
    has_times = False
    for event in events:
        has_times = has_times or event.ts is not None
        if event.user_id in asked:
            word = meaning(event.event) or event.event
            is_taken_back = word == "return" and (event.quantity or 0.0) < 0
            for name in (word, "purchase") if is_taken_back else (word,):
                known[event.user_id, event.item_id, name].append(event.ts or 0.0)
        yield event
    for times in known.values():
        times.sort()
    for case in cases if has_times else ():  # else each case stands for itself, see ``evaluate``
        yield from _new_events(case, known)


def _new_events(case: Case, known: dict[_EventKey, list[float]]) -> Iterable[Event]:
    """Yield the events that a history adds to the known times (ascending), and note them there."""
    told = case.history
    unit = _unit(told.ts)
    left: dict[_EventKey, int] = {}  # times of what is known that no entry stands for yet
    for item_id, word, ts in zip(told.item_ids, told.events, told.ts, strict=True):
        key = (case.user_id, item_id, meaning(word) or word)
        times = known[key]
        if case.is_timed:
            # Days and minutes are cut off, seconds may be rounded.
            place = bisect_left(times, ts) if unit > 1.0 else bisect_right(times, ts - unit)
            is_known = place < len(times) and times[place] < ts + unit
        else:
            is_known = left.setdefault(key, bisect_left(times, case.ts)) > 0
            left[key] -= 1
        if not is_known:
            insort(times, ts)
            yield Event(case.user_id, word, item_id, ts)


def _unit(times: Sequence[float]) -> float:
    """Return what all times are whole numbers of: days, minutes, seconds, or instants."""
    return next((unit for unit in (DAY_S, 60.0, 1.0) if not any(ts % unit for ts in times)),
                _INSTANT)
