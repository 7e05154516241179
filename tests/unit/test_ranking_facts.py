"""What is known of items and histories: imputation, vocabulary, statistics, sums, associations."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from sidecar.ranking.association import Association
from sidecar.ranking.encoder import MAX_KINDS, KindCodes
from sidecar.ranking.imputation import DEFAULT_RULES, Imputation, interpolated, rules_named
from sidecar.ranking.kinds import is_among, meaning, strength, target_kinds, word_of
from sidecar.ranking.statistics import DAY_S, ItemStatistics
from sidecar.ranking.vocabulary import Vocabulary, column_values, item_words, words_of

NAN = float("nan")
RATING = list(DEFAULT_RULES).index("rating")
ROWS = [
    {"item_id": "a", "title": "Red cups", "brand": "Alba", "categories": ["home", "cups"]},
    {"item_id": "b", "title": "Blue glass", "brand": "Alba", "categories": ["home", "glass"]},
    {"item_id": "c", "title": "Red lamp", "brand": None, "categories": ["home"]},
]


@pytest.mark.parametrize(("rule", "value"), [
    ("drop", NAN), ("mean", 3.0), ("median", 2.0), ("mode", 1.0), ("zero", 0.0),
    ("interpolate", 2.0)])
def test_imputation_rule_fits_known_values_only(rule, value):
    known = np.array([1.0, 1.0, NAN, 2.0, 3.0, 8.0, NAN])
    imputation = Imputation.fit(rule, known)
    np.testing.assert_equal(imputation.value, value)
    np.testing.assert_array_equal(imputation.fill(np.array([5.0, NAN]), ["a", "b"]),
                                  np.array([5.0, value], np.float32))


@pytest.mark.parametrize("rule", ["mean", "median", "mode", "zero", "interpolate"])
def test_column_without_any_value_is_filled_with_zero(rule):
    assert Imputation.fit(rule, np.full(3, NAN)).fill(np.full(2, NAN), ["a", "b"]).tolist() == [
        0.0, 0.0]


def test_unknown_imputation_rule_is_refused():
    with pytest.raises(ValueError, match="imputation rule is 'guess', must be one of drop, mean"):
        Imputation.fit("guess", np.ones(2))


@pytest.mark.parametrize(("at", "value"), [(0, 10), (1, 10), (2, 15), (3, 20), (9, 20)])
def test_interpolation_is_linear_between_and_constant_beyond(at, value):
    items, times = np.array([7, 4, 7]), np.array([1.0, 2.0, 3.0])
    assert interpolated(items, times, np.array([10.0, 1.0, 20.0]), at) == {7: value, 4: 1.0}


def test_interpolated_items_have_their_own_value_and_the_others_the_median():
    known = np.array([2.0, 4.0, NAN])
    filled = Imputation.fit("interpolate", known, {"c": 7.0}).fill(
        np.array([5.0, NAN, NAN]), ["a", "b", "c"])
    assert filled.tolist() == [5.0, 4.0, 7.0]  # the median of 2, 4 and 7
    assert Imputation.fit("mean", known, {"c": 7.0}).fill(np.full(1, NAN), ["c"]).tolist() == [3.0]


def rated(*pairs, rules=None):
    """Return the rating column of products of so many stars and reviews, None for unknown."""
    rows = [{"item_id": f"r{k}", "title": "cup", "rating": stars, "review_count": reviews}
            for k, (stars, reviews) in enumerate(pairs)]
    ids = [row["item_id"] for row in rows]
    return Vocabulary.fit(rows, rules).numbers(rows, ids)[:, RATING].tolist()


def test_rating_of_one_review_lies_below_a_good_one_of_hundreds():
    found = rated((5.0, 1), (4.6, 500), (2.4, 40))  # 4.0 on average
    assert found == pytest.approx([(5 + 40) / 11, (2300 + 40) / 510, (96 + 40) / 50])
    assert found[0] < found[1]


def test_what_a_rating_lacks_is_what_its_rules_say():
    odd = ((5.0, None), (5.0, -3), (5.0, 1e39), (None, None), (None, 90), (1e39, 90))
    assert rated((4.0, 7), (1.0, 7), *odd)[2:] == [4.0] * 6  # the mean: of no reviews, or imputed
    assert rated((4.0, 7), (1.0, 7), *odd, rules={"rating": "zero"})[2:] == [4.0] * 3 + [0.0] * 3
    assert rated((4.0, 6), (2.0, None), rules={"review_count": "mean"})[1] == pytest.approx(
        (6 * 2 + 10 * 3) / 16)


@pytest.mark.parametrize("reviews", [None, 0])
def test_ratings_of_a_catalogue_without_counts_are_as_they_are(reviews):
    assert rated((5.0, reviews), (4.5, reviews), (None, 8)) == [5.0, 4.5, 4.75]
    assert rated((None, reviews), (None, 8)) == [0.0, 0.0]


def test_rules_are_read_by_column_and_wrong_ones_refused():
    assert rules_named("") == {}
    assert rules_named("price=mean, rating = drop") == {"price": "mean", "rating": "drop"}
    with pytest.raises(ValueError, match="'colour' is not filled in; known: price, rating"):
        rules_named("colour=mean")
    with pytest.raises(ValueError, match="rule of price is 'guess', must be one of drop, mean"):
        rules_named("price=guess")


def test_words_fold_case_and_plurals():
    assert words_of("Red CUPS, glass; gas Straße 3-pcs") == [
        "red", "cup", "glass", "gas", "strasse", "3", "pcs"]


def test_characters_are_words_where_none_are_parted_by_spaces():
    assert words_of("红色杯子3号 naïve") == ["红", "色", "杯", "子", "3", "号", "naïve"]
    assert words_of("赤いカップ, 𠮷野家") == ["赤", "い", "カップ", "𠮷", "野", "家"]
    assert words_of("빨간 컵 Жанна كتاب") == ["빨간", "컵", "жанна", "كتاب"]


@pytest.mark.parametrize(("text", "words"), [
    ("हिन्दी की किताबें", ["हिन्दी", "की", "किताबें"]),
    ("தமிழ் புத்தகம்", ["தமிழ்", "புத்தகம்"]),
    ("كِتَابٌ جديد", ["كِتَابٌ", "جديد"]),
    ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
    ("می\u200cخواهم چای", ["می\u200cخواهم", "چای"]),
    ("cafe\u0301 café", ["café", "café"]),
    ("İNDİRİM çay", ["indirim", "çay"]),
    ("tea \u2615\ufe0f cup\ufe0f", ["tea", "cup"]),
])
def test_vowel_signs_and_accents_part_no_words(text, words):
    assert words_of(text) == [unicodedata.normalize("NFC", word) for word in words]


def test_vocabulary_codes_start_at_one_and_unknowns_are_left_out():
    known = Vocabulary.fit(ROWS)
    assert known.brands == {"Alba": 1}
    assert 0 not in known.words.values()
    assert known.word_codes(["red", "never", "red"]) == [known.words["red"]]
    assert not known.word_vectors[0].any()
    assert not known.text_vector([]).any()
    assert np.linalg.norm(known.text_vector(known.word_codes(["red", "cup"]))) == pytest.approx(1)


def test_narrow_categories_come_first():
    known = Vocabulary.fit(ROWS)
    codes = known.narrow_first(["home", "cups", "never"])
    assert codes == [known.categories["cups"], known.categories["home"]]


@pytest.mark.parametrize("rows", [
    [], [{"item_id": "a", "title": ""}], [{"item_id": "a", "title": "cup"}],
    [{"item_id": "a", "title": "cup"}] * 3])
def test_smallest_catalogues_fit(rows):
    known = Vocabulary.fit(rows)
    assert np.isfinite(known.word_vectors).all()


def test_words_that_always_go_together_add_no_noise():
    """Ten equal titles have one direction; the others would be rounding, drawn anew each time."""
    rows = [{"item_id": str(k), "title": "red tea cup"} for k in range(10)]
    vectors = Vocabulary.fit(rows).word_vectors
    assert vectors[:, 0].any()
    assert not vectors[:, 1:].any()


def test_a_word_that_a_row_says_twice_counts_once():
    titles = ["red tea cup", "tea pot", "red pot lid", "lid"]
    once, twice = ([{"item_id": title, "title": title + more} for title in titles]
                   for more in ("", " pot tea lid"))
    fitted = Vocabulary.fit([*once, *twice])
    again = Vocabulary.fit([*once, *({**row, "title": row["title"] + " tea"} for row in twice)])
    np.testing.assert_array_equal(fitted.word_vectors, again.word_vectors)


def test_rows_share_the_words_that_they_have_in_common():
    first, second = (item_words({"title": title}) for title in ("red tea cup", "CUPS, green"))
    assert first[2] is second[0]


def test_vocabulary_fits_the_same_with_the_same_seed():
    first, second = Vocabulary.fit(ROWS, seed=3), Vocabulary.fit(ROWS, seed=3)
    np.testing.assert_array_equal(first.word_vectors, second.word_vectors)


def test_instants_of_a_column_keep_their_zone():
    rows = [{"created_at": "2020-01-01T01:00:00+01:00"}, {"created_at": "2020-01-01T00:00:00"},
            {"created_at": "2020-01-01"}, {"created_at": "soon"}, {"created_at": None}, {}]
    expected = [1577836800.0] * 3 + [NAN] * 3
    np.testing.assert_array_equal(column_values(rows, "created_at"), expected)


def advance(statistics, now, *events):
    rows, ts, weights, strong = zip(*events, strict=True) if events else ((), (), (), ())
    statistics.advance(now, np.array(rows, np.int64), np.array(ts, float),
                       np.array(weights, float), np.array(strong, bool))


def test_statistics_are_sums_of_decayed_strengths():
    """Σ strength · 2^(−age/H): 3 days old with H = 3 days counts half, on the spot counts whole."""
    statistics = ItemStatistics(2)
    advance(statistics, 3 * DAY_S, (0, 0.0, 1.0, True), (0, 3 * DAY_S, 1.0, True),
            (1, 0.0, 0.25, False), (-1, 0.0, 1.0, True), (1, 0.0, -1.0, True))
    counts = statistics.at(3 * DAY_S)
    assert counts["strong"][0, 0] == pytest.approx(1.5)
    assert counts["strong"][0, 1] == pytest.approx(1 + 2 ** (-3 / 14))
    assert not counts["strong"][1].any()
    assert counts["weak"][1] == pytest.approx([0.25 * 2 ** (-3 / 14), 0.25 * 2 ** (-3 / 60)])
    assert (statistics.first[0], statistics.last[0]) == (0.0, 3 * DAY_S)
    assert np.isnan(statistics.first[1])


def test_statistics_advanced_in_steps_equal_those_advanced_at_once():
    events = [(k % 3, k * DAY_S, 1.0 if k % 2 else 0.25, bool(k % 2)) for k in range(12)]
    at_once, stepped = ItemStatistics(3), ItemStatistics(3)
    advance(at_once, 20 * DAY_S, *events)
    for k in range(12):
        advance(stepped, (k + 1) * DAY_S, events[k])
    for name, counts in at_once.at(20 * DAY_S).items():
        np.testing.assert_allclose(stepped.at(20 * DAY_S)[name], counts, rtol=1e-5)
    np.testing.assert_array_equal(stepped.last, at_once.last)


def test_events_out_of_order_count_as_in_order():
    events = [(0, k * DAY_S, 1.0, True) for k in range(5)]
    straight, turned = ItemStatistics(1), ItemStatistics(1)
    advance(straight, 5 * DAY_S, *events)
    advance(turned, 5 * DAY_S, *events[::-1])
    np.testing.assert_allclose(turned.at(9 * DAY_S)["strong"], straight.at(9 * DAY_S)["strong"],
                               rtol=1e-5)
    assert (turned.first[0], turned.last[0]) == (0.0, 4 * DAY_S)


def test_a_trial_is_the_first_purchase_of_an_item_by_a_shopper():
    statistics = ItemStatistics(1)
    statistics.advance(1.0, np.zeros(4, np.int64), np.zeros(4), np.ones(4), np.ones(4, bool),
                       np.array([True, True, False, False]))
    assert statistics.trial[0].tolist() == [2.0, 2.0]
    advance(statistics, 1.0, (0, 0.0, 1.0, True))  # nobody says whose: as many as so far
    assert statistics.trial[0, 1] == pytest.approx(2 + 2.5 / 5)


def test_statistics_grow_and_survive_saving():
    statistics = ItemStatistics(1, clock=5.0)
    statistics.grow(4)
    advance(statistics, 6.0, (3, 5.5, 1.0, True))
    again = ItemStatistics.from_arrays(statistics.arrays())
    assert again.clock == 6.0
    np.testing.assert_array_equal(again.strong, statistics.strong)
    np.testing.assert_array_equal(again.last, statistics.last)


def test_a_copy_is_advanced_alone():
    statistics = ItemStatistics(1)
    advance(statistics.copy(), 6.0, (0, 5.5, 1.0, True))
    assert not statistics.strong.any()


def test_association_adds_up_a_history_through_its_neighbours():
    """Item 0 has neighbours 1 (weight 2) and 2 (weight 0.5), item 2 has 0; the others have none."""
    table = Association(np.array([0, -1, 1], np.int32), np.array([[1, 2], [0, 0]], np.int32),
                        np.array([[2, 0.5], [3, 0]], np.float32))
    history = np.array([1, 10, 4], np.float32)
    scores = table.score(np.array([0, 1, 2, -1, 77]), history)
    assert scores.tolist() == [22.0, 0.0, 3.0, 0.0, 0.0]
    again = Association.from_arrays(table.arrays())
    np.testing.assert_array_equal(again.score(np.array([0, 2]), history), scores[[0, 2]])


def test_association_of_an_empty_shop_scores_zero():
    table = Association(np.zeros(0, np.int32), np.zeros((0, 2), np.int32),
                        np.zeros((0, 2), np.float32))
    assert table.score(np.array([0, 1]), np.ones(2, np.float32)).tolist() == [0.0, 0.0]


def test_strengths_lie_between_minus_one_and_one_and_unknown_words_count_as_a_view():
    assert strength("purchase") == 1.0
    assert strength("poked") == strength("view")
    assert strength("return") == -1.0


@pytest.mark.parametrize(("word", "known"), [
    ("AddToCart", "add_to_cart"), ("add-to-cart", "add_to_cart"), ("addtocart", "add_to_cart"),
    ("Order Completed", "purchase"), ("transaction", "purchase"), ("Product Viewed", "view"),
    ("view_item", "view"), ("click_through", "click"), ("refund", "return"),
    ("PURCHASE", "purchase"), ("poked", None), ("", None), ("取消", None)])
def test_other_systems_words_are_known_however_they_are_written(word, known):
    assert meaning(word) == known
    assert known is None or strength(word) == strength(known)


@pytest.mark.parametrize(("word", "kinds", "is_one"), [
    ("purchase", {"purchase"}, True), ("Purchase", {"purchase"}, True),
    ("purchase", {"view", "transaction"}, True), ("poked", {"poked"}, True),
    ("Poked", {"poked"}, False), ("poked", {"view"}, False), ("view", {"purchase"}, False),
    ("purchase", set(), False)])
def test_word_is_among_kinds_by_what_it_means(word, kinds, is_one):
    assert is_among(word, frozenset(kinds)) is is_one


def test_words_that_mean_the_same_have_one_code_unless_training_told_them_apart():
    codes = KindCodes(("view", "order", "purchase", "poked"))
    words = ("view", "order", "purchase", "poked", "PageView", "Purchase", "click", "prodded")
    assert [codes[word] for word in words] == [1, 2, 3, 4, 1, 2, 0, 0]
    assert KindCodes([f"word {k}" for k in range(40)])["word 39"] == MAX_KINDS - 1


@pytest.mark.parametrize(("word", "quantity", "counted"), [
    ("purchase", 2.0, "purchase"), ("purchase", -1.0, "return"), ("order", -3.0, "return"),
    ("purchase", 0.0, "purchase"), ("purchase", None, "purchase"), ("view", -1.0, "view")])
def test_purchase_of_a_negative_quantity_is_a_return(word, quantity, counted):
    assert word_of(word, quantity) == counted


@pytest.mark.parametrize(("counts", "kinds"), [
    ({"view": 900, "purchase": 100}, {"purchase"}),
    ({"view": 9000, "purchase": 1}, {"view"}),  # too few to learn from
    ({"purchase": 5, "order": 5, "click": 5}, {"purchase", "order"}),
    ({"click": 7}, {"click"}),
    ({"search": 7, "return": 2}, set()),
    ({"purchase": 0, "view": 0}, set()),  # words of the log, but not one on a known item
    ({}, set())])
def test_target_kinds_are_the_strongest_that_are_frequent(counts, kinds):
    assert target_kinds(counts, counts.values()) == kinds
