"""What the sidecar counts and times, in one place; Prometheus reads it at ``/metrics``.

Counters add up over worker processes if ``PROMETHEUS_MULTIPROC_DIR`` is set before the first import
of ``prometheus_client`` (gunicorn's configuration sets it). Nothing here holds a user id, a query
or an item id: labels are words from closed lists.
"""

from __future__ import annotations

import time

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from sidecar.records import SkipReason

CONTENT_TYPE = CONTENT_TYPE_LATEST
TIMED_STAGES = ("upstream", "history", "rank", "total")
EVENT_OUTCOMES = ("taken", "refused", "duplicate", "failed")
WITHOUT_EFFECT = ("names_nothing", "unknown_item")
LOAD_OUTCOMES = ("loaded", "refused")
SCORER_OUTCOMES = ("answered", "late", "refused", "unreachable")
REFUSALS = ("too_many_requests", "not_allowed", "unauthorized", "bad_control", "bad_events",
            "bad_request", "body_too_large", "upstream_timeout", "upstream_unavailable",
            "internal_error")

# Bounds in seconds. Half a millisecond to ten seconds: below is noise, above is an outage.
_BOUNDS = (.0005, .001, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .1, .25, .5, 1., 2.5,
           10.)

_SEARCHES = Counter("personalize_searches", "searches by what was done to their order",
                    ("status", "reason"))
_STAGES = Histogram("personalize_stage_seconds", "time a search spends in each stage",
                    ("stage",), buckets=_BOUNDS)
_EVENTS = Counter("personalize_events", "events by what became of them", ("outcome",))
_WITHOUT_EFFECT = Counter(
    "personalize_events_without_effect", "events taken that name neither item nor query, or an "
    "item that the ranking does not know (yet)", ("reason",))
_REFUSED = Counter("personalize_refused_requests", "requests answered with an error of the "
                   "sidecar's own, by reason; OpenSearch's errors are answers", ("reason",))
_CONFLICTS = Counter("personalize_state_conflicts", "state writes that somebody else had overtaken")
_RECOMPUTED = Counter("personalize_states_recomputed", "states stepped anew for another model")
_MODEL = Gauge("personalize_model_info", "1 for the model that ranks, by its version",
               ("version",), multiprocess_mode="livemax")
_SWAPS = Counter("personalize_model_loads", "model loads by outcome", ("outcome",))
_ITEMS = Gauge("personalize_catalogue_items", "items that can be scored",
               multiprocess_mode="livemax")
_ITEM_CHANGES = Counter("personalize_catalogue_changes", "product changes taken into the ranking")
_SCORER = Counter("personalize_scorer_requests",
                  "batches for the scorer by outcome; all but answered were computed by the worker",
                  ("outcome",))
_SHOWN_DROPPED = Counter("personalize_shown_orders_dropped",
                         "shown orders that are not in the query log")


class Telemetry:
    """Counts outcomes and times stages; thread-safe, cheap enough for every request.

    Every label is there from the start, at 0: Prometheus's ``increase()`` does not see a count with
    which a series begins.
    """

    def __init__(self) -> None:
        self._searches = {reason: _SEARCHES.labels("skipped", str(reason)) for reason in SkipReason}
        self._applied = _SEARCHES.labels("applied", "")
        self._stages = {stage: _STAGES.labels(stage) for stage in TIMED_STAGES}
        self._events = {outcome: _EVENTS.labels(outcome) for outcome in EVENT_OUTCOMES}
        self._without_effect = {reason: _WITHOUT_EFFECT.labels(reason) for reason in WITHOUT_EFFECT}
        self._refused = {reason: _REFUSED.labels(reason) for reason in REFUSALS}
        self._loads = {outcome: _SWAPS.labels(outcome) for outcome in LOAD_OUTCOMES}
        self._scorer = {outcome: _SCORER.labels(outcome) for outcome in SCORER_OUTCOMES}
        self._model: str | None = None

    def searched(self, reason: SkipReason | None) -> None:
        """Count one search's outcome; None: its hits were put in a personal order."""
        (self._applied if reason is None else self._searches[reason]).inc()

    def timed(self, stage: str, milliseconds: float) -> None:
        """Time one of ``TIMED_STAGES``."""
        self._stages[stage].observe(milliseconds / 1000.0)

    def events(self, *, taken: int = 0, refused: int = 0, duplicates: int = 0,
               failed: int = 0) -> None:
        """Count one answered batch of events; ``failed``: OpenSearch could not take them."""
        for outcome, count in (("taken", taken), ("refused", refused), ("duplicate", duplicates),
                               ("failed", failed)):
            if count:
                self._events[outcome].inc(count)

    def events_without_effect(self, *, names_nothing: int, unknown_item: int) -> None:
        """Count events that were taken and that the ranking can do nothing, or little, with."""
        for reason, count in (("names_nothing", names_nothing), ("unknown_item", unknown_item)):
            if count:
                self._without_effect[reason].inc(count)

    def refused(self, reason: str) -> None:
        """Count one request that the sidecar itself refused, by one of ``REFUSALS``."""
        self._refused[reason].inc()

    def state_conflict(self, count: int = 1) -> None:
        """Count state writes that have to be done again on a newer version."""
        _CONFLICTS.inc(count)

    def state_recomputed(self) -> None:
        """Count one state whose hidden state came from another model."""
        _RECOMPUTED.inc()

    def model_in_use(self, version: str, items: int) -> None:
        """Name the model that ranks from now on."""
        if self._model not in (None, version):
            _MODEL.labels(self._model).set(0)
        _MODEL.labels(version).set(1)
        self._model = version
        self._loads["loaded"].inc()
        _ITEMS.set(items)

    def shown_orders_dropped(self, count: int) -> None:
        """Count shown orders that could not be logged."""
        _SHOWN_DROPPED.inc(count)

    def scorer_asked(self, outcome: str) -> None:
        """Count one request to the scorer, by one of ``SCORER_OUTCOMES``."""
        self._scorer[outcome].inc()

    def model_refused(self) -> None:
        """Count a model directory that could not be loaded."""
        self._loads["refused"].inc()

    def catalogue(self, items: int, changed: int) -> None:
        """Note the item table's size after ``changed`` rows were taken in."""
        _ITEMS.set(items)
        if changed:
            _ITEM_CHANGES.inc(changed)


def exposition() -> bytes:
    """Render every metric in Prometheus's text form, summed over the worker processes."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:  # one process: no directory is set
        return generate_latest(REGISTRY)
    return generate_latest(registry)


def ms_since(began: float) -> float:
    """Return the milliseconds since an instant on ``time.perf_counter``'s clock."""
    return (time.perf_counter() - began) * 1000.0
