"""Many writers, several sidecars, an OpenSearch that dies: no event lost, none counted twice."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from urllib.parse import urlsplit

import pytest

from scripts._node import nodes_of

FAKE = "fake_model:application()"
EVENTS = "/_personalize/events"
BASE_TS = 1735787045


def event(number, user_id="u1"):
    return {"user_id": user_id, "item_id": f"i{number}", "event": "click",
            "ts": BASE_TS + number, "event_id": f"{user_id}-{number}"}


def shown(sidecar, user_id="u1"):
    answer = sidecar.request("GET", f"/_personalize/users/{user_id}?hidden=true")
    assert answer.status == 200, answer.body
    return answer.json


def assert_holds(state, numbers):
    """The state holds exactly these events in order, and the model has stepped each once."""
    assert [entry["item_id"] for entry in state["events"][::-1]] == [f"i{n}" for n in numbers]
    assert state["event_count"] == len(numbers)
    assert state["hidden"][0][0] == len(numbers)


def logged(opensearch, index):
    """Count the raw events."""
    counted = 0
    for method, path in (("POST", "_refresh"), ("GET", "_count")):
        connection = http.client.HTTPConnection(urlsplit(opensearch).netloc, timeout=60)
        connection.request(method, f"/{index}/{path}")
        counted = json.loads(connection.getresponse().read()).get("count")
        connection.close()
    return counted


def test_many_writers_through_two_sidecars_lose_and_double_nothing(sidecars, model_dir):
    """Every event is sent twice, to both sidecars at once, in an order of each writer's own."""
    pair = [sidecars.start(FAKE, model_dir=model_dir, workers=2) for _ in range(2)]
    numbers, users = range(120), ("u1", "u2")
    everything = [event(number, user) for number in numbers for user in users]

    def write(seed):
        shuffled = random.Random(seed).sample(everything, len(everything))
        versions = {}
        for start in range(0, len(shuffled), 5):
            answer = pair[seed % 2].request("POST", EVENTS, shuffled[start:start + 5])
            assert answer.status == 200, answer.body
            assert answer.json["taken"] == len(shuffled[start:start + 5])
            for user, version in answer.json["states"].items():
                assert version >= versions.get(user, -1)
                versions[user] = version

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    for user in users:
        one, two = (shown(sidecar, user) for sidecar in pair)
        assert one == two
        assert_holds(one, numbers)
    assert logged(sidecars.opensearch, f"{sidecars.prefix}events") == len(everything)


def test_one_event_to_both_sidecars_at_once_counts_once(sidecars, model_dir):
    pair = [sidecars.start(FAKE, model_dir=model_dir, workers=1) for _ in range(2)]
    numbers = range(30)
    barrier = threading.Barrier(2)

    def write(sidecar):
        answers = []
        for number in numbers:
            barrier.wait()
            answers.append(sidecar.request("POST", EVENTS, event(number)).json)
        return answers

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(write, pair))
    assert all(answer["taken"] == 1 for half in answers for answer in half)
    assert [one["duplicates"] + two["duplicates"] for one, two in zip(*answers, strict=True)] == (
        [1] * len(numbers))
    assert_holds(shown(pair[0]), numbers)


def test_forms_codings_and_refusals_over_real_http(sidecars, model_dir):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1)
    ubi = {"action_name": "click", "client_id": "u1", "user_id": "", "application": "shop",
           "timestamp": "2025-01-02T03:10:00.000Z", "event_attributes": {
               "object": {"object_id": 4711, "object_id_field": "item_id"}, "position": {}}}
    query = {"application": "shop", "query_id": "q-1", "user_query": "milk", "client_id": "u1",
             "timestamp": "2025-01-02T03:09:00.000Z", "query_attributes": {}}
    lines = "\n".join(json.dumps(entry) for entry in (event(1), {"event": "click"}, event(2)))
    answer = sidecar.request("POST", EVENTS, gzip.compress(lines.encode()),
                             Content_Encoding="gzip", Content_Type="application/x-ndjson")
    assert answer.status == 200
    assert answer.json["taken"] == 2
    assert answer.json["refused"] == [
        {"position": 1, "reason": "user_id is missing; give user_id or client_id"}]
    assert sidecar.request("POST", "/ubi_events", [ubi]).json["taken"] == 1
    assert sidecar.request("POST", "/ubi_queries", [query]).json["taken"] == 1
    kept = [(entry["event"], entry["item_id"], entry["query"])
            for entry in shown(sidecar)["events"][::-1]]
    assert kept == [("click", "i1", None), ("click", "i2", None), ("search", None, "milk"),
                    ("click", "4711", None)]
    assert sidecar.request("GET", EVENTS).status == 405
    assert sidecar.request("POST", EVENTS, b"{").json["error"]["type"] == (
        "illegal_argument_exception")


def test_request_that_breaks_off_changes_nothing(sidecars, model_dir):
    """Its client is gone, and would send it again: what came must not count."""
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1)
    sidecar.request("POST", EVENTS, event(1))
    writer = sidecars.start(workers=1, **{"pass": "all"})
    index = f"{sidecars.prefix}events"
    line = json.dumps(event(2)).encode() + b"\n"
    write = b'{"create": {"_id": "half"}}\n{"user_id": "u1"}\n'
    for url, path, half in ((sidecar.url, EVENTS, line), (writer.url, f"/{index}/_bulk", write)):
        with socket.create_connection(urlsplit(url).netloc.split(":"), 20) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/"
                               "x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
                               + b"%x\r\n%b\r\n" % (len(half), half))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert_holds(shown(sidecar), [1])
    assert logged(sidecars.opensearch, index) == 1


