"""A node that is down, slow, busy, half broken or lying; clients that hang up; limits.

The node is a small real server whose answers each test chooses.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from scripts._machine import find_free_port

Reply = tuple[int, dict[str, str], bytes]


class FakeNode(ThreadingHTTPServer):
    """Answers as ``answer(method, target, body)`` says, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.answer: Callable[[str, str, bytes], Reply] = lambda *_: (200, {}, b"{}")
        self.hung_up = threading.Event()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about connections that the sidecar closed."""


class Handler(BaseHTTPRequestHandler):
    """One connection of the fake node."""

    protocol_version = "HTTP/1.1"
    server: FakeNode

    def handle_any(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, body, dict(self.headers)))
        status, headers, text = self.server.answer(self.command, self.path, body)
        if status == 0:  # wait for the sidecar to hang up
            self.connection.settimeout(10)
            if self.connection.recv(1) == b"":
                self.server.hung_up.set()
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = handle_any

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    server = FakeNode()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def sidecar(node, sidecar_over) -> Iterator[str]:
    with sidecar_over(node.url, **{"pass": "read"}, upstream_timeout_s=1, max_body_bytes=5000,
                      max_requests=4) as url:
        yield url


@pytest.fixture(autouse=True)
def fresh(node) -> None:
    node.asked.clear()
    node.hung_up.clear()
    node.answer = lambda *_: (200, {}, b"{}")


@pytest.fixture
def through(sidecar, ask) -> Callable[..., Any]:
    def send(method: str, target: str, body: Any = None, **headers: str) -> Any:
        return ask(sidecar, method, target, body, **{"X_Personalize_User": "u1", **headers})
    return send


def hits(ids: list[str], *, source: bool = True, scores: dict[str, float] | None = None) -> bytes:
    found = [{"_index": "i", "_id": item, "_score": (scores or {}).get(item, 1.0), "_source": {}}
             if source else {"_index": "i", "_score": 1.0, "fields": {"item_id": [item]}}
             for item in ids]
    return json.dumps({"took": 1, "hits": {"max_score": 1.0, "hits": found}}).encode()


IDS = [f"a{number}" for number in range(30)]


def is_id_fetch(body: bytes) -> bool:
    return b'"_none_"' in body


def is_page_fetch(body: bytes) -> bool:
    return b'"ids"' in body


def wanted_ids(body: bytes) -> list[str]:
    values: list[str] = json.loads(body)["query"]["bool"]["filter"][0]["ids"]["values"]
    return values


def healthy(_method: str, _target: str, body: bytes) -> Reply:
    if is_id_fetch(body):
        return 200, {}, hits(IDS, source=False)
    return 200, {}, hits(sorted(wanted_ids(body)) if is_page_fetch(body) else IDS)


def test_page_comes_by_id_in_two_requests(node, through, expected_order):
    node.answer = healthy
    answer = through("POST", "/page/_search", {"size": 5})
    assert answer.outcome == "applied"
    assert answer.ids == expected_order(IDS, 100)[:5]
    assert [is_id_fetch(body) or is_page_fetch(body) for _, _, body, _ in node.asked] == [True] * 2


def test_shown_order_is_logged_in_ubis_form_behind_the_answer(node, through):
    def answer(method: str, target: str, body: bytes) -> Reply:
        if target.startswith("/_bulk") or target.endswith("/_bulk"):
            return 200, {}, b'{"errors":false,"items":[{"create":{"status":201}}]}'
        return healthy(method, target, body)

    node.answer = answer
    ubi = {"query_id": "q1", "user_query": "milk", "client_id": "u1", "application": "shop",
           "object_id_field": "item_id", "query_attributes": {"a": 1}}
    answered = through("POST", "/logged/_search", {"size": 4, "ext": {"ubi": ubi}})
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not (
            logged := [body for _, target, body, _ in node.asked if "_bulk" in target]):
        time.sleep(0.02)
    record = json.loads(logged[0].splitlines()[1])
    assert record["query_response_hit_ids"] == answered.ids
    assert {name: record[name] for name in ubi} == ubi
    assert record["timestamp"]
    assert record["query_response_id"]
    assert all(b'"ubi"' in body for _, target, body, _ in node.asked if is_id_fetch(body))
    assert not any(b'"ubi"' in body for _, _, body, _ in node.asked if is_page_fetch(body))


@pytest.mark.parametrize("how", ["missing", "rescored", "refused", "broken", "other"])
def test_page_that_does_not_fit_the_ids_is_fetched_whole(node, through, expected_order, how):
    def answer(method: str, target: str, body: bytes) -> Reply:
        if not is_page_fetch(body):
            return healthy(method, target, body)
        ids = wanted_ids(body)
        return {"missing": (200, {}, hits(ids[1:])),
                "rescored": (200, {}, hits(ids, scores={ids[2]: 1.5})),
                "refused": (400, {}, b"{}"), "broken": (200, {}, b'{"hits":{"hits":[{"_id'),
                "other": (200, {}, hits([*ids[1:], "x"]))}[how]

    node.answer = answer
    answered = through("POST", f"/{how}/_search", {"size": 5})
    assert answered.outcome == "applied"
    assert answered.ids == expected_order(IDS, 100)[:5]
    assert len(node.asked) == 5
    through("POST", f"/{how}/_search", {"size": 5})
    assert len(node.asked) == 6, "the index is remembered for a while, and fetched whole at once"


def test_refresh_between_ids_and_page_does_not_widen_the_searches_after_it(
        node, through, expected_order):
    pages = []

    def answer(method: str, target: str, body: bytes) -> Reply:
        if is_page_fetch(body):
            pages.append(wanted_ids(body))
            if len(pages) == 1:
                return 200, {}, hits(pages[0], scores={pages[0][2]: 1.5})
        return healthy(method, target, body)

    node.answer = answer
    answered = through("POST", "/refreshed/_search", {"size": 5})
    assert answered.outcome == "applied"
    assert answered.ids == expected_order(IDS, 100)[:5]
    through("POST", "/refreshed/_search", {"size": 5, "query": {"match_all": {}}})
    assert all(is_id_fetch(body) or is_page_fetch(body) for _, _, body, _ in node.asked)


@pytest.mark.parametrize("how", ["no field", "two values", "refused", "failed shards", "twice"])
def test_ids_that_do_not_serve_lead_to_one_fetch(node, through, expected_order, how):
    def answer(method: str, target: str, body: bytes) -> Reply:
        if not is_id_fetch(body):
            return healthy(method, target, body)
        good = hits(IDS, source=False)
        return {"no field": (200, {}, good.replace(b"item_id", b"x")),
                "two values": (200, {}, good.replace(b'["a1"]', b'["a1", "a2"]')),
                "refused": (400, {}, b"{}"), "twice": (200, {}, good.replace(b'"a1"', b'"a2"')),
                "failed shards": (200, {}, b'{"_shards":{"failed":1},' + good[1:])}[how]

    node.answer = answer
    answered = through("POST", f"/ids-{how.replace(' ', '-')}/_search", {"size": 5})
    assert answered.outcome == "applied"
    assert answered.ids == expected_order(IDS, 100)[:5]
    assert len(node.asked) == 2


@pytest.mark.parametrize("status", [429, 503, 401, 403, 404])
def test_rejection_comes_through_as_it_is(node, through, status):
    body = b'{"error":{"type":"x","reason":"busy"},"status":%d}' % status
    node.answer = lambda *_: (status, {"Retry-After": "7"}, body)
    answer = through("POST", "/i/_search", {})
    assert (answer.status, answer.body, answer.headers["Retry-After"]) == (status, body, "7")
    assert answer.outcome == "skipped; reason=upstream_error"
    assert len(node.asked) == 1, "a node that is busy is not asked again"


def test_one_clients_refused_search_does_not_widen_the_others(node, through):
    def answer(method: str, target: str, body: bytes) -> Reply:
        return (400, {}, b"{}") if b'"broken"' in body else healthy(method, target, body)

    node.answer = answer
    assert through("POST", "/refused/_search", {"query": {"broken": {}}}).status == 400
    node.asked.clear()
    assert through("POST", "/mistyped/_search", {"size": 5}).outcome == "applied"
    assert [is_id_fetch(body) or is_page_fetch(body) for _, _, body, _ in node.asked] == [True] * 2


def test_refusal_of_a_widened_request_is_asked_for_in_the_clients_words(node, through):
    def answer(_method: str, _target: str, body: bytes) -> Reply:
        return 400, {}, b"own words" if body == b'{"size":5}' else b"other words"

    node.answer = answer
    answered = through("POST", "/i/_search", b'{"size":5}')
    assert (answered.status, answered.body) == (400, b"own words")


def test_partial_failure_is_kept_and_reordered(node, through, expected_order):
    body = hits(IDS).replace(b'{"took"', b'{"timed_out":true,"_shards":{"failed":1},"took"')
    node.answer = lambda *_: (200, {}, body)
    answer = through("POST", "/part/_search", {"size": 30})
    assert answer.json["_shards"] == {"failed": 1}
    assert answer.ids == expected_order(IDS, 100)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"error":1}', b'{"hits":{"hits":[{}]}}'])
def test_answer_that_is_no_searchs_answer_comes_through(node, through, body):
    node.answer = lambda *_: (200, {}, body)
    answer = through("POST", "/odd/_search", {"size": 5})
    assert (answer.status, answer.body) == (200, body)


def test_score_that_no_float_holds_comes_through(node, through):
    hit = b'{"_index":"i","_id":"a","_score":1e999}'
    node.answer = lambda *_: (200, {}, b'{"hits":{"hits":[' + hit + b"]}}")
    for target, body in (("/fault/_search", b'{"size":5}'), ("/_msearch", b'{}\n{"size":5}\n')):
        answer = through("POST", target, body)
        assert answer.status == 200
        assert hit in answer.body


def test_headers_pass_both_ways(node, through):
    told = {"Warning": '299 OpenSearch "old"', "X-Opaque-Id": "t"}
    node.answer = lambda *_: (200, told, hits(IDS))
    answer = through("POST", "/i/_search", {}, Authorization="Basic eDp5", X_Opaque_Id="t",
                     X_Personalize_Weight="0.5", Connection="X-Hop", X_Hop="1")
    assert answer.headers["Warning"] == '299 OpenSearch "old"'
    assert answer.headers["X-Opaque-Id"] == "t"
    for _, target, _, headers in node.asked:
        sent = {name.lower(): text for name, text in headers.items()}
        assert (sent["authorization"], sent["x-opaque-id"]) == ("Basic eDp5", "t")
        assert sent["host"] == node.url.removeprefix("http://")
        assert not [name for name in sent if name.startswith("x-personalize")]
        assert "x-hop" not in sent
        assert "u1" not in target


@pytest.mark.parametrize("headers", [{}, {"X_Personalize": "off"}, {"X_Personalize_User": "u9"}])
def test_source_that_becomes_the_body_is_sent_with_its_own_length(node, through, headers):
    """Else the body would be the next request on the connection, which may be another client's."""
    node.answer = healthy
    target = "/sourced/_search?source={%22size%22:3}&source_content_type=application/json"
    through("POST", target, **{"Content_Length": "0", **headers})
    sent = [(body, int(told["Content-Length"])) for _, _, body, told in node.asked]
    assert sent
    assert all(body.startswith(b"{") and len(body) == length for body, length in sent)


