"""``POST /_personalize/rescore``: an order for hits that the caller has searched itself.

The OpenSearch plugin calls it; any search service may. It takes ids and engine scores in engine
order, and gives positions, best first. A skip is an answer, not an error: the positions in the
order in which they came, and the reason.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import numpy as np
from flask import Blueprint, Response, request

from sidecar.errors import InputError, Skip
from sidecar.records import Candidates, QueryContext, Ranking
from sidecar.serving import explanations
from sidecar.serving.instants import shared_instant
from sidecar.serving.outcomes import Outcome
from sidecar.serving.personalizer import Personalizer, Ticket
from sidecar.settings import Settings

RESCORE_STAGES = ("history", "rank")  # whoever calls has searched


class RescoreHit(msgspec.Struct, frozen=True):
    """One hit; ``score`` is null where the engine gave none."""

    id: str
    score: float | None = None


class RescoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request's body; a hit may be a bare id, which says that it has no score."""

    hits: list[RescoreHit | str | int]
    user_id: str | None = None
    session_id: str | None = None
    query: str | None = None
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    diversity: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    attributes: dict[str, str | int | float | bool] = {}
    explain: bool = False
    state: int | None = None


_decoder = msgspec.json.Decoder(RescoreRequest)
_encoder = msgspec.json.Encoder()


def create_blueprint(settings: Settings, personalizer: Personalizer) -> Blueprint:
    """Return the path; rankings may take ``settings.timeout_ms`` from the request's arrival."""
    blueprint = Blueprint("rescore", __name__, url_prefix="/_personalize")

    @blueprint.post("/rescore")
    def rescore() -> Response:
        deadline = time.monotonic() + settings.timeout_ms / 1000.0
        outcome = Outcome(personalizer.telemetry, RESCORE_STAGES)
        asked = _read(request.get_data(cache=False), settings)
        candidates = _candidates(asked.hits)
        ticket = personalizer.begin(_context(asked, settings))
        try:
            ranking = personalizer.order(ticket, candidates, deadline)
        except Skip as skip:
            outcome.skipped(skip.reason)
            return _respond(_skipped(skip, len(candidates)), ticket, outcome)
        return _respond(_applied(ranking, candidates, asked.explain), ticket, outcome)

    return blueprint


def _read(body: bytes, settings: Settings) -> RescoreRequest:
    try:
        asked = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"body is not a rescore request: {error}") from error
    if len(asked.hits) > settings.max_window:
        raise InputError(f"hits has {len(asked.hits)} entries, must be at most "
                         f"{settings.max_window}; ask for a smaller window or set "
                         "SIDECAR_MAX_WINDOW")
    return asked


def _context(asked: RescoreRequest, settings: Settings) -> QueryContext:
    return QueryContext(
        user_id=asked.user_id or None, query=asked.query, now=shared_instant(),
        session_id=asked.session_id or None,
        weight=settings.weight if asked.weight is None else asked.weight,
        explain=asked.explain, min_state=asked.state, diversity=asked.diversity,
        attributes=asked.attributes)


def _candidates(hits: list[RescoreHit | str | int]) -> Candidates:
    told = [hit if isinstance(hit, RescoreHit) else RescoreHit(str(hit)) for hit in hits]
    scores = [np.nan if hit.score is None else hit.score for hit in told]
    return Candidates(tuple(hit.id for hit in told), np.array(scores, dtype=np.float32))


def _applied(ranking: Ranking, candidates: Candidates, explain: bool) -> dict[str, Any]:
    answer = {**explanations.told(ranking), "order": ranking.order.tolist(),
              "scores": ranking.scores.tolist()}
    if explain:
        answer["explanations"] = explanations.entries(ranking, candidates, range(len(candidates)))
    return answer


def _skipped(skip: Skip, count: int) -> dict[str, Any]:
    return {**explanations.told(skip.reason), "order": list(range(count)), "scores": None}


def _respond(answer: dict[str, Any], ticket: Ticket, outcome: Outcome) -> Response:
    response = Response(_encoder.encode(answer), content_type="application/json")
    outcome.times_ms |= ticket.times_ms
    outcome.state = ticket.state_version
    response.headers.extend(outcome.headers())
    return response
