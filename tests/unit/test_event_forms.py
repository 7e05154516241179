"""Raw JSON events in either form become the same records, or say what is wrong with them."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import EventError
from sidecar.records import LONGEST_ID_BYTES
from sidecar.serving.event_forms import (
    MAX_AHEAD_S,
    MAX_POSITION,
    MAX_QUERY_CHARS,
    MAX_WORD_CHARS,
    parse_event,
    parse_query,
)
from sidecar.stores.ubi import event_document, query_document

NOW = 1_760_000_000.0
SHORT = {"user_id": "u", "item_id": "i", "event": "click", "ts": "2025-01-02T03:04:05"}


def short(**fields: Any) -> dict[str, Any]:
    return SHORT | fields


def test_short_form_names_every_field() -> None:
    event = parse_event(short(
        query="milk", event_id="e", session_id="s", order_id="o", quantity=2, unit_price=1.5,
        position=3, country="UK"), NOW)
    assert (event.user_id, event.item_id, event.event, event.ts) == ("u", "i", "click",
                                                                     1735787045.0)
    assert (event.query, event.event_id, event.session_id, event.order_id) == ("milk", "e", "s",
                                                                               "o")
    assert (event.quantity, event.unit_price, event.position) == (2.0, 1.5, 3)
    assert event.extra == {"country": "UK"}


def test_ubi_js_event_is_read_as_it_is_sent() -> None:
    """ubi.js sends user_id "", object ids as numbers and an empty position."""
    event = parse_event({
        "application": "shop", "action_name": "click", "query_id": "q-1", "session_id": "s-1",
        "client_id": "c-1", "user_id": "", "timestamp": "2025-01-02T03:04:05.000Z",
        "message_type": "INFO", "message": "", "event_attributes": {
            "object": {"object_id": 4711, "object_id_field": "item_id", "description": "Milk"},
            "position": {}}}, NOW)
    assert (event.user_id, event.item_id, event.event, event.position) == ("c-1", "4711", "click",
                                                                           None)
    assert event.ts == 1735787045.0
    assert event.extra["event_attributes"]["object"] == {"object_id_field": "item_id",
                                                         "description": "Milk"}


def test_time_under_ubis_name_is_no_event_of_now() -> None:
    event = parse_event({"user_id": "u", "event": "click", "item_id": "i",
                         "timestamp": "2025-01-02T03:04:05Z"}, NOW)
    assert (event.ts, event.extra) == (1735787045.0, {})


def test_column_named_as_ubis_leaves_the_short_form_what_it_is() -> None:
    """A shop's own column of that name took the item and the time with it."""
    event = parse_event(short(action_name="buy button"), NOW)
    assert (event.event, event.item_id, event.ts) == ("click", "i", 1735787045.0)
    assert event.extra == {"action_name": "buy button"}


def test_ubi_event_loses_nothing_on_its_way_to_the_log() -> None:
    raw = {"application": "shop", "action_name": "purchase", "query_id": "q", "session_id": "s",
           "client_id": "c", "user_id": "u", "timestamp": "2025-01-02T03:04:05.678Z",
           "message_type": "INFO", "message": "bought", "user_query": "milk",
           "event_attributes": {"object": {"object_id": "i", "object_id_field": "sku", "name": "M"},
                                "position": {"ordinal": 3, "x": 1, "y": 2}, "order_id": "o",
                                "quantity": 2.0, "unit_price": 1.5, "browser": "lynx"}}
    assert event_document(parse_event(raw, NOW)) == raw


def test_short_form_is_logged_in_ubi_form() -> None:
    document = event_document(parse_event(short(position=0, country="UK", query_id="q",
                                                quantity=2), NOW))
    assert document == {
        "action_name": "click", "user_id": "u", "timestamp": "2025-01-02T03:04:05.000Z",
        "query_id": "q", "event_attributes": {
            "object": {"object_id": "i"}, "position": {"ordinal": 0}, "quantity": 2.0,
            "country": "UK"}}


