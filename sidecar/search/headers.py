"""Headers between client, sidecar and OpenSearch: what passes, what belongs to one connection.

Pure; no I/O.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from sidecar.errors import UnreadableError
from sidecar.records import Headers, HttpRequest, HttpResponse

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
                         "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"})
_OF_ONE_REQUEST = _HOP_BY_HOP | {"host", "expect"}
_OF_ONE_ANSWER = _HOP_BY_HOP | {"date", "server"}  # the sidecar's own server writes these two
GZIP_LEVEL = 3  # OpenSearch's http.compression_level
_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def for_upstream(headers: Headers) -> Headers:
    """Return a request's headers less those of its connection, and those that Connection names."""
    return _less(headers, _OF_ONE_REQUEST)


def for_client(headers: Headers) -> Headers:
    """Return an answer's headers less those of its connection."""
    return _less(headers, _OF_ONE_ANSWER)


def _less(headers: Headers, gone: frozenset[str]) -> Headers:
    for name, text in headers:
        if name.lower() == "connection":
            gone = gone | {token.strip().lower() for token in text.split(",")}
    return tuple(header for header in headers if header[0].lower() not in gone)


def get(headers: Headers, wanted: str) -> str:
    """Return a header's value, repeats joined by commas; empty if it is absent."""
    return ",".join(text for name, text in headers if name.lower() == wanted)


def with_warnings_of(headers: Headers, others: Headers) -> Headers:
    """Return an answer's headers with another's ``Warning`` headers that it lacks."""
    return headers + tuple(header for header in others
                           if header[0].lower() == "warning" and header not in headers)


def replaced(headers: Headers, **new: str | None) -> Headers:
    """Return headers with others in place of those named (underscores for hyphens; None: gone)."""
    names = {name.replace("_", "-").lower(): text for name, text in new.items()}
    kept = tuple(header for header in headers if header[0].lower() not in names)
    return kept + tuple((name, text) for name, text in names.items() if text is not None)


def decompressed(request: HttpRequest, limit: int) -> HttpRequest:
    """Return the request with its body not compressed; one in an unknown coding is unreadable.

    Raises:
        UnreadableError: not gzip or deflate, broken, or larger than ``limit`` bytes.
    """
    coding = get(request.headers, "content-encoding").strip().lower()
    if coding in ("", "identity") or not isinstance(request.body, bytes):
        return request
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise UnreadableError(f"content-encoding {coding[:40]} is not read here")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        body = unpacker.decompress(request.body, limit + 1)
    except zlib.error as error:
        raise UnreadableError(f"body is no {coding}: {error}") from None
    if len(body) > limit or not unpacker.eof or unpacker.unused_data:
        raise UnreadableError("body is cut short, goes on, or is too large once decompressed")
    return replace(request, body=body,
                   headers=replaced(request.headers, content_encoding=None, content_length=None))


def compressed(response: HttpResponse, accepted: str) -> HttpResponse:
    """Return the answer as OpenSearch would send it to a client that accepts these codings."""
    headers = response.headers
    body = response.body
    coding = _coding(accepted)
    if coding is not None:
        packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _WINDOW_BITS[coding])
        body = packer.compress(body) + packer.flush()
    headers = replaced(headers, content_encoding=coding, content_length=str(len(body)))
    return replace(response, headers=headers, body=body)


def _coding(accepted: str) -> str | None:
    """Return the coding that OpenSearch would choose of those that are written here; None: none.

    Of two with the same weight, OpenSearch takes gzip, and a named one before any other ("*").
    """
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameter = part.partition(";")
        name = name.strip().removeprefix("x-")
        weights[name] = max(weights.get(name, 0.0), _weight(parameter))
    gzip, deflate = weights.get("gzip", 0.0), weights.get("deflate", 0.0)
    if gzip or deflate:
        return "gzip" if gzip >= deflate else "deflate"
    return "gzip" if weights.get("*") and "gzip" not in weights else None


def _weight(parameter: str) -> float:
    try:
        return float(parameter.partition("=")[2] or 1.0)
    except ValueError:
        return 0.0
