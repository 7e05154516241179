"""What ``/metrics`` and the log say of searches: each counted once, as its answer tells."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from sidecar.errors import ClientGone, UpstreamTimeout, UpstreamUnavailable
from sidecar.records import (
    History,
    HttpRequest,
    HttpResponse,
    QueryContext,
    Ranking,
    StreamedResponse,
    UserState,
)
from sidecar.search.targets import Endpoint
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.search_path import SearchPath
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.in_memory import MemoryStateStore

PAGE = b'{"query":{"match_all":{}},"size":10}'
JSON = ("Content-Type", "application/json")
COUNT = 100


class Reversing:
    """A ranker that turns the engine's order round."""

    version = "v1"
    items = ()

    def rank(self, candidates, state, context):
        count = len(candidates)
        return Ranking(np.arange(count)[::-1].copy(), np.arange(count, dtype=np.float32), {},
                       (("click of d1, 2 days ago",),) * count, state.version, self.version)

    def prepare(self, state):
        pass

    def advance(self, hidden, events):
        return np.zeros((1, 2), np.float32)


class Exchange:
    """An answer that is there already."""

    def __init__(self, response: HttpResponse) -> None:
        self.response = response

    def result(self) -> HttpResponse:
        return self.response

    def stream(self) -> StreamedResponse:
        told = self.response
        return StreamedResponse(told.status, told.headers, iter([told.body]))


class Scripted:
    """An OpenSearch that answers as a function of the request and its number says."""

    def __init__(self, answer: Callable[[HttpRequest, int], HttpResponse]) -> None:
        self.answer = answer
        self.asked: list[HttpRequest] = []

    def begin(self, request: HttpRequest, **_: Any) -> Exchange:
        self.asked.append(request)
        return Exchange(self.answer(request, len(self.asked)))


def states() -> MemoryStateStore:
    store = MemoryStateStore()
    store.put_many([UserState("u", History(("d1",), ("click",), (1.0,), (None,), ("e",)),
                              np.zeros((1, 2), np.float32), "v1", 1)])
    return store


def path_over(answer: Callable[[HttpRequest, int], HttpResponse], **settings: Any) -> SearchPath:
    chosen, ranker = Settings(**{"timeout_ms": 5000, **settings}), Reversing()
    personalizer = Personalizer(chosen, states(), lambda: ranker, Telemetry())
    return SearchPath(chosen, Scripted(answer), personalizer)


def search(body: bytes = PAGE, target: str = "/i/_search") -> HttpRequest:
    return HttpRequest("POST", target, (JSON, ("X-Personalize-User", "u")), body)


def body_of(hits: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"took": 1, "timed_out": False,
            "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {"total": {"value": COUNT, "relation": "eq"}, "max_score": 100.0,
                     "hits": hits}, **more}


def answered(body: dict[str, Any]) -> HttpResponse:
    return HttpResponse(200, (JSON,), json.dumps(body).encode())


def whole_hits() -> list[dict[str, Any]]:
    return [{"_index": "i", "_id": f"d{k}", "_score": 100.0 - k} for k in range(COUNT)]


def whole(request: HttpRequest, number: int) -> HttpResponse:
    return answered(body_of(whole_hits()))


def each_line(request: HttpRequest, number: int) -> HttpResponse:
    lines = len([line for line in request.body.split(b"\n") if line.strip()]) // 2
    return answered({"took": 1, "responses": [body_of(whole_hits(), status=200)] * lines})


def refreshed_in_between(request: HttpRequest, number: int) -> HttpResponse:
    """Ids first, then the page's hits; their scores have changed when these are first asked for."""
    asked = json.loads(request.body)
    if asked.get("stored_fields") == "_none_":
        return answered(body_of([
            {"_index": "i", "_score": 100.0 - k, "fields": {"item_id": [f"d{k}"]}, "_seq_no": k,
             "_primary_term": 1} for k in range(COUNT)]))
    shift = 0.5 if number == 2 else 0.0
    return answered(body_of([
        {"_index": "i", "_id": item, "_score": 100.0 - int(item[1:]) + shift, "_source": {},
         "_seq_no": int(item[1:]), "_primary_term": 1}
        for item in asked["query"]["bool"]["filter"][0]["ids"]["values"]]))


@pytest.fixture
def counted() -> Callable[[], dict[str, float]]:
    """Tell by how much each outcome's counter grew since the test began."""
    before = counters()
    return lambda: {word: value - before.get(word, 0.0) for word, value in counters().items()
                    if value != before.get(word, 0.0)}


def counters() -> dict[str, float]:
    return {sample.labels["reason"] or sample.labels["status"]: sample.value
            for metric in REGISTRY.collect() if metric.name == "personalize_searches"
            for sample in metric.samples if sample.name.endswith("_total")}


def status_of(reply: HttpResponse | StreamedResponse) -> str:
    return dict(reply.headers)["X-Personalize-Status"]


