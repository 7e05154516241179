"""The facts of a search, compiled: one pass over the history, one over the candidates.

``fill`` writes one row per candidate and the context of the search. As some two hundred numpy
calls, a hundred candidates took 3 ms, nearly all of it the calls themselves. Compiled, they take a
tenth of that, and training works out its lists faster by the same factor.

Each signal has a tuple of its columns' names and a function that writes them. All of them are in
one file, since a compiled function that is kept on disk does not notice a change in another one's
file (``compiled``). Legend: K candidates, n past events, G items (or brands, or categories) among
them.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sidecar.compiled import compiled
from sidecar.ranking.imputation import DEFAULT_RULES
from sidecar.ranking.statistics import DAY_S, HALF_LIVES_DAYS, TRIAL_LIVES_DAYS, WEAK_LIVES_DAYS

ENGINE = ("score_ratio", "reciprocal_rank", "log_score")
POPULARITY = (
    "strong_3", "strong_14", "strong_60", "strong_ever", "strong_1", "trial_14", "trial_60",
    "weak_14", "weak_60", "share_14", "share_ever", "share_trial", "trial_part", "trend", "burst",
    "days_since_sold", "days_on_sale", "never_sold")
QUALITY = tuple(DEFAULT_RULES)  # the catalogue's numeric columns
MEMORY = ("strong", "weak", "strong_share", "weak_share")
REPEAT = (
    "bought", "count", "decay7", "decay30", "decay120", "weak", "returned", "share", "loyalty",
    "recency", "latest", "due", "overdue", "rebuy_rate", "bought_rebuy", "touched_not_bought",
    "visit_decay", "visit_rate", "visits_since")
CONTENT = (
    "brand_count", "brand_decay30", "brand_share", "brand_weak", "category0_count",
    "category0_decay30", "category1_count", "category1_decay30", "category2_count",
    "category2_decay30", "category0_weak", "category0_since", "text_long", "text_recent",
    "text_last", "text_near", "text_near3", "text_window", "brand_here", "price_gap",
    "price_gap_here")
ASSOCIATIONS = ("ease", "together", "after")
_WAYS = ("all", "fresh", "latest")  # to weigh the items of a history
_TIES = (*_WAYS, "best")
COLLABORATIVE = (*(f"{name}_{tie}" for name in ASSOCIATIONS for tie in _TIES),
                 "factors_long", "factors_recent")
INTEREST = ("interest",)
SEGMENT = ("lift",)
CONTEXT = (
    "length", "unique_share", "quiet_days", "bought_here", "count_here", "recent_here",
    "top_share", "soonest_due", "category_here", "since_here", "rebuy_here", "candidates",
    "narrowness", "score_spread", "popular_peak", "novelty", "novelty_here", "visits",
    "visit_size", "visit_gap", "memory")
COLUMNS = {"engine": ENGINE, "popularity": POPULARITY, "quality": QUALITY, "memory": MEMORY,
           "repeat": REPEAT, "content": CONTENT, "collaborative": COLLABORATIVE,
           "interest": INTEREST, "segment": SEGMENT}  # in the order in which they stand in a row
_LONG_AGO_DAYS = 400.0
# The context of somebody without history: 0, or as told; NaN where it does not depend on one.
_STRANGER = {
    "quiet_days": math.log1p(_LONG_AGO_DAYS), "since_here": math.log1p(_LONG_AGO_DAYS),
    "novelty": 0.5, "novelty_here": 0.5,
    **dict.fromkeys(("rebuy_here", "candidates", "narrowness", "score_spread", "popular_peak",
                     "memory"), math.nan)}
STRANGER = tuple(_STRANGER.get(name, 0.0) for name in CONTEXT)
_SUMS = ("count", "decay7", "decay30", "decay120", "weak", "returned")  # of a history's events


def _places(names: Iterable[str]) -> Any:
    """Return the names' places to be read by name, which compiled code takes for constants."""
    make: Any = namedtuple  # whose names mypy wants to be written out
    known = tuple(names)
    return make("_Places", known)(*range(len(known)))


# where each signal's columns begin and end, and where a column stands within them
_END = _places(COLUMNS)._make(accumulate(map(len, COLUMNS.values())))
_START = _END._make(end - len(names) for end, names in zip(_END, COLUMNS.values(), strict=True))
_ENGINE, _POPULARITY, _QUALITY, _MEMORY = map(_places, (ENGINE, POPULARITY, QUALITY, MEMORY))
_REPEAT, _CONTENT, _COLLABORATIVE = map(_places, (REPEAT, CONTENT, COLLABORATIVE))
_CONTEXT = _places(CONTEXT)
_STRONG_COLUMNS = tuple(map(POPULARITY.index, (  # a half-life each, as are the next two
    "strong_3", "strong_14", "strong_60", "strong_ever", "strong_1")))
