"""Why does a hit stand where it stands? The events behind each part, in words.

The numbers are the parts themselves and add up to the score; the words name what the shopper did
that a part reads, the strongest part first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from sidecar.ranking.association import Association
from sidecar.ranking.items import ItemTable
from sidecar.ranking.kernels import ASSOCIATIONS
from sidecar.ranking.signals import Knowledge, Situation
from sidecar.ranking.statistics import DAY_S
from sidecar.records import FloatArray, History

MOST = 3  # reasons told a hit
TELLING = 0.1  # a part below this moved nothing worth telling


class Reasons(Sequence[tuple[str, ...]]):
    """For each of K candidates up to MOST phrases such as ``purchase of 852856, 3 times, last 12
    days ago``; put into words when looked at, since a page shows ten of a window's hundred."""

    def __init__(self, knowledge: Knowledge, situation: Situation, history: History,
                 parts: Mapping[str, FloatArray]) -> None:
        self._knowledge = knowledge
        self._situation = situation
        self._words = history.events[len(history) - len(situation.trail):]
        self._parts = parts

    def __len__(self) -> int:
        return len(self._situation.rows)

    @overload
    def __getitem__(self, k: int) -> tuple[str, ...]: ...

    @overload
    def __getitem__(self, k: slice) -> tuple[tuple[str, ...], ...]: ...

    def __getitem__(self, k: int | slice) -> tuple[str, ...] | tuple[tuple[str, ...], ...]:
        """Return the phrases of the k-th candidate."""
        if isinstance(k, slice):
            return tuple(self[i] for i in range(*k.indices(len(self))))
        row = int(self._situation.rows[k])
        phrases: list[str] = []
        for name in _strongest(self._parts, k) if row >= 0 else ():
            teller = _TELLERS.get(name)
            if teller is not None:
                phrases.extend(teller(self._knowledge, self._situation, self._words, row))
        return tuple(dict.fromkeys(phrases))[:MOST]


def _strongest(parts: Mapping[str, FloatArray], k: int) -> list[str]:
    names = [name for name in parts if abs(float(parts[name][k])) >= TELLING]
    return sorted(names, key=lambda name: -abs(float(parts[name][k])))


def _same_item(knowledge: Knowledge, situation: Situation, words: tuple[str, ...],
               row: int) -> list[str]:
    return _tell(situation, words, situation.trail.rows == row, knowledge.items.ids[row])


def _same_kind(knowledge: Knowledge, situation: Situation, words: tuple[str, ...],
               row: int) -> list[str]:
    items = knowledge.items
    trail = situation.trail.rows
    known = np.maximum(trail, 0)
    found = []
    if items.categories[row, 0]:
        same = (items.categories[known, 0] == items.categories[row, 0]) & (trail >= 0)
        found += _tell(situation, words, same & (trail != row), "its category")
    if items.brand[row]:
        same = (items.brand[known] == items.brand[row]) & (trail >= 0)
        found += _tell(situation, words, same & (trail != row), "its brand")
    if not found:
        found += _likest(items, situation, words, row)
    return found


def _likest(items: ItemTable, situation: Situation, words: tuple[str, ...],
            row: int) -> list[str]:
    trail = situation.trail.rows
    likeness = items.texts(trail) @ items.texts(np.array([row]))[0] * (trail != row)
    if not len(likeness) or likeness.max() < 0.5:
        return []
    best = trail == trail[int(likeness.argmax())]
    return _tell(situation, words, best, f"{items.ids[trail[int(likeness.argmax())]]}, alike")


def _goes_with(knowledge: Knowledge, situation: Situation, words: tuple[str, ...],
               row: int) -> list[str]:
    """Name the item of the history that the first table which knows of any ties to this one most;
    where none does, the item nearest in the space of factors."""
    trail = situation.trail.rows
    others, times = np.unique(trail[(trail >= 0) & (trail != row)], return_counts=True)
    ties = [_ties(knowledge.associations[name], row, others) * np.log1p(times)
            for name in ASSOCIATIONS if name in knowledge.associations]
    ties.append(_likeness(knowledge.factors, row, others))
    tie = next((np.abs(tie) for tie in ties if tie.any()), None)
    if tie is None:
        return []
    best = int(others[int(tie.argmax())])
    return _tell(situation, words, trail == best, f"{knowledge.items.ids[best]}, taken with it")


def _ties(table: Association, row: int, others: npt.NDArray[np.int64]) -> FloatArray:
    """Return the weights (m) of other items in an item's line of the table, 0 where absent."""
    found = np.zeros(len(others), np.float32)
    slot = int(table.slot[row]) if row < len(table.slot) else -1
    if slot >= 0:
        weights = dict(zip(table.neighbours[slot].tolist(), table.weights[slot].tolist(),
                           strict=True))
        found[:] = [weights.get(other, 0.0) for other in others.tolist()]
    return found


def _likeness(factors: FloatArray, row: int, others: npt.NDArray[np.int64]) -> FloatArray:
    """Return the products (m) of other items' factors (n, R) with an item's, 0 where unknown."""
    found = np.zeros(len(others), np.float32)
    if row < len(factors):
        known = others < len(factors)
        found[known] = factors[others[known]] @ factors[row]
    return found


def _latest(knowledge: Knowledge, situation: Situation, words: tuple[str, ...],
            row: int) -> list[str]:
    """Name the latest event, which the encoder's state ends with; it reads all of them."""
    del row
    rows = situation.trail.rows
    known = np.flatnonzero(rows >= 0)
    if not len(known):
        return []
    last = int(known[-1])
    return [f"lately {words[last]} of {knowledge.items.ids[int(rows[last])]}, "
            f"{_ago(situation, last)}"]


_TELLERS = {"repeat": _same_item, "content": _same_kind, "collaborative": _goes_with,
            "interest": _latest}


def _tell(situation: Situation, words: tuple[str, ...], mask: npt.NDArray[np.bool_],
          what: str) -> list[str]:
    """Tell the last event of the mask, and how often the shopper did just that."""
    index = np.flatnonzero(mask)
    if not len(index):
        return []
    last = int(index[-1])
    count = sum(words[k] == words[last] for k in index.tolist())
    times = f", {count} times, last" if count > 1 else ","
    return [f"{words[last]} of {what}{times} {_ago(situation, last)}"]


def _ago(situation: Situation, position: int) -> str:
    days = max(situation.now - float(situation.trail.ts[position]), 0.0) / DAY_S
    if days >= 2:
        return f"{days:.0f} days ago"
    return f"{days * 24:.0f} hours ago" if days >= 1 / 12 else f"{days * 1440:.0f} minutes ago"
