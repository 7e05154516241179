"""The requests that one planned search turns into.

There is either one fetch of everything from the top through the window, or two fetches: first ids
and scores of the window from doc values alone, then the hits of the page, each written by
OpenSearch as if the client had asked. Fetching stored fields and sources costs most in a wide
window.

When are two cheaper? When the page leaves out at least ``LEAST_SAVED`` of the hits to be fetched,
and the second request is sure to give the same hits: see ``can_split``. Measured on 91,589 products
of 200 bytes, median milliseconds of one fetch and of two, by hits fetched and page: 20/10 1.2 and
2.0, 50/10 2.0 and 2.5, 100/10 3.1 and 2.8, 100/50 3.1 and 4.1, 1000/10 120 and 39. With sources of
1.5 kilobytes a hit saved is worth three times as much, so two win from some 20 hits on, and where
the page's hits are kept (``serving.hit_cache``) there is no second request: hence a bound between
20 and 80. Pure; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from sidecar.errors import UnreadableError
from sidecar.records import HttpRequest
from sidecar.search.controls import OWN_EXT
from sidecar.search.plans import SearchPlan, Window
from sidecar.search.requests import SearchRequest
from sidecar.search.shapes import hides_words

LEAST_SAVED = 30

# What shapes each hit, and nothing else: left out where only ids and scores are wanted.
_HIT_MEMBERS = frozenset({"_source", "stored_fields", "docvalue_fields", "fields", "script_fields",
                          "highlight", "explain", "version", "seq_no_primary_term"})
_HIT_PARAMETERS = frozenset({"_source", "_source_includes", "_source_excludes", "stored_fields",
                             "docvalue_fields", "explain", "version", "seq_no_primary_term"})
# What describes the whole answer: taken from the first request, so the second need not work it out.
_WHOLE_MEMBERS = frozenset({"aggs", "aggregations", "suggest", "terminate_after", "ext"})
_WHOLE_PARAMETERS = frozenset({"track_total_hits", "rest_total_hits_as_int", "terminate_after",
                               "suggest_field", "suggest_mode", "suggest_size", "suggest_text"})
_PAGE = ("from", "size")
# Where the second request could give other hits, or the first could not give ids.
_UNSPLITTABLE_MEMBERS = frozenset({"collapse", "rescore", "profile", "explain", "search_pipeline",
                                   "sort", "terminate_after"})
_UNSPLITTABLE_PARAMETERS = frozenset({"search_pipeline", "verbose_pipeline", "explain", "q",
                                      "sort", "terminate_after", "filter_path",
                                      "seq_no_primary_term"})
_SPLITTABLE_EXT = frozenset({"ubi", *OWN_EXT})
_UNSPLITTABLE_WORDS = (b'"inner_hits"', b'"hybrid"', b'"require_field_match"')


def can_split(plan: SearchPlan, item_id_field: str) -> bool:
    """Return True if ids first and the page after is possible and worth it."""
    search, window = _parts(plan)
    page = min(window.size, max(0, window.needed - window.first))
    if not item_id_field or window.needed - page < LEAST_SAVED:
        return False
    if not _UNSPLITTABLE_MEMBERS.isdisjoint(search.members):
        return False
    if not _UNSPLITTABLE_PARAMETERS.isdisjoint(search.target.names):
        return False
    if hides_ids(search) or not search.ext.keys() <= _SPLITTABLE_EXT or suggests_hits(search):
        return False
    if search.members.get("seq_no_primary_term", b"true") not in (b"true", b"false"):
        return False  # "true" is one of OpenSearch's words for it, and there are wrong ones
    return not (hides_words(search) or any(word in search.body for word in _UNSPLITTABLE_WORDS))


def hides_ids(search: SearchRequest) -> bool:
    """Return True if the client asked for hits without ``_id`` (``stored_fields: _none_``)."""
    stored = search.target.get("stored_fields")
    if not stored and "stored_fields" not in search.members:
        return False
    stored = stored or search.get("stored_fields")
    return stored in ("_none_", ["_none_"])


def suggests_hits(search: SearchRequest) -> bool:
    """Return True if suggestions are hits too: they then show what is asked of all hits."""
    suggest = search.get("suggest")
    return isinstance(suggest, dict) and any(
        isinstance(suggester, dict) and "completion" in suggester for suggester in suggest.values())


def names_field(search: SearchRequest, field: str) -> bool:
    """Return True if the client itself asked for what hits show under a field's name: the doc value
    or the field, by name or wildcard, or a script's result."""
    scripts = search.get("script_fields")
    return (_names_doc_value(search, field) or _is_among(search.get("fields"), field)
            or (isinstance(scripts, dict) and field in scripts))


