"""Puts together one search of one shopper, from files or running servers: for explain and whatif.

The window comes from an OpenSearch, or from BM25 in this process. The history comes from an events
file, or from a sidecar that keeps it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from scripts._arguments import instant, number, server_url, server_urls, whole
from scripts._inputs import counted, ranker_over, when
from sidecar.errors import FileError, UpstreamError
from sidecar.ranking.ranker import Ranker
from sidecar.records import Candidates, Event, History, QueryContext
from sidecar.search.controls import SECRET_HEADER
from sidecar.serving.counterfactual import Replay, history_of
from sidecar.serving.popularity import PopularityRefresh
from sidecar.settings import Settings
from sidecar.stores.administration import administration_client
from sidecar.stores.event_changes import ItemEvent
from sidecar.stores.file_values import seconds
from sidecar.stores.files import read_catalogue, read_events
from sidecar.training.retrieval import Retrieval

MOST_KEPT = 10_000  # events of a user that a sidecar can be set to keep
FIELDS = ("title", "brand", "categories")
# A sidecar is near, and what is sent to it may hold a secret: the environment's proxies get none.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Asked:
    """A search that can be asked again, the shopper's own history, and the items' titles."""

    replay: Replay
    ranker: Ranker
    history: History
    titles: dict[str, str]
    now: float


def add_arguments(parser: argparse.ArgumentParser, *, is_model_needed: bool) -> None:
    """Add the arguments that both programs take."""
    parser.add_argument("--model", type=Path, required=is_model_needed, metavar="DIR")
    parser.add_argument("--catalogue", type=Path, required=is_model_needed, metavar="FILE")
    parser.add_argument("--events", type=Path, metavar="FILE")
    parser.add_argument("--user", required=True, metavar="ID")
    parser.add_argument("--query", required=True, metavar="TEXT")
    parser.add_argument("--at", type=instant, metavar="TS",
                        help="moment of the search, ISO 8601; later events are not read "
                             "(default: after the file's latest event; of a sidecar's "
                             "history: now)")
    parser.add_argument("--window", type=whole(1, 10_000), default=100, metavar="K",
                        help="hits that are reordered (default: 100)")
    parser.add_argument("--weight", type=number(0.0, 1.0), default=1.0, help="strength, 0 to 1")
    parser.add_argument("--opensearch", type=server_urls, metavar="URL",
                        help="gives the engine's order (default: BM25 in this process); "
                             "credentials come from SIDECAR_OPENSEARCH_*")
    parser.add_argument("--index", default="products", metavar="ALIAS")
    parser.add_argument("--body", type=Path, metavar="FILE",
                        help="JSON search body for OpenSearch (default: a multi_match of the "
                             f"query over {', '.join(FIELDS)})")
    parser.add_argument("--sidecar", type=server_url, metavar="URL", help="a running sidecar")
    parser.add_argument("--top", type=whole(1, 10_000), metavar="N",
                        help="hits that are printed (default: the window)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"),
                        help="where the model runs (default: cpu)")


def ask(options: argparse.Namespace) -> Asked:
    """Load the model and put the search together.

    Raises:
        FileError, ModelError: a file or model that does not fit.
        UpstreamError: the sidecar does not answer.
        OpenSearchException: OpenSearch does not.
    """
    rows = list(counted(read_catalogue(options.catalogue), "catalogue"))
    ranker = ranker_over(options.model, options.device or "cpu", options.catalogue, rows)
    history, now = _history(options, ranker)
    candidates = _candidates(options, rows)
    context = QueryContext(options.user, options.query, now, weight=options.weight, explain=True)
    titles = {row["item_id"]: row["title"] for row in rows}
    return Asked(Replay(ranker, candidates, context), ranker, history, titles, now)


def _history(options: argparse.Namespace, ranker: Ranker) -> tuple[History, float]:
    """Return the shopper's history and the moment of the search; count for the ranker the
    file's events between its training and that moment, as a sidecar does. A sidecar's history is
    returned whole, so that its events have the same numbers everywhere."""
    if options.events is None:
        events, limit = events_of(user_document(options.sidecar, options.user)), MOST_KEPT
        now = options.at if options.at is not None else time.time()
    else:
        limit = ranker.config.kept
        events, since, last = _told_events(options, ranker.knowledge.statistics.clock)
        now = options.at if options.at is not None else last + 1.0
        late = [event for event in since if event.ts < now]
        PopularityRefresh(lambda _: _Told(late), lambda: ranker).refresh()
    before = [event for event in events if (event.ts or 0.0) < now]
    return history_of(options.user, before, limit), now


@dataclass(frozen=True, slots=True)
class _Told:
    """Events that a file holds, for ``PopularityRefresh``."""

    events: list[ItemEvent]

    def poll(self) -> list[list[ItemEvent]]:
        return [self.events]


def _told_events(options: argparse.Namespace,
                 learnt: float) -> tuple[list[Event], list[ItemEvent], float]:
    """Return the user's events, all events on items from the instant ``learnt`` on, and the instant
    of the latest, wherever it stands; without times, the place in the file counts."""
    own: list[Event] = []
    late: list[ItemEvent] = []
    clock = last = 0.0
    for event in counted(read_events(options.events), "events"):
        clock = clock + 1.0 if event.ts is None else event.ts
        last = max(last, clock)
        if event.user_id == options.user:
            own.append(dataclasses.replace(event, ts=clock))
        if clock >= learnt and event.item_id is not None:
            late.append(ItemEvent(event.item_id, event.event, clock))
    late.sort(key=lambda event: event.ts)
    return own, late, last


def ask_sidecar(url: str, target: str, body: Any = None) -> tuple[dict[str, Any], str | None]:
    """Send a request to a sidecar; return its answer and what that says was done.

    Raises:
        UpstreamError: it does not answer, or refuses.
    """
    headers = {"Content-Type": "application/json"}
    secret = Settings.from_environ().admin_authorization
    if secret:
        is_own = target.startswith("/_personalize/")
        headers["Authorization" if is_own else SECRET_HEADER] = secret
    request = urllib.request.Request(
        url.rstrip("/") + target, None if body is None else json.dumps(body).encode(), headers)
    try:
        with _DIRECT.open(request, timeout=60) as answer:
            return json.load(answer), answer.headers["X-Personalize-Status"]
    except urllib.error.HTTPError as error:
        with error:
            raise UpstreamError(f"{url} answered {error.code}: "
                                f"{error.read()[:500].decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise UpstreamError(f"{url} cannot be asked: {error}") from error


def user_document(url: str, user_id: str) -> dict[str, Any]:
    """Return what a sidecar keeps of a user; a user of whom it keeps nothing has no events."""
    try:
        return ask_sidecar(url, f"/_personalize/users/{quote(user_id)}")[0]
    except UpstreamError as error:
        if isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 404:
            return {"user_id": user_id, "events": []}
        raise


def events_of(document: dict[str, Any]) -> list[Event]:
    """Return a sidecar's account of a user as events, oldest first."""
    return [Event(document["user_id"], row["event"], row["item_id"], seconds(row["ts"]),
                  row["query"]) for row in reversed(document.get("events", []))]


