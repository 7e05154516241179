"""The compiled facts, held against what a person works out by hand or plain Python does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.ranking import kernels
from sidecar.ranking.association import Association
from sidecar.ranking.history import Trail
from sidecar.ranking.items import ItemTable
from sidecar.ranking.logits import half_logits, logits
from sidecar.ranking.query_memory import QueryMemory
from sidecar.ranking.signals import FEATURES, Knowledge, Situation, facts
from sidecar.ranking.statistics import DAY_S, ItemStatistics
from sidecar.ranking.vocabulary import Vocabulary

NOW = 1_000 * DAY_S
ROWS = [
    {"item_id": "a", "title": "red cup", "brand": "Alba", "categories": ["home", "cups"],
     "price": 3.0},
    {"item_id": "b", "title": "blue cup", "brand": "Borea", "categories": ["home", "cups"],
     "price": 5.0},
    {"item_id": "c", "title": "red lamp", "brand": "Alba", "categories": ["home", "lamps"],
     "price": 50.0},
    {"item_id": "d", "title": "green plate", "brand": None, "categories": [], "price": None},
]


@pytest.fixture
def shop() -> Knowledge:
    table = ItemTable(Vocabulary.fit(ROWS))
    table.upsert(ROWS)
    ties = Association(np.array([0, 1, -1, -1], np.int32), np.array([[1, 2], [0, 3]], np.int32),
                       np.array([[0.5, 2.0], [1.0, 0.0]], np.float32))
    return Knowledge(table, ItemStatistics(len(table)), {"ease": ties},
                     rhythm=np.array([[0.5, np.log1p(10.0)]] * 4, np.float32))


def trail(*events: tuple[int, float, float, bool]) -> Trail:
    """Events as (row, days ago, weight, strong), oldest first."""
    rows, ago, weight, strong = zip(*events, strict=True) if events else ((), (), (), ())
    return Trail(np.array(rows, np.int64), NOW - np.array(ago, float) * DAY_S,
                 np.array(weight, np.float32), np.array(strong, bool))


def told(knowledge, events=(), rows=(0, 1, 2, 3), scores=(4.0, 3.0, 2.0, 1.0), query=None):
    """Return {column: (K)} and {context name: number}."""
    features, context = facts(knowledge, Situation(
        np.array(rows, np.int64), np.array(scores, np.float32), trail(*events), NOW, query))
    columns = {f"{signal}.{name}": features[:, k] for k, (signal, name) in enumerate(FEATURES)}
    return columns, dict(zip(kernels.CONTEXT, context.tolist(), strict=True))


def test_engine_columns_tell_score_and_rank_relative_to_the_first_hit(shop):
    columns, context = told(shop)
    assert columns["engine.score_ratio"].tolist() == [1.0, 0.75, 0.5, 0.25]
    assert columns["engine.reciprocal_rank"][2] == pytest.approx(0.5)
    assert columns["engine.log_score"][0] == pytest.approx(math.log(5))
    assert context["score_spread"] == pytest.approx(np.std([1.0, 0.75, 0.5, 0.25]))
    assert context["narrowness"] == 0.5  # two of four are cups


def test_repeat_columns_count_this_very_item(shop):
    columns, context = told(shop, [(0, 40, 1.0, True), (0, 20, 1.0, True), (1, 20, 0.25, False),
                                   (2, 10, 1.0, True), (2, 5, -1.0, False)])
    assert columns["repeat.bought"].tolist() == [1, 0, 1, 0]
    assert columns["repeat.count"][0] == pytest.approx(math.log(3))
    assert columns["repeat.decay30"][0] == pytest.approx(
        math.log1p(2 * (2 ** (-40 / 30) + 2 ** (-20 / 30))))
    assert columns["repeat.touched_not_bought"].tolist() == [0, 1, 0, 0]
    assert columns["repeat.returned"].tolist() == [0, 0, 1, 0]
    assert columns["repeat.share"][0] == pytest.approx(2 / 3)
    # bought every 20 days, the shop's usual is 10: expected after 15, 20 days ago
    assert columns["repeat.due"][0] == pytest.approx(math.log(21 / 16))
    # four visits; bought in the last but two and the one before
    assert columns["repeat.visit_decay"][0] == pytest.approx(math.log1p(0.8 ** 2 + 0.8 ** 3))
    assert columns["repeat.visits_since"][0] == pytest.approx(math.log1p(2))
    assert columns["repeat.visit_rate"][0] == pytest.approx(2 / 5)
    assert context["bought_here"] == pytest.approx(math.log1p(2))
    assert context["visits"] == pytest.approx(math.log1p(4))


def test_content_columns_count_brand_and_category(shop):
    columns, _ = told(shop, [(0, 30, 1.0, True), (0, 30, 1.0, True), (1, 2, 0.25, False)])
    assert columns["content.brand_count"].tolist() == pytest.approx(
        [math.log(3), 0, math.log(3), 0])
    assert columns["content.category0_count"][:2].tolist() == pytest.approx([math.log(3)] * 2)
    assert columns["content.category0_since"][0] == pytest.approx(math.log(3))
    assert columns["content.text_near"][0] > columns["content.text_near"][3]
    mean = (2 * 2 ** (-30 / 120) * math.log(4) + 0.25 * 2 ** (-2 / 30) * math.log(6)) / (
        2 * 2 ** (-30 / 120) + 0.25 * 2 ** (-2 / 30))
    assert columns["content.price_gap"][0] == pytest.approx(abs(math.log(4) - mean), abs=1e-4)


def test_association_adds_up_as_the_plain_sum_does(shop):
    columns, _ = told(shop, [(1, 30, 1.0, True), (2, 1, 1.0, True), (2, 1, 1.0, True)])
    history = np.array([0, 1, np.sqrt(2), 0], np.float32)
    plain = shop.associations["ease"].score(np.arange(4), history)
    np.testing.assert_allclose(columns["collaborative.ease_all"], plain, rtol=1e-6)
    assert columns["collaborative.ease_latest"].tolist() == [2.0, 0, 0, 0]
    assert columns["collaborative.ease_best"].tolist() == [2.0, 0, 0, 0]


def test_popularity_tells_trials_from_repeats(shop):
    shop.statistics.advance(NOW, np.array([0, 0, 1, 1]), np.full(4, NOW - 14 * DAY_S), np.ones(4),
                            np.ones(4, bool), np.array([True, False, True, True]))
    columns, _ = told(shop)
    assert columns["popularity.strong_14"][0] == pytest.approx(math.log(1 + 0.05))
    assert columns["popularity.trial_14"][0] == pytest.approx(math.log(0.5 + 0.05))
    assert columns["popularity.share_14"][:2].tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    assert columns["popularity.never_sold"].tolist() == [0, 0, 1, 1]
    assert columns["popularity.days_since_sold"][0] == pytest.approx(math.log(15))


def test_memory_knows_what_followed_a_query_however_it_is_spelt(shop):
    memory = QueryMemory(["cup red"], np.array([0, 2]), np.array([0, 2], np.int32),
                         np.array([[3, 0], [1, 8]], np.float32), clock=NOW)
    knowledge = Knowledge(shop.items, shop.statistics, memory=memory)
    columns, context = told(knowledge, query="Red CUPS")
    assert columns["memory.strong"].tolist() == pytest.approx([math.log(4), 0, math.log(2), 0])
    assert columns["memory.weak_share"].tolist() == pytest.approx([0, 0, 1, 0])
    assert context["memory"] == pytest.approx(math.log1p(12))
    assert told(knowledge, query="red")[1]["memory"] == 0


def test_scores_below_zero_are_odds_against_the_best(shop):
    """Margins and log-probabilities of rescorers; beside a best of 1e-9, -5 was five billion."""
    columns, context = told(shop, scores=(-5.0, -6.0, np.nan, -7.0))
    odds = [1.0, math.exp(-1), 0.0, math.exp(-2)]
    assert columns["engine.score_ratio"].tolist() == pytest.approx(odds)
    assert columns["engine.log_score"].tolist() == pytest.approx(np.log1p(odds).tolist())
    assert context["score_spread"] == pytest.approx(np.std(odds))
    alike, _ = told(shop, scores=(-7.0,) * 4)
    assert alike["engine.score_ratio"].tolist() == [1.0] * 4


def test_a_stranger_s_context_is_what_an_empty_history_gives(shop):
    _, context = told(shop)
    for name, value in zip(kernels.CONTEXT, kernels.STRANGER, strict=True):
        if not math.isnan(value):
            assert context[name] == pytest.approx(value), name


def test_unknown_items_say_nothing_and_raise_nothing(shop):
    columns, _ = told(shop, [(0, 3, 1.0, True)], rows=(-1, 0, 99), scores=(np.nan, 1.0, np.inf))
    for name in ("repeat.count", "content.brand_count", "collaborative.ease_all"):
        assert columns[name][[0, 2]].tolist() == [0, 0]
    assert columns["engine.score_ratio"].tolist() == [0, 1, 0]
    assert np.isnan(columns["quality.price"][0])


def test_catalogue_counts_of_later_days_are_scaled_back(shop):
    rows = [{**ROWS[0], "sales": 100.0}]
    shop.items.upsert(rows)
    shop.statistics.advance(NOW, np.array([0]), np.array([NOW]), np.ones(1), np.ones(1, bool))
    later = Knowledge(shop.items, shop.statistics, final_counts=np.array([9.5], np.float32))
    assert told(shop)[0]["quality.sales"][0] == pytest.approx(math.log1p(100))
    assert told(later)[0]["quality.sales"][0] == pytest.approx(math.log1p(15), rel=1e-5)


@given(st.lists(st.integers(-1, 2**31 - 1), max_size=300), st.lists(st.integers(-1, 2**31 - 1)))
def test_groups_tell_keys_apart_as_a_dict_does(keys, asked):
    groups = kernels._groups(np.array(keys, np.int64))
    codes: dict[int, int] = {}
    for key in keys:
        if key >= 0:
            codes.setdefault(key, len(codes))
    assert groups.size == len(codes)
    assert groups.of.tolist() == [codes.get(key, -1) for key in keys]
    for key in [*asked, *keys]:
        assert kernels._find(groups, key) == codes.get(key, -1)


@pytest.mark.parametrize("precision", [np.float32, np.float16])
def test_logits_are_numpys_in_both_precisions(precision):
    rng = np.random.default_rng(3)
    vectors = (rng.normal(size=(50, 16)) * 10.0 ** rng.integers(-7, 4, (50, 16))).astype(precision)
    vectors[0], vectors[1] = 0.0, -vectors[2]
    interest, bias = rng.normal(size=16).astype(np.float32), 0.25
    rows = np.array([0, 1, 2, 49, -1, 50, *range(3, 40)], np.int64)
    found = (half_logits(vectors.view(np.uint16), rows, interest, bias)
             if precision is np.float16 else logits(vectors, rows, interest, bias))
    is_known = (rows >= 0) & (rows < 50)
    expected = (vectors.astype(np.float64)[rows % 50] @ interest + bias) * is_known
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert found[4] == found[5] == 0.0
