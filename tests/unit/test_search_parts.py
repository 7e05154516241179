"""The smaller parts: targets, filters, query texts, headers, answers, templates, lists."""

from __future__ import annotations

import gzip
import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import UnreadableError
from sidecar.records import HttpRequest, HttpResponse, SkipReason
from sidecar.search import allow_list, answers, filter_paths, headers, hit_bytes, multi, templates
from sidecar.search.query_texts import query_text
from sidecar.search.refusals import may_be_our_doing, window_limit
from sidecar.search.targets import Endpoint, endpoint, parse
from sidecar.settings import Settings

# -- targets


@pytest.mark.parametrize(("method", "path", "kind"), [
    ("POST", "/_search", Endpoint.SEARCH), ("GET", "/a,b*/_search/", Endpoint.SEARCH),
    ("POST", "/_all/_search", Endpoint.SEARCH), ("POST", "/i/_msearch", Endpoint.MULTI_SEARCH),
    ("POST", "/i/_search/template", Endpoint.TEMPLATE), ("PUT", "/i/_search", Endpoint.OTHER),
    ("POST", "/_msearch/template", Endpoint.MULTI_TEMPLATE), ("POST", "/i/_count", Endpoint.OTHER),
    ("POST", "/i/_search/scroll", Endpoint.OTHER), ("POST", "/i/%5Fsearch", Endpoint.OTHER),
    ("POST", "//i/_search", Endpoint.OTHER), ("POST", "/%3Ci%7Bnow%2Fd%7D%3E/_search",
                                              Endpoint.SEARCH),
    ("POST", "/i/j/_search", Endpoint.OTHER), ("GET", "/", Endpoint.OTHER),
])
def test_searches_are_told_from_everything_else(method, path, kind):
    assert endpoint(method, path) is kind


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_target_is_written_as_it_came(text):
    target = "/" + text.replace("#", "")
    assert str(parse(target)) == target


def test_parameters_are_left_out_and_added_without_touching_others():
    target = parse("/i/_search?a=%20x&b=1&a=2+3&c")
    assert (target.get("a"), target.get("c"), target.get("d")) == ("2 3", "", None)
    assert str(target.without(["b"])) == "/i/_search?a=%20x&a=2+3&c"
    assert str(target.with_parameter("a", "x y")) == "/i/_search?b=1&c&a=x%20y"
    assert str(parse("http://elsewhere:1/i/_search?x")) == "/i/_search?x"


# -- filter_path


@pytest.mark.parametrize(("text", "shown"), [
    ("took", False), ("hits", True), ("hits.total", False), ("hits.hits._id", True), ("**", True),
    ("*.hits.*.x", True), ("-hits", False), ("-hits.hits", False), ("-took", True), ("h*", True),
    ("hits.hit", False), ("-*.hits", False), ("took,hits.h*ts", True), ("**.title", True),
])
def test_filter_that_leaves_no_hits_is_known(text, shown):
    assert filter_paths.shows_hits(text) is shown


@pytest.mark.parametrize(("text", "wider", "hidden"), [
    ("hits", "hits,_shards.failures", set()),
    ("hits.hits._source", "hits.hits._source,_shards.failures,hits.hits._id", {"_id"}),
    ("-hits.hits._id", "-no_such_key", {"_id"}), ("-took", "-took", set()),
    ("hits.hits..", "hits.hits,_shards.failures", set()),
    ("-hits.hits._id.", "-no_such_key", {"_id"}),
    ("**", "**", set()), ("hits.hits.*,_shards", "hits.hits.*,_shards", set()),
    ("**._id", "**._id,_shards.failures", set()), ("-_shards.failures", "-no_such_key", set()),
    ("-_shards,-took", "-_shards.total,-_shards.successful,-_shards.skipped,-_shards.failed,-took",
     set()),
    ("hits,-hits.hits._id,-took", "hits,_shards.failures,-took", {"_id"}),
])
def test_filter_is_widened_by_what_is_needed(text, wider, hidden):
    found = filter_paths.widen(text, ("_id",))
    assert found is not None
    assert (found.text, found.hidden) == (wider, hidden)


