"""Exception → OpenSearch-shaped JSON, in this one place.

Clients of OpenSearch parse ``{"error": {"root_cause": [...], "type", "reason"}, "status"}``; the
sidecar's own errors look the same, so that no client needs a second parser.
"""

from __future__ import annotations

import logging

import msgspec
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from sidecar.errors import (
    BadRequest,
    BodyTooLarge,
    ClientGone,
    InputError,
    SidecarError,
    UpstreamError,
    UpstreamTimeout,
    VersionConflict,
)

log = logging.getLogger(__name__)

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


def describe(error: Exception) -> tuple[int, str, str]:
    """Return the status, OpenSearch's word for the kind, and the reason to show."""
    if isinstance(error, BadRequest):
        return error.status, "illegal_argument_exception", error.reason
    for kind, status, word in _KINDS:
        if isinstance(error, kind):
            return status, word, str(error)
    return 500, "exception", f"internal error: {type(error).__name__}; see the sidecar's log"


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


def register(app: Flask) -> None:
    """Answer every exception of the application in OpenSearch's shape."""
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, error_response)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    word = (error.name or "error").lower().replace(" ", "_") + "_exception"
    response = _response(status, _WORDS.get(status, word), error.description or error.name)
    if error.response is None:
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
    return response


def _response(status: int, kind: str, reason: str) -> Response:
    return Response(error_body(status, kind, reason), status, content_type="application/json")
