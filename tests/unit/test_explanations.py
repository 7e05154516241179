"""What ``ext.personalize`` says about a page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sidecar.records import Candidates, Ranking, SkipReason
from sidecar.serving import explanations

CANDIDATES = Candidates(("a", "b", "c"), np.array([3.0, 2.0, np.nan], np.float32))
PARTS = {"engine": np.array([0.5, 0.25, 0.0], np.float32),
         "interest": np.array([0.0, 0.5, 0.125], np.float32)}
RANKING = Ranking(np.array([1, 0, 2]), PARTS["engine"] + PARTS["interest"], PARTS,
                  ((), ("bought 3 times",), ()), 17, "v1")


def test_hits_are_explained_in_shown_order():
    told = explanations.applied(RANKING, CANDIDATES, [1, 0], ["p", "p", "p"])
    assert told["applied"] is True
    assert (told["state"], told["model"]) == (17, "v1")
    assert told["hits"][0] == {
        "_index": "p", "_id": "b", "engine_rank": 2, "engine_score": 2.0, "rank": 1, "score": 0.75,
        "parts": {"engine": 0.25, "interest": 0.5}, "events": ["bought 3 times"]}
    assert [hit["_id"] for hit in told["hits"]] == ["b", "a"]


def test_parts_add_up_to_the_score():
    for entry in explanations.entries(RANKING, CANDIDATES, [0, 1, 2]):
        assert sum(entry["parts"].values()) == pytest.approx(entry["score"], abs=1e-5)


def test_missing_engine_score_is_null_not_nan():
    entry = explanations.entries(RANKING, CANDIDATES, [2])[0]
    assert entry["engine_score"] is None
    json.dumps(entry, allow_nan=False)


def test_empty_page_and_bare_ranking_are_explained():
    assert explanations.entries(RANKING, CANDIDATES, []) == []
    bare = Ranking(np.array([0]), np.zeros(1, np.float32))
    entry = explanations.entries(bare, Candidates(("a",), np.ones(1, np.float32)), [0])[0]
    assert (entry["parts"], entry["events"]) == ({}, [])


def test_skip_is_told_with_its_reason():
    assert explanations.told(SkipReason.SORT) == {
        "applied": False, "reason": "sort", "state": -1, "model": None}
