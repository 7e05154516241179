"""Builds ``ext.personalize``: why each hit of a page stands where it stands.

A blended score is a sum of named parts, so the explanation is exact: ``parts`` adds up to
``score``, and ``events`` names, in words, what the shopper did that moved the hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sidecar.records import NEVER_WRITTEN, Candidates, Ranking, SkipReason

DIGITS = 6  # float32 carries seven; the seventh is noise


def applied(ranking: Ranking, candidates: Candidates, shown: Sequence[int],
            indices: Sequence[str]) -> dict[str, Any]:
    """Return ``ext.personalize`` for the hits shown.

    Args:
        ranking: over the window's K candidates.
        candidates: the window, in engine order.
        shown: candidate positions of the page's hits, in shown order.
        indices: each candidate's index name (K).
    """
    return {**told(ranking),
            "hits": [{"_index": indices[position], "_id": candidates.item_ids[position], **entry}
                     for position, entry in zip(shown, entries(ranking, candidates, shown),
                                                strict=True)]}


def told(done: Ranking | SkipReason) -> dict[str, Any]:
    """Return what was done: the order is a ranking's, or the engine's for a reason."""
    if isinstance(done, SkipReason):
        return {"applied": False, "reason": str(done), "state": NEVER_WRITTEN, "model": None}
    return {"applied": True, "reason": None, "state": done.state_version,
            "model": done.model_version}


def entries(ranking: Ranking, candidates: Candidates,
            shown: Sequence[int]) -> list[dict[str, Any]]:
    """Explain the candidates at ``shown`` positions, in that order; ranks count from 1."""
    if not len(shown):
        return []
    chosen = np.asarray(shown, dtype=np.int64)
    ranks = np.empty(len(candidates), dtype=np.int64)
    ranks[ranking.order] = np.arange(1, len(candidates) + 1)
    names = list(ranking.parts)
    columns = [numbers(ranking.parts[name][chosen]) for name in names]
    parts = zip(*columns, strict=True) if columns else ((),) * len(chosen)
    return [
        {"engine_rank": position + 1, "engine_score": engine_score, "rank": rank, "score": score,
         "parts": dict(zip(names, values, strict=True)),
         "events": list(ranking.reasons[position]) if ranking.reasons else []}
        for position, engine_score, rank, score, values in zip(
            chosen.tolist(), numbers(candidates.engine_scores[chosen]), ranks[chosen].tolist(),
            numbers(ranking.scores[chosen]), parts, strict=True)
    ]


def numbers(values: np.ndarray[Any, Any]) -> list[float | None]:
    """Turn scores into JSON numbers; NaN and infinities, which JSON lacks, into null."""
    rounded = np.round(values.astype(np.float64), DIGITS)
    return [value if finite else None
            for value, finite in zip(rounded.tolist(), np.isfinite(rounded).tolist(), strict=True)]
