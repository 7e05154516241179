"""Readers of catalogue, events and cases files: what is taken, what is refused, and how it is said.

Real files in a temporary directory; no network.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.errors import FileError
from sidecar.records import Event, UserState
from sidecar.serving.event_forms import parse_event, parse_query
from sidecar.serving.histories import grow
from sidecar.stores import file_rows
from sidecar.stores.files import (
    RefusedRows,
    read_cases,
    read_catalogue,
    read_events,
    read_users,
    row_count_hint,
)
from sidecar.stores.ubi import event_document, query_document
from sidecar.training.event_table import EventTable

ITEM = {"item_id": "a", "title": "Oat milk", "brand": "Moo", "categories": ["dairy", "milk"]}
EVENT = {"user_id": "u", "event": "click", "item_id": "a", "ts": "2017-01-01T00:00:10"}
CASE = {"case_id": "c", "user_id": "u", "query": "milk", "ts": "2017-01-02", "bm25": [2.0, 1.0],
        "history": [["a", "purchase", "2017-01-01T00:00:10"]], "candidates": ["a", "b"],
        "relevant": ["b"], "in_candidates": True, "repeat": False}


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def reasons(rows: Any) -> list[str]:
    list(rows)
    return [error.reason for error in rows.refused]


def test_event_columns_become_fields_and_others_extra(tmp_path: Path) -> None:
    row = {**EVENT, "quantity": 2, "unit_price": 1.5, "position": 3, "order_id": 7, "country": "UK"}
    rows = read_events(write_lines(tmp_path / "events.jsonl", [row]))
    assert list(rows) == [Event("u", "click", "a", 1483228810.0, quantity=2.0, unit_price=1.5,
                                position=3, order_id="7", extra={"country": "UK"})]
    assert (rows.taken, rows.refused) == (1, [])


def test_purchase_of_a_negative_quantity_is_read_as_a_return(tmp_path: Path) -> None:
    row = {**EVENT, "event": "purchase", "quantity": -2}
    (event,) = read_events(write_lines(tmp_path / "events.jsonl", [row]))
    assert (event.event, event.quantity) == ("return", -2.0)


def test_search_has_no_item_and_unknown_ts_is_none(tmp_path: Path) -> None:
    row = {"user_id": 12, "event": "search", "item_id": None, "ts": None, "query": "milk"}
    assert list(read_events(write_lines(tmp_path / "e.jsonl", [row]))) == [
        Event("12", "search", None, None, "milk")]


@pytest.mark.parametrize("text", ["2017-01-01T00:00:10", "2017-01-01T00:00:10Z",
                                  "2017-01-01T01:00:10+01:00", "2017-01-01 00:00:10.000"])
def test_ts_without_zone_is_utc(tmp_path: Path, text: str) -> None:
    [event] = read_events(write_lines(tmp_path / "e.jsonl", [{**EVENT, "ts": text}]))
    assert event.ts == 1483228810.0


@pytest.mark.parametrize(("change", "reason"), [
    ({"user_id": None}, "user_id is missing"),
    ({"user_id": ""}, "user_id is missing"),
    ({"user_id": ["u"]}, "user_id is ['u'], must be text or a whole number"),
    ({"event": None}, "event is missing"),
    ({"item_id": 1.5}, "item_id is 1.5, must be text or a whole number"),
    ({"ts": "yesterday"}, "ts is 'yesterday', must be ISO 8601 or null"),
    ({"ts": "1700123112345"}, "ts is '1700123112345', must be ISO 8601 or null"),
    ({"ts": 1483228810}, "ts is 1483228810, must be ISO 8601 or null"),
    ({"quantity": "many"}, "quantity is 'many', must be a number"),
    ({"quantity": True}, "quantity is True, must be a number"),
    ({"query": 3}, "query is 3, must be text"),
])
def test_event_is_refused_with_column_value_and_remedy(
        tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    rows = read_events(write_lines(tmp_path / "e.jsonl", [EVENT, {**EVENT, **change}, EVENT]))
    assert len(list(rows)) == 2
    [error] = rows.refused
    assert (error.line, error.reason) == (2, reason)
    assert str(error) == f"{tmp_path}/e.jsonl:2: {reason}"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6)
COLUMNS = st.sampled_from([
    "user_id", "item_id", "event", "ts", "query", "quantity", "position", "order_id", "title",
    "brand", "categories", "price", "promotion", "created_at", "vectors", "case_id", "history",
    "candidates", "bm25", "relevant", "repeat", "colour"])


@pytest.mark.parametrize("convert", [file_rows.event, file_rows.item, file_rows.case])
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(change=st.dictionaries(COLUMNS, ANYTHING, max_size=4))
def test_no_row_can_do_more_harm_than_be_refused(convert: Any, change: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        convert({**EVENT, **ITEM, **CASE, **change})


def test_lines_that_are_no_json_object_are_refused_and_blank_ones_passed_over(
        tmp_path: Path) -> None:
    rows = read_events(write_lines(tmp_path / "e.jsonl", ["{", "", "[1]", EVENT]))
    assert len(list(rows)) == 1
    assert [error.line for error in rows.refused] == [1, 3]
    assert rows.refused[1].reason == "line holds a list, must be one JSON object"


@pytest.mark.parametrize("file", [
    json.dumps([EVENT], indent=1).encode(), json.dumps(EVENT).encode("utf-16"),
    json.dumps(EVENT | {"query": "caf\xe9"}, ensure_ascii=False).encode("latin-1")])
def test_file_of_another_form_is_told_which_it_must_have(tmp_path: Path, file: bytes) -> None:
    """A whole JSON array, as other systems export it, and what is not UTF-8."""
    (tmp_path / "e.jsonl").write_bytes(file)
    with pytest.raises(FileError, match="must be one JSON object, in UTF-8: "):
        list(read_events(tmp_path / "e.jsonl"))


def test_csv_of_another_encoding_is_told_what_to_do(tmp_path: Path) -> None:
    """Also where the first line that tells comes late, after what is read at once."""
    (tmp_path / "c.csv").write_bytes(
        b"item_id,title\n" + b"".join(b"%d,cup\n" % k for k in range(20_000)) + b"x,caf\xe9\n")
    with pytest.raises(FileError, match=r"breaks off after line .*; save it as UTF-8"):
        list(read_catalogue(tmp_path / "c.csv"))


def test_mark_at_the_beginning_of_a_file_is_passed_over(tmp_path: Path) -> None:
    """As PowerShell and Excel write it."""
    for name, text in (("e.jsonl", json.dumps(EVENT)), ("e.csv", "user_id,event\nu,click")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert [event.user_id for event in read_events(tmp_path / name)] == ["u"]


def test_iterating_again_starts_over(tmp_path: Path) -> None:
    rows = read_catalogue(write_lines(tmp_path / "c.jsonl", [ITEM, {"item_id": "b"}]))
    assert list(rows) == list(rows)
    assert (rows.taken, len(rows.refused), rows.line) == (1, 1, 2)


def test_catalogue_row_is_normalised_and_unknown_columns_are_kept(tmp_path: Path) -> None:
    row = {"item_id": 5, "title": "x", "brand": None, "price": 3, "sales": -2, "promotion": True,
           "rating": None, "created_at": "2017-01-01T01:00:00+01:00", "colour": ["red"],
           "vectors": {"text": [1, 2.5]}}
    [item] = read_catalogue(write_lines(tmp_path / "c.jsonl.gz", [row]))
    assert item == {"item_id": "5", "title": "x", "brand": None, "categories": [], "price": 3.0,
                    "sales": -2.0, "promotion": 1.0, "created_at": "2017-01-01T00:00:00+00:00",
                    "colour": ["red"], "vectors": {"text": [1.0, 2.5]}}


def test_promotion_may_be_true_or_false_in_csv_too(tmp_path: Path) -> None:
    """As pandas writes it."""
    (tmp_path / "c.csv").write_text("item_id,title,promotion\na,x,True\nb,y,False\nc,z,yes\n")
    rows = read_catalogue(tmp_path / "c.csv")
    assert [item["promotion"] for item in rows] == [1.0, 0.0]
    assert [error.reason for error in rows.refused] == ["promotion is 'yes', must be a number"]


@pytest.mark.parametrize(("change", "reason"), [
    ({"item_id": "a"}, "item_id 'a' is there twice; the first row is kept"),
    ({"item_id": "ü" * 257}, "item_id is longer than 512 bytes, shorten it"),
    ({"title": None}, "title is None, must be text"),
    ({"price": -1}, "price is -1, must be at least 0"),
    ({"price": "cheap"}, "price is 'cheap', must be a number"),
    ({"rating": "nan"}, "rating is nan, must be finite"),
    ({"categories": 7}, "categories is 7, must be a list of names"),
    ({"categories": [7]}, "categories is 7, must be text"),
    ({"vectors": [1.0]}, "vectors is a list, must be an object of lists"),
    ({"vectors": {"text": []}}, "vectors.text must be a list of numbers"),
    ({"vectors": {"text": [1.0]}}, "vectors.text has 1 numbers, must have 2 like those before"),
    ({"created_at": "old"}, "created_at is 'old', must be ISO 8601 or null"),
    ({"price": "1,99 €", "created_at": "31.12.2025"},
     "price is '1,99 €', must be a number; created_at is '31.12.2025', must be ISO 8601 or null"),
    ({"created_at": "0001-01-01T00:00+14:00"},
     "created_at is '0001-01-01T00:00+14:00', must lie in the years 1 to 9999 of UTC"),
])
def test_catalogue_row_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    first = {**ITEM, "vectors": {"text": [1.0, 2.0]}}
    path = write_lines(tmp_path / "c.jsonl", [first, {**ITEM, "item_id": "b", **change}])
    assert reasons(read_catalogue(path)) == [reason]


def test_item_id_of_512_bytes_is_taken(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", [{**ITEM, "item_id": "ü" * 256}])
    assert reasons(read_catalogue(path)) == []


def test_case_is_read_whole(tmp_path: Path) -> None:
    [case] = read_cases(write_lines(tmp_path / "cases.jsonl", [CASE]))
    assert (case.ts, case.candidates, case.bm25) == (1483315200.0, ("a", "b"), (2.0, 1.0))
    assert case.history.item_ids == ("a",)
    assert case.history.ts == (1483228810.0,)
    assert len(case.history.queries) == len(case.history.event_ids) == len(case.history)
    assert (case.relevant, case.in_candidates, case.repeat) == (("b",), True, False)


def test_case_without_optional_columns_has_them_worked_out(tmp_path: Path) -> None:
    row = {"case_id": 1, "user_id": 2, "query": None, "ts": None, "candidates": [1, 2],
           "relevant": [1], "history": [[1, "view", None], [3, "view", "2017-01-01"]]}
    [case] = read_cases(write_lines(tmp_path / "cases.jsonl", [row]))
    assert (case.case_id, case.query, case.in_candidates, case.repeat) == ("1", "", True, True)
    assert all(math.isnan(score) for score in case.bm25)
    assert case.ts == 1483228801.0  # its newest event comes before it


@pytest.mark.parametrize(("history", "is_repeat"), [
    ([["b", "purchase"]], True), ([["b", "view"]], True), ([], False), ([["b", "return"]], False),
    ([["b", "view"], ["a", "purchase"]], False), ([["b", "order"], ["a", "view"]], True),
    ([["b", "view"], *[["a", "view"]] * 900, ["a", "purchase"]], False)])
def test_repeat_is_worked_out_from_the_strongest_events(tmp_path, history, is_repeat):
    row = {name: value for name, value in CASE.items() if name != "repeat"}
    row["history"] = [[*entry, None] for entry in history]
    [case] = read_cases(write_lines(tmp_path / "cases.jsonl", [row]))
    assert case.repeat is is_repeat


@pytest.mark.parametrize(("change", "reason"), [
    ({"bm25": [1.0]}, "bm25 must be a list of 2 numbers, one a candidate"),
    ({"candidates": ["a", "a"]}, "candidates holds an item twice"),
    ({"candidates": "a"}, "candidates is 'a', must be a list"),
    ({"history": [["a"]]}, "history holds ['a'], must hold [item_id, event, ts]"),
])
def test_case_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = write_lines(tmp_path / "cases.jsonl", [CASE, {**CASE, **change}])
    assert reasons(read_cases(path)) == [reason]


def test_csv_and_parquet_give_what_json_lines_give(tmp_path: Path) -> None:
    items = [{**ITEM, "price": 1.5, "vectors": {"text": [1.0, 0.5]}},
             {"item_id": "7", "title": 'say "hi",\nthere', "brand": None, "categories": []}]
    wanted = list(read_catalogue(write_lines(tmp_path / "c.jsonl", items)))
    pq.write_table(pa.Table.from_pylist(items), tmp_path / "c.parquet")
    with (tmp_path / "c.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, ["item_id", "title", "brand", "categories", "price",
                                       "vectors"])
        writer.writeheader()
        for item in items:
            writer.writerow({**item, "categories": "|".join(item["categories"]),
                             "vectors": json.dumps(item.get("vectors"))
                             if "vectors" in item else ""})
    assert list(read_catalogue(tmp_path / "c.csv")) == wanted
    assert list(read_catalogue(tmp_path / "c.parquet")) == wanted


def test_csv_events_and_cases_are_read(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(
        "user_id,event,item_id,ts,quantity\nu,click,a,,2\nu,search,,,\n")
    assert list(read_events(tmp_path / "e.csv")) == [
        Event("u", "click", "a", quantity=2.0), Event("u", "search")]
    (tmp_path / "cases.csv").write_text(
        'case_id,user_id,query,ts,candidates,in_candidates\n'
        'c,u,milk,2017-01-01,"[""a"", ""b""]",false\n')
    [case] = read_cases(tmp_path / "cases.csv")
    assert (case.candidates, case.in_candidates) == (("a", "b"), False)


def test_ids_that_pandas_wrote_as_floats_are_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,event,item_id,ts\n7,click,32.0,\n8.0,search,,\n"
                                    "9,click,1.50,\n")
    assert [(event.user_id, event.item_id) for event in read_events(tmp_path / "e.csv")] == [
        ("7", "32"), ("8", None), ("9", "1.50")]


@pytest.mark.parametrize(("ts", "times", "wanted", "instant"), [
    (100.0, (None, None, None), (97.0, 98.0, 99.0), 100.0),
    (100.0, (None, 50.0, None), (50.0, 50.0, 50.0), 100.0),
    (None, (40.0, 50.0, None), (40.0, 50.0, 50.0), 51.0), (None, (None, None), (0.0, 0.0), 0.0)])
def test_history_of_unknown_times_lies_before_its_case(tmp_path: Path, ts: float | None,
                                                      times: Sequence[float | None],
                                                      wanted: Sequence[float],
                                                      instant: float) -> None:
    def iso(seconds: float | None) -> str | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()

    row = {"case_id": "c", "user_id": "u", "query": "q", "ts": iso(ts), "candidates": ["a"],
           "history": [["a", "purchase", iso(known)] for known in times]}
    (tmp_path / "cases.jsonl").write_text(json.dumps(row) + "\n")
    [case] = read_cases(tmp_path / "cases.jsonl")
    assert case.history.ts == tuple(wanted)
    assert case.ts == instant


@pytest.mark.parametrize("depth", [102, 900, 3_000, 100_000])
@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_row_that_is_nested_too_deeply_is_refused(tmp_path: Path, name: str, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    if name == "c.csv":
        (tmp_path / name).write_text(f"item_id,title,more\na,cup,{deep}\nb,jug,\n")
    else:
        (tmp_path / name).write_text(
            f'{{"item_id": "a", "title": "cup", "more": {deep}}}\n'
            '{"item_id": "b", "title": "jug"}\n')
    rows = read_catalogue(tmp_path / name)
    assert [item["item_id"] for item in rows] == ["b"]
    [refused] = rows.refused
    assert refused.line == (2 if name == "c.csv" else 1)
    assert "nested" in refused.reason


@pytest.mark.parametrize("cell", [r'[""\ud800""]', r'{""a"": ""\uDFFF!""}'])
def test_csv_cell_with_half_a_character_is_refused(tmp_path: Path, cell: str) -> None:
    (tmp_path / "c.csv").write_text(
        f'item_id,title,categories\na,cup,"{cell}"\nb,jug,"[""\\ud83d\\ude00""]"\n')
    rows = read_catalogue(tmp_path / "c.csv")
    assert [item["categories"] for item in rows] == [["\U0001f600"]]
    assert rows.refused[0].line == 2
    assert re.match(r"categories holds '\\ud.*, half a character; remove it",
                    rows.refused[0].reason)


@pytest.mark.parametrize("name", ["c.csv", "c.parquet"])
def test_table_that_has_a_column_twice_is_a_file_error(tmp_path: Path, name: str) -> None:
    if name == "c.csv":
        (tmp_path / name).write_text("item_id,title,size,size\na,cup,1,2\n")
    else:
        columns = [pa.array(["a"]), pa.array(["cup"]), pa.array([1]), pa.array([2])]
        pq.write_table(pa.Table.from_arrays(columns, ["item_id", "title", "size", "size"]),
                       tmp_path / name)
    with pytest.raises(FileError, match="has column 'size' twice; rename or drop one"):
        read_catalogue(tmp_path / name)


def test_csv_text_that_looks_like_json_stays_text(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(
        "item_id,title,brand,description,spec\n[1],[2022],{},[],{}\n")
    assert list(read_catalogue(tmp_path / "c.csv")) == [
        {"item_id": "[1]", "title": "[2022]", "brand": "{}", "categories": [],
         "description": "[]", "spec": {}}]


def test_endings_of_names_may_be_capitals(tmp_path: Path) -> None:
    path = tmp_path / "E.JSONL.GZ"
    path.write_bytes(gzip.compress(b'{"user_id": "u", "event": "click"}\n' * 3))
    assert [event.user_id for event in read_events(path)] == ["u"] * 3
    assert row_count_hint(path) == 3


def test_csv_row_with_too_many_cells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,event\nu,click,1\nu,click\n")
    rows = read_events(tmp_path / "e.csv")
    assert len(list(rows)) == 1
    assert rows.refused[0].line == 2


def test_csv_whose_quote_is_never_closed_is_a_file_error(tmp_path: Path) -> None:
    """All rows after it would be one cell, and nobody would miss them."""
    path = tmp_path / "c.csv"
    path.write_text('item_id,title\na,"cup"\nb,"jug\n' + "".join(f"i{k},t\n" for k in range(9)))
    with pytest.raises(FileError, match=r"breaks off after line 12: a quote in the row that begins"
                                        r" with 'b,\"jug' is never closed"):
        list(read_catalogue(path))
    path.write_text('item_id,title\na,"17"" screen"\nb,17" screen\nc,"17" screen"\nd,"x\ny"')
    assert [row["title"] for row in read_catalogue(path)] == [
        '17" screen', '17" screen', '17 screen"', "x\ny"]


def test_csv_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    """As pandas writes a table's index, where nobody tells it not to."""
    (tmp_path / "c.csv").write_text(",item_id,title\n0,a,cup\n1,b,jug,x\n")
    rows = read_catalogue(tmp_path / "c.csv")
    assert list(rows) == [{"item_id": "a", "title": "cup", "brand": None, "categories": []}]
    assert [error.line for error in rows.refused] == [3]


