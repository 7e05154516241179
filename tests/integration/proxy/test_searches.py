"""What the sidecar tells, keeps, forwards and refuses, case by case, against a real node."""

from __future__ import annotations

import gzip
import json
import socket
import zlib

import pytest

MILK = {"match": {"title": "milk"}}
BODY = {"query": MILK, "size": 10}


# -- who, whether, how far: the controls in their three forms

@pytest.mark.parametrize(("headers", "parameters", "ext"), [
    ({"X_Personalize_User": "u1"}, "", {}),
    ({}, "?personalize_user=u1", {}),
    ({}, "", {"personalize": {"user_id": "u1"}}),
    ({}, "", {"personalize_request_parameters": {"user_id": "u1", "context": {}}}),
    ({"X_Personalize_User": "u1"}, "?personalize_user=nobody", {"personalize": {"user_id": "no"}}),
    ({"X_Personalize": "on"}, "?personalize_user=u1&personalize=false", {}),
    ({"X_Personalize_User": ""}, "", {"personalize": {"user_id": "u1"}}),
])
def test_user_is_named_by_header_over_parameter_over_ext(proxy, headers, parameters, ext):
    answer = proxy.through("POST", f"/{proxy.prefix}one/_search{parameters}",
                           {**BODY, **({"ext": ext} if ext else {})}, **headers)
    assert answer.outcome == "applied", answer.body
    assert answer.headers["X-Personalize-State"] == "0"


@pytest.mark.parametrize(("headers", "parameters", "ext"), [
    ({"X_Personalize": "off"}, "?personalize=true", {}),
    ({}, "?personalize=false", {"personalize": {"enabled": True}}),
    ({}, "", {"personalize": {"enabled": False}}),
])
def test_switched_off_is_the_engines_answer(proxy, headers, parameters, ext):
    answer = proxy.search("one", {**BODY, **({"ext": ext} if ext else {})}, parameters, **headers)
    assert answer.outcome == "skipped; reason=disabled"
    assert answer.ids == proxy.engine("one", BODY).ids


def test_shopper_unknown_or_unnamed_gets_the_engines_order(proxy):
    engine = proxy.engine("one", BODY).ids
    for user, reason in (("", "anonymous"), ("stranger", "no_history")):
        answer = proxy.search("one", BODY, X_Personalize_User=user)
        assert (answer.outcome, answer.ids) == (f"skipped; reason={reason}", engine)


@pytest.mark.parametrize(("form", "value"), [
    ("X_Personalize_Window", "7"), ("personalize_window", "7"), ("window_size", 7)])
def test_window_is_chosen_by_the_request(proxy, expected_order, form, value):
    engine = proxy.engine("one", BODY).ids
    headers = {form: value} if form.startswith("X") else {}
    parameters = f"?{form}={value}" if form.startswith("p") else ""
    ext = {"ext": {"personalize": {form: value}}} if form == "window_size" else {}
    answer = proxy.search("one", {**BODY, **ext}, parameters, **headers)
    assert answer.ids == expected_order(engine, 7)


@pytest.mark.parametrize(("form", "value", "told"), [
    ("X_Personalize_Window", "0", "must be 1-1000"), ("X_Personalize_Window", "1001", "1-1000"),
    ("X_Personalize_Weight", "2", "must be 0-1"), ("X_Personalize_Weight", "nan", "must be 0-1"),
    ("X_Personalize", "maybe", "on or off"), ("X_Personalize_State", "-5", "version"),
    ("X_Personalize_User", "x" * 513, "512 bytes"), ("X_Personalize_Explain", "2", "true or false"),
])
def test_impossible_control_is_refused_in_opensearchs_words(proxy, form, value, told):
    answer = proxy.search("one", BODY, **{form: value})
    assert answer.status == 400
    error = answer.json["error"]
    assert told in error["reason"]
    assert error["type"] == "illegal_argument_exception"
    assert answer.json["status"] == 400