def _candidates(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> Candidates:
    if options.opensearch:
        return _searched(options)
    found, scores = Retrieval(rows, depth=options.window).search(options.query)
    if not len(found):
        raise FileError(f"no item of {options.catalogue} has a word of {options.query!r}")
    return Candidates(tuple(str(rows[row]["item_id"]) for row in found.tolist()), scores)


def _searched(options: argparse.Namespace) -> Candidates:
    settings = dataclasses.replace(Settings.from_environ(), opensearch_url=options.opensearch)
    with administration_client(settings) as client:
        answer = client.search(index=options.index, body=search_body(options) | {"_source": False})
    hits = answer["hits"]["hits"]
    if not hits:
        raise FileError(f"{options.index} has no hit for {options.query!r}")
    scores = [np.nan if hit["_score"] is None else hit["_score"] for hit in hits]
    return Candidates(tuple(hit["_id"] for hit in hits), np.array(scores, np.float32))


def search_body(options: argparse.Namespace) -> dict[str, Any]:
    """Return the search's body: the file's, or a search for the query's words; of the window."""
    body: dict[str, Any] = {"query": {"multi_match": {
        "query": options.query, "fields": list(FIELDS), "type": "cross_fields"}}}
    if options.body is not None:
        try:
            body = json.loads(options.body.read_text())
        except (OSError, ValueError) as error:
            raise FileError(f"{options.body} cannot be read as JSON: {error}") from error
        if not isinstance(body, dict):
            raise FileError(f"{options.body} must be a JSON object, a search's body")
    return body | {"from": 0, "size": options.window}


def event_words(event: str, item_id: str | None, query: str | None,
                titles: dict[str, str]) -> str:
    """Return what was done in words: ``purchase of 17 red cup``."""
    if item_id is None:
        return f"{event} for {query!r}"
    title = titles.get(item_id)
    return f"{event} of {item_id}" + (f" {title}" if title else "")


def history_rows(history: History, titles: dict[str, str]) -> list[dict[str, Any]]:
    """Return the events with their numbers, from 1, oldest first."""
    return [{"number": k + 1, "event": event, "item_id": item_id, "query": query, "ts": when(ts),
             "title": titles.get(item_id or "")}
            for k, (event, item_id, query, ts) in enumerate(zip(
                history.events, history.item_ids, history.queries, history.ts, strict=True))]