def test_numbers_that_pandas_lacks_are_null_in_json_lines(tmp_path: Path) -> None:
    """json.dumps writes its NaN as it is; half a catalogue would be refused for its ratings."""
    lacking = ITEM | {"title": "NaN or Infinity", "rating": math.nan, "price": -math.inf, "cover": {
        "width": math.inf}}
    rows = read_catalogue(write_lines(tmp_path / "c.jsonl", [
        json.dumps(lacking), '{"item_id": NaN, "title": "b"}', '{"item_id": "c", "rating": NaN,}',
        '{"item_id": "d", "title": "\\ud800", "rating": NaN}']))
    assert list(rows) == [ITEM | {"title": "NaN or Infinity", "cover": {"width": None}}]
    assert [error.reason.split(":")[0] for error in rows.refused] == [
        "item_id is missing", *["line must be one JSON object, in UTF-8"] * 2]
    [event] = read_events(write_lines(tmp_path / "e.jsonl", [EVENT | {"quantity": math.nan}]))
    assert event.quantity is None


def test_empty_text_is_no_number_and_no_time(tmp_path: Path) -> None:
    """As a table's empty cells become where its export writes every value as text."""
    empty = dict.fromkeys(("price", "rating", "review_count", "created_at", "vectors"), "")
    assert list(read_catalogue(write_lines(tmp_path / "c.jsonl", [
        ITEM | empty | {"description": "", "colour": ""}]))) == [
        ITEM | {"description": "", "colour": ""}]
    [event] = read_events(write_lines(tmp_path / "e.jsonl", [
        EVENT | dict.fromkeys(("ts", "quantity", "unit_price", "position"), "")]))
    assert (event.ts, event.quantity, event.unit_price, event.position) == (None,) * 4
    [case] = read_cases(write_lines(tmp_path / "k.jsonl", [CASE | {"ts": ""}]))
    assert case.ts == 1483228811.0  # a second behind its history


