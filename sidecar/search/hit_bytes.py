"""What is changed in the bytes of a hit, and around the hits, before the client sees them.

Keys that only the sidecar asked for are cut out, a version and a score are taken out or put in, and
a section is added to ``ext``. Every other byte stays as OpenSearch wrote it. Pure; no I/O.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from sidecar.search import spans
from sidecar.search.answers import Version

# How OpenSearch begins nearly every hit, unless told to be pretty: going through all of a hit's
# members three times took a sixth of a personalised search.
_VERSIONED = re.compile(rb'(\{"_index":"[^"\\]*","_id":"[^"\\]*",(?:"_version":[0-9]+,)?)'
                        rb'"_seq_no":([0-9]+),"_primary_term":([0-9]+),'
                        rb'("_score":)([-+.0-9eE]+)(?=[,}])')


def without_keys(hit: bytes, hidden: Collection[str], field: str | None = None) -> bytes | None:
    """Cut out of a hit what only the sidecar asked for; None if nothing is left of it.

    Args:
        hit: as written by OpenSearch.
        hidden: keys that the client's filter_path does not select.
        field: a doc value to take out of ``fields``, and ``fields`` with it if it was alone.
    """
    if field is not None:
        hit = _without_field(hit, field)
    if hidden:
        hit = spans.cut(hit, spans.members(hit), hidden)
    return None if hit == b"{}" else hit


def _without_field(hit: bytes, field: str) -> bytes:
    top = spans.members(hit)
    if "fields" not in top:
        return hit
    fields = spans.value(hit, top["fields"])
    left = spans.cut(fields, spans.members(fields), (field,))
    if left == b"{}":
        return spans.cut(hit, top, ("fields",))
    return spans.put(hit, top["fields"], left)


@dataclass(frozen=True, slots=True)
class Versioned:
    """A hit that was asked for with its version: its bytes as they are to be shown, the version
    (None if it does not tell one), and what stands before and behind its score (None if it has no
    number for one)."""

    hit: bytes
    version: Version | None
    around_score: tuple[bytes, bytes] | None


def versioned(hit: bytes, *, shows_version: bool) -> Versioned:
    """Take a hit's version and score out of it; ``shows_version``: the client asked for it too."""
    head = _VERSIONED.match(hit)
    if head is None:
        return _versioned(hit, shows_version)
    start, seq_no, term, name, score = head.groups()
    before = hit[:head.start(5)] if shows_version else start + name
    behind = hit[head.end():]
    return Versioned(hit if shows_version else b"".join((before, score, behind)),
                     (int(seq_no), int(term)), (before, behind))


def _versioned(hit: bytes, shows_version: bool) -> Versioned:
    """Take apart a hit that begins in another way than most."""
    top = spans.members(hit)
    version = None
    with suppress(KeyError, ValueError):
        version = (int(spans.value(hit, top["_seq_no"])),
                   int(spans.value(hit, top["_primary_term"])))
    if not shows_version:
        hit = spans.cut(hit, top, ("_seq_no", "_primary_term"))
        top = spans.members(hit)
    span = top.get("_score")
    if span is None or spans.value(hit, span) == b"null":
        return Versioned(hit, version, None)
    return Versioned(hit, version, (hit[:span.start], hit[span.end:]))


def with_score(hit: bytes, score: float) -> bytes:
    """Return the hit with another ``_score``; one without stays without."""
    top = spans.members(hit)
    return spans.put(hit, top["_score"], _number(score)) if "_score" in top else hit


def with_max_score(body: bytes, score: float) -> bytes:
    """Return an answer with another ``hits.max_score``; one without stays without."""
    top = spans.members(body)
    if "hits" not in top:
        return body
    hits = spans.value(body, top["hits"])
    inner = spans.members(hits)
    if "max_score" not in inner:
        return body
    return spans.put(body, top["hits"], spans.put(hits, inner["max_score"], _number(score)))


def _number(score: float) -> bytes:
    return msgspec.json.encode(float(np.float32(score))) if math.isfinite(score) else b"null"


def with_ext(body: bytes, name: str, section: Mapping[str, Any]) -> bytes:
    """Return an answer with one more section in its top-level ``ext``."""
    added = msgspec.json.encode(name) + b":" + msgspec.json.encode(section)
    top = spans.members(body)
    if "ext" in top:
        ext = spans.value(body, top["ext"])
        inner = ext.rstrip()[1:].lstrip()
        new = b"{" + added + (b"" if inner == b"}" else b",") + inner
        return spans.put(body, top["ext"], new)
    at = max((span.end for span in top.values()), default=body.index(b"{") + 1)
    comma = b"," if top else b""
    return body[:at] + comma + b'"ext":{' + added + b"}" + body[at:]
