"""What single values of a catalogue, events or cases file must be, and what they become.

Each function returns the value in normal form or raises ValueError: column, value, remedy.
"""

from __future__ import annotations

import math
import sys
from base64 import b64encode
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

_LEAST = -sys.float_info.max
_FLAGS = {"true": True, "false": False}  # as pandas writes them to CSV, in lower case
_DEEPEST = 100  # lists and objects in each other; Python's and OpenSearch's limits lie beyond


@lru_cache(2**16)
def seconds(text: str) -> float:
    """Return an ISO 8601 date or time in seconds since 1970 UTC; without a zone it is UTC.

    Raises:
        ValueError: it is not ISO 8601.
    """
    if len(text) > 8 and text.isdigit():  # milliseconds since 1970, of which some read as 17xx
        raise ValueError(f"{text!r} has no T between date and time")
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def as_ts(value: Any, column: str = "ts") -> float | None:
    """Return seconds since 1970 UTC, or None for None and for empty text."""
    if value is None or value == "":
        return None
    if isinstance(value, date):  # a Parquet date or timestamp; datetime is a date
        value = value.isoformat()
    try:
        return seconds(value)
    except (TypeError, ValueError):
        raise ValueError(f"{column} is {value!r}, must be ISO 8601 or null") from None


def as_id(value: Any, column: str) -> str:
    """Return an id as text: files hold numbers too; pandas makes them floats, warehouses decimals.
    """
    if type(value) is str and value:
        return sys.intern(value)
    if type(value) is int or (isinstance(value, float | Decimal) and value % 1 == 0):
        return sys.intern(str(int(value)))
    if value is None or value == "":
        raise ValueError(f"{column} is missing")
    raise ValueError(f"{column} is {value!r}, must be text or a whole number")


def as_text(value: Any, column: str) -> str:
    """Return text, which may be empty."""
    if isinstance(value, str):
        return value
    raise ValueError(f"{column} is {value!r}, must be text")


def as_number(value: Any, column: str, low: float = _LEAST) -> float:
    """Return a finite number; CSV's numbers come as text, a promotion may be true or false."""
    if type(value) is float and low <= value < math.inf:
        return value
    if column == "promotion" and isinstance(value, str):
        value = _FLAGS.get(value.lower(), value)
    if isinstance(value, bool) and column != "promotion":
        raise ValueError(f"{column} is {value}, must be a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{column} is {value!r}, must be a number") from None
    if not math.isfinite(number) or number < low:
        wanted = f"at least {low:g}" if low > _LEAST else "finite"
        raise ValueError(f"{column} is {value}, must be {wanted}")
    return number


def as_ids(value: Any, column: str) -> tuple[str, ...]:
    """Return a list's ids."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{column} is {value!r}, must be a list")
    return tuple(as_id(entry, column) for entry in value)


def optional_number(value: Any, column: str) -> float | None:
    """Return a finite number, or None for None and for empty text."""
    return None if value is None or value == "" else as_number(value, column)


def optional_id(value: Any, column: str) -> str | None:
    """Return an id as text, or None for None and for empty text."""
    return None if value is None or value == "" else as_id(value, column)


def optional_text(value: Any, column: str) -> str | None:
    """Return text, or None for None."""
    return None if value is None else as_text(value, column)


def jsonable(value: Any, depth: int = 0) -> Any:
    """Return what a Parquet column holds as JSON has it: times as ISO 8601, durations in seconds,
    bytes in base64, decimals as float, and null for a number that is none."""
    if depth > _DEEPEST:
        raise ValueError(f"row is nested deeper than {_DEEPEST} levels, flatten it")
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, list):
        return [jsonable(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {name: jsonable(entry, depth + 1) for name, entry in value.items()}
    return value
