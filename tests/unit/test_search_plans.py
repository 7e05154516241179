"""What a request asks for, read from the request alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ControlError
from sidecar.records import HttpRequest, SkipReason
from sidecar.search import fetches
from sidecar.search.plans import SearchPlan, Window, plan_search, with_smaller_window
from sidecar.settings import Settings

SETTINGS = Settings()
MILK = {"match": {"title": "milk"}}


def plan(body: Any = None, parameters: str = "", settings: Settings = SETTINGS,
         **headers: str) -> SearchPlan:
    text = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    sent = tuple({"X-Personalize-User": "u1", "Content-Type": "application/json",
                  **{name.replace("_", "-"): value for name, value in headers.items()}}.items())
    return plan_search(HttpRequest("POST", f"/i/_search{parameters}", sent, text), settings, 1.0)


def sent(request: HttpRequest) -> Any:
    assert isinstance(request.body, bytes)
    return json.loads(request.body)


@pytest.mark.parametrize(("body", "parameters", "window"), [
    ({}, "", (0, 10, 100)), ({"from": 20, "size": 5}, "", (20, 5, 100)),
    ({"from": 20, "size": 5}, "?from=3&size=4", (3, 4, 100)), ({"size": "7"}, "", (0, 7, 100)),
    ({"size": 4.9}, "", (0, 4, 100)), ({}, "?size=3&size=4", (0, 4, 100)),
    ({}, "?pretty;from=3;size=4", (3, 4, 100)),
    ({"rescore": {"window_size": 30, "query": {}}}, "", (0, 10, 30)),
    ({"sort": ["_score", {"price": "asc"}], "size": 5}, "", (0, 5, 100)),
    ({"sort": ["_score", {"_id": "asc"}], "size": 5}, "", (0, 5, 4)),
    ({"sort": ["_score", "item_id"], "size": 200}, "", (0, 200, 100)),
    ({}, "?sort=_score:desc,item_id:asc", (0, 10, 9)),
    ({"rescore": [{"window_size": 30, "query": {}}, {"query": {}}]}, "", (0, 10, 10)),
])
def test_page_and_window_are_read_as_opensearch_reads_them(body, parameters, window):
    assert plan(body, parameters).window == Window(*window)


@pytest.mark.parametrize(("body", "parameters", "reason"), [
    ({"size": 0}, "", SkipReason.SIZE_ZERO), ({"from": 100}, "", SkipReason.BEYOND_WINDOW),
    ({}, "?scroll=1m", SkipReason.SCROLL), ({"search_after": [1]}, "", SkipReason.SEARCH_AFTER),
    ({"slice": {"id": 0, "max": 2}}, "", SkipReason.SLICE),
    ({"sort": "price"}, "", SkipReason.SORT),
    ({"sort": [{"_score": {"order": "asc"}}]}, "", SkipReason.SORT),
    ({}, "?sort=price,_score", SkipReason.SORT), ({"size": -1}, "", SkipReason.UNREADABLE),
    ({"size": None}, "", SkipReason.UNREADABLE), ({"size": True}, "", SkipReason.UNREADABLE),
    ({"from": "1_0"}, "", SkipReason.UNREADABLE), ({}, "?size=1_0", SkipReason.UNREADABLE),
    ({}, "?size=%205", SkipReason.UNREADABLE), ({"size": "\u0663"}, "", SkipReason.UNREADABLE),
    ({"from": "x"}, "", SkipReason.UNREADABLE), (b"nonsense", "", SkipReason.UNREADABLE),
    (b'{"size":1,"size":1}', "", SkipReason.UNREADABLE), ({}, "?format=cbor", SkipReason.FORMAT),
    ({}, "?filter_path=took", SkipReason.FILTER_PATH),
    (b"", "?source=&source_content_type=application/json", SkipReason.UNREADABLE),
    ({}, "?filter_path=-**._id", SkipReason.FILTER_PATH),
    ({"sort": ["_score"]}, "", None), ({"sort": [{"_score": "desc"}, "price"]}, "", None),
    ({}, "?sort=_score:desc", None), ({"sort": []}, "", None), ({}, "?format=json", None),
])
def test_reason_to_pass_is_found(body, parameters, reason):
    assert plan(body, parameters).skip is reason


def test_every_version_that_events_answer_may_be_demanded():
    assert plan(X_Personalize_State="-1").context.min_state == -1
    assert plan(X_Personalize_State="7").context.min_state == 7


def test_body_of_no_said_kind_passes_to_be_refused():
    sent = (("X-Personalize-User", "u1"),)
    found = [plan_search(HttpRequest("POST", "/i/_search", sent, body), SETTINGS, 1.0).skip
             for body in (b"{}", b"", None)]
    assert found == [SkipReason.FORMAT, None, None]


def test_shopper_of_whom_attributes_are_known_needs_no_name():
    """As in rescore and in the plugin: the model, not the plan, says whether they place anybody."""
    found = plan(X_Personalize_User="", X_Personalize_Attributes="age=35-44")
    assert (found.skip, found.context.user_id) == (None, None)
    assert found.context.attributes == {"age": "35-44"}


def test_nobody_named_is_anonymous_unless_the_model_orders_strangers():
    assert plan(X_Personalize_User="").skip is SkipReason.ANONYMOUS
    assert plan(settings=Settings(without_history="model"), X_Personalize_User="").skip is None


def test_passing_request_keeps_its_bytes_and_loses_own_controls_alone():
    body = b'{ "size":5 , "ext":{"ubi":{"query_id":"q"}, "personalize":{"user_id":"u"}},"x":1.10}'
    found = plan(body, "?personalize=false&pretty&size=%32", X_Opaque_Id="7")
    assert found.skip is SkipReason.DISABLED
    assert found.request.body == b'{ "size":5 , "ext":{"ubi":{"query_id":"q"}},"x":1.10}'
    assert found.request.target == "/i/_search?pretty&size=%32"
    assert found.request.headers == (("Content-Type", "application/json"), ("X-Opaque-Id", "7"))


def test_empty_ext_is_left_out_whole():
    found = plan(b'{"size":5,"ext":{"personalize":{"enabled":false}}}')
    assert found.request.body == b'{"size":5}'


@pytest.mark.parametrize(("ext", "user"), [
    ({"personalize": {"user_id": "a"}, "ubi": {"client_id": "b"}}, "a"),
    ({"ubi": {"client_id": "b"}, "personalize_request_parameters": {"user_id": "c"}}, "b"),
    ({"ubi": {"client_id": ""}, "personalize_request_parameters": {"user_id": "c"}}, "c"),
    ({"ubi": {"client_id": 17}}, "17"), ({"ubi": {"client_id": {}}}, None), ({"ubi": 3}, None),
    ({"personalize": {"user_id": 5}}, "5"),
])
def test_user_is_found_in_ext_sections_in_order(ext, user):
    controls = plan({"ext": ext}, X_Personalize_User="").controls
    assert controls is not None
    assert controls.user_id == user


def test_user_in_a_header_is_read_as_utf8():
    controls = plan(X_Personalize_User="Zoë".encode().decode("latin-1")).controls
    assert controls is not None
    assert controls.user_id == "Zoë"


@pytest.mark.parametrize("ext", [
    {"personalize": 1}, {"personalize": {"windowsize": 3}}, {"personalize": {"weight": "much"}},
    {"personalize": {"window_size": 1.5}}, {"personalize": {"user_id": True}},
    {"personalize": {"enabled": "perhaps"}}, {"personalize": {"state": -2}},
    {"personalize": {"enabled": 2}}, {"personalize": {"explain": ["on"]}},
])
def test_impossible_control_is_an_error_not_a_guess(ext):
    with pytest.raises(ControlError):
        plan({"ext": ext}, X_Personalize_User="")


@pytest.mark.parametrize(("given", "meant"), [(1, True), (0, False), ("off", False), (True, True)])
def test_switch_in_ext_takes_what_the_header_takes(given, meant):
    controls = plan({"ext": {"personalize": {"explain": given}}}).controls
    assert controls is not None
    assert controls.explain is meant


def test_preference_is_the_users_own_and_never_overrides():
    one, two = plan().request.target, plan(X_Personalize_User="u2").request.target
    assert one == plan().request.target != two
    assert "preference=user-" in one
    assert "u1" not in one
    assert plan(parameters="?preference=x").request.target == "/i/_search?preference=x"
    assert "preference" not in plan({"pit": {"id": "p"}}).request.target
    assert "preference" not in plan({"size": 0}).request.target


@pytest.mark.parametrize(("body", "parameters", "is_split"), [
    ({"query": MILK}, "", True), ({"query": MILK, "aggs": {}}, "", True),
    ({"query": MILK, "highlight": {"fields": {}}}, "", True), ({"size": 95}, "", False),
    ({"from": 95, "size": 50}, "", True), ({"size": 200}, "", False),
    ({"collapse": {"field": "b"}}, "", False), ({"rescore": {"window_size": 100}}, "", False),
    ({"explain": True}, "", False), ({"profile": True}, "", False), ({}, "?q=x", False),
    ({}, "?filter_path=hits", False), ({}, "?search_pipeline=p", False),
    ({"sort": ["_score", "price"]}, "", False), ({"stored_fields": "_none_"}, "", False),
    ({"seq_no_primary_term": True}, "", True), ({"seq_no_primary_term": "true"}, "", False),
    ({}, "?seq_no_primary_term=false", False),
    ({"query": {"nested": {"inner_hits": {}}}}, "", False), ({"query": {"hybrid": {}}}, "", False),
    ({"ext": {"other": {}}}, "", False), ({"ext": {"ubi": {}}}, "", True),
    ({"ext": {"personalize_request_parameters": {"user_id": "u"}}}, "", True),
])
def test_ids_come_first_where_that_gives_the_same_hits(body, parameters, is_split):
    assert fetches.can_split(plan(body, parameters), "item_id") is is_split
    assert not fetches.can_split(plan(body, parameters), "")


@pytest.mark.parametrize(("body", "parameters", "is_named"), [
    ({"docvalue_fields": ["price", "item_id"]}, "", True), ({}, "?docvalue_fields=p,item_id", True),
    ({"docvalue_fields": [{"field": "item_*"}]}, "", True), ({"fields": ["*"]}, "", True),
    ({"script_fields": {"item_id": {"script": "1"}}}, "", True), ({}, "", False),
    ({"docvalue_fields": ["parent_item_id"]}, "", False), ({"fields": ["item_id.raw"]}, "", False),
    ({"script_fields": {"twice": {"script": "2 * doc['item_id'].size()"}}}, "", False),
    ({"docvalue_fields": "item_id"}, "", False),
])
def test_field_that_the_client_names_is_told_from_those_spelt_like_it(body, parameters, is_named):
    """What it does not name is asked for beside, and cut out of each hit again."""
    found = plan({"stored_fields": "_none_", **body}, parameters)
    assert fetches.names_field(found.search, "item_id") is is_named
    asked = sent(fetches.whole_fetch(found, "item_id")).get("docvalue_fields")
    assert is_named or asked[-1] == "item_id"


def test_id_fetch_asks_for_ids_and_everything_around_the_hits():
    found = plan({"query": MILK, "aggs": {"a": {}}, "from": 5, "_source": ["t"], "fields": ["x"],
                  "highlight": {}, "track_total_hits": True}, "?_source=t&typed_keys&size=3")
    request = fetches.id_fetch(found, "item_id")
    assert sent(request) == {
        "query": MILK, "aggs": {"a": {}}, "track_total_hits": True, "_source": False,
        "stored_fields": "_none_", "docvalue_fields": ["item_id"], "seq_no_primary_term": True,
        "from": 0, "size": 100}
    assert request.target.startswith("/i/_search?typed_keys&preference=")


def test_page_fetch_asks_for_these_hits_as_the_client_wants_them():
    found = plan({"query": MILK, "aggs": {"a": {}}, "from": 5, "highlight": {}, "min_score": 0.10,
                  "post_filter": {"term": {"a": 1}}}, "?_source=t&size=3&track_total_hits=true")
    request = fetches.page_fetch(found, ["b", "a"])
    assert sent(request) == {
        "query": {"bool": {"must": [MILK], "filter": [{"ids": {"values": ["b", "a"]}}]}},
        "highlight": {}, "min_score": 0.1, "post_filter": {"term": {"a": 1}},
        "track_total_hits": False, "seq_no_primary_term": True, "from": 0, "size": 4}
    assert request.target.startswith("/i/_search?_source=t&preference=")


def test_window_shrinks_to_an_indexs_limit():
    found = with_smaller_window(plan({"from": 40}), 50)
    assert found.window == Window(40, 10, 50)
    assert found.context is not None
    assert with_smaller_window(plan({"from": 60}), 50).skip is SkipReason.BEYOND_WINDOW


@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda t: t.encode("utf-8", "replace")),
       st.text(alphabet="?&=%#abcfromsize019_-.*,+é", max_size=40))
def test_any_request_is_planned_or_refused_with_a_reason(body, parameters):
    try:
        found = plan(body, parameters)
    except ControlError:
        return
    assert (found.skip is None) <= (found.window is not None)


@given(st.dictionaries(
    st.sampled_from(["from", "size", "sort", "rescore", "ext", "query", "stored_fields", "pit",
                     "_source", "collapse", "track_total_hits"]),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                 lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                     st.sampled_from(["_score", "order", "personalize", "ubi", "window_size",
                                      "user_id", "client_id", "query"]), inner, max_size=3),
                 max_leaves=8)))
def test_wrong_types_never_break_the_planning(body):
    try:
        found = plan(json.dumps(body).encode())
    except ControlError:
        return
    if found.skip is None:
        for request in (fetches.whole_fetch(found, "item_id"), fetches.id_fetch(found, "item_id"),
                        fetches.page_fetch(found, ["a"])):
            assert isinstance(request.body, bytes)