def test_controls_never_reach_opensearch_whatever_is_asked(node, through):
    for target in ("/i/_count", "/i/_search", "/i/_search/template", "/_msearch"):
        through("POST", f"{target}?personalize_user=u1&a=1&personalize=true", b"{}")
    assert len(node.asked) >= 4
    for _, target, _, headers in node.asked:
        assert "personalize" not in target
        assert not [name for name in headers if name.lower().startswith("x-personalize")]


def test_warnings_of_both_requests_are_told_once(node, through):
    def answer(method: str, target: str, body: bytes) -> Reply:
        told = {"Warning": '299 - "page"' if is_page_fetch(body) else '299 - "ids"'}
        return healthy(method, target, body)[0], told, healthy(method, target, body)[2]

    node.answer = answer
    answered = through("POST", "/warned/_search", {"size": 5})
    assert answered.headers.get_all("Warning") == ['299 - "ids"', '299 - "page"']


def test_own_credentials_are_never_lent_to_clients(node, sidecar_over, ask):
    with sidecar_over(node.url, opensearch_authorization="Basic own") as url:
        ask(url, "POST", "/i/_search", {}, X_Personalize_User="u1")
        ask(url, "GET", "/i/_count")
    assert all("Authorization" not in headers for _, _, _, headers in node.asked)