@pytest.mark.parametrize("text", ["-**._id", "-hits.hits._i*", "-hits.*._id", "-hits.hits",
                                  "-_*", "-_shards.*"])
def test_filter_that_hides_needed_things_behind_a_wildcard_is_left_alone(text):
    assert filter_paths.widen(text, ("_id",)) is None


# -- query texts


@pytest.mark.parametrize(("query", "ext", "q", "text"), [
    ({"match": {"title": "milk"}}, {}, None, "milk"),
    ({"match": {"title": {"query": "white milk", "operator": "and"}}}, {}, None, "white milk"),
    ({"multi_match": {"query": "milk", "fields": ["a"]}}, {}, None, "milk"),
    ({"bool": {"must": [{"match": {"t": "milk"}}], "should": [{"match_phrase": {"t": "oat milk"}}],
               "filter": [{"match": {"t": "shop"}}], "must_not": {"match": {"t": "soy"}}}},
     {}, None, "milk oat milk"),
    ({"function_score": {"query": {"query_string": {"query": "milk"}}, "functions": []}}, {}, None,
     "milk"),
    ({"dis_max": {"queries": [{"match": {"a": "milk"}}, {"match": {"b": "milk"}}]}}, {}, None,
     "milk"),
    ({"term": {"brand": "x"}}, {}, None, None), ({"match_all": {}}, {}, None, None),
    (None, {}, "title:milk", "title:milk"), (None, {}, None, None),
    ({"match": {"t": "milk"}}, {"ubi": {"user_query": "Milch"}}, None, "Milch"),
    ({"match": {"t": 5}}, {"ubi": 3}, None, None), ("milk", {}, None, None),
    ({"match": {"t": "x" * 5000}}, {}, None, "x" * 1000),
    ({"prefix": {"t": {"value": "oa"}}}, {}, None, "oa"),
    ({"wildcard": {"t": "oa*"}}, {}, None, "oa*"),
    ({"wildcard": {"t": {"value": "oa*"}}}, {}, None, "oa*"),
    ({"wildcard": {"t": {"wildcard": "oa*", "boost": 2}}}, {}, None, "oa*"),
    ({"fuzzy": {"t": {"value": "oak", "fuzziness": "AUTO"}}}, {}, None, "oak"),
    ({"neural": {"v": {"query_text": "oak", "model_id": "m"}}}, {}, None, "oak"),
    ({"match": {"query": {"query": "milk"}}}, {}, None, "milk"),
])
def test_shoppers_words_are_found(query, ext, q, text):
    assert query_text(query, ext, q) == text


@pytest.mark.parametrize(("rule", "text"), [
    ({"match": {"query": "hot tea", "analyzer": "standard", "max_gaps": 4}}, "hot tea"),
    ({"match": {"query": "hot tea", "use_field": "title.exact"}}, "hot tea"),
    ({"match": {"query": "hot tea", "filter": {"containing": {"match": {"query": "cold"}}}}},
     "hot tea"),
    ({"prefix": {"prefix": "te", "analyzer": "simple"}}, "te"),
    ({"wildcard": {"pattern": "te*", "use_field": "title.exact"}}, "te*"),
    ({"fuzzy": {"term": "tea", "fuzziness": "AUTO"}}, "tea"),
    ({"all_of": {"intervals": [{"match": {"query": "hot", "analyzer": "standard"}},
                               {"any_of": {"intervals": [{"prefix": {"prefix": "te"}}]}}]}},
     "hot te"),
])
def test_rule_of_intervals_is_read_without_its_options(rule, text):
    assert query_text({"intervals": {"title": rule}}, {}) == text


# -- headers


