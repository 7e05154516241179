"""What a row of a catalogue, events or cases file must hold, and the record it becomes.

Converters take a row (a dict, which they may consume) and return the record, or raise ValueError
with the reason: column, value, remedy. They are pure, except that a catalogue must remember things
about earlier rows. The README describes the columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sidecar.errors import EventError
from sidecar.ranking.kinds import target_kinds, word_of
from sidecar.records import LONGEST_ID_BYTES, Case, Event, History
from sidecar.stores.file_values import (
    as_id,
    as_ids,
    as_number,
    as_text,
    as_ts,
    jsonable,
    optional_id,
    optional_number,
    optional_text,
)
from sidecar.stores.ubi import event_fields, query_fields

Row = dict[str, Any]

CATALOGUE_COLUMNS = ("item_id", "title")
EVENT_COLUMNS = ("user_id", "event")
USER_COLUMNS = ("user_id",)
CASE_COLUMNS = ("case_id", "user_id", "query", "ts", "candidates")

_NOT_NEGATIVE = ("price", "review_count", "favourites", "shares")
_FINITE = ("rating", "sales", "promotion")
_VALUES = (*_NOT_NEGATIVE, *_FINITE, "created_at", "vectors")  # of which empty text is none
_TEXTS = ("description", "currency", "image_url")
_YEAR_10000_MS = 253_402_300_800_000  # since 1970
_NOTHING: Mapping[str, Any] = {}  # shared by the millions of events without other columns


def event(row: Row) -> Event:
    """Return an event; columns that the record does not name go to ``extra``.

    A row without ``event`` may be a document of UBI's event log or query log, as the sidecar writes
    them too: its source alone, or the hit that holds it.
    """
    if "event" not in row:
        row = _from_log(row)
    take = row.pop
    position = optional_number(take("position", None), "position")
    quantity = optional_number(take("quantity", None), "quantity")
    return Event(  # in the order of its fields: by position is faster, and there are millions
        as_id(take("user_id", None), "user_id"),
        word_of(as_id(take("event", None), "event"), quantity),
        optional_id(take("item_id", None), "item_id"),
        as_ts(take("ts", None)),
        optional_text(take("query", None), "query"),
        optional_id(take("event_id", None), "event_id"),
        optional_id(take("session_id", None), "session_id"),
        optional_id(take("order_id", None), "order_id"),
        quantity,
        optional_number(take("unit_price", None), "unit_price"),
        None if position is None else int(position),
        row or _NOTHING,
    )


def _from_log(row: Row) -> Row:
    """Return a document of the logs by the columns of a row; any other row as it is."""
    source = row.get("_source", row)
    if not isinstance(source, dict) or not {"action_name", "user_query"} & source.keys():
        return row
    try:
        known, extra = (event_fields if "action_name" in source else query_fields)(source)
    except EventError as error:
        raise ValueError(str(error)) from error
    known["event_id"] = known["event_id"] or row.get("_id")
    if type(known["ts"]) in (int, float) and 0 <= known["ts"] < _YEAR_10000_MS:
        known["ts"] = datetime.fromtimestamp(known["ts"] / 1000, UTC)  # OpenSearch's, if a number
    client_id = known.pop("client_id")
    known["user_id"] = known["user_id"] or client_id
    return extra | known


def user(row: Row) -> tuple[str, Row]:
    """Return a user's id and attributes: every other column that has a value, as it is."""
    user_id = as_id(row.pop("user_id", None), "user_id")
    return user_id, {column: value for column, value in row.items() if value not in (None, "")}


def item(row: Row) -> Row:
    """Return a catalogue row in normal form.

    ``item_id``, ``title``, ``brand`` and ``categories`` are always there, numbers are float,
    ``created_at`` is ISO 8601 in UTC, nulls are left out, columns that are not documented kept.
    """
    item_id = as_id(row.pop("item_id", None), "item_id")
    if len(item_id.encode()) > LONGEST_ID_BYTES:
        raise ValueError(f"item_id is longer than {LONGEST_ID_BYTES} bytes, shorten it")
    brand, categories = row.pop("brand", None), row.pop("categories", None)
    result: Row = {
        "item_id": item_id,
        "title": as_text(row.pop("title", None), "title"),
        "brand": None if brand is None or brand == "" else as_id(brand, "brand"),
        "categories": _categories(categories),
    }
    faults = []  # all at once: files are long, and exports alike in every row
    for column, value in row.items():
        is_none = value is None or (value == "" and column in _VALUES)
        try:
            kept = None if is_none else _other(column, value)
        except ValueError as error:
            faults.append(str(error))
            continue
        if kept is not None:
            result[column] = kept
    if faults:
        raise ValueError("; ".join(faults))
    return result


def _other(column: str, value: Any) -> Any:
    if column in _NOT_NEGATIVE:
        return as_number(value, column, low=0.0)
    if column in _FINITE:
        return as_number(value, column)
    if column in _TEXTS:
        return as_text(value, column)
    if column == "created_at":
        return _utc(as_ts(value, column) or 0.0, value)
    if column == "vectors":
        return _vectors(value)
    return jsonable(value)


