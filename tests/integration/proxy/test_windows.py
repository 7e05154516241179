"""Pages and windows: what is reordered, what is not, and that pages add up."""

from __future__ import annotations

import pytest

MILK = {"match": {"title": "milk"}}
EVERYTHING = {"match_all": {}}


@pytest.mark.parametrize("index", ["one", "many", "plain", "both"])
@pytest.mark.parametrize("query", [MILK, EVERYTHING], ids=["scored", "tied"])
@pytest.mark.parametrize(("window", "size"), [(100, 10), (35, 10), (10, 10), (7, 3), (100, 60)])
def test_pages_together_are_one_order_without_gap_or_repeat(
        proxy, expected_order, index, query, window, size):
    engine = proxy.engine(index, {"query": query, "size": 150}).ids
    shown = []
    for first in range(0, 150, size):
        page = proxy.search(index, {"query": query, "from": first, "size": min(size, 150 - first)},
                            X_Personalize_Window=str(window))
        assert page.status == 200, page.body
        assert page.outcome == ("applied" if first < window else "skipped; reason=beyond_window")
        shown += page.ids
    assert shown == expected_order(engine, window)


@pytest.mark.parametrize("index", ["one", "many", "plain"])
def test_hits_and_surroundings_keep_their_bytes(proxy, index):
    body = {"query": MILK, "size": 10, "aggs": {"brands": {"terms": {"field": "brand"}}},
            "suggest": {"s": {"text": "mlk", "term": {"field": "title"}}}}
    whole = proxy.engine(index, {**body, "size": 100})
    hits = dict(zip(whole.ids, raw_hits(whole.body), strict=True))
    page = proxy.search(index, body)
    assert page.outcome == "applied"
    assert raw_hits(page.body) == [hits[hit_id] for hit_id in page.ids]
    direct = proxy.engine(index, body)
    assert around(page.body) == around(direct.body)


def raw_hits(body: bytes) -> list[bytes]:
    """Split compact hits textually, without the code under test."""
    inside = body[body.index(b'"hits":[') + 8:]
    depth, start, found, quoted, at = 0, 0, [], False, 0
    while at < len(inside):
        char = inside[at:at + 1]
        if char == b"\\":
            at += 2
            continue
        if char == b'"':
            quoted = not quoted
        elif not quoted and char in b"{[":
            if depth == 0:
                start = at
            depth += 1
        elif not quoted and char in b"}]":
            depth -= 1
            if depth == 0:
                found.append(inside[start:at + 1])
            if depth < 0:
                break
        at += 1
    return found


def around(body: bytes) -> bytes:
    for hit in raw_hits(body):
        body = body.replace(hit, b"", 1)
    return body.replace(b",,", b",").partition(b'"timed_out"')[2]