def test_headers_of_one_connection_do_not_pass():
    given = (("Connection", "close, X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "5"), ("Host", "h"),
             ("TE", "trailers"), ("Authorization", "Basic x"), ("X-A", "1"), ("X-A", "2"))
    assert headers.for_upstream(given) == (
        ("Authorization", "Basic x"), ("X-A", "1"), ("X-A", "2"))
    assert headers.for_client((("Date", "d"), ("Warning", "w"), ("Transfer-Encoding", "c"))) == (
        ("Warning", "w"),)


@pytest.mark.parametrize(("accepted", "coding"), [
    ("gzip", "gzip"), ("", ""), ("identity", ""), ("br, gzip;q=0.5", "gzip"), ("gzip;q=0", ""),
    ("*", "gzip"), ("deflate", "deflate"), ("deflate, gzip", "gzip"), ("gzip;q=0, *", ""),
    ("deflate, gzip; q=0.5", "deflate"), ("gzip;q=0.000, deflate;q=0.1", "deflate"),
    ("gzip;q=x", ""), ("x-gzip", "gzip"), ("deflate;q=0", ""), ("*;q=0", "")])
@pytest.mark.parametrize("size", [1, 1000])
def test_answer_is_packed_for_who_accepts_it(accepted, coding, size):
    body = b"x" * size
    response = headers.compressed(HttpResponse(200, (("content-length", "9"),), body), accepted)
    assert headers.get(response.headers, "content-encoding") == coding
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress, "": bytes}[coding]
    assert unpack(response.body) == body
    assert headers.get(response.headers, "content-length") == str(len(response.body))


@pytest.mark.parametrize(("body", "coding"), [
    (b"junk", "gzip"), (gzip.compress(b"x" * 5000), "gzip"), (gzip.compress(b"abc")[:-6], "gzip"),
    (gzip.compress(b"a") + gzip.compress(b"b"), "gzip"),
    (b"x", "br"), (b"x", "gzip, gzip")])
def test_body_that_does_not_unpack_within_the_limit_is_unreadable(body, coding):
    with pytest.raises(UnreadableError):
        headers.decompressed(HttpRequest("POST", "/", (("Content-Encoding", coding),), body), 4096)


# -- answers

HITS = [b'{"_index":"i","_id":"a","_score":1.50,"_source":{"x":"]}"}}',
        b'{"_index":"i","_id":"b","_score":null}', b'{"_index":"j","_id":"a","_score":1e-7,"z":[]}']


@pytest.mark.parametrize("frame", [
    b'{"took":1,"hits":{"total":{"value":3},"max_score":1.50,"hits":[%b]},"aggregations":{}}',
    b'{\n  "hits" : {\n    "hits" : [\n      %b\n    ]\n  }\n}\n',
    b'{"x":{"hits":{"hits":["}"]}},"hits":{"hits":[%b]}}'])
def test_hits_are_slices_and_the_frame_keeps_its_bytes(frame):
    between = b",\n      " if b"\n" in frame else b","
    answer = answers.read_answer(frame % between.join(HITS))
    assert answer.hits == tuple(HITS)
    assert answer.keys == (("i", "a"), ("i", "b"), ("j", "a"))
    assert answer.scores[0] == 1.5
    assert math.isnan(answer.scores[1])
    assert answer.with_hits(HITS[::-1]) == frame % between.join(HITS[::-1])
    assert answer.with_hits(HITS[:1]) == frame % HITS[0]
    assert json.loads(answer.with_hits([]))["hits"]["hits"] == []


@pytest.mark.parametrize("body", [
    b"", b"[]", b"null", b'{"hits":[]}', b'{"hits":{"hits":{}}}', b'{"hits":{"hits":[1]}}', b"\xff",
    b'{"hits":{"hits":[{"_index":"i"}]}}', b'{"hits":{"hits":[{"_id":1}]}}',
    b'{"hits":{"hits":[{"_id":"a"',
    b'{"hits":{"hits":[' + b"[" * 100_000, b'{"hits":{"hits":[{"_id":"a","_score":"high"}]}}'])
def test_broken_answer_is_unreadable(body):
    with pytest.raises(UnreadableError):
        answers.read_answer(body)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_cut_or_garbled_answer_is_read_or_unreadable(noise, at):
    whole = b'{"took":1,"hits":{"hits":[%b]}}' % b",".join(HITS)
    for body in (whole[:at], whole[:at] + noise + whole[at:], noise):
        try:
            answer = answers.read_answer(body)
        except UnreadableError:
            continue
        if answer.hits:  # white space between hits may change, as no writer leaves it uneven
            assert b"".join(answer.with_hits(answer.hits).split()) == b"".join(body.split())


