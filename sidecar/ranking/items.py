"""What is known of each item, as arrays in which a hundred candidates are looked up at once.

The table is filled from catalogue rows with a model's vocabulary and grows by doubling; a changed
product is written in place. There is one writer (the catalogue refresh) and many readers. A reader
sees a row before or after a change, never a torn array, because arrays are replaced whole when they
grow and a row's id becomes visible last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sidecar.ranking.imputation import DEFAULT_RULES
from sidecar.ranking.item_ids import ItemIds, RowOf
from sidecar.ranking.kernels import TEXT_STEPS, texts
from sidecar.ranking.vocabulary import (
    TEXT_WIDTH,
    Vocabulary,
    categories_of,
    item_words,
)
from sidecar.records import FloatArray

CATEGORY_LEVELS = 3  # narrowest categories kept an item
ITEM_WORDS = 16  # words kept an item
COLUMNS = tuple(DEFAULT_RULES)  # the numeric ones

TABLE = ("brand", "categories", "words", "text", "numbers", "vectors")
SHARED = tuple(name for name in TABLE if name != "words")

Encode = Callable[["ItemTable", npt.NDArray[np.int64]], FloatArray]


class Storage(Protocol):
    """Where the arrays of a shared table lie, and whose turn it is to write them."""

    def follow(self, table: ItemTable) -> None:
        """Let the table go over to newer arrays, if another process has made some."""
        ...

    def may_write(self) -> bool:
        """Return True if this process is the one that writes."""
        ...

    @property
    def was_written(self) -> bool:
        """Return True where another process wrote before this one, which may have been killed when
        it had written features and not yet their vectors."""
        ...

    @property
    def progress(self) -> Any:
        """Return what ``note`` was given last, in whichever process; None: nothing."""
        ...

    def note(self, progress: Any) -> None:
        """Keep how far changes were taken in, for the next writer."""
        ...

    def remove_others(self) -> None:
        """Delete the tables of other models that no process uses."""
        ...

    def close(self) -> None:
        """Let another process write, or remove the table."""
        ...

    def grow(self, table: ItemTable, size: int, text_bytes: int) -> None:
        """Give the table arrays for ``size`` rows and ``text_bytes`` more of ids, through
        ``shared_by``."""
        ...


class ItemTable:
    """Arrays of ``len(self)`` rows in use:

    - ``brand`` (n) int32, ``categories`` (n, CATEGORY_LEVELS) int32, narrowest first, 0 for none;
    - ``words`` (n, ITEM_WORDS) int32 codes, 0 for none;
    - ``text`` (n, TEXT_WIDTH) int8 unit vectors of words and of vectors made elsewhere, in parts of
      TEXT_STEPS, for ``texts`` to read;
    - ``numbers`` (n, len(COLUMNS)) float32, as ``Vocabulary.numbers`` gives them;
    - ``vectors`` (n, D) float32, the item tower's output (zeros until ``encode`` is set), float16
      where the table is shared.

    Where the table is shared by processes (``shared_by``), one of them writes, and ``words``, which
    ``text`` is made of, is empty.
    """

    def __init__(self, vocabulary: Vocabulary, width: int = 0) -> None:
        self.vocabulary = vocabulary
        self.ids: list[str] | ItemIds = []
        self.encode: Encode | None = None
        self.storage: Storage | None = None
        self._rows: dict[str, int] | None = {}  # None: made of the ids when somebody asks
        self.brand = np.zeros(0, np.int32)
        self.categories = np.zeros((0, CATEGORY_LEVELS), np.int32)
        self.words = np.zeros((0, ITEM_WORDS), np.int32)
        self.text = np.zeros((0, TEXT_WIDTH), np.int8)
        self.numbers = np.zeros((0, len(COLUMNS)), np.float32)
        self.vectors = np.zeros((0, width), np.float32)

    @classmethod
    def from_arrays(cls, vocabulary: Vocabulary, ids: Sequence[str],
                    arrays: Mapping[str, npt.NDArray[Any]]) -> ItemTable:
        """Restore a table from its arrays, each of ``len(ids)`` rows."""
        table = cls(vocabulary)
        table.ids = list(ids)
        table._rows = None
        for name, array in arrays.items():
            if len(array) != len(ids):
                raise ValueError(f"items.{name} has {len(array)} rows, must have {len(ids)}")
            setattr(table, name, array)
        return table

    def shared_by(self, storage: Storage, ids: ItemIds,
                  arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go over to arrays that other processes see too.

        Readers meanwhile see rows of the old arrays or of the new ones, which hold the same.
        """
        self.storage = storage
        for name in SHARED:
            setattr(self, name, arrays[name])
        self.words = self.words[:0]
        self.ids = ids
        self._rows = None

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.row_of

    @property
    def row_of(self) -> Mapping[str, int]:
        """Item id → row."""
        if isinstance(self.ids, ItemIds):
            return RowOf(self.ids)
        if self._rows is None:
            self._rows = {item_id: row for row, item_id in enumerate(self.ids)}
        return self._rows

    def rows(self, item_ids: Iterable[str | None]) -> npt.NDArray[np.int64]:
        """Return the rows of some items, -1 for None and for unknown ids."""
        if isinstance(self.ids, ItemIds):
            return self.ids.rows(item_ids)
        get: Callable[[str | None, int], int] = self.row_of.get  # type: ignore[assignment]
        return np.fromiter(map(get, item_ids, repeat(-1)), np.int64)

    def texts(self, rows: npt.NDArray[np.int64]) -> FloatArray:
        """Return the content vectors (m, TEXT_WIDTH) of some rows, zero for -1."""
        return texts(self.text, rows)

    def upsert(self, rows: Sequence[Mapping[str, Any]], *, anew: bool = False) -> int:
        """Write catalogue rows in place; return how many were new or changed.

        ``anew``: encode the unchanged ones too. Where encoding fails, the known rows' features are
        put back, so that the next attempt finds them changed again.
        """
        rows = list({str(row["item_id"]): row for row in rows}.values())  # the last word on each
        if not rows:
            return 0
        ids = [str(row["item_id"]) for row in rows]
        start = len(self.ids)
        index = self.rows(ids)
        unknown = index < 0
        fresh = [i for i, is_new in zip(ids, unknown.tolist(), strict=True) if is_new]
        self._reserve(start + len(fresh), fresh)
        known = index[~unknown]
        index[unknown] = np.arange(start, start + len(fresh))
        before = {name: array[known] for name, array in self._features().items()}
        try:
            changed = self._fill(index, rows, ids) | (index >= start)
            self._encode(index if anew else index[changed])
        except BaseException:
            for name, array in self._features().items():
                array[known] = before[name]
            raise
        self.ids.extend(fresh)
        if self._rows is not None:
            self._rows.update((i, start + k) for k, i in enumerate(fresh))
        return int(changed.sum())

    def _features(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that rows are written into; the vectors are made of them."""
        names = SHARED if isinstance(self.ids, ItemIds) else TABLE
        return {name: getattr(self, name) for name in names if name != "vectors"}

    def _encode(self, index: npt.NDArray[np.int64]) -> None:
        if self.encode is not None and len(index):
            self.vectors[index] = self.encode(self, index)

    def _fill(self, index: npt.NDArray[np.int64], rows: Sequence[Mapping[str, Any]],
              ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Write the features of ``rows`` at ``index``; return which (m) differ from before."""
        known = self.vocabulary
        brand = np.array([known.brands.get(r.get("brand") or "", 0) for r in rows], np.int32)
        categories = np.zeros((len(rows), CATEGORY_LEVELS), np.int32)
        words = np.zeros((len(rows), ITEM_WORDS), np.int32)
        text = np.zeros((len(rows), TEXT_WIDTH), np.int8)
        for k, row in enumerate(rows):
            codes = known.narrow_first(categories_of(row))[:CATEGORY_LEVELS]
            categories[k, :len(codes)] = codes
            codes = known.word_codes(item_words(row))
            words[k, :min(ITEM_WORDS, len(codes))] = codes[:ITEM_WORDS]
            text[k] = np.rint(TEXT_STEPS * known.content_vector(codes, row))
        numbers = known.numbers(rows, ids)
        changed = np.zeros(len(rows), bool)
        for name, value in (("brand", brand), ("categories", categories), ("words", words),
                            ("text", text), ("numbers", numbers)):
            array = getattr(self, name)
            if name not in SHARED and isinstance(self.ids, ItemIds):
                continue
            value = value.astype(array.dtype, copy=False)
            before = array[index]
            differs = before != value
            if value.dtype.kind == "f":
                differs &= ~(np.isnan(before) & np.isnan(value))
            differs = differs.reshape(len(rows), -1).any(axis=1)
            if differs.any():  # what is written becomes this process's own where it was mapped
                array[index[differs]] = value[differs]
            changed |= differs
        return changed

    def _reserve(self, size: int, fresh: Sequence[str]) -> None:
        capacity = len(self.brand)
        if isinstance(self.ids, ItemIds):
            if self.storage is not None and (size > capacity or not self.ids.has_room(fresh)):
                self.storage.grow(self, size, sum(len(i.encode()) for i in fresh))
            return
        if size <= capacity:
            return
        grown = max(size, capacity * 3 // 2)
        for name in TABLE:
            old = getattr(self, name)
            new = np.zeros((grown, *old.shape[1:]), old.dtype)
            new[:capacity] = old
            setattr(self, name, new)
