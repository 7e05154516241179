"""The event log as columns: what every step of training and evaluation walks through.

One row an event, in order of time (file order where times are equal or unknown), with codes
instead of strings. 1.5 million events take about 60 MB.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sidecar.ranking.imputation import is_known
from sidecar.ranking.kinds import is_among, is_impression, strength, target_kinds
from sidecar.records import Event, FloatArray

logger = logging.getLogger(__name__)
COLUMNS = ("user", "item", "kind", "ts", "visit", "query", "position", "price", "is_kept",
           "is_unknown")
Index = npt.NDArray[np.int64] | slice
MOST_UNTIMED = 10  # events of a visit in a log without times; a basket or a session has as many
VISIT_GAP_S = 1800.0  # a pause that ends a visit where neither order nor session is logged


@dataclass(frozen=True, slots=True)
class EventLog:
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
    def from_events(cls, events: Iterable[Event], rows: Mapping[str, int]) -> EventLog:
        """Build the columns; ``rows`` maps item ids to catalogue rows.

        Events without a time get the file's order as their time, one second apart after the
        last known one; ``has_times`` is False if not one event has a time. Of events with one id
        the first counts, as it does where events are sent to a sidecar.
        """
        users: dict[str, int] = {}
        kinds: dict[str, int] = {}
        queries: dict[str, int] = {}
        visits: dict[tuple[int, str, bool], int] = {}
        user, item, kind, ts, visit, query, position, price = [], [], [], [], [], [], [], []
        of_order, is_kept, is_unknown = [], [], []
        clock, has_times = 0.0, False
        seen: set[str] = set()
        repeated = 0
        for event in events:
            if event.event_id:
                if event.event_id in seen:
                    repeated += 1
                    continue
                seen.add(event.event_id)
            code = users.setdefault(event.user_id, len(users))
            row = -1 if event.item_id is None else rows.get(event.item_id, -1)
            if event.ts is None:
                clock += 1.0
            else:
                clock, has_times = event.ts, True
            key = event.session_id or event.order_id
            is_order = bool(key) and not event.session_id
            of_order.append(is_order)
            is_unknown.append(row < 0 and event.item_id is not None)
            is_kept.append(not is_impression(event.event) and bool(event.item_id or event.query))
            user.append(code)
            item.append(row)
            kind.append(kinds.setdefault(event.event, len(kinds)))
            ts.append(clock)
            visit.append(visits.setdefault((code, key, is_order), len(visits)) if key else -1)
            query.append(queries.setdefault(event.query, len(queries)) if event.query else -1)
            position.append(-1 if event.position is None else min(max(event.position, -1), 9999))
            price.append(np.nan if event.unit_price is None else event.unit_price)
        if repeated:
            logger.warning("%d events left out: their event_id came before", repeated)
        order = np.argsort(np.asarray(ts), kind="stable")
        prices = np.asarray(price, np.float64)
        log = cls(
            users=list(users), kinds=list(kinds), queries=list(queries),
            user=np.asarray(user, np.int32)[order], item=np.asarray(item, np.int32)[order],
            kind=np.asarray(kind, np.int16)[order], ts=np.asarray(ts, np.float64)[order],
            visit=np.asarray(visit, np.int64)[order], query=np.asarray(query, np.int32)[order],
            position=np.asarray(position, np.int16)[order],
            price=np.where(is_known(prices), prices, np.nan).astype(np.float32)[order],
            is_kept=np.asarray(is_kept, bool)[order],
            is_unknown=np.asarray(is_unknown, bool)[order], has_times=has_times)
        _number_visits(log, len(visits))
        _join_orders(log, np.asarray(of_order, bool)[order])
        return log

    def until(self, ts: float) -> EventLog:
        """Return the part strictly before ``ts``; codes stay as they are."""
        return self.slice(0, int(np.searchsorted(self.ts, ts, side="left")))

    def slice(self, start: int, stop: int) -> EventLog:
        """Return events ``start`` to ``stop`` as views; codes stay as they are."""
        return self.take(slice(start, stop))

    def take(self, index: Index) -> EventLog:
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


def _number_visits(log: EventLog, first_free: int) -> None:
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


def _join_orders(log: EventLog, of_order: npt.NDArray[np.bool_]) -> None:
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
