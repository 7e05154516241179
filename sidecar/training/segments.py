"""Segments of like-minded shoppers, fitted on each shopper's vector and what followed.

A model's segments are fitted on item factors (``fit_segments_on_factors``). The encoder's interest
vectors predicted less well; analyses use them (``fit_segments``). Users are clustered by the
direction of their vectors (k-means on unit vectors). Prediction chooses how many segments there are
and how softly a user belongs to them: the log is cut at four fifths of its strong events, segments
and lifts are learnt before the cut, and what users took after it is scored by its log-likelihood
under their segments' shares, as other users made them. The fewest segments within one standard
error of the best are taken. If no number beats the shop's own shares by two standard errors, there
are no segments.

lift[s, i] = log((c_si + a) / (e_si + a)), where c_si is the segment's decayed count of users who
took item i lately, e_si that count if the segment were like the shop, and a is PRIOR, in users.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.cluster.vq import kmeans2

from sidecar.ranking.encoder import Encoder
from sidecar.ranking.items import ItemTable
from sidecar.ranking.segments import LIFT_BOUND, Segments, attribute_key
from sidecar.ranking.statistics import DAY_S
from sidecar.records import FloatArray
from sidecar.training.associations import fit_factors, positive_part
from sidecar.training.encoder_training import states_at
from sidecar.training.event_table import EventTable

log = logging.getLogger(__name__)
SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
SHARPNESSES = (6.0, 12.0, 24.0, 48.0)
FEWEST_USERS = 20  # a segment, on average
MOST_USERS = 20_000  # that segments are learnt from
RESTARTS = 3
PRIOR = 1.0  # users; 5 predicted a third less well on two shops
HALF_LIFE_DAYS = 60.0
HELD_SHARE = 0.2  # last share of strong events, by which the number of segments is chosen
MOST_HELD = 50_000
FEWEST_HELD = 200
SURE = 2.0  # standard errors above zero, for segments to be used at all
ATTRIBUTE_PRIOR = 20.0
FEWEST_OF_VALUE = 10  # users that must share a value of an attribute
Matrix = Any  # scipy.sparse.csr_matrix, which has no types


@dataclass(frozen=True, slots=True)
class Choice:
    """How one number of segments did: log-likelihood a taken item above the shop's shares (nats),
    its standard error over users, at the sharpness that did best."""

    size: int
    sharpness: float
    gain: float
    error: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Segments; the users that they were learnt from (m codes) with their vectors (m, D)
    and weights (m, S); and the choices that were looked at, by size."""

    segments: Segments
    users: npt.NDArray[np.int64]
    vectors: FloatArray
    weights: FloatArray
    choices: Sequence[Choice]


def fit_segments(encoder: Encoder, events: EventTable, table: ItemTable, *, seed: int = 0,
                 kinds: Sequence[str] | None = None) -> Fit:
    """Find segments in a log, in the space of the encoder's interest vectors.

    Args:
        encoder: trained on this catalogue; its interest vectors place the users.
        events: the log, with rows of ``table``.
        table: the catalogue, ``vectors`` need not be filled.
        seed: of the sample of users and of k-means.
        kinds: the event words that the encoder was trained with (default: the log's).

    Returns:
        the fit; without segments where the log is too small, or none beats the shop's shares.
    """
    users, cut = _users(events, seed), cut_of(events)
    if cut is None or len(users) < 2 * FEWEST_USERS:
        return _nothing("too few users or events for segments")
    end = float(events.ts[-1]) + 1.0
    early, late = interests_at(encoder, events, table, users, (cut, end), kinds)
    return fit_on_vectors(events, users, early, late, cut, len(table), seed=seed)


def fit_segments_on_factors(events: EventTable, factors: FloatArray, *, seed: int = 0,
                            attributes: Mapping[str, Mapping[str, Any]] | None = None) -> Fit:
    """Find segments of users in the space of item factors instead of interest vectors.

    A user's vector is ``ranking.segments.factor_vector`` of what the user took. On two shops this
    predicted better than the encoder's vectors did: by .147 nats an item against .034, and by .070
    against .056.

    Args:
        events: the log.
        factors: (n, R) of the whole log, as the ranker has them: new users are placed by these.
        seed: of the sample of users and of k-means.
        attributes: user id → {column: value}; every value counts as a word, numbers had better be
            ranges.
    """
    users, cut = _users(events, seed), cut_of(events)
    if cut is None or len(users) < 2 * FEWEST_USERS:
        return _nothing("too few users or events for segments")
    before = events.until(cut)
    early = user_vectors(before, fit_factors(before, len(factors), seed))[users]
    late = user_vectors(events, factors)[users]
    return fit_on_vectors(events, users, early, late, cut, len(factors), seed=seed,
                          attributes=attributes)


def user_vectors(events: EventTable, factors: FloatArray) -> FloatArray:
    """Return ``factor_vector`` (users, R) of every user of a log."""
    part = positive_part(events)
    counts = sparse.csr_matrix((np.ones(len(part), np.float32), (part.user, part.item)),
                               shape=(len(events.users), len(factors)))
    counts.data = np.log1p(counts.data)
    found: FloatArray = np.asarray(counts @ factors, np.float32)
    return found


