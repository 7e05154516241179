"""What does a diversified page cost, and what does it bring? The same cases, several strengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.ranking.diversity import PAGE, diversify
from sidecar.ranking.items import ItemTable
from sidecar.training.evaluation import Evaluated, case_is_counted
from sidecar.training.metrics import case_metrics, compare

STRENGTHS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
FACTS = ("mrr", "ndcg@10", "distance@10", "brand_entropy@10", "category_entropy@10")


def diversity_effect(evaluated: Evaluated, items: ItemTable,
                     strengths: Sequence[float] = STRENGTHS) -> list[dict[str, Any]]:
    """Return, for each strength, means over the counted cases.

    MRR and NDCG@10 with the paired difference to strength 0 in MRR; of the first ten hits, the mean
    cosine distance between item vectors of two, and the entropy (bits) of brands and of narrowest
    categories, items without one left out. Cases that the engine orders stay as they are, as where
    it serves.
    """
    counted = [k for k, case in enumerate(evaluated.cases) if case_is_counted(case)]
    found: list[dict[str, Any]] = []
    plain: npt.NDArray[np.float64] | None = None
    for strength in strengths if counted else ():
        facts = np.array([_facts(evaluated, items, k, strength) for k in counted])
        plain = facts[:, 0] if plain is None else plain
        found.append({"strength": strength, "mrr_change": compare(facts[:, 0], plain),
                      **dict(zip(FACTS, np.nanmean(facts, axis=0).tolist(), strict=True))})
    return found


def _facts(evaluated: Evaluated, items: ItemTable, k: int, strength: float) -> tuple[float, ...]:
    case = evaluated.cases[k]
    rows = items.rows(case.candidates)
    order, _ = diversify(evaluated.scores["model"][k, :len(rows)], rows, items,
                         strength if evaluated.is_served[k] else 0.0)
    metrics = case_metrics(evaluated.lists.target[k][order], max(len(set(case.relevant)), 1))
    top = rows[order[:PAGE]]
    top = top[top >= 0]
    return (metrics["mrr"], metrics["ndcg@10"], distance(items.vectors[top]),
            entropy(items.brand[top]), entropy(items.categories[top, 0]))


def distance(vectors: npt.NDArray[np.floating]) -> float:
    """Return the mean cosine distance between two of (m, D) vectors; 0 of fewer than two."""
    if len(vectors) < 2:
        return 0.0
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    total = float((unit @ unit.T).sum() - (unit * unit).sum())
    return 1.0 - total / (len(vectors) * (len(vectors) - 1))


def entropy(codes: npt.NDArray[np.integer]) -> float:
    """Return the entropy in bits of codes from 1 (0: none, left out)."""
    _, counts = np.unique(codes[codes > 0], return_counts=True)
    if not len(counts):
        return 0.0
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum() + 0.0)
