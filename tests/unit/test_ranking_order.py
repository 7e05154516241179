"""What ``Ranker`` promises: orders, parts that add up, skips, steps, changed and new items."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from sidecar.errors import Skip
from sidecar.ranking.association import Association
from sidecar.ranking.explain import Reasons
from sidecar.ranking.history import Trail
from sidecar.ranking.ranker import Ranker
from sidecar.ranking.segments import Segments
from sidecar.ranking.signals import FEATURES, PERSONAL, Situation, facts
from sidecar.records import Candidates, Event, History, SkipReason
from tests.shops import (
    DAY_S,
    START,
    context,
    fresh_ranker,
    history_of,
    make_events,
    make_rows,
    state_of,
    trained,
    window,
)

CUPS = tuple(f"i{k}" for k in range(0, 60, 6))
EVENTS = make_events(make_rows())


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return trained()


@pytest.fixture(scope="module")
def history() -> History:
    return history_of([event for event in EVENTS if event.user_id == "u1"])


def purchases(item_id: str, count: int) -> History:
    ts = tuple(START + 190 * DAY_S + k * 3600.0 for k in range(count))
    return History((item_id,) * count, ("purchase",) * count, ts, (None,) * count,
                   tuple(f"p{k}" for k in range(count)))


def joined(*parts: History) -> History:
    return History(*(sum((getattr(part, name) for part in parts), ()) for name in
                     ("item_ids", "events", "ts", "queries", "event_ids")))


def cut(history: History, start: int, stop: int) -> History:
    return history.take(slice(start, stop))


def test_prepared_state_is_ranked_the_same_and_its_history_read_no_more(ranker, history,
                                                                        monkeypatch):
    plain, prepared = state_of(history, ranker), state_of(history, ranker)
    ranker.prepare(prepared)
    expected = ranker.rank(window(CUPS), plain, context())
    for name in ("factor_vector", "kernels.Events"):
        monkeypatch.setattr(f"sidecar.ranking.signals.{name}",
                            lambda *_: pytest.fail("worked out again"))
    monkeypatch.setattr(ranker, "trail", lambda *_: pytest.fail("worked out again"))
    ranking = ranker.rank(window(CUPS), prepared, context())
    assert ranking.scores.tolist() == expected.scores.tolist()


@pytest.mark.parametrize("weight", [1.0, 0.4, 0.0])
def test_parts_add_up_to_the_score_and_order_is_a_permutation(ranker, history, weight):
    ranking = ranker.rank(window(CUPS), state_of(history, ranker), context(weight=weight))
    total = np.sum(list(ranking.parts.values()), axis=0)
    np.testing.assert_allclose(total, ranking.scores, atol=1e-5)
    assert sorted(ranking.order.tolist()) == list(range(len(CUPS)))
    assert (np.diff(ranking.scores[ranking.order]) <= 0).all()
    assert (ranking.state_version, ranking.model_version) == (3, "tested")


def test_equal_scores_keep_the_engine_s_order(ranker, history):
    """Unknown items with one engine score differ by their rank alone, never by chance."""
    ids = ("x1", "x2", "i0", "x3", "x4")
    candidates = Candidates(ids, np.ones(5, np.float32))
    first = ranker.rank(candidates, state_of(history), context())
    again = ranker.rank(candidates, state_of(history), context())
    assert first.order.tolist() == again.order.tolist()
    places = first.order.tolist()
    unknown = [p for p in places if p != 2]
    assert np.isfinite(first.scores).all()
    assert sorted(unknown) == [0, 1, 3, 4]


@pytest.mark.parametrize("kept", [
    History(),
    History((None,), ("search",), (START,), ("cup",), ("e",)),
    History(("gone",), ("purchase",), (START,), (None,), ("e",))])
def test_history_that_says_nothing_of_known_items_is_skipped(ranker, kept):
    with pytest.raises(Skip) as caught:
        ranker.rank(window(CUPS), state_of(kept), context())
    assert caught.value.reason is SkipReason.NO_HISTORY


def test_nobody_is_skipped(ranker):
    with pytest.raises(Skip) as caught:
        ranker.rank(window(CUPS), None, context())
    assert caught.value.reason is SkipReason.NO_HISTORY


def test_model_that_is_better_in_no_way_is_gated(history):
    gated = fresh_ranker()
    gated.config = replace(gated.config, is_personal=False, beats_engine=False)
    with pytest.raises(Skip) as caught:
        gated.rank(window(CUPS), state_of(history), context())
    assert caught.value.reason is SkipReason.GATED


def test_model_without_personal_gain_takes_everybody_for_a_stranger(history):
    """Where that order proved itself; who has no history keeps the engine's, as with any model."""
    plain, open_to_all = fresh_ranker(), fresh_ranker()
    plain.config = replace(plain.config, is_personal=False, beats_engine=True)
    open_to_all.orders_strangers = True
    found = plain.rank(window(CUPS), state_of(history), context(explain=True))
    expected = open_to_all.rank(window(CUPS), None, context())
    np.testing.assert_array_equal(found.order, expected.order)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert not any(found.parts[signal].any() for signal in PERSONAL)
    with pytest.raises(Skip) as caught:
        plain.rank(window(CUPS), None, context())
    assert caught.value.reason is SkipReason.NO_HISTORY


