"""Each failure of the plugin's table, caused for real: what the client sees, what is counted."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

QUERY = {"query": {"match": {"title": "milk"}}, "from": 2, "size": 3}


class BadSidecar(ThreadingHTTPServer):
    """Does to each request what ``behave`` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave: Callable[[Handler, dict[str, Any]], None] = lambda *_: None
        self.asked: list[dict[str, Any]] = []
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about connections that the plugin closed."""


class Handler(BaseHTTPRequestHandler):
    """One connection of the bad sidecar."""

    protocol_version = "HTTP/1.1"
    server: BadSidecar

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.server.behave(self, asked)

    def say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def bad() -> Iterator[BadSidecar]:
    """Give a sidecar that does what a test tells it."""
    server = BadSidecar()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def stall(handler: Handler, _: Any) -> None:
    handler.connection.settimeout(20)
    if handler.connection.recv(1) == b"":
        handler.server.hung_up.set()
    handler.close_connection = True


def break_off(handler: Handler, _: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"appl")
    handler.close_connection = True


def saying(status: int, text: str) -> Callable[[Handler, Any], None]:
    return lambda handler, _: handler.say(status, text)


def half_an_order(handler: Handler, asked: dict[str, Any]) -> None:
    order = list(range(len(asked["hits"]) // 2))
    handler.say(200, json.dumps({"applied": True, "state": 1, "model": "m", "order": order}))


def reverse(handler: Handler, asked: dict[str, Any]) -> None:
    order = list(range(len(asked["hits"])))[::-1]
    handler.say(200, json.dumps({"applied": True, "state": 1, "model": "m", "order": order}))


FAILURES = [
    ("stalls", stall, "timeout"),
    ("breaks off", break_off, "sidecar_unavailable"),
    ("error", saying(500, "{}"), "sidecar_error"),
    ("nonsense", saying(200, "<html>"), "sidecar_error"),
    ("half an order", half_an_order, "sidecar_error"),
    ("state behind", saying(200, '{"applied":false,"reason":"state_behind"}'), "state_behind"),
    ("no history", saying(200, '{"applied":false,"reason":"no_history"}'), "no_history"),
    ("a new reason", saying(200, '{"applied":false,"reason":"unheard_of"}'), "other"),
]


@pytest.mark.parametrize("item_field", ["_id", "item_id"])
@pytest.mark.parametrize(("name", "behave", "reason"), FAILURES, ids=[row[0] for row in FAILURES])
def test_failure_shows_the_engines_page_and_is_counted(one_node, bad, name, behave, reason,
                                                       item_field):
    bad.behave = behave
    wait_ms = 100 if behave is stall else 10_000
    one_node.put_pipeline("bad", {"item_id_field": item_field},
                          {"endpoint": bad.url, "timeout_ms": wait_ms})
    expected = one_node.engine(QUERY)
    before = one_node.counters()["skipped"].get(reason, 0)
    answer = one_node.search("bad", QUERY)
    assert answer.status == 200
    assert answer.told == {"applied": False, "reason": reason, "state": -1, "model": None}
    assert answer.exact["hits"] == expected.exact["hits"]
    assert one_node.counters()["skipped"][reason] == before + 1


def test_sidecar_that_is_down_keeps_the_engines_order_then_is_left_alone(one_node, bad):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}"
        one_node.put_pipeline("gone", response={"endpoint": gone})
        expected = one_node.engine(QUERY)
        reasons = []
        for _ in range(7):
            answer = one_node.search("gone", QUERY)
            assert answer.exact["hits"] == expected.exact["hits"]
            reasons.append(answer.told["reason"])
    assert reasons[:5] == ["sidecar_unavailable"] * 5
    assert "circuit_open" in reasons[5:]


@pytest.mark.parametrize("behave", [stall, break_off, saying(500, "{}"), half_an_order])
def test_failure_is_an_error_where_the_pipeline_says_so(one_node, bad, behave):
    bad.behave = behave
    wait_ms = 100 if behave is stall else 10_000
    one_node.put_pipeline("strict", response={"endpoint": bad.url, "on_failure": "fail",
                                              "timeout_ms": wait_ms, "tag": "shop"})
    answer = one_node.search("strict", QUERY)
    assert answer.status == 503
    assert "processor [personalize] with tag [shop] could not personalise" in answer.body.decode()


def test_missing_history_is_no_error_even_then(one_node, bad):
    bad.behave = saying(200, '{"applied":false,"reason":"no_history"}')
    one_node.put_pipeline("strict", response={"endpoint": bad.url, "on_failure": "fail"})
    assert one_node.search("strict", QUERY).status == 200


def test_client_that_hangs_up_ends_the_call(one_node, bad):
    bad.behave = stall
    one_node.put_pipeline("slow", response={"endpoint": bad.url, "timeout_ms": 60_000})
    before = one_node.counters()["cancelled"]
    connection = http.client.HTTPConnection(urlsplit(one_node.nodes[0]).netloc, timeout=60)
    body = {**QUERY, "ext": {"personalize": {"user_id": "u1"}}}
    connection.request("POST", "/one/_search?search_pipeline=slow", json.dumps(body),
                       {"Content-Type": "application/json"})
    wait_for(lambda: bad.asked)
    connection.close()
    assert bad.hung_up.wait(30)
    wait_for(lambda: one_node.counters()["cancelled"] == before + 1)
    assert one_node.counters()["in_flight"] == 0


@pytest.mark.parametrize(("body", "reason"), [
    ({**QUERY, "sort": ["price"]}, "sort"),
    ({**QUERY, "size": 0}, "size_zero"),
    ({**QUERY, "from": 100}, "beyond_window"),
    ({"query": {"match": {"title": "absent"}}}, "no_hits"),
    ({"query": {"match_all": {}}, "sort": ["_score", "price"], "search_after": [1, 2]},
     "search_after"),
])
def test_searches_that_are_left_alone_say_why(one_node, bad, body, reason):
    one_node.put_pipeline("any", response={"endpoint": bad.url})
    assert one_node.search("any", body).told["reason"] == reason
    assert not bad.asked


def test_nobody_is_named_and_nothing_is_asked(one_node, bad):
    one_node.put_pipeline("any", response={"endpoint": bad.url})
    assert one_node.search("any", QUERY, user_id="").told["reason"] == "anonymous"
    assert one_node.search("any", QUERY, enabled=False).told["reason"] == "disabled"
    assert not bad.asked


def test_other_conventions_name_the_user(one_node, bad):
    bad.behave = reverse
    one_node.put_pipeline("any", response={"endpoint": bad.url})
    for ext in ({"ubi": {"client_id": "c", "user_query": "oat drink"}},
                {"personalize_request_parameters": {"user_id": "c"}}):
        answer = one_node.search("any", {**QUERY, "ext": ext}, user_id=None)
        assert answer.told["applied"], answer.body
    assert [asked["user_id"] for asked in bad.asked] == ["c", "c"]
    assert [asked["query"] for asked in bad.asked] == ["oat drink", "milk"]


def test_attributes_place_a_shopper_whom_nobody_named(one_node, bad):
    bad.behave = reverse
    one_node.put_pipeline("any", response={"endpoint": bad.url})
    answer = one_node.search("any", QUERY, user_id=None, attributes={"age": "35-44", "size": 2})
    assert answer.told["applied"], answer.body
    assert bad.asked[-1]["attributes"] == {"age": "35-44", "size": 2}


def test_window_is_no_wider_than_the_index_allows(one_node, bad):
    bad.behave = reverse
    one_node.put_pipeline("any", response={"endpoint": bad.url})
    answer = one_node.search("any", QUERY, "/narrow/_search")
    assert answer.told["applied"]
    assert len(bad.asked[0]["hits"]) == 50


def test_controls_out_of_range_are_the_clients_error(one_node):
    one_node.put_pipeline("any")
    for control in ({"window_size": 0}, {"window_size": 1001}, {"weight": 2}, {"unknown": 1}):
        answer = one_node.search("any", QUERY, **control)
        assert answer.status == 400, control


@pytest.mark.parametrize(("key", "value"), [
    ("window_size", 0), ("weight", 2), ("timeout_ms", 0), ("on_failure", "explode"),
    ("endpoint", "http://elsewhere.example:1"), ("endpoint", "nonsense")])
def test_configuration_error_names_processor_tag_and_key(one_node, key, value):
    body = {"request_processors": [{"personalize": {"tag": "shop", key: value}}]}
    answer = one_node.call("PUT", "/_search/pipeline/wrong", body)
    assert answer.status == 400
    error = answer.json["error"]
    assert error["reason"].startswith(f"[{key}] of processor [personalize] with tag [shop] ")
    assert (error["processor_tag"], error["property_name"]) == ("shop", key)


def test_attaches_itself_where_the_cluster_allows_it(one_node, bad):
    bad.behave = reverse
    set_cluster(one_node, "*", bad.url)
    try:
        expected = one_node.engine({**QUERY, "from": 0, "size": 100}).ids[::-1][2:5]
        answer = one_node.search("_none", QUERY)
        assert answer.ids == expected
        assert one_node.engine(QUERY).json.get("ext") is None
        one_node.put_pipeline("both", response={"endpoint": bad.url})
        assert one_node.search("both", QUERY).ids == expected
        assert len(bad.asked) == 2
    finally:
        set_cluster(one_node, None, None)


def set_cluster(shop: Any, factories: str | None, endpoint: str | None) -> None:
    settings = {"cluster.search.enabled_system_generated_factories": factories,
                "plugins.personalize.endpoint": endpoint,
                "plugins.personalize.timeout_ms": factories and 10_000}
    assert shop.call("PUT", "/_cluster/settings", {"persistent": settings}).status == 200


def wait_for(is_so: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)
