"""Which requests, besides searches, an operator lets through. Pure; no I/O.

The default list only reads: documents, indices, mappings and settings, the state of the cluster,
and searches of every kind with what they need (scrolls and points in time are opened and closed).
``GET _refresh`` and ``GET _flush`` change something and are not on it. Fixed words of a path are
compared undecoded, as OpenSearch does.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from sidecar.search.targets import parse, segments

_READ = frozenset({
    "", "_alias", "_aliases", "_analyze", "_cat", "_cluster", "_component_template", "_count",
    "_data_stream", "_doc", "_explain", "_field_caps", "_index_template", "_ingest", "_list",
    "_mapping", "_mget", "_msearch", "_mtermvectors", "_nodes", "_plugins", "_rank_eval",
    "_recovery", "_remote", "_render", "_resolve", "_script_context", "_script_language",
    "_scripts", "_search", "_search_shards", "_segments", "_settings", "_shard_stores", "_source",
    "_stats", "_tasks", "_template", "_termvectors", "_validate"})
_POST = frozenset({
    "_analyze", "_count", "_explain", "_field_caps", "_mget", "_msearch", "_mtermvectors",
    "_rank_eval", "_render", "_search", "_search_shards", "_termvectors", "_validate"})
_DELETE = frozenset({("_search", "scroll"), ("_search", "point_in_time")})
_ALL = re.compile(rb'_all(?=[\s",])|\\u')  # or spelt with an escape, of which no id has need
_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "DELETE")


def is_allowed(method: str, path: str) -> bool:
    """Return True if the read-only list has this method and path."""
    endpoint = _endpoint(path)
    if method in ("GET", "HEAD"):
        return endpoint[0] in _READ
    if method == "POST":
        return endpoint[0] in _POST
    if method == "DELETE":
        return endpoint[:2] in _DELETE and not any(  # not all are one's own
            "_all" in _listed(unquote(part)) for part in endpoint[2:])
    return method == "OPTIONS"


def closes_all(target: str, body: bytes, *, is_json: bool) -> bool:
    """Return True if a request to close scrolls or points in time names all there are, which are
    others' too, in its parameter or body. (An id may hold these letters by chance, in its midst.)
    """
    if any("_all" in _listed(parameter.value) for parameter in parse(target).parameters):
        return True
    return _ALL.search(body) is not None if is_json else b"_all" in body


def _listed(text: str) -> set[str]:
    return {name.strip() for name in text.split(",")}


def allowed_methods(path: str) -> list[str]:
    """Return the methods that the list has for a path; OPTIONS alone means: none of its own."""
    return [method for method in _METHODS if is_allowed(method, path)]


def _endpoint(path: str) -> tuple[str, ...]:
    """Return the path from its first fixed word on; ``("",)`` for an index or the root alone."""
    parts = segments(path)
    if parts[:1] == ["_all"] or (parts and not parts[0].startswith("_")):
        parts = parts[1:]
    return tuple(parts) or ("",)
