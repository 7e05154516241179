"""What the benchmark asks for: searches of a log with Zipf-distributed users, and their histories.

A few shoppers search often, and most search seldom: the user of rank r in activity is drawn with
weight 1/r. Each draw takes one of that user's own searches, so that queries fit their users.
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

from scripts._bench_client import RawConnection, request
from sidecar.errors import FileError, UpstreamError
from sidecar.stores.file_formats import BROKEN, Row, Source, open_source
from sidecar.stores.file_values import as_id, optional_id

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

    Entries of a history without an item are left out; a history without a user is ignored.

    Raises:
        FileError: absent, unreadable, with a row that cannot be read, or without a single search.
    """
    source = open_source(path, ("query",))
    searches: dict[str | None, list[Search]] = {}
    histories: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for search, history in _rows(path, source):
        searches.setdefault(search.user_id, []).append(search)
        for known in history:
            histories[search.user_id or "", known["item_id"], known["event"],
                      str(known["ts"])] = known
    if not searches:
        raise FileError(f"{path} holds no search; each row needs a query")
    return Log(sorted(searches.values(), key=len, reverse=True), list(histories.values()))


def _rows(path: Path, source: Source) -> Iterator[tuple[Search, list[dict[str, Any]]]]:
    """Yield each row's search and the events before it; raises FileError."""
    line = 0
    try:
        for line, raw in source.rows():
            try:
                row = source.parse(raw)
                found = _search(row), _events_before(row)
            except ValueError as error:
                raise FileError(f"{path}:{line}: {error}") from error
            if found[0].query:
                yield found
    except BROKEN as error:
        raise FileError(f"{path} breaks off after line {line}: {error}") from error


def _search(row: Row) -> Search:
    return Search(str(row.get("query") or ""), optional_id(row.get("user_id"), "user_id"))


def _events_before(row: Row) -> list[dict[str, Any]]:
    user_id, entries = optional_id(row.get("user_id"), "user_id"), row.get("history") or ()
    if not isinstance(entries, list | tuple):
        raise ValueError(f"history is {entries!r}, must be a list")
    found = []
    for entry in entries:
        if not isinstance(entry, list | tuple) or len(entry) != 3:
            raise ValueError(f"history holds {entry!r}, must hold [item_id, event, ts]")
        item_id = optional_id(entry[0], "history's item_id")
        event = as_id(entry[1], "history's event")
        if item_id is not None and user_id is not None:
            found.append({"user_id": user_id, "item_id": item_id, "event": event, "ts": entry[2]})
    return found


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
    connection = RawConnection(opensearch)
    answer = connection.ask(request(opensearch, "POST", f"/{index}/_search", b'{"size":0}'))
    connection.close()
    if answer.status != 200:
        remedy = ("load a catalogue first (python -m scripts.load_catalog)"
                  if answer.status == 404 else answer.body[:300].decode(errors="replace").strip())
        if answer.status in (401, 403):
            remedy = "the benchmark sends no credentials; name a node that asks for none"
        raise UpstreamError(f"{opensearch} answers {answer.status} to a search of {index!r}; "
                            f"{remedy}")


def send_histories(sidecar: str, log: Log, progress: Any) -> int:
    """Send the log's histories to the sidecar; those it has already are taken as duplicates.

    Returns the number taken.

    Raises:
        UpstreamError: the sidecar did not take a batch.
    """
    connection = RawConnection(sidecar)
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
    connection = RawConnection(opensearch)
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
    connection = RawConnection(opensearch)
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
