"""A client of the sidecar's event path, for programs that send events by the batch."""

from __future__ import annotations

import dataclasses
import http.client
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sidecar.errors import UpstreamError, UpstreamUnavailable
from sidecar.records import Event

PATIENCE_S = 60.0  # a sidecar that restarts is back by then
_PASSING = (429, 502, 503, 504)
_FIELDS = tuple(entry.name for entry in dataclasses.fields(Event) if entry.name != "extra")

_encode = msgspec.json.Encoder().encode


class EventClient:
    """One connection to a sidecar; a batch that it cannot take now is sent again."""

    def __init__(self, url: str) -> None:
        """``url``: as ``_arguments.server_url`` takes it."""
        self._url = url
        parts = urlsplit(url)
        kind = (http.client.HTTPSConnection if parts.scheme == "https"
                else http.client.HTTPConnection)
        self._connection = kind(parts.hostname, parts.port, timeout=PATIENCE_S)
        self._path = parts.path.rstrip("/") + "/_personalize/events"

    def send(self, events: Sequence[Event]) -> dict[str, Any]:
        """Send a batch until it is acknowledged.

        Raises:
            UpstreamError: the sidecar does not answer, or not as a sidecar.
        """
        body = _encode([short_form(event) for event in events])
        given_up = time.monotonic() + PATIENCE_S
        pause_s = 0.1
        while True:
            try:
                return self._post(body)
            except UpstreamUnavailable:
                if time.monotonic() + pause_s > given_up:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    def _post(self, body: bytes) -> dict[str, Any]:
        try:
            self._connection.request("POST", self._path, body,
                                     {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise UpstreamUnavailable(f"the sidecar does not answer at {self._url}; is it running? "
                                      f"{error}") from error
        if response.status in _PASSING:
            raise UpstreamUnavailable(f"the sidecar answered {response.status}: {content[:200]!r}")
        try:
            answer: dict[str, Any] = msgspec.json.decode(content)
            return {name: answer[name] for name in ("taken", "refused", "duplicates")}
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise UpstreamError(f"answered {response.status}, not as a sidecar does: "
                                f"{content[:200]!r}") from error


def short_form(event: Event) -> dict[str, Any]:
    """Return an event as the sidecar takes it; absent fields are left out."""
    fields = {name: value for name in _FIELDS if (value := getattr(event, name)) is not None}
    return {**event.extra, **fields}