_TRIAL_COLUMNS = tuple(map(POPULARITY.index, ("trial_14", "trial_60")))
_WEAK_COLUMNS = tuple(map(POPULARITY.index, ("weak_14", "weak_60")))
_COUNTED = tuple(map(QUALITY.index, ("review_count", "sales", "favourites", "shares")))
_LEVEL_COUNTS = tuple(CONTENT.index(f"category{level}_count") for level in range(3))
_LEVEL_DECAYS = tuple(CONTENT.index(f"category{level}_decay30") for level in range(3))
# the same for what is worked out on the way
_SUM, _WAY, _TIE = _places(_SUMS), _places(_WAYS), _places(_TIES)
_RHYTHM = _places(("rate", "days"))  # of coming back for an item; log1p
_HELD = _places(("long", "recent", "last", "window"))  # text vectors to hold candidates against
_TASTE = _places(("long", "recent"))  # factor vectors of a shopper

_LIVES = tuple(days * DAY_S / math.log(2) for days in HALF_LIVES_DAYS)
_WEAK_LIVES = tuple(days * DAY_S / math.log(2) for days in WEAK_LIVES_DAYS)
_TRIAL_LIVES = tuple(days * DAY_S / math.log(2) for days in TRIAL_LIVES_DAYS)
_OF_3, _OF_14, _OF_60, _EVER = map(HALF_LIVES_DAYS.index, (3.0, 14.0, 60.0, 10_000.0))
_TRIAL_OF_60 = TRIAL_LIVES_DAYS.index(60.0)  # places of counts by half-life, as those before
_LIFE_7, _LIFE_30, _LIFE_120 = (days * DAY_S / math.log(2) for days in (7.0, 30.0, 120.0))
_VISIT_GAP_S = 1800.0
_VISIT_KEPT = 0.8  # what a purchase is worth after each further visit
_SIEVE = 8192  # a power of two, so that a row's low bits are its place
_NEAR = 40  # latest items that a candidate's text is held against
_SAME_VISIT_S = 3600.0
_YEAR_S = 365 * DAY_S
_MOST = 60_000.0  # of a number read as it is: training keeps facts as float16
TEXT_STEPS = 127  # a text vector's elements are kept as whole numbers of these parts of one
_LATELY = 30  # strong events that tell how much of the new a shopper takes now

I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class Hits(NamedTuple):
    """The candidates: ``rows`` (K), -1 unknown; ``engine``, ``interest``, ``segment`` (K)."""

    rows: I64
    engine: F32
    interest: F32
    segment: F32


class Events(NamedTuple):
    """The events on known items, oldest first: ``rows``, ``ts``, ``weight``, ``strong`` (n)."""

    rows: I64
    ts: F64
    weight: F32
    strong: npt.NDArray[np.bool_]


class HitVectors(NamedTuple):
    """``Hits`` with their ``text`` (K, T) and ``factors`` (K, R), zero where unknown."""

    rows: I64
    engine: F32
    text: F32
    factors: F32


class EventVectors(NamedTuple):
    """``Events`` with their ``text`` (n, T) and ``factors`` (n, R)."""

    rows: I64
    ts: F64
    weight: F32
    strong: npt.NDArray[np.bool_]
    text: F32
    factors: F32


class Catalogue(NamedTuple):
    """``brand`` (n), ``categories`` (n, L), ``numbers`` (n, len(QUALITY)), ``text`` (n, T) in parts
    of TEXT_STEPS, by item row."""

    brand: I32
    categories: I32
    numbers: F32
    text: I8


class Counts(NamedTuple):
    """``ItemStatistics``' arrays, and ``final`` (n or 0): counts of the whole log, in training."""

    strong: F32
    weak: F32
    trial: F32
    clock: F64
    first: F64
    last: F64
    final: F32


class Recall(NamedTuple):
    """What followed a query before: item ``rows`` (m) ascending, ``strong``, ``weak`` (m)."""

    rows: I64
    strong: F32
    weak: F32


class Table(NamedTuple):
    """An association's arrays; see ``association``."""

    slot: I32
    neighbours: I32
    weights: F32


class _Groups(NamedTuple):
    """Keys told apart: a hash table from key to group, and each event's group (-1: no key)."""

    keys: I64
    slots: I32
    of: I32
    size: int


class _Categories(NamedTuple):
    """Per category of the history (G): ``sums`` as an item's, and the ``last`` instant."""

    groups: _Groups
    sums: F64
    last: F64


class _Brands(NamedTuple):
    """Per brand of the history (G): ``sums`` as an item's, and its events' ``pull``."""

    groups: _Groups
    sums: F64
    pull: F64


class _Items(NamedTuple):
    """Per group (G) what the history says of an item."""

    groups: _Groups
    sums: F64  # (G, len(_SUMS))
    first: F64
    last: F64
    visit_decay: F64
    visits: F64
    oldest_visit: F64
    newest_visit: F64


