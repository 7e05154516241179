"""Which facts about a hit, a query and a shopper does the blend read? Arrays, not loops over hits.

``Situation.features`` returns one row a candidate; every column belongs to one signal
(``SIGNALS``), and the blend turns each signal's columns into that signal's part of the score.
Training, evaluation and serving call this one function, so a feature cannot differ between them.

Columns hold raw facts; ``standardise`` appends each one's z-score within the window, because
an order depends on how candidates of one search differ, not on how searches do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sidecar.ranking.association import Association
from sidecar.ranking.history import Profile, Trail
from sidecar.ranking.items import COLUMNS as ITEM_COLUMNS
from sidecar.ranking.items import ItemTable
from sidecar.ranking.statistics import DAY_S, EVER, HALF_LIVES_DAYS, ItemStatistics
from sidecar.records import FloatArray

IntVector = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[np.floating]]

UNPERSONAL = ("engine", "popularity", "quality")
PERSONAL = ("repeat", "content", "collaborative", "interest")
SIGNALS = UNPERSONAL + PERSONAL


WEIGHTINGS = ("all", "fresh", "latest")  # of a history, for what it is associated with


def empty_scratch(items: int) -> FloatArray:
    """Return a working array for ``items`` rows; between uses it holds zeros."""
    return np.zeros((items, len(WEIGHTINGS)), np.float32)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a trained model knows besides its weights, all indexed by item row.

    ``rhythm`` (n, 2): how often buyers of an item come back for it, and after how many days
    (log1p). ``associations`` by name. ``factors`` (n, R): item factors of the user-item matrix.
    ``final_counts`` (n), in training only: strong events of the whole log, for scaling the
    catalogue's counts back to the moment of a list.
    """

    items: ItemTable
    statistics: ItemStatistics
    associations: Mapping[str, Association] = field(default_factory=dict)
    factors: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    rhythm: FloatArray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    final_counts: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    scratch: FloatArray = field(default_factory=lambda: empty_scratch(0))


@dataclass(frozen=True, slots=True)
class Situation:
    """One search: K candidates in engine order, a user's trail, an instant.

    ``interest`` (K): the encoder's logits v_i·h + b, zeros without an encoder.
    """

    rows: IntVector
    engine_scores: FloatArray
    trail: Trail
    now: float
    query: str | None = None
    interest: FloatArray | None = None


def columns(knowledge: Knowledge, situation: Situation) -> dict[str, Columns]:
    """Return {signal: {column: (K)}} of raw facts, and the search's context under ``context``."""
    profile = Profile(situation.trail, knowledge.items, situation.now)
    window = _Window(knowledge, situation)
    found = {
        "engine": _engine(situation, window),
        "popularity": _popularity(knowledge, situation, window),
        "quality": _quality(knowledge, window),
        "repeat": _repeat(knowledge, situation, profile, window),
        "content": _content(knowledge, situation, profile, window),
        "collaborative": _collaborative(knowledge, situation, profile, window),
    }
    if situation.interest is not None:
        found["interest"] = {"interest": situation.interest}
    found["context"] = _context(found, situation, profile, window)
    return found


class _Window:
    """Lookups that several signals share; unknown items (row -1) read row 0 and are masked."""

    def __init__(self, knowledge: Knowledge, situation: Situation) -> None:
        rows, items = situation.rows, knowledge.items
        self.known = rows >= 0
        self.rows = np.where(self.known, rows, 0)
        self.size = len(rows)
        self.brand = items.brand[self.rows].astype(np.int64) * self.known
        self.categories = items.categories[self.rows].astype(np.int64) * self.known[:, None]
        self.numbers = items.numbers[self.rows]
        self.text = items.text[self.rows] * self.known[:, None]
        self.in_statistics = self.known & (rows < len(knowledge.statistics.first))
        self.stat_rows = np.where(self.in_statistics, rows, 0)


