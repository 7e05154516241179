"""The event log as columns: every step of training and evaluation walks through it.

There is one row per event, in order of time (file order where times are equal or unknown), with
codes instead of strings. 1.5 million events take about 60 MB.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sidecar.ranking.imputation import is_known
from sidecar.ranking.kinds import is_among, is_impression, strength, target_kinds
from sidecar.records import Event, FloatArray

logger = logging.getLogger(__name__)
COLUMNS: Mapping[str, npt.DTypeLike] = {
    "user": np.int32, "item": np.int32, "kind": np.int16, "ts": np.float64, "visit": np.int64,
    "query": np.int32, "position": np.int16, "price": np.float32, "is_kept": np.bool_,
    "is_unknown": np.bool_}
LAST_POSITION = 9999  # of an item that was shown; what stands further down counts as there
_Known = TypeVar("_Known")
Index = npt.NDArray[np.int64] | slice
MOST_UNTIMED = 10  # events of a visit in a log without times; a basket or a session has as many
VISIT_GAP_S = 1800.0  # a pause that ends a visit where neither order nor session is logged


@dataclass(frozen=True, slots=True)
class EventTable:
    """Columns of one length n, sorted by ``ts``.

    ``user`` (n) codes into ``users``; ``item`` (n) rows of the catalogue, -1 for none or unknown;
    ``kind`` (n) codes into ``kinds``; ``ts`` (n) seconds; ``visit`` (n) codes: the session where
    there is one, else the order, else a run of events with gaps under half an hour; an order joins
    the run that it ends (see ``_join_orders``); ``query`` (n) codes into ``queries``, -1 for none;
    ``position`` (n) where an item was shown, -1 where that is not logged; ``price`` (n) of one
    unit, NaN where that is not logged or no price (see ``ranking.imputation``); ``is_kept`` (n)
    what a history keeps of it where the model serves (see ``serving.histories``): not what was only
    shown, and nothing without item and query; ``is_unknown`` (n) what names an item that the
    catalogue lacks.
    """

    users: list[str]
    kinds: list[str]
    queries: list[str]
    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int16]
    ts: npt.NDArray[np.float64]
    visit: npt.NDArray[np.int64]
    query: npt.NDArray[np.int32]
    position: npt.NDArray[np.int16]
    price: npt.NDArray[np.float32]
    is_kept: npt.NDArray[np.bool_]
    is_unknown: npt.NDArray[np.bool_]
    has_times: bool

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def unknown_items(self) -> int:
        """Return how many events name an item that the catalogue lacks."""
        return int(self.is_unknown.sum())

    @classmethod
    def from_events(cls, events: Iterable[Event], rows: Mapping[str, int]) -> EventTable:
        """Build the columns; ``rows`` maps item ids to catalogue rows.

        Events without a time get the file's order as their time, one second apart after the
        last known one; ``has_times`` is False if not one event has a time. Of events with one id
        the first counts, as it does where events are sent to a sidecar.
        """
        columns = _Columns(rows)
        for event in _once(events):
            columns.append(event)
        order = np.argsort(np.asarray(columns.ts), kind="stable")
        log = cls(users=list(columns.users), kinds=list(columns.kinds),
                  queries=list(columns.queries), has_times=columns.has_times,
                  **columns.arrays(order))
        _number_visits(log, len(columns.visits))
        _join_orders(log, np.asarray(columns.of_order, bool)[order])
        return log

    def until(self, ts: float) -> EventTable:
        """Return the part strictly before ``ts``; codes stay as they are."""
        return self.slice(0, int(np.searchsorted(self.ts, ts, side="left")))

    def slice(self, start: int, stop: int) -> EventTable:
        """Return events ``start`` to ``stop`` as views; codes stay as they are."""
        return self.take(slice(start, stop))

    def take(self, index: Index) -> EventTable:
        """Return some of the events, in the order of the index; codes stay as they are."""
        return replace(self, **{name: getattr(self, name)[index] for name in COLUMNS})

    def target_kinds(self) -> frozenset[str]:
        """Return the kinds of event that a model should bring about; see ``ranking.kinds``."""
        counts = np.bincount(self.kind[self.item >= 0], minlength=len(self.kinds))
        return target_kinds(self.kinds, counts.tolist())

    def is_target(self) -> npt.NDArray[np.bool_]:
        """Return which events (n) are of a target kind and name an item of the catalogue."""
        targets = self.target_kinds()
        found: npt.NDArray[np.bool_] = np.array([k in targets for k in self.kinds], bool)[self.kind]
        return found & (self.item >= 0)

    def strengths(self) -> FloatArray:
        """Return the strength (n) of each event; see ``ranking.kinds``."""
        return np.array([strength(kind) for kind in self.kinds], np.float32)[self.kind]

    def is_positive(self) -> npt.NDArray[np.bool_]:
        """Return which events (n) speak for their item."""
        return self.strengths() > 0

    def is_among(self, kinds: frozenset[str]) -> npt.NDArray[np.bool_]:
        """Return which events (n) are of some kinds, or mean what one of them does."""
        return np.array([is_among(kind, kinds) for kind in self.kinds], bool)[self.kind]

    def asked(self) -> npt.NDArray[np.int32]:
        """Return the query (n) that each event answers, -1 for none: its own, else that of the
        last event with one in the same visit, no more than half an hour before."""
        if not self.queries:
            return np.full(len(self), -1, np.int32)
        order = np.argsort(self.visit, kind="stable")  # sessions of one user may run side by side
        query, visit, ts = self.query[order], self.visit[order], self.ts[order]
        last = np.maximum.accumulate(np.where(query >= 0, np.arange(len(order)), -1))
        place = np.maximum(last, 0)
        holds = (last >= 0) & (visit[place] == visit) & (ts - ts[place] <= VISIT_GAP_S)
        found = np.empty(len(self), np.int32)
        found[order] = np.where(holds, query[place], -1)
        return found

    def by_user(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (order, offsets): user u's events are ``order[offsets[u]:offsets[u+1]]``."""
        order = np.argsort(self.user, kind="stable")
        counts = np.bincount(self.user, minlength=len(self.users))
        return order, np.concatenate([[0], np.cumsum(counts)])

    def histories(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return what ``by_user`` does, of the events that histories keep."""
        order, _ = self.by_user()
        order = order[self.is_kept[order]]
        counts = np.bincount(self.user[order], minlength=len(self.users))
        return order, np.concatenate([[0], np.cumsum(counts)])


def _once(events: Iterable[Event]) -> Iterator[Event]:
    """Yield the events whose ``event_id`` did not come before, and those without one."""
    seen: set[str] = set()
    repeated = 0
    for event in events:
        if event.event_id in seen:
            repeated += 1
            continue
        if event.event_id:
            seen.add(event.event_id)
        yield event
    if repeated:
        logger.warning("%d events left out: their event_id came before", repeated)


class _Columns:
    """A log's columns while its events come in, one by one in the file's order.

    ``users``, ``kinds``, ``queries`` and ``visits`` map what was met to its code. ``visit`` is -1
    where an event has neither session nor order, ``of_order`` True where it has an order alone.
    """

    def __init__(self, rows: Mapping[str, int]) -> None:
        self._rows = rows
        self.has_times = False
        self.users: dict[str, int] = {}
        self.kinds: dict[str, int] = {}
        self.queries: dict[str, int] = {}
        self.visits: dict[tuple[int, str, bool], int] = {}
        self.user: list[int] = []
        self.item: list[int] = []
        self.kind: list[int] = []
        self.ts: list[float] = []
        self.visit: list[int] = []
        self.query: list[int] = []
        self.position: list[int] = []
        self.price: list[float] = []
        self.is_kept: list[bool] = []
        self.is_unknown: list[bool] = []
        self.of_order: list[bool] = []

    def append(self, event: Event) -> None:
        """Add an event to every column."""
        row = -1 if event.item_id is None else self._rows.get(event.item_id, -1)
        self.user.append(_code(self.users, event.user_id))
        self.item.append(row)
        self.kind.append(_code(self.kinds, event.event))
        self.ts.append(self._instant(event))
        self.query.append(_code(self.queries, event.query) if event.query else -1)
        self.position.append(
            -1 if event.position is None else min(max(event.position, -1), LAST_POSITION))
        self.price.append(np.nan if event.unit_price is None else event.unit_price)
        self.is_kept.append(not is_impression(event.event) and bool(event.item_id or event.query))
        self.is_unknown.append(row < 0 and event.item_id is not None)
        key = event.session_id or event.order_id
        is_order = bool(key) and not event.session_id
        self.of_order.append(is_order)
        self.visit.append(_code(self.visits, (self.user[-1], key, is_order)) if key else -1)

    def _instant(self, event: Event) -> float:
        if event.ts is None:
            return (self.ts[-1] if self.ts else 0.0) + 1.0
        self.has_times = True
        return event.ts

    def arrays(self, order: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Return each of ``COLUMNS`` in an order."""
        price = np.asarray(self.price, np.float64)
        cells = {name: getattr(self, name) for name in COLUMNS} | {
            "price": np.where(is_known(price), price, np.nan)}
        return {name: np.asarray(cells[name], dtype)[order] for name, dtype in COLUMNS.items()}


def _code(codes: dict[_Known, int], value: _Known) -> int:
    """Return the code of what was met before, or else the next."""
    return codes.setdefault(value, len(codes))


def _number_visits(log: EventTable, first_free: int) -> None:
    """Give events without order or session the visit of the user's run of events. Without times
    nothing tells where one ends: it is cut after MOST_UNTIMED events."""
    if not (log.visit < 0).any():
        return
    order, _ = log.by_user()
    ts, user = log.ts[order], log.user[order]
    breaks = np.ones(len(order), bool)
    breaks[1:] = (np.diff(ts) > VISIT_GAP_S) | (user[1:] != user[:-1])
    if not log.has_times:
        place = np.arange(len(order))
        breaks |= (place - np.maximum.accumulate(np.where(breaks, place, 0))) % MOST_UNTIMED == 0
    runs = np.cumsum(breaks) - 1 + first_free
    absent = log.visit[order] < 0
    log.visit[order[absent]] = runs[absent]


def _join_orders(log: EventTable, of_order: npt.NDArray[np.bool_]) -> None:
    """Give the events that have but an order the visit of what the user did within the half hour
    before it: else no search would be followed by a purchase where only orders have ids."""
    if not of_order.any() or of_order.all():
        return
    order, _ = log.by_user()
    ts, user, visit, of_order = log.ts[order], log.user[order], log.visit[order], of_order[order]
    last = np.maximum.accumulate(np.where(of_order, -1, np.arange(len(order))))
    place = np.maximum(last, 0)
    joins = (last >= 0) & (user[place] == user) & (ts - ts[place] <= VISIT_GAP_S)
    _, first, inverse = np.unique(visit[of_order], return_index=True, return_inverse=True)
    start = np.flatnonzero(of_order)[first[inverse]]  # each event's order's first
    log.visit[order[of_order]] = np.where(joins[start], visit[place[start]], visit[of_order])
