"""A small shop with shoppers of distinct habits, made with a seed, and a ranker trained on it.

Shared by tests of ranking and training. Training takes a few seconds, so it is done once a run;
whoever changes a ranker takes ``fresh_ranker``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from sidecar.ranking.items import ItemTable
from sidecar.ranking.ranker import Ranker
from sidecar.records import Candidates, Case, Event, History, QueryContext, UserState
from sidecar.training.event_table import EventTable
from sidecar.training.pipeline import TrainConfig, train_ranker

DAY_S = 86_400.0
START = 1_600_000_000.0
LEARNT = START + 130 * DAY_S  # the shared ranker saw events before this instant
NOUNS = ("cup", "plate", "lamp", "candle", "clock", "basket")
COLOURS = ("red", "blue", "green", "white", "black")
BRANDS = ("Alba", "Borea", "Cirrus", "Dune")
SMALL = TrainConfig(width=12, hidden=16, layers=2, epochs=1, most_lists=150)

Row = dict[str, Any]


def quiet(step: str) -> Callable[[int, float], None]:
    """Take progress and show nothing."""
    return lambda done, loss: None


def make_rows(seed: int = 0, items: int = 60) -> list[Row]:
    """Return catalogue rows in normal form: six narrow categories within two wide ones."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(items):
        noun, colour = NOUNS[k % len(NOUNS)], COLOURS[k // len(NOUNS) % len(COLOURS)]
        rows.append({
            "item_id": f"i{k}", "title": f"{colour} {noun} no{k}", "brand": BRANDS[k % 4],
            "categories": ["kitchen" if k % len(NOUNS) < 2 else "home", f"{noun}s"],
            "price": float(rng.integers(1, 40)), "rating": float(rng.integers(2, 6)),
            "review_count": float(rng.integers(0, 50)), "sales": float(rng.integers(0, 200)),
            "created_at": "2020-05-01T00:00:00+00:00"})
    return rows


def make_events(rows: Sequence[Row], seed: int = 0, users: int = 40, visits: int = 14,
                ) -> list[Event]:
    """Return views and purchases in order of time; each user has five items bought again and
    again."""
    rng = np.random.default_rng(seed)
    events = []
    for user in range(users):
        usual = rng.choice(len(rows), 5, replace=False)
        for visit in range(visits):
            ts = START + (visit * 12 + rng.uniform(0, 8)) * DAY_S
            session = f"s{user}-{visit}"
            for step in range(3):
                pick = usual[rng.integers(5)] if rng.random() < 0.8 else rng.integers(len(rows))
                row = rows[int(pick)]
                query = row["title"].split()[1] if rng.random() < 0.5 else None
                for word, later in (("view", 0.0), ("purchase", 30.0)):
                    if word == "view" or rng.random() < 0.7:
                        events.append(Event(f"u{user}", word, row["item_id"],
                                            ts + 60.0 * step + later, query, session_id=session))
    return sorted(events, key=lambda event: event.ts or 0.0)


def make_cases(rows: Sequence[Row], events: Sequence[Event], count: int = 30) -> list[Case]:
    """Return searches for a noun at the times of the log's last purchases, ten candidates each."""
    cases = []
    by_noun = {noun: [r["item_id"] for r in rows if noun in r["title"]] for noun in NOUNS}
    noun_of = {item_id: noun for noun, ids in by_noun.items() for item_id in ids}
    bought = [e for e in events if e.event == "purchase"][-count:]
    for k, event in enumerate(bought):
        noun = noun_of[event.item_id or ""]
        before = [e for e in events if e.user_id == event.user_id and e.ts < event.ts - 30][-100:]
        candidates = tuple(by_noun[noun])
        cases.append(Case(
            f"c{k}", event.user_id, noun, event.ts - 30, history_of(before), candidates,
            tuple(float(len(candidates) - p) for p in range(len(candidates))),
            (event.item_id or "",), True, event.item_id in {e.item_id for e in before}))
    return cases


def history_of(events: Sequence[Event]) -> History:
    """Return events as a history."""
    return History(tuple(e.item_id for e in events), tuple(e.event for e in events),
                   tuple(e.ts or 0.0 for e in events), tuple(e.query for e in events),
                   tuple(e.event_id or f"e{k}" for k, e in enumerate(events)))


def train(rows: Sequence[Row], events: Sequence[Event], config: TrainConfig = SMALL,
          ) -> tuple[Ranker, EventTable]:
    """Train a ranker and return it with the log that it saw."""
    log = EventTable.from_events(events, {row["item_id"]: k for k, row in enumerate(rows)})
    ranker, _ = train_ranker(rows, log, config, quiet)
    return ranker, log


@lru_cache(1)
def trained() -> Ranker:
    """Return a ranker of the shop with seed 0, its personal part on. Not to be changed."""
    rows = make_rows()
    ranker, _ = train(rows, [e for e in make_events(rows) if (e.ts or 0.0) < LEARNT])
    ranker.config = replace(ranker.config, is_personal=True)
    ranker.version = "tested"
    return ranker


def fresh_ranker() -> Ranker:
    """Return the trained ranker over an item table and counts of its own."""
    known = trained()
    items = known.items
    arrays = {name: getattr(items, name)[:len(items)].copy() for name in
              ("brand", "categories", "words", "text", "numbers", "vectors")}
    knowledge = replace(
        known.knowledge, statistics=known.knowledge.statistics.copy(),
        items=ItemTable.from_arrays(items.vocabulary, items.ids, arrays))
    return Ranker(known.version, known.config, knowledge, known.encoder, known.blend)


def window(item_ids: Sequence[str]) -> Candidates:
    """Return candidates with falling engine scores."""
    return Candidates(tuple(item_ids), np.linspace(9, 2, len(item_ids), dtype=np.float32))


def state_of(history: History, ranker: Ranker | None = None) -> UserState:
    """Return a user's state; with a ranker, as serving keeps it: stepped through the history."""
    if ranker is None:
        return UserState("u", history)
    return UserState("u", history, ranker.advance(None, history), ranker.version,
                     event_count=len(history), version=3)


def context(**changes: Any) -> QueryContext:
    """Return the context of a search for cups a day after the log's end."""
    return replace(QueryContext("u", "cup", now=START + 200 * DAY_S), **changes)
