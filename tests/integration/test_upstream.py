"""The lean client against servers that stall, cut, lie and come back: real sockets in threads."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sidecar.errors import ClientGone, SettingsError, UpstreamTimeout, UpstreamUnavailable
from sidecar.records import HttpRequest
from sidecar.search.targets import Endpoint
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.search_path import SearchPath
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.documents import without_values
from sidecar.stores.in_memory import MemoryStateStore
from sidecar.stores.upstream import BACKOFF_S, Upstream

Script = Callable[[socket.socket, bytes], bool | None]  # answers one request; True: close after it
SEARCH = HttpRequest("POST", "/i/_search", (("Content-Type", "application/json"),), b"{}")


class ScriptedServer:
    """Accepts connections and answers each request as the next script says; the last repeats."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._scripts = list(scripts)
        self._tls = tls
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        self._thread.join(2)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            while request := read_request(connection):
                self.requests.append(request)
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                if script(connection, request):
                    break
        connection.close()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                   if line.lower().startswith(b"content-length")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answer(text: bytes) -> Script:
    return lambda connection, _request: connection.sendall(text)


def answer_and_close(text: bytes) -> Script:
    def script(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(text)
        return True
    return script


def stall(connection: socket.socket, _request: bytes) -> None:
    connection.recv(1)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\n{}"


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    servers: list[ScriptedServer] = []

    def start(*scripts: Script, tls: ssl.SSLContext | None = None) -> ScriptedServer:
        servers.append(ScriptedServer(*scripts, tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def upstream_of() -> Iterator[Callable[..., Upstream]]:
    made: list[Upstream] = []

    def make(*servers: ScriptedServer | str, **settings: object) -> Upstream:
        urls = ",".join(s if isinstance(s, str) else s.url for s in servers)
        made.append(Upstream(Settings(opensearch_url=urls, upstream_timeout_s=5.0, **settings)))
        return made[-1]

    yield make
    for upstream in made:
        upstream.close()


def soon() -> float:
    return time.monotonic() + 0.2


def test_answer_keeps_status_headers_and_repeats(serve, upstream_of) -> None:
    response = upstream_of(serve(answer(OK))).fetch(SEARCH, idempotent=True)
    assert (response.status, response.body) == (200, b"{}")
    assert response.headers == (("content-length", "2"), ("X-A", "1"), ("X-A", "2"))


def test_one_connection_carries_many_requests(serve, upstream_of) -> None:
    server = serve(answer(OK))
    upstream = upstream_of(server)
    for _ in range(5):
        upstream.fetch(SEARCH, idempotent=True)
    assert (server.connections, len(server.requests)) == (1, 5)


@pytest.mark.parametrize("status", [400, 413, 414, 431])
def test_connection_of_a_request_that_was_not_read_is_given_up(serve, upstream_of, status) -> None:
    server = serve(answer(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % status))
    upstream = upstream_of(server)
    for _ in range(3):
        assert upstream.fetch(SEARCH, idempotent=True).status == status
    assert server.connections == 3


def test_one_thread_has_two_requests_under_way(serve, upstream_of) -> None:
    both_are_there = threading.Barrier(2, timeout=20)  # each answer waits for the other request
    upstream = upstream_of(serve(lambda c, _r: (both_are_there.wait(), c.sendall(OK))[1]))
    both = [upstream.begin(SEARCH, idempotent=True) for _ in range(2)]
    assert [exchange.result().body for exchange in both] == [b"{}", b"{}"]


def test_rendering_that_fails_leaves_no_other_under_way(serve, upstream_of) -> None:
    all_are_there, given_up = threading.Barrier(4, timeout=20), threading.Semaphore(0)

    def render(connection: socket.socket, request: bytes) -> bool:
        all_are_there.wait()
        if b"first" in request:
            connection.sendall(OK[:-1])
        elif not connection.recv(1):
            given_up.release()
        return True

    upstream = upstream_of(serve(render))
    personalizer = Personalizer(Settings(), MemoryStateStore(), lambda: None, Telemetry())
    lines = b"".join(b'{}\n{"source":{"query":{"match":{"title":"%s"}}}}\n' % word
                     for word in (b"first", b"b", b"c", b"d"))
    request = HttpRequest("POST", "/i/_msearch/template", SEARCH.headers, lines)
    with pytest.raises(UpstreamUnavailable) as held:  # with its frames, as a log's record may hold
        SearchPath(Settings(), upstream, personalizer).answer(Endpoint.MULTI_TEMPLATE, request)
    assert all(given_up.acquire(timeout=20) for _ in range(3)), held.value


@pytest.mark.parametrize(("text", "body"), [
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b""),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"{}"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
])
def test_framing_is_understood_and_the_connection_kept(serve, upstream_of, text, body) -> None:
    server = serve(answer(text))
    upstream = upstream_of(server)
    assert [upstream.fetch(SEARCH, idempotent=True).body for _ in range(2)] == [body, body]
    assert server.connections == 1


def test_head_has_a_length_but_no_body(serve, upstream_of) -> None:
    server = serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n"))
    upstream = upstream_of(server)
    for _ in range(2):
        response = upstream.fetch(HttpRequest("HEAD", "/i"), idempotent=True)
        assert (response.headers, response.body) == ((("Content-Length", "17"),), b"")
    assert server.connections == 1


def test_body_without_length_ends_with_the_connection(serve, upstream_of) -> None:
    server = serve(answer_and_close(b"HTTP/1.1 200 OK\r\n\r\nall of it"))
    assert upstream_of(server).fetch(SEARCH, idempotent=True).body == b"all of it"


def test_compressed_body_passes_as_it_came(serve, upstream_of) -> None:
    packed = gzip.compress(b"{}" * 100)
    text = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
    assert upstream_of(serve(answer(text % (len(packed), packed)))).fetch(
        SEARCH, idempotent=True).body == packed


@pytest.mark.parametrize("text", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"HTTP/1.1 200 OK\r\nConte",
    b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
    b"SSH-2.0-OpenSSH_9.6\r\n",
])
def test_cut_or_lying_answer_is_unavailable_not_a_result(serve, upstream_of, text) -> None:
    server = serve(answer_and_close(text))
    with pytest.raises(UpstreamUnavailable):
        upstream_of(server).fetch(SEARCH, idempotent=True)
    assert len(server.requests) == 1, "a half answer must not lead to a second request"


def test_missed_deadline_closes_the_connection(serve, upstream_of) -> None:
    seen = threading.Event()

    def notice_close(connection: socket.socket, _request: bytes) -> None:
        if connection.recv(1) == b"":
            seen.set()

    exchange = upstream_of(serve(notice_close)).begin(SEARCH, idempotent=True)
    with pytest.raises(UpstreamTimeout):
        exchange.result(soon())
    assert seen.wait(2)


def test_slow_drip_does_not_outlive_the_deadline(serve, upstream_of) -> None:
    def drip(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(100):
            time.sleep(0.05)
            connection.sendall(b"x")

    exchange = upstream_of(serve(drip)).begin(SEARCH, idempotent=True)
    with pytest.raises(UpstreamTimeout):
        exchange.result(soon())


def test_stale_connection_is_noticed_and_replaced(serve, upstream_of) -> None:
    server = serve(answer_and_close(OK))
    upstream = upstream_of(server)
    for _ in range(3):
        assert upstream.fetch(SEARCH, idempotent=False).status == 200
        time.sleep(0.05)
    assert server.connections == 3


def close_at_once(_connection: socket.socket, _request: bytes) -> bool:
    return True


def test_idempotent_request_is_sent_again_once(serve, upstream_of) -> None:
    server = serve(answer(OK), close_at_once, answer(OK))
    upstream = upstream_of(server)
    assert [upstream.fetch(SEARCH, idempotent=True).status for _ in range(2)] == [200, 200]
    assert len(server.requests) == 3


def test_request_that_changes_something_is_never_sent_again(serve, upstream_of) -> None:
    server = serve(answer(OK), close_at_once, answer(OK))
    upstream = upstream_of(server)
    upstream.fetch(SEARCH, idempotent=False)
    with pytest.raises(UpstreamUnavailable):
        upstream.fetch(SEARCH, idempotent=False)
    assert len(server.requests) == 2


def free_port_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_refused_connection_moves_on_to_the_next_node(serve, upstream_of) -> None:
    server = serve(answer(OK))
    upstream = upstream_of(free_port_url(), server)
    assert {upstream.fetch(SEARCH, idempotent=False).status for _ in range(4)} == {200}


def test_node_that_fails_is_logged_once_and_again_when_it_answers(
        serve, upstream_of, caplog: pytest.LogCaptureFixture) -> None:
    """Or the others would serve on, and nobody learn that one is gone."""
    broken = serve(close_at_once, close_at_once, answer(OK))
    upstream = upstream_of(broken)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            with pytest.raises(UpstreamUnavailable):
                upstream.fetch(SEARCH, idempotent=False)
        upstream.fetch(SEARCH, idempotent=False)
        upstream.fetch(SEARCH, idempotent=False)
    assert [(record.levelname, record.message, record.node) for record in caplog.records] == [
        ("WARNING", "node is left alone until it answers", broken.url),
        ("INFO", "node answers again", broken.url)]


def test_node_that_hangs_is_left_alone_for_a_while(serve, upstream_of) -> None:
    over = threading.Event()
    hung = serve(lambda _connection, _request: over.wait(20))
    upstream = upstream_of(hung, serve(answer(OK)))
    with pytest.raises(UpstreamTimeout):
        upstream.fetch(SEARCH, idempotent=True, deadline=soon())
    assert {upstream.fetch(SEARCH, idempotent=True).status for _ in range(4)} == {200}
    over.set()


def test_node_that_failed_is_tried_by_one_request_while_others_go_elsewhere(
        serve, upstream_of) -> None:
    over = threading.Event()
    servers = serve(stall, lambda connection, request: (
        over.wait(20), answer(OK)(connection, request))[1]), serve(answer(OK))
    upstream = upstream_of(*servers)
    with pytest.raises(UpstreamTimeout):
        upstream.fetch(SEARCH, idempotent=True, deadline=soon())
    time.sleep(BACKOFF_S)
    under_way = [upstream.begin(SEARCH, idempotent=True) for _ in range(6)]
    over.set()
    assert {exchange.result().status for exchange in under_way} == {200}
    assert [len(server.requests) for server in servers] == [2, 5]
    for _ in range(6):
        upstream.fetch(SEARCH, idempotent=True)
    assert [len(server.requests) for server in servers] == [5, 8]


def test_caller_in_a_hurry_says_nothing_about_the_node(serve, upstream_of) -> None:
    slow = serve(lambda connection, request: (time.sleep(0.3), answer(OK)(connection, request)))
    upstream = upstream_of(slow, free_port_url())
    with pytest.raises(UpstreamTimeout):
        upstream.begin(SEARCH, idempotent=True).result(time.monotonic() + 0.05)
    assert upstream.fetch(SEARCH, idempotent=True).status == 200


def test_node_that_hangs_on_what_is_sent_again_is_left_alone_too(serve, upstream_of) -> None:
    over = threading.Event()
    broken_off = serve(answer(OK), close_at_once, answer(OK))
    hung = serve(answer(OK), lambda _connection, _request: over.wait(20))
    upstream = upstream_of(broken_off, hung)
    for _ in range(2):  # each node has a kept connection
        upstream.fetch(SEARCH, idempotent=True)
    with pytest.raises(UpstreamTimeout):
        upstream.fetch(SEARCH, idempotent=True, deadline=soon())
    assert {upstream.fetch(SEARCH, idempotent=True).status for _ in range(4)} == {200}
    over.set()


def test_no_node_at_all_is_unavailable(upstream_of) -> None:
    with pytest.raises(UpstreamUnavailable, match="took no connection") as failure:
        upstream_of(free_port_url()).fetch(SEARCH, idempotent=True)
    assert without_values(str(failure.value)).endswith("took no connection: Connection refused")


def test_nodes_are_taken_in_turn(serve, upstream_of) -> None:
    servers = [serve(answer(OK)), serve(answer(OK))]
    upstream = upstream_of(*servers)
    for _ in range(6):
        upstream.fetch(SEARCH, idempotent=True)
    assert [len(server.requests) for server in servers] == [3, 3]


def test_iterated_body_is_sent_chunked(serve, upstream_of) -> None:
    server = serve(answer(OK))
    request = HttpRequest("POST", "/_bulk", (), iter([b"a" * 10, b"", b"b\n"]))
    assert upstream_of(server).fetch(request, idempotent=False).status == 200
    assert server.requests[0].endswith(b"\r\n\r\na\r\naaaaaaaaaa\r\n2\r\nb\n\r\n0\r\n\r\n")


def test_iterated_body_keeps_a_given_length(serve, upstream_of) -> None:
    server = serve(answer(OK))
    request = HttpRequest("POST", "/_bulk", (("Content-Length", "4"),), iter([b"ab", b"cd"]))
    upstream_of(server).fetch(request, idempotent=False)
    assert server.requests[0].endswith(b"\r\n\r\nabcd")


def test_early_refusal_of_a_large_body_reaches_the_caller(serve, upstream_of) -> None:
    """A node that says 413 after the head is heard, though the body was never read."""
    listener = socket.create_server(("127.0.0.1", 0))
    is_heard = threading.Event()

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            is_heard.wait(10)

    refusing = threading.Thread(target=refuse, daemon=True)
    refusing.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    request = HttpRequest("POST", "/_bulk", (), (b"x" * 2**20 for _ in range(64)))
    assert upstream_of(url).fetch(request, idempotent=False).status == 413
    is_heard.set()
    refusing.join(10)
    listener.close()


def test_streamed_body_comes_in_pieces(serve, upstream_of) -> None:
    size = 8 * 2**20
    server = serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size))
    upstream = upstream_of(server)
    for _ in range(2):
        streamed = upstream.begin(SEARCH, idempotent=True).stream()
        sizes = [len(chunk) for chunk in streamed.chunks]
        assert sum(sizes) == size
        assert max(sizes) <= 2**17
    assert server.connections == 1