def test_search_that_is_begun_anew_is_counted_once(counted):
    reply = path_over(refreshed_in_between).answer(Endpoint.SEARCH, search())
    assert status_of(reply) == "applied"
    assert counted() == {"applied": 1}


def test_search_that_is_skipped_after_its_ranking_is_counted_as_it_is_told(counted):
    reply = path_over(whole).answer(
        Endpoint.SEARCH, search(target="/i/_search?filter_path=hits.hits._source"))
    assert status_of(reply) == "skipped; reason=filter_path"
    assert counted() == {"filter_path": 1}


@pytest.mark.parametrize(("body", "word"), [
    (PAGE, "applied"), (b'{"sort":["price"]}', "sort"), (b'{"size":0}', "size_zero")])
def test_each_search_is_counted_once_with_its_reason(counted, body, word):
    path_over(whole).answer(Endpoint.SEARCH, search(body))
    assert counted() == {word: 1}


def timed() -> dict[str, float]:
    return {sample.labels["stage"]: sample.value
            for metric in REGISTRY.collect() if metric.name == "personalize_stage_seconds"
            for sample in metric.samples if sample.name.endswith("_count")}


def test_what_is_no_search_is_neither_counted_nor_timed(counted):
    before = timed()
    path_over(whole).other(HttpRequest("GET", "/_cat/indices"))
    assert counted() == {}
    assert timed() == before


def test_search_is_timed_in_each_stage():
    before = timed()
    path_over(whole).answer(Endpoint.SEARCH, search())
    assert timed() == {stage: count + 1 for stage, count in before.items()}


def lines(*searches: bytes) -> HttpRequest:
    return search(b"".join(b'{"index":"i"}\n' + body + b"\n" for body in searches), "/_msearch")


def test_each_line_of_a_multi_search_is_counted_with_its_own_reason(counted):
    reply = path_over(each_line).answer(
        Endpoint.MULTI_SEARCH, lines(PAGE, b'{"sort":["price"]}', b'{"size":0}', PAGE))
    assert status_of(reply) == "applied"
    assert counted() == {"applied": 2, "sort": 1, "size_zero": 1}


def test_lines_of_a_multi_search_that_passes_through_are_counted_too(counted):
    reply = path_over(each_line).answer(
        Endpoint.MULTI_SEARCH, lines(b'{"sort":["price"]}', b'{"size":0}', b'{"size":0}'))
    assert status_of(reply) == "skipped; reason=sort"
    assert counted() == {"sort": 1, "size_zero": 2}


@pytest.mark.parametrize(("answer", "word"), [
    (answered({"took": 1, "responses": []}), "no_ids"),
    (HttpResponse(400, (JSON,), b"{}"), "upstream_error")])
def test_multi_search_that_cannot_be_taken_apart_counts_each_line(counted, answer, word):
    reply = path_over(lambda *_: answer).answer(
        Endpoint.MULTI_SEARCH, lines(b'{"sort":["price"]}', PAGE, PAGE))
    assert status_of(reply) == f"skipped; reason={word}"
    assert counted() == {"sort": 1, word: 2}


def test_line_that_cannot_be_written_leaves_no_other_counted_as_applied(counted):
    """The whole request then passes through, lines that were ordered already among it."""
    good = json.dumps(body_of(whole_hits(), status=200)).encode()
    twice = b'{"took":1,' + good[1:]  # a key that stands twice, and another score to be put in
    odd = HttpResponse(200, (JSON,), b'{"responses":[' + good + b"," + twice + b"]}")
    reply = path_over(lambda *_: odd, rewrite_scores=True).answer(
        Endpoint.MULTI_SEARCH, lines(PAGE, PAGE))
    assert status_of(reply) == "skipped; reason=no_ids"
    assert counted() == {"no_ids": 2}


WITHOUT_IDS = b'{"stored_fields":"_none_"}'


def each_line_as_asked(request: HttpRequest, number: int) -> HttpResponse:
    """Answer each line with as many hits as it asks for; none has the doc value for its id."""
    responses: list[dict[str, Any]] = []
    for line in request.body.split(b"\n")[1::2]:
        asked = json.loads(line)
        hits = whole_hits()[:asked.get("size", 10)]
        if "stored_fields" in asked:
            hits = [{"_index": "i", "_score": hit["_score"]} for hit in hits]
        responses.append(body_of(hits, status=200))
    return answered({"took": 1, "responses": responses})


def test_line_without_ids_takes_no_other_lines_order_away(counted):
    path = path_over(each_line_as_asked)
    reply = path.answer(Endpoint.MULTI_SEARCH, lines(PAGE, WITHOUT_IDS, PAGE))
    assert status_of(reply) == "applied"
    assert counted() == {"applied": 2, "no_ids": 1}
    shown = [[hit.get("_id") for hit in answer["hits"]["hits"]]
             for answer in json.loads(reply.body)["responses"]]
    ordered = [f"d{number}" for number in range(99, 89, -1)]
    assert shown == [ordered, [None] * 10, ordered]


