"""Hundreds of requests, each to OpenSearch and through the sidecar: nobody can tell them apart.

The requests are data (``requests/*.ndjson``; ``{i}`` stands for the index). Switched off: equal
bytes but for ``took`` and the sidecar's own headers. Switched on, for a user whose order is as
good as random: the same hits in the window's order, everything around them equal to the digit.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FILES = sorted((Path(__file__).parent / "requests").glob("*.ndjson"))
WINDOW = 100
OWN_HEADERS = {"x-personalize-status", "x-personalize-state", "server-timing"}
OF_A_CONNECTION = {"connection", "date", "server", "transfer-encoding", "content-length"}
# Times, and traces of threads that differ from call to call: JSON, YAML, CBOR and SMILE.
VOLATILE = re.compile(
    rb'("?(?:took|query|fetch|expand|can_match|dfs_pre_query|time_in_nanos)"?\s*:\s*)\d+'
    rb"|(dtook)(?:\x18.|\x19..|.)|(\x83took)(?:\$[\x00-\x7f]*[\x80-\xff]|[\xc0-\xdf])"
    rb'|("stack_trace"\s*:\s*)"(?:[^"\\]|\\.)*"', re.DOTALL)


@dataclass(frozen=True)
class Request:
    """One line of the data, for one index."""

    method: str
    target: str
    body: bytes | None
    headers: dict[str, str]
    parsed: Any

    def __str__(self) -> str:
        return f"{self.method} {self.target} {(self.body or b'')[:300].decode(errors='replace')}"


def requests_of(path: Path, index: str) -> list[Request]:
    return [read(line.replace("{i}", index)) for line in path.read_text().splitlines()]


def read(line: str) -> Request:
    row = json.loads(line)
    body = row.get("body")
    text = row["text"].encode() if "text" in row else (
        None if body is None else json.dumps(body).encode())
    headers = {"Content-Type": "application/json"} if text is not None else {}
    return Request(row["method"], row["target"], text, headers | row.get("headers", {}), body)


# Copies on several nodes take turns, and an error lists the shards that failed before the search
# was given up, which is a race: the node's own answers differ then, and another pair is looked at.
ATTEMPTS = 6


def send(proxy: Any, url: str, request: Request, **more: str) -> Any:
    ask = proxy.direct if url == proxy.node else proxy.through
    headers = request.headers | {name.replace("_", "-"): text for name, text in more.items()}
    return ask(request.method, request.target, request.body, **headers)


def steady(body: bytes) -> bytes:
    return VOLATILE.sub(rb"\g<1>\g<2>\g<3>\g<4>0", body)


def told(answer: Any) -> list[tuple[str, str]]:
    return sorted((name.lower(), text) for name, text in answer.headers.items()
                  if name.lower() not in OWN_HEADERS | OF_A_CONNECTION)


def exact(body: bytes) -> Any:
    """Parse JSON and keep digits, key order and repeats."""
    return json.loads(body, parse_float=str, parse_int=str,
                      object_pairs_hook=lambda pairs: [("", ""), *pairs])


def split(answer: Any) -> tuple[list[Any], Any]:
    """Return an exact answer's hits and what surrounds them."""
    around, hits = [], []
    for name, value in answer:
        if name == "hits" and isinstance(value, list):
            inner = [(key, None if key == "hits" else kept) for key, kept in value]
            hits = next((kept for key, kept in value if key == "hits"), [])
            around.append((name, inner))
        else:
            around.append((name, value))
    return hits, around


