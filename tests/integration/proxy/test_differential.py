"""Hundreds of requests, each to OpenSearch and through the sidecar: nobody can tell them apart.

The requests are data (``requests/*.ndjson``; ``{i}`` stands for the index). Switched off: equal
bytes but for ``took`` and the sidecar's own headers. Switched on, for a user whose order is as
good as random: the same hits in the window's order, everything around them equal to the digit.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

FILES = sorted((Path(__file__).parent / "requests").glob("*.ndjson"))
WINDOW = 100
OWN_HEADERS = {"x-personalize-status", "x-personalize-state", "server-timing"}
OF_A_CONNECTION = {"connection", "date", "server", "transfer-encoding", "content-length"}
# Times, and traces of threads that differ from call to call: JSON, YAML, CBOR and SMILE.
VOLATILE = re.compile(
    rb'("?(?:took|query|fetch|expand|can_match|dfs_pre_query|time_in_nanos)"?\s*:\s*)\d+'
    rb"|(dtook|\x83took)(?:\x18.|.)"
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


def send(proxy: Any, url: str, request: Request, **more: str) -> Any:
    ask = proxy.direct if url == proxy.node else proxy.through
    headers = request.headers | {name.replace("_", "-"): text for name, text in more.items()}
    return ask(request.method, request.target, request.body, **headers)


def steady(body: bytes) -> bytes:
    return VOLATILE.sub(rb"\g<1>\g<2>\g<3>0", body)


def told(answer: Any) -> list[tuple[str, str]]:
    return sorted((name.lower(), text) for name, text in answer.headers.items()
                  if name.lower() not in OWN_HEADERS | OF_A_CONNECTION)


def exact(body: bytes) -> Any:
    """Parse JSON and keep digits, key order and repeats."""
    return json.loads(body, parse_float=str, parse_int=str,
                      object_pairs_hook=lambda pairs: [("", ""), *pairs])


def split(answer: Any) -> tuple[list[str], Any]:
    """Return an exact answer's hits and what surrounds them."""
    around, hits = [], []
    for name, value in answer:
        if name == "hits" and isinstance(value, list):
            inner = [(key, None if key == "hits" else kept) for key, kept in value]
            hits = next((kept for key, kept in value if key == "hits"), [])
            around.append((name, inner))
        else:
            around.append((name, value))
    return [repr(hit) for hit in hits], around


@pytest.mark.parametrize("index", ["one", "many"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_switched_off_every_answer_is_equal(proxy, path, index):
    different = []
    for request in requests_of(path, proxy.prefix + index):
        direct = send(proxy, proxy.node, request)
        through = send(proxy, proxy.url, request, X_Personalize="off")
        if (direct.status, told(direct), steady(direct.body)) != (
                through.status, told(through), steady(through.body)):
            different.append((str(request), direct.status, through.status,
                              set(told(direct)) ^ set(told(through)),
                              direct.body[:300], through.body[:300]))
    assert not different, "\n".join(map(str, different))


@pytest.mark.parametrize("index", ["one", "many", "plain", "both"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_switched_on_answers_differ_by_the_order_of_hits_alone(proxy, path, index):
    different, applied = [], 0
    for request in requests_of(path, proxy.prefix + index):
        direct = send(proxy, proxy.node, request)
        through = send(proxy, proxy.url, request, X_Personalize_User="u1")
        wrong = compared(proxy, request, direct, through)
        applied += through.outcome == "applied"
        if wrong:
            different.append((wrong, str(request), through.outcome, direct.body[:400],
                              through.body[:400]))
    assert not different, "\n".join(map(str, different))
    assert applied > 0


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
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    first = int(float(parameters.pop("from", request.parsed.get("from", 0))))
    size = int(float(parameters.pop("size", request.parsed.get("size") or 10)))
    body = {**request.parsed, "from": 0, "size": max(WINDOW, first + size)}
    wide = proxy.direct("POST", f"{path}?{urlencode(parameters, safe='*,:')}", body)
    hits = Counter(split(exact(steady(wide.body)))[0])
    mine = Counter(split(mine)[0])
    return "" if not mine - hits else f"{len(list((mine - hits).elements()))} hits from elsewhere"