def test_line_without_ids_alone_is_asked_for_again_in_its_own_words(counted):
    upstream = Scripted(each_line_as_asked)
    chosen, ranker = Settings(timeout_ms=5000), Reversing()
    path = SearchPath(chosen, upstream, Personalizer(chosen, states(), lambda: ranker,
                                                     Telemetry()))
    path.answer(Endpoint.MULTI_SEARCH, lines(PAGE, WITHOUT_IDS))
    first, second = [request.body.split(b"\n")[1::2] for request in upstream.asked]
    assert [json.loads(line)["size"] for line in first] == [100, 100]
    assert second == [WITHOUT_IDS]


def test_line_that_cannot_be_asked_for_whole_takes_no_other_lines_order_away(counted):
    """Its suggestions would show the doc value that stands for an id."""
    suggesting = (b'{"stored_fields":"_none_","suggest":{"s":{"prefix":"m","completion":'
                  b'{"field":"t"}}}}')
    reply = path_over(each_line_as_asked).answer(
        Endpoint.MULTI_SEARCH, lines(PAGE, suggesting))
    assert status_of(reply) == "applied"
    assert counted() == {"applied": 1, "no_ids": 1}


def test_fewer_answers_to_what_is_asked_again_let_the_whole_pass(counted):
    def answer(request: HttpRequest, number: int) -> HttpResponse:
        return each_line_as_asked(request, number) if number != 2 else answered({"responses": []})

    reply = path_over(answer).answer(Endpoint.MULTI_SEARCH, lines(PAGE, WITHOUT_IDS))
    assert status_of(reply) == "skipped; reason=no_ids"
    assert counted() == {"no_ids": 2}


def test_refusal_that_is_known_at_once_is_logged_as_any_other(caplog):
    chosen, ranker = Settings(timeout_ms=5000, max_searches=1), Reversing()
    personalizer = Personalizer(chosen, states(), lambda: ranker, Telemetry())
    under_way = personalizer.begin(QueryContext("u", "milk", 1.0))  # takes the only slot
    path = SearchPath(chosen, Scripted(whole), personalizer)
    with caplog.at_level(logging.WARNING, "sidecar"):
        assert status_of(path.answer(Endpoint.SEARCH, search())) == "skipped; reason=overload"
    under_way.cancel()
    assert [(r.levelname, r.reason) for r in caplog.records] == [("WARNING", "overload")]


def raises(error: Exception) -> Callable[[HttpRequest, int], HttpResponse]:
    def answer(request: HttpRequest, number: int) -> HttpResponse:
        raise error
    return answer


@pytest.mark.parametrize("error", [UpstreamUnavailable("gone"), UpstreamTimeout("slow")])
@pytest.mark.parametrize(("kind", "request_of", "count"), [
    (Endpoint.SEARCH, search(), 1), (Endpoint.SEARCH, search(b'{"sort":["price"]}'), 1),
    (Endpoint.MULTI_SEARCH, lines(PAGE, b'{"size":0}', PAGE), 3),
    (Endpoint.TEMPLATE, search(b'{"source":"{}"}', "/i/_search/template"), 1)])
def test_search_without_an_answer_of_opensearchs_is_counted(counted, error, kind, request_of,
                                                            count):
    with pytest.raises(type(error)):
        path_over(raises(error)).answer(kind, request_of)
    assert counted() == {"upstream_error": count}


def test_search_whose_client_hung_up_is_not_counted(counted):
    with pytest.raises(ClientGone):
        path_over(raises(ClientGone("gone"))).answer(Endpoint.SEARCH, search())
    assert counted() == {}


@pytest.mark.parametrize(("secret", "header", "sent", "told"), [
    ("", "Authorization", "Basic of OpenSearch", True),
    ("Bearer s", "Authorization", "Basic of OpenSearch", False),
    ("Bearer s", "X-Personalize-Authorization", "Bearer t", False),
    ("Bearer s", "Authorization", "Bearer s", True),
    ("Bearer s", "X-Personalize-Authorization", "Bearer s", True)])
def test_what_a_shopper_did_is_told_to_whoever_may_read_states(secret: str, header: str, sent: str,
                                                               told: bool) -> None:
    """A secret guards states: no search that names a user's id goes round it."""
    asked: list[HttpRequest] = []

    def answer(request: HttpRequest, number: int) -> HttpResponse:
        asked.append(request)
        return whole(request, number)

    path = path_over(answer, admin_authorization=secret)
    body = b'{"size":2,"ext":{"personalize":{"user_id":"u","explain":true}}}'
    reply = path.answer(Endpoint.SEARCH, replace(search(body), headers=(JSON, (header, sent))))
    entry = json.loads(reply.body)["ext"]["personalize"]["hits"][0]
    assert (entry["rank"], entry["engine_rank"]) == (1, 100)
    assert entry["events"] == (["click of d1, 2 days ago"] if told else [])
    assert not any(name.startswith("X-P") for name, _ in asked[0].headers)
