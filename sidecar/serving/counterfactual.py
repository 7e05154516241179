"""What would this search have shown, had the shopper done something else? The same ranker orders
the same window again, with a changed history.

No I/O: the caller brings the candidates in engine order and the history.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sidecar.errors import Skip
from sidecar.ranking.ranker import Ranker
from sidecar.records import (
    Candidates,
    Event,
    FloatArray,
    History,
    QueryContext,
    Ranking,
    SkipReason,
    UserState,
)
from sidecar.serving.explanations import DIGITS, entries, numbers
from sidecar.serving.histories import grow

MOST_INFLUENCES = 3  # told a hit
TELLING = 0.005  # a change below this shows as nothing


@dataclass(frozen=True, slots=True)
class WindowOrder:
    """What one history makes of the window: a ranking, or the reason why there is none."""

    candidates: Candidates
    history: History
    ranking: Ranking | None
    reason: SkipReason | None

    def order(self) -> list[int]:
        """Return candidate positions as they would be shown, best first."""
        if self.ranking is None:
            return list(range(len(self.candidates)))
        return [int(position) for position in self.ranking.order]

    def entries(self) -> list[dict[str, Any]]:
        """Explain every hit, in shown order: ranks, scores, parts, and events in words.

        In the engine's order a hit has no score and no parts.
        """
        order = self.order()
        if self.ranking is not None:
            told = entries(self.ranking, self.candidates, order)
        else:
            told = [{"engine_rank": k + 1, "engine_score": score, "rank": k + 1, "score": None,
                     "parts": {}, "events": []}
                    for k, score in enumerate(numbers(self.candidates.engine_scores))]
        return [{"item_id": self.candidates.item_ids[position], **entry}
                for position, entry in zip(order, told, strict=True)]


class Replay:
    """One search that can be asked again: its window and its context stay, histories change."""

    def __init__(self, ranker: Ranker, candidates: Candidates, context: QueryContext) -> None:
        self._ranker = ranker
        self._candidates = candidates
        self._context = context

    def show(self, history: History, hidden: FloatArray | None = None) -> WindowOrder:
        """Rank the window for a history.

        Args:
            history: events before the context's ``now``, oldest first.
            hidden: the encoder's state after them, where it is known already.
        """
        state = UserState(self._context.user_id or "", history, hidden,
                          None if hidden is None else self._ranker.version)
        try:
            ranking = self._ranker.rank(self._candidates, state, self._context)
        except Skip as skip:
            return WindowOrder(self._candidates, history, None, skip.reason)
        return WindowOrder(self._candidates, history, ranking, None)

    def influences(self, shown: WindowOrder) -> list[list[dict[str, Any]]]:
        """Return for each candidate (K) what each thing the shopper touched adds to its score.

        All events of one item (or of one search's words) are left out together, one such group
        after the other; ``change`` is the score with them less the score without. The greatest
        changes come first. These are differences of whole scores: they need not add up.
        """
        told: list[list[dict[str, Any]]] = [[] for _ in range(len(self._candidates))]
        if shown.ranking is None:
            return told
        groups = _groups(shown.history)
        rests = [without(shown.history, positions) for positions in groups.values()]
        hiddens = self._ranker.advance_many([None] * len(rests), rests) if rests else []
        for ((item_id, query), positions), rest, hidden in zip(
                groups.items(), rests, hiddens, strict=True):
            other, last = self.show(rest, hidden).ranking, positions[-1]
            if other is None:  # the engine's order: no event of a known item is left, no score
                continue
            change = shown.ranking.scores - other.scores
            for k in np.flatnonzero(np.abs(change) >= TELLING).tolist():
                told[k].append({
                    "item_id": item_id, "query": query, "event": shown.history.events[last],
                    "times": len(positions), "ts": shown.history.ts[last],
                    "change": round(float(change[k]), DIGITS)})
        return [sorted(found, key=lambda one: -abs(one["change"]))[:MOST_INFLUENCES]
                for found in told]


def history_of(user_id: str, events: Sequence[Event], limit: int) -> History:
    """Return events with times as a sidecar keeps them: sorted, the last ``limit``, without what
    was only shown."""
    numbered = [_numbered(event, f"given-{k}") for k, event in enumerate(events)]
    return grow(UserState(user_id), numbered, limit).history


def without(history: History, positions: Collection[int]) -> History:
    """Return the history less the events at ``positions``."""
    left_out = set(positions)
    return history.take([k for k in range(len(history)) if k not in left_out])


def added(history: History, events: Sequence[Event]) -> History:
    """Return the history with events put in their places in time.

    Nothing is cut: the ranker reads as many of the latest as it was trained with.
    """
    numbered = [_numbered(event, f"added-{k}") for k, event in enumerate(events)]
    state = UserState("", history, event_count=len(history))
    return grow(state, numbered, len(history) + len(events)).history


def positions_of_item(history: History, item_id: str) -> list[int]:
    """Return where in the history an item was touched."""
    return [k for k, own in enumerate(history.item_ids) if own == item_id]


def differences(before: WindowOrder, after: WindowOrder) -> list[dict[str, Any]]:
    """Return what changed for every hit of the window, in the order shown after.

    Each: ``rank`` and ``score`` before and after, ``move`` (places risen), and ``parts``: by how
    much each part changed, the greatest change first. Where one of the two orders is the
    engine's, there are no scores to compare.
    """
    # By position: an id may stand in the window twice, once of each of two indices.
    earlier = dict(zip(before.order(), before.entries(), strict=True))
    found = []
    for position, entry in zip(after.order(), after.entries(), strict=True):
        was = earlier[position]
        parts = {name: round(value - was["parts"].get(name, 0.0), DIGITS)
                 for name, value in entry["parts"].items()} if was["parts"] else {}
        changed = {name: value for name, value in
                   sorted(parts.items(), key=lambda part: -abs(part[1])) if value}
        found.append({
            "item_id": entry["item_id"], "engine_rank": entry["engine_rank"],
            "rank": {"before": was["rank"], "after": entry["rank"]},
            "move": was["rank"] - entry["rank"],
            "score": {"before": was["score"], "after": entry["score"]},
            "parts": changed, "events": entry["events"]})
    return found


def _groups(history: History) -> dict[tuple[str | None, str | None], list[int]]:
    """Return positions by the item touched, or by the words where an event has no item."""
    groups: dict[tuple[str | None, str | None], list[int]] = {}
    for k, (item_id, query) in enumerate(zip(history.item_ids, history.queries, strict=True)):
        groups.setdefault((item_id, query if item_id is None else None), []).append(k)
    return groups


def _numbered(event: Event, event_id: str) -> Event:
    return Event(event.user_id, event.event, event.item_id, event.ts, event.query, event_id)
