"""What did shoppers take after this query before? A shop's own answers to its own queries.

It counts per (query, item), strong and weak events apart, decayed with a half-life of
``LIFE_DAYS``. A query is known by its set of words: word order, case and plurals do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.ranking.kernels import Recall
from sidecar.ranking.statistics import DAY_S
from sidecar.ranking.vocabulary import words_of

LIFE_DAYS = 60.0
NOTHING = Recall(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))


def query_key(query: str) -> str:
    """Return what two spellings of one query share: their words, sorted."""
    return " ".join(sorted(set(words_of(query))))


class QueryMemory:
    """Item counts of each query known: query q's are ``[offsets[q]:offsets[q+1]]``.

    ``rows`` (m) of the item table ascend within a query; ``counts`` (m, 2) are the strong and the
    weak events that followed, decayed to ``clock`` (seconds).
    """

    def __init__(self, keys: Sequence[str] = (), offsets: npt.NDArray[np.int64] | None = None,
                 rows: npt.NDArray[np.int32] | None = None,
                 counts: npt.NDArray[np.float32] | None = None, clock: float = 0.0) -> None:
        self.keys = list(keys)
        self.offsets = np.zeros(1, np.int64) if offsets is None else offsets
        self.rows = np.zeros(0, np.int32) if rows is None else rows
        self.counts = np.zeros((0, 2), np.float32) if counts is None else counts
        self.clock = clock
        self._place = {key: place for place, key in enumerate(self.keys)}

    def recall(self, query: str | None, now: float) -> Recall:
        """Return what followed a query, decayed to ``now``; nothing for one never seen."""
        place = self._place.get(query_key(query)) if query and self._place else None
        if place is None:
            return NOTHING
        cut = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        counts = self.counts[cut] * np.float32(
            2.0 ** (-max(now - self.clock, 0.0) / (LIFE_DAYS * DAY_S)))
        return Recall(self.rows[cut].astype(np.int64), counts[:, 0].copy(), counts[:, 1].copy())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what has to be saved with a model."""
        text = "\n".join(self.keys).encode()
        return {"keys": np.frombuffer(text, np.uint8), "offsets": self.offsets,
                "rows": self.rows, "counts": self.counts, "clock": np.array(self.clock)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> QueryMemory:
        """Undo ``arrays``."""
        text = arrays["keys"].tobytes().decode()
        return cls(text.split("\n") if text else (), arrays["offsets"].astype(np.int64),
                   arrays["rows"].astype(np.int32), arrays["counts"].astype(np.float32),
                   float(arrays["clock"]))
