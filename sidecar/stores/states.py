"""The users' states in OpenSearch: one document per user, written only over the version read.

A document holds the kept events as columns and the hidden state as base64 of little-endian
float32. Its ``_seq_no`` is the state's version: it grows with every write, and a realtime GET
sees the last acknowledged one without a refresh.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import numpy as np
from cachetools import LRUCache

from sidecar.errors import UpstreamError, UpstreamUnavailable, VersionConflict
from sidecar.records import FloatArray, History, HttpResponse, UserState
from sidecar.settings import Settings
from sidecar.stores.documents import (
    BulkItem,
    Documents,
    ErrorCause,
    check,
    decode_answer,
    document_path,
)
from sidecar.stores.upstream import Exchange, Upstream

log = logging.getLogger(__name__)

DECODED_EVENTS = 65_536  # kept decoded a worker: some 25 MB
EMPTY_STATE_EVENTS = 4  # what a state without events counts for

_NO_MATTER = msgspec.Raw(b"null")
_NO_SHARD = "no_shard_available_action_exception"


class _Columns(msgspec.Struct, frozen=True):
    item_ids: tuple[str | None, ...] = ()
    events: tuple[str, ...] = ()
    ts: tuple[float, ...] = ()
    queries: tuple[str | None, ...] = ()
    event_ids: tuple[str, ...] = ()


class _Source(msgspec.Struct, frozen=True):
    user_id: str
    model_version: str | None = None
    event_count: int = 0
    hidden: bytes | None = None
    hidden_shape: tuple[int, ...] = ()
    events: _Columns = _Columns()


class _Document(msgspec.Struct, frozen=True):
    found: bool = False
    seq_no: int = msgspec.field(default=-1, name="_seq_no")
    primary_term: int = msgspec.field(default=0, name="_primary_term")
    source: msgspec.Raw = msgspec.field(default=_NO_MATTER, name="_source")
    error: ErrorCause | None = None


class _Documents(msgspec.Struct, frozen=True):
    docs: list[_Document]


class _Condition(msgspec.Struct, frozen=True):
    """The head of a bulk line; members that are None are left out."""

    id: str = msgspec.field(name="_id")
    if_seq_no: int | msgspec.UnsetType = msgspec.UNSET
    if_primary_term: int | msgspec.UnsetType = msgspec.UNSET


class _NoShard(UpstreamUnavailable):
    """The index is there, and the user's shard is not."""


_document_decoder = msgspec.json.Decoder(_Document)
_documents_decoder = msgspec.json.Decoder(_Documents)
_source_decoder = msgspec.json.Decoder(_Source)
_encode = msgspec.json.Encoder().encode


class Decoded:
    """States as they were decoded of late, to decode none twice; thread-safe.

    A state is taken from here only if OpenSearch has just answered with the very bytes that it was
    decoded from, version included, so it is never older than the last acknowledged event.
    """

    def __init__(self, most_events: int) -> None:
        """Keep at most ``most_events`` events of all users: some 400 bytes each."""
        self._kept: LRUCache[str, tuple[bytes, UserState]] = LRUCache(
            most_events, getsizeof=lambda entry: len(entry[1].history) + EMPTY_STATE_EVENTS)
        self._lock = threading.Lock()

    def get(self, user_id: str, body: bytes) -> UserState | None:
        """Return what an equal answer was decoded to."""
        with self._lock:
            entry = self._kept.get(user_id)
        return entry[1] if entry is not None and entry[0] == body else None

    def put(self, body: bytes, state: UserState) -> None:
        """Keep a state with the answer that it came in."""
        with self._lock, suppress(ValueError):  # larger than everything that may be kept
            self._kept[state.user_id] = (body, state)


@dataclass(frozen=True, slots=True)
class PendingGet:
    """A read under way, or the error that kept it from starting."""

    user_id: str
    exchange: Exchange | None = None
    failure: UpstreamError | None = None
    decoded: Decoded | None = None

    def result(self, deadline: float) -> UserState | None:
        """Return the state, or None; see ``PendingState``."""
        if self.exchange is None:
            raise self.failure or UpstreamError("read was not sent")
        return _read_one(self.user_id, self.exchange.result(deadline), self.decoded)

    def comes_before(self, exchange: Exchange) -> bool:
        """Wait for the first of two answers; see ``PendingState``."""
        return self.exchange is not None and self.exchange.answers_before(exchange)

    def cancel(self) -> None:
        """Give the read up."""
        if self.exchange is not None:
            self.exchange.cancel()


