"""What did a client send? Raw JSON events, in the short form or in UBI's, become ``Event`` records.

Pure: no store, no clock of its own. Fields that the record does not name go to ``Event.extra``,
keyed as UBI's top level is (``application``, ``query_id``, ``event_attributes``, …), so that the
event log loses nothing (``sidecar.stores.ubi`` takes UBI's form apart, and writes it back).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from sidecar.errors import EventError
from sidecar.ranking.kinds import word_of
from sidecar.records import LONGEST_ID_BYTES, Event
from sidecar.stores.file_values import seconds
from sidecar.stores.ubi import as_object, event_fields, query_fields, shown

MAX_WORD_CHARS = 100  # of an event's name, as UBI's mapping has it
MAX_QUERY_CHARS = 8_000  # keyword terms end at 32,766 bytes, four a character at worst
MAX_AHEAD_S = 86_400.0  # a clock may be off and a zone forgotten; a year ahead is a wrong unit
FIRST_MILLISECONDS = 1e11  # as seconds the year 5138, as milliseconds 1973
MAX_POSITION = 2**31 - 1  # UBI maps the ordinal as an integer

_SHORT = ("event", "user_id", "client_id", "item_id", "ts", "query", "event_id", "session_id",
          "order_id", "quantity", "unit_price", "position")
_ID_BYTES = 12  # of a made id: a trillion events collide with a chance of one in 100,000
_LARGEST = 1e15  # of a number; beyond it floats no longer tell whole numbers apart


def parse_event(raw: object, now: float) -> Event:
    """Read one event of either form; always with ``ts`` and ``event_id``.

    An event without a time gets ``now`` (seconds) and, lacking an id too, a random one: only an
    event that brings its time or its id counts once when it is sent again.

    Raises:
        EventError: saying which field is wrong, its value and what it must be.
    """
    fields = as_object(raw, "event")
    if "event" not in fields:
        if "action_name" in fields:
            return _event(*event_fields(fields), now)
        raise EventError("event is missing; give event (short form) or action_name (UBI form)")
    known = {name: fields[name] for name in _SHORT if name in fields}
    extra = {name: value for name, value in fields.items() if name not in known}
    if "client_id" in known:
        extra["client_id"] = known["client_id"]
    if "ts" not in known and "timestamp" in extra:  # UBI's name; else the event were of now
        known["ts"] = extra.pop("timestamp")
    return _event(known, extra, now)


def parse_query(raw: object, now: float) -> Event:
    """Read one entry of UBI's query log as an event ``search``.

    It is named by its ``query_response_id``, else by its ``query_id``, which the pages and facets
    of one search share.

    Raises:
        EventError: saying which field is wrong, its value and what it must be.
    """
    return _event(*query_fields(as_object(raw, "query")), now)


def _event(known: Mapping[str, Any], extra: Mapping[str, Any], now: float) -> Event:
    get = known.get
    user_id = _id(get("user_id"), "user_id") or _id(get("client_id"), "client_id")
    if user_id is None:
        raise EventError("user_id is missing; give user_id or client_id")
    ts = _ts(get("ts"), now)
    event_id = _id(get("event_id"), "event_id")
    quantity = _number(get("quantity"), "quantity")
    event = Event(
        user_id=user_id,
        event=word_of(_word(get("event")), quantity),
        item_id=_id(get("item_id"), "item_id"),
        ts=now if ts is None else ts,
        query=_query(get("query")),
        event_id=event_id or (secrets.token_urlsafe(_ID_BYTES) if ts is None else None),
        session_id=_id(get("session_id"), "session_id"),
        order_id=_id(get("order_id"), "order_id"),
        quantity=quantity,
        unit_price=_number(get("unit_price"), "unit_price"),
        position=_position(get("position")),
        extra=extra,
    )
    return event if event.event_id else dataclasses.replace(event, event_id=derived_id(event))


def derived_id(event: Event) -> str:
    """Name an event by its content, so that sending it again is seen to be a repetition.

    The first 96 bits of the SHA-1 of what the record holds, in URL-safe base64: 16 characters.
    """
    content = (event.user_id, event.item_id, event.event, event.ts, event.query, event.session_id,
               event.order_id, event.quantity, event.unit_price, event.position)
    digest = hashlib.sha1(msgspec.json.encode(content), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest[:_ID_BYTES]).decode()


def _id(value: object, name: str) -> str | None:
    """Return an id as text; clients send numbers too. Absent, null and "" are None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise EventError(f"{name} is {shown(value)}, must be text or a whole number")
    length = len(value) if value.isascii() else len(value.encode())
    if length > LONGEST_ID_BYTES:
        raise EventError(f"{name} is longer than {LONGEST_ID_BYTES} bytes, shorten it")
    return value


def _word(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise EventError(f"event is {shown(value)}, must be a word such as click or purchase")
    if len(value) > MAX_WORD_CHARS:
        raise EventError(f"event has {len(value)} characters, must have at most {MAX_WORD_CHARS}")
    return value


def _query(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise EventError(f"query is {shown(value)}, must be text")
    if len(value) > MAX_QUERY_CHARS:
        raise EventError(f"query has {len(value)} characters, must have at most {MAX_QUERY_CHARS}")
    return value


def _ts(value: object, now: float) -> float | None:
    """Return seconds since 1970 UTC, of ISO 8601 (no zone: UTC), seconds or milliseconds."""
    if value is None or value == "":
        return None
    try:
        ts = seconds(value) if isinstance(value, str) else _number(value, "ts") or 0.0
    except (ValueError, EventError):
        raise EventError(
            f"ts is {shown(value)}, must be ISO 8601 in text, or a number of seconds or "
            "milliseconds since 1970") from None
    if ts >= FIRST_MILLISECONDS and not isinstance(value, str):
        ts /= 1000.0
    if ts < 0:
        raise EventError(f"ts is {shown(value)}, must be 1970 or later")
    if ts > now + MAX_AHEAD_S:
        raise EventError(f"ts is {shown(value)}, more than a day ahead; check clock and unit")
    return ts


def _number(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST:
        return float(value)
    raise EventError(f"{name} is {shown(value)}, must be a number")


def _position(value: object) -> int | None:
    number = _number(value, "position")
    if number is None:
        return None
    if number != math.floor(number) or not 0 <= number <= MAX_POSITION:
        raise EventError(f"position is {shown(value)}, must be a whole number from 0")
    return int(number)
