"""What the benchmark asks for: searches of a log with Zipf-distributed users, and their histories.

A few shoppers search most, and most shoppers seldom: user number r in order of activity is drawn
with weight 1/r. Each draw takes one of that user's own searches, so that queries stay true to who
asks them.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from scripts._bench_client import Connection, request
from sidecar.errors import FileError, UpstreamError
from sidecar.stores.file_formats import open_source

BATCH_EVENTS = 500
GENERATED_USERS = 500
GENERATED_HISTORY = 50


@dataclass(frozen=True, slots=True)
class Search:
    """One search of the log; ``user_id`` None: somebody unknown."""

    query: str
    user_id: str | None


@dataclass(slots=True)
class Log:
    """The searches, grouped by user with the most active first, and events that came before."""

    by_user: list[list[Search]]
    histories: list[dict[str, Any]] = field(default_factory=list)

    def draw(self, seed: int) -> Iterator[Search]:
        """Yield searches for ever, the same ones for the same seed."""
        chooser = random.Random(seed)
        weights = list(itertools.accumulate(1.0 / rank for rank in range(1, len(self.by_user) + 1)))
        while True:
            own = chooser.choices(self.by_user, cum_weights=weights)[0]
            yield chooser.choice(own)


def read(path: Path) -> Log:
    """Read a file of ``query``, ``user_id`` and, in a cases file, ``history``.

    Raises:
        FileError: absent, unreadable, or without a single search.
    """
    source = open_source(path, ("query",))
    searches: dict[str | None, list[Search]] = {}
    histories: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for _, raw in source.rows():
        row = source.parse(raw)
        if not row.get("query"):
            continue
        user = row.get("user_id")
        user_id = str(user) if user not in (None, "") else None
        searches.setdefault(user_id, []).append(Search(str(row["query"]), user_id))
        for item, event, ts in row.get("history") or ():
            known = {"user_id": user_id, "item_id": str(item), "event": event, "ts": ts}
            histories[str(user_id), str(item), str(event), str(ts)] = known
    if not searches:
        raise FileError(f"{path} holds no search; each row needs a query")
    return Log(sorted(searches.values(), key=len, reverse=True), list(histories.values()))


def generate(opensearch: str, index: str, count: int, seed: int) -> Log:
    """Make up ``count`` searches of two words of a product's title, by users with histories.

    Raises:
        UpstreamError: the index has no products.
    """
    chooser = random.Random(seed)
    products = _sample_products(opensearch, index, seed)
    searches: dict[str, list[Search]] = {}
    for _ in range(count):
        words = chooser.choice(products)[1].split()
        user = f"bench-{min(int(chooser.paretovariate(1.0)), GENERATED_USERS)}"
        query = " ".join(chooser.sample(words, min(2, len(words))))
        searches.setdefault(user, []).append(Search(query, user))
    histories = [{"user_id": user, "item_id": chooser.choice(products)[0], "event": "purchase",
                  "ts": datetime.fromtimestamp(1.7e9 + 3600 * n, UTC).isoformat()}
                 for user in searches for n in range(GENERATED_HISTORY)]
    return Log(sorted(searches.values(), key=len, reverse=True), histories)


def check_index(opensearch: str, index: str) -> None:
    """Raise UpstreamError where a node does not answer searches of an index."""
    connection = Connection(opensearch)
    answer = connection.ask(request(opensearch, "POST", f"/{index}/_search", b'{"size":0}'))
    connection.close()
    if answer.status != 200:
        raise UpstreamError(f"{opensearch} answers {answer.status} to a search of {index!r}; load "
                            "a catalogue first (python -m scripts.load_catalog)")


def send_histories(sidecar: str, log: Log, progress: Any) -> int:
    """Send the log's histories to the sidecar; those it has already are taken as duplicates.

    Returns the number taken.

    Raises:
        UpstreamError: the sidecar did not take a batch.
    """
    connection = Connection(sidecar)
    taken = 0
    events = sorted(log.histories, key=lambda event: str(event["user_id"]))
    for start in progress(range(0, len(events), BATCH_EVENTS)):
        body = msgspec.json.encode(events[start:start + BATCH_EVENTS])
        answer = connection.ask(request(sidecar, "POST", "/_personalize/events", body))
        if answer.status != 200:
            raise UpstreamError(f"sidecar answered {answer.status} to a batch of histories: "
                                f"{answer.body[:300].decode(errors='replace')}")
        taken += json.loads(answer.body)["taken"]
    connection.close()
    return taken


def hits_of(opensearch: str, index: str, queries: Sequence[str], fields: Sequence[str],
            window: int) -> dict[str, bytes]:
    """Return query → hits as ``/_personalize/rescore`` takes them."""
    connection = Connection(opensearch)
    found = {}
    for query in queries:
        body = search_body(query, fields, window, source=False)
        answer = connection.ask(request(opensearch, "POST", f"/{index}/_search", body))
        hits = json.loads(answer.body)["hits"]["hits"]
        found[query] = msgspec.json.encode([{"id": hit["_id"], "score": hit["_score"]}
                                            for hit in hits])
    connection.close()
    return found


def search_body(query: str, fields: Sequence[str], size: int, *, source: bool = True) -> bytes:
    """Return the body of a shop search."""
    body: dict[str, Any] = {"query": {"multi_match": {"query": query, "fields": list(fields)}},
                            "size": size}
    return msgspec.json.encode(body if source else body | {"_source": False})


def _sample_products(opensearch: str, index: str, seed: int) -> list[tuple[str, str]]:
    connection = Connection(opensearch)
    body = msgspec.json.encode({
        "size": 2000, "_source": ["title"],
        "query": {"function_score": {"random_score": {"seed": seed, "field": "_seq_no"}}}})
    answer = connection.ask(request(opensearch, "POST", f"/{index}/_search", body))
    connection.close()
    hits = json.loads(answer.body).get("hits", {}).get("hits", [])
    products = [(hit["_id"], hit["_source"]["title"]) for hit in hits
                if hit["_source"].get("title", "").split()]
    if not products:
        raise UpstreamError(f"index {index!r} at {opensearch} holds no titled product; load a "
                            "catalogue first (python -m scripts.load_catalog)")
    return products
