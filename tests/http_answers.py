"""One HTTP request and its answer, as the tests of running servers see them."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answer:
    """An HTTP answer as it came."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def exact(self) -> Any:
        """The JSON with fractions as text, so that nothing is rounded equal."""
        return json.loads(self.body, parse_float=str)

    @property
    def ids(self) -> list[str]:
        return [hit["_id"] for hit in self.json["hits"]["hits"]]

    @property
    def outcome(self) -> str | None:
        """What the sidecar says that it did."""
        return self.headers["X-Personalize-Status"]

    @property
    def told(self) -> Any:
        """What ``ext.personalize`` tells, fractions as text."""
        return self.exact["ext"]["personalize"]


def ask(url: str, method: str, target: str, body: Any = None, /, **headers: str) -> Answer:
    """Send one request on a connection of its own.

    A body that is not bytes goes out as JSON; header names are given with ``_`` for ``-``.
    """
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    if body is not None:
        sent = {"Content-Type": "application/json"} | sent
    payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request(method, target, payload, sent)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()
