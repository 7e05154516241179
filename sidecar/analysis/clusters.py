"""Which shoppers are alike, and what marks each kind?

``segments`` are the ones that a model ranks by, in the space of its item factors. ``clusters`` are
found anew in the log (``training.segments``): by the interest vectors of a model's encoder or,
without a model, also by item factors (a truncated SVD of the user-item matrix).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2_contingency

from sidecar.analysis.shop import Shop
from sidecar.ranking.ranker import Ranker
from sidecar.ranking.statistics import DAY_S
from sidecar.records import FloatArray, IntArray
from sidecar.training.associations import fit_factors
from sidecar.training.event_table import EventTable
from sidecar.training.segments import fit_segments, fit_segments_on_factors, user_vectors

MOST = 12  # marks a cluster
FEWEST_SHARE = 0.05  # of a cluster's users, that must have taken what marks it
FEWEST_USERS = 5
MAP_POINTS = 2000
SHRINK = 5.0  # users like the shop's, added to a cluster before lifts are worked out
MOST_VALUES = 30  # of an attribute
Findings = dict[str, Any]


def segments(shop: Shop, ranker: Ranker, attributes: Mapping[str, Mapping[str, Any]],
             seed: int = 0) -> Findings:
    """Return the clusters that a model ranks by, with the items that it raises most for each, and
    a map of users. Their number was chosen when it was trained, by the criterion of ``clusters``.

    Args:
        shop: with rows of the ranker's item table; its users are placed as in training.
        ranker: whose segments are returned.
        attributes: user id → {column: value}, may be empty.
        seed: of samples.
    """
    known = ranker.knowledge
    factors = np.zeros((len(shop.titles), known.factors.shape[1]), np.float32)
    factors[:len(known.factors)] = known.factors  # the catalogue may have grown since
    vectors = user_vectors(shop.log, factors)
    weights = known.segments.of_vectors(vectors) if len(known.segments) else np.zeros(
        (len(vectors), 0), np.float32)
    weights[~vectors.any(axis=1)] = 0.0
    told = _told(shop, np.arange(len(vectors)), vectors, weights, attributes, seed)
    for group, lift in zip(told["clusters"], known.segments.lift, strict=True):
        best = np.argsort(-lift, kind="stable")[:MOST]
        group["raised"] = [{"name": shop.titles[i], "lift": float(np.exp(np.float32(lift[i])))}
                           for i in best if lift[i] > 0]
    return {"space": "item factors of the model", "choices": [], **told}


def clusters(shop: Shop, ranker: Ranker | None, attributes: Mapping[str, Mapping[str, Any]],
             seed: int = 0) -> Findings:
    """Return the clusters found in a log, the criterion by number, and a map of users.

    Args:
        shop: with rows of the ranker's item table, where there is a ranker.
        ranker: whose encoder places users; None: item factors do.
        attributes: user id → {column: value}, may be empty.
        seed: of samples and starts.
    """
    if ranker is not None:
        fit = fit_segments(ranker.encoder, shop.log, ranker.items, seed=seed,
                           kinds=ranker.config.kinds)
    else:
        fit = fit_segments_on_factors(
            shop.log, fit_factors(shop.log, len(shop.titles), seed), seed=seed)
    return {
        "space": "interest vectors of the model" if ranker else "item factors (SVD)",
        "choices": [{"size": c.size, "gain": c.gain, "error": c.error, "sharpness": c.sharpness}
                    for c in fit.choices],
        **_told(shop, fit.users, fit.vectors, fit.weights, attributes, seed)}


def _told(shop: Shop, users: IntArray, vectors: FloatArray, weights: FloatArray,
          attributes: Mapping[str, Mapping[str, Any]], seed: int) -> Findings:
    """Return what marks the clusters (S) of users (m codes) with vectors (m, D) and weights
    (m, S), where each stands in the one of most weight; without weight, in none."""
    placed, size = weights.any(axis=1), weights.shape[1]
    users, vectors = users[placed], vectors[placed]
    label = weights[placed].argmax(axis=1) if size else np.zeros(0, np.int64)
    return {"clusters": _describe(shop, users, label, size), "map": _map(vectors, label, seed),
            "attributes": _attributes(shop.log, users, label, attributes, size)}


def _describe(shop: Shop, users: IntArray, label: IntArray, size: int) -> list[Findings]:
    log, strong = shop.log, shop.strong()
    last = np.full(len(log.users), -np.inf)
    np.maximum.at(last, log.user, log.ts)
    first = np.unique(log.visit[strong], return_index=True)[1]
    visits = np.bincount(log.user[strong][first], minlength=len(log.users))
    now = float(log.ts[-1]) if len(log) else 0.0
    marks = {name: _marks(log.user[strong], group.of_events(log)[strong], group.names, users,
                          label, size) for name, group in shop.groupings.items()}
    marks["item"] = _marks(log.user[strong], log.item[strong].astype(np.int64), shop.titles,
                           users, label, size)
    spend = np.array([shop.tally.spend.get(user, np.nan) for user in log.users])
    found = []
    for k in range(size):
        members = users[label == k]
        found.append({
            "cluster": k + 1, "users": len(members), "share": len(members) / max(len(users), 1),
            "median_days_since_last": _median((now - last[members]) / DAY_S)
            if log.has_times else None,
            "median_visits": _median(visits[members].astype(np.float64)),
            "median_spend": _median(spend[members]),
            "marks": {name: told[k] for name, told in marks.items()}})
    return found


def _marks(user: npt.NDArray[np.integer], thing: IntArray, names: list[str], users: IntArray,
           label: IntArray, size: int) -> list[list[Findings]]:
    """Return, for each cluster, what most of its users took beyond others: by lift of the share of
    users, shrunk to 1 by SHRINK users like all."""
    place = np.full(int(max(user.max(initial=-1), users.max(initial=-1))) + 1, -1, np.int64)
    place[users] = label
    good = (thing >= 0) & (place[user] >= 0) if len(user) else np.zeros(0, bool)
    pairs = np.unique(user[good].astype(np.int64) * len(names) + thing[good])
    counts = np.zeros((size, len(names)))
    np.add.at(counts, (place[pairs // len(names)], pairs % len(names)), 1.0)
    members = np.bincount(label, minlength=size)
    overall = counts.sum(axis=0) / max(len(users), 1)
    found = []
    for k in range(size):
        share = (counts[k] + SHRINK * overall) / (members[k] + SHRINK)
        lift = share / np.maximum(overall, 1e-12)
        floor = max(FEWEST_USERS, FEWEST_SHARE * members[k])
        fit = np.flatnonzero((counts[k] >= floor) & (lift > 1))
        order = fit[np.argsort(-lift[fit], kind="stable")][:MOST]
        found.append([{"name": names[i], "users": int(counts[k, i]),
                       "share": float(counts[k, i] / max(members[k], 1)),
                       "share_of_all": float(overall[i]), "lift": float(lift[i])}
                      for i in order])
    return found


def _map(interests: FloatArray, label: IntArray, seed: int) -> list[tuple[float, float, int]]:
    """Return (x, y, cluster from 1) of a sample: the two main directions of unit vectors."""
    if len(interests) < 3 or interests.shape[1] < 2:
        return []
    index = np.random.default_rng(seed).permutation(len(interests))[:MAP_POINTS]
    unit = interests / np.maximum(np.linalg.norm(interests, axis=1, keepdims=True), 1e-9)
    _, _, directions = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    flat = (unit[index] - unit.mean(axis=0)) @ directions[:2].T
    return [(float(x), float(y), int(k) + 1) for (x, y), k in zip(flat, label[index], strict=True)]


def _attributes(log: EventTable, users: IntArray, label: IntArray,
                attributes: Mapping[str, Mapping[str, Any]], size: int) -> list[Findings]:
    """Return, for each attribute, how its values spread over clusters, with Cramér's V (0: not at
    all, 1: each cluster has values of its own) and the p of a chi-squared test. ``share`` is by
    cluster, None for one whose users do not have the attribute."""
    names = list(dict.fromkeys(column for user in attributes.values() for column in user))
    found = []
    for name in names if size > 1 else ():
        values = [attributes.get(log.users[code], {}).get(name) for code in users.tolist()]
        told = sorted({str(v) for v in values if v not in (None, "")})
        if not 2 <= len(told) <= MOST_VALUES:
            continue
        table = np.zeros((len(told), size))
        for value, k in zip(values, label.tolist(), strict=True):
            if value not in (None, ""):
                table[told.index(str(value)), k] += 1
        members = table.sum(axis=0)
        if np.count_nonzero(members) < 2:
            continue
        seen = table[:, members > 0]
        chi2, p = chi2_contingency(seen, correction=False)[:2]  # Yates' keeps V below 1
        total = table.sum()
        found.append({"attribute": name, "users": int(total),
                      "cramers_v": float(np.sqrt(chi2 / total / (min(seen.shape) - 1))),
                      "p": float(p), "values": told, "share_of_all":
                      (table.sum(axis=1) / total).tolist(),
                      "share": [(column / count).tolist() if count else None
                                for column, count in zip(table.T, members, strict=True)]})
    return sorted(found, key=lambda entry: -entry["cramers_v"])


def _median(values: npt.NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
