"""Finds the members of a JSON object in its bytes, and cuts members out.

OpenSearch's bytes are kept as they are (digits of floats, key order, escapes, indentation), so
nothing here decodes and encodes again. msgspec finds the values. A walk over keys and separators
then finds their offsets, and also notices what a decoded dict would hide: a key that occurs twice.
Pure; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from sidecar.errors import UnreadableError


class Span(NamedTuple):
    """Offsets of one member: of its key's quote, of its value, and of the byte after the value."""

    key: int
    start: int
    end: int


_OBJECT: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_OPEN = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*")
_KEY = re.compile(rb'"(?:[^"\\]|\\.)*"[ \t\r\n]*:[ \t\r\n]*')
_AFTER = re.compile(rb"[ \t\r\n]*([,}])[ \t\r\n]*")


def decode(data: bytes) -> Any:
    """Decode JSON into Python values.

    Raises:
        UnreadableError: not JSON, or nested deeper than Python follows.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"not readable as JSON: {error}") from None


def raw_members(data: bytes) -> dict[str, msgspec.Raw]:
    """Return an object's values as views of its bytes; of a key that stands twice the last.

    Raises:
        UnreadableError: not a JSON object.
    """
    try:
        return _OBJECT.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"not readable as a JSON object: {error}") from None


def elements(array: msgspec.Raw) -> tuple[bytes, ...]:
    """Return an array's elements as written; raises UnreadableError if it is none."""
    try:
        return tuple(bytes(raw) for raw in _ARRAY.decode(array))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"not readable as a JSON array: {error}") from None


def members(data: bytes) -> dict[str, Span]:
    """Return the spans of an object's members, in their order.

    Raises:
        UnreadableError: not a JSON object, or with a key that stands twice.
    """
    values = raw_members(data)
    opening = _OPEN.match(data)
    at = opening.end() if opening else 0
    spans: dict[str, Span] = {}
    closed = not values
    for name, raw in values.items():
        key = _KEY.match(data, at)
        if key is None or not data.startswith(bytes(raw), key.end()):
            raise UnreadableError("a key stands twice in a JSON object")
        end = key.end() + len(memoryview(raw))
        after = _AFTER.match(data, end)
        if after is None:
            raise UnreadableError("a key stands twice in a JSON object")
        spans[name] = Span(at, key.end(), end)
        at, closed = after.end(), after[1] == b"}"
    if not closed:
        raise UnreadableError("a key stands twice in a JSON object")
    return spans


def value(data: bytes, span: Span) -> bytes:
    """Return a member's value as it is written."""
    return data[span.start:span.end]


def values(data: bytes) -> dict[str, bytes]:
    """Return an object's members as name → value as written; raises as ``members``."""
    return {name: data[span.start:span.end] for name, span in members(data).items()}


def cut(data: bytes, spans: Mapping[str, Span], names: Iterable[str]) -> bytes:
    """Return the object without the named members; the rest keeps its bytes and indentation."""
    gone = set(names)
    kept = [data[span.key:span.end] for name, span in spans.items() if name not in gone]
    if len(kept) == len(spans):
        return data
    if not kept:
        return b"{}"
    first, second, *_ = all_spans = list(spans.values())
    separator = data[first.end:second.key]  # writers use one separator throughout
    return data[:first.key] + separator.join(kept) + data[all_spans[-1].end:]


def put(data: bytes, span: Span, new: bytes) -> bytes:
    """Return the object with another value in one member's place."""
    return data[:span.start] + new + data[span.end:]


def build(parts: Mapping[str, bytes]) -> bytes:
    """Write an object from names and values that are JSON already."""
    return b"{" + b",".join(
        msgspec.json.encode(name) + b":" + part for name, part in parts.items()) + b"}"