class OpenSearchStateStore:
    """The index of states; thread-safe."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self._documents = Documents(upstream, settings.states_index, "personalize-states")
        self._decoded = Decoded(DECODED_EVENTS)
        self._has_waited = False  # for the index to be there, which another sidecar may be making
        self._lock = threading.Lock()

    def begin_get(self, user_id: str) -> PendingGet:
        """Send a realtime read and return at once; errors surface in ``result``."""
        try:
            return PendingGet(user_id, self._documents.begin_get(user_id), decoded=self._decoded)
        except UpstreamError as error:
            return PendingGet(user_id, failure=error)

    def get_many(self, user_ids: Sequence[str]) -> list[UserState | None]:
        """Read several users in one realtime request, in the order asked for.

        The first time that a shard is not there, it is waited for: the index may just be made.

        Raises:
            UpstreamError: the index could not be asked, or one of its shards could not.
        """
        has_waited = self._has_waited
        try:
            return self._read_many(user_ids)
        except _NoShard:
            if has_waited:
                raise
            with self._lock:
                if not self._has_waited:
                    self._documents.wait_for_shards()
                    self._has_waited = True
        return self._read_many(user_ids)

    def _read_many(self, user_ids: Sequence[str]) -> list[UserState | None]:
        if len(user_ids) == 1:  # a GET is cheaper than a multi-get of one
            response = self._documents.fetch("GET", document_path(user_ids[0]))
            return [_read_one(user_ids[0], response)]
        if not user_ids:
            return []
        response = self._documents.fetch("POST", "/_mget", _encode({"ids": list(user_ids)}))
        if response.status == 404:
            return [None] * len(user_ids)
        docs = decode_answer(_documents_decoder, response).docs
        return [_state(user_id, doc) for user_id, doc in zip(user_ids, docs, strict=True)]

    def put_many(self, states: Sequence[UserState]) -> list[UserState | Exception]:
        """Write states, each only over the version that it was read at; see ``StateStore``.

        Raises:
            UpstreamError: the index could not be asked; any of the states may be written.
        """
        lines: list[bytes] = []
        for state in states:
            lines += (_head(state), _body(state))
        outcomes = self._documents.begin_bulk(lines, len(states)).result()
        return [_written(state, outcome)
                for state, outcome in zip(states, outcomes, strict=True)]

    def delete(self, user_id: str) -> bool:
        """Forget a user; False if there was nothing to forget."""
        response = self._documents.fetch("DELETE", document_path(user_id))
        return response.status != 404 and check(response).status == 200


def _read_one(user_id: str, response: HttpResponse,
              decoded: Decoded | None = None) -> UserState | None:
    if response.status == 404:  # no such document, or no index yet
        return None
    if response.status == 503 and _NO_SHARD.encode() in response.body:
        raise _NoShard("state could not be read: its shard is not there")
    body = check(response).body
    state = decoded.get(user_id, body) if decoded is not None else None
    if state is None:
        state = _state(user_id, decode_answer(_document_decoder, response))
        if decoded is not None and state is not None:
            decoded.put(body, state)
    return state


def _state(user_id: str, document: _Document) -> UserState | None:
    if document.error is not None and document.error.type == _NO_SHARD:
        raise _NoShard("state could not be read: its shard is not there")
    if document.error is not None and document.error.type != "index_not_found_exception":
        raise UpstreamError(f"state could not be read: {document.error.reason}")
    if not document.found:
        return None
    empty = UserState(user_id, version=document.seq_no, primary_term=document.primary_term)
    try:
        source = _source_decoder.decode(document.source)
        history = _history(source.events)
        hidden = _hidden(source)
    except (msgspec.MsgspecError, ValueError) as error:
        # Starting over under the same version lets the next event heal it.
        log.error("state is unreadable and will be replaced", extra={"error": str(error)})
        return empty
    return dataclasses.replace(
        empty, history=history, event_count=source.event_count, hidden=hidden,
        model_version=source.model_version if hidden is not None else None)


def _history(columns: _Columns) -> History:
    history = History(columns.item_ids, columns.events, columns.ts, columns.queries,
                      columns.event_ids)
    lengths = {len(column) for column in (history.item_ids, history.events, history.ts,
                                          history.queries, history.event_ids)}
    if len(lengths) > 1:
        raise ValueError(f"columns have lengths {sorted(lengths)}, must be one")
    return history


def _hidden(source: _Source) -> FloatArray | None:
    shape = source.hidden_shape
    if source.hidden is None or min(shape, default=0) < 1 or len(source.hidden) != 4 * math.prod(
            shape):
        return None
    flat = np.frombuffer(source.hidden, dtype="<f4")
    return flat.reshape(source.hidden_shape).astype(np.float32, copy=False)


def _head(state: UserState) -> bytes:
    if state.version < 0:
        return _encode({"create": _Condition(state.user_id)})
    return _encode({"index": _Condition(state.user_id, state.version, state.primary_term)})


def _body(state: UserState) -> bytes:
    kept, hidden = state.history, state.hidden
    return _encode(_Source(
        user_id=state.user_id,
        model_version=state.model_version,
        event_count=state.event_count,
        hidden=None if hidden is None else np.ascontiguousarray(hidden, dtype="<f4").tobytes(),
        hidden_shape=() if hidden is None else hidden.shape,
        events=_Columns(kept.item_ids, kept.events, kept.ts, kept.queries, kept.event_ids)))


def _written(state: UserState, outcome: BulkItem) -> UserState | Exception:
    if outcome.status < 300:
        return dataclasses.replace(state, version=outcome.seq_no,
                                   primary_term=outcome.primary_term)
    if outcome.status == 409:
        return VersionConflict(f"state is no longer at version {state.version}; read it again")
    kind = UpstreamUnavailable if outcome.may_pass_later else UpstreamError
    return kind(f"state was not written: {outcome.reason}")
