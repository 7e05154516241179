"""What the sidecar itself refuses is counted by its reason, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from flask import Flask
from prometheus_client import REGISTRY

from sidecar.errors import ClientGone, UpstreamTimeout, UpstreamUnavailable
from sidecar.records import HttpRequest, HttpResponse, StreamedResponse
from sidecar.serving.events import EventIntake
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.telemetry import REFUSALS, Telemetry
from sidecar.settings import Settings
from sidecar.stores.in_memory import MemoryEventLog, MemoryStateStore
from sidecar.stores.protocols import Logs
from sidecar.web import errors, events
from sidecar.web.gateway import SearchGateway


class OpenSearch:
    """Answers 404 to everything, or cannot be asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def begin(self, request: HttpRequest, **_: Any) -> OpenSearch:
        if self.error is not None:
            raise self.error
        return self

    def result(self) -> HttpResponse:
        return HttpResponse(404, (), b"{}")

    def stream(self) -> StreamedResponse:
        return StreamedResponse(404, (), iter([b"{}"]))


def gateway(error: Exception | None = None, **settings: Any) -> SearchGateway:
    chosen = Settings(**settings)
    personalizer = Personalizer(chosen, MemoryStateStore(), lambda: None, Telemetry())
    return SearchGateway(chosen, OpenSearch(error), personalizer)  # type: ignore[arg-type]


def ask(gateway: SearchGateway, method: str = "POST", path: str = "/i/_search",
        body: bytes = b"{}", **headers: str) -> Any:
    """Send a request; return its status and its answer's body, which is still to be closed."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "RAW_URI": path, "PATH_INFO": path, "wsgi.input": BytesIO(body),
        "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json",
        **{f"HTTP_{name}": text for name, text in headers.items()}}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    answer = gateway(environ, lambda status, *_: statuses.append(status))
    return int(statuses[0].split()[0]), answer


def refusals() -> dict[str, float]:
    return {word: REGISTRY.get_sample_value("personalize_refused_requests_total",
                                            {"reason": word}) or 0.0 for word in REFUSALS}


@pytest.fixture
def counted() -> Callable[[], dict[str, float]]:
    """Tell by how much each reason's counter grew since the test began."""
    before = refusals()
    return lambda: {word: count - before[word] for word, count in refusals().items()
                    if count != before[word]}


def test_request_beyond_the_limit_is_counted(counted: Callable[[], dict[str, float]]) -> None:
    full = gateway(max_requests=1)
    _, answer = ask(full)
    assert ask(full)[0] == 429
    assert counted() == {"too_many_requests": 1}
    answer.close()
    assert ask(full)[0] == 404
    assert counted() == {"too_many_requests": 1}


@pytest.mark.parametrize(("request_of", "status", "word"), [
    ({"X_PERSONALIZE_WEIGHT": "9"}, 400, "bad_control"),
    ({"body": b" " * 2000}, 413, "body_too_large"),
    ({"method": "PUT", "path": "/i/_doc/1"}, 405, "not_allowed"),
    ({"method": "DELETE", "path": "/_search/scroll", "body": b'{"scroll_id":"_all"}'}, 403,
     "not_allowed")])
def test_request_that_is_not_as_it_must_be_is_counted(
        counted: Callable[[], dict[str, float]], request_of: dict[str, Any], status: int,
        word: str) -> None:
    assert ask(gateway(max_body_bytes=1000), **request_of)[0] == status
    assert counted() == {word: 1}


@pytest.mark.parametrize(("error", "status", "words"), [
    (UpstreamUnavailable("gone"), 503, {"upstream_unavailable": 1}),
    (UpstreamTimeout("late"), 504, {"upstream_timeout": 1}),
    (ClientGone("hung up"), 499, {})])
def test_what_opensearch_did_not_answer_is_counted(
        counted: Callable[[], dict[str, float]], error: Exception, status: int,
        words: dict[str, float]) -> None:
    assert ask(gateway(error))[0] == status
    assert counted() == words


def test_refusal_of_opensearchs_own_is_none_of_ours(
        counted: Callable[[], dict[str, float]]) -> None:
    assert ask(gateway())[0] == 404
    assert counted() == {}


class Down(MemoryStateStore):
    def get_many(self, user_ids: Sequence[str]) -> Any:
        raise UpstreamUnavailable("gone")


@pytest.mark.parametrize(("body", "coding", "status", "word"), [
    (b"click", "identity", 400, "bad_events"), (b"[]", "gzip", 400, "bad_events"),
    (b"[]", "br", 415, "bad_events"), (b" " * 2000, "identity", 413, "body_too_large"),
    (b'{"user_id": "u", "event": "click", "item_id": "1"}', "identity", 503,
     "upstream_unavailable")])
def test_batch_of_events_that_is_not_taken_is_counted(
        counted: Callable[[], dict[str, float]], body: bytes, coding: str, status: int,
        word: str) -> None:
    settings, telemetry = Settings(max_body_bytes=1000), Telemetry()
    app = Flask(__name__)
    errors.register(app, telemetry)
    app.register_blueprint(events.create_blueprint(settings, EventIntake(
        settings, Down(), Logs(MemoryEventLog(), MemoryEventLog()), lambda: None, telemetry)))
    answer = app.test_client().post("/ubi_events", data=body,
                                    headers={"Content-Encoding": coding})
    assert answer.status_code == status
    assert app.test_client().get("/nowhere").status_code == 404  # as any wrong address
    assert counted() == {word: 1}
