"""Takes a search's answer apart into hits and what surrounds them, and puts it together again.

Hits are slices of the bytes that came, and are written back as such; nothing outside ``hits.hits``
changes. Offsets are the places of msgspec's raw values in the answer's own buffer, so the answer is
read only once. Pure; no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from sidecar.errors import UnreadableError
from sidecar.records import Candidates, PackedIds
from sidecar.search.id_hits import IdHits, find_id_hits


class _Hit(msgspec.Struct):
    index: str = msgspec.field(name="_index", default="")
    id: str | None = msgspec.field(name="_id", default=None)
    score: float | None = msgspec.field(name="_score", default=None)
    fields: dict[str, msgspec.Raw] | None = None


class _IdHit(msgspec.Struct):
    fields: dict[str, tuple[str]]
    index: str = msgspec.field(name="_index", default="")
    score: float | None = msgspec.field(name="_score", default=None)
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=0)


class _Hits(msgspec.Struct):
    hits: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b""))


class _Shards(msgspec.Struct):
    failed: int = 0


class _Failed(msgspec.Struct):
    shards: msgspec.Raw = msgspec.field(name="_shards", default_factory=lambda: msgspec.Raw(b""))


class _Answer(msgspec.Struct):
    hits: _Hits = msgspec.field(default_factory=_Hits)
    shards: _Shards = msgspec.field(name="_shards", default_factory=_Shards)


_ANSWER = msgspec.json.Decoder(_Answer)
_FAILED = msgspec.json.Decoder(_Failed)
_RAW_HITS = msgspec.json.Decoder(list[msgspec.Raw])
_ID_HITS = msgspec.json.Decoder(list[_IdHit])
_HIT = msgspec.json.Decoder(_Hit)
_NAMES: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])
_FAILURES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Version = tuple[int, int]
Told = tuple[str, str, float, Version | None]  # _index, _id, score, version
Key = tuple[str, str]  # _index and _id: an id alone may stand in several indices


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's bytes with its hits, in engine order.

    ``keys``, ``scores`` and ``hits`` are aligned; a score is NaN if the hit has none. ``hits``
    is empty if only ids were asked for, and ``versions`` (_seq_no, _primary_term) if they were not
    asked for. ``start`` and ``end`` bound the hits inside ``body`` (equal if there are none);
    ``between`` is what the writer puts between two hits.
    """

    body: bytes
    keys: tuple[Key, ...]
    scores: tuple[float, ...]
    hits: tuple[bytes, ...]
    start: int
    end: int
    between: bytes
    versions: tuple[Version, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def are_distinct(self) -> bool:
        """Return True if no hit stands twice."""
        return len(set(self.keys)) == len(self.keys)

    def key(self, position: int) -> Key:
        """Return one hit's key."""
        return self.keys[position]

    def score(self, position: int) -> float:
        """Return one hit's score."""
        return self.scores[position]

    def version(self, position: int) -> Version | None:
        """Return one hit's version; None where versions were not asked for."""
        return self.versions[position] if self.versions else None

    def told(self, positions: Sequence[int]) -> list[Told]:
        """Return what the answer tells of some hits."""
        return [(*self.keys[p], self.scores[p], self.version(p)) for p in positions]

    def candidates(self, count: int) -> Candidates:
        """Return the first ``count`` hits for the ranking."""
        return Candidates(tuple(item_id for _, item_id in self.keys[:count]),
                          np.array(self.scores[:count], dtype=np.float32))

    def with_hits(self, hits: Sequence[bytes]) -> bytes:
        """Return the answer with these hits in place of its own."""
        start, end = self.body[:self.start], self.body[self.end:]
        if not hits and self.keys:  # an empty array, as a pretty writer and a terse one put it
            space = b" " if len(self.between) > 1 else b""
            start, end = start.rstrip() + space, end.lstrip()
        return b"".join((start, self.between.join(hits), end))


class IdAnswer:
    """An ``Answer`` of ids alone, as offsets; text is made only for ids that are asked for."""

    __slots__ = ("_found", "between", "body", "end", "hits", "start")

    def __init__(self, body: bytes, found: IdHits) -> None:
        self.body = body
        self.hits: tuple[bytes, ...] = ()
        self.start = found.start
        self.end = found.end
        self.between = b","
        self._found = found

    def __len__(self) -> int:
        return len(self._found.scores)

    @property
    def are_distinct(self) -> bool:
        """Return True if no hit stands twice."""
        return self._found.are_distinct

    @property
    def keys(self) -> tuple[Key, ...]:
        """Return every hit's key."""
        return tuple(map(self.key, range(len(self))))

    @property
    def scores(self) -> tuple[float, ...]:
        """Return every hit's score."""
        return tuple(self._found.scores.tolist())

    @property
    def versions(self) -> tuple[Version, ...]:
        """Return every hit's version; empty where they were not asked for."""
        found = [self.version(position) for position in range(len(self))]
        return tuple(version for version in found if version is not None)

    def key(self, position: int) -> Key:
        """Return one hit's key."""
        (start, end), (first, last) = (self._found.indices[position].tolist(),
                                       self._found.ids[position].tolist())
        return self.body[start:end].decode(), self.body[first:last].decode()

    def score(self, position: int) -> float:
        """Return one hit's score."""
        return float(self._found.scores[position])

    def version(self, position: int) -> Version | None:
        """Return one hit's version; None where it was not asked for."""
        seq_no, term = self._found.versions[position].tolist()
        return (seq_no, term) if seq_no >= 0 else None

    def told(self, positions: Sequence[int]) -> list[Told]:
        """Return what the answer tells of some hits."""
        chosen, found, body = np.array(positions, np.intp), self._found, self.body
        return [(body[first:last].decode(), body[start:end].decode(), score,
                 (version[0], version[1]) if version[0] >= 0 else None)
                for (first, last), (start, end), score, version in zip(
                    found.indices[chosen].tolist(), found.ids[chosen].tolist(),
                    found.scores[chosen].tolist(), found.versions[chosen].tolist(), strict=True)]

    def candidates(self, count: int) -> Candidates:
        """Return the first ``count`` hits for the ranking."""
        return Candidates(PackedIds(self.body, self._found.ids[:count]),
                          self._found.scores[:count].astype(np.float32))

    def with_hits(self, hits: Sequence[bytes]) -> bytes:
        """Return the answer with these hits in place of its own."""
        return b"".join((self.body[:self.start], b",".join(hits), self.body[self.end:]))


def read_answer(body: bytes, id_field: str | None = None) -> Answer:
    """Take an answer apart.

    Args:
        body: JSON, not compressed, pretty or not.
        id_field: the doc value that stands for ``_id`` where a hit has none.

    Raises:
        UnreadableError: not a search's answer, or a hit without an id.
    """
    try:
        array = _ANSWER.decode(body).hits.hits
        raws = _RAW_HITS.decode(array) if len(memoryview(array)) else []
        hits = [_HIT.decode(raw) for raw in raws]
    except _FAILURES as error:
        raise UnreadableError(f"not readable as a search's answer: {error}") from None
    keys = tuple((hit.index, _id_of(hit, id_field)) for hit in hits)
    scores = tuple(math.nan if hit.score is None else hit.score for hit in hits)
    written = tuple(bytes(raw) for raw in raws)
    return Answer(body, keys, scores, written, *place_of_elements(body, array))


def failed_shards(body: bytes) -> bytes:
    """Return what an answer tells of its shards where some failed, as it came; else nothing.

    Raises:
        UnreadableError: the answer cannot be taken apart.
    """
    if b'"failures"' not in body:
        return b""
    try:
        return bytes(_FAILED.decode(body).shards)
    except _FAILURES as error:
        raise UnreadableError(f"answer cannot be taken apart: {error}") from error


def read_ids(body: bytes, id_field: str, most: int = 0) -> Answer | IdAnswer:
    """Take an answer apart that carries ids in a doc value, and nothing else of its hits.

    Args:
        body: JSON, not compressed.
        id_field: the doc value.
        most: the number of hits asked for, for the compiled reader; 0: the general one.

    Raises:
        UnreadableError: as ``read_answer``; also a hit whose doc value is absent or not single,
            and shards that failed, since the doc value may be why.
    """
    found = find_id_hits(body, id_field.encode(), most) if most else None
    if found is not None and _surrounds_nothing(body[:found.start] + body[found.end:]):
        return IdAnswer(body, found)
    return _read_ids(body, id_field)


def _surrounds_nothing(rest: bytes) -> bool:
    """Return True if this is an answer of no hits and no failed shards: the rest of an answer
    whose hits were found and cut out."""
    try:
        whole = _ANSWER.decode(rest)
    except _FAILURES:
        return False
    return bytes(whole.hits.hits) == b"[]" and not whole.shards.failed


def _read_ids(body: bytes, id_field: str) -> Answer:
    try:
        whole = _ANSWER.decode(body)
        array = whole.hits.hits
        hits = _ID_HITS.decode(array) if len(memoryview(array)) else []
        keys = tuple((hit.index, hit.fields[id_field][0]) for hit in hits)
    except (*_FAILURES, KeyError) as error:
        raise UnreadableError(f"no hits with {id_field} as a doc value: {error}") from None
    if whole.shards.failed:
        raise UnreadableError("shards failed where ids were asked for")
    scores = tuple(math.nan if hit.score is None else hit.score for hit in hits)
    versions: tuple[Version, ...] = ()
    if hits and all(hit.seq_no >= 0 for hit in hits):
        versions = tuple((hit.seq_no, hit.primary_term) for hit in hits)
    return Answer(body, keys, scores, (), *place_of_elements(body, array), versions)


def place_of_elements(body: bytes, array: msgspec.Raw) -> tuple[int, int, bytes]:
    """Return where an array's elements begin and end inside the body, and what stands between two.

    Writers put the same white space before the first element as before every other.
    """
    text = bytes(array)
    if not text:
        return 0, 0, b","
    lead = len(text[1:]) - len(text[1:].lstrip())
    tail = len(text[:-1].rstrip())
    origin = _address(array) - _address(body)
    return origin + 1 + lead, max(origin + tail, origin + 1 + lead), b"," + text[1:1 + lead]


def _id_of(hit: _Hit, id_field: str | None) -> str:
    if hit.id is not None:
        return hit.id
    raw = (hit.fields or {}).get(id_field or "")
    try:
        names = _NAMES.decode(raw) if raw is not None else []
    except _FAILURES:
        names = []
    if len(names) != 1:
        raise UnreadableError(f"a hit has neither _id nor one value of {id_field or 'a doc value'}")
    return names[0]


def _address(buffer: bytes | msgspec.Raw) -> int:
    """Return where a buffer lies in memory; a raw value lies inside the answer it came from."""
    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address
