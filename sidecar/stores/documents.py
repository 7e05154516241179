"""How do the stores talk to OpenSearch? JSON over the lean client, errors as one exception tree.

``Documents`` is one index or alias; the stores on top of it know what a document means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from sidecar.errors import UpstreamError, UpstreamUnavailable
from sidecar.records import HttpRequest, HttpResponse
from sidecar.stores.own_index import OwnIndex
from sidecar.stores.upstream import Exchange, Upstream

_BULK_ANSWER = "filter_path=items.*.status,items.*._seq_no,items.*._primary_term,items.*.error"
# For a shard that is not there; OpenSearch would wait a minute, and so would the writing thread.
_FOR_A_SHARD = "timeout=2s&"
_OVERLOADED = frozenset({429, 502, 503, 504})  # of one document; these pass
_BLOCKED = " blocked by: ["
_QUOTED = re.compile(r"(?<!field )(?<!of type )\[|\[(?![\w.-]+\])")
_INDEX_FAULTS = ("no write index is defined for alias", "pipeline with id [")

T = TypeVar("T")


class ErrorCause(msgspec.Struct, frozen=True):
    """OpenSearch's word on what went wrong with a document."""

    type: str = ""
    reason: str | None = None
    caused_by: Any = None


class BulkItem(msgspec.Struct, frozen=True):
    """What became of one line of a bulk request."""

    status: int
    seq_no: int = msgspec.field(default=-1, name="_seq_no")
    primary_term: int = msgspec.field(default=0, name="_primary_term")
    error: ErrorCause | None = None

    @property
    def is_homeless(self) -> bool:
        """True where the index is not there: deleted, since it was last looked for."""
        return (self.status == 404 and self.error is not None
                and self.error.type == "index_not_found_exception")

    @property
    def may_pass_later(self) -> bool:
        """True where the same line may pass a moment later.

        An index that is read-only because its node's disk is full has status 429 as well, and lasts
        until there is room.
        """
        is_full = (self.status == 429 and self.error is not None
                   and self.error.type == "cluster_block_exception")
        return (self.status in _OVERLOADED and not is_full) or self.is_homeless

    @property
    def is_documents_fault(self) -> bool:
        """True where the index takes other documents.

        A closed index, an alias that leads nowhere or a pipeline that is not there has status 400
        as well, whatever the document.
        """
        if self.status != 400 or self.error is None:
            return False
        told = self.error.reason or ""  # may quote a value of the document, further on
        return self.error.type != "index_closed_exception" and not told.startswith(_INDEX_FAULTS)

    @property
    def reason(self) -> str:
        """Return why the line was refused, with the innermost cause."""
        if self.error is None:
            return f"status {self.status}"
        cause = self.error.caused_by
        inner = cause.get("reason") if isinstance(cause, dict) else None
        return f"{self.error.reason or self.error.type}{': ' + str(inner) if inner else ''}"


class _BulkAnswer(msgspec.Struct, frozen=True):
    items: list[dict[str, BulkItem]] = []


_bulk_decoder = msgspec.json.Decoder(_BulkAnswer)


@dataclass(frozen=True, slots=True)
class PendingBulk:
    """A bulk request on its way; ``result`` waits for it.

    ``again`` sends it once more, after its index was made anew.
    """

    count: int
    exchange: Exchange | None = None
    failure: UpstreamError | None = None
    again: Callable[[], PendingBulk] | None = None

    def result(self) -> list[BulkItem]:
        """Return what became of each line, in order.

        Raises:
            UpstreamError: OpenSearch could not be asked, or refused the request as a whole.
        """
        if self.failure is not None:
            raise self.failure
        if self.exchange is None:
            return []
        answer = decode_answer(_bulk_decoder, self.exchange.result())
        outcomes = [outcome for item in answer.items for outcome in item.values()]
        if len(outcomes) != self.count:
            raise UpstreamError(f"bulk answered {len(outcomes)} items for {self.count} lines")
        if self.again is not None and any(outcome.is_homeless for outcome in outcomes):
            return self.again().result()
        return outcomes

    def cancel(self) -> None:
        """Wait for the answer no longer; the lines may be written or not."""
        if self.exchange is not None:
            self.exchange.cancel()


