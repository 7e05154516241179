"""What the quickstart decides and prints, without the services."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from scripts._demo import SearchResult, render
from scripts._household import WEEK_S, Household, choose
from scripts._stamps import Stamps, key_of

UNTIL = datetime(2017, 10, 1, tzinfo=UTC).timestamp()


def write_lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def purchases(user_id: str, item_id: str, month: int, count: int) -> list[dict[str, object]]:
    return [{"user_id": user_id, "item_id": item_id, "event": "purchase",
             "ts": f"2017-{month:02}-{day + 1:02}T10:00:00"} for day in range(count)]


def test_step_is_done_only_for_the_inputs_it_was_done_for(tmp_path: Path) -> None:
    stamps = Stamps(tmp_path / "stamps")
    source = tmp_path / "source.py"
    source.write_text("1")
    key = key_of([source], "word")
    assert not stamps.is_done("train", key)
    stamps.mark("train", key)
    assert stamps.is_done("train", key)
    assert not stamps.is_done("train", key_of([source], "other word"))
    source.write_text("2")
    assert not stamps.is_done("train", key_of([source], "word"))
    before = key_of([tmp_path])
    (tmp_path / "another.py").touch()
    assert key_of([tmp_path]) != before


def test_household_with_most_new_habits_is_chosen_and_moved_to_today(tmp_path: Path) -> None:
    catalogue = write_lines(tmp_path / "catalogue.jsonl", [
        {"item_id": "oat", "title": "oat drink", "brand": None, "categories": ["DAIRY", "DRINKS"]},
        {"item_id": "old", "title": "milk", "brand": None, "categories": ["DAIRY", "MILK"]}])
    steady = purchases("steady", "old", 3, 28) + purchases("steady", "old", 4, 28) + \
        purchases("steady", "old", 10, 25)
    changed = purchases("changed", "old", 3, 28) + purchases("changed", "old", 4, 28) + \
        purchases("changed", "oat", 10, 25)
    few = purchases("few", "old", 3, 1) + purchases("few", "oat", 10, 25)
    events = write_lines(tmp_path / "events.jsonl", steady + changed + few)

    household = choose(catalogue, events, UNTIL, tmp_path)

    assert household.user_id == "changed"
    assert (household.older_count, household.later_count) == (56, 25)
    assert household.new_items == ("oat",)
    assert household.queries == ("drinks",)
    rows = [json.loads(line) for line in household.later.read_text().splitlines()]
    last = datetime.fromisoformat(rows[-1]["ts"])
    assert 0 <= (datetime.now(UTC) - last).total_seconds() < WEEK_S
    household.save(tmp_path / "household.json")
    assert Household.load(tmp_path / "household.json") == household


def test_orders_are_printed_side_by_side_with_each_items_reason(tmp_path: Path) -> None:
    household = Household(user_id="h", older=tmp_path, later=tmp_path, older_count=5,
                          later_count=2, queries=("milk",), new_items=("b",), shifted_weeks=460)
    titles = {"a": "a milk, own", "b": "b milk, own"}
    off = SearchResult(("a", "b"), titles, "skipped; reason=disabled", "total;dur=1", {})
    after = SearchResult(("b", "a"), titles, "applied", "total;dur=2", {
        "b": {"parts": {"repeat": 0.5, "engine": 0.1, "quality": 0.0},
              "events": ["bought twice, last 3 days ago"]}})
    text = render(household, "milk", off=off, before=off, after=after)
    assert "460 weeks later" in text
    assert " 1  a …, own" in text
    assert "X-Personalize-Status: skipped; reason=disabled" in text
    assert "1  off 2, before 2" in text
    assert "b milk, own: repeat +0.50, engine +0.10; bought twice, last 3 days ago" in text
    assert "a milk, own: no explanation" in text
