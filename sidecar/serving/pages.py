"""Writes one page's answer: the chosen hits in their places, everything else as it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sidecar.errors import Skip
from sidecar.records import Ranking, SkipReason
from sidecar.search import hit_bytes
from sidecar.search.answers import Answer, IdAnswer, Key
from sidecar.search.fetches import hides_ids, names_field
from sidecar.search.plans import SearchPlan
from sidecar.serving import explanations
from sidecar.settings import Settings


@dataclass(frozen=True, slots=True)
class Page:
    """The hits to show, best first, and the answer that they are put into.

    ``keys`` and ``hits`` are aligned; ``around`` gives every byte outside ``hits.hits``.
    """

    around: Answer | IdAnswer
    keys: Sequence[Key]
    hits: Sequence[bytes]


def write_page(page: Page, plan: SearchPlan, window: Answer | IdAnswer,
               ranking: Ranking | None, settings: Settings) -> bytes:
    """Return the answer's body.

    Args:
        page: what is shown.
        plan: of the search; says which parts of a hit the client must not see.
        window: the hits that were ranked, in engine order.
        ranking: over the window; None where the engine's order stays.
        settings: for score rewriting and the id field.

    Raises:
        Skip: FILTER_PATH, when the client's filter leaves nothing of any hit.
    """
    hits = page.hits
    places: dict[Key, int] = {}
    is_explained = ranking is not None and plan.context is not None and plan.context.explain
    keys = window.keys if ranking is not None and (settings.rewrite_scores or is_explained) else ()
    if ranking is not None and keys:
        places = {key: place for place, key in enumerate(keys[:len(ranking.order)])}
    scores = None
    if ranking is not None and settings.rewrite_scores:
        assert plan.window is not None
        scores = rewritten_scores(ranking, window.scores, plan.window.hits)
        hits = [_rescored(hit, places.get(key), scores)
                for key, hit in zip(page.keys, hits, strict=True)]
    body = page.around.with_hits(_as_asked_for(hits, plan, settings.item_id_field))
    if scores is not None:
        body = hit_bytes.with_max_score(body, float(np.nanmax(scores)))
    if ranking is not None and is_explained:
        shown = [places[key] for key in page.keys if key in places]
        assert plan.controls is not None
        told = ranking if plan.controls.may_read_history else replace(ranking, reasons=())
        body = hit_bytes.with_ext(body, "personalize", explanations.applied(
            told, window.candidates(len(ranking.order)), shown, [index for index, _ in keys]))
    return body


def rewritten_scores(ranking: Ranking, engine_scores: Sequence[float],
                     wanted: int) -> npt.NDArray[np.float64]:
    """Return the ``_score`` of the window's hits (K), in engine order.

    These are the blended scores. If the window is full, hits with the engine's scores may follow
    it. One constant is then added to all blended scores, if need be, so that the least is above the
    engine's least score in the window, and so above all that follows. The constant depends on the
    window only, so that its pages agree.

    Args:
        ranking: over the window's K hits.
        engine_scores: of these and any hits behind them; NaN where a hit has none.
        wanted: how many hits the window has if there are enough.
    """
    scores = ranking.scores.astype(np.float64)
    engine = np.array(engine_scores[:len(scores)], dtype=np.float32)
    engine = engine[np.isfinite(engine)]
    if len(scores) < wanted or not len(engine):
        return scores
    above = float(np.nextafter(engine.min(), np.float32(np.inf)))  # scores are floats to OpenSearch
    return scores + max(0.0, above - float(scores.min()))


def _rescored(hit: bytes, place: int | None, scores: npt.NDArray[np.float64]) -> bytes:
    if place is None:
        return hit
    return hit_bytes.with_score(hit, float(scores[place]))


def _as_asked_for(hits: Sequence[bytes], plan: SearchPlan, field: str) -> Sequence[bytes]:
    """Cut out of each hit what only the sidecar asked for."""
    assert plan.search is not None
    hidden = plan.hit_filter.hidden if plan.hit_filter is not None else frozenset[str]()
    own_field = hides_ids(plan.search) and not names_field(plan.search, field)
    if plan.hit_filter is None and not own_field:
        return hits
    cut = [hit_bytes.without_keys(hit, hidden, field if own_field else None) for hit in hits]
    left = [hit for hit in cut if hit is not None]
    if plan.hit_filter is not None and not left:
        raise Skip(SkipReason.FILTER_PATH)
    return left