def test_strangers_get_the_unpersonalised_order_where_the_operator_chose_it():
    ranker = fresh_ranker()
    ranker.orders_strangers = True
    ranking = ranker.rank(window(CUPS), None, context(explain=True))
    for name in ("repeat", "content", "collaborative", "interest"):
        assert not ranking.parts[name].any(), name
    assert sorted(ranking.order.tolist()) == list(range(len(CUPS)))


@pytest.mark.parametrize("scores", [[np.nan] * 4, [1.0, np.nan, 2.0, np.nan], [0.0] * 4,
                                    [np.inf, 1.0, 0.0, -1.0], [1e38] * 4])
def test_odd_engine_scores_rank_without_warning(ranker, history, scores):
    candidates = Candidates(CUPS[:4], np.array(scores, np.float32))
    ranking = ranker.rank(candidates, state_of(history), context())
    assert np.isfinite(ranking.scores).all()
    assert sorted(ranking.order.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("ids", [("unknown",), ("unknown", "also unknown")])
@pytest.mark.parametrize("orders_strangers", [False, True])
def test_search_of_something_else_than_the_catalogue_keeps_the_engines_order(
        history, ids, orders_strangers):
    """An index of articles behind the same sidecar is none of the model's business."""
    ranker = fresh_ranker()
    ranker.orders_strangers = orders_strangers
    with pytest.raises(Skip) as caught:
        ranker.rank(window(ids), state_of(history), context())
    assert caught.value.reason is SkipReason.UNKNOWN_ITEMS


@pytest.mark.parametrize("ids", [("i0",), ("i0", "unknown"), ("unknown", "i0", "also unknown")])
def test_few_or_unknown_candidates_rank(ranker, history, ids):
    ranking = ranker.rank(window(ids), state_of(history), context(explain=True))
    assert sorted(ranking.order.tolist()) == list(range(len(ids)))
    assert np.isfinite(ranking.scores).all()
    assert len(ranking.reasons) == len(ids)


def test_no_candidates_are_an_empty_ranking(ranker, history):
    ranking = ranker.rank(Candidates((), np.zeros(0, np.float32)), state_of(history),
                          context(explain=True))
    assert (len(ranking.order), len(ranking.scores), len(ranking.reasons)) == (0, 0, 0)


def test_one_candidate_has_parts_of_zero(ranker, history):
    """Parts say how a hit differs from its neighbours; alone, it differs from none."""
    ranking = ranker.rank(window(("i0",)), state_of(history), context())
    assert all(abs(part).max() < 1e-6 for part in ranking.parts.values())


def test_weight_zero_is_the_engine_s_order_and_weights_between_interpolate(ranker, history):
    state = state_of(history, ranker)
    found = {w: ranker.rank(window(CUPS), state, context(weight=w)) for w in (0.0, 0.5, 1.0)}
    assert found[0.0].order.tolist() == list(range(len(CUPS)))
    np.testing.assert_allclose(found[0.5].scores,
                               (found[0.0].scores + found[1.0].scores) / 2, atol=1e-5)


def test_weight_zero_keeps_the_order_of_the_widest_window(ranker, history):
    ids = tuple(f"i{k % 60}" for k in range(1000))
    ranking = ranker.rank(window(ids), state_of(history), context(weight=0.0))
    assert ranking.order.tolist() == list(range(1000))


def test_many_threads_give_what_one_gives(ranker):
    states = [state_of(history_of([e for e in EVENTS if e.user_id == f"u{k}"]), ranker)
              for k in range(8)]
    alone = [ranker.rank(window(CUPS), state, context()).scores for state in states]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(10):
            scores = ranker.rank(window(CUPS), states[k], context()).scores
            if not np.array_equal(scores, alone[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_stepping_one_by_one_equals_stepping_at_once(ranker, history):
    at_once = ranker.advance(None, history)
    stepped = None
    for k in range(len(history)):
        stepped = ranker.advance(stepped, cut(history, k, k + 1))
    np.testing.assert_allclose(stepped, at_once, atol=2e-5)
    assert ranker.advance(at_once, History()) is at_once


def test_time_gap_counts_across_calls(ranker, history):
    before, after = cut(history, 0, 5), cut(history, 5, 6)
    late = replace(after, ts=(after.ts[0] + 40 * DAY_S,))
    hidden = ranker.advance(None, before)
    assert not np.allclose(ranker.advance(hidden, after)[:-1], ranker.advance(hidden, late)[:-1])
    kept = ranker.advance(hidden, late)[-1]
    assert kept[0] * DAY_S + kept[1] == pytest.approx(late.ts[0], abs=0.01)


def test_state_of_another_model_is_stepped_anew(ranker, history):
    own = state_of(history, ranker)
    foreign = replace(own, hidden=np.full((3, 16), 7, np.float32), model_version="older")
    np.testing.assert_allclose(ranker.rank(window(CUPS), foreign, context()).scores,
                               ranker.rank(window(CUPS), own, context()).scores, atol=1e-4)


def test_hidden_state_of_another_shape_starts_anew(ranker, history):
    np.testing.assert_array_equal(ranker.advance(np.ones((2, 3), np.float32), history),
                                  ranker.advance(None, history))


def test_unknown_event_words_and_items_step_without_harm(ranker):
    odd = History(("gone", None), ("poked", "search"), (START, START + 1), (None, "cup"),
                  ("a", "b"))
    assert np.isfinite(ranker.advance(None, odd)).all()


def test_repeated_purchase_lifts_the_item(ranker, history):
    """Bought three times lately: a higher place than with the same history less these."""
    target = CUPS[-1]
    without = ranker.rank(window(CUPS), state_of(history), context())
    with_it = ranker.rank(window(CUPS), state_of(joined(history, purchases(target, 3))), context())
    position = CUPS.index(target)
    assert with_it.scores[position] > without.scores[position]
    assert (with_it.order.tolist().index(position) <= without.order.tolist().index(position))
    assert with_it.parts["repeat"][position] > without.parts["repeat"][position]


def test_reasons_name_the_events_of_the_item_itself(ranker):
    others = [event for event in EVENTS if event.user_id == "u1" and event.item_id != "i54"]
    told_history = joined(history_of(others), purchases("i54", 3))
    situation = Situation(ranker.items.rows(["i54", "i54", "gone"]), np.ones(3, np.float32),
                          ranker.trail(told_history), context().now)
    parts = {"repeat": np.array([2.0, 0.01, 2.0], np.float32)}
    told = Reasons(ranker.knowledge, situation, told_history, parts)
    assert [told[k] for k in range(3)] == [("purchase of i54, 3 times, last 10 days ago",), (), ()]


def test_reason_of_what_goes_together_names_no_item_that_goes_without_it(ranker):
    """The nearest of the history lies on the other side of the space of factors."""
    factors = np.zeros_like(ranker.knowledge.factors)
    factors[[54, 12], 0] = 1.0, -1.0
    knowledge = replace(ranker.knowledge, associations={}, factors=factors)
    history = purchases("i12", 2)
    situation = Situation(ranker.items.rows(["i54"]), np.ones(1, np.float32),
                          ranker.trail(history), context().now)
    parts = {"collaborative": np.array([-2.0], np.float32)}
    assert Reasons(knowledge, situation, history, parts)[0] == ()


@pytest.mark.parametrize("is_associated", [True, False])
def test_reason_of_what_goes_together_is_the_item_that_goes_with_it(ranker, is_associated):
    """And not whatever came last; by the factors where no table knows of any."""
    knowledge = replace(ranker.knowledge, associations={})
    if is_associated:
        slot = np.full(len(ranker.items), -1, np.int32)
        slot[54] = 0
        table = Association(slot, np.array([[6, 12]], np.int32), np.array([[0.1, 0.4]], np.float32))
        knowledge.associations["ease"] = table
    else:
        factors = np.zeros_like(knowledge.factors)
        factors[[54, 12], 0] = 1.0
        knowledge = replace(knowledge, factors=factors)
    history = joined(joined(purchases("i12", 2), purchases("i6", 1)), purchases("i30", 1))
    situation = Situation(ranker.items.rows(["i54"]), np.ones(1, np.float32),
                          ranker.trail(history), context().now)
    told = Reasons(knowledge, situation, history, {"collaborative": np.array([2.0], np.float32)})
    assert told[0] == ("purchase of i12, taken with it, 2 times, last 10 days ago",)


def test_looks_at_an_item_are_not_told_as_purchases_of_it(ranker):
    """Looked at five times and then bought once, which was told as "purchase of i54, 6 times"."""
    looks = replace(purchases("i54", 5), events=("view",) * 5)
    history = joined(looks, purchases("i54", 1))
    situation = Situation(ranker.items.rows(["i54"]), np.ones(1, np.float32),
                          ranker.trail(history), context().now)
    parts = {"repeat": np.array([2.0], np.float32)}
    assert Reasons(ranker.knowledge, situation, history, parts)[0] == (
        "purchase of i54, 10 days ago",)


def test_every_candidate_has_at_most_three_reasons(ranker, history):
    ranking = ranker.rank(window(CUPS), state_of(history), context(explain=True))
    assert len(ranking.reasons) == len(CUPS)
    assert all(len(ranking.reasons[k]) <= 3 for k in range(len(CUPS)))


def test_only_the_newest_kept_events_are_read(history):
    ranker = fresh_ranker()
    ranker.config = replace(ranker.config, kept=4)
    trail = ranker.trail(history)
    assert trail.ts.tolist() == list(history.ts[-4:])


def test_changed_price_and_promotion_change_features_and_vector():
    ranker = fresh_ranker()
    row = {**make_rows()[0], "price": 3000.0, "promotion": 1.0}
    before = ranker.items.numbers[0].copy(), ranker.items.vectors[0].copy()
    assert ranker.items.upsert([row]) == 1
    assert not np.array_equal(ranker.items.numbers[0], before[0], equal_nan=True)
    assert not np.array_equal(ranker.items.vectors[0], before[1])
    assert ranker.items.upsert([row]) == 0


def test_unchanged_rows_change_nothing():
    ranker = fresh_ranker()
    before = ranker.items.vectors.copy()
    assert ranker.items.upsert(make_rows()) == 0
    np.testing.assert_array_equal(ranker.items.vectors, before)


def test_new_item_is_scored_by_its_content(history):
    ranker = fresh_ranker()
    twin = {**make_rows()[0], "item_id": "new"}
    assert ranker.items.upsert([twin]) == 1
    assert "new" in ranker.items
    row = int(ranker.items.rows(["new"])[0])
    assert np.linalg.norm(ranker.items.vectors[row]) > 0
    ranking = ranker.rank(window((*CUPS, "new")), state_of(history), context())
    assert np.isfinite(ranking.scores).all()
    liked = joined(history, purchases("new", 3))
    lifted = ranker.rank(window((*CUPS, "new")), state_of(liked, ranker), context())
    assert lifted.scores[-1] > ranking.scores[-1]


def test_bare_row_is_taken():
    """A row of the search index may lack every optional field, or hold nulls."""
    ranker = fresh_ranker()
    rows = [{"item_id": "bare", "title": "thing"},
            {"item_id": "nulls", "title": None, "brand": None, "categories": None, "price": None}]
    assert ranker.items.upsert(rows) == 2
    assert ranker.items.brand[ranker.items.rows(["bare", "nulls"])].tolist() == [0, 0]


def test_one_item_twice_in_a_batch_takes_the_last():
    ranker = fresh_ranker()
    row = make_rows()[0]
    ranker.items.upsert([{**row, "price": 5.0}, {**row, "price": 7.0}])
    assert ranker.items.numbers[0, 0] == 7.0


def test_search_while_the_catalogue_grows_sees_whole_rows(history):
    ranker = fresh_ranker()
    state, failures = state_of(history, ranker), []

    def write() -> None:
        for k in range(60):
            ranker.items.upsert([{**make_rows()[k % 60], "item_id": f"n{k}"}])

    def read() -> None:
        try:
            for k in range(20):
                ranker.rank(window((*CUPS, f"n{k}")), state, context())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(ranker.items) == 120


def test_kept_state_holds_one_trail_however_the_catalogue_grows(history):
    ranker = fresh_ranker()
    state = state_of(history, ranker)
    for number in range(20):
        ranker.items.upsert([new_row(f"n{number}")])
        ranker.rank(window(CUPS), state, context())
    assert len(state.memo) == 1


def test_kept_state_says_nothing_of_another_table_of_the_same_model():
    """A model that comes back after another one may take new products in another order."""
    first, again = fresh_ranker(), fresh_ranker()
    first.items.upsert([new_row("x"), new_row("y", title="black clock")])
    again.items.upsert([new_row("y", title="black clock"), new_row("x")])
    bought = history_of([Event("u", "purchase", "x", START + 190 * DAY_S, None)] * 3)
    kept = state_of(bought, first)
    first.rank(window(["x", "y"]), kept, context())
    found = again.rank(window(["x", "y"]), kept, context())
    expected = again.rank(window(["x", "y"]), replace(kept), context())
    np.testing.assert_array_equal(found.scores, expected.scores)


def new_row(item_id, title="red cup"):
    return {"item_id": item_id, "title": title, "brand": None, "categories": []}


def test_warm_up_ranks_by_a_history_plain_and_explained(monkeypatch):
    ranker, ranked = fresh_ranker(), []
    rank = ranker.rank
    monkeypatch.setattr(ranker, "rank", lambda *given: ranked.append(rank(*given)))
    ranker.warm_up()
    plain, explained = ranked
    assert plain.parts["interest"].any()
    np.testing.assert_array_equal(explained.order, plain.order)
    assert not plain.reasons
    assert any(explained.reasons)


def with_segments(ranker):
    """Give a ranker two segments, told apart by age: the young take i0, the old i6."""
    lift = np.zeros((2, len(ranker.items)), np.float16)
    rows = ranker.items.rows(["i0", "i6"])
    lift[0, rows[0]] = lift[1, rows[1]] = 3.0
    segments = Segments(np.eye(2, ranker.knowledge.factors.shape[1], dtype=np.float32), lift,
                        np.full(2, 0.5, np.float32), attributes={
                            "age=young": np.array([0.95, 0.05], np.float32),
                            "age=old": np.array([0.05, 0.95], np.float32)})
    ranker.knowledge = replace(ranker.knowledge, segments=segments)
    return ranker


def test_attributes_place_a_shopper_without_history():
    ranker = with_segments(fresh_ranker())
    lifts = {}
    for age in ("young", "old"):
        situation = Situation(ranker.items.rows(["i0", "i6", "i1"]), np.ones(3, np.float32),
                              Trail.empty(), context().now, attributes={"age": age})
        features, _ = facts(ranker.knowledge, situation)
        lifts[age] = features[:, FEATURES.index(("segment", "lift"))]
        assert ranker.rank(window(CUPS), None, context(attributes={"age": age})).order.size
    assert lifts["young"][0] > 1 > 0.5 > lifts["young"][1]
    assert lifts["old"][1] > 1 > 0.5 > lifts["old"][0]


def test_attributes_that_say_nothing_leave_the_engine_s_order():
    ranker = with_segments(fresh_ranker())
    with pytest.raises(Skip) as skip:
        ranker.rank(window(CUPS), None, context(attributes={"age": "unheard of"}))
    assert skip.value.reason is SkipReason.NO_HISTORY
