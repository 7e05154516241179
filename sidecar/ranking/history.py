"""What does a history say about any item, brand or category? Sums that candidates look up.

A ``Profile`` is built once from a user's kept events, in one pass of array operations, and answers
"how often, how recently" for a hundred candidates at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.ranking.items import ItemTable
from sidecar.ranking.kinds import strength
from sidecar.ranking.statistics import DAY_S
from sidecar.records import FloatArray

IntVector = npt.NDArray[np.int64]
DECAYS_DAYS = (7.0, 30.0, 120.0)
COLUMNS = ("count", "decay7", "decay30", "decay120", "weak", "returned")


@dataclass(frozen=True, slots=True)
class Trail:
    """A user's kept events as arrays of one length n, oldest first.

    ``rows`` of the item table (-1 unknown or a search), ``ts`` seconds, ``weight`` strengths in
    [-1, 1], ``strong`` marks events of the kind that the model was trained to bring about.
    """

    rows: IntVector
    ts: npt.NDArray[np.float64]
    weight: FloatArray
    strong: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def from_events(cls, rows: IntVector, ts: Sequence[float], events: Sequence[str],
                    strong_kinds: frozenset[str]) -> Trail:
        """Build from event words and the rows of their items."""
        return cls(rows, np.array(ts, np.float64),
                   np.array([strength(e) for e in events], np.float32),
                   np.array([e in strong_kinds for e in events], bool))


class Sums:
    """Sums of (n, F) values by integer key, looked up by key; key 0 and below mean "none"."""

    def __init__(self, keys: IntVector, values: FloatArray) -> None:
        good = keys > 0
        keys, values = keys[good], values[good]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self.keys = keys[starts]
        width = values.shape[1]
        self.sums = (np.add.reduceat(values[order], starts, axis=0) if len(starts)
                     else np.zeros((0, width), np.float32))
        self._order, self._starts = order, starts

    def lookup(self, keys: IntVector) -> FloatArray:
        """Return (K, F): the sums of ``keys`` (K), zero where a key is absent."""
        if not len(self.keys):
            return np.zeros((len(keys), self.sums.shape[1]), np.float32)
        position = np.searchsorted(self.keys, keys)
        position[position == len(self.keys)] = 0
        found: FloatArray = self.sums[position] * (self.keys[position] == keys)[:, None]
        return found

    def extremes(self, values: npt.NDArray[np.float64], keys: IntVector,
                 ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return each key's least and greatest value (m each), for the keys as constructed."""
        ordered = values[keys > 0][self._order]
        if not len(self._starts):
            return np.zeros(0), np.zeros(0)
        return (np.minimum.reduceat(ordered, self._starts),
                np.maximum.reduceat(ordered, self._starts))


class Profile:
    """Sums over a trail, valid at instant ``now``; keys of items are row + 1."""

    def __init__(self, trail: Trail, items: ItemTable, now: float) -> None:
        known = trail.rows >= 0
        self.rows = trail.rows[known]
        self.ts = trail.ts[known]
        weight, strong = trail.weight[known], trail.strong[known]
        self.length = len(self.rows)
        age_days = np.maximum(now - self.ts, 0.0) / DAY_S
        self.values = _event_values(age_days, weight, strong)
        keys = self.rows + 1
        self.by_item = Sums(keys, self.values)
        self.unique_rows = self.by_item.keys - 1
        self.first_ts, self.last_ts = self.by_item.extremes(self.ts, keys)
        self.by_brand = Sums(items.brand[self.rows].astype(np.int64), self.values)
        levels = items.categories[self.rows].astype(np.int64)
        self.by_category = Sums(levels.ravel(), np.repeat(self.values, levels.shape[1], axis=0))
        self.category_last = _last_by_key(self.by_category, levels, self.ts)
        self.totals = self.values.sum(axis=0)
        self.now = now

    def item_times(self, keys: IntVector) -> tuple[npt.NDArray[np.float64], ...]:
        """Return the first and last instant (K each) at which an item was touched, NaN if never."""
        return (_pick(self.by_item.keys, self.first_ts, keys),
                _pick(self.by_item.keys, self.last_ts, keys))

    def category_time(self, keys: IntVector) -> npt.NDArray[np.float64]:
        """Return the last instant (K) at which a category was touched, NaN if never."""
        return _pick(self.by_category.keys, self.category_last, keys)


def _event_values(age_days: npt.NDArray[np.float64], weight: FloatArray,
                  strong: npt.NDArray[np.bool_]) -> FloatArray:
    """Return (n, len(COLUMNS)) per event: what each adds to the sums."""
    good = (strong & (weight > 0)).astype(np.float64)
    values = np.empty((len(age_days), len(COLUMNS)), np.float32)
    values[:, 0] = good
    for column, days in enumerate(DECAYS_DAYS, start=1):
        values[:, column] = good * 2.0 ** (-age_days / days)
    values[:, 4] = (~strong & (weight > 0)) * weight * 2.0 ** (-age_days / DECAYS_DAYS[1])
    values[:, 5] = weight < 0
    return values


def _last_by_key(sums: Sums, levels: npt.NDArray[np.int64], ts: npt.NDArray[np.float64],
                 ) -> npt.NDArray[np.float64]:
    keys = levels.ravel()
    _, last = sums.extremes(np.repeat(ts, levels.shape[1]), keys)
    return last


def _pick(keys: IntVector, values: npt.NDArray[np.float64], wanted: IntVector,
          ) -> npt.NDArray[np.float64]:
    if not len(keys):
        return np.full(len(wanted), np.nan)
    position = np.searchsorted(keys, wanted)
    position[position == len(keys)] = 0
    return np.where(keys[position] == wanted, values[position], np.nan)
