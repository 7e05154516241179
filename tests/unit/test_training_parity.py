"""Training, evaluation and serving see the same numbers, and none sees what came later."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from sidecar.errors import FileError, InputError, LaunchError
from sidecar.ranking.kernels import CONTEXT
from sidecar.ranking.signals import FEATURES, facts
from sidecar.records import Candidates, Case, Event, History, UserState
from sidecar.serving import counterfactual
from sidecar.stores.models import load_ranker, save_ranker
from sidecar.training import evaluation
from sidecar.training.boosted import FORTY, VARIANTS
from sidecar.training.diversity_effect import diversity_effect
from sidecar.training.evaluation import evaluate, other_users, report
from sidecar.training.event_table import EventTable
from sidecar.training.examples import Example
from sidecar.training.lists import ListMaker
from sidecar.training.merging import merged_events
from sidecar.training.walk import Walk
from tests.shops import (
    DAY_S,
    LEARNT,
    context,
    fresh_ranker,
    history_of,
    make_cases,
    make_events,
    make_rows,
    quiet,
    state_of,
    train,
    trained,
)

ROWS = make_rows()
EVENTS = make_events(ROWS)
LEARNT_EVENTS = [event for event in EVENTS if event.ts < LEARNT]
CASES = [case for case in make_cases(ROWS, EVENTS) if case.ts > LEARNT]
CUPS = tuple(f"i{k}" for k in range(0, 60, 6))
ODD = [
    Event("u1", "search", None, LEARNT + 10, "red cup"),
    Event("u1", "return", "i6", LEARNT + 20),
    Event("u1", "view", "gone from the catalogue", LEARNT + 30),
    Event("u1", "add_to_cart", "i12", LEARNT + 40, "cup"),  # a word that training never met
    Event("u1", "purchase", "i12", LEARNT + 40 + 3 * DAY_S, "lamp", order_id="o"),
    Event("u1", "purchase", "i12", LEARNT + 40 + 3 * DAY_S, order_id="o"),
    Event("u2", "view", "i0", LEARNT + 50),
]


def log_of(events, ranker):
    return EventTable.from_events(events, ranker.items.row_of)


def captured(monkeypatch):
    """Record the facts that every ranking read."""
    found = []

    def recorded(knowledge, situation):
        found.append(facts(knowledge, situation))
        return found[-1]

    monkeypatch.setattr("sidecar.ranking.ranker.facts", recorded)
    return found


def trained_features(ranker, log, user, query, now, candidates):
    copy = ranker.knowledge.statistics.copy()
    walk = Walk(log, len(ranker.items), kept=ranker.config.kept,
                strong_kinds=ranker.config.strong_kinds, trained=copy)
    example = Example(log.users.index(user), now, query, ranker.items.rows(candidates.item_ids),
                      candidates.engine_scores, np.zeros(len(candidates), bool))
    maker = ListMaker(log, [example], np.array([example.user]), walk, kinds=ranker.config.kinds)
    maker.fill(ranker.knowledge, ranker.encoder, np.inf, lambda done, loss: None)
    return maker.lists


@pytest.mark.parametrize("stepped", [True, False])
@pytest.mark.parametrize("kept", [500, 15])
@pytest.mark.parametrize("with_odd", [False, True])
def test_every_column_is_the_same_in_training_and_serving(monkeypatch, stepped, kept, with_odd):
    """Both over one history, at an instant ten days after the model's statistics end."""
    ranker = fresh_ranker()
    ranker.config = replace(ranker.config, kept=kept)
    events = LEARNT_EVENTS + (ODD if with_odd else [])
    history = history_of([event for event in events if event.user_id == "u1"])
    state = state_of(history, ranker if stepped else None)
    candidates = Candidates((*CUPS, "i1", "never seen"), np.array([*range(12, 1, -1), np.nan],
                                                                  np.float32))
    now = LEARNT + 10 * DAY_S
    ranker.knowledge.statistics.clock = min(ranker.knowledge.statistics.clock, LEARNT)
    lists = trained_features(ranker, log_of(LEARNT_EVENTS + [e for e in events if e in ODD
                                                             and e.user_id == "u1"], ranker),
                             "u1", "cup", now, candidates)
    found = captured(monkeypatch)
    ranker.rank(candidates, state, context(now=now))
    features, around = found[-1]
    popularity = ("popularity", "memory") if with_odd else ()  # serving's end with the model's log
    for k, (signal, name) in enumerate(FEATURES):
        if signal not in popularity:
            np.testing.assert_allclose(lists.features[0, :, k], features[:, k], rtol=1e-4,
                                       atol=1e-4, err_msg=f"{signal}.{name}")
    for k, name in enumerate(CONTEXT):
        if not (with_odd and name in ("popular_peak", "memory")):
            np.testing.assert_allclose(lists.context[0, k], around[k], rtol=1e-4, atol=1e-4,
                                       err_msg=f"context.{name}")