@compiled
def fill(hits: Hits, events: Events, now: float, catalogue: Catalogue, factors: F32,
         counts: Counts, recall: Recall, rhythm: F32, ease: Table, together: Table, after: Table,
         out: F32, context: F64) -> None:
    """Write ``out`` (K, F), signal by signal, and ``context`` (C).

    ``factors`` (n or 0, R) and ``rhythm`` (n or 0, 2) as in ``Knowledge``.
    """
    window = HitVectors(hits.rows, hits.engine, texts(catalogue.text, hits.rows),
                        _gathered(factors, hits.rows, 1.0))
    past = EventVectors(events.rows, events.ts, events.weight, events.strong,
                        texts(catalogue.text, events.rows), _gathered(factors, events.rows, 1.0))
    values = _values(past, now)
    visit = _visits_ago(past)
    items = _items(past, values, visit)
    categories = _by_category(past, catalogue, values)
    engine = out[:, _START.engine:_END.engine]
    popularity = out[:, _START.popularity:_END.popularity]
    repeat = out[:, _START.repeat:_END.repeat]
    content = out[:, _START.content:_END.content]
    _engine(window, engine)
    _popularity(window, now, counts, popularity)
    _quality(window, catalogue, counts, out[:, _START.quality:_END.quality])
    _memory(window, recall, out[:, _START.memory:_END.memory])
    _repeat(window, now, catalogue, rhythm, items, categories, visit, repeat)
    novelty_here = _content(window, past, now, catalogue, values, items, categories, content)
    _collaborative(window, past, items, ease, together, after,
                   out[:, _START.collaborative:_END.collaborative])
    for k in range(len(hits.rows)):
        out[k, _START.interest], out[k, _START.segment] = hits.interest[k], hits.segment[k]
    _context(window, past, now, catalogue, items, visit, recall, engine, popularity, repeat,
             content, novelty_here, context)


@compiled
def texts(text: I8, rows: I64) -> F32:
    """Return the content vectors (m, T) of some rows of a table, zero for rows that it has not."""
    return _gathered(text, rows, 1 / TEXT_STEPS)


@compiled
def _gathered(table: Any, rows: I64, scale: float) -> F32:
    """Return ``scale * table[rows]`` (m, width), zero for rows that the table has not."""
    width = table.shape[1]
    found = np.zeros((len(rows), width), np.float32)
    for k in range(len(rows)):
        row = np.uint64(rows[k])  # -1 is large then; and no index has to be seen to be negative
        if row < np.uint64(len(table)):
            for d in range(width):
                found[k, d] = np.float32(table[row, np.uint64(d)]) * np.float32(scale)
    return found


@compiled
def _groups(keys: I64) -> _Groups:
    size = 8
    while size < 2 * len(keys) + 1:
        size *= 2
    table = np.full(size, np.int64(-1))
    slots = np.zeros(size, np.int32)
    of = np.full(len(keys), np.int32(-1))
    count = 0
    for i in range(len(keys)):
        key = keys[i]
        if key < 0:
            continue
        at = (key * 2654435761) & (size - 1)
        while table[at] >= 0 and table[at] != key:
            at = (at + 1) & (size - 1)
        if table[at] < 0:
            table[at] = key
            slots[at] = count
            count += 1
        of[i] = slots[at]
    return _Groups(table, slots, of, count)


@compiled
def _find(groups: _Groups, key: int) -> int:
    """Return a key's group, -1 if the history has none of it."""
    if key < 0:
        return -1
    mask = len(groups.keys) - 1
    at = (key * 2654435761) & mask
    while groups.keys[at] >= 0:
        if groups.keys[at] == key:
            return int(groups.slots[at])
        at = (at + 1) & mask
    return -1


@compiled
def _values(past: EventVectors, now: float) -> F64:
    """Return (n, len(_SUMS)): what each event adds to the sums."""
    values = np.zeros((len(past.rows), len(_SUM)))
    for i in range(len(past.rows)):
        age = max(now - past.ts[i], 0.0)
        weight = past.weight[i]
        if past.strong[i] and weight > 0:
            values[i, _SUM.count] = 1.0
            values[i, _SUM.decay7] = math.exp(-age / _LIFE_7)
            values[i, _SUM.decay30] = math.exp(-age / _LIFE_30)
            values[i, _SUM.decay120] = math.exp(-age / _LIFE_120)
        elif weight > 0:
            values[i, _SUM.weak] = weight * math.exp(-age / _LIFE_30)
        elif weight < 0:
            values[i, _SUM.returned] = 1.0
    return values


@compiled
def _visits_ago(past: EventVectors) -> I64:
    """Return (n): how many visits lie between an event's visit and the last."""
    n = len(past.rows)
    visit = np.zeros(n, np.int64)
    for i in range(n - 2, -1, -1):
        visit[i] = visit[i + 1] + (past.ts[i + 1] - past.ts[i] > _VISIT_GAP_S)
    return visit


@compiled
def _items(past: EventVectors, values: F64, visit: I64) -> _Items:
    groups = _groups(past.rows)
    size = groups.size
    sums = np.zeros((size, len(_SUM)))
    first, last = np.full(size, np.inf), np.full(size, -np.inf)
    decay, visits = np.zeros(size), np.zeros(size)
    oldest, newest = np.full(size, -1.0), np.full(size, -1.0)
    for i in range(len(past.rows) - 1, -1, -1):
        g = groups.of[i]
        for c in range(len(_SUM)):
            sums[g, c] += values[i, c]
        first[g], last[g] = min(first[g], past.ts[i]), max(last[g], past.ts[i])
        if values[i, _SUM.count] > 0 and oldest[g] != visit[i]:
            decay[g] += _VISIT_KEPT ** visit[i]
            visits[g] += 1
            oldest[g] = visit[i]
            if newest[g] < 0:
                newest[g] = visit[i]
    return _Items(groups, sums, first, last, decay, visits, oldest, newest)


