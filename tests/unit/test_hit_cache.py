"""Kept hits: only for the version that was seen, only for a request of the same shape."""

from __future__ import annotations

import json

import pytest

from sidecar.records import HttpRequest
from sidecar.search import answers, hit_bytes
from sidecar.search.requests import take_apart
from sidecar.search.shapes import hit_shape
from sidecar.search.targets import parse
from sidecar.serving.hit_cache import HitCache, KeptHits


def search(body=None, target="/products/_search", **headers):
    request = HttpRequest("POST", target, tuple(headers.items()),
                          json.dumps(body or {"query": {"match_all": {}}}).encode())
    return take_apart(request, parse(target))


def spelt(body, target="/products/_search"):
    return take_apart(HttpRequest("POST", target, (), body), parse(target))


def ids_answer(seq_no=5, score=1.5, index="products-1"):
    hit = {"_index": index, "_score": score, "_seq_no": seq_no, "_primary_term": 1,
           "fields": {"item_id": ["a"]}}
    return answers.read_ids(json.dumps({"hits": {"hits": [hit]}}).encode(), "item_id")


def fetched(seq_no=5, score=1.5, title="milk"):
    return (f'{{"_index":"products-1","_id":"a","_seq_no":{seq_no},"_primary_term":1,'
            f'"_score":{score},"_source":{{"title":"{title}"}}}}').encode()


def taken(kept, answer, hit):
    return kept.taken(answer, {0: hit})[0]


@pytest.fixture
def uuids():
    return {"products-1": "u1"}


@pytest.fixture
def cache(uuids):
    return HitCache(uuids.get)


def test_kept_hit_is_what_was_fetched_with_the_new_score(cache):
    kept = KeptHits(cache, search())
    shown = taken(kept, ids_answer(), fetched())
    assert shown == b'{"_index":"products-1","_id":"a","_score":1.5,"_source":{"title":"milk"}}'
    again = KeptHits(cache, search({"query": {"match": {"title": "x"}}}))
    assert again.get(ids_answer(score=2.25), [0]) == {0: shown.replace(b"1.5", b"2.25")}


def test_written_document_is_fetched_anew(cache):
    kept = KeptHits(cache, search())
    taken(kept, ids_answer(seq_no=5), fetched(seq_no=5))
    assert kept.get(ids_answer(seq_no=6), [0]) == {}


def test_hit_of_another_version_than_was_ranked_is_not_taken(cache):
    kept = KeptHits(cache, search())
    assert kept.taken(ids_answer(seq_no=5), {0: fetched(seq_no=6)}) is None
    assert kept.get(ids_answer(seq_no=6), [0]) == {}


def test_index_that_came_back_under_its_name_is_another_one(cache, uuids):
    kept = KeptHits(cache, search())
    taken(kept, ids_answer(), fetched())
    uuids["products-1"] = "u2"
    assert kept.get(ids_answer(), [0]) == {}


def test_index_whose_uuid_is_not_known_is_not_kept(cache):
    kept = KeptHits(cache, search())
    taken(kept, ids_answer(index="other"), fetched())
    assert kept.get(ids_answer(index="other"), [0]) == {}


@pytest.mark.parametrize("score", [None, 0.0, 1e-4, 1e7])
def test_scores_that_would_be_written_differently_are_not_put_in(cache, score):
    kept = KeptHits(cache, search())
    taken(kept, ids_answer(), fetched())
    assert kept.get(ids_answer(score=score), [0]) == {}


@pytest.mark.parametrize("other", [
    search({"query": {"match_all": {}}, "_source": ["title"]}),
    search(target="/products/_search?_source=false"),
    search(target="/products/_search?version=true"),
    search(Authorization="Basic b3RoZXI="),
    search(securitytenant="b"),
])
def test_request_of_another_shape_or_client_gets_its_own(cache, other):
    taken(KeptHits(cache, search()), ids_answer(), fetched())
    kept = KeptHits(cache, other)
    assert kept.get(ids_answer(), [0]) == {}


@pytest.mark.parametrize("other", [
    search({"query": {"match_all": {}}, "highlight": {"fields": {"title": {}}}}),
    search({"query": {"match_all": {"_name": "all"}}}),
    search({"query": {"match_all": {}}, "script_fields": {}}),
    search({"query": {"match_all": {}}, "fields": ["title"]}),
    search({"query": {"match_all": {}}, "docvalue_fields": ["alias_of_price"]}),
    search({"query": {"wrapper": {"query": "eyJtYXRjaF9hbGwiOnt9fQ=="}}}),
    search({"query": {"percolate": {"field": "query", "document": {}}}}),
    spelt(b'{"query":{"match_all":{"\\u005fname":"all"}}}'),
    search({"query": {"match_all": {}}, "something_new": 1}),
    search(target="/products/_search?pretty"),
    search(target="/products/_search?q=milk"),
])
def test_request_that_may_write_hits_in_another_way_is_not_kept(cache, other):
    assert hit_shape(other) is None
    kept = KeptHits(cache, other)
    assert b'"title":"milk"' in taken(kept, ids_answer(), fetched())
    assert kept.get(ids_answer(), [0]) == {}