def _names_doc_value(search: SearchRequest, field: str) -> bool:
    in_parameter = (search.target.get("docvalue_fields") or "").split(",")
    return _is_among(search.get("docvalue_fields"), field) or _is_among(in_parameter, field)


def _is_among(asked: Any, field: str) -> bool:
    """Return True if a list of fields, each a name or an object with one, has this field."""
    named = asked if isinstance(asked, list) else []
    names = [name.get("field") if isinstance(name, dict) else name for name in named]
    return any(isinstance(name, str) and fnmatchcase(field, name.strip()) for name in names)


def whole_fetch(plan: SearchPlan, item_id_field: str) -> HttpRequest:
    """Ask for every hit from the top through window and page, as the client wants hits.

    Raises:
        UnreadableError: suggestions would show ids that the client does not want.
    """
    search, window = _parts(plan)
    members = dict(search.members)
    if hides_ids(search) and item_id_field:
        if suggests_hits(search) and not names_field(search, item_id_field):
            raise UnreadableError("suggestions would show what is asked for in the place of ids")
        if not _names_doc_value(search, item_id_field):  # named twice, it comes twice
            asked = search.get("docvalue_fields")
            named = asked if isinstance(asked, list) else []
            members["docvalue_fields"] = msgspec.json.encode([*named, item_id_field])
    if search.kept_ext is not None:
        members["ext"] = search.kept_ext
    target = search.target.without(_PAGE)
    if plan.hit_filter is not None:
        target = target.with_parameter("filter_path", plan.hit_filter.text)
    return search.rewritten(target, _from_top(members, window.needed))


def id_fetch(plan: SearchPlan, item_id_field: str) -> HttpRequest:
    """Ask for ids, scores and versions of the same hits, and for everything around them."""
    search, window = _parts(plan)
    members = {name: raw for name, raw in search.members.items() if name not in _HIT_MEMBERS}
    members |= {"_source": b"false", "stored_fields": b'"_none_"',
                "docvalue_fields": msgspec.json.encode([item_id_field]),
                "seq_no_primary_term": b"true"}
    if search.kept_ext is not None:
        members["ext"] = search.kept_ext
    target = search.target.without((*_PAGE, *_HIT_PARAMETERS))
    return search.rewritten(target, _from_top(members, window.needed))


def page_fetch(plan: SearchPlan, ids: Sequence[str]) -> HttpRequest:
    """Ask for the hits with these ids, written as the client wants them, and for their versions.

    The client's query stays as it is, inside a ``bool`` whose filter adds nothing to a score: so
    each hit's score, matched queries and highlights are those of the client's query.
    """
    search, _ = _parts(plan)
    members = {name: raw for name, raw in search.members.items() if name not in _WHOLE_MEMBERS}
    query = members.get("query", b'{"match_all":{}}')
    members["query"] = (b'{"bool":{"must":[' + query + b'],"filter":[{"ids":{"values":'
                        + msgspec.json.encode(list(ids)) + b"}}]}}")
    members |= {"track_total_hits": b"false", "seq_no_primary_term": b"true"}
    target = search.target.without((*_PAGE, *_WHOLE_PARAMETERS))
    # One hit too many where an id stands in several indices: all are needed to tell them apart.
    return search.rewritten(target, _from_top(members, 2 * len(ids)))


def _from_top(members: Mapping[str, bytes], size: int) -> dict[str, bytes]:
    return {**members, "from": b"0", "size": b"%d" % size}


def _parts(plan: SearchPlan) -> tuple[SearchRequest, Window]:
    assert plan.search is not None
    assert plan.window is not None
    return plan.search, plan.window