@compiled
def _log_days(seconds: float) -> float:
    return math.log1p(max(seconds, 0.0) / DAY_S)


@compiled
def _engine(window: HitVectors, out: F32) -> None:
    """Write the columns, each score beside the window's best. If even the best is below zero, the
    scores are margins or log-probabilities of a rescorer, and are read as odds against it."""
    best = -np.inf
    for k in range(len(window.rows)):
        if math.isfinite(window.engine[k]):
            best = max(best, window.engine[k])
    for k in range(len(window.rows)):
        score = 0.0
        if math.isfinite(window.engine[k]):
            score = math.exp(window.engine[k] - best) if best < 0 else window.engine[k]
        out[k, _ENGINE.score_ratio] = score / (1.0 if best < 0 else max(best, 1e-9))
        out[k, _ENGINE.reciprocal_rank] = 1.0 / math.log2(k + 2.0)
        out[k, _ENGINE.log_score] = math.log1p(max(score, 0.0))


@compiled
def _popularity(window: HitVectors, now: float, counts: Counts, out: F32) -> None:
    total_14, total_ever, total_trial = 1e-9, 1e-9, 1e-9
    strong, trial = np.zeros(len(_LIVES)), np.zeros(len(_TRIAL_LIVES))
    weak = np.zeros(len(_WEAK_LIVES))
    for k in range(len(window.rows)):
        row = window.rows[k]
        known = 0 <= row < len(counts.clock)
        strong[:], trial[:], weak[:] = 0.0, 0.0, 0.0
        first, last = np.nan, np.nan
        if known:
            passed = max(now - counts.clock[row], 0.0)
            for h in range(len(_LIVES)):
                strong[h] = counts.strong[row, h] * math.exp(-passed / _LIVES[h])
            for h in range(len(_TRIAL_LIVES)):
                trial[h] = counts.trial[row, h] * math.exp(-passed / _TRIAL_LIVES[h])
            for h in range(len(_WEAK_LIVES)):
                weak[h] = counts.weak[row, h] * math.exp(-passed / _WEAK_LIVES[h])
            first, last = counts.first[row], counts.last[row]
        for h in range(len(_STRONG_COLUMNS)):
            out[k, _STRONG_COLUMNS[h]] = math.log(strong[h] + 0.05)
        for h in range(len(_TRIAL_COLUMNS)):
            out[k, _TRIAL_COLUMNS[h]] = math.log(trial[h] + 0.05)
        for h in range(len(_WEAK_COLUMNS)):
            out[k, _WEAK_COLUMNS[h]] = math.log1p(weak[h])
        out[k, _POPULARITY.share_14] = strong[_OF_14]
        out[k, _POPULARITY.share_ever] = strong[_EVER]
        out[k, _POPULARITY.share_trial] = trial[_TRIAL_OF_60]
        total_14 += strong[_OF_14]
        total_ever += strong[_EVER]
        total_trial += trial[_TRIAL_OF_60]
        out[k, _POPULARITY.trial_part] = (trial[_TRIAL_OF_60] + 0.5) / (strong[_OF_60] + 1.0)
        out[k, _POPULARITY.trend] = math.log(
            (strong[_OF_14] / 14 + 0.02) / (strong[_OF_60] / 60 + 0.02))
        out[k, _POPULARITY.burst] = math.log(
            (strong[_OF_3] / 3 + 0.02) / (strong[_OF_14] / 14 + 0.02))
        sold = math.isfinite(last)
        out[k, _POPULARITY.days_since_sold] = (
            _log_days(now - last) if sold else math.log1p(_LONG_AGO_DAYS))
        out[k, _POPULARITY.days_on_sale] = _log_days(now - first) if sold else 0.0
        out[k, _POPULARITY.never_sold] = 0.0 if sold else 1.0
    for k in range(len(window.rows)):
        out[k, _POPULARITY.share_14] = math.sqrt(out[k, _POPULARITY.share_14] / total_14)
        out[k, _POPULARITY.share_ever] = math.sqrt(out[k, _POPULARITY.share_ever] / total_ever)
        out[k, _POPULARITY.share_trial] = math.sqrt(out[k, _POPULARITY.share_trial] / total_trial)


@compiled
def _quality(window: HitVectors, catalogue: Catalogue, counts: Counts, out: F32) -> None:
    """A catalogue is a snapshot of the day it was written: a list of an earlier day must not read
    sales that were still to come, so counts are scaled by the share that had happened by then."""
    for k in range(len(window.rows)):
        row = window.rows[k]
        if row < 0 or row >= len(catalogue.numbers):
            out[k, :] = np.nan
            continue
        share = 1.0
        if row < len(counts.final):
            so_far = 0.0
            if row < len(counts.clock):
                so_far = counts.strong[row, _EVER]
            share = min((so_far + 0.5) / (counts.final[row] + 0.5), 1.0)
        numbers = catalogue.numbers[row]
        price = numbers[_QUALITY.price]
        out[k, _QUALITY.price] = math.log1p(max(price, 0.0)) if price == price else np.nan
        out[k, _QUALITY.rating] = _bounded(numbers[_QUALITY.rating])
        for c in _COUNTED:
            known = numbers[c] == numbers[c]
            out[k, c] = math.log1p(max(numbers[c], 0.0) * share) if known else np.nan
        out[k, _QUALITY.promotion] = _bounded(numbers[_QUALITY.promotion])
        out[k, _QUALITY.created_at] = numbers[_QUALITY.created_at] / _YEAR_S


