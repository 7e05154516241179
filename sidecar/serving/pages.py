"""Writes one page's answer: the chosen hits in their places, everything else as it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sidecar.errors import Skip
from sidecar.records import Ranking, SkipReason
from sidecar.search import answers
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
        plan: of the search; says what of a hit the client is not to see.
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
    if ranking is not None and settings.rewrite_scores:
        hits = [_rescored(hit, places.get(key), ranking)
                for key, hit in zip(page.keys, hits, strict=True)]
    body = page.around.with_hits(_as_asked_for(hits, plan, settings.item_id_field))
    if ranking is not None and settings.rewrite_scores:
        tail = window.scores[len(ranking.order):]  # keeps the engine's scores
        body = answers.with_max_score(body, float(np.nanmax([*ranking.scores, *tail])))
    if ranking is not None and is_explained:
        shown = [places[key] for key in page.keys if key in places]
        body = answers.with_ext(body, "personalize", explanations.applied(
            ranking, window.candidates(len(ranking.order)), shown,
            [index for index, _ in keys]))
    return body


def _rescored(hit: bytes, place: int | None, ranking: Ranking) -> bytes:
    if place is None:
        return hit
    return answers.with_score(hit, float(ranking.scores[place]))


def _as_asked_for(hits: Sequence[bytes], plan: SearchPlan, field: str) -> Sequence[bytes]:
    """Cut out of each hit what only the sidecar asked for."""
    assert plan.search is not None
    hidden = plan.hit_filter.hidden if plan.hit_filter is not None else frozenset[str]()
    own_field = hides_ids(plan.search) and not names_field(plan.search, field)
    if plan.hit_filter is None and not own_field:
        return hits
    cut = [answers.without_keys(hit, hidden, field if own_field else None) for hit in hits]
    left = [hit for hit in cut if hit is not None]
    if plan.hit_filter is not None and not left:
        raise Skip(SkipReason.FILTER_PATH)
    return left