def test_rating_of_few_reviews_is_the_same_in_training_and_where_products_change(monkeypatch,
                                                                                 tmp_path):
    """The model serves from its directory, and each product comes anew, by itself."""
    told = {"i0": (5.0, 1.0), "i6": (4.6, 500.0)}
    rows = [row | dict(zip(("rating", "review_count"), told.get(row["item_id"], (4.0, 9.0)),
                           strict=True)) for row in ROWS]
    learnt, log = train(rows, LEARNT_EVENTS)
    save_ranker(learnt, tmp_path / "model", {})
    served = load_ranker(tmp_path / "model", "cpu")
    assert sum(served.items.upsert([row]) for row in rows) == 0
    changed = {**rows[12], "rating": 5.0, "review_count": 1.0}
    assert served.items.upsert([changed]) == 1
    candidates = Candidates(CUPS, np.ones(len(CUPS), np.float32))
    lists = trained_features(learnt, log, "u1", "cup", LEARNT, candidates)
    found = captured(monkeypatch)
    history = history_of([event for event in LEARNT_EVENTS if event.user_id == "u1"])
    served.rank(candidates, state_of(history), context(now=LEARNT))
    rating = FEATURES.index(("quality", "rating"))
    features = found[-1][0][:, rating]
    learnt_from = lists.features[0, :, rating]
    assert features[2] == learnt_from[0] < learnt_from[1]
    np.testing.assert_array_equal(np.delete(features, 2), np.delete(learnt_from, 2))


def test_what_histories_do_not_keep_is_not_read_in_training_either():
    """A page of impressions would fill the history, and tell what was shown from what was done."""
    ranker, candidates, now = trained(), Candidates(CUPS, np.ones(10, np.float32)), LEARNT + DAY_S
    shown = [Event("u1", word, item, LEARNT + 30.0 * k, session_id="late")
             for k in range(40) for word, item in (("impression", CUPS[k % 10]), ("login", None))]
    done = [Event("u1", "search", None, LEARNT + 45.0, "cup", session_id="late"),
            Event("u1", "view", "i6", LEARNT + 75.0, session_id="late")]
    told = sorted([*shown, *done], key=lambda event: event.ts)
    kept = counterfactual.history_of("u1", told, 500)
    assert kept.events == ("search", "view")
    lists = [trained_features(ranker, log_of([*LEARNT_EVENTS, *events], ranker), "u1", "cup", now,
                              candidates) for events in (told, done)]
    np.testing.assert_array_equal(*(found.features for found in lists))
    np.testing.assert_array_equal(*(found.context for found in lists))


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.case_id)
def test_evaluation_scores_a_case_as_serving_does(case):
    """As many events as the model has counted, so that popularity is the same too."""
    ranker = trained()
    own = [event for event in LEARNT_EVENTS if event.user_id == case.user_id]
    evaluated = evaluate(ranker, log_of(LEARNT_EVENTS, ranker), [case], quiet(""))
    ranking = ranker.rank(Candidates(case.candidates, np.array(case.bm25, np.float32)),
                          state_of(history_of(own), ranker),
                          context(now=case.ts, query=case.query))
    np.testing.assert_allclose(evaluated.scores["model"][0], ranking.scores, atol=1e-3)
    np.testing.assert_array_equal(evaluated.order("model", 0), ranking.order)


def evaluated_on(events, cases):
    ranker = trained()
    return evaluate(ranker, log_of(merged_events(events, cases), ranker), cases, quiet(""))


