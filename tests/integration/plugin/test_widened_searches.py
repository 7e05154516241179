"""Searches that OpenSearch can answer as the client sent them, but not as the plugin widens them:
the client gets the answer to its own, and the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http_answers import Answer, ask
from tests.integration.plugin.conftest import MAPPING, USER, Shop

MILK = {"query": {"match": {"title": "milk"}}, "size": 5}
FAILS_FOR_SOME = {"x": {"script": "if (doc['price'].value % 16 != 3.5) {throw new Exception()}"}}


@pytest.fixture
def texts(one_node: Shop) -> Iterator[str]:
    """Give an index whose items' ids are texts, as OpenSearch maps them by itself."""
    made = one_node.call("PUT", "/texts", {"settings": {"number_of_replicas": 0},
                                           "mappings": {"properties": {"price": {"type": "long"}}}})
    assert made.status == 200, made.body
    for item in ("t1", "t2"):
        row = {"item_id": item, "title": "milk", "price": 1}
        assert one_node.call("PUT", f"/texts/_doc/{item}?refresh=true", row).status == 201
    yield "texts"
    one_node.call("DELETE", "/texts")


def assert_is_the_engines(answer: Answer, expected: Answer) -> None:
    assert answer.status == 200, answer.body
    assert answer.told == {"applied": False, "reason": "upstream_error", "state": -1,
                           "model": None}
    assert answer.exact["hits"] == expected.exact["hits"]
    assert answer.json["_shards"] == expected.json["_shards"]


def test_item_field_without_doc_values_costs_the_order_and_no_search(one_node, texts):
    one_node.put_pipeline("by_field", {"item_id_field": "item_id"})
    expected = one_node.engine(MILK, f"/{texts}/_search")
    assert len(expected.ids) == 2
    before = one_node.counters()["skipped"].get("upstream_error", 0)
    assert_is_the_engines(one_node.search("by_field", MILK, f"/{texts}/_search"), expected)
    assert one_node.counters()["skipped"]["upstream_error"] == before + 1


def test_index_that_lacks_the_item_field_costs_no_hits_of_its_own(one_node, texts):
    """Its shards fail at the window and not at the page; the other index's do not."""
    one_node.put_pipeline("by_field", {"item_id_field": "item_id"})
    target = f"/{texts},narrow/_search?preference=same"
    expected = one_node.engine(MILK, target)
    assert_is_the_engines(one_node.search("by_field", MILK, target), expected)


@pytest.mark.parametrize("item_field", ["_id", "item_id"])
def test_script_that_fails_below_the_page_fails_no_search(one_node, item_field):
    one_node.put_pipeline("any", {"item_id_field": item_field})
    query = {"terms": {"item_id": [f"o{n}" for n in range(3, 160, 16)]}}
    should = [{"constant_score": {"filter": query, "boost": 9}}, {"match": {"title": "milk"}}]
    body = {"query": {"bool": {"should": should}}, "size": 5, "script_fields": FAILS_FOR_SOME}
    expected = one_node.engine(body)
    assert expected.status == 200
    assert_is_the_engines(one_node.search("any", body), expected)


def test_pipeline_in_the_body_and_strictness_hold_for_the_second_try_too(one_node, texts):
    usual = {"endpoint": one_node.sidecar, "item_id_field": "item_id"}
    inline = {"request_processors": [{"personalize": usual}],
              "response_processors": [{"personalize": usual}]}
    body = {**MILK, "ext": {"personalize": {"user_id": USER}}, "search_pipeline": inline}
    expected = one_node.engine(MILK, f"/{texts}/_search")
    assert_is_the_engines(one_node.engine(body, f"/{texts}/_search"), expected)
    one_node.put_pipeline("strict", {"item_id_field": "item_id"}, {"on_failure": "fail"})
    assert one_node.search("strict", MILK, f"/{texts}/_search").status == 503


def test_search_that_fails_in_any_case_fails_in_the_engines_words(one_node):
    one_node.put_pipeline("any")
    body = {**MILK, "script_fields": {"x": {"script": "throw new Exception()"}}}
    expected = one_node.engine(body)
    answer = one_node.search("any", body)
    assert answer.status == expected.status == 400
    assert answer.json["error"]["root_cause"] == expected.json["error"]["root_cause"]


@pytest.fixture
def far(one_node: Shop, opensearch: str, index_prefix: str) -> Iterator[str]:
    """Give an index of another cluster, which has no plugin, by the name that this one has for it;
    it allows no window as wide as the default.
    """
    index = f"{index_prefix}far"
    settings = {"number_of_replicas": 0, "max_result_window": 50}
    made = ask(opensearch, "PUT", f"/{index}", {"settings": settings, "mappings": MAPPING})
    assert made.status == 200, made.body
    for number in range(10):
        row = {"item_id": f"o{number}", "title": "milk"}
        ask(opensearch, "PUT", f"/{index}/_doc/o{number}?refresh=true", row)
    nodes = ask(opensearch, "GET", "/_nodes/transport").json["nodes"].values()
    _remote(one_node, [node["transport_address"] for node in nodes])
    yield f"far:{index}"
    _remote(one_node, None)


def _remote(shop: Shop, seeds: list[str] | None) -> None:
    settings = {"persistent": {"cluster.remote.far.seeds": seeds}}
    made = shop.call("PUT", "/_cluster/settings", settings)
    assert made.status == 200, made.body


@pytest.mark.parametrize("trips", ["true", "false"])
def test_remote_index_is_reordered_for_a_user_whom_ubi_names(one_node, far, trips):
    one_node.put_pipeline("by_field", {"item_id_field": "item_id"})
    body = {**MILK, "ext": {"ubi": {"client_id": USER}}}
    target = f"/{far}/_search?ccs_minimize_roundtrips={trips}"
    answer = one_node.search("by_field", body, target, user_id=None, window_size=50)
    assert answer.status == 200, answer.body
    assert answer.told["applied"]
    assert answer.json["_shards"]["failed"] == 0


@pytest.mark.parametrize("trips", ["true", "false"])
def test_remote_index_that_allows_no_such_window_keeps_its_order(one_node, far, trips):
    one_node.put_pipeline("by_field", {"item_id_field": "item_id"})
    target = f"/{far}/_search?ccs_minimize_roundtrips={trips}"
    assert_is_the_engines(one_node.search("by_field", MILK, target), one_node.engine(MILK, target))


def test_window_is_no_wider_than_the_indices_here_allow_though_others_are_elsewhere(one_node, far):
    one_node.put_pipeline("by_field", {"item_id_field": "item_id"})
    answer = one_node.search("by_field", MILK, f"/narrow,{far}/_search")
    assert answer.told["applied"]
    assert answer.json["_shards"]["failed"] == 0
