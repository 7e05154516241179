"""Which items go together? Sparse neighbour tables, and what a history adds up to through them.

A table keeps, for each item with enough support, its strongest neighbours: ``neighbours`` (m, T)
rows of the item table and ``weights`` (m, T), 0 where there are fewer. The score of candidate i
for a history with weights u is Σ_t weights[i, t] · u[neighbours[i, t]] (``kernels``): O(T) a
candidate, however long the history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.records import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Association:
    """``slot`` (n) maps an item row to its line of the table, -1 where it has none."""

    slot: npt.NDArray[np.int32]
    neighbours: npt.NDArray[np.int32]
    weights: FloatArray

    def score(self, candidates: IntArray, history: FloatArray) -> FloatArray:
        """Return (K) what a history, dense over item rows (≥ n), adds up to for each candidate;
        0 for those unknown or without neighbours. (``kernels`` has the compiled form.)"""
        scores = np.zeros(len(candidates), np.float32)
        if not len(self.slot):
            return scores
        inside = (candidates >= 0) & (candidates < len(self.slot))
        slots = np.where(inside, self.slot[np.where(inside, candidates, 0)], -1)
        known = np.flatnonzero(slots >= 0)
        scores[known] = (self.weights[slots[known]] * history[self.neighbours[slots[known]]]).sum(1)
        return scores

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return what has to be saved with a model. Weights are rounded to float16 precision and
        stored as float32, the type in which they are read: workers map the file and copy nothing.
        """
        return {"slot": self.slot, "neighbours": self.neighbours,
                "weights": self.weights.astype(np.float16).astype(np.float32)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Association:
        """Undo ``arrays``; nothing is copied that is of its type."""
        return cls(arrays["slot"].astype(np.int32, copy=False),
                   arrays["neighbours"].astype(np.int32, copy=False),
                   arrays["weights"].astype(np.float32, copy=False))
