"""The ways in which the benchmark asks for one search, from the bare engine to everything on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from scripts._bench_client import request
from scripts._bench_searches import Log, Search, hits_of, search_body

PAGE = 10
BASE = "bare"  # what every other arm is compared with
MEANINGS = {
    BASE: "OpenSearch itself, page of 10",
    "bare-window": "OpenSearch itself, as many hits as the window",
    "off": "through the sidecar, switched off",
    "anonymous": "through the sidecar, without a user",
    "personal": "through the sidecar, personalised",
    "explain": "through the sidecar, personalised and explained",
    "plugin": "OpenSearch itself, personalised by its search pipeline (--pipeline)",
    "rescore": "POST /_personalize/rescore with the window's ids",
}
PLUGIN = "plugin"
EVENT = "event"  # the kind of a click among an arm's searches
DIRECT = frozenset({BASE, "bare-window", PLUGIN})  # asked of OpenSearch


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """Where to ask and how."""

    sidecar: str
    opensearch: str
    index: str
    fields: Sequence[str]
    window: int
    pipeline: str | None = None

    def url(self, arm: str) -> str:
        """Return the server that an arm asks."""
        return self.opensearch if arm in DIRECT else self.sidecar


class Arms:
    """Builds each arm's request for a search."""

    def __init__(self, target: BenchTarget, arms: Sequence[str]) -> None:
        self.target = target
        self.arms = tuple(arms)
        self._path = f"/{target.index}/_search"
        self._hits: Mapping[str, bytes] = {}

    def prepare(self, searches: Sequence[Search]) -> None:
        """Fetch what the rescore arm sends, before anything is timed."""
        if "rescore" in self.arms:
            queries = sorted({search.query for search in searches})
            self._hits = hits_of(self.target.opensearch, self.target.index, queries,
                                 self.target.fields, self.target.window)

    def row(self, search: Search) -> dict[str, bytes]:
        """Return arm → request."""
        return {arm: self.request(arm, search) for arm in self.arms}

    def request(self, arm: str, search: Search) -> bytes:
        """Return one arm's request for a search."""
        url = self.target.url(arm)
        if arm == "rescore":
            return request(url, "POST", "/_personalize/rescore", self._rescore_body(search))
        size = self.target.window if arm == "bare-window" else PAGE
        body = search_body(search.query, self.target.fields, size)
        path = self._path
        if arm == PLUGIN:
            path += f"?search_pipeline={quote(self.target.pipeline or '')}"
            if search.user_id is not None:
                body = body[:-1] + b',"ext":{"personalize":' + msgspec.json.encode({
                    "user_id": search.user_id, "window_size": self.target.window}) + b"}}"
        return request(url, "POST", path, body, self._headers(arm, search))

    def _headers(self, arm: str, search: Search) -> tuple[tuple[str, str], ...]:
        if arm in DIRECT:
            return ()
        if arm == "off":
            return (("x-personalize", "off"),)
        if arm == "anonymous" or search.user_id is None:
            return ()
        explain = (("x-personalize-explain", "true"),) if arm == "explain" else ()
        return (("x-personalize-user", search.user_id),
                ("x-personalize-window", str(self.target.window)), *explain)

    def _rescore_body(self, search: Search) -> bytes:
        head = msgspec.json.encode({"user_id": search.user_id, "query": search.query})
        return head[:-1] + b',"hits":' + self._hits[search.query] + b"}"


def take(log: Log, count: int, seed: int) -> list[Search]:
    """Return the first ``count`` searches of a draw."""
    return list(itertools.islice(log.draw(seed), count))


def mixture(arms: Arms, log: Log, seed: int, *, arm: str,
            event_every: int = 0) -> Callable[[], tuple[str, bytes]]:
    """Return a source of an arm's requests, with a click after every ``event_every`` of them.

    The click is of the shopper known last; a log of strangers alone has no clicks.
    """
    source = _mixed(arms, log, seed, arm, event_every)
    return lambda: next(source)


def requests_per_search(log: Log, event_every: int) -> float:
    """Return how many requests of a ``mixture`` come to one search, the clicks among them."""
    is_anybody_known = any(own[0].user_id is not None for own in log.by_user)
    return 1.0 + 1.0 / event_every if event_every and is_anybody_known else 1.0


def click(sidecar: str, user_id: str, item_id: str) -> bytes:
    """Return the request that posts one click."""
    event = {"user_id": user_id, "item_id": item_id, "event": "click"}
    return request(sidecar, "POST", "/_personalize/events", msgspec.json.encode(event))


def _mixed(arms: Arms, log: Log, seed: int, arm: str,
           event_every: int) -> Iterator[tuple[str, bytes]]:
    items = itertools.cycle([event["item_id"] for event in log.histories] or ["unknown"])
    known: str | None = None
    for number, search in enumerate(log.draw(seed), 1):
        yield arm, arms.request(arm, search)
        known = search.user_id or known
        if event_every and known is not None and number % event_every == 0:
            yield EVENT, click(arms.target.sidecar, known, next(items))
