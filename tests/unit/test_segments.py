"""Segments: alike users end together, and what they buy more of comes forward."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from sidecar.ranking.segments import LIFT_BOUND, Segments, attribute_key, factor_vector
from sidecar.records import Event
from sidecar.training.associations import fit_factors
from sidecar.training.event_table import EventTable
from sidecar.training.segments import fit_on_vectors, fit_segments, fit_segments_on_factors
from tests.shops import make_events, make_rows, trained

DAY_S = 86_400.0
ITEMS = 40


def two_kinds_of_users(users=120, seed=0, events_each=30):
    """Even users buy items 0-19, odd users 20-39; interests point along two axes, with noise."""
    rng = np.random.default_rng(seed)
    events = [Event(f"u{user}", "purchase", f"i{(user % 2) * 20 + rng.integers(20)}",
                    1e9 + day * DAY_S + user, order_id=f"o{user}-{day}")
              for day in range(events_each) for user in range(users)]
    log = EventTable.from_events(events, {f"i{k}": k for k in range(ITEMS)})
    interests = np.zeros((users, 8), np.float32)
    kind = np.array([int(name[1:]) % 2 for name in log.users])
    interests[np.arange(users), kind] = 3.0
    interests += rng.normal(0, 0.3, interests.shape).astype(np.float32)
    return log, interests, kind


def fit(log, interests, **options):
    cut = float(np.quantile(log.ts, 0.8))
    return fit_on_vectors(log, np.arange(len(log.users)), interests, interests, cut, ITEMS,
                            **options)


def some_segments(attributes=None):
    return Segments(np.eye(3, 4, dtype=np.float32),
                    np.arange(15, dtype=np.float16).reshape(3, 5) / 8,
                    np.array([0.5, 0.3, 0.2], np.float32), 12.0, attributes or {})


def test_two_kinds_of_users_are_two_segments_that_predict():
    log, interests, kind = two_kinds_of_users()
    found = fit(log, interests)
    assert len(found.segments) == 2
    assert found.choices[0].gain == pytest.approx(np.log(2), abs=0.1)
    first = found.weights.argmax(axis=1)
    assert len({(a, b) for a, b in zip(first.tolist(), kind.tolist(), strict=True)}) == 2


def test_segments_lift_what_their_users_buy():
    log, interests, kind = two_kinds_of_users()
    segments = fit(log, interests).segments
    rows = np.arange(ITEMS)
    for own in (0, 1):
        weights = segments.of_vector(interests[kind == own][0])
        score = segments.score(rows, weights)
        assert score[own * 20:own * 20 + 20].min() > 0.3
        assert score[(1 - own) * 20:(1 - own) * 20 + 20].max() < -0.3


def test_same_seed_gives_the_same_segments():
    log, interests, _ = two_kinds_of_users()
    one, two = (fit(log, interests, seed=3).segments.arrays() for _ in range(2))
    assert all((one[name] == two[name]).all() for name in one)


def test_one_buyer_many_times_does_not_make_an_item_a_segments():
    """Lift counts users, not events."""
    log, interests, _ = two_kinds_of_users()
    heavy = [Event("u0", "purchase", "i20", 1e9 + k, order_id=f"h{k}") for k in range(500)]
    rows = {f"i{k}": k for k in range(ITEMS)}
    own = [Event(log.users[u], "purchase", f"i{i}", t, order_id=str(v)) for u, i, t, v in
           zip(log.user, log.item, log.ts, log.visit, strict=True)]
    segments = fit(EventTable.from_events([*own, *heavy], rows), interests).segments
    even = segments.of_vector(interests[0])
    assert segments.score(np.array([20]), even)[0] < 0


def test_interests_that_say_nothing_give_no_segments():
    log, _, _ = two_kinds_of_users()
    noise = np.random.default_rng(1).normal(size=(len(log.users), 8)).astype(np.float32)
    found = fit(log, noise)
    assert len(found.segments) == 0
    assert found.choices  # they were tried


@pytest.mark.parametrize("users", [1, 5])
def test_log_of_few_users_gives_no_segments(users, caplog):
    caplog.set_level(logging.INFO)
    rows = make_rows(items=20)
    ranker = trained()
    log = EventTable.from_events(make_events(rows, users=users), ranker.items.row_of)
    assert len(fit_segments(ranker.encoder, log, ranker.items).segments) == 0
    assert "no segments of users: too few" in caplog.text


def test_segments_are_fitted_with_a_trained_encoder():
    """From a log to weights, through the encoder; the shop's users have habits of their own."""
    ranker = trained()
    log = EventTable.from_events(make_events(make_rows(), users=60), ranker.items.row_of)
    found = fit_segments(ranker.encoder, log, ranker.items, kinds=ranker.config.kinds)
    assert [choice.size for choice in found.choices] == [2, 3]
    if len(found.segments):
        assert found.segments.lift.shape == (len(found.segments), len(ranker.items))