def test_unknown_key_in_the_own_ext_block_is_refused(proxy):
    answer = proxy.search("one", {**BODY, "ext": {"personalize": {"userid": "u1"}}})
    assert answer.status == 400
    assert "'userid'" in answer.json["error"]["reason"]


def test_foreign_ext_sections_reach_opensearch(proxy):
    """Without the UBI plugin, OpenSearch refuses ext.ubi; the client hears just that."""
    body = {**BODY, "ext": {"ubi": {"query_id": "q"}}}
    answer = proxy.search("one", {**body, "ext": {**body["ext"], "personalize": {"weight": 1}}})
    direct = proxy.engine("one", body)
    assert (answer.status, answer.body) == (direct.status, direct.body)
    assert answer.outcome == "skipped; reason=upstream_error"


def test_ubi_section_is_taken_where_opensearch_has_no_plugin_for_it(proxy, sidecar_over, ask):
    ubi = {"query_id": "q7", "client_id": "u1", "user_query": "milk"}
    body = {**BODY, "ext": {"ubi": ubi}}
    queries = f"{proxy.prefix}queries"
    with sidecar_over(proxy.node, ubi="take", queries_index=queries) as url:
        answer = ask(url, "POST", f"/{proxy.prefix}one/_search", body, X_Personalize_Session="s7")
        off = ask(url, "POST", f"/{proxy.prefix}one/_search",
                  {**BODY, "ext": {"ubi": {"user_query": "milk"}}}, X_Personalize="off",
                  X_Personalize_Session="s8")
        template = ask(url, "POST", f"/{proxy.prefix}one/_search/template",
                       {"source": json.dumps(body)})
        nothing = ask(url, "POST", f"/{proxy.prefix}one/_search",
                      {"query": {"match_none": {}}, "ext": {"ubi": {"query_id": "q8"}}},
                      X_Personalize_User="u1")
        logged = proxy.logged(queries, 4)  # written behind the answers
    assert (answer.outcome, answer.json["ext"]) == ("applied", {"ubi": {"query_id": "q7"}})
    assert off.ids == proxy.engine("one", BODY).ids
    assert template.ids == answer.ids
    assert nothing.json["ext"] == {"ubi": {"query_id": "q8"}}
    assert {entry["query_id"]: entry["query_response_hit_ids"] for entry in logged} == {
        "q7": answer.ids, off.json["ext"]["ubi"]["query_id"]: off.ids, "q8": []}
    assert {entry["query_id"]: entry.get("user_id") for entry in logged} == {
        "q7": "u1", off.json["ext"]["ubi"]["query_id"]: None, "q8": "u1"}
    assert {entry["session_id"] for entry in logged if "session_id" in entry} == {"s7", "s8"}


# -- what a skip looks like

@pytest.mark.parametrize(("body", "parameters", "reason"), [
    ({"sort": ["price"]}, "", "sort"), ({}, "?sort=price:asc", "sort"),
    ({"sort": [{"_score": "asc"}]}, "", "sort"), ({}, "?scroll=1m", "scroll"),
    ({"from": 100}, "", "beyond_window"), ({"size": 0}, "", "size_zero"),
    ({"sort": ["price"], "search_after": [1.0]}, "", "search_after"),
    ({"query": {"match": {"title": "absent"}}}, "", "no_hits"),
    ({"query": {"match": {"title": "absent"}}, "from": 20}, "", "no_hits"),
    ({"query": {"match": {"title": "absent"}}, "from": 20}, "?explain=true", "no_hits"),
    ({"rescore": {"query": {"rescore_query": MILK}}, "from": 10}, "", "beyond_window"),
    ({}, "?filter_path=took", "filter_path"), ({}, "?format=yaml", "format"),
])
def test_skip_names_its_reason(proxy, body, parameters, reason):
    answer = proxy.search("one", {**BODY, **body}, parameters)
    assert answer.status == 200
    assert answer.outcome == f"skipped; reason={reason}"


