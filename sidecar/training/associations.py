"""Item-to-item association, matrix factors and rhythms, fitted on an event log.

- ``ease``: EASE-R (Steck 2019, "Embarrassingly Shallow Autoencoders"), B = I − P · diag(1/P) with
  P = (XᵀX + λI)⁻¹ over the user-item matrix, restricted to the most bought items.
- ``together``: cosine of items over visits: bought in the same basket.
- ``after``: the same from one visit to the next: how often i is bought in the visit after one with
  j, made a cosine by the numbers of visits with i and with j.
- factors: truncated SVD of the log-count user-item matrix.
- rhythm: rebuy rate and usual interval of each item, shrunk towards its category's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from sidecar.ranking.association import Association
from sidecar.ranking.items import ItemTable
from sidecar.ranking.statistics import DAY_S
from sidecar.ranking.truncated_svd import truncated_svd
from sidecar.records import FloatArray
from sidecar.training.event_table import EventTable

EASE_ITEMS = 6000
EASE_LAMBDA = 200.0
NEIGHBOURS = 100
MOST_OF_VISIT = 2000  # items: a visit of more is no shopper's, and makes millions of pairs
SUPPORT = 3  # users or visits that must share an item before it associates with any other
FACTOR_WIDTH = 48
Matrix = Any  # scipy.sparse.csr_matrix, which has no types


def positive_part(log: EventTable) -> EventTable:
    """Return the events with a known item and a positive strength."""
    return log.take(np.flatnonzero((log.item >= 0) & log.is_positive()))


def fit_associations(log: EventTable, items: int) -> dict[str, Association]:
    """Return the tables named in the module's docstring, over ``items`` catalogue rows."""
    log = positive_part(log)
    users = _binary(log.user, log.item, (len(log.users), items))
    _, visit = np.unique(log.visit, return_inverse=True)
    visits = _narrow(_binary(visit, log.item, (int(visit.max(initial=-1)) + 1, items)))
    return {"ease": _ease(users), "together": _together(visits),
            "after": _after(log, visit, visits)}


def fit_factors(log: EventTable, items: int, seed: int) -> FloatArray:
    """Return unit item factors (items, FACTOR_WIDTH); zero rows for items nobody touched."""
    log = positive_part(log)
    counts = sparse.csr_matrix(
        (np.ones(len(log)), (log.user, log.item)), shape=(len(log.users), items))
    counts.data = np.log1p(counts.data)
    per_item = np.asarray((counts > 0).sum(axis=0)).ravel()
    counts = counts @ sparse.diags(1 / np.sqrt(np.maximum(per_item, 1)))
    rank = min(FACTOR_WIDTH, min(counts.shape) - 1)
    factors = np.zeros((items, FACTOR_WIDTH), np.float32)
    if rank < 1:
        return factors
    values, right = truncated_svd(counts, rank, seed)
    factors[:, :rank] = (right * np.sqrt(values)[:, None]).T
    factors[per_item == 0] = 0.0  # svds leaves rounding there, which is no direction
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    unit: FloatArray = factors / np.maximum(norms, 1e-9)
    return unit


def fit_rhythm(log: EventTable, table: ItemTable) -> FloatArray:
    """Return (n, 2): share of an item's buyers that came back for it, and log1p of usual days.

    Both shrink towards the mean of the item's narrowest category, and that towards the shop's,
    with a weight of ten buyers.
    """
    log = positive_part(log)
    size = len(table)
    order = np.lexsort((log.ts, log.item, log.user))
    user, item, ts = log.user[order], log.item[order], log.ts[order]
    same = (user[1:] == user[:-1]) & (item[1:] == item[:-1]) & (ts[1:] - ts[:-1] > DAY_S / 2)
    gaps = np.log1p((ts[1:] - ts[:-1])[same] / DAY_S)
    again = item[1:][same]
    pairs = np.unique(user.astype(np.int64) * size + item)
    buyers = np.bincount(pairs % size, minlength=size).astype(np.float64)
    came_back = np.unique(user[1:][same].astype(np.int64) * size + again)
    returned = np.bincount(came_back % size, minlength=size).astype(np.float64)
    gap_count = np.bincount(again, minlength=size).astype(np.float64)
    gap_sum = np.bincount(again, weights=gaps, minlength=size).astype(np.float64)
    category = table.categories[:size, 0]
    rate = _shrunk(returned, buyers, category)
    days = _shrunk(gap_sum, gap_count, category)
    return np.stack([rate, days], axis=1).astype(np.float32)