def test_abandoned_stream_closes_its_connection(serve, upstream_of) -> None:
    server = serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 2**20))
    upstream = upstream_of(server)
    streamed = upstream.begin(SEARCH, idempotent=True).stream()
    next(streamed.chunks)
    streamed.chunks.close()  # type: ignore[attr-defined]
    again = upstream.begin(SEARCH, idempotent=True).stream()
    assert next(again.chunks)
    assert server.connections == 2


def test_client_that_hangs_up_cancels_the_request(serve, upstream_of) -> None:
    ours, theirs = socket.socketpair()
    exchange = upstream_of(serve(stall)).begin(SEARCH, idempotent=True, client=ours)
    threading.Timer(0.1, theirs.close).start()
    with pytest.raises(ClientGone):
        exchange.result()
    ours.close()


def test_line_break_in_a_header_is_not_sent(serve, upstream_of) -> None:
    server = serve(answer(OK))
    evil = HttpRequest("GET", "/", (("X-A", "1\r\nX-Admin: yes"),))
    with pytest.raises(UpstreamUnavailable, match="line break"):
        upstream_of(server).fetch(evil, idempotent=True)
    assert server.requests == []


@pytest.mark.parametrize("url", ["ftp://host:1", "http://", "http://u:p@host:9200", "http://h:x",
                                 " "])