@pytest.fixture(scope="module")
def unproven(proxy, sidecar_over):
    """Give a sidecar whose ranker has not ranked yet, so that its deadline is watched."""
    with sidecar_over(proxy.node) as url:
        yield url


@pytest.mark.parametrize(("query", "reason"), [
    ("slow ranking", "timeout"), ("broken ranking", "ranking_error")])
@pytest.mark.parametrize("parameters", ["", "?_source=false&sort=_score"])
def test_failed_ranking_serves_the_engines_order_in_time(
        proxy, unproven, ask, query, reason, parameters):
    asked = {"simple_query_string": {"query": query, "fields": ["title"]}}
    body = {"query": {"bool": {"should": [asked, {"constant_score": {"filter": MILK}}]}}}
    answer = ask(unproven, "POST", f"/{proxy.prefix}one/_search{parameters}", body,
                 X_Personalize_User="u1")
    assert answer.outcome == f"skipped; reason={reason}"
    assert answer.ids == proxy.engine("one", body, parameters).ids


def test_every_answer_tells_where_time_went(proxy):
    for answer in (proxy.search("one", BODY), proxy.search("one", BODY, X_Personalize="off")):
        timing = dict(part.strip().split(";dur=") for part in
                      answer.headers["Server-Timing"].split(","))
        assert list(timing) == ["parse", "upstream", "history", "rank", "write", "total"]
        parts = {stage: float(timing[stage]) for stage in timing}
        assert parts["parse"] > 0
        assert parts["upstream"] > 0
        assert parts.pop("total") + 0.003 > sum(parts.values())  # each is rounded
    personal = proxy.search("one", BODY).headers["Server-Timing"]
    assert "write;dur=0.000" not in personal


# -- hits and what travels with them

def test_explanation_names_ranks_and_parts_of_the_shown_hits(proxy, expected_order):
    engine = proxy.engine("one", {**BODY, "size": 100}).ids
    answer = proxy.search("one", {**BODY, "from": 3, "size": 4}, X_Personalize_Explain="true")
    told = answer.json["ext"]["personalize"]
    assert (told["applied"], told["state"], told["model"]) == (True, 0, "shuffling")
    assert [hit["_id"] for hit in told["hits"]] == answer.ids == expected_order(engine, 100)[3:7]
    for rank, hit in enumerate(told["hits"], 4):
        assert hit["rank"] == rank
        assert hit["engine_rank"] == engine.index(hit["_id"]) + 1
        assert hit["score"] == pytest.approx(sum(hit["parts"].values()))


def test_point_in_time_is_reordered_and_its_id_kept(proxy, expected_order):
    opened = proxy.through("POST", f"/{proxy.prefix}many/_search/point_in_time?keep_alive=1m")
    pit_id = opened.json["pit_id"]
    body = {**BODY, "pit": {"id": pit_id, "keep_alive": "1m"}}
    wide = proxy.direct("POST", "/_search", {**body, "size": 100})
    answer = proxy.through("POST", "/_search", body, X_Personalize_User="u1")
    assert answer.outcome == "applied"
    assert answer.ids == expected_order(wide.ids, 100)[:10]
    assert answer.json["pit_id"] == wide.json["pit_id"]
    closed = proxy.through("DELETE", "/_search/point_in_time", {"pit_id": [pit_id]})
    assert closed.status == 200


def test_scroll_passes_page_after_page(proxy):
    first = proxy.search("one", {**BODY, "size": 100}, "?scroll=1m")
    assert first.outcome == "skipped; reason=scroll"
    body = {"scroll": "1m", "scroll_id": first.json["_scroll_id"]}
    second = proxy.through("POST", "/_search/scroll", body, X_Personalize_User="u1")
    assert len(first.ids + second.ids) == len(set(first.ids + second.ids)) == 160
    proxy.through("DELETE", "/_search/scroll", {"scroll_id": first.json["_scroll_id"]})


