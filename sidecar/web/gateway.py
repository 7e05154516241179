"""The WSGI side of everything that belongs to OpenSearch: searches, and requests that pass through.

The gateway is a plain WSGI callable, not a Flask view: a search uses none of Flask's request
context, routing or JSON. Targets are taken raw from the server (``RAW_URI``), so that
percent-encoded index names and date math reach OpenSearch as they came.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from sidecar.errors import BodyTooLarge, ClientGone, SidecarError
from sidecar.records import Headers, HttpRequest, StreamedResponse
from sidecar.search import headers as http_headers
from sidecar.search.allow_list import allowed_methods, closes_all, is_allowed
from sidecar.search.targets import Endpoint, endpoint, origin_form
from sidecar.serving.hit_cache import HitCache
from sidecar.serving.passing import Reply
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.search_path import SearchPath
from sidecar.serving.shown import ShownLog
from sidecar.settings import Settings
from sidecar.stores.upstream import Upstream
from sidecar.web.errors import describe, error_body, refusal
from sidecar.web.http_requests import HEADERS
from sidecar.web.places import Places

log = logging.getLogger(__name__)

StartResponse = Callable[..., Any]
CHUNK_BYTES = 64 * 1024
RETRY_AFTER_S = "1"
KEPT_SHARE = 4  # a quarter of the threads is left to searches while other requests wait
PASSING_S = 2.0  # that one of those waits for a place, at most


class SearchGateway:
    """Answers every request that is not the sidecar's own; one a process, for all its threads."""

    def __init__(self, settings: Settings, upstream: Upstream, personalizer: Personalizer,
                 shown: ShownLog | None = None, hits: HitCache | None = None) -> None:
        self._settings = settings
        self._searches = SearchPath(settings, upstream, personalizer, shown, hits)
        self._telemetry = personalizer.telemetry
        self._places = threading.BoundedSemaphore(settings.max_requests)
        kept = max(1, settings.threads // KEPT_SHARE)
        self._passing = Places(settings.threads - kept, PASSING_S)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if not self._places.acquire(blocking=False):
            return self._too_many(environ, start_response,
                                  f"{self._settings.max_requests} requests are being served; "
                                  "retry later, or raise SIDECAR_MAX_REQUESTS")
        try:
            body = self._answer(environ, start_response)
        except BaseException:
            self._places.release()
            raise
        return _Body(body, self._places.release)

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, target = environ["REQUEST_METHOD"], _raw_target(environ)
        path = target.partition("?")[0]
        try:
            kind = endpoint(method, path)
            if kind is Endpoint.OTHER and self._settings.passthrough != "all" \
                    and not is_allowed(method, path):
                self._telemetry.refused("not_allowed")
                return self._not_allowed(environ, start_response, method, path)
            is_closing = method == "DELETE" and self._settings.passthrough != "all"
            request = self._request(environ, method, target,
                                    is_streamed=kind is Endpoint.OTHER and not is_closing)
            if is_closing and _closes_all(request):
                self._telemetry.refused("not_allowed")
                return _refusal(environ, start_response, 403, "security_exception",
                                "closing all scrolls or points in time is not on the sidecar's "
                                "read-only list, as others' are among them; name your own")
            if kind is Endpoint.OTHER:
                return self._passed(environ, start_response, request)
            return _sent(self._searches.answer(kind, request, _client_socket(environ)),
                         start_response)
        except ClientGone:
            start_response("499 Client Closed Request", [("Content-Length", "0")])
            return ()
        except Exception as error:
            self._telemetry.refused(refusal(error) or "internal_error")
            return _failure(environ, start_response, error)

    def _passed(self, environ: dict[str, Any], start_response: StartResponse,
                request: HttpRequest) -> Iterable[bytes]:
        """Let through what is no search, as long as threads are left for searches."""
        if not self._passing.enter():
            return self._too_many(environ, start_response,
                                  "too many requests that are no searches wait for opensearch; "
                                  "retry later, or raise SIDECAR_THREADS")
        try:
            sent = _sent(self._searches.other(request, _client_socket(environ)), start_response)
        except BaseException:
            self._passing.leave()
            raise
        return _Body(sent, self._passing.leave)

    def _too_many(self, environ: dict[str, Any], start_response: StartResponse,
                  reason: str) -> Iterable[bytes]:
        self._telemetry.refused("too_many_requests")
        return _refusal(environ, start_response, 429, "rejected_execution_exception", reason,
                        (("Retry-After", RETRY_AFTER_S),))

    def _request(self, environ: dict[str, Any], method: str, target: str, *,
                 is_streamed: bool) -> HttpRequest:
        """Return the request; a search's body is read, any other's streams.

        A search goes without the length that the client named: another body may take its place.
        """
        headers = http_headers.for_upstream(_headers(environ))
        body = self._body(environ)
        if is_streamed:
            return HttpRequest(method, target, headers, body)
        headers = http_headers.replaced(headers, content_length=None)
        return HttpRequest(method, target, headers, None if body is None else b"".join(body))

    def _body(self, environ: dict[str, Any]) -> Iterator[bytes] | None:
        length = environ.get("CONTENT_LENGTH")
        most = self._settings.max_body_bytes
        if not length and "chunked" not in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            return None
        if length and int(length) > most:
            raise BodyTooLarge(f"body has {length} bytes, at most {most} are taken; send it in "
                               "parts, or raise SIDECAR_MAX_BODY_BYTES")
        if length == "0":
            return None
        return _chunks(environ["wsgi.input"], int(length) if length else None, most)

    @staticmethod
    def _not_allowed(environ: dict[str, Any], start_response: StartResponse, method: str,
                     path: str) -> Iterable[bytes]:
        methods = [m for m in allowed_methods(path) if m != "OPTIONS"]
        if not methods:
            return _refusal(environ, start_response, 403, "security_exception",
                            f"{path[:200]} is not on the sidecar's read-only list; "
                            "send it to OpenSearch itself, or set SIDECAR_PASS=all")
        return _refusal(environ, start_response, 405, "method_not_allowed_exception",
                        f"{method} {path[:200]} is not on the sidecar's read-only list, which has "
                        f"{', '.join(methods)}; send it to OpenSearch itself, or set "
                        "SIDECAR_PASS=all", (("Allow", ",".join(methods)),))


class _Body:
    """An answer's body that gives its place back once it was sent, or will not be."""

    def __init__(self, chunks: Iterable[bytes], release: Callable[[], None]) -> None:
        self._chunks = chunks
        self._release = release

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        """Called by the server at the end, whatever the end was."""
        try:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
        finally:
            self._release()


def _closes_all(request: HttpRequest) -> bool:
    kind = http_headers.get(request.headers, "content-type")
    body = request.body if isinstance(request.body, bytes) else b""
    return closes_all(request.target, body, is_json="json" in kind.lower())


def _sent(reply: Reply, start_response: StartResponse) -> Iterable[bytes]:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    start_response(f"{reply.status} {phrase}", list(reply.headers))
    return reply.chunks if isinstance(reply, StreamedResponse) else (reply.body,)


def _failure(environ: dict[str, Any], start_response: StartResponse,
             error: Exception) -> Iterable[bytes]:
    status, kind, reason = describe(error)
    if not isinstance(error, SidecarError):
        log.error("request failed", exc_info=error)
    more = (("Retry-After", RETRY_AFTER_S),) if status == 503 else ()
    return _refusal(environ, start_response, status, kind, reason, more)


def _refusal(environ: dict[str, Any], start_response: StartResponse, status: int, kind: str,
             reason: str, more: Headers = ()) -> Iterable[bytes]:
    body = error_body(status, kind, reason)
    start_response(f"{status} {HTTPStatus(status).phrase}",
                   [("Content-Type", "application/json; charset=UTF-8"),
                    ("Content-Length", str(len(body))), *more])
    return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)


