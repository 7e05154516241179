"""The event log's columns: order, times that are unknown, visits, users."""

from __future__ import annotations

import numpy as np
import pytest

from sidecar.ranking.kinds import strength
from sidecar.records import Event
from sidecar.training.event_table import VISIT_GAP_S, EventTable

ROWS = {"a": 0, "b": 1, "c": 2}


def log_of(*events: Event) -> EventTable:
    return EventTable.from_events(events, ROWS)


def test_events_are_sorted_by_time_and_stay_in_file_order_at_one_time():
    log = log_of(Event("u", "view", "c", 9.0), Event("u", "view", "b", 5.0),
                 Event("v", "view", "a", 5.0), Event("u", "view", "a", 5.0))
    assert log.item.tolist() == [1, 0, 0, 2]
    assert [log.users[u] for u in log.user] == ["u", "v", "u", "u"]
    assert log.has_times


def test_events_without_times_keep_the_file_s_order():
    log = log_of(*(Event("u", "view", item) for item in "cab"))
    assert log.item.tolist() == [2, 0, 1]
    assert (np.diff(log.ts) > 0).all()
    assert not log.has_times


def test_event_without_time_comes_after_the_one_before_it():
    log = log_of(Event("u", "view", "a", 100.0), Event("u", "view", "b"),
                 Event("u", "view", "c", 200.0))
    assert log.item.tolist() == [0, 1, 2]
    assert log.ts[0] < log.ts[1] < log.ts[2]


def test_unknown_items_and_searches_have_no_row_and_unknown_ones_are_counted():
    log = log_of(Event("u", "view", "gone", 1.0), Event("u", "search", None, 2.0, "cup"))
    assert log.item.tolist() == [-1, -1]
    assert log.unknown_items == 1
    assert log.until(1.0).unknown_items == 0  # what comes later is not looked at
    assert [log.queries[q] if q >= 0 else None for q in log.query] == [None, "cup"]


def test_visit_is_the_session_then_the_order_then_a_run_of_events():
    log = log_of(Event("u", "purchase", "a", 0.0, order_id="o"),
                 Event("u", "purchase", "b", 1.0, order_id="o"),
                 Event("u", "view", "a", 2.0, session_id="s"),
                 Event("u", "view", "a", 3.0), Event("u", "view", "a", 4.0),
                 Event("u", "view", "a", 5.0 + VISIT_GAP_S),
                 Event("v", "view", "a", 6.0 + VISIT_GAP_S),
                 Event("v", "view", "a", 7.0 + VISIT_GAP_S, session_id="s"))
    visit = log.visit.tolist()
    assert visit[0] == visit[1]
    assert visit[3] == visit[4]
    assert len({visit[0], visit[2], visit[3], visit[5], visit[6], visit[7]}) == 6


def test_visits_without_times_are_no_longer_than_a_basket_however_the_file_is_sorted():
    """One second a line says nothing: a file sorted by user would make each history one visit."""
    grouped = log_of(*(Event(user, "purchase", "a") for user in "uv" for _ in range(25)))
    mixed = log_of(*(Event(user, "purchase", "a") for _ in range(25) for user in "uv"))
    for log in (grouped, mixed):
        assert sorted(np.bincount(log.visit).tolist()) == [5, 5, 10, 10, 10, 10]
    named = log_of(*(Event("u", "purchase", "a", session_id="s") for _ in range(25)))
    assert len(set(named.visit.tolist())) == 1


@pytest.mark.parametrize(("browsing", "ids"), [
    ({"session_id": "s"}, {"session_id": "s", "order_id": "o"}),
    ({"session_id": "s"}, {"session_id": "s"}), ({"session_id": "s"}, {"order_id": "o"}),
    ({}, {"order_id": "o"}), ({}, {})], ids=str)
