"""``/_personalize/health/live`` and ``/ready``: is the process up, and may it have traffic?

A worker accepts connections only once its model is loaded and warm. So ``ready`` mostly reports on
OpenSearch, and on a model that could not be loaded. Searches would then work, in the engine's
order; the operator has to decide about that, hence 503 with the reason.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from flask import Blueprint, Response

from sidecar.errors import UpstreamError
from sidecar.records import HttpRequest
from sidecar.serving.models import ModelSource
from sidecar.stores.upstream import Upstream

TIMEOUT_S = 2.0


def create_blueprint(upstream: Upstream, models: ModelSource) -> Blueprint:
    """Return the two paths."""
    blueprint = Blueprint("health", __name__, url_prefix="/_personalize/health")

    @blueprint.get("/live")
    def live() -> Response:
        return _json({"status": "live"}, 200)

    @blueprint.get("/ready")
    def ready() -> Response:
        opensearch = _opensearch(upstream)
        is_ready = bool(opensearch["reachable"]) and models.is_ready
        return _json({"status": "ready" if is_ready else "not_ready", "opensearch": opensearch,
                      "model": _model(models)}, 200 if is_ready else 503)

    return blueprint


def _opensearch(upstream: Upstream) -> dict[str, Any]:
    request = HttpRequest("GET", "/", upstream.own_headers, None)
    try:
        answer = upstream.fetch(request, idempotent=True, deadline=time.monotonic() + TIMEOUT_S)
    except UpstreamError as error:
        return {"reachable": False, "error": str(error)}
    if answer.status >= 400:
        return {"reachable": False, "error": f"GET / answered {answer.status}"}
    return {"reachable": True, "error": None}


def _model(models: ModelSource) -> dict[str, Any]:
    ranker = models()
    return {"configured": models.model_dir is not None,
            "version": ranker.version if ranker is not None else None,
            "items": len(ranker.items) if ranker is not None else 0,
            "error": models.error}


def _json(value: dict[str, Any], status: int) -> Response:
    return Response(msgspec.json.encode(value), status, content_type="application/json")