@pytest.mark.parametrize("index", ["one", "many"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_switched_off_every_answer_is_equal(proxy, path, index):
    different = differences_when_off(proxy, path, index)
    assert not different, "\n".join(map(str, different))


def differences_when_off(proxy: Any, path: Path, index: str) -> list[Any]:
    different = []
    for request in requests_of(path, proxy.prefix + index):
        direct = send(proxy, proxy.node, request)
        through = send(proxy, proxy.url, request, X_Personalize="off")
        if (direct.status, told(direct), steady(direct.body)) != (
                through.status, told(through), steady(through.body)):
            different.append((str(request), direct.status, through.status,
                              set(told(direct)) ^ set(told(through)),
                              direct.body[:300], through.body[:300]))
    return different


@pytest.mark.parametrize("index", ["one", "many", "plain", "both"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_switched_on_answers_differ_by_the_order_of_hits_alone(proxy, path, index):
    different = differences_when_on(proxy, path, index)
    assert not different, "\n".join(map(str, different))


@pytest.mark.timeout(900)  # two nodes have to start first
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_two_nodes_with_replicas_make_no_difference(cluster_proxy, path):
    """One preference for both sides: the copies of a shard differ in ties and in node names."""
    different = differences_when_on(cluster_proxy, path, "many", preference="same")
    assert not different, "\n".join(map(str, different))


@pytest.mark.timeout(900)
def test_users_pages_add_up_though_replicas_break_ties_differently(cluster_proxy):
    shown = []
    for first in range(0, 160, 10):
        body = {"query": {"match_all": {}}, "from": first, "size": 10}
        shown += cluster_proxy.search("many", body, X_Personalize_Window="40").ids
    assert len(shown) == len(set(shown)) == 160


def differences_when_on(proxy: Any, path: Path, index: str, preference: str = "") -> list[Any]:
    different, applied = [], 0
    for request in requests_of(path, proxy.prefix + index):
        if preference and "_search_shards" in request.target:
            continue  # lists the copies of a shard in turn
        if preference:
            request = preferring(request, preference)
        for _ in range(ATTEMPTS):
            through = send(proxy, proxy.url, request, X_Personalize_User="u1")
            direct = send(proxy, proxy.node, request)
            wrong = compared(proxy, request, direct, through)
            if not wrong or (preference and is_same_kind(direct, through)):
                wrong = ""
                break
        applied += through.outcome == "applied"
        if wrong:
            different.append((wrong, str(request), through.outcome, direct.body[:400],
                              through.body[:400]))
    assert applied > 0
    return different


def preferring(request: Request, preference: str) -> Request:
    path, _, query = request.target.partition("?")
    if not path.endswith(("/_search", "/_search/template", "/_msearch", "/_msearch/template")):
        return request
    if "_msearch" in path:
        lines = (request.body or b"").split(b"\n")
        lines[:-1:2] = [header_preferring(line, preference) for line in lines[:-1:2]]
        return replace(request, body=b"\n".join(lines))
    return replace(request, target=f"{path}?preference={preference}&{query}")


def header_preferring(line: bytes, preference: str) -> bytes:
    """Put the preference into a search's header, an empty one too; leave what is no object."""
    if (line and not line.startswith(b"{")) or b'"preference"' in line:
        return line
    rest = line.removeprefix(b"{").lstrip() or b"}"
    comma = b"" if rest.startswith(b"}") else b","
    return b'{"preference":"%s"%s%s' % (preference.encode(), comma, rest)


def compared(proxy: Any, request: Request, direct: Any, through: Any) -> str:
    """Return what tells the two apart; empty if nothing does."""
    if direct.status != through.status:
        return f"status {direct.status} and {through.status}"
    if told(direct) != told(through):
        return f"headers {set(told(direct)) ^ set(told(through))}"
    if through.outcome != "applied":
        return "" if steady(direct.body) == steady(through.body) else "bytes, though skipped"
    mine, theirs = exact(steady(through.body)), exact(steady(direct.body))
    if "_msearch" in request.target:
        pairs = list(zip(dict(mine)["responses"], dict(theirs)["responses"], strict=True))
        return "; ".join(filter(None, (around_differs(*pair) for pair in pairs)))
    return around_differs(mine, theirs) or not_of_the_window(proxy, request, mine, theirs)


def is_same_kind(direct: Any, through: Any) -> bool:
    """Return True for errors of one type, whose details tell which node met them first, for
    allowed methods, which each node lists in an order of its own, and for SMILE, whose back
    references depend on where a hit came from.
    """
    if through.outcome == "applied" or direct.status != through.status:
        return False
    if "allow" in dict(told(direct)):
        methods = [sorted(dict(told(answer)).get("allow", "").split(","))
                   for answer in (direct, through)]
        return methods[0] == methods[1]
    if direct.body.startswith(b":)"):
        return bool(through.body.startswith(b":)"))
    if direct.status < 400 or not (direct.body and through.body):
        return False
    errors = [answer.json["error"] for answer in (direct, through)]
    return all(isinstance(error, dict) for error in errors) and (
        errors[0]["type"] == errors[1]["type"])


def around_differs(mine: Any, theirs: Any) -> str:
    (my_hits, my_around), (their_hits, their_around) = split(mine), split(theirs)
    if my_around != their_around:
        return "what surrounds the hits"
    return "" if len(my_hits) == len(their_hits) else f"{len(their_hits)}, {len(my_hits)} hits"


def not_of_the_window(proxy: Any, request: Request, mine: Any, theirs: Any) -> str:
    """Compare with the hits from the top through window and page, fetched directly."""
    if not isinstance(request.parsed, dict) or "template" in request.target:
        return ""
    path, _, query = request.target.partition("?")
    parameters = dict(parse_qsl(query.replace(";", "&"), keep_blank_values=True))
    first = int(float(parameters.pop("from", request.parsed.get("from", 0))))
    size = int(float(parameters.pop("size", request.parsed.get("size") or 10)))
    body = {**request.parsed, "from": 0, "size": max(WINDOW, first + size)}
    wide = proxy.direct("POST", f"{path}?{urlencode(parameters, safe='*,:')}", body)
    if wide.status != 200:
        return ""  # a script that fails over some hit of the window, none of those shown
    there = Counter(map(unordered, split(exact(steady(wide.body)))[0]))
    extra = Counter(map(unordered, split(mine)[0])) - there
    return f"{extra.total()} hits from elsewhere" if extra else ""


def unordered(hit: Any) -> str:
    """Write a hit without regard to order: between nodes, OpenSearch keeps none in some parts."""
    if isinstance(hit, tuple):
        return f"{hit[0]}:{unordered(hit[1])}"
    return str(sorted(map(unordered, hit))) if isinstance(hit, list) else repr(hit)


QUERIES = st.sampled_from([
    {"match": {"title": "milk"}}, {"match_all": {}}, {"match": {"title": "white wine"}},
    {"bool": {"must": [{"match": {"title": "milk"}}], "filter": [{"range": {"price": {"gt": 9}}}]}},
    {"bool": {"should": [{"match": {"title": "bread"}}, {"term": {"brand": "b1é/"}}]}},
    {"constant_score": {"filter": {"exists": {"field": "price"}}}},
    {"function_score": {"query": {"match": {"title": "milk"}},
                        "field_value_factor": {"field": "price", "factor": 0.1}}}])
BODIES = st.fixed_dictionaries({"query": QUERIES}, optional={
    "from": st.integers(0, 170), "size": st.integers(0, 170),
    "sort": st.sampled_from(["_score", ["_score", {"price": "asc"}], ["price"],
                             [{"_score": "asc"}]]),
    "collapse": st.just({"field": "brand"}),
    "_source": st.sampled_from([False, ["title"], "p*", {"excludes": ["reviews"]}]),
    "stored_fields": st.sampled_from(["_none_", ["title"]]),
    "fields": st.sampled_from([["price"], ["*"]]), "docvalue_fields": st.just(["price", "brand"]),
    "highlight": st.just({"fields": {"title": {}}}), "explain": st.booleans(),
    "version": st.booleans(), "seq_no_primary_term": st.booleans(),
    "aggs": st.just({"b": {"terms": {"field": "brand"}}}),
    "post_filter": st.just({"range": {"price": {"lt": 120}}}), "min_score": st.floats(0, 1),
    "track_total_hits": st.booleans() | st.integers(1, 300), "profile": st.just(False),
    "rescore": st.just({"window_size": 25, "query": {
        "rescore_query": {"match": {"title": "red"}}}}),
    "script_fields": st.just({"x": {"script": "doc['price'].value"}})})
PARAMETERS = st.dictionaries(st.sampled_from([
    ("typed_keys", "true"), ("rest_total_hits_as_int", "true"), ("pretty", ""), ("from", "3"),
    ("size", "12"), ("_source", "title"), ("search_type", "dfs_query_then_fetch"),
    ("filter_path", "hits.hits._source.title,took"), ("filter_path", "hits,-hits.hits._score"),
    ("preference", "x"), ("phase_took", "true"), ("track_scores", "true"), ("q", "title:milk")]),
    st.none(), max_size=3).map(lambda chosen: urlencode(dict(chosen), safe="*,:"))


@settings(max_examples=250, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=BODIES, parameters=PARAMETERS, index=st.sampled_from(["one", "many", "plain"]))
def test_any_combination_differs_by_the_order_of_hits_alone(proxy, body, parameters, index):
    target = f"/{proxy.prefix}{index}/_search?{parameters}"
    request = Request("POST", target, json.dumps(body).encode(),
                      {"Content-Type": "application/json"}, body)
    direct = send(proxy, proxy.node, request)
    off = send(proxy, proxy.url, request, X_Personalize="off")
    assert (off.status, steady(off.body)) == (direct.status, steady(direct.body))
    through = send(proxy, proxy.url, request, X_Personalize_User="u1")
    assert compared(proxy, request, direct, through) == "", through.body[:500]
