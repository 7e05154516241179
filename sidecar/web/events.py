"""``POST /_personalize/events``, ``/ubi_events`` and ``/ubi_queries`` take what shoppers do.

The body is one JSON event, an array, or one event per line (NDJSON); gzip is understood. The answer
says which were taken. It is sent after they are written, and the next search sees them.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from flask import Blueprint, Response, request
from werkzeug.exceptions import UnsupportedMediaType

from sidecar.errors import BodyTooLarge, EventError, InputError
from sidecar.serving.events import EventIntake, IntakeAnswer
from sidecar.settings import Settings, variable

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_READ_BYTES = 64 * 1024

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def create_blueprint(settings: Settings, intake: EventIntake) -> Blueprint:
    """Return the three paths over one intake."""
    blueprint = Blueprint("events", __name__)

    def answer(take: Callable[[Sequence[object]], IntakeAnswer]) -> Response:
        return _respond(take(read_entries(_body(settings.max_body_bytes))))

    @blueprint.post("/_personalize/events")
    def events() -> Response:
        return answer(intake.take)

    @blueprint.post("/ubi_events")
    def ubi_events() -> Response:
        return answer(intake.take)

    @blueprint.post("/ubi_queries")
    def ubi_queries() -> Response:
        return answer(intake.take_queries)

    return blueprint


def read_entries(body: bytes) -> list[object]:
    """Return the entries of a body: an array's, one object, or one a line.

    A line that is no JSON becomes an ``EventError`` in its place; blank lines count for nothing.

    Raises:
        InputError: empty, or a single document that is no JSON.
    """
    text = body.strip()
    if not text:
        raise InputError("body is empty, must be an event, an array of events, or one a line")
    try:
        whole = _decode(text)
    except _UNREADABLE as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) == 1 or text.startswith(b"["):
            raise InputError(f"body is not JSON: {error}") from error
        return [_line(line) for line in lines]
    return whole if isinstance(whole, list) else [whole]


def _line(line: bytes) -> object:
    try:
        return _decode(line)
    except _UNREADABLE as error:
        return EventError(f"line is not JSON: {error}")


def _body(limit: int) -> bytes:
    """Return the request's body, gunzipped; the limit holds for both forms."""
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise UnsupportedMediaType(f"content-encoding is {coding}, must be gzip or identity")
    body = request.get_data(cache=False)
    if coding != "identity":
        body = _gunzip(body, limit)
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    """Unpack gzip of one member or several, and stop where it grows beyond ``limit``."""
    decompressed = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as members:
            while piece := members.read(_READ_BYTES):
                decompressed.write(piece)
                if decompressed.tell() > limit:
                    raise _too_large(limit)
    except EOFError as error:
        raise InputError("body is gzip that breaks off") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"body is not gzip: {error}") from error
    return decompressed.getvalue()


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"body is larger than {limit} bytes; send smaller batches or set "
                        f"{variable('max_body_bytes')}")


def _respond(answer: IntakeAnswer) -> Response:
    """Say what was taken; 400 with OpenSearch's error beside it where nothing was."""
    document: dict[str, Any] = {
        "taken": answer.taken,
        "refused": [{"position": refusal.position, "reason": refusal.reason}
                    for refusal in answer.refused],
        "states": answer.states,
        "duplicates": answer.duplicates,
        "without_effect": answer.without_effect,
    }
    status = 200
    if answer.refused and not answer.taken:
        status = 400
        cause = {"type": "illegal_argument_exception", "reason": answer.refused[0].reason}
        document |= {"error": {"root_cause": [cause], **cause}, "status": status}
    return Response(_encode(document), status, content_type="application/json")
