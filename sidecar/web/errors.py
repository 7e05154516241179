"""Exception → OpenSearch-shaped JSON, in this one place.

Clients of OpenSearch parse ``{"error": {"root_cause": [...], "type", "reason"}, "status"}``; the
sidecar's own errors look the same, so that no client needs a second parser.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from sidecar.errors import (
    BadRequest,
    BodyTooLarge,
    ClientGone,
    ControlError,
    InputError,
    SidecarError,
    UpstreamError,
    UpstreamTimeout,
    VersionConflict,
)

if TYPE_CHECKING:  # the master imports this module, and must not choose where workers count
    from sidecar.serving.telemetry import Telemetry

log = logging.getLogger(__name__)

_SHOWN_CHARS = 60  # of a path that is not there
_WORDS = {413: "content_too_long_exception"}
# First match wins: subclasses stand before their parents.
_KINDS: tuple[tuple[type[SidecarError], int, str], ...] = (
    (BodyTooLarge, 413, _WORDS[413]),
    (InputError, 400, "illegal_argument_exception"),
    (VersionConflict, 409, "version_conflict_engine_exception"),
    (UpstreamTimeout, 504, "timeout_exception"),
    (UpstreamError, 503, "no_node_available_exception"),
    (ClientGone, 499, "client_closed_request_exception"),  # nobody reads it
    (SidecarError, 500, "exception"),
)
# The word that counts it; as above. Whoever has gone was refused nothing.
_REFUSALS: tuple[tuple[type[Exception], str | None], ...] = (
    (ControlError, "bad_control"),
    (BodyTooLarge, "body_too_large"),
    (InputError, "bad_request"),
    (UpstreamTimeout, "upstream_timeout"),
    (UpstreamError, "upstream_unavailable"),
    (ClientGone, None),
    (Exception, "internal_error"),
)
_HTTP_REFUSALS = {400: "bad_request", 413: "body_too_large", 415: "bad_request"}


def describe(error: Exception) -> tuple[int, str, str]:
    """Return the status, OpenSearch's word for the kind, and the reason to show."""
    if isinstance(error, BadRequest):
        return error.status, "illegal_argument_exception", error.reason
    for kind, status, word in _KINDS:
        if isinstance(error, kind):
            return status, word, str(error)
    return 500, "exception", f"internal error: {type(error).__name__}; see the sidecar's log"


def refusal(error: Exception) -> str | None:
    """Return which of ``telemetry.REFUSALS`` an error is; None: nothing was refused."""
    return next(word for kind, word in _REFUSALS if isinstance(error, kind))


def error_body(status: int, kind: str, reason: str) -> bytes:
    """Return an error as OpenSearch would word it."""
    cause = {"type": kind, "reason": reason}
    return msgspec.json.encode({"error": {"root_cause": [cause], **cause}, "status": status})


def error_response(error: Exception) -> Response:
    """Return the response to an error of the sidecar's own paths."""
    status, kind, reason = describe(error)
    if status == 500:
        log.error("request failed", exc_info=error)
    return _response(status, kind, reason)


def register(app: Flask, telemetry: Telemetry) -> None:
    """Answer every exception of the application in OpenSearch's shape, and count it."""
    def count(word: str | None) -> None:
        if word == "bad_request" and request.blueprint == "events":
            word = "bad_events"
        if word is not None:
            telemetry.refused(word)

    def http_error(error: HTTPException) -> Response:
        count(_HTTP_REFUSALS.get(error.code or 500))
        return _http_error(error, _told(error, app))

    def any_error(error: Exception) -> Response:
        count(refusal(error))
        return error_response(error)

    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Exception, any_error)


def _told(error: HTTPException, app: Flask) -> str:
    """Return what was wrong, and what there is instead."""
    asked = f"{request.method} {request.path[:_SHOWN_CHARS]}"
    if isinstance(error, MethodNotAllowed):
        taken = ", ".join(sorted(error.valid_methods or ()))
        return f"{asked} is not served; this path takes {taken}"
    if isinstance(error, NotFound):
        paths = sorted({re.sub("<.*>", "ID", rule.rule) for rule in app.url_map.iter_rules()})
        return f"{asked} is not served; the sidecar's own paths are {', '.join(paths)}"
    return error.description or error.name or "error"


def _http_error(error: HTTPException, reason: str) -> Response:
    status = error.code or 500
    word = (error.name or "error").lower().replace(" ", "_") + "_exception"
    response = _response(status, _WORDS.get(status, word), reason)
    if error.response is None:
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
    return response


def _response(status: int, kind: str, reason: str) -> Response:
    return Response(error_body(status, kind, reason), status, content_type="application/json")