def test_ids_are_read_from_a_doc_value():
    body = b'{"hits":{"hits":[{"_index":"i","_score":2.5,"fields":{"item_id":["a"]}}]}}'
    assert answers.read_ids(body, "item_id").keys == (("i", "a"),)
    for broken in (body.replace(b'["a"]', b'["a","b"]'), body.replace(b'["a"]', b"[1]"),
                   body.replace(b"item_id", b"other"), body.replace(b',"fields"', b',"f"'),
                   body.replace(b'{"hits":{', b'{"_shards":{"failed":1},"hits":{')):
        with pytest.raises(UnreadableError):
            answers.read_ids(broken, "item_id")


def test_what_only_the_sidecar_asked_for_is_cut_out():
    hit = b'{"_index":"i","_id":"a","fields":{"item_id":["a"],"p":[1.50]},"_source":{}}'
    assert hit_bytes.without_keys(hit, {"_id"}, "item_id") == (
        b'{"_index":"i","fields":{"p":[1.50]},"_source":{}}')
    assert hit_bytes.without_keys(b'{"_id":"a"}', {"_id"}) is None
    assert hit_bytes.without_keys(b'{"_id":"a","fields":{"item_id":["a"]}}', set(), "item_id") == (
        b'{"_id":"a"}')


def test_scores_are_rewritten_in_place():
    hit = b'{ "_id" : "a" , "_score" : 1.0 }'
    assert hit_bytes.with_score(hit, 2.5) == b'{ "_id" : "a" , "_score" : 2.5 }'
    assert hit_bytes.with_score(b"{}", 2.5) == b"{}"
    assert hit_bytes.with_max_score(b'{"hits":{"max_score":null,"hits":[]}}', 3) == (
        b'{"hits":{"max_score":3.0,"hits":[]}}')


@pytest.mark.parametrize(("body", "wanted"), [
    (b"{}", b'{"ext":{"p":{"a":1}}}'), (b'{"a":1 }', b'{"a":1,"ext":{"p":{"a":1}} }'),
    (b'{"ext":{}}', b'{"ext":{"p":{"a":1}}}'),
    (b'{"ext":{"u":2}}', b'{"ext":{"p":{"a":1},"u":2}}')])
def test_ext_section_joins_what_is_there(body, wanted):
    assert hit_bytes.with_ext(body, "p", {"a": 1}) == wanted


# -- refusals, lists, templates


def test_refusal_of_a_wide_window_tells_its_limit():
    text = (b'{"error":{"reason":"Result window is too large, from + size must be less than or '
            b'equal to: [50] but was [100]. See the scroll api"}}')
    assert window_limit(text) == 50
    assert window_limit(b"other") is None
    assert [may_be_our_doing(status) for status in (400, 500, 404, 429, 503)] == [
        True, True, False, False, False]


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", "/", True), ("GET", "/i", True), ("HEAD", "/i/_doc/1", True), ("GET", "/_cat/x", True),
    ("POST", "/i/_search", True), ("POST", "/_search/scroll", True),
    ("DELETE", "/_search/scroll", True), ("DELETE", "/_search/point_in_time/_all", False),
    ("DELETE", "/_search/scroll/%5Fall", False), ("DELETE", "/_search/scroll/_all,", False),
    ("DELETE", "/_search/scroll/DXF1ZXJ5_allQ==", True),
    ("POST", "/i/_search/point_in_time", True), ("POST", "/_render/template", True),
    ("POST", "/i/_bulk", False), ("PUT", "/i", False), ("DELETE", "/i", False),
    ("POST", "/i/_doc", False), ("GET", "/_refresh", False), ("GET", "/i/_flush", False),
    ("POST", "/_scripts/x", False), ("DELETE", "/_scripts/x", False),
    ("PUT", "/_search/pipeline/x", False),
    ("POST", "/i/_update_by_query", False), ("OPTIONS", "/i", True), ("POST", "/_plugins/x", False),
    ("POST", "/_all/_count", True), ("DELETE", "/_search/pipeline/x", False),
    ("PATCH", "/i", False),
])
def test_default_list_reads_and_changes_nothing(method, path, allowed):
    assert allow_list.is_allowed(method, path) is allowed


