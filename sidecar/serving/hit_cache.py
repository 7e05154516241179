"""Hits as OpenSearch wrote them, kept so that a page need not be fetched; never stale.

The fetch of ids brings each hit's ``_seq_no`` and ``_primary_term``, which change with every write
of the document. A kept hit is used only for the very version that the search saw, in the same index
(by its uuid: a name may come back with other documents), for a request of the same shape by the
same client (``search.shapes``). Only the score differs between two searches; it is put in.

An id and a version mean one document only where ids choose the shard. So an index with documents
that have a routing of their own is not kept. The uuid comes from the last look at the catalogue's
indices: an index that is deleted, made again under its name and filled in the same order within a
second may show its former hits until the next look.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from sidecar.search import spans
from sidecar.search.answers import Answer, IdAnswer
from sidecar.search.hit_bytes import Versioned, versioned
from sidecar.search.requests import SearchRequest
from sidecar.search.shapes import Shape, hit_shape, shows_versions

MOST_BYTES = 32 * 2**20  # a worker; some 50,000 grocery products
OVERHEAD_BYTES = 400  # of key and entry

# Of a hit, what the document and the request's shape alone decide.
_OF_DOCUMENT = frozenset({"_index", "_id", "_version", "_seq_no", "_primary_term", "_score",
                          "_ignored", "_source", "fields"})
MOST_SHAPES = 1024  # beyond them, those seen so far are forgotten, and their hits with them

Halves = tuple[bytes, bytes]  # a hit's bytes before and behind its score's digits
Key = tuple[int, str, str, tuple[int, int]]  # shape's number, index uuid, id, version


class HitCache:
    """The hits of one worker process; thread-safe.

    ``uuid_of`` returns the uuid that an index had a moment ago, or None if it is unknown; the
    index's hits are then not kept. An ordered dictionary and a count of bytes remove the least
    recently used hit first, at a tenth of what a general cache's bookkeeping in Python costs ten
    hits.
    """

    def __init__(self, uuid_of: Callable[[str], str | None], most_bytes: int = MOST_BYTES) -> None:
        self._uuid_of = uuid_of
        self._most_bytes = most_bytes
        self._bytes = 0
        self._halves: OrderedDict[Key, Halves] = OrderedDict()
        self._shapes: dict[Shape, int] = {}
        self._next_shape = 0
        self._routed: set[str] = set()  # uuids of indices whose documents choose their shards
        self._lock = threading.Lock()

    def number_of(self, shape: Shape) -> int:
        """Return a number that stands for the shape: hashing it once a search is enough."""
        number = self._shapes.get(shape)
        if number is None:
            with self._lock:
                if len(self._shapes) >= MOST_SHAPES:
                    self._shapes = {}
                self._next_shape += 1  # never one that stood for another shape
                number = self._shapes.setdefault(shape, self._next_shape)
        return number

    def get(self, shape: int, answer: Answer | IdAnswer,
            positions: Sequence[int]) -> dict[int, bytes]:
        """Return position → hit for those of the answer's hits that are kept."""
        kept: list[tuple[int, float, Halves]] = []
        keys = self._keys(shape, answer, positions)
        with self._lock:
            for position, score, key in keys:
                halves = self._halves.get(key)
                if halves is not None:
                    self._halves.move_to_end(key)
                    kept.append((position, score, halves))
        return {position: halves[0] + repr(score).encode() + halves[1]
                for position, score, halves in kept}

    def put(self, shape: int, answer: Answer | IdAnswer, hits: Mapping[int, Versioned]) -> None:
        """Keep hits (by position), which are of the very versions that the answer tells."""
        keys = self._keys(shape, answer, list(hits))
        with self._lock:
            for position, _, key in keys:
                around_score = hits[position].around_score
                if around_score is not None:
                    self._keep(key, around_score)

    def leave_out(self, index: str) -> None:
        """Keep nothing of an index from now on."""
        if (uuid := self._uuid_of(index)) is not None:
            self._routed.add(uuid)

    def _keep(self, key: Key, halves: Halves) -> None:
        if _size(halves) > self._most_bytes:
            return
        before = self._halves.pop(key, None)
        self._halves[key] = halves
        self._bytes += _size(halves) - (_size(before) if before is not None else 0)
        while self._bytes > self._most_bytes:
            self._bytes -= _size(self._halves.popitem(last=False)[1])

    def _keys(self, shape: int, answer: Answer | IdAnswer,
              positions: Sequence[int]) -> list[tuple[int, float, Key]]:
        """Return position, score, and what the hit is kept under, of those that may be kept.

        Beyond these bounds Java writes scores with an exponent, in other digits than Python.
        """
        keys: list[tuple[int, float, Key]] = []
        last, uuid = "", None  # a page's hits are of one index, nearly always
        for position, (index, item_id, score, version) in zip(positions, answer.told(positions),
                                                              strict=True):
            if index != last:
                last, uuid = index, self._uuid_of(index)
                if uuid in self._routed:
                    uuid = None
            if uuid is not None and version is not None and 1e-3 <= score < 1e7:
                keys.append((position, score, (shape, uuid, item_id, version)))
        return keys


class KeptHits:
    """The cache as one search uses it."""

    def __init__(self, cache: HitCache | None, search: SearchRequest) -> None:
        self._cache = cache
        shape = hit_shape(search) if cache is not None else None
        self._shape = None if shape is None or cache is None else cache.number_of(shape)
        self._shows_versions = shows_versions(search)

    def get(self, answer: Answer | IdAnswer, positions: Sequence[int]) -> dict[int, bytes]:
        """Return position → hit for those that are kept."""
        if self._cache is None or self._shape is None:
            return {}
        return self._cache.get(self._shape, answer, positions)

    def taken(self, answer: Answer | IdAnswer,
              hits: Mapping[int, bytes]) -> dict[int, bytes] | None:
        """Keep fetched hits (by position) if they can be kept; return them as asked for.

        None unless each is of the version that was ranked: it may be another document, where an
        index keeps documents under other ids than their items'.
        """
        apart = {position: versioned(hit, shows_version=self._shows_versions)
                 for position, hit in hits.items()}
        if any(hit.version != answer.version(position) for position, hit in apart.items()):
            return None
        if self._cache is not None and self._shape is not None:
            self._cache.put(self._shape, answer, self._to_be_kept(self._cache, answer, apart))
        return {position: hit.hit for position, hit in apart.items()}

    @staticmethod
    def _to_be_kept(cache: HitCache, answer: Answer | IdAnswer,
                    hits: Mapping[int, Versioned]) -> dict[int, Versioned]:
        """Return the hits (by position) that hold nothing but what the document decides."""
        chosen = {}
        for position, hit in hits.items():
            members = spans.members(hit.hit).keys()
            if "_routing" in members:
                cache.leave_out(answer.key(position)[0])
            elif members <= _OF_DOCUMENT:
                chosen[position] = hit
        return chosen


def _size(halves: Halves) -> int:
    return len(halves[0]) + len(halves[1]) + OVERHEAD_BYTES
