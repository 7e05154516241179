"""How popular is each item at this moment? Decayed counts that move forward with the event log.

The same object serves training (walked through the log, list by list), evaluation and serving
(advanced as events arrive), so that all three see the same numbers. A count with half-life H is
Σ strength · 2^((t_event − now)/H). Each item's counts are those of its own instant (``updated``)
and are decayed when they are read, so an event costs the same however many items there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.compiled import compiled
from sidecar.records import IntArray

DAY_S = 86_400.0
HALF_LIVES_DAYS = (3.0, 14.0, 60.0, 10_000.0, 1.0)  # 10,000: as good as never
WEAK_LIVES_DAYS = (14.0, 60.0)
TRIAL_LIVES_DAYS = (14.0, 60.0)
_LIVES_S = tuple(days * DAY_S for days in HALF_LIVES_DAYS)
_WEAK_LIVES_S = tuple(days * DAY_S for days in WEAK_LIVES_DAYS)
_TRIAL_LIVES_S = tuple(days * DAY_S for days in TRIAL_LIVES_DAYS)
_OF_60, _TRIAL_OF_60 = HALF_LIVES_DAYS.index(60.0), TRIAL_LIVES_DAYS.index(60.0)
ARRAYS = ("strong", "weak", "trial", "updated", "first", "last")
Vector = npt.NDArray[np.float64]


class ItemStatistics:
    """Decayed counts per item row (n): ``strong`` (n, 5) events of the kind that a model brings
    about, ``weak`` (n, 2) other positive ones, ``trial`` (n, 2) strong ones that were their
    shopper's first of the item, all as of ``updated`` (n); ``first`` and ``last`` (n), instants of
    strong events, NaN where there was none. ``clock``: events before it are counted.
    """

    def __init__(self, size: int, clock: float = 0.0) -> None:
        self.clock = clock
        self.strong = np.zeros((size, len(HALF_LIVES_DAYS)), np.float32)
        self.weak = np.zeros((size, len(WEAK_LIVES_DAYS)), np.float32)
        self.trial = np.zeros((size, len(TRIAL_LIVES_DAYS)), np.float32)
        self.updated = np.zeros(size)
        self.first = np.full(size, np.nan)
        self.last = np.full(size, np.nan)

    def grow(self, size: int) -> None:
        """Make room for items up to row ``size``."""
        extra = size - len(self.first)
        if extra <= 0:
            return
        larger = ItemStatistics(max(size, len(self.first) * 3 // 2), self.clock)
        for name in ARRAYS:
            old, new = getattr(self, name), getattr(larger, name)
            new[:len(old)] = old
            setattr(self, name, new)

    def advance(self, now: float, items: IntArray, ts: Vector, weights: Vector,
                is_strong: npt.NDArray[np.bool_],
                is_trial: npt.NDArray[np.bool_] | None = None) -> None:
        """Count events (m) at ``ts`` ≤ now and move the clock to ``now``; rows < 0 are left out.

        ``is_trial`` says which were the first strong event of their shopper and item; where it is
        not known, each counts as much of a trial as its item's events so far.
        """
        self.clock = max(self.clock, now)
        if len(items):
            trial = np.full(len(items), -1.0) if is_trial is None else is_trial.astype(np.float64)
            _count(items, ts, weights, is_strong, trial, self.strong, self.weak, self.trial,
                   self.updated, self.first, self.last)

    def at(self, now: float) -> dict[str, npt.NDArray[np.float64]]:
        """Return ``strong``, ``weak`` and ``trial`` decayed to an instant."""
        passed = np.maximum(now - self.updated, 0.0)[:, None]
        lives = {"strong": _LIVES_S, "weak": _WEAK_LIVES_S, "trial": _TRIAL_LIVES_S}
        return {name: getattr(self, name) * 2.0 ** (-passed / np.array(life))
                for name, life in lives.items()}

    def copy(self) -> ItemStatistics:
        """Return statistics that can be advanced without moving these."""
        return ItemStatistics.from_arrays({name: array.copy()
                                           for name, array in self.arrays().items()})

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what has to be saved with a model."""
        return {**{name: getattr(self, name) for name in ARRAYS}, "clock": np.array(self.clock)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> ItemStatistics:
        """Undo ``arrays``. Arrays of the right type are not copied, and advancing writes into them.
        (A mapped file is copied on write: the pages that a worker counts in become its own.)

        Raises:
            ValueError: an array has another width than this version counts.
        """
        statistics = cls(len(arrays["first"]), float(arrays["clock"]))
        for name in ARRAYS:
            found, wanted = arrays[name], getattr(statistics, name)
            if found.shape != wanted.shape:
                raise ValueError(f"statistics.{name} has shape {found.shape}, must have "
                                 f"{wanted.shape}")
            setattr(statistics, name, found.astype(wanted.dtype, copy=False))
        return statistics


@compiled
def _count(items: Any, ts: Any, weights: Any, is_strong: Any, is_trial: Any, strong: Any,
           weak: Any, trial: Any, updated: Any, first: Any, last: Any) -> None:
    for i in range(len(items)):
        row, weight = items[i], weights[i]
        if row < 0 or weight <= 0:
            continue
        passed = ts[i] - updated[row]
        age = max(-passed, 0.0)  # an event older than the item's counts comes in decayed
        if passed > 0:
            for h in range(len(_LIVES_S)):
                strong[row, h] *= 2.0 ** (-passed / _LIVES_S[h])
            for h in range(len(_WEAK_LIVES_S)):
                weak[row, h] *= 2.0 ** (-passed / _WEAK_LIVES_S[h])
            for h in range(len(_TRIAL_LIVES_S)):
                trial[row, h] *= 2.0 ** (-passed / _TRIAL_LIVES_S[h])
            updated[row] = ts[i]
        if not is_strong[i]:
            for h in range(len(_WEAK_LIVES_S)):
                weak[row, h] += weight * 2.0 ** (-age / _WEAK_LIVES_S[h])
            continue
        share = is_trial[i]
        if share < 0:
            share = (trial[row, _TRIAL_OF_60] + 0.5) / (strong[row, _OF_60] + 1.0)
        for h in range(len(_LIVES_S)):
            strong[row, h] += weight * 2.0 ** (-age / _LIVES_S[h])
        for h in range(len(_TRIAL_LIVES_S)):
            trial[row, h] += share * weight * 2.0 ** (-age / _TRIAL_LIVES_S[h])
        if not first[row] <= ts[i]:
            first[row] = ts[i]
        if not last[row] >= ts[i]:
            last[row] = ts[i]
