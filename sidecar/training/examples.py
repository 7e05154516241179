"""Which searches does the blend learn from? (query, candidates, targets) lists, in order of time.

If the log holds impressions, the hits shown for a query are a list, with their positions. Else, if
it holds queries, these are used; if not, a query is made for a bought item (``queries``). BM25 then
finds the candidates (``retrieval``). A ``Walk`` through the log gives each list the history and the
item statistics of its own moment, nothing later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.ranking.items import ItemTable
from sidecar.ranking.kinds import is_impression
from sidecar.ranking.vocabulary import column_values
from sidecar.records import Case, IntArray
from sidecar.training.event_table import VISIT_GAP_S, EventTable
from sidecar.training.queries import QueryMaker
from sidecar.training.retrieval import Retrieval

FEWEST_CANDIDATES = 5
_Search = tuple[int, int, float]  # visit, query, when it was asked
MOST_UNBORN = 0.05  # of items with events, that may have one before their ``created_at``
LATE_SHARE = 0.5  # of made-up queries: typed as late as may be, not when the visit began


@dataclass(frozen=True, slots=True)
class Example:
    """One search: candidate rows and engine scores (K), targets as a mask (K)."""

    user: int
    ts: float
    query: str
    rows: IntArray
    scores: npt.NDArray[np.float32]
    target: npt.NDArray[np.bool_]
    position: IntArray | None = None  # where each was shown, for a list that was logged


def make_examples(log: EventTable, rows: Sequence[Mapping[str, Any]], retrieval: Retrieval, *,
                  since: float, most: int, per_visit: int, seed: int) -> list[Example]:
    """Return up to ``most`` lists from visits at or after ``since``, sorted by time.

    Logged lists come first, lists made of other searches fill up; of more than are wanted, some are
    drawn at random with ``seed``.
    """
    rng = np.random.default_rng(seed)
    found = examples_of_impressions(log, retrieval, since, most=most, rng=rng)
    if len(found) >= most:
        return found
    shown = {(e.user, e.query, e.ts) for e in found}
    maker = QueryMaker(rows, seed)
    searches, born = _Searches.of(log), born_at(log, rows)
    index = np.flatnonzero(log.is_target() & (log.ts >= since))
    if not len(index):
        return found
    visits = np.unique(log.visit[index])
    groups = dict(zip(visits.tolist(), np.split(
        index[np.argsort(log.visit[index], kind="stable")],
        np.cumsum(np.bincount(np.searchsorted(visits, log.visit[index])))[:-1]), strict=True))
    for visit in rng.permutation(visits).tolist():
        events = groups[visit]
        made = (_of_its_time(e, born) for e in _of_visit(searches, events, maker, retrieval, rng,
                                                         per_visit))
        found.extend(e for e in made if e.ts >= since and len(e.rows) >= FEWEST_CANDIDATES
                     and not e.target.all() and (e.user, e.query, e.ts) not in shown)
        if len(found) >= most:
            break
    return sorted(found[:most], key=lambda e: e.ts)


def born_at(log: EventTable, rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """Return the instant (n), in seconds, from which on a search can have found each item of the
    catalogue: its ``created_at`` or its first event, whichever came before; -inf where nothing
    tells, and of all where that column is no birth: events come before it too often."""
    created = column_values(rows, "created_at")
    first = np.full(len(rows), np.inf)
    np.minimum.at(first, log.item[log.item >= 0], log.ts[log.item >= 0])
    told = np.isfinite(created)
    if not log.has_times or (first < created).sum() > MOST_UNBORN * (told & (first < np.inf)).sum():
        return np.full(len(rows), -np.inf)
    return np.where(told, np.minimum(created, first), -np.inf)


def _of_its_time(example: Example, born: npt.NDArray[np.float64]) -> Example:
    """Return a made list without the items that were not there yet: where items live for days, most
    of what a query finds today was not, and it would teach that the newest are never taken."""
    there = (born[example.rows] <= example.ts) | example.target
    return example if there.all() else replace(
        example, rows=example.rows[there], scores=example.scores[there],
        target=example.target[there])


@dataclass(frozen=True, slots=True)
class _Searches:
    """Of each event (n): the ``query`` that it answers, -1 for none, when that was ``asked``, and
    when the visit had ``begun``. What a list reads ends there: a click on the way to a purchase is
    nothing that the search could have known. ``touches`` (m) are events with an item, visit by
    visit, in order of time, and ``touched_in`` (m) their visits."""

    log: EventTable
    query: npt.NDArray[np.int32]
    asked: npt.NDArray[np.float64]
    begun: npt.NDArray[np.float64]
    touches: IntArray
    touched_in: IntArray

    @classmethod
    def of(cls, log: EventTable) -> _Searches:
        query = log.asked()
        keys = log.visit * (len(log.queries) + 1) + query + 1
        touches = np.flatnonzero((log.item >= 0) & log.is_kept)
        touches = touches[np.argsort(log.visit[touches], kind="stable")]
        return cls(log, query, _begins(log.ts, keys), _begins(log.ts, log.visit), touches,
                   log.visit[touches])

    def key(self, event: int) -> _Search:
        """Return what an event has in common with all that answer the same search."""
        return int(self.log.visit[event]), int(self.query[event]), float(self.asked[event])

    def latest(self, event: int, hits: IntArray) -> float:
        """Return the last instant, in seconds, at which a query that finds ``hits`` can have been
        typed in an event's visit: that of the first touch of any of them."""
        start, stop = np.searchsorted(self.touched_in, self.log.visit[event] + np.arange(2))
        own = self.touches[start:stop]
        own = own[(self.begun[own] == self.begun[event]) & np.isin(self.log.item[own], hits)]
        return float(self.log.ts[own[0]]) if len(own) else float(self.begun[event])


