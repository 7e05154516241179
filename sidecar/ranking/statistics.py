"""How popular is each item at this moment? Decayed counts that move forward with the event log.

The same object serves training (walked through the log, list by list), evaluation and serving
(advanced as events arrive), so that all three see the same numbers. A count with half-life H is
Σ strength · 2^((t_event − now)/H); it is kept relative to a clock that only ``advance`` moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

DAY_S = 86_400.0
HALF_LIVES_DAYS = (3.0, 14.0, 60.0, 10_000.0, 1.0)  # 10,000: as good as never
EVER = 3  # the column of the counts that as good as never decay
IntVector = npt.NDArray[np.int64]


class ItemStatistics:
    """Decayed counts of strong events, and of weak ones, per item; and per brand and category.

    ``strong`` (n, H) and ``weak`` (n, 2) are valid at instant ``clock``; ``first`` and ``last`` (n)
    are instants of strong events, NaN where there was none.
    """

    def __init__(self, size: int, clock: float = 0.0) -> None:
        self.clock = clock
        self.strong = np.zeros((size, len(HALF_LIVES_DAYS)))
        self.weak = np.zeros((size, 2))
        self.first = np.full(size, np.nan)
        self.last = np.full(size, np.nan)

    def grow(self, size: int) -> None:
        """Make room for items up to row ``size``."""
        extra = size - len(self.first)
        if extra <= 0:
            return
        extra = max(extra, len(self.first) // 2)
        self.strong = np.vstack([self.strong, np.zeros((extra, self.strong.shape[1]))])
        self.weak = np.vstack([self.weak, np.zeros((extra, 2))])
        self.first = np.concatenate([self.first, np.full(extra, np.nan)])
        self.last = np.concatenate([self.last, np.full(extra, np.nan)])

    def advance(self, now: float, items: IntVector, ts: npt.NDArray[np.float64],
                weights: npt.NDArray[np.float64], is_strong: npt.NDArray[np.bool_]) -> None:
        """Move the clock to ``now`` and count events (m) at ``ts`` ≤ now; rows < 0 are left out."""
        lives = np.array(HALF_LIVES_DAYS) * DAY_S
        passed = max(now - self.clock, 0.0)
        if passed:
            self.strong *= 2.0 ** (-passed / lives)
            self.weak *= 2.0 ** (-passed / lives[1:3])
            self.clock = now
        good = items >= 0
        if not good.any():
            return
        items, ts, weights, is_strong = items[good], ts[good], weights[good], is_strong[good]
        age = np.maximum(now - ts, 0.0)[:, None]
        counted = is_strong & (weights > 0)
        np.add.at(self.strong, items[counted],
                  weights[counted, None] * 2.0 ** (-age[counted] / lives))
        other = ~is_strong & (weights > 0)
        np.add.at(self.weak, items[other], weights[other, None] * 2.0 ** (-age[other] / lives[1:3]))
        np.fmin.at(self.first, items[counted], ts[counted])
        np.fmax.at(self.last, items[counted], ts[counted])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what has to be saved with a model."""
        return {"strong": self.strong.astype(np.float32), "weak": self.weak.astype(np.float32),
                "first": self.first, "last": self.last, "clock": np.array(self.clock)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> ItemStatistics:
        """Undo ``arrays``."""
        statistics = cls(0, float(arrays["clock"]))
        statistics.strong = arrays["strong"].astype(np.float64)
        statistics.weak = arrays["weak"].astype(np.float64)
        statistics.first, statistics.last = arrays["first"].copy(), arrays["last"].copy()
        return statistics