@compiled
def _bounded(value: float) -> float:
    """Return a number within ±_MOST; NaN as it is."""
    if value > _MOST:
        return _MOST
    return -_MOST if value < -_MOST else value


@compiled
def _memory(window: HitVectors, recall: Recall, out: F32) -> None:
    strong, weak = 1e-9, 1e-9
    for i in range(len(recall.rows)):
        strong += recall.strong[i]
        weak += recall.weak[i]
    for k in range(len(window.rows)):
        row = window.rows[k]
        at = np.searchsorted(recall.rows, row)
        hit = row >= 0 and at < len(recall.rows) and recall.rows[at] == row
        bought = recall.strong[at] if hit else 0.0
        touched = recall.weak[at] if hit else 0.0
        out[k, _MEMORY.strong], out[k, _MEMORY.weak] = math.log1p(bought), math.log1p(touched)
        out[k, _MEMORY.strong_share] = math.sqrt(bought / strong)
        out[k, _MEMORY.weak_share] = math.sqrt(touched / weak)


@compiled
def _repeat(window: HitVectors, now: float, catalogue: Catalogue, rhythm: F32, items: _Items,
            categories: _Categories, visit: I64, out: F32) -> None:
    newest = -np.inf
    total = 1e-9
    for k in range(len(window.rows)):
        g = _find(items.groups, window.rows[k])
        if g >= 0:
            newest = max(newest, items.last[g])
            total += items.sums[g, _SUM.count]
    visits = visit[0] + 1.0 if len(visit) else 1.0
    for k in range(len(window.rows)):
        row = window.rows[k]
        out[k, :] = 0.0
        usual_rate, usual = 0.0, 0.0
        if 0 <= row < len(rhythm):
            usual_rate, usual = rhythm[row, _RHYTHM.rate], math.expm1(rhythm[row, _RHYTHM.days])
        out[k, _REPEAT.rebuy_rate] = usual_rate
        out[k, _REPEAT.visits_since] = math.log1p(_LONG_AGO_DAYS)
        g = _find(items.groups, row)
        if g < 0:
            continue
        count = items.sums[g, _SUM.count]
        out[k, _REPEAT.count] = math.log1p(count)
        out[k, _REPEAT.decay7] = math.log1p(4 * items.sums[g, _SUM.decay7])
        out[k, _REPEAT.decay30] = math.log1p(2 * items.sums[g, _SUM.decay30])
        out[k, _REPEAT.decay120] = math.log1p(items.sums[g, _SUM.decay120])
        out[k, _REPEAT.weak] = math.log1p(4 * items.sums[g, _SUM.weak])
        out[k, _REPEAT.returned] = min(items.sums[g, _SUM.returned], 2.0)
        if count <= 0:
            out[k, _REPEAT.touched_not_bought] = 1.0
            continue
        since = (now - items.last[g]) / DAY_S
        out[k, _REPEAT.bought] = 1.0
        out[k, _REPEAT.share] = count / total
        code = catalogue.categories[row, 0] if row < len(catalogue.categories) else 0
        at = _find(categories.groups, code if code > 0 else -1)
        alike = categories.sums[at, _SUM.count] if at >= 0 else 0.0
        out[k, _REPEAT.loyalty] = count / (alike + 1.0)
        out[k, _REPEAT.recency] = 1.0 / (1.0 + max(since, 0.0) / 14.0)
        out[k, _REPEAT.latest] = 1.0 if items.last[g] >= newest - 1.0 else 0.0
        expected = usual
        if count > 1:
            own = (items.last[g] - items.first[g]) / DAY_S / (count - 1.0)
            expected = (own * (count - 1.0) + usual) / count
        due = math.log((max(since, 0.0) + 1.0) / (expected + 1.0))
        due = min(max(due, -3.0), 3.0)
        out[k, _REPEAT.due], out[k, _REPEAT.overdue] = due, abs(due)
        out[k, _REPEAT.bought_rebuy] = usual_rate
        out[k, _REPEAT.visit_decay] = math.log1p(items.visit_decay[g])
        out[k, _REPEAT.visit_rate] = items.visits[g] / min(items.oldest_visit[g] + 2.0,
                                                           visits + 1.0)
        out[k, _REPEAT.visits_since] = math.log1p(items.newest_visit[g])


