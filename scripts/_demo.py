"""The same search off, before and after a household's later baskets, side by side, with reasons.

Reads and writes through the sidecar alone, as a shop would: events go to ``/_personalize/events``,
searches to ``/INDEX/_search``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts._cells import cell
from scripts._household import Household
from scripts._services import ROOT, JsonAnswer, call
from sidecar.errors import LaunchError

DEPTH = 100
SHOWN = 10
COLUMN = 36


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One answer's order and what it said about itself."""

    item_ids: tuple[str, ...]
    titles: dict[str, str]
    status: str
    timing: str
    reasons: dict[str, dict[str, Any]]

    def rank(self, item_id: str) -> int | None:
        """Return the item's place, from 1; None if it was not among the hits."""
        return self.item_ids.index(item_id) + 1 if item_id in self.item_ids else None

    def rank_text(self, item_id: str) -> str:
        """Return the place in words."""
        return str(self.rank(item_id) or f"beyond {DEPTH}")


def show(url: str, index: str, household: Household) -> str:
    """Forget the household, replay its baskets in two parts, search around them, and compare."""
    call(url, "DELETE", f"/_personalize/users/{household.user_id}")
    replay(url, household.older)
    before = {query: search(url, index, household.user_id, query) for query in household.queries}
    replay(url, household.later)
    after = {query: search(url, index, household.user_id, query) for query in household.queries}
    query = max(household.queries, key=lambda q: _rise(before[q], after[q], household.new_items))
    off = search(url, index, household.user_id, query, X_Personalize="off")
    return render(household, query, off=off, before=before[query], after=after[query])


def replay(url: str, events: Path) -> None:
    """Send a file of events as fast as the sidecar acknowledges them."""
    command = [sys.executable, "-m", "scripts.replay_events", "--sidecar", url,
               "--events", str(events)]
    code = subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr).returncode
    if code != 0:
        raise LaunchError(f"the replay of {events} ended with {code}; its message is above")


def search(url: str, index: str, user_id: str, query: str, **headers: str) -> SearchResult:
    """Search for one user, with an explanation of every hit's place."""
    body = {"size": DEPTH, "_source": ["title", "brand"], "query": {"multi_match": {
        "query": query, "fields": ["title", "brand", "categories"], "type": "cross_fields"}}}
    answer = call(url, "POST", f"/{index}/_search", body, X_Personalize_User=user_id,
                  X_Personalize_Explain="true", **headers)
    if answer.status != 200:
        raise LaunchError(f"the search for {query!r} was answered with {answer.status}: "
                          f"{answer.json}")
    return _shown(answer)


def _shown(answer: JsonAnswer) -> SearchResult:
    hits = answer.json["hits"]["hits"]
    explained = answer.json.get("ext", {}).get("personalize", {}).get("hits") or []
    return SearchResult(
        item_ids=tuple(hit["_id"] for hit in hits),
        titles={hit["_id"]: _title(hit) for hit in hits},
        status=answer.headers.get("x-personalize-status", "no status"),
        timing=answer.headers.get("server-timing", ""),
        reasons={hit["_id"]: hit for hit in explained})


def _title(hit: dict[str, Any]) -> str:
    source = hit["_source"]
    return f"{hit['_id']} {source['title'].lower()}, {(source.get('brand') or 'no brand').lower()}"


def _rise(before: SearchResult, after: SearchResult, items: Sequence[str]) -> float:
    """Say how much the household's new items rose: the sum of the changes in 1/rank."""
    return sum(1 / (after.rank(item) or DEPTH) - 1 / (before.rank(item) or DEPTH)
               for item in items if after.rank(item))


def render(household: Household, query: str, *, off: SearchResult, before: SearchResult,
           after: SearchResult) -> str:
    """Lay the three orders out side by side, then every shown item's move with its reasons."""
    columns = (("switched off", off), (f"before: {household.older_count} older purchases", before),
               (f"after: {household.later_count} more", after))
    lines = [
        f"Household {household.user_id} searches for {query!r}. Its purchases are dated "
        f"{household.shifted_weeks} weeks later, so that the last are of the past week.", "",
        "    " + "  ".join(f"{title:<{COLUMN}}" for title, _ in columns).rstrip()]
    for place in range(min(SHOWN, len(off.item_ids))):
        # The query's own words would fill the column, and they are the same in every line.
        cells = (cell(shown.titles[shown.item_ids[place]].replace(f" {query}", " …"), COLUMN)
                 for _, shown in columns)
        lines.append(f"{place + 1:>2}  " + "  ".join(cells).rstrip())
    lines += ["", *(f"{title.split(':')[0]:<13} X-Personalize-Status: {shown.status}"
                    f"   Server-Timing: {shown.timing}" for title, shown in columns)]
    lines += ["", "Why each item is where it is after the baskets:"]
    for item_id in after.item_ids[:SHOWN]:
        moved = (f"{after.rank(item_id):>2}  off {off.rank_text(item_id)}, "
                 f"before {before.rank_text(item_id)}")
        lines.append(f"{moved:<32}{after.titles[item_id]}: {_reason(after.reasons.get(item_id))}")
    return "\n".join(lines)


def _reason(explained: dict[str, Any] | None) -> str:
    """Return the signals that weigh most, and the events behind them."""
    if not explained:
        return "no explanation"
    parts = sorted(explained.get("parts", {}).items(), key=lambda part: -abs(part[1]))
    words = [f"{name} {value:+.2f}" for name, value in parts[:3] if abs(value) >= 0.005]
    return "; ".join([", ".join(words) or "no signal", *explained.get("events", [])[:2]])