@pytest.mark.parametrize("cell", ["nan", "NaN"])
def test_nan_of_a_csv_is_null_but_in_texts(tmp_path: Path, cell: str) -> None:
    (tmp_path / "c.csv").write_text(f"item_id,title,brand,categories,rating,colour\n"
                                    f"a,{cell},{cell},{cell},{cell},{cell}\n")
    assert list(read_catalogue(tmp_path / "c.csv")) == [
        {"item_id": "a", "title": cell, "brand": cell, "categories": []}]


def test_parquet_times_nans_and_numeric_ids_are_read(tmp_path: Path) -> None:
    table = pa.table({
        "user_id": pa.array([1, 2]), "event": ["click", "click"],
        "item_id": pa.array([1.0, math.nan]),
        "ts": pa.array([datetime(2017, 1, 1, 0, 0, 10, tzinfo=UTC), None], pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "e.parquet")
    assert list(read_events(tmp_path / "e.parquet")) == [
        Event("1", "click", "1", 1483228810.0), Event("2", "click")]


def test_parquet_decimal_ids_and_maps_of_vectors_are_read(tmp_path: Path) -> None:
    """As data warehouses and Spark write them."""
    pq.write_table(pa.table({
        "item_id": pa.array([Decimal(7), Decimal("7.5")], pa.decimal128(38, 1)),
        "title": ["a", "b"],
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
        "vectors": pa.array([[("text", [1.0, 2.0])], None],
                            pa.map_(pa.string(), pa.list_(pa.float32())))}), tmp_path / "c.parquet")
    rows = read_catalogue(tmp_path / "c.parquet")
    [item] = rows
    assert (item["item_id"], item["price"], item["vectors"]) == ("7", 1.5, {"text": [1.0, 2.0]})
    assert rows.refused[0].reason == "item_id is Decimal('7.5'), must be text or a whole number"


def test_parquet_time_that_is_no_date_is_a_file_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "event": ["view"],
                             "ts": pa.array([2**62], pa.timestamp("us"))}), tmp_path / "e.parquet")
    with pytest.raises(FileError, match="breaks off after line 0: date value out of range"):
        list(read_events(tmp_path / "e.parquet"))