def test_word_in_another_script_is_kept_however_it_is_written(cache):
    assert hit_shape(spelt(
        b'{"query":{"match":{"title":"cr\\u00e8me d\\u0027or \\"br\\u00fbl\\u00e9e\\""}}}'))


@pytest.mark.parametrize("more", ['"matched_queries":["q"]', '"inner_hits":{}', '"highlight":{}',
                                  '"_something":1'])
def test_hit_that_holds_more_than_its_document_is_not_kept(cache, more):
    kept = KeptHits(cache, search())
    hit = fetched()[:-1] + b"," + more.encode() + b"}"
    assert more.encode() in taken(kept, ids_answer(), hit)
    assert kept.get(ids_answer(), [0]) == {}


def test_index_whose_documents_choose_their_shards_is_not_kept(cache):
    """Ids and versions are of one document only where the id says which shard it is in."""
    kept = KeptHits(cache, search())
    taken(kept, ids_answer(), fetched())
    assert kept.get(ids_answer(), [0])
    routed = fetched(title="another's").replace(b'"_source"', b'"_routing":"b","_source"')
    assert b"another's" in taken(kept, ids_answer(), routed)
    assert kept.get(ids_answer(), [0]) == {}
    taken(kept, ids_answer(), fetched())
    assert kept.get(ids_answer(), [0]) == {}


def test_client_that_asked_for_versions_keeps_them(cache):
    kept = KeptHits(cache, search({"query": {"match_all": {}}, "seq_no_primary_term": True}))
    assert taken(kept, ids_answer(), fetched()) == fetched()
    assert kept.get(ids_answer(), [0]) == {0: fetched()}


PLAIN = b'{"_index":"i","_id":"a","_seq_no":5,"_primary_term":1,"_score":1.5,"_source":{"a":[1]}}'


@pytest.mark.parametrize("hit", [
    PLAIN, PLAIN.replace(b'"_seq_no"', b'"_version":7,"_seq_no"'),
    PLAIN.replace(b'"_index"', b'"_shard":"[i][0]","_node":"n","_index"'),
    PLAIN.replace(b'"_id":"a"', b'"_id":"a\\"b"'),
    PLAIN.replace(b":", b" : ").replace(b",", b" , "),
    PLAIN.replace(b'"_source":{"a":[1]}', b'"sort":[1.5]'), PLAIN.replace(b"1.5", b"1.5E-5")])
@pytest.mark.parametrize("shows_version", [True, False])
def test_hits_are_taken_apart_alike_however_they_begin(hit, shows_version):
    found = hit_bytes.versioned(hit, shows_version=shows_version)
    assert found.version == (5, 1)
    assert found.hit == (hit if shows_version else hit_bytes.without_keys(
        hit, {"_seq_no", "_primary_term"}))
    score = json.loads(hit)["_score"]
    before, behind = found.around_score
    assert json.loads(before + b"9" + behind) == {**json.loads(found.hit), "_score": 9}
    assert before + hit[hit.index(b"1.5"):][:len(found.hit) - len(before + behind)] + behind == (
        found.hit)
    assert score == json.loads(found.hit)["_score"]


@pytest.mark.parametrize("hit", [
    PLAIN.replace(b"1.5", b"null"), PLAIN.replace(b'"_score":1.5,', b""),
    PLAIN.replace(b'"_primary_term":1,', b"")])
def test_hits_without_score_or_version_are_told_so(hit):
    found = hit_bytes.versioned(hit, shows_version=True)
    assert found.hit == hit
    assert (found.version is None) == (b"_primary_term" not in hit)
    assert (found.around_score is None) == (b"_score\":1.5" not in hit)


def test_memory_is_bounded(uuids):
    cache = HitCache(uuids.get, most_bytes=2000)
    kept = KeptHits(cache, search())
    for seq_no in range(50):
        taken(kept, ids_answer(seq_no), fetched(seq_no))
    assert sum(bool(kept.get(ids_answer(seq_no), [0])) for seq_no in range(50)) in range(1, 5)