def _begins(ts: npt.NDArray[np.float64], keys: IntArray) -> npt.NDArray[np.float64]:
    """Return when the run of each event (n) began: events of one key no more than half an hour
    apart, for a session may last for months."""
    order = np.argsort(keys, kind="stable")
    starts = np.ones(len(order), bool)
    starts[1:] = (np.diff(keys[order]) != 0) | (np.diff(ts[order]) > VISIT_GAP_S)
    found = np.empty(len(order))
    found[order] = ts[order][np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    return found


def _of_visit(searches: _Searches, events: IntArray, maker: QueryMaker, retrieval: Retrieval,
              rng: np.random.Generator, per_visit: int) -> Iterator[Example]:
    """Yield a visit's lists, each as of its search; targets are what was taken from then on.

    A made-up query is typed when the visit begins or, half of the time, as late as it can have
    been. So a log without queries, too, teaches what the last minutes tell of a search.
    """
    log = searches.log
    asked: set[str] = set()
    for event in rng.permutation(events)[: 3 * per_visit].tolist():
        code, ts = int(searches.query[event]), float(searches.asked[event])
        query = log.queries[code] if code >= 0 else None
        is_made = query is None or len(retrieval.search(query)[0]) < FEWEST_CANDIDATES
        if is_made:  # none was logged, or an id, "-", …
            query = maker.draw(int(log.item[event]))
        if query is None or query in asked:
            continue
        asked.add(query)
        hits, scores = retrieval.search(query)
        if is_made:
            ts, latest = float(searches.begun[event]), searches.latest(event, hits)
            if latest > ts and rng.random() < LATE_SHARE:
                ts = latest
        target = np.isin(hits, log.item[events[log.ts[events] >= ts]])
        if len(hits) >= FEWEST_CANDIDATES and target.any() and not target.all():
            yield Example(int(log.user[event]), ts, query, hits, scores, target)
        if len(asked) >= per_visit:
            return


def examples_of_impressions(log: EventTable, retrieval: Retrieval, since: float, *, most: int,
                            rng: np.random.Generator) -> list[Example]:
    """Return what was shown for each search from ``since`` on, where something of it was taken; of
    more than ``most``, some that ``rng`` draws, as scoring all of a large log would take hours.

    An impression belongs to the query that it names, or else to the visit's last. Targets are the
    shown items with an event of a target kind for the same search. A list is as of its search, and
    not of its impressions: a page may tell of them when it is left, and what was clicked until then
    would be in the list's history. Candidates stand in the engine's order (by BM25), their
    positions on the page beside them.
    """
    shown = np.array([is_impression(kind) for kind in log.kinds], bool)
    if not shown.any():
        return []
    searches = _Searches.of(log)
    counts = (searches.query >= 0) & (log.item >= 0) & (searches.asked >= since)
    taken: dict[_Search, set[int]] = {}
    for k in np.flatnonzero(counts & log.is_target()).tolist():
        taken.setdefault(searches.key(k), set()).add(int(log.item[k]))
    pages: dict[_Search, list[int]] = {}
    for k in np.flatnonzero(counts & shown[log.kind]).tolist():
        pages.setdefault(searches.key(k), []).append(k)
    telling = sorted((key for key, page in pages.items()
                      if _tells(set(log.item[page].tolist()), taken.get(key, set()))),
                     key=lambda key: key[-1])
    if len(telling) > most:
        telling = [telling[k] for k in np.sort(rng.permutation(len(telling))[:most]).tolist()]
    return [_of_page(searches, pages[key], taken[key], retrieval) for key in telling]


def _tells(shown: set[int], taken: set[int]) -> bool:
    """Return True for a page from which something was chosen, and something was not."""
    return len(shown) >= FEWEST_CANDIDATES and bool(shown & taken) and not shown <= taken


def _of_page(searches: _Searches, page: Sequence[int], taken: set[int],
             retrieval: Retrieval) -> Example:
    log, first = searches.log, page[0]
    place: dict[int, int] = {}
    for count, k in enumerate(page):  # an item shown twice counts where it was first
        at = int(log.position[k])
        place.setdefault(int(log.item[k]), at if at >= 0 else count)
    rows = np.array(sorted(place, key=lambda row: place[row]), np.int64)
    query = log.queries[searches.query[first]]
    scores = retrieval.scores(query, rows)
    order = np.argsort(-scores, kind="stable")
    rows = rows[order]
    return Example(int(log.user[first]), float(searches.asked[first]), query, rows, scores[order],
                   np.isin(rows, list(taken)), np.array([place[row] for row in rows.tolist()]))


def examples_of_cases(cases: Sequence[Case], log: EventTable, items: ItemTable,
                      since: float) -> list[Example]:
    """Return the cases from ``since`` on that hold a target, as lists."""
    users = {user: code for code, user in enumerate(log.users)}
    found = []
    for case in cases:
        relevant = set(case.relevant)
        target = np.array([c in relevant for c in case.candidates], bool)
        if case.ts >= since and len(target) >= FEWEST_CANDIDATES and target.any():
            found.append(Example(users.get(case.user_id, -1), case.ts, case.query,
                                 items.rows(case.candidates), np.array(case.bm25, np.float32),
                                 target))
    return found