@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz", "e.csv", "e.parquet"])
def test_missing_file_is_a_file_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="is not a file"):
        read_events(tmp_path / name)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_csv_that_is_parted_otherwise_is_told_so(tmp_path: Path, separator: str) -> None:
    (tmp_path / "e.csv").write_text(separator.join(("user_id", "event")) + "\n")
    with pytest.raises(FileError, match=r"has its columns parted by .*, must be by ','; export"):
        read_events(tmp_path / "e.csv")


def test_table_without_a_required_column_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,event\nu,click\n")
    with pytest.raises(FileError, match="has no column user_id; its columns are user, event"):
        read_events(tmp_path / "e.csv")
    (tmp_path / "e.parquet").write_text("not parquet")
    with pytest.raises(FileError, match="is not a Parquet file"):
        read_events(tmp_path / "e.parquet")


@pytest.mark.parametrize(("name", "content"), [
    ("c.csv", "item_id,title\n1,Tée\n".encode("latin-1")),
    ("c.csv", "item_id,title\n1,Tée\n".encode("utf-16")),
    ("c.csv.gz", b"item_id,title\n"),
    ("c.csv.gz", gzip.compress(b"item_id,title\n" * 99)[:14]),
], ids=["latin-1", "utf-16", "not gzipped", "broken off"])
def test_csv_whose_first_bytes_cannot_be_read_is_a_file_error(
        tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=r"c\.csv.* cannot be read as UTF-8 CSV: "):
        read_catalogue(tmp_path / name)


