"""A history is a function of the events taken, whatever the order and number of deliveries."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from sidecar.records import Event, History, UserState
from sidecar.serving.histories import KEPT_QUERY_CHARS, grow


def event(event_id: str, ts: float, item_id: str | None = "i", word: str = "view",
          query: str | None = None) -> Event:
    return Event("u", word, item_id, ts, query, event_id)


def take(state: UserState, *events: Event, limit: int = 3) -> UserState:
    growth = grow(state, events, limit)
    return dataclasses.replace(state, history=growth.history,
                               event_count=state.event_count + growth.added)


def kept(*events: Event, limit: int = 3) -> UserState:
    return take(UserState("u"), *events, limit=limit)


def test_events_in_order_are_appended() -> None:
    state = kept(event("a", 1.0))
    growth = grow(state, [event("b", 2.0, "j", "click", "milk")], 3)
    assert growth.history == History(("i", "j"), ("view", "click"), (1.0, 2.0), (None, "milk"),
                                     ("a", "b"))
    assert growth.appended is not None
    assert growth.appended.event_ids == ("b",)
    assert (growth.added, growth.duplicates) == (1, frozenset())


def test_window_holds_limit_events_and_not_one_more() -> None:
    assert kept(*(event(str(n), n) for n in range(3))).history.event_ids == ("0", "1", "2")
    assert kept(*(event(str(n), n) for n in range(4))).history.event_ids == ("1", "2", "3")


def test_late_event_is_put_in_its_place_and_the_encoder_starts_over() -> None:
    growth = grow(kept(event("a", 1.0), event("c", 3.0)), [event("b", 2.0)], 5)
    assert growth.history.event_ids == ("a", "b", "c")
    assert growth.appended is None


def test_events_of_equal_time_stay_in_order_of_arrival() -> None:
    state = kept(event("b", 1.0), event("a", 1.0), limit=5)
    assert take(state, event("0", 1.0), limit=5).history.event_ids == ("b", "a", "0")


def test_repeated_id_is_counted_and_changes_nothing() -> None:
    state = kept(event("a", 1.0))
    growth = grow(state, [event("a", 1.0), event("b", 2.0), event("b", 2.0)], 3)
    assert growth.history.event_ids == ("a", "b")
    assert (growth.added, growth.duplicates) == (1, {0, 2})


def test_event_before_a_full_window_changes_nothing() -> None:
    state = kept(*(event(str(n), n) for n in (5, 6, 7)))
    growth = grow(state, [event("old", 4.0)], 3)
    assert (growth.history, growth.added) == (state.history, 0)


def test_event_that_has_left_the_window_does_not_come_back() -> None:
    events = [event(str(n), n) for n in range(5)]
    state = kept(*events)
    assert take(state, *events) == state
    assert take(state, event("1", 1.0), limit=100) == state, "a wider window brings none back"


def test_repeated_event_as_old_as_the_window_does_not_come_back() -> None:
    """At equal times the id alone tells a repetition, and the id has left with the event."""
    events = [event(str(n), 1.0) for n in range(4)]
    state = kept(*events)
    assert take(state, events[0]) == state


def test_impressions_and_events_about_nothing_leave_no_trace() -> None:
    state = kept(event("a", 1.0, word="impression"), event("b", 1.0, item_id=None, word="login"),
                 event("d", 2.0, word="view_item_list"))
    assert state.history == History()
    assert kept(event("c", 1.0, item_id=None, word="search", query="milk")).history.queries == (
        "milk",)


def test_long_query_is_kept_cut() -> None:
    state = kept(event("a", 1.0, query="q" * (KEPT_QUERY_CHARS + 1)))
    assert state.history.queries == ("q" * KEPT_QUERY_CHARS,)


def test_no_events_change_nothing() -> None:
    growth = grow(UserState("u"), [], 3)
    assert (growth.history, growth.added, growth.duplicates) == (History(), 0, frozenset())


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 6), st.data())
def test_any_order_and_any_repetition_give_the_same_window(
        times: list[int], limit: int, data: st.DataObject) -> None:
    """Deliveries in any order, in any batches, any number of times: the newest events are kept."""
    distinct = sorted(set(times))
    events = [event(str(ts), float(ts)) for ts in distinct]
    deliveries = data.draw(st.permutations(events + events[::2]))
    size = data.draw(st.integers(1, 5))
    state = UserState("u")
    for start in range(0, len(deliveries), size):
        state = take(state, *deliveries[start:start + size], limit=limit)
    assert state.history.ts == tuple(float(ts) for ts in distinct[-limit:])
