"""A user's kept events as arrays, ready for the compiled facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.ranking.kinds import is_among, strength
from sidecar.records import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Trail:
    """A user's kept events as arrays of one length n, oldest first.

    ``rows`` of the item table (-1 unknown or a search), ``ts`` seconds, ``weight`` strengths in
    [-1, 1], ``strong`` marks events of the kind that the model was trained to bring about.
    ``memo``: what one model makes of these events alone, whatever is searched for.
    """

    rows: IntArray
    ts: npt.NDArray[np.float64]
    weight: FloatArray
    strong: npt.NDArray[np.bool_]
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_items(self) -> bool:
        """Return True if an event concerns a known item."""
        return len(self.rows) > 0 and bool(self.rows.max() >= 0)

    @classmethod
    def from_events(cls, rows: IntArray, ts: Sequence[float], events: Sequence[str],
                    strong_kinds: frozenset[str]) -> Trail:
        """Build from event words and the rows of their items."""
        kinds = {event: (strength(event), is_among(event, strong_kinds)) for event in set(events)}
        told = [kinds[event] for event in events]
        return cls(rows, np.array(ts, np.float64), np.array([w for w, _ in told], np.float32),
                   np.array([s for _, s in told], bool))

    @classmethod
    def empty(cls) -> Trail:
        """Return the trail of a user without events."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.float32), np.zeros(0, bool))