def _users(events: EventTable, seed: int) -> npt.NDArray[np.int64]:
    """Return codes of users with a strong event, a sample where there are very many."""
    users = np.unique(events.user[_strong(events)]).astype(np.int64)
    if len(users) > MOST_USERS:
        users = np.sort(np.random.default_rng(seed).choice(users, MOST_USERS, replace=False))
    return users


def cut_of(events: EventTable) -> float | None:
    """Return the instant that parts the strong events to learn from, and those to choose by; None
    where there are too few."""
    strong = _strong(events)
    if len(strong) < FEWEST_HELD:
        return None
    return float(events.ts[strong[int(len(strong) * (1 - HELD_SHARE))]])


def interests_at(encoder: Encoder, events: EventTable, table: ItemTable,
                 users: npt.NDArray[np.int64], instants: Sequence[float],
                 kinds: Sequence[str] | None = None) -> list[FloatArray]:
    """Return interest vectors (m, D) of users just before each instant, in one walk through the
    log; zero for a user without events before it."""
    count = len(instants)
    states = states_at(encoder, events, table, np.tile(users, count),
                       np.repeat(np.asarray(instants, np.float64), len(users)), kinds)
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        found = encoder.interest(torch.from_numpy(states).to(device)).cpu().numpy()
    found[~states.any(axis=1)] = 0.0
    return list(found.reshape(count, len(users), -1))


def fit_on_vectors(events: EventTable, users: npt.NDArray[np.int64], early: FloatArray,
                     late: FloatArray, cut: float, items: int, *, seed: int = 0,
                     attributes: Mapping[str, Mapping[str, Any]] | None = None) -> Fit:
    """Find segments of ``users`` (m codes), given their vectors (m, D) before ``cut`` and now.

    ``early`` and ``late`` may come from any model of the same width; zero rows are left out.
    """
    strong = _strong(events)
    before = strong[events.ts[strong] < cut]
    counts = _counts(events, before, users, items, cut)
    held = _held(events, strong[len(before):], users, early, seed)
    if held is None:
        return _nothing("too few users came back after the cut for segments")
    known: npt.NDArray[np.bool_] = np.asarray(early.any(axis=1))
    most = int(known.sum()) // FEWEST_USERS
    choices = [_judge(early, known, counts, held, size, seed) for size in SIZES if size <= most]
    best = max(choices, key=lambda c: c.gain, default=None)
    if best is None or best.gain <= SURE * best.error:
        return replace(_nothing("segments predict no better than the shop"), choices=choices)
    chosen = min((c for c in choices if c.gain >= best.gain - best.error), key=lambda c: c.size)
    placed: npt.NDArray[np.bool_] = np.asarray(late.any(axis=1))
    directions = _directions(late[placed], chosen.size, seed)
    bare = _bare(directions, late[placed], chosen.sharpness)
    weights = np.where(placed[:, None], bare.of_vectors(late), 0.0).astype(np.float32)
    counts = _counts(events, strong, users, items, float(events.ts[-1]) + 1.0)
    segments = replace(bare, lift=_lift(weights, counts).astype(np.float16),
                       attributes=_attribute_table(events, users, weights, bare.shares,
                                                   attributes or {}))
    log.info("%d segments of users: log-likelihood of what they took next %+.4f ± %.4f nats an "
             "item above the shop's shares", chosen.size, chosen.gain, chosen.error)
    return Fit(segments, users, late, weights, choices)


def _nothing(why: str) -> Fit:
    log.info("no segments of users: %s", why)
    none = np.zeros((0, 0), np.float32)
    return Fit(Segments.none(), np.zeros(0, np.int64), none, none, ())


def _strong(events: EventTable) -> npt.NDArray[np.int64]:
    """Return the positions of events of the kinds that a model should bring about."""
    return np.flatnonzero(events.is_target()).astype(np.int64)