def test_url_that_is_no_node_is_refused(url) -> None:
    with pytest.raises(SettingsError):
        Upstream(Settings(opensearch_url=url))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    if not shutil.which("openssl"):
        pytest.fail("openssl is needed for the TLS tests; install it")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out",
         "cert.pem"], cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return str(both)


def test_tls_verifies_by_default_and_sends_a_client_certificate(
        serve, upstream_of, certificate) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    tls.load_verify_locations(certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    body = b"x" * 500_000
    server = serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + body), tls=tls)
    with pytest.raises(UpstreamUnavailable, match="certificate") as failure:
        upstream_of(server).fetch(SEARCH, idempotent=True)
    assert "self-signed" in without_values(str(failure.value))
    for trust in ({"opensearch_ca": certificate}, {"opensearch_verify": False}):
        upstream = upstream_of(server, opensearch_client_cert=certificate, **trust)
        large = HttpRequest("POST", "/_bulk", (), b"y" * 500_000)
        for request in (SEARCH, large):
            assert upstream.fetch(request, idempotent=True).body == body
    with pytest.raises(UpstreamUnavailable):
        upstream_of(server, opensearch_ca=certificate).fetch(SEARCH, idempotent=True)


def test_real_node_answers_through_the_lean_client(opensearch, upstream_of) -> None:
    upstream = upstream_of(opensearch)
    ours = upstream.fetch(HttpRequest("GET", "/_cluster/settings?pretty"), idempotent=True)
    plain = http.client.HTTPConnection(opensearch.removeprefix("http://"))
    plain.request("GET", "/_cluster/settings?pretty")
    theirs = plain.getresponse()
    assert (ours.status, ours.body) == (theirs.status, theirs.read())
    plain.close()


def test_header_that_a_node_finds_too_long_costs_no_other_request(opensearch, upstream_of) -> None:
    """Such a connection looks open, and nothing on it is ever answered again."""
    upstream = upstream_of(opensearch)
    refused = upstream.fetch(HttpRequest("GET", "/", (("X-Long", "x" * 20_000),)), idempotent=True)
    assert (refused.status, b"too_long_http_header" in refused.body) == (400, True)
    assert upstream.fetch(HttpRequest("GET", "/"), idempotent=True).status == 200
