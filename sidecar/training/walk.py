"""What was known at a moment of the log: items' statistics, a user's trail, a query's past.

Lists for training and cases for evaluation are both read through it, so that neither sees what came
later.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.ranking.history import Trail
from sidecar.ranking.kernels import Recall
from sidecar.ranking.query_memory import QueryMemory
from sidecar.ranking.statistics import ItemStatistics
from sidecar.training.event_table import EventTable
from sidecar.training.query_recalls import Recalls


class Walk:
    """Moves through a log in time: the statistics of a moment, and any user's trail before it."""

    def __init__(self, log: EventTable, items: int, *, kept: int, strong_kinds: frozenset[str],
                 trained: ItemStatistics | None = None,
                 remembered: QueryMemory | None = None) -> None:
        """``trained``: statistics to go on from, at their clock; absent: from nothing.
        ``remembered``: what a model keeps of queries; absent: the log tells it as of each moment.
        """
        self.log = log
        self.statistics = trained or ItemStatistics(items, float(log.ts[0]) if len(log) else 0.0)
        self.statistics.grow(items)  # the catalogue may have grown since they were counted
        self._kept = kept
        self._at = int(np.searchsorted(log.ts, trained.clock, side="left")) if trained else 0
        self._weight = log.strengths()
        self._strong = log.is_among(strong_kinds)
        self._order, self._offsets = log.histories()
        self._user_ts = log.ts[self._order]
        self._trial = _first_of_their_kind(log, self._strong & (self._weight > 0), items)
        self._recalls = Recalls(log, strong_kinds)
        self._remembered = remembered
        self._remembers_until: float | None = None

    def advance(self, now: float) -> None:
        """Count every event strictly before ``now``; instants must not go back."""
        stop = int(np.searchsorted(self.log.ts, now, side="left"))
        cut = slice(self._at, max(stop, self._at))
        self.statistics.advance(now, self.log.item[cut].astype(np.int64), self.log.ts[cut],
                                self._weight[cut].astype(np.float64), self._strong[cut],
                                self._trial[cut])
        self._at = cut.stop

    def remember_until(self, instant: float) -> None:
        """Recall nothing that followed a query at ``instant`` or later: a model that serves knows
        what its log told when it was trained, and no more."""
        self._remembers_until = instant

    def recall(self, query: str | None, now: float) -> Recall:
        """Return what is known at ``now`` to have followed a query."""
        if self._remembered is not None:
            return self._remembered.recall(query, now)
        return self._recalls.recall(query, now, self._remembers_until)

    def memory(self, clock: float) -> QueryMemory:
        """Return the memory of the whole log's queries, to be saved."""
        return self._recalls.memory(clock)

    def trail(self, user: int, now: float) -> Trail:
        """Return the user's last kept events strictly before ``now``."""
        start, stop = int(self._offsets[user]), int(self._offsets[user + 1])
        end = start + int(np.searchsorted(self._user_ts[start:stop], now, side="left"))
        index = self._order[max(start, end - self._kept):end]
        return Trail(self.log.item[index].astype(np.int64), self.log.ts[index],
                     self._weight[index], self._strong[index])


def _first_of_their_kind(log: EventTable, counted: npt.NDArray[np.bool_],
                         items: int) -> npt.NDArray[np.bool_]:
    """Return which events (n) are the first counted one of their user and item."""
    index = np.flatnonzero(counted & (log.item >= 0))
    pairs = log.user[index].astype(np.int64) * items + log.item[index]
    first = np.zeros(len(log), bool)
    first[index[np.unique(pairs, return_index=True)[1]]] = True
    return first