def orders(events, cases):
    evaluated = evaluated_on(events, cases)
    return {case.case_id: evaluated.order("model", k).tolist()
            for k, case in enumerate(evaluated.cases)}


def model_scores(events, case):
    return evaluated_on(events, [case]).scores["model"][0]


def later_events(case, kind):
    """Return the log with the events at or after the case's time removed, altered or added."""
    before = [event for event in EVENTS if event.ts < case.ts]
    after = [event for event in EVENTS if event.ts >= case.ts]
    if kind == "removed":
        return before
    if kind == "altered":
        return before + [replace(event, item_id=case.candidates[0]) for event in after]
    added = [Event(user, "purchase", case.candidates[-1], case.ts + k)
             for k in range(50) for user in (case.user_id, "u3", "somebody new")]
    return sorted(EVENTS + added, key=lambda event: event.ts)


@pytest.mark.parametrize("kind", ["removed", "altered", "added"])
def test_what_comes_at_or_after_a_case_does_not_move_it(kind):
    for case in (CASES[0], CASES[-1]):
        np.testing.assert_allclose(model_scores(later_events(case, kind), case),
                                   model_scores(EVENTS, case), atol=1e-6)


def test_what_followed_a_query_is_known_as_of_the_training_as_it_is_where_it_serves():
    case = CASES[-1]
    told = [[*LEARNT_EVENTS, *(Event(f"u{k % 7 + 30}", "purchase", case.candidates[-1],
                                     LEARNT + 60.0 * k, query) for k in range(50))]
            for query in (case.query, None)]
    np.testing.assert_array_equal(*(model_scores(events, case) for events in told))


def test_answers_do_not_move_the_order():
    rng = np.random.default_rng(0)
    shuffled = [replace(case, relevant=tuple(rng.permutation(case.candidates)[:3]), repeat=False,
                        in_candidates=False) for case in CASES]
    assert orders(EVENTS, shuffled) == orders(EVENTS, CASES)


def test_other_cases_do_not_move_a_case():
    assert orders(EVENTS, CASES[3:4])[CASES[3].case_id] == orders(EVENTS, CASES)[CASES[3].case_id]


def test_events_before_a_case_do_move_it():
    """The counterpart: what the tests above alter would count if it came earlier."""
    case = CASES[0]
    bought = [Event(case.user_id, "purchase", case.candidates[-1], case.ts - 60 * k)
              for k in range(5, 0, -1)]
    moved = sorted(EVENTS + bought, key=lambda event: event.ts)
    assert abs(model_scores(moved, case) - model_scores(EVENTS, case)).max() > 1e-3


def test_case_of_a_stranger_keeps_the_engine_s_order():
    stranger = replace(CASES[0], case_id="s", user_id="never seen", history=History())
    assert orders(EVENTS, [stranger])["s"] == list(range(len(stranger.candidates)))


@pytest.mark.parametrize(("beats_engine", "orders_strangers", "said"), [
    (False, False, "the engine's"), (False, True, "the unpersonalised one"),
    (True, False, "the unpersonalised one")])
def test_model_without_evidence_is_evaluated_as_it_serves(caplog, beats_engine, orders_strangers,
                                                          said):
    ranker, case = fresh_ranker(), CASES[0]
    ranker.config = replace(ranker.config, is_personal=False, beats_engine=beats_engine)
    ranker.orders_strangers = orders_strangers
    evaluated = evaluate(ranker, log_of(LEARNT_EVENTS, ranker), [case], quiet(""))
    as_served = evaluated.scores["BM25" if said == "the engine's" else "unpersonalised"]
    np.testing.assert_array_equal(evaluated.scores["model"], as_served)
    assert f"its order is {said}" in caplog.text