def test_factors_place_users_alike_in_training_and_serving():
    """A new shopper's few items find the segment of those who bought the same."""
    log, _, _ = two_kinds_of_users()
    factors = fit_factors(log, ITEMS, 0)
    found = fit_segments_on_factors(log, factors)
    assert len(found.segments) == 2
    user = int(found.users[0])
    own = log.item[log.user == user].astype(np.int64)
    np.testing.assert_allclose(factor_vector(np.append(own, -1), factors), found.vectors[0],
                               rtol=1e-4)
    segments = found.segments
    weights = segments.of_vector(factor_vector(np.array([3, 7, 7]), factors), 3)
    assert segments.score(np.array([0, 20]), weights).tolist()[0] > 0.2
    assert factor_vector(np.zeros(0, np.int64), factors).tolist() == [0.0] * factors.shape[1]


@pytest.mark.parametrize(("kept", "asked"), [
    (True, "true"), ("True", True), (2.0, "2"), ("2.0", 2), (2, "2.0"), (-1.0, "-1")])
def test_attributes_of_files_and_of_headers_meet(kept, asked):
    place = np.array([0.1, 0.8, 0.1], np.float32)
    segments = some_segments({attribute_key("x", kept): place})
    assert segments.knows({"x": asked})
    assert not segments.knows({"x": "2.5"})


def test_attributes_place_a_user_without_events():
    log, interests, _ = two_kinds_of_users()
    given = {user: {"kind": "even" if int(user[1:]) % 2 == 0 else "odd", "city": "same"}
             for user in log.users}
    given["u1"] = {"kind": "rare"}
    segments = fit(log, interests, attributes=given).segments
    even = segments.of_attributes({"kind": "even", "city": "same"})
    assert even.sum() == pytest.approx(1.0)
    assert segments.score(np.array([0, 20]), even).tolist()[0] > 0.2
    assert segments.of_attributes({"kind": "odd"}).argmax() != even.argmax()
    for nothing in ({}, {"kind": "rare"}, {"shoe size": 43}):
        assert np.allclose(segments.of_attributes(nothing), segments.shares)


def test_weights_sum_to_one_and_follow_the_angle():
    segments = some_segments()
    weights = segments.of_vector(np.array([0, 5, 0, 0], np.float32))
    assert weights.sum() == pytest.approx(1.0)
    assert weights.argmax() == 1
    many = segments.of_vectors(np.array([[0, 5, 0, 0], [0, 0, 0, 0]], np.float32))
    assert np.allclose(many[0], weights)
    assert np.allclose(many[1], segments.shares)


def test_few_events_place_a_user_less_surely():
    segments, interest = some_segments(), np.array([0, 5, 0, 0], np.float32)
    sure = [segments.of_vector(interest, events)[1] for events in (0, 1, 5, 100, None)]
    assert sure == sorted(sure)
    assert sure[0] == pytest.approx(0.3)


def test_unknown_items_and_no_segments_say_nothing():
    segments = some_segments()
    scores = segments.score(np.array([-1, 0, 4, 5]), segments.shares)
    assert scores.tolist() == [0.0, pytest.approx(0.4375), pytest.approx(0.9375), 0.0]
    none = Segments.none()
    assert none.of_vector(np.zeros(0, np.float32)).tolist() == []
    assert none.of_attributes({"a": 1}).tolist() == []
    assert none.score(np.array([0, 1]), none.shares).tolist() == [0.0, 0.0]


def test_arrays_restore_the_segments():
    segments = some_segments({"age=19-24": np.array([0.7, 0.2, 0.1], np.float32)})
    again = Segments.from_arrays(segments.arrays())
    assert (again.lift == segments.lift).all()
    assert again.sharpness == 12.0
    assert np.allclose(again.of_attributes({"age": "19-24"}),
                       segments.of_attributes({"age": "19-24"}))
    assert len(Segments.from_arrays(Segments.none().arrays())) == 0


def test_lift_is_bounded():
    log, interests, _ = two_kinds_of_users()
    assert np.abs(fit(log, interests).segments.lift).max() <= LIFT_BOUND
