"""The benchmark's own honesty: what its client reads, how it draws, what an open loop charges."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts import _bench_plot, _bench_report, _bench_sections, bench
from scripts import _bench_stats as stats
from scripts._bench_arms import Arms, BenchTarget
from scripts._bench_client import RawAnswer, RawConnection, request
from scripts._bench_load import Samples, _Loop, closed_loop, in_turn, open_loop
from scripts._bench_searches import Log, Search, check_index, read
from sidecar.errors import FileError, UpstreamError


def arms(*names, pipeline=None):
    return Arms(BenchTarget("http://s:1", "http://o:2", "products", ("title",), 100, pipeline),
                names)


def test_plugin_is_asked_through_opensearch_with_the_same_search():
    made = arms("bare", "plugin", pipeline="my pipe")
    bare, plugin = (made.request(arm, Search("milk", "u1")) for arm in ("bare", "plugin"))
    head, _, body = plugin.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /products/_search?search_pipeline=my%20pipe HTTP/1.1")
    assert b"o:2" in head
    asked = json.loads(body)
    assert asked.pop("ext") == {"personalize": {"user_id": "u1", "window_size": 100}}
    assert asked == json.loads(bare.partition(b"\r\n\r\n")[2])
    assert "ext" not in json.loads(made.request("plugin", Search("milk", None)).partition(
        b"\r\n\r\n")[2])


def test_plugin_arm_without_a_pipeline_is_refused(capsys):
    assert "needs --pipeline NAME" in misused(["--arms", "bare", "plugin"], capsys)


def misused(options, capsys):
    """Return what the program says of options that it does not take."""
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--sidecar", "http://s:1", "--opensearch", "http://o:2", "--queries", "q",
                    *options])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("options", "said"), [
    (["--searches", "0"], "0 is below 1"), (["--window", "-4"], "-4 is below 1"),
    (["--rate", "0"], "0 must be above 0"), (["--seconds", "nan"], "nan must be above 0"),
    (["--plot", "/no/such/folder/x.html"], "is no directory"),
    (["--sections", "overload"], "needs a ceiling"),
    (["--sidecar", "foo"], "must be http://HOST:PORT"),
    (["--sidecar", "https://s:1"], "speaks plain HTTP"),
    (["--opensearch", "http://u:secret@o:2"], "holds credentials"),
    (["--opensearch", "http://o:99999"], "no URL")])
def test_options_that_would_measure_nothing_are_refused_at_once(options, said, capsys):
    told = misused(options, capsys)
    assert said in told
    assert "secret" not in told


def test_server_that_is_not_there_is_named(tmp_path, capsys):
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": "milk", "user_id": "u"}\n')
    assert bench.main(["--sidecar", "http://127.0.0.1:9", "--opensearch", "http://127.0.0.1:9",
                       "--queries", str(path)]) == 1
    assert capsys.readouterr().err.startswith("bench: 127.0.0.1:9 takes no connection")


def test_bare_opensearch_is_always_measured(monkeypatch):
    chosen = []
    monkeypatch.setattr(bench, "run", lambda options: chosen.append(options) or {})
    bench.main(["--sidecar", "http://s:1", "--opensearch", "http://o:2", "--queries", "q",
                "--arms", "personal", "--load-arms", "off", "bare", "--json"])
    assert chosen[0].arms == ["bare", "personal"]
    assert chosen[0].load_arms == ["bare", "off"]


def chosen_node(monkeypatch, node):
    """Return where the program asks a node that was given so."""
    chosen = []
    monkeypatch.setattr(bench, "run", lambda options: chosen.append(options) or {})
    bench.main(["--sidecar", "http://s", "--opensearch", node, "--queries", "q", "--json"])
    return chosen[0].opensearch


@pytest.mark.parametrize(("given", "asked"), [
    ("http://o", "http://o:9200"), ("http://[::1]/search", "http://[::1]:9200/search"),
    ("http://o:80/", "http://o:80")])
def test_node_without_a_port_is_asked_where_the_sidecar_would(given, asked, monkeypatch):
    assert chosen_node(monkeypatch, given) == asked


def test_prefix_of_a_server_stands_before_every_target():
    head = request("http://o:9200/search/", "POST", "/products/_search?q=1").splitlines()
    assert head[:2] == [b"POST /search/products/_search?q=1 HTTP/1.1", b"host: o:9200"]
    assert request("http://o", "GET", "/x").startswith(b"GET /x HTTP/1.1")


@pytest.mark.parametrize(("body", "outcome"), [
    (b'{"hits":{},"ext":{"personalize":{"applied":true,"reason":""}}}', {"applied": 1}),
    (b'{"hits":{},"ext":{"personalize":{"applied":false,"reason":"x"}}}', {"skipped": 1}),
    (b'{"hits":{}}', {})])
def test_plugin_tells_in_the_body_what_it_did(body, outcome):
    seen = Samples()
    seen.add("plugin", 0.1, RawAnswer(200, b"HTTP/1.1 200 OK", body))
    assert seen.outcomes == outcome


class Handler(BaseHTTPRequestHandler):
    """Answers with a body of the wanted framing; ``/stall`` holds the first answer up."""

    protocol_version = "HTTP/1.1"
    stalled = threading.Event()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/stall" and not self.stalled.is_set():
            self.stalled.set()
            time.sleep(0.5)
        self.send_response(500 if self.path == "/error" else 200)
        self.send_header("X-Personalize-Status", "applied")
        self.send_header("Server-Timing", "upstream;dur=1.500, rank;dur=0.250")
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    Handler.stalled.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_client_reads_both_framings_on_one_connection(url):
    connection = RawConnection(url)
    for _ in range(3):
        assert connection.ask(request(url, "POST", "/x")).body == b"hello"
        answer = connection.ask(request(url, "POST", "/chunked"))
        assert answer.body.endswith(b"0\r\n\r\n\r\n0\r\n\r\n")
    assert answer.header("x-personalize-status") == "applied"
    connection.close()


def test_arms_take_turns_and_warm_up_is_not_counted(url):
    rows = ({"a": request(url, "POST", "/x"), "b": request(url, "POST", "/x")} for _ in range(12))
    samples = in_turn({"a": url, "b": url}, rows, warm_up=2)
    assert samples["a"].count == samples["b"].count == 10
    assert samples["a"].outcomes == {"applied": 10}
    assert samples["a"].stages == {"upstream": [1.5] * 10, "rank": [0.25] * 10}


def test_closed_loop_counts_errors(url):
    seen = closed_loop(url, lambda: ("x", request(url, "POST", "/error")), clients=3, seconds=0.3)
    assert seen.errors == seen.count > 3


def test_open_loop_charges_a_stall_to_every_request_that_it_held_up(url):
    """One connection: a closed loop would have noted a single slow request."""
    seen = open_loop(url, lambda: ("x", request(url, "POST", "/stall")), rate=100, seconds=1.0,
                     connections=1)
    late = [latency for latency in seen.latencies["x"] if latency > 0.1]
    assert len(late) > 20
    assert max(late) >= 0.5
    assert seen.never_sent == 0


def test_log_draws_the_same_searches_for_the_same_seed_and_few_users_most(tmp_path):
    file = tmp_path / "queries.jsonl"
    rows = [{"query": f"q{user}", "user_id": f"u{user}"} for user in range(50)]
    rows += [{"query": "busy", "user_id": "u7", "history": [["a", "click", "2020-01-01"]]}] * 5
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = read(file)
    drawn = list(itertools.islice(log.draw(3), 400))
    assert drawn == list(itertools.islice(log.draw(3), 400))
    share = sum(search.user_id == "u7" for search in drawn) / len(drawn)
    assert 0.15 < share < 0.35
    assert log.histories == [{"user_id": "u7", "item_id": "a", "event": "click",
                              "ts": "2020-01-01"}]


def test_log_without_a_search_is_refused(tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_text('{"query": "", "user_id": "u"}\n')
    with pytest.raises(FileError, match="holds no search"):
        read(file)


def test_ids_are_read_as_the_other_programs_read_them(tmp_path):
    file = tmp_path / "cases.parquet"
    pq.write_table(pa.table({"query": ["a", "b"], "user_id": [900.0, None]}), file)
    assert {own[0].user_id for own in read(file).by_user} == {"900", None}
    file = tmp_path / "cases.jsonl"
    history = [[None, "search", "2020-01-01"], [7, "click", "2020-01-02"]]
    file.write_text("".join(json.dumps({"query": "a", "user_id": user, "history": history}) + "\n"
                            for user in (900, None)))
    assert read(file).histories == [{"user_id": "900", "item_id": "7", "event": "click",
                                     "ts": "2020-01-02"}]


@pytest.mark.parametrize(("line", "said"), [
    ("{", "jsonl:2: "), ("[]", "jsonl:2: line holds a list"),
    ('{"query": "a", "history": [["i", "click"]]}', "jsonl:2: history holds"),
    ('{"query": "a", "history": 5}', "jsonl:2: history is 5"),
    ('{"query": "a", "user_id": 1.5}', "jsonl:2: user_id is 1.5")])
def test_row_that_is_none_is_told_with_its_line(tmp_path, line, said):
    file = tmp_path / "queries.jsonl"
    file.write_text('{"query": "a"}\n' + line + "\n")
    with pytest.raises(FileError, match=said):
        read(file)


def test_file_that_breaks_off_is_told(tmp_path):
    file = tmp_path / "queries.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"query": "a"}\n' * 10)[:-9])
    with pytest.raises(FileError, match="breaks off"):
        read(file)


@pytest.mark.parametrize(("status", "said"), [
    (401, "sends no credentials"), (404, "load a catalogue first"), (500, "500 to a search")])
def test_node_that_does_not_search_is_told_by_its_status(monkeypatch, status, said):
    class Refusing:
        def __init__(self, _):
            pass

        def ask(self, _):
            return RawAnswer(status, b"", b"no")

        def close(self):
            pass

    monkeypatch.setattr("scripts._bench_searches.RawConnection", Refusing)
    with pytest.raises(UpstreamError, match=said):
        check_index("http://o", "products")


def test_rounds_have_students_interval_and_one_round_has_none():
    found = stats.ratio_of_rounds([100.0, 100.0], [50.0, 200.0])
    assert found["value"] == pytest.approx(1.0)
    assert found["high"] == pytest.approx(2.0 ** 12.706, rel=1e-3)  # t of one degree of freedom
    assert found["low"] == pytest.approx(1 / found["high"])
    one = stats.ratio_of_rounds([100.0], [20.0])
    assert one == {"value": pytest.approx(0.2), "low": None, "high": None}
    assert _bench_report._bounds(one, 3) == "0.200"


def test_paired_intervals_hold_the_difference():
    base = [0.001 + 0.00001 * k for k in range(200)]
    report = stats.paired(base, [value + 0.002 for value in base])
    assert report["added_ms"]["p50"]["value"] == pytest.approx(2.0)
    assert report["added_ms"]["p50"]["low"] <= 2.0 <= report["added_ms"]["p50"]["high"]
    assert stats.ratio_of_rounds([100, 200], [50, 100])["value"] == pytest.approx(0.5)


def test_plot_is_one_page_with_a_line_for_every_arm():
    quantiles = {"p50": 1.0, "p90": 2.0, "p99": 4.0, "p99.9": 30.0}
    report = {"conditions": {"clients": 8, "cores": 2}, "latency": {
        "bare": {"ms": {"bare": quantiles}}, "personal": {"ms": {"personal": quantiles}}}}
    page = _bench_plot.page(report)
    assert page.count("<polyline") == 2
    assert "one client, arms in turn" in page
    assert "src=" not in page
    assert "href=" not in page


def bench_at(url, *users):
    """Return a benchmark whose two servers are one."""
    target = BenchTarget(url, url, "products", ("title",), 100, "pipe")
    log = Log([[Search("milk", user)] for user in users])
    return _bench_sections.Bench(Arms(target, ["bare"]), log, 0, lambda _: None)


def searches_in_open_loop(bench, arm):
    report = _bench_sections.open_latency(bench, [arm], rate=200.0, seconds=0.5, event_every=1)
    return report[arm]["acknowledged"][arm], report[arm]["acknowledged"].get("event", 0)


def test_clicks_come_besides_the_searches_of_the_open_loop(url):
    bare, none = searches_in_open_loop(bench_at(url, "u", None), "bare")
    personal, clicks = searches_in_open_loop(bench_at(url, "u", None), "personal")
    assert none == 0
    assert personal == pytest.approx(bare, rel=0.25)
    assert clicks == pytest.approx(personal, abs=5)


def test_log_without_users_gives_figures_that_json_can_hold(url, monkeypatch, capsys):
    monkeypatch.setattr(bench, "run", lambda _: {
        "events": _bench_sections.events(bench_at(url, None), clients=1, seconds=0.05)})
    assert bench.main(["--sidecar", url, "--opensearch", url, "--queries", "q", "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["events"]["single_ms"]["p50"] is None


@pytest.mark.parametrize(("arm", "user"), [("personal", None), ("plugin", "u")])
def test_nobody_and_no_node_is_sent_clicks(url, arm, user):
    bare, _ = searches_in_open_loop(bench_at(url, user), "bare")
    assert searches_in_open_loop(bench_at(url, user), arm) == (bare, 0)


def test_clicks_are_no_searches_a_second():
    seen = Samples(seconds=2.0)
    for kind in ("personal", "personal", "event"):
        seen.add(kind, 0.1, RawAnswer(200, b"HTTP/1.1 200 OK", b""))
    assert _bench_sections._load_report(seen)["searches_per_s"] == 1.0


@pytest.mark.parametrize(("sections", "rate", "asked"), [
    (["closed", "overload"], None, 80.0), (["closed", "overload"], "5", 80.0),
    (["overload"], "5", 10.0)])
def test_overload_is_twice_the_ceiling_that_is_known(monkeypatch, sections, rate, asked):
    rates = []
    monkeypatch.setattr(bench, "read", lambda _: Log([]))
    monkeypatch.setattr(bench, "check_index", lambda *_: None)
    monkeypatch.setattr(_bench_sections, "throughput", lambda *_, **__: {
        "bare": {"searches_per_s": 100.0}, "off": {"searches_per_s": 40.0}})
    monkeypatch.setattr(_bench_sections, "open_latency",
                        lambda *_, rate, **__: rates.append(rate) or {})
    monkeypatch.setattr(bench._bench_report, "render", lambda _: "")
    bench.main(["--sidecar", "http://s", "--opensearch", "http://o", "--queries", "q",
                "--no-histories", "--sections", *sections, *(["--rate", rate] if rate else [])])
    assert rates == [asked]


def test_acknowledged_requests_are_counted_apart_from_errors(url):
    seen = closed_loop(url, lambda: ("event", request(url, "POST", "/error")), clients=1,
                       seconds=0.05)
    assert seen.acknowledged == {}
    seen = closed_loop(url, lambda: ("event", request(url, "POST", "/chunked")), clients=1,
                       seconds=0.05)
    assert seen.acknowledged == {"event": seen.count}


def test_connection_that_the_server_closed_while_idle_is_no_error(url):
    loop = _Loop(url, 1)
    old = loop.idle[0]
    old.socket.shutdown(socket.SHUT_RDWR)
    loop.send(old, "x", request(url, "POST", "/x"), due=time.perf_counter())
    while not loop.wait(1.0):
        pass
    assert (loop.samples.count, loop.samples.errors) == (1, 0)
    loop.close()