def test_names_unknown_to_ubi_move_into_the_free_object() -> None:
    """So a strict mapping of the top level refuses nothing that a client adds."""
    raw = {"action_name": "click", "client_id": "c", "extra_info": "x",
           "event_attributes": {"object": {"object_id": "i"}}}
    assert event_document(parse_event(raw, NOW))["event_attributes"]["extra_info"] == "x"


def test_query_log_entry_is_a_search_named_by_its_query_id() -> None:
    raw = {"application": "shop", "query_id": "q-1", "user_query": "milk", "client_id": "c",
           "object_id_field": "item_id", "timestamp": "2025-01-02T03:04:05.000Z",
           "message_type": "INFO", "message": "", "query_attributes": {"page": 1}}
    event = parse_query(raw, NOW)
    assert (event.event, event.query, event.event_id, event.user_id) == ("search", "milk", "q-1",
                                                                         "c")
    assert query_document(event) == raw | {"user_id": "c"}
    assert parse_query(raw | {"query_response_id": "r-1"}, NOW).event_id == "r-1"


def test_purchase_of_a_negative_quantity_is_a_return() -> None:
    event = parse_event(short(event="purchase", quantity=-2), NOW)
    assert (event.event, event.quantity) == ("return", -2.0)


def test_event_without_time_happens_now() -> None:
    event = parse_event({"user_id": "u", "item_id": "i", "event": "click"}, NOW)
    assert event.ts == NOW


def test_event_with_a_time_is_named_by_its_content() -> None:
    first, again = parse_event(short(), NOW), parse_event(short(), NOW + 5)
    assert first.event_id == again.event_id
    for change in ({"item_id": "j"}, {"user_id": "v"}, {"event": "view"}, {"query": "milk"},
                   {"ts": "2025-01-02T03:04:06"}, {"order_id": "o"}, {"quantity": 2}):
        assert parse_event(short(**change), NOW).event_id != first.event_id


def test_event_without_time_and_id_is_always_a_new_one() -> None:
    raw = {"user_id": "u", "item_id": "i", "event": "click"}
    assert parse_event(raw, NOW).event_id != parse_event(raw, NOW).event_id