class Documents:
    """One index, by id and in bulk; thread-safe."""

    def __init__(self, upstream: Upstream, index: str, mapping: str) -> None:
        """Name the index, and the file under ``mappings/`` that it is made from if it is absent."""
        self._upstream = upstream
        self._index = OwnIndex(upstream, index, mapping)
        self._path = "/" + quote(index, safe="")
        self._headers = (*upstream.own_headers, ("Content-Type", "application/json"))
        self._bulk_headers = (*upstream.own_headers, ("Content-Type", "application/x-ndjson"))

    def begin_get(self, doc_id: str) -> Exchange:
        """Send a realtime read by id; raises UpstreamUnavailable."""
        return self._upstream.begin(self._request("GET", document_path(doc_id)), idempotent=True)

    def fetch(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
        """Ask the index, and wait; ``path`` begins with ``/`` and is percent-encoded.

        Raises:
            UpstreamError: OpenSearch could not be asked. Its refusals are answers like others.
        """
        return self._upstream.fetch(self._request(method, path, body), idempotent=True)

    def wait_for_shards(self) -> None:
        """Wait for a moment until the index can be read; see ``OwnIndex``."""
        self._index.wait_for_shards()

    def begin_bulk(self, lines: Sequence[bytes], count: int) -> PendingBulk:
        """Send ``count`` operations and return; errors surface in ``result``.

        Only operations that may be sent twice: creates under a known id, writes under if_seq_no.
        All are sent once more if the index turns out to be absent, after it was made anew.
        """
        if not count:
            return PendingBulk(0)
        body = b"\n".join((*lines, b""))

        def again() -> PendingBulk:
            self._index.look_again()
            return self._send_bulk(body, count)

        return self._send_bulk(body, count, again)

    def _send_bulk(self, body: bytes, count: int,
                   again: Callable[[], PendingBulk] | None = None) -> PendingBulk:
        try:
            place = self._index.place()
            target = f"{place.path}/_bulk?{place.parameters}{_FOR_A_SHARD}{_BULK_ANSWER}"
            request = HttpRequest("POST", target, self._bulk_headers, body)
            return PendingBulk(count, self._upstream.begin(request, idempotent=True), again=again)
        except UpstreamError as error:
            return PendingBulk(count, failure=error)

    def _request(self, method: str, path: str, body: bytes | None = None) -> HttpRequest:
        return HttpRequest(method, self._path + path, self._headers, body)


def document_path(doc_id: str) -> str:
    """Return a document's path below its index; dots too are encoded, or ``..`` would climb."""
    return "/_doc/" + quote(doc_id, safe="").replace(".", "%2E")


def check(response: HttpResponse) -> HttpResponse:
    """Return the response if it is a success.

    Raises:
        UpstreamUnavailable: OpenSearch is there, and cannot serve this now.
        UpstreamError: it refused, with its own reason.
    """
    if response.status < 300:
        return response
    message = f"opensearch answered {response.status}: {_reason(response.body)}"
    if response.status in _OVERLOADED:
        raise UpstreamUnavailable(message)
    raise UpstreamError(message)


def decode_answer(decoder: msgspec.json.Decoder[T], response: HttpResponse) -> T:
    """Return what a response says, if it is a success.

    Raises:
        UpstreamError: it is not a success, see ``check``; or it is not OpenSearch's, but comes from
            something in front of it, such as a proxy's login page.
    """
    body = check(response).body
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # their words quote no values
        raise UpstreamError(
            f"opensearch answered {response.status} with what it never says: {error}") from error


def without_values(reason: str) -> str:
    """Return OpenSearch's word on what went wrong as it may be logged: in brackets it quotes users'
    ids and what they wrote, and "Preview of field's value" follows a document's id. What names a
    field, or blocks an index, is no such thing."""
    told, blocked, block = reason.partition(_BLOCKED)
    told = told.partition(" in document with id ")[0]
    quoted = _QUOTED.search(told)
    return (told if quoted is None else told[:quoted.start()] + "[…]") + blocked + block


def _reason(body: bytes) -> str:
    try:
        error = msgspec.json.decode(body)["error"]
        return str(error["reason"] if isinstance(error, dict) else error)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
