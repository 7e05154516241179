"""What an analysis reads: a log, readable names, and what the log's columns leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.ranking.kinds import meaning
from sidecar.records import Event, IntArray
from sidecar.training.event_table import EventTable

EVENT_COLUMNS = ("item_id", "ts", "query", "session_id", "order_id", "quantity", "unit_price",
                 "position")


@dataclass(frozen=True, slots=True)
class Grouping:
    """A way to see items as few: ``code`` (n items) into ``names``, -1 for none."""

    names: list[str]
    code: IntArray

    def of_events(self, log: EventTable) -> IntArray:
        """Return each event's group, -1 where it has no item or the item no group."""
        if not len(self.code):
            return np.full(len(log), -1, np.int64)
        found: IntArray = np.where(log.item >= 0, self.code[np.maximum(log.item, 0)], -1)
        return found


@dataclass(slots=True)
class Tally:
    """Counts what a log's columns do not keep, while the events pass by."""

    until: float = float("inf")
    events: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    spend: dict[str, float] = field(default_factory=dict)

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events before ``until``, and those of unknown time."""
        for event in events:
            if event.ts is not None and event.ts >= self.until:
                continue
            self.events += 1
            for column in EVENT_COLUMNS:
                if getattr(event, column) is None:
                    self.missing[column] += 1
            paid = _paid(event)
            if paid is not None:
                self.spend[event.user_id] = self.spend.get(event.user_id, 0.0) + paid
            yield event


def _paid(event: Event) -> float | None:
    """Return what a purchase cost, or, below zero, what was paid back; None for any other event."""
    quantity = 1.0 if event.quantity is None else event.quantity
    word = meaning(event.event)
    if event.unit_price is None or word not in ("purchase", "return"):
        return None
    return event.unit_price * (-abs(quantity) if word == "return" else quantity)


@dataclass(frozen=True, slots=True)
class Shop:
    """A log with the names of its catalogue.

    ``titles`` (n) label items; ``groupings`` by name: those of brand, widest and narrowest
    category that the catalogue has; ``item_missing`` column → items without a value.
    """

    log: EventTable
    titles: list[str]
    groupings: Mapping[str, Grouping]
    tally: Tally
    item_missing: Mapping[str, int]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], log: EventTable, tally: Tally) -> Shop:
        """Name the items of a catalogue; ``log`` holds its rows."""
        return cls(log, [f"{row['title']} [{row['item_id']}]" for row in rows],
                   _groupings(rows), tally, _missing(rows))

    def strong(self) -> npt.NDArray[np.bool_]:
        """Return which events are of the kind that a shop wants, such as purchases."""
        return self.log.is_target()


def _groupings(rows: Sequence[Mapping[str, Any]]) -> dict[str, Grouping]:
    counts = Counter(name for row in rows for name in set(row.get("categories") or ()))
    choices: dict[str, list[str | None]] = {
        "brand": [row.get("brand") or None for row in rows],
        "widest category": [max(row.get("categories") or [None],
                                key=lambda c: (counts[c], c or "")) for row in rows],
        "narrowest category": [min(row.get("categories") or [None],
                                   key=lambda c: (counts[c], c or "")) for row in rows]}
    found: dict[str, Grouping] = {}
    for name, labels in choices.items():
        names = sorted({label for label in labels if label is not None})
        code = {label: k for k, label in enumerate(names)}
        same = any((np.array([code.get(v or "", -1) for v in labels]) == g.code).all()
                   for g in found.values() if len(g.names) == len(names))
        if names and not same:
            found[name] = Grouping(names, np.array([-1 if v is None else code[v] for v in labels],
                                                   np.int64))
    return found


def _missing(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    columns = dict.fromkeys([*("title", "brand", "categories", "price"),
                             *(column for row in rows for column in row)])
    return {column: sum(row.get(column) in (None, "", []) for row in rows)
            for column in columns if column != "item_id"}
