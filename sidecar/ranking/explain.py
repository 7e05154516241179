"""Why does a hit stand where it stands? The events behind each part, in words.

The numbers are the parts themselves and add up to the score. The words name what the shopper did
and a part reads, strongest part first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt

from sidecar.ranking.association import Association
from sidecar.ranking.kernels import ASSOCIATIONS
from sidecar.ranking.signals import Knowledge, Situation
from sidecar.ranking.statistics import DAY_S
from sidecar.records import FloatArray, History, IntArray

MOST = 3  # reasons told a hit
TELLING = 0.1  # a part below this moved nothing worth telling
ALIKE = 0.5  # the least cosine of two texts that are told as alike


class Reasons(Sequence[tuple[str, ...]]):
    """For each of K candidates up to MOST phrases such as ``purchase of 852856, 3 times, last 12
    days ago``; put into words when looked at, since a page shows ten of a window's hundred."""

    def __init__(self, knowledge: Knowledge, situation: Situation, history: History,
                 parts: Mapping[str, FloatArray]) -> None:
        self._rows = situation.rows
        self._past = _Past(knowledge, situation,
                           history.events[len(history) - len(situation.trail):])
        self._parts = parts

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, k: int) -> tuple[str, ...]: ...

    @overload
    def __getitem__(self, k: slice) -> tuple[tuple[str, ...], ...]: ...

    def __getitem__(self, k: int | slice) -> tuple[str, ...] | tuple[tuple[str, ...], ...]:
        """Return the phrases of the k-th candidate."""
        if isinstance(k, slice):
            return tuple(self[i] for i in range(*k.indices(len(self))))
        row = int(self._rows[k])
        phrases: dict[str, None] = {}  # in the order in which they were found
        for name in _strongest(self._parts, k) if row >= 0 else ():
            phrases.update(dict.fromkeys(_TELLERS[name](self._past, row)))
            if len(phrases) >= MOST:
                break
        return tuple(phrases)[:MOST]


def _strongest(parts: Mapping[str, FloatArray], k: int) -> list[str]:
    """Return the names of the parts that moved a candidate and can be put into words."""
    strength = {name: abs(float(parts[name][k])) for name in _TELLERS if name in parts}
    return sorted((name for name, size in strength.items() if size >= TELLING),
                  key=lambda name: -strength[name])


class _Past:
    """What the tellers read of a shopper's H events: worked out once, for all hits of a page."""

    def __init__(self, knowledge: Knowledge, situation: Situation,
                 words: Sequence[str]) -> None:
        self.knowledge = knowledge
        self.rows = situation.trail.rows  # (H), -1: an item that the catalogue lacks
        self._ts = situation.trail.ts
        self._now = situation.now
        self._words = words

    @cached_property
    def category(self) -> npt.NDArray[np.integer]:
        """The narrowest category (H) of each event's item, 0: none."""
        return np.where(self.rows >= 0, self.knowledge.items.categories[self._known, 0], 0)

    @cached_property
    def brand(self) -> npt.NDArray[np.integer]:
        """The brand (H) of each event's item, 0: none."""
        return np.where(self.rows >= 0, self.knowledge.items.brand[self._known], 0)

    @cached_property
    def texts(self) -> FloatArray:
        """The content vectors (H, T) of the events' items."""
        return self.knowledge.items.texts(self.rows)

    @cached_property
    def items(self) -> tuple[IntArray, IntArray]:
        """The known items (M), ascending, and how many events there are of each (M)."""
        items, times = np.unique(self.rows[self.rows >= 0], return_counts=True)
        return items, times

    @cached_property
    def latest(self) -> list[str]:
        """The latest event on a known item in words, if there is one."""
        known = np.flatnonzero(self.rows >= 0)
        if not len(known):
            return []
        last = int(known[-1])
        return [f"lately {self._words[last]} of {self.knowledge.items.ids[int(self.rows[last])]}, "
                f"{self._ago(last)}"]

    @property
    def _known(self) -> IntArray:
        return np.maximum(self.rows, 0)

    def tell(self, mask: npt.NDArray[np.bool_], what: str) -> list[str]:
        """Tell the last event of the mask (H), and how often the shopper did just that."""
        index = np.flatnonzero(mask).tolist()
        if not index:
            return []
        word = self._words[index[-1]]
        count = [self._words[k] for k in index].count(word)
        times = f", {count} times, last" if count > 1 else ","
        return [f"{word} of {what}{times} {self._ago(index[-1])}"]

    def _ago(self, position: int) -> str:
        return ago(float(self._ts[position]), self._now)