def test_slow_node_is_a_504_and_its_search_is_cancelled(node, through):
    node.answer = lambda *_: (0, {}, b"")
    for headers in ({}, {"X_Personalize": "off"}):
        node.hung_up.clear()
        answer = through("POST", "/i/_search", {}, **headers)
        assert (answer.status, answer.json["error"]["type"]) == (504, "timeout_exception")
        assert node.hung_up.wait(2)


def test_what_is_no_search_may_take_longer_than_a_search(node, through):
    """A wait for green, a reindex: OpenSearch's own limits for them are half a minute and more."""
    def answer(_method: str, target: str, _body: bytes) -> Reply:
        if target.endswith("/_search"):
            return 0, {}, b""
        node.release.wait(20)
        return 200, {}, b"green"

    node.answer = answer
    node.release.clear()
    with ThreadPoolExecutor() as pool:
        health = pool.submit(through, "GET", "/_cluster/health?wait_for_status=green")
        while not node.asked:
            time.sleep(0.01)
        assert through("POST", "/i/_search", {}).status == 504, "a search's time is over"
        node.release.set()
        assert (health.result().status, health.result().body) == (200, b"green")


def test_what_is_no_search_has_a_limit_too(node, sidecar_over, ask):
    node.answer = lambda *_: (0, {}, b"")
    with sidecar_over(node.url, pass_timeout_s=0.3) as url:
        answer = ask(url, "GET", "/_cluster/health")
    assert (answer.status, answer.json["error"]["type"]) == (504, "timeout_exception")
    assert node.hung_up.wait(2)