def _engine(situation: Situation, window: _Window) -> Columns:
    scores = np.nan_to_num(situation.engine_scores.astype(np.float64))
    top = max(float(scores.max(initial=0.0)), 1e-9)
    ranks = np.arange(window.size)
    return {
        "score_ratio": scores / top,
        "reciprocal_rank": 1 / np.log2(ranks + 2),
        "log_score": np.log1p(np.maximum(scores, 0)),
    }


def _popularity(knowledge: Knowledge, situation: Situation, window: _Window) -> Columns:
    statistics, now = knowledge.statistics, situation.now
    passed = max(now - statistics.clock, 0.0)
    lives = np.array(HALF_LIVES_DAYS) * DAY_S
    strong = statistics.strong[window.stat_rows] * window.in_statistics[:, None]
    strong = strong * 2.0 ** (-passed / lives)
    weak = statistics.weak[window.stat_rows] * window.in_statistics[:, None]
    weak = weak * 2.0 ** (-passed / lives[1:3])
    first = np.where(window.in_statistics, statistics.first[window.stat_rows], np.nan)
    last = np.where(window.in_statistics, statistics.last[window.stat_rows], np.nan)
    found: Columns = {f"strong_{int(days)}": np.log(strong[:, k] + 0.05)
                      for k, days in enumerate(HALF_LIVES_DAYS)}
    total = strong.sum(axis=0) + 1e-9
    found["share_14"] = np.sqrt(strong[:, 1] / total[1])
    found["share_ever"] = np.sqrt(strong[:, 3] / total[3])
    found["weak_14"] = np.log1p(weak[:, 0])
    found["weak_60"] = np.log1p(weak[:, 1])
    found["trend"] = np.log((strong[:, 1] / 14 + 0.02) / (strong[:, 2] / 60 + 0.02))
    found["burst"] = np.log((strong[:, 0] / 3 + 0.02) / (strong[:, 1] / 14 + 0.02))
    found["days_since_sold"] = _log_days(now, last, 400)
    found["days_on_sale"] = _log_days(now, first, 0)
    found["never_sold"] = (~np.isfinite(last)).astype(np.float64)
    return found


def _quality(knowledge: Knowledge, window: _Window) -> Columns:
    """Facts of the catalogue itself; a count or a price is read on a log scale.

    A catalogue is a snapshot of the day it was written. A list of an earlier day must not read
    sales that were still to come, so its counts are scaled by the share of an item's events that
    had happened by then.
    """
    found: Columns = {}
    share = np.ones(window.size)
    if len(knowledge.final_counts):
        so_far = knowledge.statistics.strong[window.stat_rows, EVER]
        share = np.minimum((so_far + 0.5) / (knowledge.final_counts[window.stat_rows] + 0.5), 1.0)
    for k, name in enumerate(ITEM_COLUMNS):
        value = window.numbers[:, k].astype(np.float64)
        if name == "created_at":
            found[name] = value / (365 * DAY_S)
        elif name in ("rating", "promotion"):
            found[name] = value
        elif name == "price":
            found[name] = np.log1p(np.maximum(value, 0))
        else:
            found[name] = np.log1p(np.maximum(value, 0) * share)
    return found


