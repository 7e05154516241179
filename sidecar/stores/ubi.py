"""How is an event written down? As UBI 1.3 has it, for its event log and for its query log.

Pure: records in, documents out. ``Event.extra`` is keyed as UBI's top level is; a name that UBI
does not know there goes to ``event_attributes`` (``query_attributes``), which is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sidecar.records import Event

_EVENT_FIELDS = frozenset({"application", "query_id", "client_id", "message_type", "message"})
_QUERY_FIELDS = _EVENT_FIELDS | {"query_response_id", "query_response_hit_ids", "object_id_field"}


def event_document(event: Event) -> dict[str, Any]:
    """Return the event-log document of an event that has a ``ts``; nothing of it is left out.

    ``user_id`` is whoever the event counts for, a client id where the client sent no more.
    """
    document, rest = _parted(event.extra, _EVENT_FIELDS)
    attributes = _merged(rest, "event_attributes")
    _put(attributes, "object", "object_id", event.item_id)
    _put(attributes, "position", "ordinal", event.position)
    for name, value in (("order_id", event.order_id), ("quantity", event.quantity),
                        ("unit_price", event.unit_price)):
        if value is not None:
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
