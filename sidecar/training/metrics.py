"""How good is an order? Ranking metrics per case, classification over candidates, intervals.

Definitions follow the usual ones (Manning, Raghavan, Schütze, "Introduction to Information
Retrieval", chapter 8); NDCG has binary gains and a log2 discount.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
RANKING_METRICS = ("mrr", "ndcg@10", "hit_rate@10", "map", "precision@10", "recall@10", "f1@10")
RESAMPLES = 2000


def case_metrics(relevant_in_order: npt.NDArray[np.bool_], relevant_total: int) -> dict[str, float]:
    """Return every ranking metric of one case.

    Args:
        relevant_in_order: (K) whether the hit at each rank is relevant.
        relevant_total: relevant items of the case, found among the candidates or not.
    """
    ranks = np.flatnonzero(relevant_in_order) + 1.0
    if not len(ranks):
        return dict.fromkeys(RANKING_METRICS, 0.0)
    top = ranks[ranks <= 10]
    ideal = np.sum(1 / np.log2(np.arange(2, 2 + min(10, relevant_total))))
    precision = len(top) / min(10, len(relevant_in_order))
    recall = len(top) / relevant_total
    return {
        "mrr": 1.0 / ranks[0],
        "ndcg@10": float(np.sum(1 / np.log2(top + 1)) / ideal),
        "hit_rate@10": float(len(top) > 0),
        "map": float(np.sum(np.arange(1, len(ranks) + 1) / ranks) / relevant_total),
        "precision@10": precision,
        "recall@10": recall,
        "f1@10": 2 * precision * recall / (precision + recall) if len(top) else 0.0,
    }


def reciprocal_ranks(scores: npt.NDArray[np.floating], target: npt.NDArray[np.bool_],
                     valid: npt.NDArray[np.bool_]) -> Vector:
    """Return (N): 1/rank of the best placed target of each list (N, K); ties in list order."""
    order = np.argsort(-np.where(valid, scores, -np.inf), axis=1, kind="stable")
    hits = np.take_along_axis(target, order, axis=1)
    found: Vector = np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1.0), 0.0)
    return found


def mean_interval(values: Vector, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and its 95 % bootstrap interval over cases; NaN where there are none."""
    if not len(values):
        return (float("nan"),) * 3
    means = _resamples(len(values), seed) @ values.astype(np.float32) / len(values)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def mean_of(figure: Any) -> float:
    """Return the mean that a figure tells, be it one by itself or ``mean_interval``'s three."""
    return float(figure[0] if isinstance(figure, list | tuple) else figure)


@lru_cache(2)  # every figure of a slice is drawn alike, so that figures can be compared
def _resamples(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Return (RESAMPLES, count): how often each case is drawn."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, count), np.float32)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, count, count), minlength=count)
    return drawn


def compare(ours: Vector, theirs: Vector, seed: int = 0) -> dict[str, Any]:
    """Return the paired difference with its interval, and how many cases win, tie and lose.

    ``worst_tenth`` is the mean difference of the tenth of the cases that lose most.
    """
    difference = ours - theirs
    mean, low, high = mean_interval(difference, seed)
    count = max(len(difference), 1)
    worst = np.sort(difference)[: max(1, len(difference) // 10)]
    return {"difference": mean, "low": low, "high": high,
            "win": float((difference > 1e-9).sum() / count),
            "tie": float((np.abs(difference) <= 1e-9).sum() / count),
            "loss": float((difference < -1e-9).sum() / count),
            "worst_tenth": float(worst.mean()) if len(difference) else float("nan")}


def auc(probability: Vector, label: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve (Mann-Whitney, ties count half)."""
    positive, negative = int(label.sum()), int((~label).sum())
    if not positive or not negative:
        return float("nan")
    _, inverse, counts = np.unique(probability, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[label].sum() - positive * (positive + 1) / 2) / (positive * negative))


def classification(probability: Vector, label: npt.NDArray[np.bool_],
                   threshold: float) -> Mapping[str, float]:
    """Return accuracy, precision, recall and F1 of ``probability ≥ threshold``, and AUC.

    Accuracy is NaN where there is nothing to classify, AUC where there is only one class.
    """
    said = probability >= threshold
    true_positive = float((said & label).sum())
    precision = true_positive / max(float(said.sum()), 1.0)
    recall = true_positive / max(float(label.sum()), 1.0)
    both = precision + recall
    accuracy = float((said == label).mean()) if len(label) else float("nan")
    return {"threshold": threshold, "accuracy": accuracy,
            "precision": precision, "recall": recall,
            "f1": 2 * precision * recall / both if both else 0.0,
            "auc": auc(probability, label)}


def list_probabilities(scores: npt.NDArray[np.floating],
                       valid: npt.NDArray[np.bool_]) -> Vector:
    """Return (N, K): softmax of each list's scores over its valid candidates, 0 elsewhere."""
    masked = np.where(valid, scores.astype(np.float64), -np.inf)
    weights = np.exp(masked - masked.max(axis=1, keepdims=True, initial=-1e300))
    result: Vector = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    return result


def curves(probability: Vector, label: npt.NDArray[np.bool_],
           points: int = 100) -> dict[str, list[tuple[float, float]]]:
    """Return points of the curves that thresholds draw, about ``points`` each.

    ``roc``: (false positive rate, true positive rate); ``precision_recall``: (recall, precision).
    Both empty where there is only one class.
    """
    positive, negative = int(label.sum()), int((~label).sum())
    if not positive or not negative:
        return {"roc": [], "precision_recall": []}
    order = np.argsort(-probability, kind="stable")
    last = np.flatnonzero(np.diff(probability[order], append=-np.inf))  # equal ones go together
    hits = np.cumsum(label[order])[last].astype(np.float64)
    said = last + 1.0
    false_rate, recall = (said - hits) / negative, hits / positive
    roc = _thinned(np.concatenate([[0.0], false_rate]), np.concatenate([[0.0], recall]), points)
    return {"roc": roc, "precision_recall": _thinned(recall, hits / said, points)}


def _thinned(x: Vector, y: Vector, points: int) -> list[tuple[float, float]]:
    """Keep the first point of each of ``points`` equal steps of x, and the last."""
    step = np.floor(x * points)
    kept = np.flatnonzero(np.diff(step, prepend=-1.0))
    kept = np.unique(np.append(kept, len(x) - 1))
    return [(float(x[k]), float(y[k])) for k in kept]


def reliability(probability: Vector, label: npt.NDArray[np.bool_],
                bins: int = 10) -> dict[str, Any]:
    """Return how far probabilities can be believed: bins of equal width, lowest first.

    Each bin that is not empty is (mean probability, share of relevant, count); ``error`` is the
    expected calibration error, the mean of their distances weighted by count; NaN where there is
    nothing.
    """
    if not len(probability):
        return {"bins": [], "error": float("nan")}
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    found = [(float(probability[place == k].mean()), float(label[place == k].mean()),
              int((place == k).sum())) for k in np.unique(place).tolist()]
    error = sum(abs(said - was) * count for said, was, count in found) / len(probability)
    return {"bins": found, "error": error}