def _repeat(knowledge: Knowledge, situation: Situation, profile: Profile,
            window: _Window) -> Columns:
    keys = (situation.rows + 1) * window.known
    sums = profile.by_item.lookup(keys)
    first, last = profile.item_times(keys)
    since = (situation.now - last) / DAY_S
    count = sums[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        own_interval = np.where(count > 1, (last - first) / DAY_S / np.maximum(count - 1, 1),
                                np.nan)
        rhythm = _gather(knowledge.rhythm, window, 2)
        usual = np.expm1(rhythm[:, 1])
        expected = np.where(np.isfinite(own_interval),
                            (own_interval * (count - 1) + usual) / np.maximum(count, 1), usual)
        due = np.log((since + 1) / (expected + 1))
    bought = count > 0
    total = count.sum() + 1e-9
    category = profile.by_category.lookup(window.categories[:, 0])
    return {
        "bought": bought.astype(np.float64),
        "count": np.log1p(count),
        "decay7": np.log1p(4 * sums[:, 1]),
        "decay30": np.log1p(2 * sums[:, 2]),
        "decay120": np.log1p(sums[:, 3]),
        "weak": np.log1p(4 * sums[:, 4]),
        "returned": np.minimum(sums[:, 5], 2),
        "share": count / total,
        "loyalty": count / (category[:, 0] + 1.0),
        "recency": np.where(bought, 1 / (1 + np.nan_to_num(since) / 14), 0.0),
        "latest": bought & (last >= np.nanmax(last, initial=-np.inf) - 1.0),
        "due": np.where(bought, np.clip(np.nan_to_num(due), -3, 3), 0.0),
        "overdue": np.where(bought, np.abs(np.clip(np.nan_to_num(due), -3, 3)), 0.0),
        "rebuy_rate": rhythm[:, 0],
        "bought_rebuy": bought * rhythm[:, 0],
        "touched_not_bought": (~bought & np.isfinite(last)).astype(np.float64),
    }


def _content(knowledge: Knowledge, situation: Situation, profile: Profile,
             window: _Window) -> Columns:
    items = knowledge.items
    found: Columns = {}
    brand = profile.by_brand.lookup(window.brand)
    events = profile.totals[0] + 1e-9
    found["brand_count"] = np.log1p(brand[:, 0])
    found["brand_decay30"] = np.log1p(brand[:, 2])
    found["brand_share"] = np.sqrt(brand[:, 0] / events)
    found["brand_weak"] = np.log1p(4 * brand[:, 4])
    for level in range(window.categories.shape[1]):
        sums = profile.by_category.lookup(window.categories[:, level])
        found[f"category{level}_count"] = np.log1p(sums[:, 0])
        found[f"category{level}_decay30"] = np.log1p(sums[:, 2])
        if level == 0:
            found["category0_weak"] = np.log1p(4 * sums[:, 4])
            found["category0_since"] = _log_days(
                situation.now, profile.category_time(window.categories[:, 0]), 400)
    rows, weights = profile.rows, profile.values[:, 3] + profile.values[:, 4]
    n = len(rows)
    if not n:
        zero = np.zeros(window.size)
        return found | dict.fromkeys(
            ("text_long", "text_recent", "text_last", "text_near", "text_near3", "text_window",
             "brand_here", "price_gap", "price_gap_here"), zero)
    text = items.text[rows]
    recent = profile.unique_rows[np.argsort(-profile.last_ts, kind="stable")[:40]]
    long = _unit(weights @ text)
    short = _unit(text[-10:].sum(axis=0))
    visit = _unit(text[profile.ts >= profile.ts[-1] - 3600].sum(axis=0))
    likeness = window.text @ np.vstack([long, short, visit, items.text[recent]]).T  # (K, 3+R)
    near = np.where(recent[None, :] == situation.rows[:, None], 0.0, likeness[:, 3:])
    found["text_long"], found["text_recent"], found["text_last"] = likeness[:, :3].T
    top = np.sort(near, axis=1)[:, -3:]
    found["text_near"], found["text_near3"] = top[:, -1], top.mean(axis=1)
    # what this shopper takes among items like those in this window: weighted by likeness
    centre = _unit(window.text.mean(axis=0))
    pull = np.maximum(text @ centre, 0.0) ** 4 * (profile.values[:, 3] + profile.values[:, 4])
    found["text_window"] = window.text @ _unit(pull @ text)
    here = np.bincount(items.brand[rows], weights=pull, minlength=1)
    inside = window.brand < len(here)
    found["brand_here"] = np.where(inside & (window.brand > 0),
                                   here[np.where(inside, window.brand, 0)], 0) / (pull.sum() + 1e-9)
    price = np.log1p(np.maximum(items.numbers[rows, 0], 0))
    own = np.log1p(np.maximum(window.numbers[:, 0], 0))
    found["price_gap"] = np.abs(own - np.average(price, weights=weights + 1e-6))
    found["price_gap_here"] = np.abs(own - np.average(price, weights=pull + 1e-9))
    return found


def _collaborative(knowledge: Knowledge, situation: Situation, profile: Profile,
                   window: _Window) -> Columns:
    found: Columns = {}
    size = max((len(a.slot) for a in knowledge.associations.values()), default=0)
    dense = knowledge.scratch
    if len(dense) < size:
        dense = empty_scratch(size)
    rows = profile.unique_rows
    inside = rows < len(dense)
    rows = rows[inside]
    sums = profile.by_item.sums[inside]
    plain = np.sqrt(np.minimum(sums[:, 0] + sums[:, 4], 9.0))
    fresh = sums[:, 2] + 0.5 * sums[:, 4]
    latest = (profile.last_ts[inside] >= profile.ts[-1] - 3600).astype(np.float32) if len(
        profile.ts) else plain
    dense[rows] = np.stack([plain, fresh, latest], axis=1)
    for name, association in knowledge.associations.items():
        scores = association.score(situation.rows, dense)
        found |= {f"{name}_{label}": scores[:, k] for k, label in enumerate(WEIGHTINGS)}
    dense[rows] = 0.0
    factors = knowledge.factors
    known = profile.unique_rows < len(factors)
    if factors.shape[1]:
        mine = factors[profile.unique_rows[known]]
        strengths = np.log1p(profile.by_item.sums[known, 0] + profile.by_item.sums[known, 4])
        fresh = profile.by_item.sums[known, 2]
        users = np.stack([_unit(strengths @ mine), _unit(fresh @ mine)], axis=1)
        dots = _gather(factors, window, factors.shape[1]) @ users
        found["factors_long"], found["factors_recent"] = dots[:, 0], dots[:, 1]
    return found


def _context(found: Mapping[str, Columns], situation: Situation, profile: Profile,
             window: _Window) -> Columns:
    """Facts of the search as a whole, one number each, that the gate reads."""
    repeat = found["repeat"]
    bought = repeat["bought"]
    share = repeat["share"]
    scores = found["engine"]["score_ratio"]
    narrow = window.categories[:, 0]
    _, counts = np.unique(narrow, return_counts=True)
    quiet = (situation.now - profile.ts[-1]) / DAY_S if profile.length else 400.0
    unique = len(profile.unique_rows)
    popular = found["popularity"]["share_ever"]
    numbers = {
        "length": np.log1p(profile.length),
        "unique_share": unique / (profile.length + 1.0),
        "quiet_days": np.log1p(max(quiet, 0.0)),
        "bought_here": np.log1p(bought.sum()),
        "count_here": np.log1p(np.expm1(repeat["count"]).sum()),
        "recent_here": np.log1p(np.expm1(repeat["decay30"]).sum()),
        "top_share": share.max(initial=0.0),
        "soonest_due": repeat["due"].max(initial=-3.0),
        "category_here": found["content"]["category0_count"].mean() if window.size else 0.0,
        "since_here": found["content"]["category0_since"].mean() if window.size else 0.0,
        "rebuy_here": repeat["rebuy_rate"].mean() if window.size else 0.0,
        "candidates": np.log1p(window.size),
        "narrowness": counts.max(initial=0) / max(window.size, 1),
        "score_spread": scores.std() if window.size else 0.0,
        "popular_peak": popular.max(initial=0.0),
    }
    return {name: np.array([value]) for name, value in numbers.items()}


def _gather(table: FloatArray, window: _Window, width: int) -> FloatArray:
    if not len(table):
        return np.zeros((window.size, width), np.float32)
    inside = window.known & (window.rows < len(table))
    return table[np.where(inside, window.rows, 0)] * inside[:, None]


def _log_days(now: float, ts: npt.NDArray[np.float64], missing: float) -> npt.NDArray[np.float64]:
    days = np.where(np.isfinite(ts), (now - ts) / DAY_S, missing)
    return np.log1p(np.maximum(days, 0.0))


def _unit(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector
