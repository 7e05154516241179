"""The same search with a changed history: parts add up, and what was left out is what changes."""

from __future__ import annotations

import numpy as np
import pytest

from sidecar.records import Candidates, Event, SkipReason
from sidecar.serving.counterfactual import (
    Replay,
    WindowOrder,
    added,
    differences,
    history_of,
    positions_of_item,
    without,
)
from tests.shops import DAY_S, START, context, fresh_ranker, make_events, make_rows, window

ROWS = make_rows()
CUPS = tuple(f"i{k}" for k in range(0, 60, 6))
NOW = START + 200 * DAY_S
EVENTS = [event for event in make_events(ROWS) if event.user_id == "u1"]
HISTORY = history_of("u1", EVENTS, 500)


@pytest.fixture(scope="module")
def replay():
    return Replay(fresh_ranker(), window(CUPS), context(explain=True, now=NOW))


def test_every_hits_parts_add_up_to_its_score(replay):
    for entry in replay.show(HISTORY).entries():
        assert sum(entry["parts"].values()) == pytest.approx(entry["score"], abs=1e-4)
        assert entry["item_id"] in CUPS


def test_history_is_what_a_sidecar_would_keep():
    shown_only = Event("u1", "impression", CUPS[0], START)
    late = Event("u1", "view", CUPS[1], EVENTS[0].ts - 1.0)
    history = history_of("u1", [*EVENTS, shown_only, late], 500)
    assert (history.item_ids[0], len(history)) == (CUPS[1], len(EVENTS) + 1)
    assert len(history_of("u1", EVENTS, 10)) == 10


def test_purchase_put_in_lifts_its_item_and_taken_out_again_changes_nothing(replay):
    item = replay.show(HISTORY).entries()[-1]["item_id"]
    before = replay.show(HISTORY)
    bought = [Event("u1", "purchase", item, NOW - days * DAY_S) for days in (30, 20, 10)]
    richer = added(HISTORY, bought)
    found = {hit["item_id"]: hit for hit in differences(before, replay.show(richer))}
    assert found[item]["move"] > 0
    assert found[item]["parts"]["repeat"] > 0
    assert max(found, key=lambda one: found[one]["parts"].get("repeat", 0.0)) == item
    again = without(richer, positions_of_item(richer, item)[-3:])
    assert again.item_ids == HISTORY.item_ids
    assert all(hit["move"] == 0 and not hit["parts"]
               for hit in differences(before, replay.show(again)))


def test_changed_parts_add_up_to_the_changed_score(replay):
    richer = added(HISTORY, [Event("u1", "purchase", CUPS[3], NOW - DAY_S)])
    for hit in differences(replay.show(HISTORY), replay.show(richer)):
        change = hit["score"]["after"] - hit["score"]["before"]
        assert sum(hit["parts"].values()) == pytest.approx(change, abs=1e-4)
        assert hit["move"] == hit["rank"]["before"] - hit["rank"]["after"]


def test_item_that_is_two_hits_is_compared_hit_by_hit():
    """One id in two indices: each of its hits has a place, and parts, of its own."""
    shown = Replay(fresh_ranker(), window((CUPS[0], *CUPS)), context(explain=True, now=NOW)).show(
        HISTORY)
    found = differences(shown, shown)
    assert sorted(hit["engine_rank"] for hit in found) == list(range(1, len(CUPS) + 2))
    assert all(hit["move"] == 0 and not hit["parts"] for hit in found)


def test_added_events_take_their_place_in_time():
    middle = (HISTORY.ts[3] + HISTORY.ts[4]) / 2
    richer = added(HISTORY, [Event("u1", "view", "i5", middle)])
    assert richer.item_ids[4] == "i5"
    assert list(richer.ts) == sorted(richer.ts)
    longer = added(HISTORY, [Event("u1", "view", "i5", HISTORY.ts[0] - 1.0)])
    assert longer.item_ids == ("i5", *HISTORY.item_ids)


def test_without_any_event_the_order_is_the_engines(replay):
    empty = replay.show(without(HISTORY, range(len(HISTORY))))
    assert empty.reason is SkipReason.NO_HISTORY
    assert [entry["item_id"] for entry in empty.entries()] == list(CUPS)
    assert all(entry["score"] is None and not entry["parts"] for entry in empty.entries())
    found = differences(replay.show(HISTORY), empty)
    assert [hit["rank"]["after"] for hit in found] == list(range(1, len(CUPS) + 1))
    assert all(hit["score"]["after"] is None for hit in found)


def test_engine_score_that_json_lacks_is_told_as_none():
    scores = np.array([np.inf, np.nan, 1.5], np.float32)
    shown = WindowOrder(Candidates(CUPS[:3], scores), HISTORY, None, SkipReason.NO_HISTORY)
    assert [entry["engine_score"] for entry in shown.entries()] == [None, None, 1.5]


def test_influences_are_what_leaving_the_item_out_changes(replay):
    history = added(HISTORY, [Event("u1", "purchase", CUPS[0], NOW - DAY_S),
                              Event("u1", "search", None, NOW - DAY_S, "cup")])
    shown = replay.show(history)
    told = replay.influences(shown)
    assert len(told) == len(CUPS)
    assert any(told)
    for k, influences in enumerate(told):
        changes = [abs(one["change"]) for one in influences]
        assert changes == sorted(changes, reverse=True)
        for one in influences:
            if one["item_id"] is None:
                continue
            left = without(history, positions_of_item(history, one["item_id"]))
            score = replay.show(left).ranking.scores[k]
            assert one["change"] == pytest.approx(float(shown.ranking.scores[k] - score), abs=1e-3)
            assert one["times"] == len(positions_of_item(history, one["item_id"]))
    own = told[0][0]
    assert (own["item_id"], own["event"]) == (CUPS[0], "purchase")


def test_only_event_of_a_history_has_no_score_to_compare_with(replay):
    history = history_of("u1", [Event("u1", "purchase", CUPS[0], NOW - DAY_S)], 500)
    shown = replay.show(history)
    assert shown.ranking is not None
    assert replay.influences(shown) == [[] for _ in CUPS]
    assert replay.influences(replay.show(history_of("u1", [], 500))) == [[] for _ in CUPS]


def test_hit_without_a_score_is_told_without_one():
    candidates = window(CUPS)
    candidates.engine_scores[2] = np.nan
    shown = Replay(fresh_ranker(), candidates, context(explain=True, now=NOW)).show(
        history_of("u1", [], 500))
    assert shown.entries()[2]["engine_score"] is None
