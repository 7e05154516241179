"""``GET /metrics``: Prometheus's text form, summed over the worker processes."""

from __future__ import annotations

from flask import Blueprint, Response

from sidecar.serving import telemetry


def create_blueprint() -> Blueprint:
    """Return the path."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def metrics() -> Response:
        return Response(telemetry.exposition(), content_type=telemetry.CONTENT_TYPE)

    return blueprint