@compiled
def _by_category(past: EventVectors, catalogue: Catalogue, values: F64) -> _Categories:
    """Group the history by category codes of all levels."""
    n, levels = len(past.rows), catalogue.categories.shape[1]
    keys = np.full(n * levels, np.int64(-1))
    for i in range(n):
        for level in range(levels):
            code = catalogue.categories[past.rows[i], level]
            if code > 0:
                keys[i * levels + level] = code
    groups = _groups(keys)
    sums, last = np.zeros((groups.size, len(_SUM))), np.full(groups.size, -np.inf)
    for i in range(n):
        for level in range(levels):
            g = groups.of[i * levels + level]
            if g >= 0:
                for c in range(len(_SUM)):
                    sums[g, c] += values[i, c]
                last[g] = max(last[g], past.ts[i])
    return _Categories(groups, sums, last)


@compiled
def _by_brand(past: EventVectors, catalogue: Catalogue, values: F64, pull: F64) -> _Brands:
    """Group the history by brand codes; ``pull`` (n) as of ``_text``."""
    n = len(past.rows)
    keys = np.full(n, np.int64(-1))
    for i in range(n):
        if catalogue.brand[past.rows[i]] > 0:
            keys[i] = catalogue.brand[past.rows[i]]
    groups = _groups(keys)
    sums, pulls = np.zeros((groups.size, len(_SUM))), np.zeros(groups.size)
    for i in range(n):
        g = groups.of[i]
        if g >= 0:
            for c in range(len(_SUM)):
                sums[g, c] += values[i, c]
            pulls[g] += pull[i]
    return _Brands(groups, sums, pulls)


@compiled
def _unit(vector: F32) -> F32:
    norm = math.sqrt(np.dot(vector, vector))
    return (vector / np.float32(norm)) if norm > 0 else vector


@compiled
def _content(window: HitVectors, past: EventVectors, now: float, catalogue: Catalogue, values: F64,
             items: _Items, categories: _Categories, out: F32) -> float:
    """Write the columns; return the share of the shopper's past strong events on items similar to
    this window's that were the first on their item."""
    n, size = len(past.rows), len(window.rows)
    for k in range(size):
        row = window.rows[k]
        out[k, :] = 0.0
        out[k, _CONTENT.category0_since] = math.log1p(_LONG_AGO_DAYS)
        if row < 0 or row >= len(catalogue.categories):
            continue
        for level in range(catalogue.categories.shape[1]):
            code = catalogue.categories[row, level]
            g = _find(categories.groups, code if code > 0 else -1)
            if g < 0:
                continue
            out[k, _LEVEL_COUNTS[level]] = math.log1p(categories.sums[g, _SUM.count])
            out[k, _LEVEL_DECAYS[level]] = math.log1p(categories.sums[g, _SUM.decay30])
            if level == 0:
                out[k, _CONTENT.category0_weak] = math.log1p(4 * categories.sums[g, _SUM.weak])
                out[k, _CONTENT.category0_since] = _log_days(now - categories.last[g])
    if n == 0:
        return 0.5
    pull, novelty_here = _text(window, past, values, items, out)
    brands = _by_brand(past, catalogue, values, pull)
    events, pulled = 1e-9, 1e-9
    price, price_here, weights = 0.0, 0.0, 0.0
    for i in range(n):
        events += values[i, _SUM.count]
        pulled += pull[i]
        cost = _log_price(catalogue, past.rows[i])
        weight = values[i, _SUM.decay120] + values[i, _SUM.weak] + 1e-6
        price += weight * cost
        weights += weight
        price_here += (pull[i] + 1e-9) * cost
    price /= weights
    price_here /= pulled + n * 1e-9
    for k in range(size):
        row = window.rows[k]
        own = _log_price(catalogue, row)
        out[k, _CONTENT.price_gap] = abs(own - price)
        out[k, _CONTENT.price_gap_here] = abs(own - price_here)
        if row < 0 or row >= len(catalogue.brand):
            continue
        g = _find(brands.groups, catalogue.brand[row] if catalogue.brand[row] > 0 else -1)
        if g >= 0:
            out[k, _CONTENT.brand_count] = math.log1p(brands.sums[g, _SUM.count])
            out[k, _CONTENT.brand_decay30] = math.log1p(brands.sums[g, _SUM.decay30])
            out[k, _CONTENT.brand_share] = math.sqrt(brands.sums[g, _SUM.count] / events)
            out[k, _CONTENT.brand_weak] = math.log1p(4 * brands.sums[g, _SUM.weak])
            out[k, _CONTENT.brand_here] = brands.pull[g] / pulled
    return novelty_here


@compiled
def _log_price(catalogue: Catalogue, row: int) -> float:
    if row < 0 or row >= len(catalogue.numbers):
        return 0.0
    price = catalogue.numbers[row, _QUALITY.price]
    return math.log1p(price) if price > 0 else 0.0


