"""The paths that take events in and show what is kept, as an HTTP client sees them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from sidecar.errors import UpstreamUnavailable
from sidecar.records import History, UserState
from sidecar.serving.events import EventIntake
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.in_memory import MemoryEventLog, MemoryStateStore
from sidecar.stores.protocols import Logs
from sidecar.web import errors, events, users

LIMIT = 4096
CLICK = {"user_id": "u", "item_id": "1", "event": "click", "ts": 1735787045, "event_id": "e-1"}
VIEW = CLICK | {"event": "view", "item_id": "2", "ts": 1735787046, "event_id": "e-2"}


class Shop:
    """The blueprints over in-memory stores."""

    def __init__(self, limit: int = LIMIT) -> None:
        settings = Settings(max_body_bytes=limit)
        self.states = MemoryStateStore()
        self.logs = Logs(MemoryEventLog(), MemoryEventLog())
        app = Flask(__name__)
        app.config["MAX_CONTENT_LENGTH"] = limit
        errors.register(app, Telemetry())
        intake = EventIntake(settings, self.states, self.logs, lambda: None, Telemetry())
        app.register_blueprint(events.create_blueprint(settings, intake))
        app.register_blueprint(users.create_blueprint(self.states, self.logs))
        self.client: FlaskClient = app.test_client()

    def post(self, body: object, path: str = "/_personalize/events", status: int = 200,
             **headers: str) -> Any:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        response = self.client.post(path, data=data, headers=headers)
        assert response.status_code == status, response.data
        assert response.content_type == "application/json"
        return response.json

    def items(self, user_id: str = "u") -> tuple[str | None, ...]:
        state = self.states.get_many([user_id])[0]
        return () if state is None else state.history.item_ids


@pytest.fixture
def shop() -> Shop:
    return Shop()


def lines(*documents: object) -> bytes:
    return b"\n".join(msgspec.json.encode(document) for document in documents)


@pytest.mark.parametrize("body", [
    msgspec.json.encode([CLICK, VIEW]),
    lines(CLICK, VIEW),
    lines(CLICK, VIEW) + b"\n\n",
    b"\r\n" + lines(CLICK, VIEW).replace(b"\n", b"\r\n"),
    msgspec.json.format(msgspec.json.encode([CLICK, VIEW])),
], ids=["array", "ndjson", "trailing newlines", "windows lines", "pretty array"])
def test_many_events_in_each_form(shop: Shop, body: bytes) -> None:
    answer = shop.post(body)
    assert answer["taken"] == 2
    assert answer["refused"] == []
    assert shop.items() == ("1", "2")


@pytest.mark.parametrize("body", [
    msgspec.json.encode(CLICK), msgspec.json.format(msgspec.json.encode(CLICK)),
    msgspec.json.encode([CLICK])], ids=["object", "pretty object", "array of one"])
def test_one_event_in_each_form(shop: Shop, body: bytes) -> None:
    assert shop.post(body) == {"taken": 1, "refused": [], "states": {"u": 0}, "duplicates": 0,
                               "without_effect": 0}


def test_forms_may_be_mixed(shop: Shop) -> None:
    ubi = {"action_name": "click", "client_id": "u", "timestamp": "2025-01-02T03:05:00Z",
           "event_attributes": {"object": {"object_id": 3}}}
    assert shop.post([CLICK, ubi])["taken"] == 2
    assert shop.items() == ("1", "3")


def test_refused_event_is_told_by_position_and_reason(shop: Shop) -> None:
    answer = shop.post(lines(CLICK) + b'\n{"broken\n' + lines({"event": "click"}, VIEW))
    assert answer["taken"] == 2
    assert [refusal["position"] for refusal in answer["refused"]] == [1, 2]
    assert answer["refused"][0]["reason"].startswith("line is not JSON")
    assert answer["refused"][1]["reason"] == "user_id is missing; give user_id or client_id"


def test_nothing_taken_is_an_error_in_opensearchs_shape(shop: Shop) -> None:
    answer = shop.post([{"event": "click"}], status=400)
    assert answer["status"] == 400
    assert answer["error"]["type"] == "illegal_argument_exception"
    assert answer["error"]["root_cause"][0]["reason"] == answer["refused"][0]["reason"]


def test_empty_array_is_no_error(shop: Shop) -> None:
    assert shop.post([])["taken"] == 0


@pytest.mark.parametrize(("body", "reason"), [
    (b"", "body is empty"), (b" \n ", "body is empty"), (b"[{}", "body is not JSON"),
    (b"click", "body is not JSON"), (b'{"event": "\xff"}', "body is not JSON"),
    (b"[" * 2000 + b"]" * 2000, "body is not JSON")])
def test_unreadable_body_is_refused_as_a_whole(shop: Shop, body: bytes, reason: str) -> None:
    assert reason in shop.post(body, status=400)["error"]["reason"]


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
def test_gzip_is_understood(shop: Shop, coding: str) -> None:
    shop.post(gzip.compress(lines(CLICK)) + gzip.compress(b"\n" + lines(VIEW)),
              **{"Content-Encoding": coding})
    assert shop.items() == ("1", "2")


def test_gzip_of_many_pieces_is_read_to_its_end() -> None:
    shop = Shop(limit=2**20)
    shop.post(gzip.compress(lines(CLICK) + b"\n" * 500_000 + lines(VIEW)),
              **{"Content-Encoding": "gzip"})
    assert shop.items() == ("1", "2")


@pytest.mark.parametrize(("body", "coding", "status", "reason"), [
    (gzip.compress(b" " * (LIMIT + 1)), "gzip", 413, "larger than 4096 bytes"),
    (gzip.compress(b"[]")[:-9], "gzip", 400, "breaks off"),
    (b"[]", "gzip", 400, "body is not gzip"),
    (gzip.compress(b"[]") + b"rest", "gzip", 400, "body is not gzip"),
    (b"[]", "br", 415, "content-encoding is br")])
def test_bad_coding_is_told(shop: Shop, body: bytes, coding: str, status: int,
                            reason: str) -> None:
    answer = shop.post(body, status=status, **{"Content-Encoding": coding})
    assert reason in answer["error"]["reason"]


def test_body_at_the_limit_is_taken_and_one_byte_more_is_not(shop: Shop) -> None:
    shop.post(b"[]".ljust(LIMIT))
    shop.post(b"[]".ljust(LIMIT + 1), status=413)
    shop.post(gzip.compress(b"[]".ljust(LIMIT)), **{"Content-Encoding": "gzip"})


def test_ubi_js_posts_events_and_queries(shop: Shop) -> None:
    event = {"application": "shop", "action_name": "click", "query_id": "q", "session_id": "s",
             "client_id": "u", "user_id": "", "timestamp": "2025-01-02T03:04:06.000Z",
             "message_type": "INFO", "message": "",
             "event_attributes": {"object": {"object_id": 7, "object_id_field": "item_id"},
                                  "position": {}}}
    query = {"application": "shop", "query_id": "q", "user_query": "milk", "client_id": "u",
             "object_id_field": "item_id", "timestamp": "2025-01-02T03:04:05.000Z",
             "message_type": "INFO", "message": "", "query_attributes": {}}
    assert shop.post([query], "/ubi_queries")["taken"] == 1
    assert shop.post([event], "/ubi_events")["taken"] == 1
    assert shop.items() == (None, "7")


@pytest.mark.parametrize("path", ["/_personalize/event", "/_personalize/events/",
                                  "/_personalize/users"])
def test_wrong_path_is_told_those_that_are_there(shop: Shop, path: str) -> None:
    reason = shop.post(CLICK, path, status=404)["error"]["reason"]
    assert reason.startswith(f"POST {path} is not served; the sidecar's own paths are "
                             "/_personalize/events, /_personalize/users/ID, ")


def test_wrong_method_is_told_those_that_are_taken(shop: Shop) -> None:
    answer = shop.client.put("/_personalize/events", data=b"{}")
    assert answer.status_code == 405
    assert answer.json["error"]["reason"] == (
        "PUT /_personalize/events is not served; this path takes OPTIONS, POST")


def test_store_that_is_down_is_a_503(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(user_ids: Sequence[str]) -> list[UserState | None]:
        raise UpstreamUnavailable("no node took the connection")

    monkeypatch.setattr(shop.states, "get_many", down)
    answer = shop.post([CLICK], status=503)
    assert answer["error"]["type"] == "no_node_available_exception"


def test_user_is_shown_readably(shop: Shop) -> None:
    shop.post([CLICK, VIEW])
    shown = shop.client.get("/_personalize/users/u").json
    assert shown == {
        "user_id": "u", "found": True, "version": 0, "model_version": None, "event_count": 2,
        "kept": 2, "counts": {"click": 1, "view": 1}, "events": [
            {"ts": "2025-01-02T03:04:06.000Z", "event": "view", "item_id": "2", "query": None,
             "event_id": "e-2"},
            {"ts": "2025-01-02T03:04:05.000Z", "event": "click", "item_id": "1", "query": None,
             "event_id": "e-1"}]}


def test_hidden_vector_is_shown_only_when_asked_for(shop: Shop) -> None:
    shop.states.put_many([UserState("u", History(), np.ones((1, 2), np.float32), "m")])
    assert "hidden" not in shop.client.get("/_personalize/users/u").json
    assert shop.client.get("/_personalize/users/u?hidden=true").json["hidden"] == [[1.0, 1.0]]
    answer = shop.client.get("/_personalize/users/u?hidden=maybe")
    assert answer.status_code == 400
    assert answer.json["error"]["reason"] == "hidden is 'maybe', must be true or false"


def test_unknown_user_is_not_found(shop: Shop) -> None:
    for method in ("get", "delete"):
        answer = getattr(shop.client, method)("/_personalize/users/nobody")
        assert answer.status_code == 404


def test_user_id_may_hold_anything(shop: Shop) -> None:
    shop.post([CLICK | {"user_id": "a/b é?#"}])
    shown = shop.client.get("/_personalize/users/a%2Fb%20%C3%A9%3F%23")
    assert shown.json["user_id"] == "a/b é?#"


@pytest.mark.parametrize("user", ["/victim", "//victim", "a//b", "line\nbreak", "victim/"])
def test_forgetting_never_forgets_somebody_else(shop: Shop, user: str) -> None:
    shop.post([CLICK | {"user_id": user}, CLICK | {"user_id": "victim"}])
    path = f"/_personalize/users/{quote(user, safe='')}"
    assert shop.client.get(path).json["user_id"] == user
    assert shop.client.delete(path).json == {"user_id": user, "deleted": True}
    assert shop.client.get("/_personalize/users/victim").status_code == 200


def test_forgetting_deletes_the_state_and_the_log_if_asked(shop: Shop) -> None:
    shop.post([CLICK, VIEW])
    assert shop.client.delete("/_personalize/users/u").json == {"user_id": "u", "deleted": True}
    assert len(shop.logs.events.events) == 2
    again = shop.client.delete("/_personalize/users/u?events=true")
    assert again.status_code == 200
    assert again.json == {"user_id": "u", "deleted": False, "log_entries_deleted": 2}
    assert shop.logs.events.events == {}


@pytest.mark.parametrize("misspelt", ["event=true", "Events=true", "events=surely"])
def test_misspelt_wish_to_forget_events_too_forgets_nothing(shop: Shop, misspelt: str) -> None:
    shop.post([CLICK])
    answer = shop.client.delete(f"/_personalize/users/u?{misspelt}")
    assert answer.status_code == 400
    assert shop.client.get("/_personalize/users/u").status_code == 200
    assert shop.client.delete("/_personalize/users/u?events=yes&pretty").json == {
        "user_id": "u", "deleted": True, "log_entries_deleted": 1}


def test_forgotten_user_starts_anew(shop: Shop) -> None:
    shop.post([CLICK])
    shop.client.delete("/_personalize/users/u")
    version = shop.post([VIEW])["states"]["u"]
    assert version > 0
    assert shop.items() == ("2",)
