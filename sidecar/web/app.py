"""The application: own paths to Flask, everything else to the search gateway.

A search never enters Flask: the front looks at the path and calls the gateway, which spares each
search Flask's contexts and routing. Flask serves the sidecar's own paths, one blueprint per file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask

from sidecar.web import access, errors, events, health, metrics, rescore, users
from sidecar.web.services import Services

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# ubi.js posts to these; reads of the same indices belong to OpenSearch.
UBI_PATHS = frozenset({"/ubi_events", "/ubi_queries"})
EXTENSION = "personalize"  # where the application keeps its services


class Front:
    """Chooses who answers a request, by its path and method."""

    def __init__(self, own: WsgiApp, gateway: WsgiApp) -> None:
        self._own = own
        self._gateway = gateway

    def __call__(self, environ: dict[str, Any],
                 start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        is_own = _is_own(environ["PATH_INFO"], environ["REQUEST_METHOD"])
        return (self._own if is_own else self._gateway)(environ, start_response)


def create_app(services: Services) -> Flask:
    """Return the WSGI application over ``services``, which the caller closes."""
    app = Flask("sidecar", static_folder=None)
    settings = services.settings
    app.extensions[EXTENSION] = services
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    errors.register(app, services.telemetry)
    app.register_blueprint(rescore.create_blueprint(settings, services.personalizer))
    app.register_blueprint(events.create_blueprint(settings, services.intake))
    app.register_blueprint(users.create_blueprint(services.states, services.logs))
    app.register_blueprint(health.create_blueprint(services.upstream, services.models))
    app.register_blueprint(metrics.create_blueprint())
    app.wsgi_app = Front(  # type: ignore[method-assign]
        access.guarded(settings, app.wsgi_app, services.telemetry), services.gateway)
    return app


def _is_own(path: str, method: str) -> bool:
    if path.startswith("/_personalize/") or path == "/metrics":
        return True
    return path in UBI_PATHS and method in ("POST", "OPTIONS")
