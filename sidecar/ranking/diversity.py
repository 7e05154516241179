"""How is a page kept from showing ten of a kind? Hits give way to hits unlike those above them.

Maximal marginal relevance (Carbonell and Goldstein 1998) on the blended score, which is a log-odds:
the next place goes to the hit with the greatest score − strength · PENALTY · (likeness to the most
alike hit above it), so that at full strength a twin of a hit above counts for a twentieth of its
odds. Also, while hits of others are left, no brand and no narrowest category gets more than its
share of each run of PAGE places. What a hit loses is a part of its score, ``diversity``, so parts
still add up and scores still fall from place to place.
"""

from __future__ import annotations

import numpy as np

from sidecar.ranking.items import ItemTable
from sidecar.records import FloatArray, IntArray

PENALTY = 3.0
PAGE = 10
SMALLEST_SHARE = 0.3  # of a page that one brand or category gets at full strength
DEPTH = 50  # places that are diversified; those after them keep the order of scores


def diversify(scores: FloatArray, rows: IntArray, items: ItemTable,
              strength: float) -> tuple[IntArray, FloatArray]:
    """Order K candidates.

    Args:
        scores: (K) blended scores.
        rows: (K) of the item table, -1 for unknown items, which are like nothing.
        items: vectors, brands and categories.
        strength: 0 (the order of scores) to 1.

    Returns:
        order (K), candidate positions best first, ties in engine order; and the scores (K) at
        which they reached their places, at most their own, falling along the order.
    """
    order = np.argsort(-scores, kind="stable").astype(np.int64)
    if strength <= 0 or len(order) < 3:
        return order, scores
    head = min(DEPTH, len(order))
    chosen, values = _pick(scores, head, _directions(rows, items), _kinds(rows, items), strength)
    rest = order[~np.isin(order, chosen)]
    full = np.concatenate([chosen, rest])
    reached = np.empty(len(scores), np.float32)
    reached[full] = np.minimum.accumulate(np.concatenate([values, scores[rest]]))
    return full, reached


def page_cap(strength: float) -> int:
    """Return how many of PAGE places one brand or category may have."""
    return int(np.ceil(round(PAGE * (1 - (1 - SMALLEST_SHARE) * strength), 6)))


def _pick(scores: FloatArray, places: int, directions: FloatArray, kinds: IntArray,
          strength: float) -> tuple[IntArray, FloatArray]:
    """Fill ``places`` greedily; return candidate positions and the scores they were picked at."""
    left = scores.astype(np.float32)  # of candidates not picked; -inf for the others
    most_alike = np.zeros(len(scores), np.float32)
    cap, shown = page_cap(strength), np.zeros(int(kinds.max(initial=0)) + 1, np.int64)
    chosen = np.empty(places, np.int64)
    values = np.empty(places, np.float32)
    for place in range(places):
        if place % PAGE == 0:
            shown[:] = 0
        value = left - np.float32(strength * PENALTY) * most_alike
        full = (shown >= cap)[kinds].any(axis=1) if place % PAGE >= cap else None
        allowed = value if full is None else np.where(full, -np.inf, value)
        best = int(np.argmax(allowed))
        if allowed[best] == -np.inf:  # only hits of full kinds are left
            best = int(np.argmax(value))
        chosen[place], values[place] = best, value[best]
        left[best] = -np.inf
        shown[kinds[best][kinds[best] > 0]] += 1
        np.maximum(most_alike, directions @ directions[best], out=most_alike)
    return chosen, values


def _directions(rows: IntArray, items: ItemTable) -> FloatArray:
    """Return (K, D): each hit's unit vector about the window's mean, zero where unknown.

    About the mean, because all hits of a query are alike in what the query asked for.
    """
    known = rows >= 0
    vectors = items.vectors[np.where(known, rows, 0)].astype(np.float32)  # half where shared
    vectors[~known] = 0.0
    vectors = (vectors - vectors.sum(axis=0) / max(int(known.sum()), 1)) * known[:, None]
    norms = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    directions: FloatArray = vectors / np.maximum(norms, 1e-9)
    return directions


def _kinds(rows: IntArray, items: ItemTable) -> IntArray:
    """Return (K, 2): each hit's brand and narrowest category as codes from 1, 0 for none.

    A kind that all hits share is none: to hold it back would only bring it later.
    """
    known = rows >= 0
    index = np.where(known, rows, 0)
    found = np.zeros((len(rows), 2), np.int64)
    first = 1
    for column, codes in enumerate((items.brand[index], items.categories[index, 0])):
        names, code = np.unique(np.where(known, codes, 0), return_inverse=True)
        if len(names) > 1:
            found[:, column] = np.where(names[code] > 0, code + first, 0)
        first += len(names)
    return found
