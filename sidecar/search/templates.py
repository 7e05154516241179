"""Search templates are rendered first, since they may hold the page size and the ext block.

``_render/template`` turns the template into the body of an ordinary search, which is then planned
like any other. Pure; no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from sidecar.errors import UnreadableError
from sidecar.records import HttpRequest, SkipReason
from sidecar.search import headers, spans
from sidecar.search.controls import OWN_EXT, read_controls
from sidecar.search.plans import is_other_format, unwanted
from sidecar.search.requests import take_apart
from sidecar.search.targets import Target, parse
from sidecar.settings import Settings

_PASSED_ON = ("explain", "profile")  # flags beside the template that speak of the search
# What OpenSearch takes of a search, and ignores where the search stands in a template.
_IGNORED = frozenset({"from", "size", "sort", "q", "stored_fields", "docvalue_fields",
                      "seq_no_primary_term"})


@dataclass(frozen=True, slots=True)
class Template:
    """A template request: as OpenSearch is to get it, to render it, and its own ext block."""

    untouched: HttpRequest
    rendering: HttpRequest
    target: Target
    flags: Mapping[str, bytes]
    ext: Mapping[str, Any]


def take_template_apart(request: HttpRequest, own: Collection[str] = OWN_EXT) -> Template:
    """Read a template request; ``own`` names the ext sections that OpenSearch is not to see.

    Raises:
        UnreadableError: its body is not a JSON object.
    """
    target = parse(request.target)
    search = take_apart(request, target, own=own)
    if not search.members:
        raise UnreadableError("a template request without a body")
    flags = {name: search.members[name] for name in _PASSED_ON if name in search.members}
    template = {name: raw for name, raw in search.members.items() if name not in flags}
    rendering = HttpRequest("POST", "/_render/template", _for_json(request), spans.build(template))
    return Template(search.untouched(), rendering, target, flags,
                    search.ext)


def reason_to_pass(request: HttpRequest, template: Template,
                   settings: Settings) -> SkipReason | None:
    """Return why the search inside cannot be one to personalise; None if it could be.

    The template may hold the user, or an ext block that OpenSearch must not see; a stored template
    may hold anything.

    Raises:
        ControlError: a control with a value that it cannot have.
    """
    if is_other_format(request, template.target):
        return SkipReason.FORMAT
    if not _IGNORED.isdisjoint(template.target.names):
        return SkipReason.UNREADABLE
    controls = read_controls(request.headers, template.target, template.ext, settings)
    body = request.body if isinstance(request.body, bytes) else b""
    return None if b"ext" in body or b'"id"' in body else unwanted(controls, settings)


def rendered_search(request: HttpRequest, template: Template, rendering: bytes) -> HttpRequest:
    """Return the search that the template stands for, controls included, to the same target.

    Args:
        request: as the client sent it.
        template: taken apart.
        rendering: the body of ``_render/template``'s answer.

    Raises:
        UnreadableError: the answer holds no search.
    """
    output = spans.values(rendering).get("template_output")
    if output is None:
        raise UnreadableError("the rendering holds no template_output")
    members = spans.values(output) | dict(template.flags)
    own = {name: template.ext[name] for name in (*OWN_EXT, "ubi") if name in template.ext}
    if own:
        inside = spans.values(members["ext"]) if "ext" in members else {}
        members["ext"] = spans.build(
            {name: msgspec.json.encode(section) for name, section in own.items()} | inside)
    return replace(request, method="POST", headers=_for_json(request), body=spans.build(members))


def holds_own_ext(search: HttpRequest, own: Collection[str]) -> bool:
    """Return True if the rendered search has a block that OpenSearch must not see."""
    return isinstance(search.body, bytes) and any(
        f'"{name}"'.encode() in search.body for name in own)


def _for_json(request: HttpRequest) -> tuple[tuple[str, str], ...]:
    return headers.replaced(request.headers, content_type="application/json", content_length=None,
                            content_encoding=None, accept_encoding=None)
