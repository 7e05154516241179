"""Walks a log's queries in order of time: what had followed a query by a given moment?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.ranking.kernels import Recall
from sidecar.ranking.query_memory import LIFE_DAYS, NOTHING, QueryMemory, query_key
from sidecar.ranking.statistics import DAY_S
from sidecar.training.event_table import EventTable

KEPT = 4000  # latest events of a query that are read
ITEMS = 200  # items of a query that a model keeps
_LIFE_S = LIFE_DAYS * DAY_S


class Recalls:
    """Positive events that answered a query, sorted by query and time."""

    def __init__(self, log: EventTable, strong_kinds: frozenset[str]) -> None:
        asked = log.asked()
        weight = log.strengths()
        strong = log.is_among(strong_kinds)
        keys: dict[str, int] = {}
        code_of = np.array([keys.setdefault(query_key(query), len(keys))
                            for query in log.queries], np.int64)
        index = np.flatnonzero((asked >= 0) & (log.item >= 0) & (weight > 0))
        if "" in keys:  # queries without a word, "?!" and all emoji, have nothing in common
            index = index[code_of[asked[index]] != keys[""]]
        code = code_of[asked[index]] if len(index) else np.zeros(0, np.int64)
        order = np.argsort(code, kind="stable")  # the log ascends in time
        index = index[order]
        self.keys = keys
        self._offsets = np.concatenate([[0], np.cumsum(np.bincount(code, minlength=len(keys)))])
        self._rows, self._ts = log.item[index].astype(np.int64), log.ts[index]
        self._weight, self._strong = weight[index], strong[index]

    def recall(self, query: str | None, now: float, until: float | None = None) -> Recall:
        """Return what followed a query strictly before ``until`` (None: ``now``), decayed to
        ``now``."""
        code = self.keys.get(query_key(query)) if query and self.keys else None
        if code is None:
            return NOTHING
        start, stop = int(self._offsets[code]), int(self._offsets[code + 1])
        last = now if until is None else min(until, now)
        stop = start + int(np.searchsorted(self._ts[start:stop], last, side="left"))
        return self._sum(max(start, stop - KEPT), stop, now)

    def memory(self, clock: float) -> QueryMemory:
        """Return what a model keeps, as of ``clock``: each query's strongest items."""
        names, offsets, rows, counts = [], [0], [], []
        for key, code in self.keys.items():
            start, stop = int(self._offsets[code]), int(self._offsets[code + 1])
            found = self._sum(max(start, stop - KEPT), stop, clock)
            if not len(found.rows):
                continue
            best = np.sort(np.argsort(-(found.strong + found.weak), kind="stable")[:ITEMS])
            names.append(key)
            offsets.append(offsets[-1] + len(best))
            rows.append(found.rows[best].astype(np.int32))
            counts.append(np.stack([found.strong[best], found.weak[best]], axis=1))
        if not names:
            return QueryMemory(clock=clock)
        return QueryMemory(names, np.array(offsets, np.int64), np.concatenate(rows),
                           np.concatenate(counts).astype(np.float32), clock)

    def _sum(self, start: int, stop: int, now: float) -> Recall:
        if stop <= start:
            return NOTHING
        cut = slice(start, stop)
        rows, place = np.unique(self._rows[cut], return_inverse=True)
        weight = self._weight[cut] * 2.0 ** (-np.maximum(now - self._ts[cut], 0) / _LIFE_S)
        strong, size = self._strong[cut], len(rows)
        return Recall(rows, _binned(place, weight * strong, size),
                      _binned(place, weight * ~strong, size))


def _binned(place: npt.NDArray[np.int64], weight: npt.NDArray[np.floating],
            size: int) -> npt.NDArray[np.float32]:
    return np.bincount(place, weights=weight, minlength=size).astype(np.float32)
