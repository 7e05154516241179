"""Hits as OpenSearch wrote them, kept so that a page need not be fetched; never stale.

The ids' fetch brings each hit's ``_seq_no`` and ``_primary_term``, which change with every write of
the document. A kept hit is used only for the very version that the search saw, in the same index
(by its uuid: a name may come back with other documents), for a request of the same shape by the
same client (``search.shapes``). What differs between two searches is the score, which is put in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence

from cachetools import LRUCache

from sidecar.search import answers
from sidecar.search.answers import Answer
from sidecar.search.requests import SearchRequest
from sidecar.search.shapes import Shape, hit_shape, shows_versions

MOST_BYTES = 32 * 2**20  # a worker; some 50,000 grocery products
OVERHEAD_BYTES = 400  # of key and entry

Halves = tuple[bytes, bytes]  # a hit's bytes before and behind its score's digits


class HitCache:
    """The hits of one worker process; thread-safe.

    ``uuid_of`` tells the uuid that an index had a moment ago, or None where that is not known; its
    hits are not kept then.
    """

    def __init__(self, uuid_of: Callable[[str], str | None], most_bytes: int = MOST_BYTES) -> None:
        self._uuid_of = uuid_of
        self._halves: LRUCache[Hashable, Halves] = LRUCache(most_bytes, getsizeof=_size)
        self._lock = threading.Lock()

    def get(self, shape: Shape, answer: Answer, positions: Sequence[int]) -> dict[int, bytes]:
        """Return position → hit for those of the answer's hits that are kept."""
        keys = {position: self._key(shape, answer, position) for position in positions}
        with self._lock:
            found = {position: self._halves.get(key) for position, key in keys.items()
                     if key is not None}
        return {position: halves[0] + _digits(answer.scores[position]) + halves[1]
                for position, halves in found.items() if halves is not None}

    def put(self, shape: Shape, answer: Answer, position: int, hit: bytes) -> None:
        """Keep a hit of the very version that the answer tells for this position."""
        key, halves = self._key(shape, answer, position), answers.around_score(hit)
        if key is not None and halves is not None:
            with self._lock:
                self._halves[key] = halves

    def _key(self, shape: Shape, answer: Answer, position: int) -> Hashable | None:
        """Return what a hit is kept under; None if it is not to be kept.

        Beyond these bounds Java writes scores with an exponent, in other digits than Python.
        """
        index, item_id = answer.keys[position]
        uuid = self._uuid_of(index)
        if uuid is None or not answer.versions or not 1e-3 <= answer.scores[position] < 1e7:
            return None
        return shape, uuid, item_id, answer.versions[position]


class KeptHits:
    """The cache as one search uses it."""

    def __init__(self, cache: HitCache | None, search: SearchRequest) -> None:
        self._cache = cache
        self._shape = hit_shape(search) if cache is not None else None
        self._shows_versions = shows_versions(search)

    @property
    def is_used(self) -> bool:
        """Return True if this search's hits can be kept, so that versions have to be asked for."""
        return self._shape is not None

    def get(self, answer: Answer, positions: Sequence[int]) -> dict[int, bytes]:
        """Return position → hit for those that are kept."""
        if self._cache is None or self._shape is None:
            return {}
        return self._cache.get(self._shape, answer, positions)

    def taken(self, answer: Answer, position: int, hit: bytes) -> bytes:
        """Keep a fetched hit if it is of the version that was ranked; return it as asked for."""
        if self._cache is None or self._shape is None:
            return hit
        version = answers.version_of(hit)
        if not self._shows_versions:
            hit = answers.without_keys(hit, ("_seq_no", "_primary_term")) or hit
        if answer.versions and version == answer.versions[position]:
            self._cache.put(self._shape, answer, position, hit)
        return hit


def _digits(score: float) -> bytes:
    return repr(score).encode()


def _size(halves: Halves) -> int:
    return len(halves[0]) + len(halves[1]) + OVERHEAD_BYTES
