"""Starting, reloading, stopping, and an OpenSearch that dies or hangs, with real processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

FAKE = "fake_model:application()"
MILK = {"match": {"title": "milk"}}
RESCORE = {"user_id": "u1", "query": "milk", "hits": [{"id": "p0", "score": 2.0},
                                                      {"id": "p7", "score": 1.0}]}
RELOAD_S = 300.0  # workers import their libraries beside searches; the handover gives up at 120


class Shoppers:
    """Search on kept-alive connections while entered; remember what went wrong."""

    def __init__(self, sidecar, count):
        self.sidecar, self.answers, self.errors = sidecar, [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._shop) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _shop(self):
        connection = http.client.HTTPConnection(urlsplit(self.sidecar.url).netloc, timeout=30)
        body = json.dumps({"query": MILK})
        while not self._stop.is_set():
            try:
                connection.request("POST", f"/{self.sidecar.index}/_search", body,
                                   {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
                self.answers.append(response.status)
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection.close()
            time.sleep(0.02)  # so that the new workers have the cores to start on
        connection.close()


def test_reload_replaces_the_workers_without_a_failed_search(sidecars, shop, model_dir, until):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=2)
    old = children(sidecar.process.pid)
    with Shoppers(sidecar, 4) as shoppers:
        until(lambda: len(shoppers.answers) > 20, "nobody is served")
        sidecar.process.send_signal(signal.SIGHUP)
        until(lambda: are_replaced(sidecar, old), "workers were not replaced", RELOAD_S)
        answered = len(shoppers.answers)
        until(lambda: len(shoppers.answers) > answered + 20, "nobody is served any more")
    assert shoppers.errors == []
    assert set(shoppers.answers) == {200}


def test_old_workers_serve_until_the_new_ones_have_loaded_the_model(
        sidecars, shop, model_dir, new_model, until):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=2)
    until(lambda: sidecar.log.count("model in use") == 2, "one does not serve, and may leave")
    old = children(sidecar.process.pid)
    (model_dir / "hold").touch()
    sidecar.process.send_signal(signal.SIGHUP)
    until(lambda: len(children(sidecar.process.pid)) == 4, "no new workers were started")
    for _ in range(20):
        assert sidecar.search(MILK).status == 200
    assert old < children(sidecar.process.pid)
    (model_dir / "hold").unlink()
    until(lambda: are_replaced(sidecar, old), "workers were not replaced", RELOAD_S)
    assert sidecar.search(MILK).status == 200


def test_stop_during_a_reload_does_not_wait_for_the_new_workers(
        sidecars, shop, model_dir, new_model, until):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1)
    (model_dir / "loading").unlink()
    (model_dir / "hold").touch()
    sidecar.process.send_signal(signal.SIGHUP)
    until((model_dir / "loading").exists, "no new worker was started")
    workers = children(sidecar.process.pid)
    assert sidecar.stop(within_s=30.0) == 0  # gunicorn's reload alone takes longer
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)


def test_stop_does_not_wait_for_workers_that_load(sidecars, model_dir, new_model, until):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1)
    (model_dir / "loading").unlink()
    (model_dir / "hold").touch()
    for worker in children(sidecar.process.pid):
        os.kill(worker, signal.SIGKILL)
    until((model_dir / "loading").exists, "worker was not replaced")
    assert sidecar.stop(within_s=30.0) == 0  # after which gunicorn kills


def test_stop_answers_what_is_under_way(sidecars, shop, model_dir, new_model):
    new_model(model_dir, version="slow", delay_s=0.5)
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1, timeout_ms=5000)
    sidecar.request("POST", "/_personalize/events",
                    {"user_id": "u1", "item_id": "p7", "event": "click"})
    answers = []
    searches = [threading.Thread(target=lambda: answers.append(
        sidecar.search(MILK, X_Personalize_User="u1"))) for _ in range(4)]
    for search in searches:
        search.start()
    time.sleep(0.2)
    assert sidecar.stop() == 0
    for search in searches:
        search.join()
    assert [answer.outcome for answer in answers] == ["applied"] * 4


def test_rush_is_let_through_unpersonalised_rather_than_kept_waiting(
        sidecars, shop, model_dir, new_model):
    new_model(model_dir, version="slow", delay_s=0.4)
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1, threads=2, timeout_ms=1000)
    sidecar.request("POST", "/_personalize/events",
                    {"user_id": "u1", "item_id": "p7", "event": "click"})
    answers = []
    searches = [threading.Thread(target=lambda: answers.append(
        sidecar.search(MILK, X_Personalize_User="u1"))) for _ in range(40)]
    for search in searches:
        search.start()
    for search in searches:
        search.join()
    assert {answer.status for answer in answers} == {200}
    assert {answer.outcome for answer in answers} == {"applied", "skipped; reason=overload"}
    assert sidecar.search(MILK, X_Personalize_User="u1").status == 200


def test_stopped_sidecar_leaves_no_process_and_no_metrics_folder(
        sidecars, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    sidecar = sidecars.start(workers=2)
    workers = children(sidecar.process.pid)
    assert list(tmp_path.glob("personalize-metrics-*"))
    assert sidecar.stop() == 0
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    assert not list(tmp_path.glob("personalize-metrics-*"))


def test_full_disk_ends_no_worker_and_not_the_master(
        full_disk, sidecars, shop, model_dir, monkeypatch, until):
    monkeypatch.setenv("TMPDIR", str(full_disk))
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1)
    assert sidecar.search(MILK).status == 200
    worker = children(sidecar.process.pid).pop()
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in children(sidecar.process.pid)
          and sidecar.search(MILK).status == 200, "worker was not replaced")
    assert b"personalize_searches_total" in sidecar.request("GET", "/metrics").body
    assert "SIGBUS" not in sidecar.log
    assert sidecar.stop() == 0


def test_folders_of_a_killed_sidecar_go_at_the_next_start_and_those_in_use_stay(
        sidecars, tmp_path, monkeypatch, until):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    killed, running = sidecars.start(workers=1), sidecars.start(workers=1)
    workers = children(killed.process.pid)
    assert len(list(tmp_path.glob("personalize-*"))) == 4  # the items and the metrics of each
    os.kill(killed.process.pid, signal.SIGKILL)
    until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers),
          "workers outlived their master", RELOAD_S)
    assert len(list(tmp_path.glob("personalize-*"))) == 4
    sidecars.start(workers=1)
    assert len(list(tmp_path.glob("personalize-*"))) == 4
    assert running.request("GET", "/metrics").status == 200


@pytest.mark.parametrize(("environ", "arguments", "said"), [
    ({"SIDECAR_WINDOW": "0"}, [], "SIDECAR_WINDOW is 0, must be 1-10000"),
    ({"SIDECAR_WIDNOW": "5"}, [], "SIDECAR_WIDNOW is not a setting"),
    ({}, ["--workers", "many"], "SIDECAR_WORKERS is 'many'"),
    ({}, ["--opensearch", "localhost:9200"], "must be http://host:port or https://"),
    ({"SIDECAR_OPENSEARCH_CA": "/absent.pem"}, [], "cannot be read as PEM"),
    ({"SIDECAR_SHARED_DIR": "/absent"}, [], "SIDECAR_SHARED_DIR is '/absent', must be a folder"),
    ({}, ["--listen", "127.0.0.1:99999"], "must have a port of at most 65535"),
])
def test_misuse_is_one_line_and_exit_code_2(environ, arguments, said):
    done = subprocess.run([sys.executable, "-m", "scripts.serve", *arguments], check=False,
                          env=os.environ | environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def own_node(launcher, free_port, node_home):
    """Start a node that the test may hurt; return its URL and process id."""
    port = free_port()
    started = launcher("up", "--home", node_home, "--port", str(port), "--heap", "512m")
    assert started.returncode == 0, started.stderr
    yield started.stdout.strip(), listener(port)
    launcher("down", "--home", node_home)


def test_opensearch_that_hangs_or_dies_costs_no_more_than_its_deadlines(
        own_node, sidecars, model_dir, until, request):
    """SIGSTOP leaves connections open and unanswered; SIGKILL refuses new ones."""
    url, pid = own_node
    sidecars.opensearch = url
    request.getfixturevalue("fill")(url, f"{sidecars.prefix}products")
    sidecar = sidecars.start(FAKE, model_dir=model_dir, upstream_timeout_s=1, timeout_ms=100)
    until(lambda: sidecar.request("POST", "/_personalize/events", {
        "event_id": "e1", "user_id": "u1", "item_id": "p7", "event": "click"}).status == 200,
        "event was not taken")
    until(lambda: sidecar.request("POST", "/_personalize/rescore", RESCORE).json["order"] == [1, 0],
          "order was not personal")

    os.kill(pid, signal.SIGSTOP)
    try:
        rescored = sidecar.request("POST", "/_personalize/rescore", RESCORE)
        assert (rescored.json["reason"], rescored.json["order"]) == ("timeout", [0, 1])
        searched = sidecar.search(MILK, X_Personalize_User="u1")
        assert searched.status == 504
        assert searched.json["status"] == 504
        assert sidecar.ready().status == 503
        assert sidecar.request("GET", "/_personalize/health/live").status == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: sidecar.search(MILK, X_Personalize_User="u1").outcome == "applied",
          "search did not recover")

    os.kill(pid, signal.SIGKILL)
    until(lambda: sidecar.search(MILK).status == 503, "death of the node was not noticed")
    rescored = sidecar.request("POST", "/_personalize/rescore", RESCORE)
    assert rescored.json["reason"] == "state_unavailable"
    taken = sidecar.request("POST", "/_personalize/events",
                            {"user_id": "u1", "item_id": "p8", "event": "click"})
    assert taken.status == 503
    assert taken.json["status"] == 503
    assert not sidecar.ready().json["opensearch"]["reachable"]
    assert "u1" not in sidecar.log


def are_replaced(sidecar, old):
    """Return True once two workers run and none of the old ones does."""
    now = children(sidecar.process.pid)
    return len(now) == 2 and not old & now


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return set(map(int, file.read().split()))


def listener(port):
    """Return the process that listens on a port of this machine."""
    from scripts._bench_processes import ProcessGroup

    (pid,) = ProcessGroup(f"http://127.0.0.1:{port}").roots
    return pid