def test_signals_and_others_histories_are_judged_as_the_model_is_served():
    """Half of the shoppers are unknown: they keep the engine's order, whatever is left out."""
    ranker = fresh_ranker()
    cases = [case if k % 2 else replace(case, user_id=f"new {k}", history=History(), repeat=False)
             for k, case in enumerate(CASES)]
    evaluated = evaluate(ranker, log_of(EVENTS, ranker), cases, quiet(""))
    figures = report(evaluated)
    unknown = figures["slices"]["history 0-0"]["rankers"]
    for name in ("model", "without repeat", "without segment"):
        assert unknown[name]["mrr"] == unknown["BM25"]["mrr"], name
    known = sum(map(bool, (len(case.history) for case in cases)))
    assert figures["personal_gain"]["cases"] == known
    plain = {e["strength"]: e["mrr"] for e in diversity_effect(
        replace(evaluated, is_served=np.zeros(len(cases), bool)), ranker.items)}
    assert len(set(plain.values())) == 1  # what the engine orders is not diversified
    ranker.config = replace(ranker.config, is_personal=False, beats_engine=False)
    gated = report(evaluate(ranker, log_of(EVENTS, ranker), cases, quiet("")))
    rankers = gated["slices"]["all"]["rankers"]
    for name in ("model", "without repeat", "model, another's history"):
        assert rankers[name]["mrr"] == rankers["BM25"]["mrr"], name
    assert gated["personal_gain"]["cases"] == 0


def test_another_s_history_is_never_the_own():
    users = np.array([0] * 50 + [1] * 30 + [2] * 20)
    assert (other_users(users) != users).all()
    assert (other_users(np.zeros(3, np.int64)) == -1).all()


def test_case_of_another_index_keeps_the_engine_s_order():
    gone = tuple(f"gone{k}" for k in range(6))
    case = replace(CASES[0], candidates=gone, bm25=(5.0, 1.0, 4.0, 2.0, 3.0, 6.0))
    assert orders(LEARNT_EVENTS, [case])[case.case_id] == list(range(6))


def test_history_that_only_the_case_tells_is_read():
    """The events file need not hold the dev window: the case brings its own history."""
    case = replace(CASES[0], case_id="h", user_id="known from the case alone")
    assert orders(LEARNT_EVENTS, [case])["h"] != list(range(len(case.candidates)))


def test_history_told_twice_counts_once():
    case = CASES[0]
    merged = list(merged_events(EVENTS, [case, replace(case, case_id="again")]))
    assert merged == EVENTS