@pytest.mark.parametrize("size", [1, 7, 40, 150])
def test_walk_by_search_after_shows_every_hit_once(proxy, size):
    body = {"query": {"match_all": {}}, "size": size, "sort": ["_score", {"item_id": "asc"}]}
    shown, outcomes, page = [], [], proxy.search("many", body)
    while page.ids:
        shown += page.ids
        outcomes.append(page.outcome)
        page = proxy.search("many", {**body, "search_after": page.json["hits"]["hits"][-1]["sort"]})
    assert len(shown) == len(set(shown)) == 160
    assert outcomes[0] == ("applied" if size > 1 else "skipped; reason=beyond_window")


def test_collapsed_groups_are_reordered_none_added_or_lost(proxy, expected_order):
    body = {**BODY, "collapse": {"field": "brand", "inner_hits": {"name": "more", "size": 2}}}
    engine = proxy.engine("many", {**body, "size": 100})
    answer = proxy.search("many", body)
    assert answer.outcome == "applied"
    assert answer.ids == expected_order(engine.ids, 100)[:10]
    by_id = {hit["_id"]: hit for hit in engine.json["hits"]["hits"]}
    assert [by_id[hit["_id"]] for hit in answer.json["hits"]["hits"]] == answer.json["hits"]["hits"]


def test_clients_rescore_bounds_the_window(proxy, expected_order):
    rescore = {"window_size": 20, "query": {"rescore_query": {"match": {"title": "white"}}}}
    body = {"query": MILK, "rescore": rescore, "size": 30}
    engine = proxy.engine("one", body).ids
    assert proxy.search("one", body).ids == expected_order(engine, 20)


def test_window_wider_than_the_index_allows_is_clamped(proxy, expected_order):
    engine = proxy.engine("narrow", {"query": MILK, "size": 50}).ids
    for _ in range(2):
        answer = proxy.search("narrow", {"query": MILK, "size": 50})
        assert answer.outcome == "applied"
        assert answer.ids == expected_order(engine, 50)
    lines = [{"index": proxy.prefix + "narrow"}, {"query": MILK, "size": 50}] * 2
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    many = proxy.through("POST", "/_msearch", body, X_Personalize_User="u1")
    assert [[hit["_id"] for hit in response["hits"]["hits"]]
            for response in many.json["responses"]] == [expected_order(engine, 50)] * 2
    beyond = {"query": MILK, "from": 45, "size": 10}
    assert proxy.search("narrow", beyond).body == proxy.engine("narrow", beyond).body


@pytest.mark.parametrize("fields", [["price"], ["item_id"], ["price", {"field": "item_id"}]])
def test_hits_without_ids_are_reordered_by_their_doc_value(proxy, expected_order, fields):
    body = {"query": MILK, "stored_fields": "_none_", "docvalue_fields": fields}
    wide = proxy.engine("one", {**body, "size": 100}).json["hits"]["hits"]
    by_id = dict(zip(proxy.engine("one", {"query": MILK, "size": 100}).ids, wide, strict=True))
    answer = proxy.search("one", body)
    assert answer.outcome == "applied"
    assert answer.json["hits"]["hits"] == [
        by_id[item] for item in expected_order(list(by_id), 100)[:10]]


def test_filter_path_shows_what_it_selects_reordered(proxy, expected_order):
    engine = proxy.engine("one", {"query": MILK, "size": 100}).ids
    answer = proxy.search("one", BODY, "?filter_path=hits.hits._source.item_id")
    assert answer.outcome == "applied"
    shown = [hit["_source"]["item_id"] for hit in answer.json["hits"]["hits"]]
    assert shown == expected_order(engine, 100)[:10]
    assert all(set(hit) == {"_source"} for hit in answer.json["hits"]["hits"])


@pytest.mark.parametrize("filter_path", [
    "hits.total,hits.hits._id", "hits", "-_shards", "-_shards.*", "-_shards.failures",
    "took,hits,-hits.hits._id"])
