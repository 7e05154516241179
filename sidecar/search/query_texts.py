"""What a shopper typed, as far as a search says it. Pure; no I/O.

``ext.ubi.user_query`` says it outright. Otherwise the words are those of the query's full-text
clauses; exact filters (term, range, ids) come from the shop, not from the shopper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_FIELD_CLAUSES = frozenset({
    "match", "match_phrase", "match_phrase_prefix", "match_bool_prefix", "common", "prefix",
    "wildcard", "fuzzy", "match_only_text", "neural"})
_TEXT_CLAUSES = frozenset({"multi_match", "query_string", "simple_query_string", "combined_fields"})
_NOT_ASKED_FOR = frozenset({"must_not", "filter", "negative"})
_HANDLED = _FIELD_CLAUSES | _TEXT_CLAUSES | _NOT_ASKED_FOR
_TEXT_KEYS = ("query", "value", "wildcard", "query_text")
# Keys of a text that stands in a clause itself, beside options, as an intervals rule has it.
_RULE_KEYS = ("query", "prefix", "pattern", "term")
LONGEST_TEXT = 1000


def query_text(query: Any, ext: Mapping[str, Any], q: str | None = None) -> str | None:
    """Return the shopper's words; None if the search names none.

    Args:
        query: the body's query, decoded; None if there is none.
        ext: the body's ext object, decoded.
        q: the ``q`` parameter, which OpenSearch puts over the body's query.
    """
    ubi = ext.get("ubi")
    said = ubi.get("user_query") if isinstance(ubi, Mapping) else None
    if isinstance(said, str) and said.strip():
        return said.strip()[:LONGEST_TEXT]
    if q and q.strip():
        return q.strip()[:LONGEST_TEXT]
    words = dict.fromkeys(text.strip() for text in _texts(query) if text.strip())
    return " ".join(words)[:LONGEST_TEXT] or None


def _texts(query: Any) -> Iterator[str]:
    """Yield each clause's text in the order of the query; a stack, so that no depth is too deep."""
    waiting = [query]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(inner for inner in reversed(node) if isinstance(inner, dict | list))
        elif isinstance(node, dict):
            yield from _own_texts(node)
            waiting.extend(inner for name, inner in reversed(node.items())
                           if isinstance(inner, dict | list) and name not in _HANDLED)


def _own_texts(node: dict[str, Any]) -> Iterator[str]:
    for name, inner in node.items():
        if not isinstance(inner, dict):
            continue
        if name in _FIELD_CLAUSES:
            yield from _field_texts(inner)
        elif name in _TEXT_CLAUSES:
            yield from _strings(inner.get("query"))


def _field_texts(clause: dict[str, Any]) -> Iterator[str]:
    of_rule = [clause[key] for key in _RULE_KEYS if isinstance(clause.get(key), str)]
    if of_rule:
        yield from of_rule
        return
    for asked in clause.values():
        if isinstance(asked, dict):
            for key in _TEXT_KEYS:
                yield from _strings(asked.get(key))
        else:
            yield from _strings(asked)


def _strings(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
