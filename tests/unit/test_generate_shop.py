"""The made-up shop: files that readers take whole, the same for a seed, with habits to learn."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts._shop_words import MOST_NAMES, kinds, names
from scripts.generate_shop import main, write
from sidecar.ranking.vocabulary import words_of
from sidecar.records import Event
from sidecar.stores.files import Rows, read_catalogue, read_events

PRODUCTS, USERS, EVENTS = 3000, 200, 12_000
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shop") / "made" / "here"
    assert main(["--products", str(PRODUCTS), "--users", str(USERS), "--events", str(EVENTS),
                 "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def items(shop: Path) -> list[dict[str, Any]]:
    return every_row(read_catalogue(shop / "catalogue.jsonl.gz"))


@pytest.fixture(scope="module")
def events(shop: Path) -> list[Event]:
    return every_row(read_events(shop / "events.jsonl.gz"))


def every_row(rows: Rows[Any]) -> list[Any]:
    found = list(rows)
    assert rows.refused == []
    return found


def head_share(counts: Counter[Any], share: float) -> float:
    """Return what the most frequent have of everything."""
    head = counts.most_common(max(1, int(len(counts) * share)))
    return sum(count for _, count in head) / counts.total()


def test_readers_take_every_row_of_both_files(items: list[Any], events: list[Event]) -> None:
    assert len(items) == PRODUCTS
    assert len({item["item_id"] for item in items}) == PRODUCTS
    assert len(events) == EVENTS
    known = {item["item_id"] for item in items}
    assert {event.item_id for event in events} <= known | {None}


def test_nothing_but_the_two_files_is_left_behind(shop: Path) -> None:
    assert sorted(path.name for path in shop.iterdir()) == [
        "catalogue.jsonl.gz", "events.jsonl.gz"]


@pytest.mark.parametrize(("products", "users", "count"), [
    (1, 1, 1), (1, 1, 50), (2, 30, 999), (70, 1, 1000), (60_000, 5, 7)])
def test_any_size_is_met_exactly(tmp_path: Path, products: int, users: int, count: int) -> None:
    write(tmp_path, products=products, users=users, events=count)
    assert len(every_row(read_catalogue(tmp_path / "catalogue.jsonl.gz"))) == products
    assert len(every_row(read_events(tmp_path / "events.jsonl.gz"))) == count


def test_seed_decides_every_byte_whatever_the_hash_seed(shop: Path, tmp_path: Path) -> None:
    sizes = ["--products", str(PRODUCTS), "--users", str(USERS), "--events", str(EVENTS)]
    subprocess.run([sys.executable, "-m", "scripts.generate_shop", *sizes,
                    "--out", str(tmp_path / "again")], cwd=ROOT, check=True, capture_output=True,
                   env=os.environ | {"PYTHONHASHSEED": "77"})
    write(tmp_path / "other", products=PRODUCTS, users=USERS, events=EVENTS, seed=1)
    for name in ("catalogue.jsonl.gz", "events.jsonl.gz"):
        first = (shop / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == first
        assert gzip.decompress((tmp_path / "other" / name).read_bytes()) != gzip.decompress(first)


def test_few_products_and_users_have_most_of_the_events(events: list[Event]) -> None:
    looked_at = Counter(event.item_id for event in events if event.item_id)
    assert head_share(looked_at, 0.1) > 0.3
    assert head_share(Counter(event.user_id for event in events), 0.1) > 0.3


def test_a_word_of_a_query_is_in_many_titles_and_most_words_in_few(
        items: list[Any], events: list[Event]) -> None:
    titles = Counter(word for item in items for word in set(words_of(item["title"])))
    assert head_share(titles, 0.1) > 0.5
    assert np.median(list(titles.values())) <= 5
    queries = [event.query for event in events if event.event == "search"]
    found = [max(titles[word] for word in words_of(query or "")) for query in queries]
    assert np.median(found) > PRODUCTS / 100


def test_catalogue_is_a_tree_of_categories_with_brands(items: list[Any]) -> None:
    parents: dict[str, set[str]] = {}
    for item in items:
        department, category, kind = item["categories"]
        parents.setdefault(f"{department}/{category}", set()).add(department)
        parents.setdefault(kind, set()).add(category)
    assert all(len(found) == 1 for found in parents.values())
    brands = Counter(item["brand"] for item in items)
    assert len(brands) > 50
    assert 0 < brands[None] < PRODUCTS / 10
    assert all(item["title"].startswith(item["brand"]) for item in items if item["brand"])


def test_events_are_sorted_and_visits_go_from_search_to_purchase(events: list[Event]) -> None:
    times = [event.ts for event in events]
    assert times == sorted(times, key=lambda ts: ts or 0.0)
    order = {"search": 0, "click": 1, "view": 1, "add_to_cart": 2, "purchase": 3}
    visits: dict[str | None, list[Event]] = {}
    for event in events:
        visits.setdefault(event.session_id, []).append(event)
    for visit in visits.values():
        steps = [order[event.event] for event in visit]
        assert steps == sorted(steps)
        assert len({event.user_id for event in visit}) == 1
    assert {event.event for event in events} == set(order)
    assert all((event.item_id is None) == (event.event == "search") for event in events)
    assert all(event.query for event in events if event.event in ("search", "click"))


def test_no_product_is_younger_than_its_first_event(
        items: list[Any], events: list[Event]) -> None:
    first = {}
    for event in events:
        first.setdefault(event.item_id, event.ts or 0.0)
    created = {item["item_id"]: np.datetime64(item["created_at"][:19]).astype(int)
               for item in items}
    assert all(created[item] < ts for item, ts in first.items() if item)


def test_users_buy_again_what_others_do_not(events: list[Event]) -> None:
    bought = [event for event in events if event.event == "purchase"]
    others = [Event(other.user_id, event.event, event.item_id)
              for event, other in zip(bought, bought[1:] + bought[:1], strict=True)]
    own, foreign = (share_seen_before(some, lambda event: event.item_id)
                    for some in (bought, others))
    assert own > 0.4
    assert foreign < own / 2


def test_users_keep_to_a_few_brands_of_a_kind(items: list[Any], events: list[Event]) -> None:
    taste = {item["item_id"]: (item["brand"], item["categories"][2]) for item in items}
    clicked = [event for event in events if event.event in ("click", "view")]
    others = [Event(other.user_id, event.event, event.item_id)
              for event, other in zip(clicked, clicked[7:] + clicked[:7], strict=True)]
    own, foreign = (share_seen_before(some, lambda event: taste[event.item_id or ""])
                    for some in (clicked, others))
    assert own > foreign + 0.15


def share_seen_before(events: Sequence[Event], what: Callable[[Event], Any]) -> float:
    seen: set[Any] = set()
    found = 0
    for event in events:
        found += (event.user_id, what(event)) in seen
        seen.add((event.user_id, what(event)))
    return found / len(events)


@pytest.mark.parametrize(("option", "value"), [
    ("--products", "0"), ("--users", "-1"), ("--events", "many"), ("--seed", "-1")])
def test_a_size_that_is_none_is_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       option: str, value: str) -> None:
    sizes = {"--products": "5", "--users": "5", "--events": "5", "--seed": "0", option: value}
    with pytest.raises(SystemExit) as ended:
        main([*(word for pair in sizes.items() for word in pair), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--products", "5", "--users", "5", "--events", "5",
                 "--out", str(tmp_path / "file")]) == 1
    assert "generate_shop: " in capsys.readouterr().err


def test_names_and_nouns_are_never_twice_the_same() -> None:
    every = names(MOST_NAMES, np.random.default_rng(0))
    assert len(set(every)) == MOST_NAMES
    assert len(set(kinds().noun)) == len(kinds().noun)


def test_interrupted_program_says_so_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    out = tmp_path / "shop"
    # A shell's background jobs ignore Ctrl-C and hand that on; a terminal's program hears it.
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    program = subprocess.Popen(
        [sys.executable, "-m", "scripts.generate_shop", "--products", "1000000", "--users", "1000",
         "--events", "1000", "--out", str(out)], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        preexec_fn=hears)
    try:
        while not list(out.glob("*.part")):
            assert program.poll() is None
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        told = program.communicate(timeout=60)[1]
    finally:
        program.kill()
    assert program.returncode == 130
    assert told.rstrip().endswith("interrupted")
    assert "Traceback" not in told
    assert list(out.iterdir()) == []