def test_forgotten_user_has_no_history_for_any_sidecar(sidecars, shop, model_dir):
    one, two = (sidecars.start(FAKE, model_dir=model_dir, workers=1) for _ in range(2))
    one.request("POST", EVENTS, [event(1), event(2, "u2")])
    forgotten = two.request("DELETE", "/_personalize/users/u1?events=true")
    assert forgotten.json == {"user_id": "u1", "deleted": True, "log_entries_deleted": 1}
    assert one.request("GET", "/_personalize/users/u1").status == 404
    assert shown(one, "u2")["kept"] == 1
    searched = one.search(X_Personalize_User="u1")
    assert searched.outcome == "skipped; reason=no_history"


def test_indices_deleted_while_events_come_are_made_again_and_miss_nothing(
        sidecars, model_dir, until, ask):
    """Every event that was acknowledged after the deletion is there; a read that met it is a 503,
    and sending the event again heals."""
    pair = [sidecars.start(FAKE, model_dir=model_dir, workers=2) for _ in range(2)]
    own = [f"{sidecars.prefix}{name}" for name in ("states", "events", "queries")]
    users = ("u1", "u2", "u3", "u4")
    sent, later = dict.fromkeys(users, -1), {}

    def is_taken(sidecar, path, entry):
        answer = sidecar.request("POST", path, [entry])
        assert answer.status == 503 or answer.json["taken"] == 1, answer.body
        return answer.status == 200

    def write(user):
        for number in range(100):
            sent[user] = number
            query = {"query_id": f"q{number}", "client_id": user, "user_query": "milk",
                     "timestamp": "2025-01-02T03:09:00.000Z"}
            for path, entry in ((EVENTS, event(number, user)), ("/ubi_queries", query)):
                until(partial(is_taken, pair[number % 2], path, entry), "event was not taken")

    def delete():
        until(lambda: min(sent.values()) >= 30, "events do not come")
        assert ask(sidecars.opensearch, "DELETE", "/" + ",".join(own)).status == 200
        later.update({user: number + 1 for user, number in sent.items()})

    with ThreadPoolExecutor(len(users) + 1) as pool:
        for done in [pool.submit(delete), *(pool.submit(write, user) for user in users)]:
            done.result(300)
    for index in own:
        found = ask(sidecars.opensearch, "GET", f"/{index}/_mapping").json
        assert found[index]["mappings"]["dynamic"] == "strict"
    ask(sidecars.opensearch, "POST", f"/{own[1]}/_refresh")
    hits = ask(sidecars.opensearch, "GET", f"/{own[1]}/_search?size=1000&_source=false").ids
    for user in users:
        wanted = {f"{user}-{number}" for number in range(later[user], 100)}
        assert len(wanted) > 10
        assert wanted <= set(hits)
        assert wanted <= {entry["event_id"] for entry in shown(pair[0], user)["events"]}


def test_log_without_a_shard_takes_no_search_with_it(sidecars, shop, model_dir, until, ask):
    """Events then get nowhere; those that wait for it leave searches the threads that they need."""
    index, nowhere = f"{sidecars.prefix}events", "index.routing.allocation.require._name"
    ask(sidecars.opensearch, "PUT", f"/{index}?wait_for_active_shards=0",
        {"settings": {nowhere: "no-such-node"}})
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1, threads=4)
    with ThreadPoolExecutor(12) as pool:
        events = [pool.submit(sidecar.request, "POST", EVENTS, event(number))
                  for number in range(12)]
        until(lambda: any(future.done() for future in events), "no event was turned away", 10.0)
        assert sidecar.search(X_Personalize_User="u1").status == 200
        assert not all(future.done() for future in events)  # some wait still
        assert not wait(events, 15.0).not_done
        assert {future.result().status for future in events} == {503}
    ask(sidecars.opensearch, "PUT", f"/{index}/_settings", {nowhere: None})
    until(lambda: sidecar.request("POST", EVENTS, event(1)).status == 200, "no event is taken")


@pytest.fixture
def own_node(launcher, free_port, node_home):
    """Give the URL of a node that the test may kill, and a way to start it again."""
    port = free_port()

    def start():
        started = launcher("up", "--home", node_home, "--port", str(port), "--heap", "512m")
        assert started.returncode == 0, started.stderr
        return started.stdout.strip()

    def kill():
        os.kill(nodes_of(node_home)[0].pid(), signal.SIGKILL)

    yield start(), kill, start
    launcher("down", "--home", node_home)


@pytest.mark.timeout(900)  # it starts a node twice
def test_opensearch_killed_while_events_are_written(own_node, sidecars, model_dir):
    """What was acknowledged is there; what was not is a clear 503, and sending it again heals."""
    url, kill, start_again = own_node
    sidecars.opensearch = url
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=2, upstream_timeout_s=5)
    numbers, users = range(60), ("u1", "u2", "u3")
    failures = []
    is_under_way, is_dead, is_back = (threading.Event() for _ in range(3))

    def write(user):
        for number in numbers:
            if number == 20:
                is_under_way.set()
            while (answer := sidecar.request("POST", EVENTS, event(number, user))).status != 200:
                failures.append(answer)
                is_dead.set()
                is_back.wait(300)
                time.sleep(0.2)

    with ThreadPoolExecutor(len(users)) as pool:
        writers = [pool.submit(write, user) for user in users]
        assert is_under_way.wait(60)
        kill()
        assert is_dead.wait(60), "nobody noticed"
        start_again()
        is_back.set()
        for writer in writers:
            writer.result(300)
    assert {answer.status for answer in failures} <= {503, 504}
    assert all(answer.json["error"]["reason"] for answer in failures)
    for user in users:
        assert_holds(shown(sidecar, user), numbers)
    assert logged(url, f"{sidecars.prefix}events") == len(numbers) * len(users)