def test_file_without_a_good_row_is_a_file_error_that_quotes_the_first_refusal(
        tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"holds no row.*e\.jsonl:1: user_id is missing"):
        list(read_events(write_lines(tmp_path / "e.jsonl", [{"event": "click"}])))
    with pytest.raises(FileError, match="holds no row"):
        list(read_events(write_lines(tmp_path / "e.jsonl", [])))


def test_gzip_that_breaks_off_is_a_file_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "e.jsonl.gz", [EVENT] * 5000)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileError, match="breaks off after line"):
        list(read_events(path))
    path.write_bytes(b"plain text\n")
    with pytest.raises(FileError, match="breaks off after line 0"):
        list(read_events(path))


def test_row_count_hint_is_near_the_truth(tmp_path: Path) -> None:
    rows = [{**EVENT, "item_id": str(n)} for n in range(30_000)]
    plain = row_count_hint(write_lines(tmp_path / "e.jsonl", rows))
    zipped = row_count_hint(write_lines(tmp_path / "e.jsonl.gz", rows))
    assert plain == pytest.approx(30_000, rel=0.05)
    assert zipped == plain
    assert row_count_hint(write_lines(tmp_path / "few.jsonl", rows[:3])) == 3
    assert row_count_hint(write_lines(tmp_path / "none.jsonl", [])) is None
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "e.parquet")
    assert row_count_hint(tmp_path / "e.parquet") == 2
    (tmp_path / "broken.jsonl.gz").write_bytes(b"plain text")
    assert row_count_hint(tmp_path / "broken.jsonl.gz") is None


