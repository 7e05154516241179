"""Who may use the sidecar's own paths? A secret for the callers' side, CORS for shop pages.

Two settings, both off by default. ``admin_authorization``: callers who read or delete a user, or
ask for an order, must send this Authorization header. ``cors_origins``: pages of these origins may
post events from a browser; everything else stays closed to pages.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import Any

from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.web.errors import error_body

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

EVENT_PATHS = frozenset({"/_personalize/events", "/ubi_events", "/ubi_queries"})
# Whatever else lies under /_personalize/ needs the secret, paths to come included.
OPEN_PATHS = EVENT_PATHS | {"/_personalize/health/live", "/_personalize/health/ready"}
PREFLIGHT_S = "7200"  # the longest that browsers remember an answer


def guarded(settings: Settings, own: WsgiApp, telemetry: Telemetry) -> WsgiApp:
    """Return the application over the own paths, behind what the settings demand of callers."""
    if settings.admin_authorization:
        own = Secret(settings.admin_authorization, own, telemetry)
    origins = frozenset(o.strip() for o in settings.cors_origins.split(",") if o.strip())
    return Cors(origins, own) if origins else own


class Secret:
    """Answers 401 to requests for a guarded path without the secret, and counts them."""

    def __init__(self, authorization: str, own: WsgiApp, telemetry: Telemetry) -> None:
        self._expected = authorization.encode()
        self._scheme = authorization.split(" ", 1)[0]
        self._own = own
        self._telemetry = telemetry

    def __call__(self, environ: dict[str, Any],
                 start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        given = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1")
        if (path in OPEN_PATHS or not path.startswith("/_personalize/")
                or hmac.compare_digest(given, self._expected)):
            return self._own(environ, start_response)
        self._telemetry.refused("unauthorized")
        body = error_body(401, "security_exception",
                          "missing or wrong authorization; send the header that "
                          "SIDECAR_ADMIN_AUTHORIZATION holds")
        start_response("401 Unauthorized", [
            ("Content-Type", "application/json"), ("Content-Length", str(len(body))),
            ("WWW-Authenticate", f'{self._scheme} realm="personalize"')])
        return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)


class Cors:
    """Lets pages of some origins (``*``: of any) post events, and read what became of them."""

    def __init__(self, origins: frozenset[str], own: WsgiApp) -> None:
        self._origins = origins
        self._own = own

    def __call__(self, environ: dict[str, Any],
                 start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        if environ["PATH_INFO"] not in EVENT_PATHS:
            return self._own(environ, start_response)
        headers = self._headers(environ.get("HTTP_ORIGIN"))
        if "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ and (
                environ["REQUEST_METHOD"] == "OPTIONS"):
            start_response("204 No Content", [*headers, ("Content-Length", "0")])
            return ()

        def start(status: str, given: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*given, *headers[:2]], *more)

        return self._own(environ, start)

    def _headers(self, origin: str | None) -> list[tuple[str, str]]:
        """Return what tells a browser that the origin is welcome, first what every answer needs;
        an origin that is not gets a ``Vary`` alone."""
        vary = ("Vary", "Origin")
        if origin is None or not ("*" in self._origins or origin in self._origins):
            return [vary]
        allowed = "*" if "*" in self._origins else origin
        return [vary, ("Access-Control-Allow-Origin", allowed),
                ("Access-Control-Allow-Methods", "POST"),
                ("Access-Control-Allow-Headers", "accept, content-encoding, content-type"),
                ("Access-Control-Max-Age", PREFLIGHT_S)]