def ago(ts: float, now: float) -> str:
    """Return how long before ``now`` an instant lies, in words."""
    days = max(now - ts, 0.0) / DAY_S
    if days >= 2:
        return f"{days:.0f} days ago"
    return f"{days * 24:.0f} hours ago" if days >= 1 / 12 else f"{days * 1440:.0f} minutes ago"


def _same_item(past: _Past, row: int) -> list[str]:
    return past.tell(past.rows == row, past.knowledge.items.ids[row])


def _same_kind(past: _Past, row: int) -> list[str]:
    items = past.knowledge.items
    found = []
    if items.categories[row, 0]:
        same = past.category == items.categories[row, 0]
        found += past.tell(same & (past.rows != row), "its category")
    if items.brand[row]:
        same = past.brand == items.brand[row]
        found += past.tell(same & (past.rows != row), "its brand")
    return found or _likest(past, row)


def _likest(past: _Past, row: int) -> list[str]:
    items = past.knowledge.items
    likeness = past.texts @ items.texts(np.array([row]))[0] * (past.rows != row)
    if not len(likeness) or likeness.max() < ALIKE:
        return []
    best = int(past.rows[int(likeness.argmax())])
    return past.tell(past.rows == best, f"{items.ids[best]}, alike")


def _goes_with(past: _Past, row: int) -> list[str]:
    """Name the item of the history that the first table which knows of any ties to this one most;
    where none does, the item nearest in the space of factors, if one is near at all."""
    knowledge, (items, times) = past.knowledge, past.items
    is_other = items != row
    others, times = items[is_other], times[is_other]
    ties = _all_ties(knowledge, row, others, times)
    tie = next((tie for tie in ties if tie.max(initial=0.0) > 0.0), None)
    if tie is None:
        return []
    best = int(others[int(tie.argmax())])
    return past.tell(past.rows == best, f"{knowledge.items.ids[best]}, taken with it")


def _all_ties(knowledge: Knowledge, row: int, others: IntArray,
              times: IntArray) -> Iterator[FloatArray]:
    """Yield how much other items (m), each taken so many times, are tied to an item: by one table
    after the other, and by the factors."""
    for name in ASSOCIATIONS:
        if name in knowledge.associations:
            yield _ties(knowledge.associations[name], row, others) * np.log1p(times)
    yield _likeness(knowledge.factors, row, others)


def _ties(table: Association, row: int, others: IntArray) -> FloatArray:
    """Return the weights (m) of other items, ascending, in an item's line of the table, 0 where
    absent."""
    found = np.zeros(len(others), np.float32)
    slot = int(table.slot[row]) if row < len(table.slot) else -1
    if slot >= 0 and len(others):
        neighbours = table.neighbours[slot]
        place = np.minimum(np.searchsorted(others, neighbours), len(others) - 1)
        is_there = others[place] == neighbours
        found[place[is_there]] = table.weights[slot][is_there]
    return found


def _likeness(factors: FloatArray, row: int, others: IntArray) -> FloatArray:
    """Return the products (m) of other items' factors (n, R) with an item's, 0 where unknown."""
    found = np.zeros(len(others), np.float32)
    if row < len(factors):
        known = others < len(factors)
        found[known] = factors[others[known]] @ factors[row]
    return found


def _latest(past: _Past, row: int) -> list[str]:
    """Name the latest event, which the encoder's state ends with; it reads all of them."""
    del row
    return past.latest


_TELLERS = {"repeat": _same_item, "content": _same_kind, "collaborative": _goes_with,
            "interest": _latest}
