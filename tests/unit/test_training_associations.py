"""Associations, factors, rhythms, queries and candidates, on logs small enough to work out."""

from __future__ import annotations

import numpy as np
import pytest

from sidecar.ranking.items import ItemTable
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.records import Event
from sidecar.training.associations import (
    MOST_OF_VISIT,
    fit_associations,
    fit_factors,
    fit_rhythm,
)
from sidecar.training.event_table import EventTable
from sidecar.training.examples import make_examples
from sidecar.training.queries import QueryMaker
from sidecar.training.retrieval import Retrieval
from sidecar.training.walk import Walk
from tests.shops import DAY_S, make_events, make_rows

ROWS = [{"item_id": name, "title": name, "brand": None, "categories": ["all"]} for name in "abcd"]
INDEX = {row["item_id"]: k for k, row in enumerate(ROWS)}


def baskets(*, users):
    """Each user buys a and b together, and c on the next day."""
    return EventTable.from_events(
        [Event(f"u{user}", "purchase", item, day * DAY_S, order_id=f"{user}-{day}")
         for user in range(users) for item, day in (("a", 1), ("b", 1), ("c", 2))], INDEX)


def score(table, candidate, *bought):
    history = np.zeros(len(ROWS), np.float32)
    history[[INDEX[item] for item in bought]] = 1.0
    return float(table.score(np.array([INDEX[candidate]]), history)[0])


def test_together_is_a_cosine_over_baskets():
    """a and b share three baskets of three each: 3 / √(3+5)²."""
    together = fit_associations(baskets(users=3), len(ROWS))["together"]
    assert score(together, "a", "b") == pytest.approx(3 / 8)
    assert score(together, "a", "c", "d", "a") == 0.0


def test_visit_of_thousands_of_items_makes_no_pairs():
    """A crawler's session of 29 thousand items took 10 GB."""
    size = MOST_OF_VISIT + 1
    events = [Event(user, "view", str(item), float(item), session_id=f"{user} {ids}")
              for user in "uvw" for ids in "xyz" for item in range(size if user == "w" else 3)]
    for last in (size, size - 1):  # one item less is a visit yet
        log = EventTable.from_events([e for e in events if int(e.item_id) < last],
                                     {str(k): k for k in range(size)})
        tables = fit_associations(log, size)
        history = np.ones(size, np.float32)
        shared = [float(tables[name].score(np.array([0]), history)[0]) for name in
                  ("together", "after")]
        assert (tables["together"].slot[5] >= 0) == (last < size)
        assert min(shared) > 0


def test_after_looks_from_one_visit_to_the_next_and_not_back():
    after = fit_associations(baskets(users=3), len(ROWS))["after"]
    assert score(after, "c", "a") == pytest.approx(3 / 8)
    assert score(after, "a", "c") == 0.0


def test_ease_by_hand():
    """G = 3·J + 200·I over a, b, c, so B has 3/206 beside its diagonal."""
    ease = fit_associations(baskets(users=3), len(ROWS))["ease"]
    assert score(ease, "a", "b") == pytest.approx(3 / 206, rel=1e-3)
    assert score(ease, "a", "b", "c") == pytest.approx(6 / 206, rel=1e-3)
    assert score(ease, "a", "a") == 0.0


def test_too_little_support_associates_nothing():
    for table in fit_associations(baskets(users=2), len(ROWS)).values():
        assert score(table, "a", "a", "b", "c") == 0.0


def test_returns_and_unknown_items_associate_nothing():
    log = EventTable.from_events(
        [Event(f"u{k}", "return", item, 1.0, order_id=str(k)) for k in range(5)
         for item in ("a", "b", "gone")], INDEX)
    for table in fit_associations(log, len(ROWS)).values():
        assert score(table, "a", "a", "b") == 0.0