def test_filter_path_hides_no_index_that_allows_no_window_so_wide(proxy, filter_path):
    answers = [ask(f"one,{proxy.prefix}narrow", BODY, f"?filter_path={filter_path}").json["hits"]
               for ask in (proxy.search, proxy.engine)]
    assert answers[0].get("total") == answers[1].get("total")
    assert len(answers[0]["hits"]) == len(answers[1]["hits"])


@pytest.mark.parametrize("more", [{}, {"_source": ["price"]}, {"stored_fields": "_none_"}])
def test_suggested_hits_are_shown_as_the_client_wants_hits(proxy, more):
    """They would lack ids and sources if ids were fetched first."""
    body = {**BODY, **more, "suggest": {"s": {"prefix": "milk", "completion": {
        "field": "title.completed"}}}}
    for index in ("one", "many"):
        direct = proxy.engine(index, body)
        assert proxy.search(index, body).json["suggest"] == direct.json["suggest"]


def test_same_id_in_two_indices_is_two_hits(proxy, expected_order):
    for index in ("twin-a", "twin-b"):
        for number in range(15):
            proxy.direct("PUT", f"/{proxy.prefix}{index}/_doc/x{number}?refresh=true",
                         {"item_id": f"x{number}", "title": "milk " * (1 + number)})
    body = {"query": MILK, "size": 10}
    wide = proxy.engine("twin-*", {**body, "size": 100}).json["hits"]["hits"]
    shown = proxy.search("twin-*", body).json["hits"]["hits"]
    by_key = {(hit["_index"], hit["_id"]): hit for hit in wide}
    assert len(by_key) == 30
    keys = [(hit["_index"], hit["_id"]) for hit in shown]
    assert len(set(keys)) == 10
    assert [by_key[key] for key in keys] == shown


@pytest.mark.parametrize(("factor", "shift"), [(7, 0), (1, 20), (1, 40)])
def test_items_under_other_ids_are_neither_lost_nor_repeated(proxy, factor, shift):
    """Offers, for one: some have the id of another offer's item, and it answers the same search."""
    name = f"offers-{factor}-{shift}"
    index = proxy.prefix + name
    lines = "".join(f'{{"index":{{"_id":"x{number * factor % 60 + shift}"}}}}\n'
                    f'{{"item_id":"x{number}","title":"milk"}}\n' for number in range(60)).encode()
    proxy.direct("PUT", f"/{index}", {"mappings": {"properties": {"item_id": {"type": "keyword"}}}})
    proxy.direct("POST", f"/{index}/_bulk?refresh=true", lines)
    body = {"query": {"match_all": {}}, "size": 1, "highlight": {"fields": {"title": {}}}}
    pages = [proxy.search(name, {**body, "from": first}, X_Personalize_Window="40")
             for first in range(60)]
    assert [page.outcome for page in pages[:40]] == ["applied"] * 40
    assert len({page.ids[0] for page in pages}) == 60


def test_multi_search_orders_each_line_on_its_own(proxy, expected_order):
    index = proxy.prefix + "one"
    engine = proxy.engine("one", {"query": MILK, "size": 100}).ids
    lines = [{"index": index}, BODY, {"index": index}, {**BODY, "sort": ["price"]},
             {"index": "no-such"}, BODY,
             {"index": index}, {**BODY, "from": 98, "size": 4, "ext": {"personalize": {}}},
             {"index": index}, {**BODY, "ext": {"personalize": {"enabled": False}}}]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    answer = proxy.through("POST", "/_msearch", body, X_Personalize_User="u1",
                           Content_Type="application/x-ndjson")
    assert answer.outcome == "applied"
    pages = [[hit["_id"] for hit in response.get("hits", {}).get("hits", [])]
             for response in answer.json["responses"]]
    order = expected_order(engine, 100)
    by_price = proxy.engine("one", {**BODY, "sort": ["price"]}).ids
    assert pages == [order[:10], by_price, [],
                     order[98:] + proxy.engine("one", {**BODY, "from": 100, "size": 2}).ids,
                     engine[:10]]
    assert answer.json["responses"][2]["status"] == 404


