"""The compiled reader of ids: equal to the general one, and out of the way where it cannot be."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import UnreadableError
from sidecar.search import answers
from sidecar.search.answers import Answer, IdAnswer
from sidecar.search.id_hits import find_id_hits

NAMES = st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cc", "Cs"]),
                min_size=1, max_size=8)
SCORES = st.none() | st.floats(0, 1e6, width=32)


def hit(item_id="a", score=1.5, index="i", seq_no=3, **more):
    return {"_index": index, "_score": score, "_seq_no": seq_no, "_primary_term": 1,
            "fields": {"item_id": [item_id]}} | more


def body(*hits, **more):
    whole = {"took": 1, "_shards": {"failed": 0}, "hits": {"max_score": 1, "hits": hits}} | more
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()


def read(text, most=100):
    return answers.read_ids(text, "item_id", most)


def shown(answer):
    scores = [None if math.isnan(score) else score for score in answer.scores]
    return (answer.keys, scores, answer.versions, answer.with_hits([b"1", b"2"]),
            tuple(answer.candidates(2).item_ids), answer.are_distinct,
            [answer.told([place])[0][:2] for place in range(len(answer))])


@given(st.lists(st.tuples(NAMES, SCORES, NAMES, st.integers(0, 2**60)), min_size=1, max_size=12))
def test_reads_what_the_general_reader_reads(rows):
    text = body(*(hit(item_id, score, index, seq_no) for item_id, score, index, seq_no in rows),
                aggregations={"a": {"hits": {"hits": [hit("other")]}}})
    fast = read(text)
    assert isinstance(fast, IdAnswer | Answer)
    assert shown(fast) == shown(answers.read_ids(text, "item_id"))


def test_scores_have_every_digit():
    scores = np.random.default_rng(1).gamma(2.0, 5.0, 200).astype(np.float32)
    text = body(*(hit(str(n), float(str(score))) for n, score in enumerate(scores)))
    found = find_id_hits(text, b"item_id", 200)
    assert found is not None
    assert found.scores.tolist() == [float(str(score)) for score in scores]


def test_hits_without_versions_have_none():
    bare = {"_index": "i", "_score": 2.0, "fields": {"item_id": ["a"]}}
    answer = read(body(bare))
    assert isinstance(answer, IdAnswer)
    assert (answer.versions, answer.version(0)) == ((), None)


@pytest.mark.parametrize(("again", "are_distinct"), [
    (hit("b"), True), (hit("a", index="j"), True), (hit("a", score=9.0), False)])
def test_hit_that_stands_twice_is_noticed(again, are_distinct):
    answer = read(body(hit("a"), again))
    assert isinstance(answer, IdAnswer)
    assert answer.are_distinct is are_distinct


@pytest.mark.parametrize("text", [
    body(),
    body(hit('quoted "id"')),
    body(hit(), hit("b", _source={"title": "milk"})),
    body(hit(), hit("b", score=1e-7)),
    json.dumps(json.loads(body(hit()))).encode(),
    json.dumps(json.loads(body(hit())), indent=2).encode(),
], ids=["no-hits", "escape", "another-member", "exponent", "spaces", "pretty"])
def test_unexpected_looks_are_left_to_the_general_reader(text):
    assert find_id_hits(text, b"item_id", 100) is None
    assert shown(read(text)) == shown(answers.read_ids(text, "item_id"))


def test_more_hits_than_asked_for_are_left_to_the_general_reader():
    text = body(hit("a"), hit("b"))
    assert find_id_hits(text, b"item_id", 1) is None
    assert len(read(text, most=1)) == 2


@pytest.mark.parametrize("text", [
    body(hit(fields={"item_id": ["a", "b"]})), body(hit(fields={"other": ["a"]})),
    body(hit(), _shards={"failed": 1}), body(hit(), hit("b"))[:-20], body(hit())[:-1]])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(UnreadableError):
        read(text)


@given(st.binary(max_size=40), st.integers(0, 120))
@example(b" ", 67)  # a key that looks like _index at a glance
def test_broken_bytes_never_pass_for_hits_that_json_does_not_hold(noise, at):
    text = body(hit("a"), hit("b"))
    broken = text[:at] + noise + text[at + len(noise):]
    try:
        fast = read(broken)
    except UnreadableError:
        return
    if isinstance(fast, Answer):
        return
    try:
        general = answers.read_ids(broken, "item_id")
    except UnreadableError:
        return  # the general reader also looks at members that nobody uses here
    assert fast.keys == general.keys
