"""Requests and answers on their way through: nothing here changes an order."""

from __future__ import annotations

import socket
from dataclasses import replace

from sidecar.records import HttpRequest, HttpResponse, StreamedResponse
from sidecar.search import headers
from sidecar.serving.outcomes import Outcome
from sidecar.stores.upstream import Upstream

Reply = HttpResponse | StreamedResponse


def passed(upstream: Upstream, request: HttpRequest, outcome: Outcome,
           client: socket.socket | None, *, idempotent: bool = True) -> StreamedResponse:
    """Let a request through; its answer streams, with the outcome among its headers.

    Raises:
        UpstreamError: OpenSearch could not be asked.
        ClientGone: the client hung up.
    """
    with outcome.stage("upstream"):
        streamed = upstream.begin(request, idempotent=idempotent, client=client).stream()
    return replace(streamed, headers=headers.for_client(streamed.headers) + outcome.headers())


def finished(response: HttpResponse, accepted: str, outcome: Outcome) -> HttpResponse:
    """Return an answer of the sidecar's making, packed if ``accepted`` (Accept-Encoding) allows."""
    packed = headers.packed(response, accepted)
    return replace(packed, headers=headers.for_client(packed.headers) + outcome.headers())
