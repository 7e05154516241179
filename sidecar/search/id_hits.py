"""Where ids and scores stand in an answer that carries nothing else of its hits: a compiled reader.

OpenSearch writes such hits without white space and without escapes, a hundred bytes each. A general
JSON decoder would make four hundred unused Python objects from them, since the ranking wants arrays
and the page wants ten of the ids. So this reader walks over the bytes and notes offsets. Anything
of an unexpected form is left to the general reader (``answers.read_ids``). Pure; no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from sidecar.compiled import compiled_for

_QUOTE, _BACKSLASH, _COMMA, _COLON = 34, 92, 44, 58
_OPEN, _CLOSE, _BRACKET, _END = 123, 125, 91, 93
_ZERO, _NINE, _MINUS, _POINT, _LOWER_N = 48, 57, 45, 46, 110
_EXACT = 9_007_199_254_740_992  # 2^53: below it a double holds every whole number
_INDEX, _SCORE, _SEQ_NO, _PRIMARY_TERM, _FIELDS = (
    np.frombuffer(name, np.uint8).copy()
    for name in (b"_index", b"_score", b"_seq_no", b"_primary_term", b"fields"))
_MOST_DECIMALS = 22  # 10^22 is the last power of ten that a double holds


@dataclass(frozen=True, slots=True)
class IdHits:
    """Hits as offsets into the body they were read from.

    ``ids`` and ``indices`` (K, 2) int32 are [start, end) of each id and index name; ``scores`` (K)
    float64, NaN for null; ``versions`` (K, 2) int64 are _seq_no and _primary_term, or -1 and 0;
    ``start`` and ``end`` bound the array's elements; ``are_distinct``: no hit stands twice.
    """

    ids: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]
    versions: npt.NDArray[np.int64]
    start: int
    end: int
    are_distinct: bool


def find_id_hits(body: bytes, field: bytes, most: int) -> IdHits | None:
    """Find the hits of an answer; None where they do not look as expected.

    Args:
        body: JSON as OpenSearch writes it when nobody asks for ``pretty``.
        field: name of the doc value that holds the id.
        most: the number of hits asked for.
    """
    start = body.find(b'"hits":[{"') + 8
    if start < 8:
        return None
    ids, indices = np.empty((most, 2), np.int32), np.empty((most, 2), np.int32)
    scores, versions = np.empty(most, np.float64), np.empty((most, 2), np.int64)
    count, end, are_distinct = _walk(np.frombuffer(body, np.uint8), start,
                                     np.frombuffer(field, np.uint8), ids, indices, scores,
                                     versions)
    if count < 0:
        return None
    return IdHits(ids[:count], indices[:count], scores[:count], versions[:count], start, end,
                  are_distinct)


_BYTES = "Array(u1, 1, 'C', readonly=True)"
_PAIRS = "Array(i4, 2, 'C')"


@njit(inline="always")
def _string_end(body, at):  # type: ignore[no-untyped-def]
    """Return where the string that began before ``at`` closes; -1 if it holds an escape."""
    while at < len(body):
        byte = body[at]
        if byte == _QUOTE:
            return at
        if byte == _BACKSLASH:
            return -1
        at += 1
    return -1


@njit(inline="always")
def _digits(body, at):  # type: ignore[no-untyped-def]
    """Return a whole number and where it ends; ends at ``at`` if there is none."""
    number = 0
    while at < len(body) and _ZERO <= body[at] <= _NINE and number < _EXACT:
        number = 10 * number + (body[at] - _ZERO)
        at += 1
    return number, at


@njit(inline="always")
def _score(body, at):  # type: ignore[no-untyped-def]
    """Return a score and where it ends; -1 if it needs more than this to be read exactly.

    A whole number below 2^53 over a power of ten up to 10^22 is rounded once, hence correctly.
    """
    if body[at] == _LOWER_N:
        return np.nan, at + 4
    is_negative = body[at] == _MINUS
    first = at + 1 if is_negative else at
    number, at = _digits(body, first)
    if at == first or at >= len(body) - 1:
        return 0.0, -1
    divisor = 1.0
    if body[at] == _POINT:
        at += 1
        decimals = 0
        while (at < len(body) and _ZERO <= body[at] <= _NINE and number < _EXACT
               and decimals < _MOST_DECIMALS):
            number = 10 * number + (body[at] - _ZERO)
            divisor *= 10.0
            decimals += 1
            at += 1
    if number >= _EXACT or at >= len(body) or (body[at] != _COMMA and body[at] != _CLOSE):
        return 0.0, -1
    score = number / divisor
    return (-score if is_negative else score), at


@njit(inline="always")
def _reads(body, at, end, name):  # type: ignore[no-untyped-def]
    """Return whether [at, end) spells ``name``."""
    if end - at != len(name):
        return False
    for k in range(len(name)):  # noqa: SIM110 - numba compiles no generators
        if body[at + k] != name[k]:
            return False
    return True


@njit(inline="always")
def _value_start(body, at, field, last):  # type: ignore[no-untyped-def]
    """Return where the string of ``{"field":["string"]}`` starts; -1 if ``at`` reads otherwise."""
    at += 2
    if at + len(field) + 4 >= last or body[at - 2] != _OPEN or body[at - 1] != _QUOTE:
        return -1
    if not _reads(body, at, at + len(field), field):
        return -1
    at += len(field)
    if (body[at] != _QUOTE or body[at + 1] != _COLON or body[at + 2] != _BRACKET
            or body[at + 3] != _QUOTE):
        return -1
    return at + 4


@njit(inline="always")
def _is_same(body, first, second):  # type: ignore[no-untyped-def]
    """Return whether two [start, end) hold the same bytes."""
    length = first[1] - first[0]
    if second[1] - second[0] != length:
        return False
    for k in range(length):  # noqa: SIM110 - numba compiles no generators
        if body[first[0] + k] != body[second[0] + k]:
            return False
    return True


@njit(inline="always")
def _are_distinct(body, ids, indices, count):  # type: ignore[no-untyped-def]
    """Return whether no (index, id) stands twice, by a hash table of the ids.

    The hash is that of ``ranking.item_ids``, written out again: see ``sidecar.compiled``.
    """
    size = 4
    while size < 2 * count:
        size *= 2
    table = np.full(size, -1, np.int32)
    for k in range(count):
        mixed = np.uint64(14695981039346656037)
        for at in range(ids[k, 0], ids[k, 1]):
            mixed = (mixed ^ np.uint64(body[at])) * np.uint64(1099511628211)
        slot = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(size - 1))
        while table[slot] >= 0:
            other = table[slot]
            if _is_same(body, ids[k], ids[other]) and _is_same(body, indices[k], indices[other]):
                return False
            slot = (slot + 1) & (size - 1)
        table[slot] = k
    return True


@compiled_for(f"Tuple((i8, i8, b1))({_BYTES}, i8, {_BYTES}, {_PAIRS}, {_PAIRS}, f8[::1], "
              "i8[:, ::1])")
def _walk(body, at, field, ids, indices, scores, versions):  # type: ignore[no-untyped-def]  # noqa: C901 - one walk
    """Fill the arrays; return the number of hits (-1: something unexpected), where the array's
    elements end, and whether they are distinct."""
    nothing = (-1, 0, False)
    count = 0
    last = len(body) - 3  # an answer ends with the brackets of the array, of hits and its own
    while at < last:
        if body[at] != _OPEN or count == len(scores):
            return nothing
        ids[count, 0] = -1
        indices[count, 0] = indices[count, 1] = 0
        scores[count] = np.nan
        versions[count, 0], versions[count, 1] = -1, 0
        while at < last and body[at] != _CLOSE:
            at += 1
            if body[at] != _QUOTE:
                return nothing
            key = at + 1
            at = _string_end(body, key)
            if at < 0 or at >= last or body[at + 1] != _COLON:
                return nothing
            key_end = at
            at += 2
            if _reads(body, key, key_end, _INDEX):
                if body[at] != _QUOTE:
                    return nothing
                indices[count, 0] = at + 1
                at = _string_end(body, at + 1)
                indices[count, 1] = at
                at += 1
            elif _reads(body, key, key_end, _SCORE):
                scores[count], at = _score(body, at)
            elif _reads(body, key, key_end, _SEQ_NO):
                versions[count, 0], at = _digits(body, at)
            elif _reads(body, key, key_end, _PRIMARY_TERM):
                versions[count, 1], at = _digits(body, at)
            elif _reads(body, key, key_end, _FIELDS):
                at = _value_start(body, at, field, last)
                if at < 0:
                    return nothing
                ids[count, 0] = at
                at = _string_end(body, at)
                ids[count, 1] = at
                if at < 0 or at >= last or body[at + 1] != _END or body[at + 2] != _CLOSE:
                    return nothing
                at += 3
            else:
                return nothing
            if at <= 0 or at >= len(body) - 1 or (body[at] != _COMMA and body[at] != _CLOSE):
                return nothing
        if ids[count, 0] < 0:
            return nothing
        count += 1
        at += 1
        if body[at] == _END:
            return count, at, _are_distinct(body, ids, indices, count)
        if body[at] != _COMMA:
            return nothing
        at += 1
    return nothing
