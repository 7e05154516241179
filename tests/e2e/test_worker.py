"""The worker's HTTP, byte by byte, over real sockets and a real gunicorn."""

from __future__ import annotations

import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts._bench_processes import ProcessGroup
from scripts._machine import find_free_port

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def served(*command, **environ):
    """Run one worker, by a command that runs another if one is given; yield its port."""
    port = find_free_port()
    process = subprocess.Popen(
        [*command, sys.executable, "-m", "gunicorn", "--config", "python:sidecar.web.gunicorn_conf",
         "echo_app:app"], cwd=ROOT, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "SIDECAR_WORKERS": "1",
                          "SIDECAR_LISTEN": f"127.0.0.1:{port}", **environ})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield port
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.fixture(scope="module")
def port():
    with served() as port:
        yield port


def exchange(port, sent, *, pause_s=0.0):
    """Send bytes, piece by piece, and return everything that comes until the server closes."""
    pieces = [sent] if isinstance(sent, bytes) else sent
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def echoed(received):
    return json.loads(received.split(b"\r\n\r\n", 1)[1])


def test_request_reaches_the_application_as_it_was_sent(port):
    answer = echoed(exchange(port, b"POST /a%2Fb/_search?q=%20x HTTP/1.1\r\nHost: h\r\n"
                                   b"X-Two: 1\r\nX-Two: 2\r\nX_Under: no\r\nContent-Type: a/b\r\n"
                                   b"Content-Length: 3\r\n\r\nabc"))
    environ = answer["environ"]
    assert answer["body"] == "abc"
    assert environ["RAW_URI"] == "/a%2Fb/_search?q=%20x"
    assert environ["PATH_INFO"] == "/a/b/_search"
    assert environ["QUERY_STRING"] == "q=%20x"
    assert environ["HTTP_X_TWO"] == "1,2"
    assert environ["CONTENT_TYPE"] == "a/b"
    assert "HTTP_X_UNDER" not in environ
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
def test_request_in_pieces_is_put_together(port, pause_s):
    whole = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"
    pieces = [whole[at:at + 7] for at in range(0, len(whole), 7)]
    assert echoed(exchange(port, pieces, pause_s=pause_s))["body"] == "abcd"


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
def test_target_that_llhttp_refuses_is_put_together_too(port, pause_s):
    whole = b"POST x/\xe9?\xe9 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"
    pieces = [whole[at:at + 7] for at in range(0, len(whole), 7)]
    answer = echoed(exchange(port, pieces, pause_s=pause_s))
    assert answer["body"] == "abcd"
    assert answer["environ"]["RAW_URI"] == "x/\xe9?\xe9"
    assert answer["environ"]["PATH_INFO"] == "/x/\xe9"


