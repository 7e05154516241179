"""How is an event written down? As UBI 1.3 prescribes, for its event log and for its query log.

Pure: turns records into documents, and documents back into the fields of a record. ``Event.extra``
is keyed as UBI's top level is. Names that UBI does not know there go to ``event_attributes``
(``query_attributes``), which may hold any name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sidecar.errors import EventError
from sidecar.records import Event

_EVENT_FIELDS = frozenset({"application", "query_id", "client_id", "message_type", "message"})
_ATTRIBUTES = ("order_id", "quantity", "unit_price")  # the short form's, where UBI has no place
_SHOWN_CHARS = 60
_QUERY_FIELDS = _EVENT_FIELDS | {"query_response_id", "query_response_hit_ids", "object_id_field"}


def event_document(event: Event) -> dict[str, Any]:
    """Return the event-log document of an event that has a ``ts``; nothing of it is left out.

    ``user_id`` is the user for whom the event counts: a client id if the client sent no user id.
    """
    document, rest = _parted(event.extra, _EVENT_FIELDS)
    attributes = _merged(rest, "event_attributes")
    _put(attributes, "object", "object_id", event.item_id)
    _put(attributes, "position", "ordinal", event.position)
    for name in _ATTRIBUTES:
        if (value := getattr(event, name)) is not None:
            attributes[name] = value
    document["action_name"] = event.event
    if attributes:
        document["event_attributes"] = attributes
    return _with_who_and_when(document, event)


def query_document(event: Event) -> dict[str, Any]:
    """Return the query-log document of an event ``search``."""
    document, rest = _parted(event.extra, _QUERY_FIELDS)
    attributes = _merged(rest, "query_attributes")
    if attributes:
        document["query_attributes"] = attributes
    return _with_who_and_when(document, event)


def event_fields(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split an event-log document, or what a client sends in its form, into what the record names
    (by the short form's names, values as they are) and the rest, which is the record's ``extra``.

    Raises:
        EventError: a value that must be an object is not one.
    """
    fields = dict(document)
    attributes = as_object(fields.pop("event_attributes", None), "event_attributes")
    item = as_object(attributes.pop("object", None), "event_attributes.object")
    position = as_object(attributes.pop("position", None), "event_attributes.position")
    known = {"event": fields.pop("action_name"), "user_id": fields.pop("user_id", None),
             "client_id": fields.get("client_id"), "item_id": item.pop("object_id", None),
             "ts": fields.pop("timestamp", None), "query": fields.pop("user_query", None),
             "event_id": fields.pop("event_id", None),
             "session_id": fields.pop("session_id", None),
             "position": position.pop("ordinal", None)}
    known.update({name: attributes.pop(name) for name in _ATTRIBUTES if name in attributes})
    for name, rest in (("object", item), ("position", position)):
        if rest:
            attributes[name] = rest
    if attributes:
        fields["event_attributes"] = attributes
    return known, fields


def query_fields(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a query-log document likewise, as an event ``search``."""
    extra = dict(document)
    known = {"event": "search", "query": extra.pop("user_query", None),
             "ts": extra.pop("timestamp", None),
             "event_id": extra.get("query_response_id") or extra.get("query_id"),
             "user_id": extra.pop("user_id", None), "client_id": extra.get("client_id"),
             "session_id": extra.pop("session_id", None)}
    return known, extra


def as_object(value: object, name: str) -> dict[str, Any]:
    """Return a copy of an object's fields; null attributes are empty ones."""
    if value is None and name.startswith("event_attributes"):
        return {}
    if isinstance(value, dict):
        return dict(value)
    raise EventError(f"{name} is {shown(value)}, must be an object")


def shown(value: object) -> str:
    """Return a value as a message may show it: as JSON would, and never at length."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def timestamp(ts: float) -> str:
    """Return seconds since 1970 as UBI writes them: ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(ts, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _parted(extra: Mapping[str, Any], known: frozenset[str]) -> tuple[dict[str, Any],
                                                                      dict[str, Any]]:
    kept = {name: value for name, value in extra.items() if name in known and value is not None}
    return kept, {name: value for name, value in extra.items() if name not in known}


def _merged(rest: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the free object ``name`` with everything else of ``rest`` in it."""
    attributes = rest.pop(name, None)
    if not isinstance(attributes, Mapping):
        attributes = {} if attributes is None else {name: attributes}
    return {**rest, **attributes}


def _put(attributes: dict[str, Any], group: str, name: str, value: object) -> None:
    if value is not None:
        given = attributes.get(group)
        attributes[group] = {**(given if isinstance(given, Mapping) else {}), name: value}


def _with_who_and_when(document: dict[str, Any], event: Event) -> dict[str, Any]:
    document["user_id"] = event.user_id
    document["timestamp"] = timestamp(event.ts or 0.0)
    if event.session_id is not None:
        document["session_id"] = event.session_id
    if event.query is not None:
        document["user_query"] = event.query
    return document
