"""What decides how OpenSearch writes a hit, besides the document itself? Pure; no I/O.

Two requests of one shape get the same bytes for the same version of a document, except ``_score``.
Only members and parameters for which this is known may occur: a request with any other has no
shape. That includes requests for fields by the mapping, which may change without the document.
"""

from __future__ import annotations

import re

from sidecar.search.requests import SearchRequest

# Members and parameters that choose hits, or shape the answer around them.
_CHOOSING_MEMBERS = frozenset({
    "aggregations", "aggs", "from", "indices_boost", "min_score", "post_filter", "query", "size",
    "timeout", "track_total_hits"})
_CHOOSING_PARAMETERS = frozenset({
    "allow_no_indices", "allow_partial_search_results", "expand_wildcards", "from",
    "ignore_unavailable", "preference", "request_cache", "rest_total_hits_as_int", "routing",
    "search_type", "size", "timeout", "track_total_hits", "typed_keys"})
# And those that shape each hit.
_SHAPING_MEMBERS = ("_source", "seq_no_primary_term", "stored_fields", "version")
_SHAPING_PARAMETERS = ("_source", "_source_excludes", "_source_includes", "stored_fields",
                       "version")
_KNOWN_MEMBERS = _CHOOSING_MEMBERS.union(_SHAPING_MEMBERS)
_KNOWN_PARAMETERS = _CHOOSING_PARAMETERS.union(_SHAPING_PARAMETERS)
# Queries that write into hits: by a name, hits of hits, or which of them a document matched.
_TELLING_WORDS = (b'"_name"', b'"inner_hits"', b'"percolate"')
# A query in base64, or a letter that is written as an escape: what it asks for cannot be seen.
# (Signs are: .NET's clients write quotes and apostrophes so.)
_HIDDEN = re.compile(rb'"wrapper"|\\u00[4-7]')
# Headers that say nothing of who asks; any other may decide what they are allowed to see.
_HARMLESS_HEADERS = frozenset({
    "accept", "accept-encoding", "accept-language", "connection", "content-length", "content-type",
    "host", "traceparent", "tracestate", "user-agent", "x-opaque-id"})

Shape = tuple[object, ...]


def shows_versions(search: SearchRequest) -> bool:
    """Return True if the client asked for ``_seq_no`` and ``_primary_term`` itself, in a search
    that ``fetches.can_split``."""
    return search.members.get("seq_no_primary_term") == b"true"


def hides_words(search: SearchRequest) -> bool:
    """Return True if words of the query may not be seen in the body."""
    return _HIDDEN.search(search.body) is not None


def hit_shape(search: SearchRequest) -> Shape | None:
    """Return what shapes the request's hits, and for whom; None if that is not all that does."""
    if not search.members.keys() <= _KNOWN_MEMBERS or not search.target.names <= _KNOWN_PARAMETERS:
        return None
    if hides_words(search) or any(word in search.body for word in _TELLING_WORDS):
        return None
    return (tuple((name, search.members.get(name)) for name in _SHAPING_MEMBERS),
            tuple((name, search.target.get(name)) for name in _SHAPING_PARAMETERS),
            tuple(sorted((name.lower(), text) for name, text in search.headers
                         if name.lower() not in _HARMLESS_HEADERS)))