def test_purchase_answers_the_search_of_its_visit_whatever_ids_are_logged(browsing, ids):
    """Shops give a session to what is browsed and an order to what is bought, or both to that."""
    log = log_of(Event("u", "search", None, 1.0, "cup", **browsing),
                 Event("v", "search", None, 2.0, "lamp"),
                 Event("u", "view", "a", 10.0, **browsing),
                 Event("u", "purchase", "a", 20.0, **ids), Event("u", "purchase", "b", 21.0, **ids),
                 Event("u", "purchase", "c", 30.0 + VISIT_GAP_S, order_id="later"))
    visit = log.visit.tolist()
    assert visit[0] == visit[2] == visit[3] == visit[4]
    assert len({visit[0], visit[1], visit[5]}) == 3
    asked = [log.queries[code] if code >= 0 else None for code in log.asked()]
    assert asked == ["cup", "lamp", "cup", "cup", "cup", None]


def test_purchase_answers_the_search_of_its_own_session_where_two_run_side_by_side():
    log = log_of(Event("u", "search", None, 1.0, "cup", session_id="laptop"),
                 Event("u", "search", None, 10.0, "lamp", session_id="phone"),
                 Event("u", "view", "c", 20.0, session_id="tablet"),
                 Event("u", "purchase", "a", 60.0, session_id="laptop"),
                 Event("u", "purchase", "b", 70.0, session_id="phone"),
                 Event("u", "purchase", "b", 70.0 + VISIT_GAP_S, session_id="laptop"))
    asked = [log.queries[code] if code >= 0 else None for code in log.asked()]
    assert asked == ["cup", "lamp", None, "cup", "lamp", None]


def test_orders_are_visits_of_their_own_where_nothing_else_is_logged():
    log = log_of(*(Event("u", "purchase", "a", float(k), order_id=f"o{k // 2}") for k in range(6)))
    assert log.visit.tolist() == [0, 0, 1, 1, 2, 2]


def test_event_that_is_there_twice_counts_once_and_is_told(caplog):
    """As it does where it is sent to a sidecar twice: ids are unique across all users."""
    log = log_of(Event("u", "purchase", "a", 1.0, event_id="1"),
                 Event("u", "purchase", "b", 2.0, event_id="2"),
                 Event("u", "purchase", "a", 1.0, event_id="1"),
                 Event("v", "purchase", "c", 3.0, event_id="2"),
                 Event("u", "view", "a", 4.0), Event("u", "view", "a", 4.0))
    assert log.item.tolist() == [0, 1, 0, 0]
    assert log.users == ["u"]
    assert caplog.messages == ["2 events left out: their event_id came before"]


def test_position_below_zero_is_unknown():
    """Some systems write -1 for none; as 0 it was the best place of the page."""
    log = log_of(*(Event("u", "impression", "a", 1.0, "cup", position=position)
                   for position in (-1, None, 0, 3, -7, 10**6)))
    assert log.position.tolist() == [-1, -1, 0, 3, -1, 9999]


def test_until_is_strictly_before():
    log = log_of(*(Event("u", "view", "a", float(ts)) for ts in (1, 2, 2, 3)))
    assert log.until(2.0).ts.tolist() == [1.0]
    assert len(log.until(99.0)) == 4
    assert len(log.until(0.0)) == 0


def test_by_user_lays_out_each_user_s_events_in_order_of_time():
    log = log_of(Event("u", "view", "a", 1.0), Event("v", "view", "b", 2.0),
                 Event("u", "view", "c", 3.0))
    order, offsets = log.by_user()
    assert log.item[order].tolist() == [0, 2, 1]
    assert offsets.tolist() == [0, 2, 3]


def test_no_events_are_an_empty_log():
    log = log_of()
    assert len(log) == 0
    assert log.target_kinds() == frozenset()


def test_strength_and_kind_of_each_event_are_those_of_its_word():
    log = log_of(Event("u", "purchase", "a", 1.0), Event("u", "return", "a", 2.0),
                 Event("u", "transaction", "b", 3.0), Event("u", "view", "b", 4.0))
    assert log.strengths().tolist() == [np.float32(strength(word)) for word in
                                        ("purchase", "return", "purchase", "view")]
    assert log.is_positive().tolist() == [True, False, True, True]
    assert log.is_among(frozenset({"purchase"})).tolist() == [True, False, True, False]
    assert log_of().is_positive().tolist() == log_of().is_among(frozenset()).tolist() == []
