"""What is known of each item, as arrays that a hundred candidates can be looked up in at once.

The table is filled from catalogue rows with a model's vocabulary and grows by doubling; a changed
product is written in place. One writer (the catalogue refresh), many readers: a reader sees a row
before or after a change, never a torn array, because arrays are replaced whole when they grow and
a row's id becomes visible last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.ranking.vocabulary import (
    TEXT_WIDTH,
    Vocabulary,
    categories_of,
    column_values,
    item_words,
)
from sidecar.records import FloatArray

CATEGORY_LEVELS = 3  # narrowest categories kept an item
ITEM_WORDS = 16  # words kept an item
COLUMNS = ("price", "rating", "review_count", "sales", "favourites", "shares", "promotion",
           "created_at")

Encode = Callable[["ItemTable", npt.NDArray[np.int64]], FloatArray]


class ItemTable:
    """Arrays of ``len(self)`` rows in use:

    - ``brand`` (n) int32, ``categories`` (n, CATEGORY_LEVELS) int32, narrowest first, 0 for none;
    - ``words`` (n, ITEM_WORDS) int32 codes, 0 for none;
    - ``text`` (n, TEXT_WIDTH) float32 unit vectors;
    - ``numbers`` (n, len(COLUMNS)) float32, imputed by the vocabulary's rules;
    - ``vectors`` (n, D) float32, the item tower's output (zeros until ``encode`` is set).
    """

    def __init__(self, vocabulary: Vocabulary, width: int = 0) -> None:
        self.vocabulary = vocabulary
        self.ids: list[str] = []
        self.encode: Encode | None = None
        self._row_of: dict[str, int] = {}
        self.brand = np.zeros(0, np.int32)
        self.categories = np.zeros((0, CATEGORY_LEVELS), np.int32)
        self.words = np.zeros((0, ITEM_WORDS), np.int32)
        self.text = np.zeros((0, TEXT_WIDTH), np.float32)
        self.numbers = np.zeros((0, len(COLUMNS)), np.float32)
        self.vectors = np.zeros((0, width), np.float32)

    @classmethod
    def from_arrays(cls, vocabulary: Vocabulary, ids: Sequence[str],
                    arrays: Mapping[str, npt.NDArray[Any]]) -> ItemTable:
        """Restore a table from its arrays, each of ``len(ids)`` rows."""
        table = cls(vocabulary)
        table.ids = list(ids)
        table._row_of = {item_id: row for row, item_id in enumerate(ids)}
        for name, array in arrays.items():
            if len(array) != len(ids):
                raise ValueError(f"items.{name} has {len(array)} rows, must have {len(ids)}")
            setattr(table, name, array)
        return table

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._row_of

    @property
    def row_of(self) -> Mapping[str, int]:
        """Item id → row."""
        return self._row_of

    def rows(self, item_ids: Iterable[str | None]) -> npt.NDArray[np.int64]:
        """Return the rows of some items, -1 for None and for unknown ids."""
        get: Callable[[str | None, int], int] = self._row_of.get  # type: ignore[assignment]
        return np.fromiter(map(get, item_ids, repeat(-1)), np.int64)

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Write catalogue rows in place; return how many were new or changed."""
        if not rows:
            return 0
        ids = [str(row["item_id"]) for row in rows]
        start = len(self.ids)
        fresh = [i for i in dict.fromkeys(ids) if i not in self._row_of]
        target = {**{i: self._row_of[i] for i in ids if i in self._row_of},
                  **{i: start + k for k, i in enumerate(fresh)}}
        self._reserve(start + len(fresh))
        index = np.array([target[i] for i in ids], np.int64)
        changed = self._fill(index, rows) | (index >= start)
        if self.encode is not None and changed.any():
            self.vectors[index[changed]] = self.encode(self, index[changed])
        self.ids.extend(fresh)
        self._row_of.update((i, target[i]) for i in fresh)
        return len(set(index[changed].tolist()))

    def _fill(self, index: npt.NDArray[np.int64], rows: Sequence[Mapping[str, Any]],
              ) -> npt.NDArray[np.bool_]:
        """Write the features of ``rows`` at ``index``; return which (m) differ from before."""
        known = self.vocabulary
        brand = np.array([known.brands.get(r.get("brand") or "", 0) for r in rows], np.int32)
        categories = np.zeros((len(rows), CATEGORY_LEVELS), np.int32)
        words = np.zeros((len(rows), ITEM_WORDS), np.int32)
        text = np.zeros((len(rows), TEXT_WIDTH), np.float32)
        for k, row in enumerate(rows):
            codes = known.narrow_first(categories_of(row))[:CATEGORY_LEVELS]
            categories[k, :len(codes)] = codes
            codes = known.word_codes(item_words(row))
            words[k, :min(ITEM_WORDS, len(codes))] = codes[:ITEM_WORDS]
            text[k] = known.text_vector(codes)
        numbers = np.stack([known.imputations[c].fill(column_values(rows, c))
                            for c in COLUMNS], axis=1)
        changed = np.zeros(len(rows), bool)
        for name, value in (("brand", brand), ("categories", categories), ("words", words),
                            ("text", text), ("numbers", numbers)):
            array = getattr(self, name)
            differs = array[index] != value
            if value.dtype == np.float32:
                differs &= ~(np.isnan(array[index]) & np.isnan(value))
            changed |= differs.reshape(len(rows), -1).any(axis=1)
            array[index] = value
        return changed

    def _reserve(self, size: int) -> None:
        capacity = len(self.brand)
        if size <= capacity:
            return
        grown = max(size, capacity * 3 // 2)
        for name in ("brand", "categories", "words", "text", "numbers", "vectors"):
            old = getattr(self, name)
            new = np.zeros((grown, *old.shape[1:]), old.dtype)
            new[:capacity] = old
            setattr(self, name, new)
