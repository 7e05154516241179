"""Diversity: unlike hits come forward, relevance decides among them, and scores still add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sidecar.errors import ControlError
from sidecar.ranking.diversity import DEPTH, PAGE, diversify, page_cap
from sidecar.ranking.items import ItemTable
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.search.controls import Controls, read_controls
from sidecar.search.targets import parse
from sidecar.settings import Settings
from sidecar.training.diversity_effect import distance, entropy
from tests.shops import context, fresh_ranker, history_of, make_events, make_rows, state_of, window


def shop(brands, vectors, categories=None):
    """Return a table of items with these brands and vectors."""
    rows = [{"item_id": f"i{k}", "title": f"thing {k}", "brand": brand,
             "categories": [categories[k]] if categories else []}
            for k, brand in enumerate(brands)]
    table = ItemTable(Vocabulary.fit(rows))
    table.upsert(rows)
    table.vectors = np.array(vectors, np.float32)
    return table


def spread(count, width=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width))


def test_without_strength_the_order_is_that_of_scores():
    scores = np.array([1, 3, 3, 2], np.float32)
    order, reached = diversify(scores, np.arange(4), shop("abcd", spread(4)), 0.0)
    assert order.tolist() == [1, 2, 3, 0]
    assert (reached == scores).all()


def test_twin_of_a_hit_above_gives_way_to_another():
    """Items 0 and 1 are twins; 2 is unlike them and scores a little less than 1."""
    table = shop("xyz", [[1, 0], [1, 0.01], [-1, 0.2]])
    scores = np.array([2.0, 1.9, 1.5], np.float32)
    order, reached = diversify(scores, np.arange(3), table, 0.5)
    assert order.tolist() == [0, 2, 1]
    assert reached[1] == pytest.approx(1.9 - 0.5 * 3.0, abs=0.05)
    order, _ = diversify(scores, np.arange(3), table, 0.05)
    assert order.tolist() == [0, 1, 2]


def test_vectors_of_a_shared_table_and_hits_that_it_lacks_make_no_difference():
    """Workers share vectors in half precision; a hit may be newer than the table."""
    table, half = (shop("a" * 30, spread(30).astype(np.float16)) for _ in range(2))
    half.vectors = half.vectors.astype(np.float16)
    rows = np.append(np.arange(30), -1)
    scores = np.linspace(5, 0, 31, dtype=np.float32)
    for strength in (0.1, 0.5, 1.0):
        expected, found = (diversify(scores, rows, items, strength) for items in (table, half))
        assert sorted(found[0].tolist()) == list(range(31))
        assert found[0].tolist() == expected[0].tolist()
        assert (found[1] == expected[1]).all()


def test_best_hit_stays_first_at_any_strength():
    table, scores = shop("a" * 30, spread(30)), np.linspace(5, 0, 30, dtype=np.float32)
    for strength in (0.1, 0.5, 1.0):
        assert diversify(scores, np.arange(30), table, strength)[0][0] == 0


def test_no_brand_takes_more_than_its_share_of_a_page():
    """Thirty hits of one brand above ten of another: at full strength three of it a page, while
    others are left."""
    table = shop("a" * 30 + "b" * 5 + "c" * 5, np.zeros((40, 4)))
    scores = np.linspace(8, 0, 40, dtype=np.float32)
    order, _ = diversify(scores, np.arange(40), table, 1.0)
    brands = table.brand[order]
    assert page_cap(1.0) == 3
    assert (brands[:PAGE] == 1).sum() == page_cap(1.0) + 1  # ten others, three of each a page
    assert sorted(order.tolist()) == list(range(40))
    half, _ = diversify(scores, np.arange(40), table, 0.5)
    assert (table.brand[half][:PAGE] == table.brand[0]).sum() == page_cap(0.5) == 7


def test_kind_that_all_hits_share_is_not_capped():
    table = shop("abcdefghijkl", np.zeros((12, 4)), ["only"] * 12)
    scores = np.linspace(8, 0, 12, dtype=np.float32)
    assert diversify(scores, np.arange(12), table, 1.0)[0].tolist() == list(range(12))


@pytest.mark.parametrize("count", [0, 1, 2, 3, PAGE + 1, DEPTH + 1, 200])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_order_is_a_permutation_and_scores_fall_along_it(count, strength):
    rng = np.random.default_rng(count)
    table = shop(["abc"[k % 3] for k in range(201)], spread(201), ["xy"[k % 2] for k in range(201)])
    scores = rng.normal(0, 3, count).astype(np.float32)
    rows = np.where(rng.random(count) < 0.2, -1, rng.permutation(201)[:count])
    order, reached = diversify(scores, rows, table, strength)
    assert sorted(order.tolist()) == list(range(count))
    assert (np.diff(reached[order]) <= 0).all()
    assert (reached <= scores).all()


def test_unknown_hits_are_like_nothing_and_lose_nothing():
    table = shop("ab", [[1, 0], [1, 0]])
    scores = np.array([3, 2, 1], np.float32)
    order, reached = diversify(scores, np.array([-1, -1, -1]), table, 1.0)
    assert order.tolist() == [0, 1, 2]
    assert (reached == scores).all()


def test_ranker_tells_what_a_hit_lost_as_a_part():
    ranker, rows = fresh_ranker(), make_rows()
    history = history_of([e for e in make_events(rows) if e.user_id == "u1"])
    hits = window([row["item_id"] for row in rows])
    plain = ranker.rank(hits, state_of(history, ranker), context())
    diverse = ranker.rank(hits, state_of(history, ranker), context(diversity=0.8, explain=True))
    assert "diversity" not in plain.parts
    assert diverse.order.tolist() != plain.order.tolist()
    np.testing.assert_allclose(np.sum(list(diverse.parts.values()), axis=0), diverse.scores,
                               atol=1e-5)
    np.testing.assert_allclose(diverse.scores - diverse.parts["diversity"], plain.scores, atol=1e-5)
    assert (np.diff(diverse.scores[diverse.order]) <= 0).all()
    assert len(diverse.reasons) == len(rows)


def controls(headers=(), parameters="", ext=None) -> Controls:
    return read_controls(headers, parse("/i/_search" + parameters),
                         {"personalize": ext} if ext else {}, Settings())


def test_header_over_parameter_over_ext_over_none():
    header, parameter, ext = (("X-Personalize-Diversity", "0.9"),), "?personalize_diversity=0.5", {
        "diversity": 0.1}
    assert controls(header, parameter, ext).diversity == 0.9
    assert controls((), parameter, ext).diversity == 0.5
    assert controls((), "", ext).diversity == 0.1
    assert controls().diversity == 0.0


@pytest.mark.parametrize("wrong", ["1.1", "-0.1", "much", "nan"])
def test_impossible_strength_is_told(wrong):
    with pytest.raises(ControlError, match=r"x-personalize-diversity is .*, must be 0-1"):
        controls((("X-Personalize-Diversity", wrong),))


def test_measures_of_a_page_by_hand():
    assert distance(np.array([[1, 0], [0, 2], [1, 0]])) == pytest.approx(2 / 3)
    assert distance(np.ones((1, 2))) == 0.0
    assert entropy(np.array([1, 1, 2, 2, 0])) == pytest.approx(1.0)
    assert entropy(np.array([3, 3])) == entropy(np.zeros(4, int)) == 0.0
    assert replace(context(), diversity=1.0).diversity == 1.0
