"""A WSGI application that says what it was asked; for trying the worker without OpenSearch.

``ECHO_LINGER_MS`` lets the worker's threads linger longer with a connection than they do,
``ECHO_PATIENCE_S`` and ``ECHO_TIMEOUT_S`` have them wait less for a client that is slow.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

from sidecar.web import http_requests, lingering, worker

meeting = threading.Barrier(2)  # two requests that must be with the application at once
lingering.LINGER_MS = int(os.environ.get("ECHO_LINGER_MS", lingering.LINGER_MS))
worker.TIMEOUT_S = float(os.environ.get("ECHO_TIMEOUT_S", worker.TIMEOUT_S))
http_requests.PATIENCE_S = float(os.environ.get("ECHO_PATIENCE_S", http_requests.PATIENCE_S))


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"piece %d\n" % number for number in range(3))
    if path == "/short":
        start_response("200 OK", [("Content-Length", "10")])
        return [b"12345"]
    if path == "/long":
        start_response("200 OK", [("Content-Length", "5")])
        return [b"1234567890"]
    if path == "/none":
        start_response("204 No Content", [])
        return []
    if path == "/error":
        raise RuntimeError("a bug")
    if path == "/split":
        start_response("200 OK", [("X-Evil", "a\r\nSet-Cookie: b")])
        return [b""]
    if path == "/slow":
        time.sleep(0.5)
    if path == "/meet":
        meeting.wait(20)
    body = b"" if path == "/unread" else environ["wsgi.input"].read()
    told = {name: value for name, value in environ.items() if isinstance(value, str)}
    answer = json.dumps({"environ": told, "body": body.decode("latin-1")}).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
