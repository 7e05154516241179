"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sidecar.training.metrics import (
    RANKING_METRICS,
    auc,
    case_metrics,
    classification,
    compare,
    curves,
    list_probabilities,
    mean_interval,
    mean_of,
    reciprocal_ranks,
    reliability,
)


def flags(*ranks, size=12):
    found = np.zeros(size, bool)
    found[[rank - 1 for rank in ranks]] = True
    return found


def test_metrics_of_two_found_of_three_by_hand():
    """Relevant at ranks 2 and 5 of twelve, a third one not among the candidates."""
    found = case_metrics(flags(2, 5), relevant_total=3)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["mrr"] == 0.5
    assert found["ndcg@10"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(6)) / ideal)
    assert found["map"] == pytest.approx((1 / 2 + 2 / 5) / 3)
    assert found["precision@10"] == pytest.approx(0.2)
    assert found["recall@10"] == pytest.approx(2 / 3)
    assert found["f1@10"] == pytest.approx(2 * 0.2 * (2 / 3) / (0.2 + 2 / 3))
    assert found["hit_rate@10"] == 1.0


def test_metrics_cut_at_ten():
    found = case_metrics(flags(11), relevant_total=1)
    assert (found["mrr"], found["map"]) == (pytest.approx(1 / 11), pytest.approx(1 / 11))
    assert [found[m] for m in ("ndcg@10", "hit_rate@10", "precision@10", "recall@10", "f1@10")] == [
        0.0] * 5


def test_perfect_order_has_ndcg_one_and_nothing_found_has_zero():
    assert case_metrics(flags(1, 2, 3), 3)["ndcg@10"] == pytest.approx(1.0)
    assert case_metrics(flags(*range(1, 13)), 12)["ndcg@10"] == pytest.approx(1.0)
    assert case_metrics(flags(), 2) == dict.fromkeys(RANKING_METRICS, 0.0)


def test_reciprocal_rank_takes_the_best_target_and_ties_in_list_order():
    scores = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [9.0, 1.0, 0.0]])
    target = np.array([[True, False, True], [False, True, False], [False, False, True]])
    valid = np.array([[True] * 3, [True] * 3, [True, True, False]])
    assert reciprocal_ranks(scores, target, valid).tolist() == [0.5, 0.5, pytest.approx(1 / 3)]


def test_auc_counts_ties_half():
    """Pairs: 0.9>0.5 and 0.9>0.1 won, 0.5=0.5 half, 0.5>0.1 won: 3.5 of 4."""
    probability = np.array([0.9, 0.5, 0.5, 0.1])
    label = np.array([True, True, False, False])
    assert auc(probability, label) == pytest.approx(3.5 / 4)
    assert auc(-probability, label) == pytest.approx(0.5 / 4)


def test_auc_of_one_class_is_unknown():
    assert math.isnan(auc(np.array([0.1, 0.2]), np.array([True, True])))


def test_classification_by_hand():
    """Said: 0.9 (right), 0.5 (right), 0.5 (wrong); missed: 0.1."""
    found = classification(np.array([0.9, 0.5, 0.5, 0.1, 0.0]),
                           np.array([True, True, False, True, False]), 0.5)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)


def test_classification_that_says_nothing_has_zero_f1():
    found = classification(np.array([0.1, 0.2]), np.array([True, False]), 0.9)
    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)


def test_interval_holds_the_mean_and_is_the_normal_one_for_many_cases():
    values = np.random.default_rng(0).normal(0.3, 1.0, 900)
    mean, low, high = mean_interval(values)
    assert low < mean < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 30, rel=0.1)
    assert mean_interval(values) == (mean, low, high)


def test_interval_of_equal_values_is_a_point_and_of_none_unknown():
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25, 0.25)
    assert all(math.isnan(value) for value in mean_interval(np.zeros(0)))


def test_comparison_counts_wins_ties_and_losses_and_the_worst_tenth():
    ours = np.array([1.0, 0.5, 0.2, 0.1] + [0.5] * 16)
    theirs = np.array([0.5, 0.5, 0.5, 0.5] + [0.5] * 16)
    found = compare(ours, theirs)
    assert (found["win"], found["tie"], found["loss"]) == (0.05, 0.85, 0.1)
    assert found["difference"] == pytest.approx(-0.2 / 20)
    assert found["worst_tenth"] == pytest.approx((-0.3 - 0.4) / 2)


def test_probabilities_are_a_softmax_over_valid_candidates():
    scores = np.array([[0.0, math.log(3), -np.inf], [5.0, -np.inf, -np.inf]])
    found = list_probabilities(scores, np.isfinite(scores))
    assert found.tolist() == [[pytest.approx(0.25), pytest.approx(0.75), 0.0], [1.0, 0.0, 0.0]]


def test_curves_by_hand():
    """Said at 0.9: one right; at 0.5: two right, one wrong, together; at 0.1: all."""
    found = curves(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
    assert found["roc"] == [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)]
    assert found["precision_recall"] == [(0.5, 1.0), (1.0, pytest.approx(2 / 3)), (1.0, 0.5)]


def test_area_under_the_curve_is_the_auc():
    rng = np.random.default_rng(0)
    label = rng.random(5000) < 0.2
    probability = np.round(rng.normal(label * 1.0, 1.0), 1)
    points = np.array(curves(probability, label, points=4000)["roc"])
    area = float(np.sum(np.diff(points[:, 0]) * (points[1:, 1] + points[:-1, 1]) / 2))
    assert area == pytest.approx(auc(probability, label), abs=0.002)
    assert len(curves(probability, label)["roc"]) <= 102


def test_curves_of_one_class_are_empty():
    assert curves(np.array([0.1, 0.2]), np.array([True, True])) == {"roc": [],
                                                                   "precision_recall": []}


def test_reliability_by_hand():
    found = reliability(np.array([0.1, 0.1, 0.8, 0.6]), np.array([False, True, True, True]), 2)
    assert found["bins"] == [(pytest.approx(0.1), 0.5, 2), (pytest.approx(0.7), 1.0, 2)]
    assert found["error"] == pytest.approx((0.4 + 0.3) / 2)
    assert math.isnan(reliability(np.zeros(0), np.zeros(0, bool))["error"])


def test_mean_of_a_figure_is_told_with_and_without_its_interval():
    assert mean_of(0.5) == mean_of([0.5, 0.4, 0.6]) == mean_of((0.5, 0.4, 0.6)) == 0.5