def test_line_whose_hits_have_no_ids_takes_no_other_lines_order_away(proxy, expected_order):
    """Of the second index's products the field that stands for an id is not known."""
    proxy.direct("PUT", f"/{proxy.prefix}nameless/_doc/1?refresh=true", {"title": "milk"})
    nameless = {"query": MILK, "stored_fields": "_none_"}
    lines = [{"index": proxy.prefix + "one"}, BODY, {"index": proxy.prefix + "nameless"}, nameless]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    answer = proxy.through("POST", "/_msearch", body, X_Personalize_User="u1")
    assert answer.outcome == "applied"
    first, second = [response["hits"] for response in answer.json["responses"]]
    engine = proxy.engine("one", {"query": MILK, "size": 100}).ids
    assert [hit["_id"] for hit in first["hits"]] == expected_order(engine, 100)[:10]
    assert second == proxy.engine("nameless", nameless).json["hits"]


@pytest.mark.parametrize("form", ["inside", "beside", "header"])
def test_page_size_inside_a_template_is_honoured(proxy, expected_order, form):
    engine = proxy.engine("one", {"query": MILK, "size": 100}).ids
    own = {"personalize": {"user_id": "u1"}}
    source = '{"query":{"match":{"title":"{{q}}"}},"from":{{f}},"size":4'
    source += f',"ext":{json.dumps(own)}}}' if form == "inside" else "}"
    body = {"source": source, "params": {"q": "milk", "f": 6}}
    if form == "beside":
        body["ext"] = own
    headers = {"X_Personalize_User": "u1"} if form == "header" else {}
    target = f"/{proxy.prefix}one/_search/template"
    answer = proxy.through("POST", target, body, **headers)
    assert answer.outcome == "applied", answer.body
    assert answer.ids == expected_order(engine, 100)[6:10]
    lines = "".join(json.dumps(line) + "\n" for line in
                    ({"index": proxy.prefix + "one"}, body)).encode()
    many = proxy.through("POST", "/_msearch/template", lines, **headers)
    assert [hit["_id"] for hit in many.json["responses"][0]["hits"]["hits"]] == answer.ids


def test_get_with_a_body_and_source_parameter_are_searches(proxy):
    wanted = proxy.search("one", BODY)
    by_get = proxy.through("GET", f"/{proxy.prefix}one/_search", BODY, X_Personalize_User="u1")
    by_source = proxy.through(
        "GET", f"/{proxy.prefix}one/_search?source_content_type=application/json"
        "&source=%7B%22query%22:%7B%22match%22:%7B%22title%22:%22milk%22%7D%7D%7D",
        X_Personalize_User="u1")
    assert wanted.ids == by_get.ids == by_source.ids
    assert {by_get.outcome, by_source.outcome} == {"applied"}


# -- HTTP

@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_compressed_bodies_go_both_ways(proxy, packing):
    plain = json.dumps(BODY).encode()
    packed = gzip.compress(plain) if packing == "gzip" else zlib.compress(plain)
    answer = proxy.search("one", packed, Content_Encoding=packing, Accept_Encoding="gzip",
                          Content_Type="application/json")
    assert answer.outcome == "applied"
    assert answer.headers["Content-Encoding"] == "gzip"
    unpacked = json.loads(gzip.decompress(answer.body))
    wanted = proxy.search("one", BODY)
    assert wanted.headers["Content-Encoding"] is None
    assert unpacked["hits"] == wanted.json["hits"]


@pytest.mark.parametrize("accepted", ["gzip", "deflate", "deflate, gzip;q=0.5", "gzip, deflate",
                                      "gzip;q=0", "identity", "br, zstd"])
