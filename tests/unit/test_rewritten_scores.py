"""What ``SIDECAR_REWRITE_SCORES`` shows: scores that never rise down the order, the same on every
page."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from sidecar.records import Ranking
from sidecar.search.targets import Endpoint
from sidecar.serving.pages import rewritten_scores
from tests.unit.test_search_counts import path_over, search, whole

NAN = float("nan")


def ranked(*scores: float) -> Ranking:
    given = np.array(scores, np.float32)
    return Ranking(np.argsort(-given, kind="stable"), given)


def shown(first: int, size: int, window: int = 5) -> dict[str, Any]:
    path = path_over(whole, rewrite_scores=True, window=window, item_id_field="")
    body = json.dumps({"from": first, "size": size}).encode()
    return json.loads(path.answer(Endpoint.SEARCH, search(body)).body)["hits"]


def scores_of(hits: dict[str, Any]) -> list[float]:
    return [hit["_score"] for hit in hits["hits"]]


def test_scores_never_rise_over_the_windows_edge():
    hits = shown(0, 8)
    scores = scores_of(hits)
    assert scores == sorted(scores, reverse=True)
    assert scores[5:] == [95.0, 94.0, 93.0], "behind the window the engine's stay"
    assert hits["max_score"] == scores[0]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_show_the_scores_of_one_list(size):
    whole_list = shown(0, 8)
    for first in range(5):
        page = shown(first, size)
        assert scores_of(page) == scores_of(whole_list)[first:first + size]
        assert page["max_score"] == whole_list["max_score"]


def test_blended_scores_stand_as_they_are_where_nothing_can_follow_or_all_is_below():
    assert rewritten_scores(ranked(0.5, 2.0), (9.0, 8.0), 3).tolist() == [0.5, 2.0]
    assert rewritten_scores(ranked(8.5, 9.0), (9.0, 8.0, 7.0), 2).tolist() == [8.5, 9.0]
    assert rewritten_scores(ranked(0.5, 2.0), (NAN, NAN, NAN), 2).tolist() == [0.5, 2.0]


def test_constant_keeps_distances_and_clears_a_score_that_json_writes_shorter():
    """95.1 as a float is a little less than the 95.1 that the hit behind the window shows."""
    found = rewritten_scores(ranked(-1.0, 0.5), (NAN, 95.1, 95.1), 2)
    assert found[1] - found[0] == pytest.approx(1.5)
    assert float(np.float32(found.min())) > 95.1