def test_refused_rows_are_written_as_they_were(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "e.jsonl", [EVENT, "{broken", {"event": "click"}])
    with RefusedRows(tmp_path / "e.refused.jsonl") as refused:
        list(read_events(path, refused.write))
    written = [json.loads(line) for line in refused.path.read_text().splitlines()]
    assert [entry["line"] for entry in written] == [2, 3]
    assert written[0]["row"] == "{broken"
    assert written[1] == {"line": 3, "reason": "user_id is missing", "row": '{"event": "click"}'}


def test_refused_rows_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("old\n")
    with RefusedRows(tmp_path / "r.jsonl"):
        pass
    assert not (tmp_path / "r.jsonl").exists()


def test_user_attributes_are_read_without_empty_values(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("user_id,age,city\nu1,19-24,\nu2,,Oslo\n,x,y\n")
    rows = read_users(path)
    assert dict(rows) == {"u1": {"age": "19-24"}, "u2": {"city": "Oslo"}}
    assert len(rows.refused) == 1


@pytest.mark.parametrize("as_hits", [False, True])
def test_logged_events_and_searches_are_read_as_they_were_taken(tmp_path: Path,
                                                                as_hits: bool) -> None:
    """An export of the logs is an events file: its history is what serving keeps of the user."""
    now = 1_760_000_000.0
    sent = [{"user_id": "u", "item_id": "i1", "event": "click", "ts": now - 50.5, "position": 3,
             "query": "milk", "session_id": "s", "country": "UK"},
            {"user_id": "u", "item_id": "i2", "event": "purchase", "ts": now - 40, "order_id": 7,
             "quantity": 2, "unit_price": 1.5},
            {"user_id": "u", "item_id": "i2", "event": "purchase", "ts": now - 30, "quantity": -1},
            {"action_name": "impression", "client_id": "u", "timestamp": "2025-10-09T08:00:00Z",
             "user_query": "tea", "event_attributes": {"object": {"object_id": 4}}},
            {"action_name": "add_to_cart", "client_id": "u", "timestamp": "2025-10-09T08:01:00Z",
             "event_attributes": {"object": {"object_id": "i3"}}}]
    taken = [parse_event(raw, now) for raw in sent]
    asked = parse_query({"query_id": "q", "client_id": "u", "user_query": "oat milk",
                         "timestamp": "2025-10-09T08:00:30Z"}, now)
    documents = [(event.event_id, event_document(event)) for event in taken]
    documents.append((asked.event_id, query_document(asked)))
    found = list(read_events(write_lines(tmp_path / "export.jsonl", (
        {"_index": "ubi_events", "_id": name, "_source": document} if as_hits else document
        for name, document in documents))))
    assert ([replace(event, event_id=None, extra={}) for event in found]
            == [replace(event, event_id=None, extra={}) for event in (*taken, asked)])
    if as_hits:
        assert [event.event_id for event in found] == [name for name, _ in documents]
    log = EventTable.from_events(found, {"i1": 1, "i2": 2, "i3": 3, "4": 4})
    order, _ = log.histories()
    live = grow(UserState("u"), [*taken, asked], 500).history
    assert [log.kinds[kind] for kind in log.kind[order]] == list(live.events)
    assert log.ts[order].tolist() == list(live.ts)
    assert [f"i{row}" if row >= 0 else None for row in log.item[order]] == list(live.item_ids)


def test_documents_whose_times_are_milliseconds_are_read(tmp_path: Path) -> None:
    """As older releases of OpenSearch's UBI plugin write them."""
    rows = read_events(write_lines(tmp_path / "export.jsonl", (
        {"user_query": "milk", "client_id": "c", "timestamp": ts}
        for ts in (1717527765723, 1717527765723.0, 10**15, -(10**15), True))))
    assert [event.ts for event in rows] == [1717527765.723] * 2
    assert len(rows.refused) == 3


def test_row_that_is_neither_event_nor_document_of_a_log_is_refused(tmp_path: Path) -> None:
    rows = read_events(write_lines(tmp_path / "bulk.jsonl", (
        {"index": {"_index": "ubi_events"}}, {"_source": 3},
        {"action_name": "click", "client_id": "c", "event_attributes": 3},
        {"action_name": "click", "timestamp": "2025-10-09"},
        {"action_name": "click", "client_id": "c", "timestamp": "2025-10-09"})))
    (event,) = rows
    assert (event.user_id, event.event, event.extra) == ("c", "click", {"client_id": "c"})
    assert [error.reason for error in rows.refused] == [
        "user_id is missing", "user_id is missing", "event_attributes is 3, must be an object",
        "user_id is missing"]
