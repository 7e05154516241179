"""A search whose order a shopper's own behaviour changed, and what happens when parts fail."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

FAKE = "fake_model:application()"
MILK = {"match": {"title": "milk"}}


def click(item_id, user_id="u1"):
    return {"user_id": user_id, "item_id": item_id, "event": "click"}


def test_acknowledged_event_changes_the_next_search_through_another_sidecar(
        sidecars, shop, model_dir):
    """No sleep and no refresh in between: the state is read by id, whoever wrote it."""
    one = sidecars.start(FAKE, model_dir=model_dir)
    two = sidecars.start(FAKE, model_dir=model_dir)
    before = two.search(MILK, X_Personalize_User="u1")
    assert before.ids == ["p0", "p1", "p2", "p3", "p4"]
    assert before.outcome == "skipped; reason=no_history"
    for item in ("p7", "p9", "p3"):
        taken = one.request("POST", "/_personalize/events", click(item))
        assert taken.status == 200, taken.body
        version = taken.json["states"]["u1"]
        after = two.search(MILK, X_Personalize_User="u1", X_Personalize_State=str(version))
        assert after.outcome == "applied"
        assert int(after.headers["X-Personalize-State"]) >= version
        assert after.ids[0] == item
    assert after.ids == ["p3", "p9", "p7", "p0", "p1"]


def test_other_shoppers_and_switched_off_searches_are_left_alone(sidecars, shop, model_dir):
    sidecar = sidecars.start(FAKE, model_dir=model_dir)
    sidecar.request("POST", "/_personalize/events", click("p7"))
    engine = ["p0", "p1", "p2", "p3", "p4"]
    for headers, reason in (({}, "anonymous"), ({"X_Personalize_User": "u2"}, "no_history"),
                            ({"X_Personalize_User": "u1", "X_Personalize": "off"}, "disabled")):
        answer = sidecar.search(MILK, **headers)
        assert answer.ids == engine
        assert answer.outcome == f"skipped; reason={reason}"


def test_state_that_is_not_there_yet_is_not_passed_over(sidecars, shop, model_dir):
    sidecar = sidecars.start(FAKE, model_dir=model_dir)
    sidecar.request("POST", "/_personalize/events", click("p7"))
    answer = sidecar.search(MILK, X_Personalize_User="u1", X_Personalize_State="100000")
    assert answer.outcome == "skipped; reason=state_behind"
    assert answer.ids[0] == "p0"


def test_missing_model_keeps_engine_order_and_is_not_ready(sidecars, shop, tmp_path):
    sidecar = sidecars.start(model_dir=tmp_path / "none")
    answer = sidecar.search(MILK, X_Personalize_User="u1")
    assert answer.status == 200
    assert answer.ids[0] == "p0"
    assert answer.outcome == "skipped; reason=no_model"
    ready = sidecar.ready()
    assert ready.status == 503
    assert str(tmp_path / "none") in ready.json["model"]["error"]
    assert ready.json["opensearch"] == {"reachable": True, "error": None}


def test_sidecar_without_a_configured_model_is_ready_and_passes_through(sidecars, shop):
    sidecar = sidecars.start()
    assert sidecar.ready().status == 200
    assert sidecar.search(MILK, X_Personalize_User="u1").outcome == "skipped; reason=no_model"


def test_new_model_takes_over_without_a_failed_or_unpersonal_search(
        sidecars, shop, model_dir, new_model, until):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1)
    sidecar.request("POST", "/_personalize/events", click("p7"))
    answers, stop = [], threading.Event()

    def search():
        while not stop.is_set():
            answers.append(sidecar.search(MILK, X_Personalize_User="u1"))

    shopper = threading.Thread(target=search)
    shopper.start()
    new_model(model_dir, version="v2")
    until(lambda: sidecar.ready().json["model"]["version"] == "v2", "model was not swapped")
    stop.set()
    shopper.join()
    assert {answer.status for answer in answers} == {200}
    assert {answer.outcome for answer in answers} == {"applied"}
    assert {answer.ids[0] for answer in answers} == {"p7"}


def test_state_of_the_old_model_is_written_back_for_the_new_one(
        sidecars, shop, model_dir, new_model, until):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1)
    sidecar.request("POST", "/_personalize/events", click("p7"))
    new_model(model_dir, version="v2")
    until(lambda: sidecar.ready().json["model"]["version"] == "v2", "model was not swapped")
    assert sidecar.search(MILK, X_Personalize_User="u1").ids[0] == "p7"
    until(lambda: sidecar.request("GET", "/_personalize/users/u1").json["model_version"] == "v2",
          "state was not written back")


def test_broken_model_leaves_the_old_one_and_shows(sidecars, shop, model_dir, new_model, until):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1)
    sidecar.request("POST", "/_personalize/events", click("p7"))
    new_model(model_dir, version="v2", weights="real")
    until(lambda: sidecar.ready().json["model"]["error"] is not None, "model was not refused")
    ready = sidecar.ready()
    assert ready.status == 200
    assert ready.json["model"]["version"] == "v1"
    assert sidecar.search(MILK, X_Personalize_User="u1").ids[0] == "p7"
    assert 'model refused model_dir=' in sidecar.log
    new_model(model_dir, version="v3")
    until(lambda: sidecar.ready().json["model"] == {
        "configured": True, "version": "v3", "items": sidecar.ready().json["model"]["items"],
        "error": None}, "mended model was not taken")


def test_slow_ranking_costs_its_deadline_and_no_more(sidecars, shop, model_dir, new_model):
    new_model(model_dir, version="slow", delay_s=2.0)
    sidecar = sidecars.start(FAKE, model_dir=model_dir, timeout_ms=60)
    sidecar.request("POST", "/_personalize/events", click("p7"))
    answer = sidecar.search(MILK, X_Personalize_User="u1")
    assert answer.outcome == "skipped; reason=timeout"
    assert answer.ids[0] == "p0"
    assert "search not personalised reason=timeout" in sidecar.log
    assert "u1" not in sidecar.log
    assert "milk" not in sidecar.log


def test_page_from_kept_hits_is_the_same_and_a_written_product_shows_at_once(
        sidecars, shop, model_dir, opensearch, ask, until):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=1, refresh_s=0.2)
    sidecar.request("POST", "/_personalize/events", click("p7"))

    def search():
        return sidecar.search(MILK, X_Personalize_User="u1")

    first = search()
    pages = [search() for _ in range(20)]
    until(lambda: pages.append(search()) or len(pages) > 60, "searches ended early")
    assert {page.body.partition(b'"hits":')[2] for page in pages} == {
        first.body.partition(b'"hits":')[2]}
    assert {page.outcome for page in pages} == {"applied"}
    written = ask(opensearch, "PUT", f"/{shop}/_doc/p7?refresh=true",
                   {"item_id": "p7", "title": "milk " + "white " * 7, "price": 2.5})
    assert written.status == 200
    source = search().json["hits"]["hits"][0]["_source"]
    assert (source["item_id"], source["price"]) == ("p7", 2.5)


def test_metrics_add_up_over_workers_and_name_no_shopper(sidecars, shop, model_dir):
    sidecar = sidecars.start(FAKE, model_dir=model_dir, workers=2)
    sidecar.request("POST", "/_personalize/events", [click("p7"), {"user_id": "u1"}])
    for _ in range(20):
        sidecar.search(MILK, X_Personalize_User="u1")
    sidecar.search(MILK)
    text = sidecar.request("GET", "/metrics").body.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['personalize_searches_total{reason="",status="applied"}']) == 20
    assert float(values['personalize_searches_total{reason="anonymous",status="skipped"}']) == 1
    assert float(values['personalize_events_total{outcome="taken"}']) == 1
    assert float(values['personalize_events_total{outcome="refused"}']) == 1
    assert float(values['personalize_model_info{version="v1"}']) == 1
    assert float(values['personalize_stage_seconds_count{stage="rank"}']) == 20
    assert "u1" not in text


def test_what_never_reaches_the_application_is_counted_too(sidecars):
    sidecar = sidecars.start(workers=1, admin_authorization="Bearer s")
    assert sidecar.request("GET", "/_personalize/users/u1").status == 401
    for sent in (b"what?\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000):
        with socket.create_connection(urlsplit(sidecar.url).netloc.split(":"), 20) as connection:
            connection.sendall(sent)
            assert connection.recv(65536).startswith(b"HTTP/1.1 4")
    text = sidecar.request("GET", "/metrics").body.decode()
    assert 'personalize_refused_requests_total{reason="unauthorized"} 1.0' in text
    assert 'personalize_refused_requests_total{reason="bad_request"} 2.0' in text


def test_long_waits_of_others_leave_searches_their_threads(sidecars, shop, until):
    sidecar = sidecars.start(workers=1, threads=4)
    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(sidecar.request, "GET",
                             "/_cluster/health?wait_for_nodes=9&timeout=15s") for _ in range(8)]
        until(lambda: any(wait.done() for wait in waits), "no request was turned away", 10.0)
        assert sidecar.search(MILK).status == 200
        assert sidecar.request("GET", "/_personalize/health/live").status == 200
        assert not all(wait.done() for wait in waits)
        answers = [wait.result() for wait in waits]
    assert sorted(answer.status for answer in answers) == [408] * 3 + [429] * 5
    assert {answer.headers.get("Retry-After") for answer in answers} == {None, "1"}


def test_worker_says_that_it_lives_while_opensearch_hangs(sidecars):
    with socket.create_server(("127.0.0.1", 0)) as hung, ThreadPoolExecutor(6) as pool:
        sidecars.opensearch = f"http://127.0.0.1:{hung.getsockname()[1]}"
        sidecar = sidecars.start(workers=1, threads=2, upstream_timeout_s=3)
        searches = [pool.submit(sidecar.search) for _ in range(6)]
        held = take_searches(hung, 2)
        for path in ("/_personalize/health/live", "/metrics"):
            assert sidecar.request("GET", path).status == 200
        assert not any(search.done() for search in searches)
        assert {search.result().status for search in searches} == {504}
    for connection in held:
        connection.close()


def take_searches(server, count):
    """Take connections until so many searches have come; return them all, none answered."""
    taken = []
    while count:
        taken.append(server.accept()[0])
        count -= b"/_search" in taken[-1].recv(65536)
    return taken
