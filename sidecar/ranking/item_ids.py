"""Which row is an item's? Compiled code finds its id in one buffer by a hash table.

A dictionary of a million texts takes some 150 MB in every process. This takes 25 MB, in arrays that
processes can share. Ids are looked up a hundred at a time, straight from the bytes of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numba
import numpy as np
import numpy.typing as npt

from sidecar.compiled import compiled_for
from sidecar.records import PackedIds

Arrays = dict[str, npt.NDArray[Any]]
MEAN_BYTES = 16  # room for text, per id, at the beginning
COUNT, USED = 0, 1  # places in ``counts``


class ItemIds(Sequence[str]):
    """Ids by row, and rows by id; one writer, many readers, also of other processes.

    ``arrays``: ``text`` uint8, the ids one after another; ``ends`` (capacity) int64, where each
    ends; ``slots`` int32, a power of two, row + 1 or 0; ``counts`` (2) int64, ids and bytes in use.
    An id is written before its slot, and its slot before it is counted.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self._text, self._ends = arrays["text"], arrays["ends"]
        self._slots, self._counts = arrays["slots"], arrays["counts"]

    @staticmethod
    def shapes(capacity: int, text_bytes: int) -> dict[str, tuple[int, type]]:
        """Return length and type of the arrays for ``capacity`` ids of ``text_bytes`` in all."""
        slots = 8
        while slots < 2 * capacity:
            slots *= 2
        return {"text": (max(text_bytes, 1), np.uint8), "ends": (max(capacity, 1), np.int64),
                "slots": (slots, np.int32), "counts": (2, np.int64)}

    @property
    def text_bytes(self) -> int:
        """Return the bytes that all ids take."""
        return int(self._counts[USED])

    def has_room(self, ids: Sequence[str]) -> bool:
        """Return True if ids can be added without larger arrays."""
        return (len(self) + len(ids) <= len(self._ends)
                and self.text_bytes + sum(len(i.encode()) for i in ids) <= len(self._text))

    def extend(self, ids: Iterable[str]) -> None:
        """Add ids that are not there yet; ``has_room`` says whether they fit."""
        first, used = len(self), self.text_bytes
        encoded = [item_id.encode() for item_id in ids]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        joined = np.frombuffer(b"".join(encoded), np.uint8)
        self._text[used:used + len(joined)] = joined
        last = first + len(encoded)
        self._ends[first:last] = used + np.cumsum(lengths)
        _insert(self._text, self._ends, self._slots, first, last)
        self._counts[USED] = used + len(joined)
        self._counts[COUNT] = last

    def rows(self, item_ids: Iterable[str | None]) -> npt.NDArray[np.int64]:
        """Return the rows of some items, -1 for None and for unknown ids."""
        if isinstance(item_ids, PackedIds):
            buffer, spans = item_ids.buffer, item_ids.spans
        else:
            encoded = [b"" if i is None else i.encode("utf-8", "surrogatepass") for i in item_ids]
            ends = np.cumsum(np.fromiter(map(len, encoded), np.int32, len(encoded)), dtype=np.int32)
            buffer = b"".join(encoded)
            spans = np.stack((np.concatenate((ends[:1] * 0, ends[:-1])), ends), axis=1)
        found = np.empty(len(spans), np.int64)
        _find(self._text, self._ends, self._slots, np.frombuffer(buffer or b" ", np.uint8),
              np.ascontiguousarray(spans), found)
        return found

    def get(self, item_id: str, default: int = -1) -> int:
        """Return one item's row."""
        row = int(self.rows((item_id,))[0])
        return row if row >= 0 else default

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self.get(item_id) >= 0

    def __len__(self) -> int:
        return int(self._counts[COUNT])

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[k] for k in range(*row.indices(len(self)))]
        count = len(self)
        if not -count <= row < count:
            raise IndexError(row)
        row %= count
        start = int(self._ends[row - 1]) if row else 0
        return self._text[start:int(self._ends[row])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        text, start = self._text[:self.text_bytes].tobytes(), 0
        for end in self._ends[:len(self)].tolist():
            yield text[start:end].decode()
            start = end


class RowOf(Mapping[str, int]):
    """Item id → row, as a mapping over ``ItemIds``."""

    def __init__(self, ids: ItemIds) -> None:
        self._ids = ids

    def __getitem__(self, item_id: str) -> int:
        row = self._ids.get(item_id)
        if row < 0:
            raise KeyError(item_id)
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


@numba.njit(inline="always")
def _slot_of(buffer, start, end, size):  # type: ignore[no-untyped-def]
    """Return the first slot to look at: FNV-1a, its upper half folded in."""
    mixed = np.uint64(14695981039346656037)
    for at in range(start, end):
        mixed = (mixed ^ np.uint64(buffer[at])) * np.uint64(1099511628211)
    mixed ^= mixed >> np.uint64(32)
    return np.int64(mixed & np.uint64(size - 1))


@compiled_for("void(u1[::1], i8[::1], i4[::1], i8, i8)")
def _insert(text, ends, slots, first, last):  # type: ignore[no-untyped-def]
    for row in range(first, last):
        start = ends[row - 1] if row else 0
        slot = _slot_of(text, start, ends[row], len(slots))
        while slots[slot] != 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = row + 1


@compiled_for("void(u1[::1], i8[::1], i4[::1], Array(u1, 1, 'C', readonly=True), i4[:, ::1], "
              "i8[::1])")
def _find(text, ends, slots, buffer, spans, found):  # type: ignore[no-untyped-def]
    for k in range(len(spans)):
        start, end = spans[k, 0], spans[k, 1]
        found[k] = -1
        if end <= start:
            continue
        slot = _slot_of(buffer, start, end, len(slots))
        while slots[slot] != 0:
            row = slots[slot] - 1
            begin = ends[row - 1] if row else 0
            if ends[row] - begin == end - start:
                at = 0
                while at < end - start and text[begin + at] == buffer[start + at]:
                    at += 1
                if at == end - start:
                    found[k] = row
                    break
            slot = (slot + 1) & (len(slots) - 1)