def _counts(events: EventTable, index: npt.NDArray[np.int64], users: npt.NDArray[np.int64],
            items: int, now: float) -> Matrix:
    """Return (m, items): how lately each user took each item, 2^(−age / half-life), 0 for never.

    Each user counts once per item, so that daily buyers do not dominate.
    """
    place = np.full(len(events.users), -1, np.int64)
    place[users] = np.arange(len(users))
    index = index[place[events.user[index]] >= 0]
    keys = place[events.user[index]] * items + events.item[index]
    last = np.unique(keys[::-1], return_index=True)  # the log ascends: the first from its end
    at = index[::-1][last[1]]
    weight = 2.0 ** (-(now - events.ts[at]) / DAY_S / HALF_LIFE_DAYS)
    return sparse.csr_matrix((weight, (last[0] // items, last[0] % items)),
                             shape=(len(users), items))


def _held(events: EventTable, index: npt.NDArray[np.int64], users: npt.NDArray[np.int64],
          vectors: FloatArray, seed: int) -> tuple[npt.NDArray[np.int64], ...] | None:
    """Return (user position, item) pairs that were taken after the cut, each once."""
    place = np.full(len(events.users), -1, np.int64)
    place[users[vectors.any(axis=1)]] = np.flatnonzero(vectors.any(axis=1))
    index = index[place[events.user[index]] >= 0]
    pairs = np.unique(np.stack([place[events.user[index]], events.item[index]]), axis=1)
    if pairs.shape[1] < FEWEST_HELD:
        return None
    if pairs.shape[1] > MOST_HELD:
        pairs = pairs[:, np.random.default_rng(seed).choice(pairs.shape[1], MOST_HELD,
                                                            replace=False)]
    return pairs[0], pairs[1]


def _judge(vectors: FloatArray, known: npt.NDArray[np.bool_], counts: Matrix,
           held: tuple[npt.NDArray[np.int64], ...], size: int, seed: int) -> Choice:
    """Try a number of segments: each half of the users is scored by what the other half took.

    A user's own purchases in the segment's count would be a repeat rule in disguise, and the
    better the more segments there are.
    """
    user, item = held
    side = np.random.default_rng((seed, size)).random(len(vectors)) < 0.5
    directions = _directions(vectors[known], size, seed)
    choices = []
    for sharpness in SHARPNESSES:
        segments = _bare(directions, vectors[known], sharpness)
        weights = np.where(known[:, None], segments.of_vectors(vectors), 0.0)
        gain = np.zeros(len(user))
        for half in (side, ~side):
            others = np.flatnonzero(half)
            overall = np.asarray(counts[others].sum(axis=0)).ravel() + 0.01
            ratio = np.exp(_lift(weights[others], counts[others]))
            ratio /= (ratio @ overall / overall.sum())[:, None]  # shares that sum to 1
            scored = ~half[user]
            gain[scored] = np.log((weights[user[scored]] * ratio[:, item[scored]].T).sum(axis=1))
        sums = np.bincount(user, weights=gain - gain.mean(), minlength=len(vectors))
        error = float(np.sqrt((sums ** 2).sum()) / len(user))  # a user's items hang together
        choices.append(Choice(size, sharpness, float(gain.mean()), error))
    return max(choices, key=lambda c: c.gain)


def _directions(vectors: FloatArray, size: int, seed: int) -> FloatArray:
    """Return unit centroids (≤ size, D) of k-means on unit vectors, the best of some starts."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best, least = unit[:1], np.inf
    for start in range(RESTARTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty cluster is dropped below
            centroids, labels = kmeans2(unit, size, minit="++", seed=np.random.default_rng(
                (seed, size, start)))
        distance = float(((unit - centroids[labels]) ** 2).sum())
        if distance < least:
            best, least = centroids[np.unique(labels)], distance
    norms = np.linalg.norm(best, axis=1, keepdims=True)
    directions: FloatArray = (best / np.maximum(norms, 1e-9)).astype(np.float32)
    return directions


def _bare(directions: FloatArray, vectors: FloatArray, sharpness: float) -> Segments:
    """Return segments without lifts; the shares are those of the users nearest to each."""
    nearest = np.argmax(vectors @ directions.T, axis=1)
    counts = np.bincount(nearest, minlength=len(directions)) + 1.0
    return Segments(directions, np.zeros((len(directions), 0), np.float16),
                    (counts / counts.sum()).astype(np.float32), sharpness)


def _lift(weights: npt.NDArray[np.floating], counts: Matrix) -> npt.NDArray[np.float64]:
    """Return (S, items); see the module's docstring."""
    segment = np.asarray((counts.T @ weights).T)  # (S, items)
    overall = segment.sum(axis=0)
    share = segment.sum(axis=1) / max(segment.sum(), 1e-9)
    lift: npt.NDArray[np.float64] = np.log((segment + PRIOR)
                                           / (share[:, None] * overall[None, :] + PRIOR))
    return np.clip(lift, -LIFT_BOUND, LIFT_BOUND)


def _attribute_table(events: EventTable, users: npt.NDArray[np.int64], weights: FloatArray,
                     shares: FloatArray, attributes: Mapping[str, Mapping[str, Any]],
                     ) -> dict[str, FloatArray]:
    """Return "column=value" → (S), shrunk to the shares by a prior of ATTRIBUTE_PRIOR users."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts: Counter[str] = Counter()
    for position, code in enumerate(users.tolist()):
        for column, value in attributes.get(events.users[code], {}).items():
            if value is None or value == "":
                continue
            key = attribute_key(column, value)
            counts[key] += 1
            sums[key] = sums.get(key, 0.0) + weights[position].astype(np.float64)
    return {key: ((total + ATTRIBUTE_PRIOR * shares) / (total.sum() + ATTRIBUTE_PRIOR)
                  ).astype(np.float32)
            for key, total in sums.items() if counts[key] >= FEWEST_OF_VALUE}