def test_node_that_is_down_is_a_503(sidecar_over, ask):
    with sidecar_over(f"http://127.0.0.1:{find_free_port()}") as url:
        for target in ("/i/_search", "/i/_count"):
            answer = ask(url, "POST", target, {}, X_Personalize_User="u1")
            assert (answer.status, answer.json["status"]) == (503, 503)
            assert answer.headers["Retry-After"]


def test_client_that_hangs_up_cancels_the_upstream_search(node, sidecar):
    node.answer = lambda *_: (0, {}, b"")
    host, port = sidecar.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /i/_search HTTP/1.1\r\nHost: x\r\nX-Personalize-User: u1\r\n"
                       b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        while not node.asked:
            time.sleep(0.01)
    assert node.hung_up.wait(0.7), "well before the timeout of a second"


@pytest.mark.parametrize(("method", "target", "status", "kind"), [
    ("POST", "/i/_bulk", 403, "security_exception"),
    ("PUT", "/i", 405, "method_not_allowed_exception"),
    ("DELETE", "/i/_doc/1", 405, "method_not_allowed_exception"),
    ("POST", "/i/_update/1", 403, "security_exception"),
    ("POST", "/i/../_bulk", 403, "security_exception"),
])
def test_what_is_not_on_the_list_is_refused_in_opensearchs_shape(
        node, through, method, target, status, kind):
    answer = through(method, target, {})
    assert (answer.status, answer.json["status"], answer.json["error"]["type"]) == (
        status, status, kind)
    assert "SIDECAR_PASS=all" in answer.json["error"]["reason"]
    assert ("Allow" in answer.headers) == (status == 405)
    assert node.asked == []


def test_reads_on_the_list_pass(node, through):
    for method, target in (("GET", "/i/_mapping"), ("HEAD", "/i"), ("POST", "/i/_count"),
                           ("DELETE", "/_search/scroll"), ("OPTIONS", "/")):
        assert through(method, target).status == 200
    assert len(node.asked) == 5


def test_nobody_closes_the_scrolls_of_others(node, through):
    for target, body in (("/_search/scroll?scroll_id=_all", None),
                         ("/_search/scroll", {"scroll_id": "_all"}),
                         ("/_search/point_in_time", {"pit_id": ["_all"]})):
        answer = through("DELETE", target, body)
        assert (answer.status, answer.json["error"]["type"]) == (403, "security_exception")
    assert node.asked == []
    assert through("DELETE", "/_search/scroll", {"scroll_id": "DXF1"}).status == 200
    assert len(node.asked) == 1


@pytest.mark.parametrize("target", ["/i/_search", "/i/_count"])
def test_body_beyond_the_limit_is_a_413(node, through, sidecar, target):
    answer = through("POST", target, {"x": "y" * 5000})
    assert (answer.status, answer.json["error"]["type"]) == (413, "content_too_long_exception")
    host, port = sidecar.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as client:
        client.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                       % target.encode() + b"1000\r\n%b\r\n" % (b"z" * 4096) * 3 + b"0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413")


def test_more_requests_than_a_worker_takes_are_told_to_retry(node, through):
    node.answer = lambda *_: (time.sleep(0.5), (200, {}, b"{}"))[1]
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(through("GET", "/i/_count")))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) == 4
    assert refused[0].json["error"]["type"] == "rejected_execution_exception"
    assert refused[0].headers["Retry-After"]
    assert through("GET", "/i/_count").status == 200, "places are given back"


def test_several_nodes_share_the_work_and_cover_for_each_other(node, sidecar_over, ask):
    down = f"http://127.0.0.1:{find_free_port()}"
    with sidecar_over(f"{down},{node.url}") as url:
        assert {ask(url, "POST", "/i/_bulk", b"{}\n").status for _ in range(6)} == {200}
