"""What might a shopper have typed before buying this? Queries for logs that hold none.

There are two kinds, as shoppers type them: a category name, or a phrase of one or two words of the
title. A phrase is drawn by how many items share it, so that broad words come more often than narrow
ones. A phrase that only one item has is never drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sidecar.ranking.vocabulary import FIRST_DENSE, words_of

FEWEST = 5  # items that must share a query
CATEGORY_SHARE = 0.7  # of queries, where items have categories


class QueryMaker:
    """Draws a query for a catalogue row; the seed makes a run repeatable."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._categories = [row.get("categories") or [] for row in rows]
        self._category_counts = Counter(
            c for names in self._categories for c in dict.fromkeys(names))
        self._phrases = [_phrases(str(row.get("title") or "")) for row in rows]
        self._phrase_counts = Counter(p for found in self._phrases for p in dict.fromkeys(found))

    def draw(self, row: int) -> str | None:
        """Return a query that should find the item of ``row``; None if nothing broad enough is."""
        if self._categories[row] and self._rng.random() < CATEGORY_SHARE:
            return self._narrowest(row)
        broad = [p for p in self._phrases[row] if self._phrase_counts[p] >= FEWEST]
        if broad:
            if self._rng.random() < 0.5:
                return max(broad, key=lambda p: (self._phrase_counts[p], p))
            weights = np.sqrt([self._phrase_counts[p] for p in broad])
            return str(self._rng.choice(broad, p=weights / weights.sum()))
        return self._narrowest(row) if self._categories[row] else None

    def _narrowest(self, row: int) -> str:
        return str(min(self._categories[row], key=lambda c: (self._category_counts[c], c)))


def _phrases(title: str) -> list[str]:
    words = [w for w in words_of(title)
             if (len(w) > 2 or w >= FIRST_DENSE) and not w.isdigit()]
    alone = [w for w in words if len(w) > 1]  # one Chinese character is not a search
    return [*alone, *(" ".join(pair) for pair in pairwise(words))]