def test_factors_are_unit_or_zero_and_the_same_with_the_same_seed():
    log = baskets(users=4)
    factors = fit_factors(log, len(ROWS), seed=1)
    norms = np.linalg.norm(factors, axis=1)
    assert norms[:3] == pytest.approx(1.0, abs=1e-5)
    assert norms[3] == 0.0
    assert abs(factors[:, 1:]).max() < 1e-6  # all users alike: one direction, and no noise
    for _ in range(20):
        np.testing.assert_allclose(factors, fit_factors(log, len(ROWS), seed=1), atol=1e-6)


def table_of(rows):
    table = ItemTable(Vocabulary.fit(rows))
    table.upsert(rows)
    return table


def test_rhythm_is_the_share_that_came_back_and_the_usual_interval():
    """Two of four buyers of a came back after ten days; all items share one category."""
    events = [Event(f"u{k}", "purchase", "a", 0.0) for k in range(4)]
    events += [Event(f"u{k}", "purchase", "a", 10 * DAY_S) for k in range(2)]
    events += [Event("u0", "purchase", "a", 10 * DAY_S + 60)]  # the same visit is no interval
    rhythm = fit_rhythm(EventTable.from_events(events, INDEX), table_of(ROWS))
    assert rhythm[0] == pytest.approx([0.5, np.log1p(10)])
    assert rhythm[3] == pytest.approx([0.5, np.log1p(10)])  # never bought: its category's


def test_walk_counts_what_lies_strictly_before():
    log = baskets(users=3)
    walk = Walk(log, len(ROWS), kept=2, strong_kinds=frozenset({"purchase"}))
    walk.advance(2 * DAY_S)
    assert walk.statistics.strong[:, 3] == pytest.approx([3, 3, 0, 0], abs=1e-3)
    assert walk.trail(0, 2 * DAY_S).rows.tolist() == [0, 1]
    walk.advance(2 * DAY_S + 1)
    assert walk.statistics.strong[2, 3] == pytest.approx(3, abs=1e-3)
    assert walk.trail(0, 9 * DAY_S).rows.tolist() == [1, 2]  # the last two kept


def test_candidates_hold_every_match_best_first_and_the_same_each_time():
    rows = make_rows()
    retrieval = Retrieval(rows)
    hits, scores = retrieval.search("red cups")
    assert rows[hits[0]]["title"].startswith("red cup")
    assert (np.diff(scores) <= 1e-4).all()
    assert {"cup" in rows[k]["title"] or "red" in rows[k]["title"] for k in hits} == {True}
    np.testing.assert_array_equal(Retrieval(rows).search("red cups")[0], hits)
    assert len(Retrieval(rows, depth=4).search("red cups")[0]) == 4


@pytest.mark.parametrize("query", ["", "?!", "unheard of"])
def test_query_without_a_known_word_finds_nothing(query):
    hits, scores = Retrieval(make_rows()).search(query)
    assert (len(hits), len(scores)) == (0, 0)


def test_made_queries_are_categories_or_phrases_that_several_items_share():
    rows = make_rows()
    maker = QueryMaker(rows, seed=0)
    drawn = {maker.draw(k % 60) for k in range(200)}
    nouns, colours = {"cup", "plate", "lamp", "candle", "clock", "basket"}, {
        "red", "blue", "green", "white", "black"}
    assert drawn <= nouns | colours | {f"{noun}s" for noun in nouns}
    assert QueryMaker([{"title": "one of a kind"}]).draw(0) is None


def test_lists_hold_a_target_among_others_and_ascend_in_time():
    rows = make_rows()
    log = EventTable.from_events(make_events(rows, users=10), {r["item_id"]: k for k, r in
                                                               enumerate(rows)})
    since = float(np.median(log.ts))
    examples = make_examples(log, rows, Retrieval(rows), since=since, most=40, per_visit=2, seed=0)
    assert 0 < len(examples) <= 40
    assert all(example.target.any() and not example.target.all() for example in examples)
    assert all(len(example.rows) >= 5 and example.ts >= since for example in examples)
    assert [example.ts for example in examples] == sorted(example.ts for example in examples)