def _utc(ts: float, value: Any) -> str:
    try:
        return datetime.fromtimestamp(ts, UTC).isoformat()
    except (ValueError, OverflowError):
        raise ValueError(f"created_at is {value!r}, must lie in the years 1 to 9999 of UTC"
                         ) from None


def _vectors(value: Any) -> dict[str, list[float]] | None:
    if not isinstance(value, dict):
        raise ValueError(f"vectors is a {type(value).__name__}, must be an object of lists")
    result = {}
    for name, numbers in value.items():
        if numbers is None:  # Parquet gives every row the names of all rows
            continue
        if not isinstance(numbers, list) or not numbers:
            raise ValueError(f"vectors.{name} must be a list of numbers")
        result[name] = [as_number(number, f"vectors.{name}") for number in numbers]
    return result or None


class CatalogueConverter:
    """``item`` for one pass over a file, of which it remembers what it has seen.

    It refuses a second row of the same item, and a vector whose width differs from the first of
    its name.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._widths: dict[str, int] = {}

    def __call__(self, row: Row) -> Row:
        """Return the row in normal form, or raise ValueError with the reason."""
        result = item(row)
        if result["item_id"] in self._seen:
            raise ValueError(f"item_id {result['item_id']!r} is there twice; the first row is kept")
        for name, numbers in result.get("vectors", {}).items():
            width = self._widths.setdefault(name, len(numbers))
            if len(numbers) != width:
                raise ValueError(f"vectors.{name} has {len(numbers)} numbers, must have {width}"
                                 " like those before")
        self._seen.add(result["item_id"])
        return result


def _categories(value: Any) -> list[str]:
    """Return a list of names; in CSV they may be parted by ``|``."""
    if value is None:
        return []
    if isinstance(value, str):
        value = value.split("|")
    if not isinstance(value, list):
        raise ValueError(f"categories is {value!r}, must be a list of names")
    return [as_text(name, "categories") for name in value if name]


def case(row: Row) -> Case:
    """Return a case. What a file leaves out is worked out: ``bm25`` is NaN; ``in_candidates``
    follows from the lists; ``repeat`` follows from the items of the history's strongest events (if
    it has only views, from these); an unknown ``ts`` is a second after the newest event of the
    history, whose events all come before the case.
    """
    ts = as_ts(row.get("ts"))
    history, is_timed = _history(row.get("history") or (), ts)
    if ts is None:
        ts = max((known + 1.0 for known in history.ts if known), default=0.0)
    candidates = as_ids(row.get("candidates"), "candidates")
    if len(set(candidates)) < len(candidates):
        raise ValueError("candidates holds an item twice")
    relevant = as_ids(row.get("relevant") or (), "relevant")
    return Case(
        case_id=as_id(row.get("case_id"), "case_id"),
        user_id=as_id(row.get("user_id"), "user_id"),
        query=as_text(row.get("query") or "", "query"),
        ts=ts,
        history=history,
        candidates=candidates,
        bm25=_scores(row.get("bm25"), len(candidates)),
        relevant=relevant,
        in_candidates=_flag(row, "in_candidates", set(relevant) & set(candidates)),
        repeat=_flag(row, "repeat", set(relevant) & _taken(history)),
        is_timed=is_timed,
    )


def _taken(history: History) -> set[str | None]:
    counts = Counter(history.events)
    strong = target_kinds(counts.keys(), counts.values(), share=0.0)
    return {item_id for item_id, word in zip(history.item_ids, history.events, strict=True)
            if word in strong}


def _flag(row: Row, column: str, otherwise: object) -> bool:
    value = row.get(column)
    if isinstance(value, str):  # from CSV
        return value.lower() in ("true", "1")
    return bool(otherwise if value is None else value)


def _scores(value: Any, count: int) -> tuple[float, ...]:
    if value is None:
        return (math.nan,) * count
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"bm25 must be a list of {count} numbers, one a candidate")
    return tuple(math.nan if score is None else as_number(score, "bm25") for score in value)


def _history(entries: Sequence[Any], case_ts: float | None) -> tuple[History, bool]:
    """Return the columns of ``[[item_id, event, ts], …]``, oldest first; and if any has a time.

    An event of unknown time takes the time of the event before it, or else of the event after it.
    If none has a time, the last is a second before the case, and each a second before the next.
    """
    if not isinstance(entries, list | tuple):
        raise ValueError(f"history is {entries!r}, must be a list")
    item_ids: list[str | None] = []
    events: list[str] = []
    told: list[float | None] = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 3:
            raise ValueError(f"history holds {entry!r}, must hold [item_id, event, ts]")
        told.append(as_ts(entry[2], "history's ts"))
        item_ids.append(optional_id(entry[0], "history's item_id"))
        events.append(as_id(entry[1], "history's event"))
    count = len(events)
    latest = next((ts for ts in told if ts is not None), None)
    if latest is None:
        times = [case_ts - count + k if case_ts else 0.0 for k in range(count)]
    else:
        times = []
        for ts in told:
            latest = latest if ts is None else ts
            times.append(latest)
    history = History(tuple(item_ids), tuple(events), tuple(times), (None,) * count, ("",) * count)
    return history, latest is not None