def _shrunk(total: npt.NDArray[np.float64], count: npt.NDArray[np.float64],
            category: npt.NDArray[np.int32], weight: float = 10.0) -> npt.NDArray[np.float64]:
    overall = total.sum() / max(count.sum(), 1.0)
    by_total = np.bincount(category, weights=total)
    by_count = np.bincount(category, weights=count)
    prior = (by_total + weight * overall) / (by_count + weight)
    shrunk: npt.NDArray[np.float64] = (total + weight * prior[category]) / (count + weight)
    return shrunk


def _binary(rows: npt.NDArray[np.integer], cols: npt.NDArray[np.integer],
            shape: tuple[int, int]) -> Matrix:
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, cols)), shape=shape)
    matrix.data[:] = 1.0
    return matrix


def _narrow(visits: Matrix) -> Matrix:
    """Empty the visits of more than MOST_OF_VISIT items: a crawler's session, say."""
    is_wide = np.diff(visits.indptr) > MOST_OF_VISIT
    if is_wide.any():
        visits = sparse.diags((~is_wide).astype(np.float32)) @ visits
        visits.eliminate_zeros()
    return visits


def _ease(users: Matrix) -> Association:
    support = np.asarray(users.sum(axis=0)).ravel()
    chosen = np.argsort(-support, kind="stable")[:EASE_ITEMS]
    chosen = np.sort(chosen[support[chosen] >= SUPPORT])
    if len(chosen) < 2:
        return _empty(users.shape[1])
    part = users[:, chosen]
    gram = (part.T @ part).toarray().astype(np.float32)
    gram[np.diag_indices_from(gram)] += EASE_LAMBDA
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    # weights[j, i] is what having j says of i: candidate i reads column i
    return _table(weights.T, chosen, users.shape[1])


def _together(visits: Matrix) -> Association:
    support = np.asarray(visits.sum(axis=0)).ravel()
    pairs = (visits.T @ visits).tocsr()
    pairs.setdiag(0)
    return _sparse_table(pairs, 1 / np.sqrt(np.maximum(support, 1) + 5), support)


def _after(log: EventTable, visit: npt.NDArray[np.int64], visits: Matrix) -> Association:
    """Return i after j: counts of (j in a visit, i in the user's next one), made a cosine."""
    firsts = np.unique(visit, return_index=True)[1]
    user, ts = log.user[firsts], log.ts[firsts]
    order = np.lexsort((ts, user))
    follows = user[order][1:] == user[order][:-1]
    before, after = order[:-1][follows], order[1:][follows]
    if not len(before):
        return _empty(visits.shape[1])
    pairs = (visits[after].T @ visits[before]).tocsr()
    pairs.setdiag(0)
    support = np.asarray(visits.sum(axis=0)).ravel()
    return _sparse_table(pairs, 1 / np.sqrt(np.maximum(support, 1) + 5), support)


def _sparse_table(pairs: Matrix, scale: npt.NDArray[np.floating],
                  support: npt.NDArray[np.floating]) -> Association:
    """Keep each row's strongest neighbours of ``scale_i · pairs_ij · scale_j``."""
    pairs = (sparse.diags(scale) @ pairs @ sparse.diags(scale)).tocsr()
    size = pairs.shape[0]
    lines = np.flatnonzero((support >= SUPPORT) & (np.diff(pairs.indptr) > 0))
    slot = np.full(size, -1, np.int32)
    slot[lines] = np.arange(len(lines))
    neighbours = np.zeros((len(lines), NEIGHBOURS), np.int32)
    weights = np.zeros((len(lines), NEIGHBOURS), np.float32)
    for k, line in enumerate(lines):
        cut = slice(pairs.indptr[line], pairs.indptr[line + 1])
        values, index = pairs.data[cut], pairs.indices[cut]
        if len(values) > NEIGHBOURS:
            best = np.argpartition(-values, NEIGHBOURS)[:NEIGHBOURS]
            values, index = values[best], index[best]
        neighbours[k, :len(index)], weights[k, :len(index)] = index, values
    return Association(slot, neighbours, weights)


def _table(weights: FloatArray, chosen: npt.NDArray[np.integer], size: int) -> Association:
    width = min(NEIGHBOURS, len(chosen) - 1)
    best = np.argpartition(-np.abs(weights), width, axis=1)[:, :width]
    slot = np.full(size, -1, np.int32)
    slot[chosen] = np.arange(len(chosen))
    return Association(slot, chosen[best].astype(np.int32),
                       np.take_along_axis(weights, best, axis=1).astype(np.float32))


def _empty(size: int) -> Association:
    return Association(np.full(size, -1, np.int32), np.zeros((0, NEIGHBOURS), np.int32),
                       np.zeros((0, NEIGHBOURS), np.float32))
