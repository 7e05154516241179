"""Lists from logged impressions: what was shown, where, and what was taken of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sidecar.ranking.blend import Blend
from sidecar.ranking.signals import FEATURES
from sidecar.records import Event
from sidecar.training.blend_training import part_lists, train_blend
from sidecar.training.dev_cases import cases_of_log
from sidecar.training.event_table import EventTable
from sidecar.training.examples import Example, examples_of_impressions, make_examples
from sidecar.training.inputs import tell_of_events
from sidecar.training.lists import Lists
from sidecar.training.metrics import reciprocal_ranks
from sidecar.training.retrieval import Retrieval

ROWS = [{"item_id": f"i{k}", "title": "red cup" if k % 2 else "red tea cup", "brand": None,
         "categories": []} for k in range(8)]
BY_ID = {row["item_id"]: k for k, row in enumerate(ROWS)}
DAY_S = 86_400.0


def page(user, ts, items, query="red cup", positions=None):
    return [Event(user, "impression", f"i{k}", ts, query,
                  position=None if positions is None else positions[n])
            for n, k in enumerate(items)]


def examples(*events):
    return pages_of(EventTable.from_events(sorted(events, key=lambda e: e.ts), BY_ID))


def pages_of(log, since=0.0, most=100, retrieval=None):
    return examples_of_impressions(log, retrieval or Retrieval(ROWS), since, most=most,
                                   rng=np.random.default_rng(0))


def test_page_with_a_purchase_is_a_list_in_the_engine_s_order_with_its_positions():
    shown = page("u", 10.0, [4, 1, 3, 0, 5, 7])
    (found,) = examples(*shown, Event("u", "purchase", "i3", 60.0))
    by_row = dict(zip(found.rows.tolist(), found.position.tolist(), strict=True))
    assert by_row == {4: 0, 1: 1, 3: 2, 0: 3, 5: 4, 7: 5}
    assert found.rows[found.target].tolist() == [3]
    assert (np.diff(found.scores) <= 0).all()
    assert (found.ts, found.query) == (10.0, "red cup")


def test_logged_positions_count_over_the_order_of_the_file():
    shown = page("u", 10.0, [0, 1, 2, 3, 4], positions=[9, 8, 7, 6, 5])
    (found,) = examples(*shown, Event("u", "purchase", "i3", 60.0))
    assert dict(zip(found.rows.tolist(), found.position.tolist(), strict=True))[0] == 9


def test_impressions_in_another_systems_words_are_the_same():
    shown = page("u", 10.0, [4, 1, 3, 0, 5, 7])
    renamed = [replace(event, event="view_item_list") for event in shown]
    ((one,), (other,)) = (examples(*events, Event("u", "purchase", "i3", 60.0))
                          for events in (shown, renamed))
    assert (one.rows.tolist(), one.position.tolist()) == (other.rows.tolist(),
                                                          other.position.tolist())


def test_what_nobody_took_or_took_after_another_query_makes_no_list():
    shown = page("u", 10.0, [0, 1, 2, 3, 4])
    assert examples(*shown, Event("v", "purchase", "i3", 60.0)) == []
    assert examples(*shown, Event("u", "purchase", "i3", 60.0, "lamp")) == []
    assert examples(*shown, Event("u", "purchase", "i3", 9.0 + DAY_S)) == []
    assert examples(*page("u", 10.0, [0, 1]), Event("u", "purchase", "i1", 60.0)) == []


SEARCH = Event("u", "search", None, 5.0, "red cup", session_id="s")


@pytest.mark.parametrize("late_s", [-2.0, 1.0, 300.0], ids=["skewed", "at once", "as it is left"])
def test_list_is_as_of_its_search_whenever_its_impressions_come(late_s):
    """Else its history holds the click on what it is to find, and every model seems to gain."""
    shown = [replace(event, session_id="s") for event in page("u", 5.0 + late_s, [4, 1, 3, 0, 5])]
    click = Event("u", "click", "i3", 10.0, session_id="s")
    log = EventTable.from_events(sorted([SEARCH, *shown, click], key=lambda e: e.ts), BY_ID)
    (found,) = pages_of(log)
    assert found.ts == min(5.0, 5.0 + late_s)
    assert found.rows[found.target].tolist() == [3]
    (case,) = cases_of_log(log, ROWS, since=0.0, until=1e9, most=10)
    assert (case.ts, case.relevant) == (found.ts, ("i3",))
    assert "click" not in case.history.events
    assert pages_of(log, 6.0) == []  # the search came before


@pytest.mark.parametrize(("event", "has_cases", "told"), [
    ("purchase", False, True), ("purchase", True, False), ("impression", False, False)])
def test_that_bm25_stands_in_for_the_engine_is_told(event, has_cases, told, caplog):
    caplog.set_level("INFO")
    log = EventTable.from_events([Event("u", event, "i3", 1.0)], BY_ID)
    tell_of_events(log, has_cases=has_cases)
    assert ("BM25 over the catalogue stands in for the engine" in caplog.text) is told


class Counting(Retrieval):
    scored = 0

    def scores(self, query, rows):
        self.scored += 1
        return super().scores(query, rows)


def test_pages_are_drawn_over_the_whole_log_and_no_others_are_scored():
    """Of a large log's million pages, all were scored first: some five minutes."""
    events = []
    for k in range(50):
        events += [*page(f"u{k}", k * DAY_S, [0, 1, 2, 3, 4]),
                   Event(f"u{k}", "purchase", "i3", k * DAY_S + 9)]
    log, retrieval = EventTable.from_events(events, BY_ID), Counting(ROWS)
    days = [example.ts / DAY_S for example in pages_of(log, most=10, retrieval=retrieval)]
    assert retrieval.scored == len(set(days)) == 10
    assert days == sorted(days)
    assert days[0] < 20 < 30 < days[-1]