@pytest.mark.parametrize("parameters", ["", "?filter_path=hits.hits._id&size=1"])
def test_answer_has_the_coding_that_opensearch_would_choose(proxy, accepted, parameters):
    chosen = [ask("one", BODY, parameters, Accept_Encoding=accepted).headers["Content-Encoding"]
              for ask in (proxy.search, proxy.engine)]
    assert chosen[0] == chosen[1]


def test_broken_compression_is_opensearchs_to_judge(proxy):
    target = f"/{proxy.prefix}one/_search"
    told = [ask("POST", target, b"not gzip", Content_Encoding="gzip",
                Content_Type="application/json") for ask in (proxy.direct, proxy.through)]
    assert (told[0].status, told[0].json["hits"]) == (told[1].status, told[1].json["hits"])


def test_chunked_request_body_is_read(proxy):
    body = json.dumps(BODY).encode()
    host, port = proxy.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"POST /%bone/_search HTTP/1.1\r\nHost: x\r\nX-Personalize-User: u1\r\n"
                       b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
                       b"Connection: close\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
                       % (proxy.prefix.encode(), len(body), body))
        answer = b""
        while more := client.recv(65536):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"x-personalize-status: applied" in answer.lower()


def test_absolute_target_does_not_choose_the_host(proxy):
    host, port = proxy.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"GET http://example.invalid:1/%bone/_count HTTP/1.1\r\nHost: example\r\n"
                       b"Connection: close\r\n\r\n" % proxy.prefix.encode())
        answer = b""
        while more := client.recv(65536):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'{"count":160' in answer


@pytest.mark.parametrize("line_bytes", [3_980, 4_080, 4_096])
def test_request_line_may_be_as_long_as_opensearch_takes_it(proxy, line_bytes):
    target = f"/{proxy.prefix}one/_search?size=3&q=title:"
    target += "a" * (line_bytes - len(f"GET {target} HTTP/1.1"))
    direct = proxy.direct("GET", target)
    through = proxy.through("GET", target, X_Personalize_User="u1")
    assert direct.status == through.status == 200
    assert direct.json["hits"] == through.json["hits"]


def test_head_of_a_document_has_its_length_and_no_body(proxy):
    for target, status in ((f"/{proxy.prefix}one/_doc/o1", 200), ("/no-such-index", 404)):
        direct, through = (ask("HEAD", target) for ask in (proxy.direct, proxy.through))
        assert direct.status == through.status == status
        assert direct.headers["content-length"] == through.headers["content-length"]
        assert through.body == b""


def test_large_bulk_request_and_large_answer_stream_through(proxy):
    index = f"{proxy.prefix}large"
    document = json.dumps({"text": "x" * 500_000})
    lines = f'{{"index":{{}}}}\n{document}\n' * 12
    written = proxy.through("POST", f"/{index}/_bulk?refresh=true", lines.encode())
    assert written.json["errors"] is False
    answer = proxy.through("GET", f"/{index}/_search?size=12")
    assert len(answer.body) > 6_000_000
    assert answer.status == 200


def test_opaque_id_comes_back(proxy):
    answer = proxy.search("one", BODY, X_Opaque_Id="trace 7")
    direct = proxy.engine("one", BODY, X_Opaque_Id="trace 7")
    assert answer.headers["X-Opaque-Id"] == direct.headers["X-Opaque-Id"]



def test_scores_are_rewritten_only_where_that_is_asked_for(proxy, sidecar_over, ask):
    with sidecar_over(proxy.node, rewrite_scores="true") as url:
        answer = ask(url, "POST", f"/{proxy.prefix}one/_search", BODY, X_Personalize_User="u1")
    shown = answer.json["hits"]["hits"]
    assert [hit["_score"] for hit in shown] == [
        zlib.crc32(hit["_id"].encode()) % 1009 for hit in shown]
    assert answer.json["hits"]["max_score"] == shown[0]["_score"]
    plain = proxy.search("one", BODY).json["hits"]
    assert [hit["_id"] for hit in plain["hits"]] == answer.ids
    assert plain["max_score"] == proxy.engine("one", BODY).json["hits"]["max_score"]