@pytest.mark.parametrize("unit", [1.0, 60.0, DAY_S])
def test_history_whose_times_are_cut_counts_once(unit):
    """The file tells milliseconds; the cases' own times were cut to the second, or the day."""
    events = [replace(event, ts=event.ts + 0.123) for event in EVENTS]
    cut = [replace(case, history=replace(case.history, ts=tuple(
        (ts + 0.123) // unit * unit for ts in case.history.ts))) for case in CASES]
    assert list(merged_events(events, cut)) == events


def test_day_after_a_logged_one_is_news_though_only_days_are_told():
    """The file ends with the first purchase, at ten in the morning."""
    day = LEARNT // DAY_S * DAY_S
    logged = Event("u1", "purchase", "i1", day + 36_000.0)
    told = History(("i1", "i1"), ("purchase", "purchase"), (day, day + DAY_S))
    case = replace(CASES[0], user_id="u1", history=told)
    assert list(merged_events([logged], [case])) == [
        logged, Event("u1", "purchase", "i1", day + DAY_S)]


def test_history_without_times_counts_once_and_adds_what_the_file_lacks():
    untimed = [replace(case, is_timed=False, history=replace(case.history, ts=tuple(
        case.ts - len(case.history) + k for k in range(len(case.history))))) for case in CASES]
    assert list(merged_events(EVENTS, untimed)) == EVENTS
    early = [event for event in EVENTS if event.ts < LEARNT]
    user = untimed[-1].user_id
    own = [sorted((e.item_id, e.event) for e in found if e.user_id == user)
           for found in (merged_events(early, untimed),
                         [e for e in EVENTS if e.ts < untimed[-1].ts])]
    assert own[0] == own[1]


@pytest.mark.parametrize("logged", [
    Event("u1", "order", "i1", LEARNT),
    Event("u1", "return", "i1", LEARNT, quantity=-1.0),  # as a purchase of it is read from a file
])
def test_what_a_case_calls_a_purchase_and_the_log_otherwise_counts_once(logged):
    told = History(("i1",), ("purchase",), (LEARNT,))
    case = replace(CASES[0], user_id="u1", history=told)
    assert list(merged_events([logged], [case])) == [logged]


def test_event_words_keep_their_meaning_in_another_file():
    """Codes of event words are the model's, whatever word an events file happens to begin with."""
    ranker, case = trained(), CASES[0]
    first = Event("u39", "purchase", "i0", 1.0)  # the training file began with a view
    plain = evaluate(ranker, log_of(LEARNT_EVENTS, ranker), [case], quiet(""))
    turned = evaluate(ranker, log_of([first, *LEARNT_EVENTS], ranker), [case], quiet(""))
    np.testing.assert_allclose(turned.scores["interest alone"], plain.scores["interest alone"],
                               atol=1e-5)


def test_events_in_another_systems_words_are_ranked_as_the_same():
    """Where it is evaluated and where it serves: a purchase was a view, and of no known kind."""
    ranker, case = trained(), CASES[0]
    renamed = [replace(event, event={"purchase": "transaction", "view": "PageView"}[event.event])
               for event in LEARNT_EVENTS]
    plain, other = (evaluate(ranker, log_of(events, ranker), [case], quiet(""))
                    for events in (LEARNT_EVENTS, renamed))
    for name, scores in plain.scores.items():
        np.testing.assert_allclose(other.scores[name], scores, atol=1e-5, err_msg=name)
    own = [[e for e in events if e.user_id == "u1"] for events in (LEARNT_EVENTS, renamed)]
    ours, theirs = (ranker.rank(Candidates(CUPS, np.ones(len(CUPS), np.float32)),
                                state_of(history_of(events), ranker), context())
                    for events in own)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_items_newer_than_the_model_are_evaluated():
    ranker, case = fresh_ranker(), CASES[0]
    ranker.items.upsert([{**ROWS[0], "item_id": "new"}])
    events = [*LEARNT_EVENTS, Event(case.user_id, "purchase", "new", case.ts - DAY_S)]
    case = replace(case, candidates=(*case.candidates, "new"), bm25=(*case.bm25, 0.5))
    evaluated = evaluate(ranker, log_of(events, ranker), [case], quiet(""))
    assert sorted(evaluated.order("model", 0).tolist()) == list(range(len(case.candidates)))


def test_ties_are_in_the_engine_s_order_in_every_ranker():
    twins = Case("t", "u1", "x", LEARNT + DAY_S, History(), tuple(f"gone{k}" for k in range(6)),
                 (1.0,) * 6, ("gone3",), True, False)
    ranker = trained()
    evaluated = evaluate(ranker, log_of(LEARNT_EVENTS, ranker), [twins], quiet(""))
    for name in ("BM25", "popularity", "repeat alone"):
        assert evaluated.order(name, 0).tolist() == list(range(6)), name


def test_cases_without_candidates_and_without_answers_are_no_obstacle():
    empty = replace(CASES[0], case_id="empty", candidates=(), bm25=())
    silent = replace(CASES[1], case_id="silent", relevant=())
    ranker = trained()
    evaluated = evaluate(ranker, log_of(EVENTS, ranker), [empty, silent], quiet(""))
    assert [case.case_id for case in evaluated.cases] == ["silent"]
    figures = report(evaluated)
    assert (figures["counted"], figures["slices"]) == (0, {})


def test_cases_without_a_candidate_among_them_are_an_error():
    empty = replace(CASES[0], case_id="empty", candidates=(), bm25=())
    ranker = trained()
    with pytest.raises(FileError, match="no case has a candidate"):
        evaluate(ranker, log_of(EVENTS, ranker), [empty], quiet(""))


def test_report_counts_slices_and_compares():
    ranker = trained()
    figures = report(evaluate(ranker, log_of(EVENTS, ranker), CASES, quiet("")))
    assert figures["counted"] == len(CASES)
    repeats = sum(case.repeat for case in CASES)
    assert figures["slices"]["repeat"]["cases"] == repeats
    assert figures["slices"]["all"]["rankers"]["BM25"].keys() >= {
        "mrr", "ndcg@10", "hit_rate@10", "map", "precision@10", "recall@10", "f1@10"}
    versus = figures["slices"]["all"]["rankers"]["model"]["mrr vs BM25"]
    assert versus["win"] + versus["tie"] + versus["loss"] == pytest.approx(1.0)
    assert set(figures["classification"]["model"]) >= {"accuracy", "precision", "recall", "f1",
                                                       "auc", "threshold"}


def test_diversity_of_none_has_the_figures_of_the_report():
    """An answer that a case names twice is one."""
    cases = [replace(case, relevant=case.relevant * 2) for case in CASES]
    ranker = trained()
    evaluated = evaluate(ranker, log_of(EVENTS, ranker), cases, quiet(""))
    told = report(evaluated)["slices"]["all"]["rankers"]["model"]
    (plain,) = diversity_effect(evaluated, ranker.items, (0.0,))
    assert plain["ndcg@10"] == pytest.approx(told["ndcg@10"][0])
    assert plain["mrr"] == pytest.approx(told["mrr"][0])


def test_state_is_only_read(monkeypatch):
    """Ranking leaves the state as it is: what two processes read must stay one thing."""
    ranker = trained()
    state = state_of(history_of([e for e in LEARNT_EVENTS if e.user_id == "u1"]), ranker)
    hidden = state.hidden.copy()
    ranker.rank(Candidates(CUPS, np.ones(len(CUPS), np.float32)), state, context())
    np.testing.assert_array_equal(state.hidden, hidden)
    assert isinstance(state, UserState)


def test_boosted_trees_stand_beside_the_model_and_learn_the_same_period(monkeypatch):
    """The lists that the trees learn from end where the model's training did."""
    ranker = trained()
    asked = []
    plain = evaluation.boosted_scores

    def recorded(events, *args):
        asked.append(float(events.ts[-1]))
        return plain(events, *args)

    monkeypatch.setattr(evaluation, "boosted_scores", recorded)
    evaluated = evaluate(ranker, log_of(EVENTS, ranker), CASES, quiet(""), ("lightgbm",), ROWS)
    assert asked[0] < LEARNT
    figures = report(evaluated)["slices"]["all"]["rankers"]
    assert VARIANTS.keys() <= figures.keys()
    for name in ("lightgbm", "lightgbm, forty facts"):
        assert figures[name]["mrr"][0] > figures["BM25"]["mrr"][0]
        assert figures["model"][f"ndcg@10 vs {name}"].keys() >= {"low", "high", "worst_tenth"}


def test_boosted_trees_are_the_same_whatever_the_order_of_the_catalogue():
    """And a catalogue that lacks an item of the model is none the worse."""
    ranker = fresh_ranker()
    ranker.items.upsert([{**ROWS[0], "item_id": "sold out"}])
    scores = [evaluate(ranker, log_of([*EVENTS, replace(EVENTS[0], item_id="sold out")], ranker),
                       CASES, quiet(""), ("lightgbm",), rows).scores["lightgbm"]
              for rows in (ROWS, ROWS[::-1])]
    np.testing.assert_array_equal(*scores)


def test_boosted_trees_without_events_to_learn_from_are_an_error():
    ranker = trained()
    late = [event for event in EVENTS if event.ts >= LEARNT]
    with pytest.raises(FileError, match="events hold no purchase, click or other positive event"):
        evaluate(ranker, log_of(late, ranker), CASES, quiet(""), ("lightgbm",), ROWS)


def test_missing_package_of_the_boosted_trees_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    ranker = trained()
    with pytest.raises(LaunchError, match="needs the package lightgbm; pip install lightgbm"):
        evaluate(ranker, log_of(EVENTS, ranker), CASES, quiet(""), ("lightgbm",), ROWS)


def test_every_fact_that_the_afternoons_trees_read_is_one():
    named = {(signal, name) for signal, names in FORTY.items() for name in names}
    assert named <= set(FEATURES)
    assert len(VARIANTS["lightgbm, forty facts"].facts) == len(named) == 41


def test_unknown_baseline_is_named():
    ranker = trained()
    with pytest.raises(InputError, match="baseline xgb is unknown; known: lightgbm"):
        evaluate(ranker, log_of(EVENTS, ranker), CASES, quiet(""), ("xgb",), ROWS)