@compiled
def _text(window: HitVectors, past: EventVectors, values: F64, items: _Items,
          out: F32) -> tuple[F64, float]:
    """Write text_long to text_window; return each event's pull (n): its weight times how much it is
    like this window, to the fourth power; and the novelty among them."""
    n, width = past.text.shape
    recent = _latest(past, items)
    held = np.zeros((len(_HELD) + len(recent), width), np.float32)
    for i in range(n):
        weight = values[i, _SUM.decay120] + values[i, _SUM.weak]
        for d in range(width):
            held[_HELD.long, d] += np.float32(weight) * past.text[i, d]
        if i >= n - 10:
            held[_HELD.recent] += past.text[i]
        if past.ts[i] >= past.ts[n - 1] - _SAME_VISIT_S:
            held[_HELD.last] += past.text[i]
    held[_HELD.long] = _unit(held[_HELD.long])
    held[_HELD.recent] = _unit(held[_HELD.recent])
    held[_HELD.last] = _unit(held[_HELD.last])
    for r in range(len(recent)):
        held[len(_HELD) + r] = past.text[recent[r]]
    centre = np.zeros(width, np.float32)
    for k in range(len(window.rows)):
        centre += window.text[k]
    centre = _unit(centre)
    likeness = np.dot(past.text, centre)
    pull = np.zeros(n)
    new_pull, all_pull = 0.5e-3, 1e-3
    for i in range(n):
        pull[i] = max(likeness[i], 0.0) ** 4 * (
            values[i, _SUM.decay120] + values[i, _SUM.weak])
        all_pull += pull[i]
        if past.ts[i] <= items.first[items.groups.of[i]]:
            new_pull += pull[i]
        for d in range(width):
            held[_HELD.window, d] += np.float32(pull[i]) * past.text[i, d]
    held[_HELD.window] = _unit(held[_HELD.window])
    found = np.dot(window.text, held.T)
    for k in range(len(window.rows)):
        out[k, _CONTENT.text_long] = found[k, _HELD.long]
        out[k, _CONTENT.text_recent] = found[k, _HELD.recent]
        out[k, _CONTENT.text_last] = found[k, _HELD.last]
        out[k, _CONTENT.text_window] = found[k, _HELD.window]
        best, second, third = -np.inf, -np.inf, -np.inf
        for r in range(len(recent)):
            is_other = past.rows[recent[r]] != window.rows[k]
            near = found[k, len(_HELD) + r] if is_other else 0.0
            if near > best:
                best, second, third = near, best, second
            elif near > second:
                second, third = near, second
            elif near > third:
                third = near
        count = min(len(recent), 3)
        out[k, _CONTENT.text_near] = best
        out[k, _CONTENT.text_near3] = (best + (second if count > 1 else 0.0)
                                       + (third if count > 2 else 0.0)) / count
    return pull, new_pull / all_pull


@compiled
def _latest(past: EventVectors, items: _Items) -> I64:
    """Return positions of the last event of each of the items touched last, newest first."""
    found = np.zeros(_NEAR, np.int64)
    seen = np.zeros(items.groups.size, np.bool_)
    count = 0
    for i in range(len(past.rows) - 1, -1, -1):
        g = items.groups.of[i]
        if not seen[g]:
            seen[g] = True
            found[count] = i
            count += 1
            if count == _NEAR:
                break
    return found[:count]


@compiled
def _collaborative(window: HitVectors, past: EventVectors, items: _Items, ease: Table,
                   together: Table, after: Table, out: F32) -> None:
    size = items.groups.size
    history = np.zeros((size, len(_WAY)), np.float32)
    for g in range(size):
        weak = items.sums[g, _SUM.weak]
        history[g, _WAY.all] = math.sqrt(min(items.sums[g, _SUM.count] + weak, 9.0))
        history[g, _WAY.fresh] = items.sums[g, _SUM.decay30] + 0.5 * weak
        history[g, _WAY.latest] = 1.0 if items.last[g] >= past.ts[-1] - _SAME_VISIT_S else 0.0
    maybe = np.zeros(_SIEVE, np.bool_)
    for row in past.rows:
        maybe[row & (_SIEVE - 1)] = True
    _associate(window, items, maybe, ease, history, out[:, _COLLABORATIVE.ease_all:])
    _associate(window, items, maybe, together, history, out[:, _COLLABORATIVE.together_all:])
    _associate(window, items, maybe, after, history, out[:, _COLLABORATIVE.after_all:])
    width = past.factors.shape[1]
    tastes = np.zeros((len(_TASTE), width), np.float32)
    seen = np.zeros(size, np.bool_)
    for i in range(len(past.rows)):
        g = items.groups.of[i]
        if seen[g]:
            continue
        seen[g] = True
        long = np.float32(math.log1p(items.sums[g, _SUM.count] + items.sums[g, _SUM.weak]))
        fresh = np.float32(items.sums[g, _SUM.decay30])
        for d in range(width):
            tastes[_TASTE.long, d] += long * past.factors[i, d]
            tastes[_TASTE.recent, d] += fresh * past.factors[i, d]
    found = np.dot(window.factors, np.ascontiguousarray(tastes.T))
    long_norm = math.sqrt(np.dot(tastes[_TASTE.long], tastes[_TASTE.long]))
    recent_norm = math.sqrt(np.dot(tastes[_TASTE.recent], tastes[_TASTE.recent]))
    for k in range(len(window.rows)):
        out[k, _COLLABORATIVE.factors_long] = (
            found[k, _TASTE.long] / long_norm if long_norm > 0 else 0.0)
        out[k, _COLLABORATIVE.factors_recent] = (
            found[k, _TASTE.recent] / recent_norm if recent_norm > 0 else 0.0)


