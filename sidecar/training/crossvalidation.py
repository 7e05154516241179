"""Does a gain hold from month to month? Cross-validation in time, with a window that expands.

Fold k trains on all events before t_k and ranks the searches in [t_k, t_k+1): no fold learns from
what it is judged by. The instants divide the strong events of the log's later half evenly, so that
about as many judge each fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sidecar.errors import FileError
from sidecar.training.dev_cases import cases_of_log
from sidecar.training.evaluation import evaluate, report
from sidecar.training.event_table import EventTable
from sidecar.training.metrics import mean_of
from sidecar.training.pipeline import Progress, TrainConfig, train_ranker

FIRST_SHARE = 0.5  # of strong events, that the first fold learns from
METRICS = ("mrr", "ndcg@10", "hit_rate@10", "map")
COMPARED = ("BM25", "BM25+popularity", "BM25+popularity+repeats", "unpersonalised", "model")
DIFFERENCES = ("mrr vs BM25", "mrr vs unpersonalised")
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fold:
    """Train before ``since``, judge in [``since``, ``until``); seconds."""

    number: int
    since: float
    until: float


def make_folds(log: EventTable, count: int) -> list[Fold]:
    """Return ``count`` folds in order of time, numbered from 1.

    Raises:
        FileError: the log has no times, or too few instants for so many folds.
    """
    if not log.has_times:
        raise FileError("events have no times, so nothing lies before a fold")
    ts = log.ts[log.is_target()]
    if not len(ts):
        raise FileError("events hold no purchase, click or other positive event on a known item")
    places = np.linspace(FIRST_SHARE, 1.0, count + 1)[:-1] * len(ts)
    edges = [*ts[places.astype(np.int64)].tolist(), float(log.ts[-1]) + 1.0]
    if len(set(edges)) < len(edges) or edges[0] <= float(log.ts[0]):
        raise FileError(f"events have too few instants for {count} folds; ask for fewer")
    return [Fold(k + 1, edges[k], edges[k + 1]) for k in range(count)]


def run_fold(fold: Fold, rows: Sequence[Mapping[str, Any]], log: EventTable, config: TrainConfig,
             progress: Progress, *, most_cases: int) -> Figures:
    """Train and judge one fold; returns ``evaluation.report``'s figures and what the fold was.

    Raises:
        FileError: the fold's events teach nothing, or make no case.
    """
    cases = cases_of_log(log, rows, since=fold.since, until=fold.until, most=most_cases,
                         seed=config.seed)
    ranker, evidence = train_ranker(rows, log.until(fold.since), config, progress)
    evaluated = evaluate(ranker, log.until(fold.until), cases, progress("evaluate"))
    return {"fold": fold.number, "since": fold.since, "until": fold.until,
            "events": len(log.until(fold.since)), "is_personal": bool(evidence["is_personal"]),
            **report(evaluated)}


def summary(folds: Sequence[Figures]) -> Figures:
    """Return mean, standard deviation over folds (of a sample; null for one fold), least and
    greatest of every metric, by slice and ranker, and of the differences.

    A slice that a fold lacks counts in the others; ``folds`` says how many had it.
    """
    slices: Figures = {}
    for name in dict.fromkeys(name for fold in folds for name in fold["slices"]):
        parts = [fold["slices"][name]["rankers"] for fold in folds if name in fold["slices"]]
        rankers = {ranker: {metric: _spread([mean_of(p[ranker][metric]) for p in parts])
                            for metric in METRICS} for ranker in COMPARED}
        differences = {against: _spread([p["model"][against]["difference"] for p in parts])
                       for against in DIFFERENCES}
        slices[name] = {"folds": len(parts), "rankers": rankers, "differences": differences}
    return {"folds": len(folds), "cases": sum(fold["counted"] for fold in folds),
            "personal_folds": sum(fold["is_personal"] for fold in folds), "slices": slices}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "min": float(min(values)), "max": float(max(values))}
