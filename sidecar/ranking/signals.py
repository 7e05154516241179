"""Which facts about a hit, a query and a shopper does the blend read? One function for all three.

``facts`` returns one row per candidate. Every column belongs to one signal (``COLUMNS``), and the
blend turns each signal's columns into that signal's part of the score. ``PERSONAL`` signals need a
history; ``segment`` reads the history if there is one, else attributes, else nothing. Training,
evaluation and serving call this one function, so a feature cannot differ between them. ``kernels``
holds what it computes.

Columns hold raw facts; the blend appends each one's z-score within the window, because an order
depends on how candidates of one search differ, not on how searches do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sidecar.ranking import kernels
from sidecar.ranking.association import Association
from sidecar.ranking.history import Trail
from sidecar.ranking.items import ItemTable
from sidecar.ranking.kernels import CONTEXT, Recall
from sidecar.ranking.query_memory import QueryMemory
from sidecar.ranking.segments import Segments, factor_vector
from sidecar.ranking.statistics import ItemStatistics
from sidecar.records import FloatArray, IntArray

COLUMNS: Mapping[str, tuple[str, ...]] = kernels.COLUMNS
SIGNALS = tuple(COLUMNS)
PERSONAL = ("repeat", "content", "collaborative", "interest")
HYBRID = "hybrid"  # names all signals
FEATURES = tuple((signal, name) for signal, names in COLUMNS.items() for name in names)
_NO_COUNTS = np.zeros(0, np.float32)


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
    segments: Segments = field(default_factory=Segments.none)
    memory: QueryMemory = field(default_factory=QueryMemory)
    final_counts: FloatArray = field(default_factory=lambda: _NO_COUNTS)


@dataclass(frozen=True, slots=True)
class Situation:
    """One search: K candidates in engine order, a user's trail, an instant.

    ``interest`` (K): the encoder's logits v_i · z + b, zeros where None. ``recall``: what followed
    the query before; None reads it from the knowledge. ``attributes`` place a shopper without
    history among the segments.
    """

    rows: IntArray
    engine_scores: FloatArray
    trail: Trail
    now: float
    query: str | None = None
    interest: FloatArray | None = None
    recall: Recall | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


def signals_named(text: str) -> tuple[str, ...]:
    """Return the signals that a comma-separated text switches on; the engine's score always is.

    Raises:
        ValueError: a name is no signal.
    """
    names = [name.strip() for name in text.split(",")]
    if names == [HYBRID]:
        return SIGNALS
    unknown = [name for name in names if name not in SIGNALS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no signal; known: {HYBRID} (all), "
                         f"{', '.join(SIGNALS)}")
    return tuple(name for name in SIGNALS if name in names or name == "engine")


def facts(knowledge: Knowledge, situation: Situation) -> tuple[FloatArray, FloatArray]:
    """Return the features (K, len(FEATURES)), NaN where a fact is unknown, and the context (C)."""
    rows, items = situation.rows, knowledge.items
    events = _events(situation.trail)
    hits = kernels.Hits(rows, situation.engine_scores.astype(np.float32),  # never read-only
                        _given(situation.interest, len(rows)),
                        _lift(knowledge, situation, events.rows))
    recall = situation.recall
    if recall is None:
        recall = knowledge.memory.recall(situation.query, situation.now)
    statistics = knowledge.statistics
    features = np.empty((len(rows), len(FEATURES)), np.float32)
    context = np.zeros(len(CONTEXT))
    kernels.fill(
        hits, events, float(situation.now),
        kernels.Catalogue(items.brand, items.categories, items.numbers, items.text),
        knowledge.factors,
        kernels.Counts(statistics.strong, statistics.weak, statistics.trial, statistics.updated,
                       statistics.first, statistics.last, knowledge.final_counts),
        recall, knowledge.rhythm, _table(knowledge, "ease"), _table(knowledge, "together"),
        _table(knowledge, "after"), features, context)
    return features, context.astype(np.float32)


def _given(column: FloatArray | None, size: int) -> FloatArray:
    return np.zeros(size, np.float32) if column is None else column.astype(np.float32, copy=False)


def prepare_trail(knowledge: Knowledge, trail: Trail) -> None:
    """Work out what ``facts`` needs of a trail alone; it is kept in the trail's memo."""
    _weights(knowledge, trail, len(_events(trail).rows))


def _lift(knowledge: Knowledge, situation: Situation, past_rows: IntArray) -> FloatArray:
    """Return the lift (K) of the shopper's segments: of those that the history tells where there is
    one, else the attributes, else 0."""
    segments = knowledge.segments
    weights = _weights(knowledge, situation.trail, len(past_rows))
    if weights is None and segments.knows(situation.attributes):
        weights = segments.of_attributes(situation.attributes)
    if weights is None:
        return np.zeros(len(situation.rows), np.float32)
    return segments.score(situation.rows, weights)


def _weights(knowledge: Knowledge, trail: Trail, events: int) -> FloatArray | None:
    """Return how much a trail of so many events on known items belongs to each segment (S), worked
    out once a trail; None where it tells nothing."""
    weights: FloatArray | None = trail.memo.get("segments")
    if weights is None and len(knowledge.segments):
        liked = trail.rows[(trail.rows >= 0) & (trail.weight > 0)]
        if len(liked):
            place = factor_vector(liked, knowledge.factors)
            weights = trail.memo["segments"] = knowledge.segments.of_vector(place, events)
    return weights


def _events(trail: Trail) -> kernels.Events:
    """Return the events on known items, worked out once a trail."""
    found: kernels.Events | None = trail.memo.get("events")
    if found is None:
        known = trail.rows >= 0
        found = trail.memo["events"] = kernels.Events(
            trail.rows[known], trail.ts[known], trail.weight[known], trail.strong[known])
    return found


_EMPTY = kernels.Table(np.zeros(0, np.int32), np.zeros((0, 1), np.int32),
                       np.zeros((0, 1), np.float32))


def _table(knowledge: Knowledge, name: str) -> kernels.Table:
    found = knowledge.associations.get(name)
    return _EMPTY if found is None else kernels.Table(found.slot, found.neighbours, found.weights)