@compiled
def _associate(window: HitVectors, items: _Items, maybe: npt.NDArray[np.bool_], table: Table,
               history: F32, out: F32) -> None:
    """Write what the history adds up to in each of the ways, and its strongest single tie.

    ``maybe`` (_SIEVE) is False for the low bits of a row that no item of the history has: nearly
    all neighbours are no items of it, and are passed over at the cost of one byte.
    """
    for k in range(len(window.rows)):
        row = window.rows[k]
        every, fresh = np.float32(0), np.float32(0)
        latest, best = np.float32(0), np.float32(0)
        slot = table.slot[row] if 0 <= row < len(table.slot) else -1
        if slot >= 0 and items.groups.size:
            for t in range(table.neighbours.shape[1]):
                neighbour = table.neighbours[slot, t]
                g = _find(items.groups, neighbour) if maybe[neighbour & (_SIEVE - 1)] else -1
                if g >= 0:
                    weight = table.weights[slot, t]
                    every += weight * history[g, _WAY.all]
                    fresh += weight * history[g, _WAY.fresh]
                    latest += weight * history[g, _WAY.latest]
                    best = max(best, weight)
        out[k, _TIE.all], out[k, _TIE.fresh] = every, fresh
        out[k, _TIE.latest], out[k, _TIE.best] = latest, best


@compiled
def _context(window: HitVectors, past: EventVectors, now: float, catalogue: Catalogue,
             items: _Items, visit: I64, recall: Recall, engine: F32, popularity: F32, repeat: F32,
             content: F32, novelty_here: float, context: F64) -> None:
    """Write facts of the search as a whole, which the gate reads."""
    n, size = len(past.rows), len(window.rows)
    bought, count, recent, top, due = 0.0, 0.0, 0.0, 0.0, -np.inf
    category, since, rebuy, score, squares, peak = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    codes = np.zeros(size, np.int64)
    for k in range(size):
        bought += repeat[k, _REPEAT.bought]
        count += math.expm1(repeat[k, _REPEAT.count])
        recent += math.expm1(repeat[k, _REPEAT.decay30])
        top = max(top, repeat[k, _REPEAT.share])
        due = max(due, repeat[k, _REPEAT.due])
        category += content[k, _CONTENT.category0_count] / size
        since += content[k, _CONTENT.category0_since] / size
        rebuy += repeat[k, _REPEAT.rebuy_rate] / size
        ratio = engine[k, _ENGINE.score_ratio]
        score += ratio / size
        squares += ratio * ratio / size
        peak = max(peak, popularity[k, _POPULARITY.share_ever])
        row = window.rows[k]
        codes[k] = catalogue.categories[row, 0] if 0 <= row < len(catalogue.categories) else 0
    codes.sort()
    run, longest = 0, 0
    for k in range(size):
        run = run + 1 if k and codes[k] == codes[k - 1] else 1
        longest = max(longest, run)
    context[_CONTEXT.length] = math.log1p(n)
    context[_CONTEXT.unique_share] = items.groups.size / (n + 1.0)
    context[_CONTEXT.quiet_days] = math.log1p(
        max(now - past.ts[-1], 0.0) / DAY_S if n else _LONG_AGO_DAYS)
    context[_CONTEXT.bought_here] = math.log1p(bought)
    context[_CONTEXT.count_here] = math.log1p(count)
    context[_CONTEXT.recent_here] = math.log1p(recent)
    context[_CONTEXT.top_share] = top
    context[_CONTEXT.soonest_due] = due if size else 0.0
    context[_CONTEXT.category_here] = category
    context[_CONTEXT.since_here] = since
    context[_CONTEXT.rebuy_here] = rebuy
    context[_CONTEXT.candidates] = math.log1p(size)
    context[_CONTEXT.narrowness] = longest / max(size, 1)
    context[_CONTEXT.score_spread] = math.sqrt(max(squares - score * score, 0.0))
    context[_CONTEXT.popular_peak] = peak
    context[_CONTEXT.novelty] = _novelty(past, items)
    context[_CONTEXT.novelty_here] = novelty_here
    visits = visit[0] + 1.0 if n else 0.0
    context[_CONTEXT.visits] = math.log1p(visits)
    context[_CONTEXT.visit_size] = math.log1p(n / max(visits, 1.0))
    context[_CONTEXT.visit_gap] = (
        _log_days((past.ts[-1] - past.ts[0]) / max(visits - 1.0, 1.0)) if n else 0.0)
    total = 0.0
    for i in range(len(recall.rows)):
        total += recall.strong[i] + recall.weak[i]
    context[_CONTEXT.memory] = math.log1p(total)


@compiled
def _novelty(past: EventVectors, items: _Items) -> float:
    """Return which share of the latest strong events were the first of their item; 0.5 if none."""
    strong, new = 0.0, 0.0
    for i in range(len(past.rows) - 1, -1, -1):
        if past.strong[i] and past.weight[i] > 0:
            strong += 1
            new += past.ts[i] <= items.first[items.groups.of[i]]
            if strong >= _LATELY:
                break
    return (new + 0.5) / (strong + 1.0)
