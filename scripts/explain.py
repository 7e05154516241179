"""Read a model, a catalogue and events, and print why each hit of one search stands where it does.

For every hit of the window it prints the engine's rank and score, the blended rank and score, each
signal's part (the parts add up to the score), and the events behind it: in words, and how much the
score would change had the shopper not done them. With --opensearch the engine's order comes from
OpenSearch, else from BM25 in this process. With --sidecar alone, the program asks a running sidecar
as a client would. It writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from opensearchpy.exceptions import OpenSearchException

from scripts._asked import (
    MOST_KEPT,
    add_arguments,
    ask,
    ask_sidecar,
    event_words,
    events_of,
    history_rows,
    search_body,
    user_document,
)
from scripts._inputs import when
from scripts._program import exit_code, log_to_stderr
from sidecar.errors import SettingsError, SidecarError
from sidecar.ranking.explain import ago
from sidecar.serving.counterfactual import history_of
from sidecar.stores.file_values import seconds

LAST_EVENTS = 20  # printed of a history; --json has all of it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; progress goes to stderr, the explanation to stdout."""
    parser = _parser()
    options = parser.parse_args(argv)
    log_to_stderr()
    of_model = (options.model, options.catalogue, options.events)
    if options.sidecar is None and None in of_model:
        parser.error("give --model, --catalogue and --events, or --sidecar")
    of_files = (*of_model, options.at, options.opensearch, options.device)
    if options.sidecar is not None and any(value is not None for value in of_files):
        parser.error("--sidecar explains by its own OpenSearch, model and history, as of now; "
                     "leave out --model, --catalogue, --events, --at, --opensearch and --device")
    try:
        told = _of_sidecar(options) if options.sidecar else _of_files(options)
    except SettingsError as error:
        print(f"explain: {error}", file=sys.stderr)
        return 2
    except (SidecarError, OpenSearchException, OSError) as error:
        print(f"explain: {error}", file=sys.stderr)
        return 1
    print(json.dumps(told) if options.json else _text(told, options.top))
    return 0


def _of_files(options: argparse.Namespace) -> dict[str, Any]:
    asked = ask(options)
    shown = asked.replay.show(asked.history)
    influences = asked.replay.influences(shown)
    hits = [{**entry, "title": asked.titles.get(entry["item_id"]),
             "influences": [{**one, "ts": when(one["ts"]),
                             "title": asked.titles.get(one["item_id"] or "")}
                            for one in influences[position]]}
            for position, entry in zip(shown.order(), shown.entries(), strict=True)]
    return {"user": options.user, "query": options.query, "at": when(asked.now),
            "applied": shown.reason is None, "reason": shown.reason,
            "model": asked.ranker.version,
            "history": history_rows(asked.history, asked.titles), "hits": hits}


def _of_sidecar(options: argparse.Namespace) -> dict[str, Any]:
    """Ask a sidecar, whose answer holds everything but what single events changed."""
    controls = {"personalize": "true", "personalize_user": options.user,
                "personalize_window": str(options.window),
                "personalize_weight": str(options.weight), "personalize_explain": "true"}
    answer, status = ask_sidecar(
        options.sidecar, f"/{quote(options.index)}/_search?{urlencode(controls)}",
        search_body(options))
    told = answer.get("ext", {}).get("personalize") or {
        "applied": False, "reason": (status or "no sidecar").rpartition("=")[2], "model": None,
        "hits": []}
    hits = answer["hits"]["hits"]
    titles = {hit["_id"]: str(hit.get("_source", {}).get("title", "")) for hit in hits}
    explained = {(entry["_index"], entry["_id"]): entry for entry in told["hits"]}
    rows = []
    for place, hit in enumerate(hits, start=1):
        entry = explained.get((hit["_index"], hit["_id"])) or {
            "engine_rank": place, "engine_score": hit["_score"], "rank": place, "score": None,
            "parts": {}, "events": []}
        rows.append({"item_id": hit["_id"], "title": titles[hit["_id"]],
                     **{name: value for name, value in entry.items() if name[0] != "_"}})
    history = history_of(options.user, events_of(user_document(options.sidecar, options.user)),
                         limit=MOST_KEPT)
    return {"user": options.user, "query": options.query, "at": None, "applied": told["applied"],
            "reason": told["reason"], "model": told["model"],
            "history": history_rows(history, titles), "hits": rows}


def _text(told: Mapping[str, Any], top: int | None) -> str:
    done = (f"reordered by model {told['model']}" if told["applied"]
            else f"in the engine's order: {told['reason']}")
    moment = f" at {told['at']}" if told["at"] else ""
    lines = [f"{told['user']} searches for {told['query']!r}{moment}: {len(told['hits'])} hits, "
             f"{done}", "", f"History: {len(told['history'])} events"]
    titles = {row["item_id"]: row["title"] for row in told["history"] if row["title"]}
    for row in told["history"][-LAST_EVENTS:]:
        words = event_words(row["event"], row["item_id"], row["query"], titles)
        lines.append(f"{'#' + str(row['number']):>6}  {row['ts']}  {words}")
    lines += ["", "  rank  engine rank  engine score      score"]
    now = seconds(told["at"]) if told["at"] else 0.0
    for hit in told["hits"][:top]:
        lines += _hit_lines(hit, now)
    return "\n".join(lines)


def _hit_lines(hit: Mapping[str, Any], now: float) -> list[str]:
    lines = [f"{hit['rank']:>6}{hit['engine_rank']:>13}{_number(hit['engine_score']):>14}"
             f"{_number(hit['score']):>11}  {hit['item_id']} {hit['title'] or ''}".rstrip()]
    if hit["parts"]:
        parts = sorted(hit["parts"].items(), key=lambda part: -abs(part[1]))
        lines.append(" " * 8 + " ".join(f"{name} {value:+.3f}" for name, value in parts)
                     + f" = {hit['score']:.3f}")
    if hit["events"]:
        lines.append(" " * 8 + "; ".join(hit["events"]))
    for one in hit.get("influences", ()):
        times = f", the last of {one['times']} events," if one["times"] > 1 else ","
        words = event_words(one["event"], one["item_id"], one["query"],
                            {one["item_id"]: one["title"]} if one["title"] else {})
        lines.append(f"{one['change']:>+15.3f} by {words}{times} {ago(seconds(one['ts']), now)}")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.explain", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, is_model_needed=False)
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
