"""Which household shows best how its own behaviour changes the order, and what did it do when?

It is the household with the most items that it never bought before a date and bought again and
again afterwards: a model that follows it must move these up. This is a demonstration. To measure,
use ``scripts.evaluate``.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sidecar.records import Event
from sidecar.stores.files import read_catalogue, read_events

WEEK_S = 7 * 86_400
OLDER_EVENTS = range(40, 400)
LATER_EVENTS = range(20, 250)
MAX_QUERIES = 12
HABIT_PURCHASES = 2


@dataclass(frozen=True, slots=True)
class Household:
    """A household, the files with its older and later baskets, and what to search for."""

    user_id: str
    older: Path
    later: Path
    older_count: int
    later_count: int
    queries: tuple[str, ...]
    new_items: tuple[str, ...]
    shifted_weeks: int

    def save(self, path: Path) -> None:
        """Write the choice, to be read by ``load``."""
        path.write_text(json.dumps(asdict(self), default=str))

    @classmethod
    def load(cls, path: Path) -> Household:
        """Read what ``save`` wrote."""
        fields = json.loads(path.read_text())
        return cls(**fields | {"older": Path(fields["older"]), "later": Path(fields["later"]),
                               "queries": tuple(fields["queries"]),
                               "new_items": tuple(fields["new_items"])})


@dataclass(slots=True)
class _Purchases:
    older: Counter[str] = field(default_factory=Counter)
    later: Counter[str] = field(default_factory=Counter)

    def habits(self) -> list[str]:
        """Return items bought repeatedly, and only lately, the most often bought first."""
        return [item for item, count in sorted(self.later.items(), key=lambda kv: (-kv[1], kv[0]))
                if count >= HABIT_PURCHASES and item not in self.older]


def choose(catalogue: Path, events: Path, until: float, out: Path) -> Household:
    """Choose a household and write its baskets before and after ``until`` (epoch seconds).

    The baskets move forward by whole weeks, so that the last one lies in the past week: to a
    sidecar that runs today, baskets of years ago would be as good as forgotten.
    """
    purchases: dict[str, _Purchases] = defaultdict(_Purchases)
    for event in read_events(events):
        if event.item_id and event.ts is not None:
            side = purchases[event.user_id]
            (side.older if event.ts < until else side.later)[event.item_id] += 1
    user_id = min(purchases, key=lambda user: (-_promise(purchases[user]), user))
    habits = purchases[user_id].habits()
    own = [event for event in read_events(events) if event.user_id == user_id]
    weeks = int((time.time() - max(event.ts or 0 for event in own)) // WEEK_S)
    older = [event for event in own if (event.ts or 0) < until]
    later = [event for event in own if (event.ts or 0) >= until]
    household = Household(
        user_id=user_id, older=out / "older.jsonl", later=out / "later.jsonl",
        older_count=len(older), later_count=len(later),
        queries=_queries(catalogue, habits), new_items=tuple(habits), shifted_weeks=weeks)
    _write(household.older, older, weeks)
    _write(household.later, later, weeks)
    return household


def _promise(purchases: _Purchases) -> int:
    fits = (purchases.older.total() in OLDER_EVENTS and purchases.later.total() in LATER_EVENTS)
    return len(purchases.habits()) if fits else -1


def _queries(catalogue: Path, items: Sequence[str]) -> tuple[str, ...]:
    """Return what one would search for to find the items: their narrowest categories."""
    categories = {row["item_id"]: row["categories"] for row in read_catalogue(catalogue)
                  if row["item_id"] in items}
    queries = [categories[item][-1].lower() for item in items if categories.get(item)]
    return tuple(dict.fromkeys(queries))[:MAX_QUERIES]


def _write(path: Path, events: Iterable[Event], weeks: int) -> None:
    with path.open("w") as lines:
        for event in sorted(events, key=lambda event: event.ts or 0):
            moment = datetime.fromtimestamp((event.ts or 0) + weeks * WEEK_S, UTC)
            row = {"user_id": event.user_id, "item_id": event.item_id, "event": event.event,
                   "ts": moment.isoformat(), "query": None, "order_id": event.order_id,
                   "quantity": event.quantity, "unit_price": event.unit_price}
            lines.write(json.dumps(row) + "\n")
