"""The raw events in OpenSearch, append-only, in UBI's form.

An export of the two indices, a document a line, is an events file that training reads.
An event's id is its document's ``_id``: writing it twice leaves the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sidecar.errors import EventError, UpstreamError, UpstreamUnavailable
from sidecar.records import Event
from sidecar.settings import Settings
from sidecar.stores import ubi
from sidecar.stores.documents import BulkItem, Documents, PendingBulk, check, decode_answer
from sidecar.stores.protocols import Logs
from sidecar.stores.upstream import Upstream

_encode = msgspec.json.Encoder().encode


class _Deleted(msgspec.Struct, frozen=True):
    deleted: int


class _FieldCaps(msgspec.Struct, frozen=True):
    fields: dict[str, dict[str, Any]]  # by name, then by each type that it has in some index


_deleted_decoder = msgspec.json.Decoder(_Deleted)
_field_caps_decoder = msgspec.json.Decoder(_FieldCaps)


@dataclass(frozen=True, slots=True)
class PendingLines:
    """Documents on their way to a log."""

    bulk: PendingBulk

    def result(self) -> list[Exception | None]:
        """Wait, and return what became of each document; see ``PendingAppend``."""
        return [_failure(outcome) for outcome in self.bulk.result()]

    def cancel(self) -> None:
        """Wait no longer."""
        self.bulk.cancel()


class OpenSearchEventLog:
    """One index of the log; thread-safe. See ``EventLog``."""

    def __init__(self, documents: Documents,
                 document: Callable[[Event], dict[str, Any]]) -> None:
        self._documents = documents
        self._document = document

    def begin_append(self, events: Sequence[Event]) -> PendingLines:
        """Send events and return at once; errors surface in ``result``."""
        lines: list[bytes] = []
        for event in events:
            lines += (create_line(event.event_id or ""), _encode(self._document(event)))
        return PendingLines(self._documents.begin_bulk(lines, len(events)))

    def append(self, events: Sequence[Event]) -> list[Exception | None]:
        """Append events and wait for it."""
        return self.begin_append(events).result()

    def forget(self, user_id: str) -> int:
        """Delete a user's events, those of this very moment too; returns how many there were.

        Raises:
            UpstreamError: the index could not be asked.
        """
        refreshed = self._documents.fetch("POST", "/_refresh")
        if refreshed.status == 404:
            return 0
        check(refreshed)
        body = _encode({"query": {"term": {self._user_field(): user_id}}})
        answer = self._documents.fetch(
            "POST", "/_delete_by_query?conflicts=proceed&refresh=true", body)
        return decode_answer(_deleted_decoder, answer).deleted

    def _user_field(self) -> str:
        """Return the field that holds user ids whole; UBI's own mapping has them analysed."""
        path = "/_field_caps?fields=user_id,user_id.keyword"
        fields = decode_answer(_field_caps_decoder, self._documents.fetch("GET", path)).fields
        for name in ("user_id", "user_id.keyword"):
            if list(fields.get(name, ())) == ["keyword"]:
                return name
        if not fields:
            return "user_id"  # an index without one event
        raise UpstreamError("user_id is mapped as no keyword in the event log; reindex it with "
                            "the mapping in mappings/")


def open_logs(settings: Settings, upstream: Upstream) -> Logs:
    """Return the logs of events and of searches, as clients tell of them."""
    events = Documents(upstream, settings.events_index, "ubi_events")
    queries = Documents(upstream, settings.queries_index, "ubi_queries")
    return Logs(OpenSearchEventLog(events, ubi.event_document),
                OpenSearchEventLog(queries, ubi.query_document))


def create_line(doc_id: str) -> bytes:
    """Return the head of a bulk line that writes a document unless its id is there."""
    return b'{"create":{"_id":%b}}' % _encode(doc_id)


def _failure(outcome: BulkItem) -> Exception | None:
    if outcome.status < 300 or outcome.status == 409:
        return None
    if outcome.may_pass_later:
        return UpstreamUnavailable(f"event was not logged: {outcome.reason}")
    if outcome.is_documents_fault:
        return EventError(f"event does not fit the event log: {outcome.reason}")
    return UpstreamError(f"event was not logged: {outcome.reason}")
