"""Lists made of a log: each as of its search, with what was taken from then on."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest

from sidecar.records import Case, Event, History
from sidecar.training.dev_cases import cases_of_log
from sidecar.training.event_table import VISIT_GAP_S, EventTable
from sidecar.training.examples import born_at, make_examples
from sidecar.training.query_recalls import Recalls
from sidecar.training.retrieval import Retrieval, with_scores
from sidecar.training.walk import Walk

ROWS = [{"item_id": f"{colour} {noun}", "title": f"{colour} {noun}", "brand": None,
         "categories": [f"{noun}s"]} for noun in ("cup", "lamp")
        for colour in ("red", "blue", "green", "white", "black", "pink")]
BY_ID = {row["item_id"]: k for k, row in enumerate(ROWS)}
SESSION = {"session_id": "s"}


def examples(*events, since=0.0):
    log = EventTable.from_events(events, BY_ID)
    return make_examples(log, ROWS, Retrieval(ROWS), since=since, most=100, per_visit=6, seed=0)


def visit(ids, query="cup"):
    """A search, clicks on its way, and a purchase; the shopper had been there the day before."""
    return [Event("u", "click", "blue lamp", 1.0, "lamp"),
            Event("u", "view", "pink cup", 86_400.0, **ids),
            Event("u", "search", None, 86_460.0, query, **ids),
            Event("u", "click", "red cup", 86_480.0, query, **ids),
            Event("u", "click", "blue cup", 86_500.0, query, **ids),
            Event("u", "purchase", "blue cup", 86_600.0, **ids)]


@pytest.mark.parametrize("ids", [SESSION, {}], ids=["session", "run of events"])
@pytest.mark.parametrize(("query", "ts"), [("cup", 86_460.0), (None, 86_400.0), ("-", 86_400.0)],
                         ids=["logged", "made", "made where the logged one finds nothing"])
def test_list_is_as_of_its_search_and_not_of_the_purchase(ids, query, ts):
    """Else its history holds the click on what it is to find."""
    found = examples(*visit(ids, query))
    assert {example.ts for example in found} == {ts}


def test_made_query_is_typed_when_the_visit_begins_or_before_the_first_of_its_hits_was_touched():
    """Else a log without queries would teach nothing of what the last minutes tell."""
    events = [Event(user, kind, item, begin + ts)
              for begin, user in ((1e6 * n, f"u{n}") for n in range(20))
              for kind, item, ts in (("view", "red lamp", 0.0), ("view", "blue lamp", 60.0),
                                     ("view", "pink cup", 120.0), ("view", "blue cup", 180.0),
                                     ("purchase", "blue cup", 240.0))]
    found = [e for e in examples(*events) if e.query == "cups"]
    assert {e.ts % 1e6 for e in found} == {0.0, 120.0}
    assert {ROWS[row]["item_id"] for e in found for row in e.rows[e.target]} == {"blue cup"}


def test_case_made_of_a_log_ends_its_history_before_the_search():
    log = EventTable.from_events(visit(SESSION), BY_ID)
    for case in cases_of_log(log, ROWS, since=2.0, until=1e6, most=10):
        assert case.relevant == ("blue cup",)
        assert case.history.item_ids == ("blue lamp", "pink cup")


def test_what_was_taken_before_a_search_is_no_target_of_it():
    found = examples(Event("u", "purchase", "red cup", 10.0, **SESSION),
                     Event("u", "search", None, 20.0, "cup", **SESSION),
                     Event("u", "purchase", "blue cup", 30.0, **SESSION))
    (example,) = [e for e in found if e.query == "cup"]
    assert [ROWS[row]["item_id"] for row in example.rows[example.target]] == ["blue cup"]


def test_search_before_the_first_instant_makes_no_list():
    """What learnt until then knows the click that came of it."""
    assert examples(*visit(SESSION), since=86_490.0) == []


@pytest.mark.parametrize(("query", "ids"), [("cup", SESSION), (None, {})], ids=["asked", "made"])
def test_made_list_lacks_what_was_not_in_the_shop_yet(query, ids):
    """Else a shop whose items live for days would learn that nobody takes the newest."""
    born = {"black cup": "1970-01-03", "red cup": "1969-12-31"}
    rows = [row | {"created_at": born.get(row["item_id"])} for row in ROWS]
    log = EventTable.from_events(visit(ids, query), BY_ID)
    found = make_examples(log, rows, Retrieval(rows), since=80_000.0, most=100, per_visit=6, seed=0)
    assert found
    for example in found:
        assert BY_ID["black cup"] not in example.rows
        assert len(example.rows) == len(example.scores) == len(example.target) >= 5


@pytest.mark.parametrize("created", ["2020-01-01", None], ids=["import", "none"])
def test_dates_of_creation_that_events_contradict_are_not_believed(created):
    """As where a column tells when a catalogue was last imported."""
    rows = [row | {"created_at": created} for row in ROWS]
    log = EventTable.from_events(visit(SESSION), BY_ID)
    assert (born_at(log, rows) == -math.inf).all()
    [example] = make_examples(log, rows, Retrieval(rows), since=80_000.0, most=100, per_visit=6,
                              seed=0)
    assert len(example.rows) == 6


def test_item_is_there_from_its_first_event_where_that_came_before_its_creation():
    events = [Event("u", "view", ROWS[k % 12]["item_id"], 86_400.0 + k) for k in range(120)]
    ids = [f"i{k}" for k in range(40)]
    rows = [{"item_id": i, "title": i, "created_at": "1970-01-02"} for i in ids]
    rows[3]["created_at"] = "1970-01-05"
    log = EventTable.from_events([replace(event, item_id=i) for event, i in zip(events, ids,
                                                                                strict=False)],
                               {i: k for k, i in enumerate(ids)})
    assert born_at(log, rows).tolist() == [86_400.0] * 3 + [86_403.0] + [86_400.0] * 36


def test_queries_without_words_have_nothing_in_common():
    """What was taken after one emoji was remembered of all."""
    log = EventTable.from_events([
        Event("u", "purchase", "red cup", 1.0, "👟"), Event("u", "purchase", "red lamp", 2.0, "?!"),
        Event("u", "purchase", "blue cup", 3.0, "cup")], BY_ID)
    recalls = Recalls(log, frozenset({"purchase"}))
    assert len(recalls.recall("👗", 9.0).rows) == 0
    assert recalls.recall("cups", 9.0).rows.tolist() == [BY_ID["blue cup"]]
    assert recalls.memory(9.0).keys == ["cup"]


def test_session_that_never_ends_begins_anew_after_a_pause():
    later = 86_600.0 + 10 * VISIT_GAP_S
    found = examples(*visit(SESSION), Event("u", "view", "green lamp", later, **SESSION),
                     Event("u", "purchase", "green lamp", later + 60.0, **SESSION))
    assert {example.ts for example in found} == {86_460.0, later}


def test_same_query_asked_again_after_a_pause_is_another_search():
    later = 86_600.0 + 10 * VISIT_GAP_S
    found = examples(Event("u", "search", None, 5.0, "lamp", **SESSION),
                     Event("u", "search", None, later, "lamp", **SESSION),
                     Event("u", "click", "red lamp", later + 5.0, "lamp", **SESSION),
                     Event("u", "purchase", "red lamp", later + 9.0, **SESSION))
    assert [example.ts for example in found] == [later]


def test_lists_know_of_a_query_what_a_model_trained_before_them_would():
    """Else the blend learns to trust a memory that is fresher than any that it will serve with."""
    log = EventTable.from_events([
        Event("u", "purchase", "red cup", 1.0, "cup"),
        Event("u", "purchase", "blue cup", 10.0, "cup"),
        Event("v", "purchase", "pink cup", 20.0, "cup")], BY_ID)
    strong = frozenset({"purchase"})
    walk = Walk(log, len(ROWS), kept=10, strong_kinds=strong)
    walk.remember_until(10.0)
    known = walk.recall("cup", 30.0)
    kept = Recalls(log.until(10.0), strong).memory(10.0).recall("cup", 30.0)
    assert known.rows.tolist() == kept.rows.tolist() == [BY_ID["red cup"]]
    assert known.strong.tolist() == pytest.approx(kept.strong.tolist())


def test_case_without_scores_gets_those_of_bm25_in_the_order_of_its_candidates(caplog):
    """Else the model would read every hit as one that matches nothing."""
    def case(candidates, bm25=None):
        return Case("c", "u", "red cup", 1.0, History(), tuple(candidates),
                    tuple(bm25 or [math.nan] * len(candidates)), (), False, False)

    found, scores = Retrieval(ROWS).search("red cup")
    ids, scored = [ROWS[k]["item_id"] for k in found.tolist()], case(["red cup"], [0.5])
    with caplog.at_level(logging.WARNING):
        made = with_scores([case(ids), case(ids[::-1]), case(["gone", *ids]), case([]), scored],
                           ROWS)
    assert "3 cases have no bm25" in caplog.text
    assert made[0].bm25 == made[1].bm25 == pytest.approx(scores.tolist())
    assert made[0].bm25[0] > made[0].bm25[-1] > 0
    assert made[2].bm25 == pytest.approx([*scores.tolist(), 0.0])
    assert made[3].bm25 == ()
    assert made[4] is scored