def _raw_target(environ: dict[str, Any]) -> str:
    """Return path and query as on the wire; servers without RAW_URI get them encoded anew."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw is None:
        path = quote(environ["PATH_INFO"].encode("latin-1"), safe="/,:*+<>{}|@!$&'()=;~-._")
        query = environ.get("QUERY_STRING", "")
        return f"{path}?{query}" if query else path
    return origin_form(raw)


def _headers(environ: dict[str, Any]) -> Headers:
    """Return the headers as they came; other servers than the worker join those that came twice."""
    as_they_came: Headers | None = environ.get(HEADERS)
    if as_they_came is not None:
        return as_they_came
    found = [(name[5:].replace("_", "-").title(), text) for name, text in environ.items()
             if name.startswith("HTTP_")]
    if "CONTENT_TYPE" in environ:  # an empty one is for OpenSearch to refuse
        found.append(("Content-Type", environ["CONTENT_TYPE"]))
    if environ.get("CONTENT_LENGTH"):
        found.append(("Content-Length", environ["CONTENT_LENGTH"]))
    return tuple(found)


def _chunks(source: Any, length: int | None, most: int) -> Iterator[bytes]:
    """Read a body piece by piece.

    Raises:
        BodyTooLarge: a body of unknown length turns out longer than ``most``.
        ClientGone: it ends before its length.
    """
    taken = 0
    while length is None or taken < length:
        wanted = CHUNK_BYTES if length is None else min(CHUNK_BYTES, length - taken)
        chunk = source.read(wanted)
        if not chunk:
            if length is not None:
                raise ClientGone("the client hung up in the middle of its body")
            return
        taken += len(chunk)
        if taken > most:
            raise BodyTooLarge(f"body has more than {most} bytes; send it in parts, or raise "
                               "SIDECAR_MAX_BODY_BYTES")
        yield chunk


def _client_socket(environ: dict[str, Any]) -> socket.socket | None:
    """Return the client's connection where the server shows it, to notice that it closes."""
    client = environ.get("gunicorn.socket")
    if not isinstance(client, socket.socket) or isinstance(client, ssl.SSLSocket):
        return None
    return client if client.fileno() >= 0 else None
