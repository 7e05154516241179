"""What goes together in one visit, and what follows in the next? Pairs, tested against chance.

The test is Fisher's, one-sided: how likely so many common visits would be if the two were
independent (the tail of a hypergeometric distribution), times the number of pairs with enough
support to be tested (Bonferroni). Pairs whose result is below SURE are reported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.stats import hypergeom

from sidecar.records import IntArray
from sidecar.training.event_table import EventTable

MOST = 30
MOST_THINGS = 3000  # the most frequent, that are paired
FEWEST_VISITS = 5
FEWEST_SHARE = 0.0002  # of visits, that must hold both
TESTED = 3000  # pairs of greatest lift, and of greatest support, that are put to the test
SURE = 0.01
Findings = dict[str, Any]
Matrix = Any  # scipy.sparse.csr_matrix, which has no types


def find_pairs(visit: IntArray, thing: IntArray, names: list[str]) -> Findings:
    """Return the pairs of greatest lift and of greatest support.

    Args:
        visit: (m) of events.
        thing: (m) code into ``names`` of what an event was about, -1 for nothing.
        names: of the things.

    Returns:
        ``visits``, ``support_floor`` (visits), ``pairs`` looked at, and ``by_lift`` and
        ``by_support``: a, b, visits with both, support (share), confidence a → b and b → a, lift,
        and p after correction.
    """
    matrix, _ = _matrix(visit, thing, len(names))
    chosen, count, floor = _frequent(matrix)
    both = sparse.triu(matrix[:, chosen].T @ matrix[:, chosen], k=1).tocoo()
    return _told(both, chosen, chosen, count, count, matrix.shape[0], floor, names)


def next_visit_pairs(log: EventTable, thing: IntArray, names: list[str]) -> Findings:
    """Return what is taken in the visit after one with another thing: as ``find_pairs``, but a
    comes before b, and ``visits`` are those followed by another visit of the same user.

    Args:
        log: the events.
        thing: (n) code into ``names`` of what each event was about, -1 for nothing.
        names: of the things.
    """
    matrix, first = _matrix(log.visit, thing, len(names))
    user, ts = log.user[first], log.ts[first]
    order = np.lexsort((first, ts, user))
    follows = user[order][1:] == user[order][:-1]
    before, after = matrix[order[:-1][follows]], matrix[order[1:][follows]]
    left, left_count, floor = _frequent(before)
    right, right_count, _ = _frequent(after)
    both = (before[:, left].T @ after[:, right]).tocoo()
    both.data[left[both.row] == right[both.col]] = 0.0  # itself again: the repeats tell that
    return _told(both, left, right, left_count, right_count, before.shape[0], floor, names)


def _matrix(visit: IntArray, thing: IntArray, size: int) -> tuple[Matrix, IntArray]:
    """Return (visits, things) of ones, and each visit's first event."""
    index = np.flatnonzero(thing >= 0)
    codes, first, visit = np.unique(visit[index], return_index=True, return_inverse=True)
    matrix = sparse.csr_matrix((np.ones(len(index), np.float32), (visit, thing[index])),
                               shape=(len(codes), size))
    matrix.data[:] = 1.0
    return matrix, index[first]


def _frequent(matrix: Matrix) -> tuple[IntArray, IntArray, int]:
    """Return the things that are looked at, every thing's visits, and the floor of support."""
    floor = max(FEWEST_VISITS, int(np.ceil(FEWEST_SHARE * matrix.shape[0])))
    count = np.asarray(matrix.sum(axis=0)).ravel().astype(np.int64)
    chosen = np.argsort(-count, kind="stable")[:MOST_THINGS]
    return chosen[count[chosen] >= floor], count, floor


def _told(both: Matrix, left: IntArray, right: IntArray, left_count: IntArray,
          right_count: IntArray, visits: int, floor: int, names: list[str]) -> Findings:
    enough = both.data >= floor
    first, second = left[both.row[enough]], right[both.col[enough]]
    common = np.rint(both.data[enough]).astype(np.int64)
    a, b = left_count[first], right_count[second]
    lift = common * visits / (a * b.astype(np.float64))
    found: Findings = {"visits": visits, "support_floor": floor, "pairs": len(common)}
    for name, key in (("by_lift", lift), ("by_support", np.where(lift > 1, common, 0))):
        order = np.lexsort((-common, -key))[:TESTED]
        chance = hypergeom.sf(common[order] - 1, visits, a[order], b[order])
        corrected = np.minimum(chance * len(common), 1.0)
        sure = np.flatnonzero((corrected < SURE) & (lift[order] > 1))[:MOST]
        found[name] = [
            {"a": names[first[k]], "b": names[second[k]], "visits": int(common[k]),
             "support": float(common[k] / visits), "confidence_ab": float(common[k] / a[k]),
             "confidence_ba": float(common[k] / b[k]), "lift": float(lift[k]), "p": float(p)}
            for k, p in zip(order[sure], corrected[sure], strict=True)]
    return found