@pytest.mark.parametrize(("given", "seconds"), [
    ("2025-01-02T03:04:05Z", 1735787045.0),
    ("2025-01-02T04:04:05+01:00", 1735787045.0),
    ("2025-01-02", 1735776000.0),
    (1735787045, 1735787045.0),
    (1735787045.5, 1735787045.5),
    (1735787045678, 1735787045.678),
    (0, 0.0),
    (NOW + MAX_AHEAD_S, NOW + MAX_AHEAD_S),
])
def test_times_are_iso_seconds_or_milliseconds(given: object, seconds: float) -> None:
    assert parse_event(short(ts=given), NOW).ts == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(("change", "reason"), [
    ({"ts": "yesterday"}, "ts is 'yesterday', must be ISO 8601"),
    ({"ts": True}, "ts is True, must be ISO 8601"),
    ({"ts": "1764340000"}, "ts is '1764340000', must be ISO 8601 in text, or a number of seconds"),
    ({"ts": -1}, "ts is -1, must be 1970 or later"),
    ({"ts": NOW + MAX_AHEAD_S + 1}, "more than a day ahead"),
    ({"ts": "9999-12-31T23:59:59Z"}, "more than a day ahead"),
    ({"user_id": ""}, "user_id is missing"),
    ({"user_id": None}, "user_id is missing"),
    ({"user_id": ["u"]}, "user_id is ['u'], must be text or a whole number"),
    ({"user_id": "u" * (LONGEST_ID_BYTES + 1)}, "user_id is longer than 512 bytes"),
    ({"user_id": "é" * (LONGEST_ID_BYTES // 2) + "e"}, "user_id is longer than 512 bytes"),
    ({"event_id": "e" * (LONGEST_ID_BYTES + 1)}, "event_id is longer than 512 bytes"),
    ({"item_id": 1.5}, "item_id is 1.5, must be text or a whole number"),
    ({"item_id": False}, "item_id is False, must be text or a whole number"),
    ({"event": ""}, "event is '', must be a word"),
    ({"event": 3}, "event is 3, must be a word"),
    ({"event": "e" * (MAX_WORD_CHARS + 1)}, "event has 101 characters, must have at most 100"),
    ({"query": 5}, "query is 5, must be text"),
    ({"query": "q" * (MAX_QUERY_CHARS + 1)}, "query has 8001 characters"),
    ({"quantity": "two"}, "quantity is 'two', must be a number"),
    ({"unit_price": 1e300}, "unit_price is 1e+300, must be a number"),
    ({"position": -1}, "position is -1, must be a whole number from 0"),
    ({"position": 1.5}, "position is 1.5, must be a whole number from 0"),
    ({"position": MAX_POSITION + 1}, "position is 2147483648, must be a whole number"),
])
def test_wrong_field_is_named_with_value_and_remedy(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(EventError) as raised:
        parse_event(short(**change), NOW)
    assert reason in str(raised.value)


@pytest.mark.parametrize("change", [
    {"user_id": "é" * (LONGEST_ID_BYTES // 2)}, {"event": "e" * MAX_WORD_CHARS},
    {"query": "q" * MAX_QUERY_CHARS}, {"position": MAX_POSITION}, {"user_id": 17850},
    {"quantity": -3}, {"event_id": "e" * LONGEST_ID_BYTES},
])
def test_values_at_their_bounds_are_taken(change: dict[str, Any]) -> None:
    parse_event(short(**change), NOW)


@pytest.mark.parametrize(("raw", "reason"), [
    (None, "event is null, must be an object"),
    ([1], "event is [1], must be an object"),
    ("click", "event is 'click', must be an object"),
    ({"user_id": "u"}, "event is missing; give event (short form) or action_name (UBI form)"),
    ({"action_name": "click", "client_id": "c", "event_attributes": 3},
     "event_attributes is 3, must be an object"),
    ({"action_name": "click", "client_id": "c", "event_attributes": {"object": "i"}},
     "event_attributes.object is 'i', must be an object"),
])
def test_other_shapes_are_refused(raw: object, reason: str) -> None:
    with pytest.raises(EventError) as raised:
        parse_event(raw, NOW)
    assert str(raised.value) == reason


def test_long_values_are_shown_cut() -> None:
    with pytest.raises(EventError) as raised:
        parse_event(short(item_id=["x" * 10_000]), NOW)
    assert len(str(raised.value)) < 150


def test_raw_event_is_left_as_it_was() -> None:
    raw = {"action_name": "click", "client_id": "c",
           "event_attributes": {"object": {"object_id": 1}, "position": {"ordinal": 2}}}
    parse_event(raw, NOW)
    assert raw["event_attributes"] == {"object": {"object_id": 1}, "position": {"ordinal": 2}}


def test_parsed_logged_and_parsed_again_is_the_same_event() -> None:
    """What training reads from the log is what the state was stepped with."""
    event = parse_event(short(query="milk", order_id="o", quantity=2, session_id="s", position=4,
                              country="UK"), NOW)
    again = parse_event(event_document(event) | {"event_id": event.event_id}, NOW)
    assert dataclasses.replace(again, extra={}) == dataclasses.replace(event, extra={})


_SCALARS = (st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
            | st.text(max_size=8) | st.sampled_from(["2025-01-02", "u", ""]))
_JSON = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3)
                     | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6)
_NAMES = st.sampled_from([
    "event", "action_name", "user_id", "client_id", "item_id", "ts", "timestamp", "query",
    "user_query", "event_id", "query_id", "session_id", "order_id", "quantity", "unit_price",
    "position", "event_attributes", "query_attributes", "object", "message", "x"])


@given(st.dictionaries(_NAMES, _JSON | st.dictionaries(_NAMES, _JSON, max_size=4), max_size=8))
@settings(max_examples=400)
def test_any_json_object_is_an_event_or_is_refused(raw: dict[str, Any]) -> None:
    """Nothing that a client can send raises anything else, and what is taken can be logged."""
    for parse, document in ((parse_event, event_document), (parse_query, query_document)):
        try:
            event = parse(raw | {"event": "click"}, NOW)
        except EventError:
            continue
        assert event.user_id
        assert event.event_id
        assert event.ts is not None
        assert msgspec.json.decode(msgspec.json.encode(document(event)))["user_id"] == event.user_id