@pytest.mark.parametrize("session", ["s", None])
def test_click_before_impressions_of_a_log_without_searches_is_no_part_of_the_history(session):
    events = [Event("u", "click", "i3", 10.0, "red cup"), *page("u", 40.0, [4, 1, 3, 0, 5])]
    (found,) = examples(*(replace(event, session_id=session) for event in events))
    assert (found.ts, found.rows[found.target].tolist()) == (10.0, [3])


@pytest.mark.parametrize("session", ["s", None])
def test_each_search_of_a_session_that_never_ends_is_a_list_of_its_own(session):
    """Merged, each page would have the others' answers; ten weeks' purchases made one list, or,
    all of its items being bought, none."""
    week, events = 7 * DAY_S, []
    for k in range(10):
        items = [(n - k) % 8 for n in range(6)]
        events += [Event("u", "search", None, k * week, "red cup"),
                   *page("u", k * week + 1.0, items, positions=range(6)),
                   Event("u", "purchase", f"i{items[2]}", k * week + 60.0)]
    found = examples(*(replace(event, session_id=session) for event in events))
    assert [example.ts for example in found] == [k * week for k in range(10)]
    assert all(example.position[example.target].tolist() == [2] for example in found)


def test_logged_lists_take_the_place_of_those_made_for_the_same_search():
    events = [*page("u", 10.0, [4, 1, 3, 0, 5, 7]), Event("u", "purchase", "i3", 60.0),
              Event("v", "purchase", "i2", 70.0, "red cup")]
    log = EventTable.from_events(events, BY_ID)
    found = make_examples(log, ROWS, Retrieval(ROWS), since=0.0, most=10, per_visit=3, seed=0)
    logged = [e for e in found if e.position is not None]
    assert len(logged) == 1
    assert not any(e.user == logged[0].user and e.position is None for e in found)


def test_other_searches_for_a_query_that_was_logged_once_are_lists_too():
    """A shop that begins to log impressions would forget all before, of shoppers who ask again."""
    week = 7 * DAY_S
    events = [event for k in range(10) for event in (
        Event("u", "search", None, k * week, "red cup"),
        *(page("u", k * week + 1.0, range(6)) if k == 9 else ()),
        Event("u", "purchase", f"i{k % 6}", k * week + 60.0))]
    log = EventTable.from_events(events, BY_ID)
    found = make_examples(log, ROWS, Retrieval(ROWS), since=0.0, most=100, per_visit=3, seed=0)
    assert [e.ts for e in found] == [k * week for k in range(10)]
    assert [e.position is not None for e in found] == [False] * 9 + [True]


def test_logged_lists_are_drawn_with_the_seed_where_there_are_more_than_wanted():
    """The latest alone would be the same dev cases whatever the seed, all of the window's end."""
    events = [event for day in range(40) for event in (
        *page(f"u{day}", day * DAY_S, [4, 1, 3, 0, 5, 7]),
        Event(f"u{day}", "purchase", "i3", day * DAY_S + 60.0))]
    log = EventTable.from_events(events, BY_ID)
    drawn = {seed: [case.ts / DAY_S for case in cases_of_log(log, ROWS, since=0.0, until=1e9,
                                                             most=8, seed=seed)]
             for seed in (1, 2)}
    assert drawn[1] != drawn[2]
    for days in drawn.values():
        assert len(set(days)) == 8
        assert days == sorted(days)
        assert min(days) < 20


def test_position_takes_the_blame_for_clicks_that_only_position_explains():
    """Shoppers take the better of two kinds of item, but mostly what stands first. A list tells
    both; the served scores must tell the kind of item only."""
    rng = np.random.default_rng(0)
    good = FEATURES.index(("popularity", "strong_14"))
    rank = FEATURES.index(("engine", "reciprocal_rank"))
    made, count, size = [], 400, 6
    better = rng.random((count, size)) < 0.5
    order = np.argsort(rng.random((count, size)), axis=1)  # position of each candidate, shuffled
    taken = np.argmax(1.0 * better - 1.5 * order + rng.gumbel(size=(count, size)), axis=1)
    for k in range(count):
        made.append(Example(0, float(k), "q", np.arange(size), np.ones(size, np.float32),
                            np.arange(size) == taken[k], order[k]))
    lists = Lists.empty(made)
    lists.features[..., good] = lists.z_scores[..., good] = better
    lists.features[..., rank] = lists.z_scores[..., rank] = -order
    told = {}
    for name, position in (("handled", lists.position), ("ignored", np.full_like(order, -1))):
        torch.manual_seed(0)
        blend = Blend()
        given = lists.take(slice(None))
        given.position[:] = position
        given.features[..., rank] = given.z_scores[..., rank] = 0 if name == "handled" else -order
        train_blend(blend, given, seed=0, epochs=5, empty_share=0.0,
                    progress=lambda done, loss: None)
        scores = part_lists(blend, given).sum(axis=-1)
        told[name] = reciprocal_ranks(scores, better & (order > 2), given.valid).mean()
    assert told["handled"] > told["ignored"] + 0.05
