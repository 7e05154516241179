"""Takes one search request apart, so that parts of it can be asked for differently.

A ``SearchRequest`` keeps the body's members as the bytes that came. Requests derived from it (a
wider fetch, ids only, one page) are put together from those bytes. Pure; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from sidecar.errors import UnreadableError
from sidecar.records import Headers, HttpRequest
from sidecar.search import spans
from sidecar.search.controls import HEADERS, OWN_EXT, PARAMETERS
from sidecar.search.targets import Target, parse

# As a header it would be refused in other words than as a parameter.
_IS_JSON = re.compile(r"application/(?:json|x-ndjson)(?:; *charset=utf-8)?")
# What clients say of a body that they do not send; a Content-Type that is none is refused.
_OF_NO_BODY = frozenset({"application/json", "application/x-ndjson", "text/plain",
                         "application/x-www-form-urlencoded"})
_FRAMING = frozenset({"content-length", "content-encoding", "accept-encoding"})


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search as the client meant it, without the sidecar's own controls.

    ``members`` maps the body's keys to their values as written, ``ext`` aside; ``ext`` is the
    whole ext object decoded, own sections included; ``kept_ext`` what OpenSearch may see of it.
    ``is_template``: the search came in a template, and its answer must look like a template's
    (it carries a ``status``), so OpenSearch gets it as the parameter of a constant template.
    """

    method: str
    target: Target
    headers: Headers
    body: bytes
    members: Mapping[str, bytes]
    ext: Mapping[str, Any]
    kept_ext: bytes | None = None
    is_template: bool = False

    def get(self, name: str) -> Any:
        """Return a member's value decoded; None if it is absent."""
        raw = self.members.get(name)
        return None if raw is None else spans.decode(raw)

    def untouched(self) -> HttpRequest:
        """Return the request as it came, less own controls; its answer goes to the client."""
        return HttpRequest(self.method, str(self.target), self.headers,
                           self._sent(self.body) if self.body else None)

    def rewritten(self, target: Target, members: Mapping[str, bytes]) -> HttpRequest:
        """Return a request of the sidecar's making, whose answer it can read."""
        kept = tuple(header for header in self.headers if header[0].lower() not in _FRAMING)
        if not any(name.lower() == "content-type" for name, _ in kept):
            kept += (("Content-Type", "application/json"),)
        return HttpRequest(self.method, str(target), kept, self._sent(spans.build(members)))

    def _sent(self, body: bytes) -> bytes:
        if not self.is_template:
            return body
        return msgspec.json.encode({"source": "{{{search}}}",
                                    "params": {"search": body.decode("utf-8", "surrogatepass")}})

    def with_parameter(self, name: str, value: str) -> SearchRequest:
        """Return the request with one more query parameter."""
        return SearchRequest(self.method, self.target.with_parameter(name, value), self.headers,
                             self.body, self.members, self.ext, self.kept_ext, self.is_template)


def take_apart(request: HttpRequest, target: Target, *, own: Collection[str] = OWN_EXT,
               is_template: bool = False) -> SearchRequest:
    """Read a search's body, or the ``source`` parameter in its place, and take own controls out.

    Args:
        request: with the search itself as its body.
        target: its target, parsed.
        own: ext sections that OpenSearch is not to see.
        is_template: the body is a template's rendering.

    Raises:
        UnreadableError: the body is not a JSON object, or a key stands in it twice.
    """
    body, target, headers = _body_of(request, target)
    if not body:
        return SearchRequest(request.method, without_own(target), foreign(headers), body, {}, {})
    top = spans.members(body)
    members = {name: body[span[1]:span[2]] for name, span in top.items()}
    members.pop("ext", None)
    ext: Mapping[str, Any] = {}
    kept_ext = None
    if "ext" in top:
        raw = spans.value(body, top["ext"])
        ext, kept_ext = _own_ext_out_of(raw, own)
        if kept_ext is None:
            body = spans.cut(body, top, ("ext",))
        elif kept_ext is not raw:
            body = spans.put(body, top["ext"], kept_ext)
    return SearchRequest(request.method, without_own(target), foreign(headers), body, members, ext,
                         kept_ext, is_template)


def _own_ext_out_of(raw: bytes, own: Collection[str]) -> tuple[Mapping[str, Any], bytes | None]:
    """Return ext decoded, and its bytes without own sections: None if nothing is left."""
    ext = spans.decode(raw)
    if not isinstance(ext, dict):
        return {}, raw
    if not any(name in ext for name in own):
        return ext, raw
    kept = spans.cut(raw, spans.members(raw), own)
    return ext, None if kept == b"{}" else kept


def _body_of(request: HttpRequest, target: Target) -> tuple[bytes, Target, Headers]:
    body = request.body if isinstance(request.body, bytes) else b""
    source = target.get("source")
    if body or source is None:
        return body, target, request.headers
    if not source:
        raise UnreadableError("source is empty, which OpenSearch refuses")
    kind = target.get("source_content_type") or ""
    if not _IS_JSON.fullmatch(kind.lower()):
        raise UnreadableError("source comes without source_content_type, or is not JSON")
    headers = tuple(header for header in request.headers if header[0].lower() != "content-type")
    said = [text for name, text in request.headers if name.lower() == "content-type"]
    if any(text.partition(";")[0].lower() not in _OF_NO_BODY for text in said):
        raise UnreadableError("source comes beside a Content-Type that OpenSearch may refuse")
    return (source.encode("utf-8", "surrogatepass"),
            target.without(("source", "source_content_type")), (*headers, ("Content-Type", kind)))


def without_controls(request: HttpRequest) -> HttpRequest:
    """Return a request without the sidecar's headers and parameters, its body untouched."""
    return replace(request, target=str(without_own(parse(request.target))),
                   headers=foreign(request.headers))


def without_own(target: Target) -> Target:
    """Return the target without the sidecar's own parameters, which OpenSearch would refuse."""
    return target.without(PARAMETERS)


def foreign(headers: Headers) -> Headers:
    """Return the headers without the sidecar's own."""
    return tuple(header for header in headers if header[0].lower() not in HEADERS)