@pytest.mark.parametrize(("target", "body", "is_json", "everything"), [
    ("/_search/scroll?scroll_id=_all", b"", True, True),
    ("/_search/scroll?scroll_id=a;scroll_id=b,%5Fall", b"", True, True),
    ("/_search/scroll", b'{"scroll_id":"_all"}', True, True),
    ("/_search/scroll", b'{"scroll_id":"\\u005fall"}', True, True),
    ("/_search/point_in_time", b'{"pit_id":["a","_all"]}', True, True),
    ("/_search/point_in_time", b"\xbfepit_id\x81d_all\xff", False, True),
    ("/_search/scroll?scroll_id=DXF1_allQ==", b'{"scroll_id":["DXF1_allQ=="]}', True, False),
    ("/_search/scroll", b"", True, False)])
def test_closing_everybodys_searches_is_seen(target, body, is_json, everything):
    assert allow_list.closes_all(target, body, is_json=is_json) is everything


def test_lines_of_a_multi_search_are_pairs():
    pairs = multi.read_pairs(b'\n{"index":"i"}\n{"size":1}\n\n{}\n')
    assert [pair.header for pair in pairs] == [b'{"index":"i"}', b""]
    assert multi.write_pairs(pairs) == b'{"index":"i"}\n{"size":1}\n\n{}\n'
    for broken in (b"", b"{}", b"{}\n", b"{}\n{}", b"{}\n{}\n" * 201,
                   b"{}\n{}\n{}\n \n"):
        with pytest.raises(UnreadableError):
            multi.read_pairs(broken)


def test_pair_of_lines_becomes_a_search_and_a_pair_again():
    request = HttpRequest("POST", "/_msearch?typed_keys", (("X-A", "1"),), b"")
    pair = multi.LinePair(b'{"index":["a b","c"],"routing":"r"}', b'{"size":1}')
    search = multi.as_search(pair, request, parse(request.target))
    assert search.target == "/a%20b,c/_search?typed_keys"
    again = multi.as_pair(HttpRequest("POST", search.target + "&preference=p", (), b"{}"), pair)
    assert json.loads(again.header) == {"index": ["a b", "c"], "routing": "r", "preference": "p"}


def test_template_is_rendered_only_where_its_search_could_be_personalised():
    def reason(body: bytes, *sent: tuple[str, str], kind: str = "application/json",
               parameters: str = "") -> SkipReason | None:
        request = HttpRequest("POST", f"/i/_search/template{parameters}",
                              (*sent, ("Content-Type", kind)), body)
        return templates.reason_to_pass(request, templates.take_template_apart(request), Settings())

    user = ("X-Personalize-User", "u1")
    assert reason(b'{"source":"{}"}') is SkipReason.ANONYMOUS
    assert reason(b'{"source":"{}"}', user, ("X-Personalize", "off")) is SkipReason.DISABLED
    assert reason(b'{"source":"{}"}', user) is None
    assert reason(b'{"id":"stored"}') is None
    assert reason(b'{"source":{"ext":{}}}') is None
    assert reason(b'{"source":"{}"}', user, kind="application/yaml") is SkipReason.FORMAT
    assert reason(b'{"source":"{}"}', user, parameters="?format=yaml") is SkipReason.FORMAT
    assert reason(b'{"source":"{}"}', user, parameters="?from=3") is SkipReason.UNREADABLE
    assert reason(b'{"source":"{}"}', user, parameters="?typed_keys") is None


def test_rendered_template_carries_flags_and_the_block_beside_it():
    body = b'{"source":"{}","explain":true,"ext":{"personalize":{"weight":0.50}}}'
    request = HttpRequest("POST", "/i/_search/template?pretty", (), body)
    template = templates.take_template_apart(request)
    assert template.untouched.body == b'{"source":"{}","explain":true}'
    assert template.rendering.body == b'{"source":"{}"}'
    search = templates.rendered_search(request, template, b'{"template_output":{"size":1.0}}')
    assert search.body == b'{"size":1.0,"explain":true,"ext":{"personalize":{"weight":0.5}}}'
    with pytest.raises(UnreadableError):
        templates.rendered_search(request, template, b"{}")