def test_chunked_body_is_read_and_its_trailers_do_not_count(port):
    answer = echoed(exchange(port, b"POST / HTTP/1.1\r\nHost: h\r\n"
                                   b"Transfer-Encoding: chunked\r\n\r\n"
                                   b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Late: 1\r\n\r\n"))
    assert answer["body"] == "abcde"
    assert "HTTP_X_LATE" not in answer["environ"]


def test_pipelined_requests_are_answered_in_turn(port):
    post = b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n%d"
    received = exchange(port, b"".join(post % (number, number) for number in range(5)))
    assert received.count(b"HTTP/1.1 200 OK") == 5
    places = [received.index(b'"body": "%d"' % number) for number in range(5)]
    assert places == sorted(places)


def test_connection_is_kept_over_many_requests_and_pauses(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for pause_s in (0, 0, 0.1, 0, 0.1):
        time.sleep(pause_s)
        connection.request("POST", "/x", b"hello")
        response = connection.getresponse()
        assert json.loads(response.read())["body"] == "hello"
        assert not response.will_close
    connection.close()


def test_thread_that_lingers_with_one_connection_leaves_when_another_needs_it():
    with served(SIDECAR_THREADS="2", ECHO_LINGER_MS="60000") as port:
        idle, first, second = (
            http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(3))
        for _ in range(3):
            idle.request("GET", "/x")
            assert idle.getresponse().read()
            for connection in (first, second):
                connection.request("GET", "/meet")
            answers = [connection.getresponse() for connection in (first, second)]
            assert [answer.status for answer in answers if answer.read()] == [200, 200]
        for connection in (idle, first, second):
            connection.close()


def test_connections_that_stay_silent_keep_nobody_waiting():
    """Each would hold a thread for a minute: two threads, twenty connections."""
    with served(SIDECAR_THREADS="2", ECHO_LINGER_MS="60000") as port:
        silent = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(20)]
        busy = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for number in range(5):
            busy.request("POST", "/x", b"%d" % number)
            assert json.loads(busy.getresponse().read())["body"] == str(number)
        silent[7].sendall(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert silent[7].recv(65536).startswith(b"HTTP/1.1 200 OK")
        busy.close()
        for connection in silent:
            connection.close()


HALVES = [b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Le",
          b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab",
          b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab"]
RESTS = [b"ngth: 4\r\n\r\nabcd", b"cd", b"cd\r\n0\r\n\r\n"]


def test_connections_that_stop_in_the_middle_of_a_request_keep_nobody_waiting():
    """Each would hold a thread for ten seconds: two threads, thirty connections."""
    with served(SIDECAR_THREADS="2", ECHO_LINGER_MS="60000") as port:
        slow = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(30)]
        for number, connection in enumerate(slow):
            connection.sendall(HALVES[number % 3])
        busy = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
        for number in range(5):
            busy.request("POST", "/x", b"%d" % number)
            assert json.loads(busy.getresponse().read())["body"] == str(number)
        busy.close()
        for number, connection in enumerate(slow):
            connection.sendall(RESTS[number % 3])
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert echoed(answer)["body"] == "abcd"
            connection.close()


@pytest.mark.parametrize("sent", [b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
                                  b"garbage\r\n\r\n"])
def test_clients_that_do_not_close_keep_nobody_waiting(port, sent):
    """gunicorn would wait for each, one after another, with no eye for anybody else."""
    lazy = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(20)]
    for connection in lazy:
        connection.sendall(sent)
    assert lazy[0].recv(65536).startswith(b"HTTP/1.1 ")
    busy = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    busy.request("POST", "/x", b"hello")
    assert json.loads(busy.getresponse().read())["body"] == "hello"
    for connection in (busy, *lazy):
        connection.close()


@pytest.mark.parametrize("half", HALVES)
def test_request_that_stops_in_its_middle_is_told_so(half):
    with (served(SIDECAR_THREADS="1", ECHO_TIMEOUT_S="1") as port,
          socket.create_connection(("127.0.0.1", port), 20) as connection):
        connection.sendall(half)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
        assert received.startswith(b"HTTP/1.1 408 Request Timeout")
        assert echoed(received)["error"]["reason"] == "request stopped in its middle; send it again"


def test_answered_request_does_not_suffer_from_what_comes_behind_it(port):
    received = exchange(port, b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok"
                              b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                              b"zz\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 400 Bad Request" in received


@pytest.fixture
def most_files():
    """Let the test open as many files as it may; give how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_idle_connections_than_a_worker_takes_keep_nobody_out(most_files):
    """It closes the oldest of them; nor does it end for lack of files, of which it asks for more
    than systemd's 1,024."""
    with served("prlimit", f"--nofile=1024:{most_files}") as port:
        idle = []
        for _ in range(1100):
            idle.append(http.client.HTTPConnection("127.0.0.1", port, timeout=20))
            idle[-1].request("GET", "/x")
            assert idle[-1].getresponse().read()
        # it would wait for 65 s, longer than the client does
        assert b"200 OK" in exchange(port, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        idle[-1].request("GET", "/x")
        assert idle[-1].getresponse().read()
        for connection in idle:
            connection.close()


def test_more_half_requests_than_a_worker_takes_keep_nobody_out(most_files):
    with served("prlimit", f"--nofile=1024:{most_files}") as port:
        slow = []
        for number in range(1100):
            slow.append(socket.create_connection(("127.0.0.1", port), 20))
            slow[-1].sendall(HALVES[number % 3])
        assert b"200 OK" in exchange(port, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        slow[-1].sendall(RESTS[(len(slow) - 1) % 3])
        assert slow[-1].recv(65536).startswith(b"HTTP/1.1 200 OK")
        for connection in slow:
            connection.close()


def test_worker_that_leaves_answers_a_connection_that_was_still_silent(until):
    """A client connects, the worker is told to leave, then the client sends its first request."""
    with served(SIDECAR_THREADS="1") as port:
        (master,) = ProcessGroup(f"http://127.0.0.1:{port}").roots
        busy = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        busy.request("GET", "/slow")  # the only thread sees the next one when it is leaving
        with socket.create_connection(("127.0.0.1", port), 20) as silent:
            until(lambda: accepted(port) >= 2, "connection was not accepted")
            os.kill(master, signal.SIGTERM)
            assert busy.getresponse().read()
            time.sleep(0.2)
            silent.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            head = silent.recv(65536).split(b"\r\n\r\n")[0]
        busy.close()
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in head


def accepted(port):
    """Return how many connections to a port its server has taken (in Linux's table of them)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(state == "01" and local.endswith(f":{port:04X}") and inode != "0"
               for _, local, _, state, _, _, _, _, _, inode, *_ in rows)


@pytest.fixture(scope="module")
def hasty_port():
    with served(SIDECAR_THREADS="1", ECHO_PATIENCE_S="1") as port:
        yield port


@pytest.mark.parametrize("sent", [
    b"GET /x HTTP/1.1\r\nHost: h\r\nX: ",
    b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10;x=",
])
def test_request_that_drips_is_given_up_and_its_thread_serves_others(hasty_port, sent):
    with (socket.create_connection(("127.0.0.1", hasty_port), 20) as slow,
          socket.create_connection(("127.0.0.1", hasty_port), 60) as other):
        slow.sendall(sent)
        other.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")  # for whom there is no thread
        while not select.select([slow], [], [], 0.2)[0]:
            slow.sendall(b"y")
        assert slow.recv(65536).startswith(b"HTTP/1.1 408 Request Timeout")
        assert other.recv(65536).startswith(b"HTTP/1.1 200")


def test_body_that_comes_slowly_but_steadily_is_taken(hasty_port):
    piece = bytes(16 * 1024)
    with socket.create_connection(("127.0.0.1", hasty_port), 60) as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
                           % (6 * len(piece)))
        for _ in range(6):  # three times as long as a body without a byte may take
            time.sleep(0.5)
            connection.sendall(piece)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_body_that_breaks_off_is_not_taken_for_whole(port, framing):
    assert exchange(port, b"POST /x HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n3\r\nabc\r\n"
                    % framing) == b""


def test_old_clients_are_answered_and_closed(port):
    received = exchange(port, b"GET /stream HTTP/1.0\r\n\r\n")
    head, body = received.split(b"\r\n\r\n", 1)
    assert b"Connection: close" in head
    assert b"chunked" not in head
    assert body == b"piece 0\npiece 1\npiece 2\n"


def test_answer_of_unknown_length_is_chunked(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/stream")
    response = connection.getresponse()
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.read() == b"piece 0\npiece 1\npiece 2\n"
    connection.close()


def test_head_and_no_content_have_no_body(port):
    received = exchange(port, b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n"
                              b"GET /none HTTP/1.1\r\nHost: h\r\n\r\n")
    first, second, rest = received.split(b"\r\n\r\n")
    assert b"Content-Length: " in first
    assert second.startswith(b"HTTP/1.1 204")
    assert b"Content-Length" not in second
    assert rest == b""


def test_body_that_waits_to_be_asked_for_is_asked_for(port):
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                           b"Content-Length: 2\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ok")
        assert b'"body": "ok"' in connection.recv(65536)


def test_body_that_nobody_asked_for_ends_the_connection(port):
    received = exchange(port, b"POST /unread HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                              b"Content-Length: 2\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200")  # and was read to the connection's end


def test_unread_body_does_not_become_the_next_request(port):
    received = exchange(port, b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 24\r\n\r\n"
                              b"GET /evil HTTP/1.1\r\n\r\nxx"
                              b"GET /good HTTP/1.1\r\nHost: h\r\n\r\n")
    assert received.count(b"HTTP/1.1 200") == 2
    assert b"/evil" not in received


def test_upgrade_to_http2_is_declined_and_the_connection_goes_on(port):
    """Java's client asks for it with its first request."""
    upgrade = (b"POST /%d HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
               b"Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\nContent-Length: 1\r\n\r\n%d")
    received = exchange(port, upgrade % (1, 1) + upgrade % (2, 2))
    assert received.count(b"HTTP/1.1 200") == 2
    assert b'"body": "1"' in received
    assert b'"body": "2"' in received


@pytest.mark.parametrize("sent", [
    b"garbage\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET / HTTP/1.1\r\n X: first line\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n 2\r\n\r\nab",
    b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
])
def test_what_is_not_http_is_refused_in_opensearchs_shape(port, sent):
    received = exchange(port, sent)
    assert received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200")) or received == b""
    assert b"HTTP/1.1 400 Bad Request" in received or b"Transfer-Encoding" in sent
    if received.startswith(b"HTTP/1.1 400"):
        assert echoed(received)["status"] == 400


def test_endless_head_is_refused(port):
    received = exchange(port, b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 70_000)
    assert received.startswith(b"HTTP/1.1 431")


def test_unix_socket_is_served(tmp_path):
    path = tmp_path / "s"
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "SIDECAR_WORKERS": "1",
                            "SIDECAR_LISTEN": f"unix:{path}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "python:sidecar.web.gunicorn_conf",
         "echo_app:app"], cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_large_body_passes(port):
    body = os.urandom(3_000_000).hex().encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/x", body)
    assert json.loads(connection.getresponse().read())["body"] == body.decode()
    connection.close()


def test_large_answer_has_more_time_than_its_first_piece():
    """Forty megabytes, read in four times as long as the client may be silent."""
    with served(ECHO_TIMEOUT_S="1") as port:
        body = b"x" * 40_000_000
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/x", body)
        answer, read = connection.getresponse(), 0
        while piece := answer.read(1_000_000):
            read += len(piece)
            time.sleep(0.1)
        assert read > len(body)
        connection.close()


@pytest.mark.parametrize("path", ["/error", "/split"])
def test_failing_application_is_a_500_and_ends_the_connection(port, path):
    received = exchange(port, f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert received.startswith(b"HTTP/1.1 500")
    assert b"Set-Cookie" not in received


def test_wrong_length_never_spills_into_the_next_answer(port):
    cut = exchange(port, b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n")
    assert cut.endswith(b"\r\n\r\n12345")
    short = exchange(port, b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n"
                           b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
    assert short.count(b"HTTP/1.1") == 1


def test_more_clients_than_threads_all_get_their_answers(port):
    answers = []

    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(3):
            connection.request("POST", "/slow", b"x")
            answers.append(connection.getresponse().read())
        connection.close()

    clients = [threading.Thread(target=ask) for _ in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(answers) == 60
