"""Requests and answers on their way through: nothing here changes an order."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

from sidecar.records import HttpRequest, HttpResponse, StreamedResponse
from sidecar.search import headers
from sidecar.serving.outcomes import Outcome
from sidecar.stores.upstream import Upstream

Reply = HttpResponse | StreamedResponse


def passed(upstream: Upstream, request: HttpRequest, outcome: Outcome,
           client: socket.socket | None, *, idempotent: bool = True,
           timeout_s: float | None = None) -> StreamedResponse:
    """Let a request through; its answer streams, with the outcome among its headers.

    The answer must begin within ``timeout_s``; None: within the upstream's own limit.

    Raises:
        UpstreamError: OpenSearch could not be asked.
        ClientGone: the client hung up.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with outcome.stage("upstream"):
        streamed = upstream.begin(request, idempotent=idempotent, deadline=deadline,
                                  client=client).stream()
    return replace(streamed, headers=headers.for_client(streamed.headers) + outcome.headers())


def finished(response: HttpResponse, accepted: str, outcome: Outcome) -> HttpResponse:
    """Return an answer of the sidecar's making, compressed if ``accepted`` (Accept-Encoding) allows
    it."""
    sent = headers.compressed(response, accepted)
    return replace(sent, headers=headers.for_client(sent.headers) + outcome.headers())
