"""Shops that lack something: training goes through, ranks, and says what is missing."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from sidecar.errors import FileError, Skip
from sidecar.ranking.signals import FEATURES
from sidecar.records import Candidates, Event, History, SkipReason
from sidecar.stores.models import load_ranker, save_ranker
from sidecar.training.evaluation import evaluate
from sidecar.training.event_table import EventTable
from sidecar.training.evidence import FEWEST_LISTS
from sidecar.training.examples import make_examples
from sidecar.training.pipeline import TrainConfig, train_ranker
from sidecar.training.retrieval import Retrieval
from tests.shops import (
    START,
    context,
    history_of,
    make_cases,
    make_events,
    make_rows,
    quiet,
    state_of,
    train,
)

TINY = TrainConfig(width=4, hidden=4, layers=1, epochs=1, most_lists=40)
ROWS = make_rows(items=30)
EVENTS = make_events(ROWS, users=8, visits=8)


def without(*names):
    return [{key: value for key, value in row.items() if key not in names} for row in ROWS]


def assert_ranks(ranker, events):
    """The ranker orders every candidate by finite scores for a user of the log."""
    ranker.config = replace(ranker.config, is_personal=True)
    user = events[-1].user_id
    own = history_of([event for event in events if event.user_id == user])
    ids = tuple(ranker.items.ids[:8])
    ranking = ranker.rank(Candidates(ids, np.linspace(5, 1, 8, dtype=np.float32)),
                          state_of(own, ranker), context(explain=True))
    assert sorted(ranking.order.tolist()) == list(range(8))
    assert np.isfinite(ranking.scores).all()
    assert all(np.isfinite(part).all() for part in ranking.parts.values())


@pytest.mark.parametrize(("rows", "said"), [
    ([{**row, "brand": None} for row in ROWS], ["catalogue has no brand"]),
    ([{**row, "categories": []} for row in ROWS], ["catalogue has no categories"]),
    (without("price"), ["catalogue has no price"]),
    ([{"item_id": row["item_id"], "title": row["title"], "brand": None, "categories": []}
      for row in ROWS], ["catalogue has no brand", "catalogue has no categories",
                         "catalogue has no price"]),
    ([{**row, "price": 0.0, "promotion": 1.0, "shares": 3.0} for row in ROWS], []),
    ([{**row, "currency": ("EUR", "JPY")[k % 2]} for k, row in enumerate(ROWS)],
     ["catalogue has prices in EUR, JPY"]),
], ids=["no brands", "no categories", "no prices", "ids and titles only", "all columns",
        "two currencies"])
def test_catalogue_that_lacks_or_mixes_something_trains_and_says_so(caplog, rows, said):
    with caplog.at_level(logging.WARNING):
        ranker, _ = train(rows, EVENTS, TINY)
    assert_ranks(ranker, EVENTS)
    told = [record.getMessage() for record in caplog.records
            if record.getMessage().startswith("catalogue has")]
    assert [line.split(":")[0] for line in told] == said


def test_price_that_the_catalogue_lacks_is_what_was_last_paid(tmp_path, caplog):
    """In training, in the model that is saved, and where the product is written anew."""
    events = [replace(event, unit_price=float(k)) for k, event in enumerate(EVENTS, 1)]
    paid = {event.item_id: event.unit_price for event in sorted(events, key=lambda e: e.ts)
            if event.item_id}
    with caplog.at_level(logging.WARNING):
        ranker, _ = train(without("price"), events, TINY)
    assert not any("has no price" in record.getMessage() for record in caplog.records)
    save_ranker(ranker, tmp_path, {})
    loaded = load_ranker(tmp_path, "cpu")
    loaded.items.upsert([{**row, "title": "new"} for row in without("price")])
    for items in (ranker.items, loaded.items):
        prices = dict(zip(items.ids, items.numbers[:, 0].tolist(), strict=False))
        assert all(prices[item] == price for item, price in paid.items())
        assert set(prices.values()) <= {*paid.values(), np.median([*paid.values()])}


@pytest.mark.parametrize("column", ["price", "rating", "sales", "promotion"])
def test_number_that_no_product_has_counts_as_none_and_is_told(caplog, column):
    """One such row made every weight of the model NaN."""
    rows = [{**row, column: 1e39} if k == 3 else row for k, row in enumerate(ROWS)]
    events = [replace(event, unit_price=1e200) for event in EVENTS]
    with caplog.at_level(logging.WARNING):
        ranker, _ = train(rows, events, TINY)
    assert_ranks(ranker, events)
    assert any(f"1 items have a {column} beyond 1e+15" in record.getMessage()
               for record in caplog.records)
    assert all(np.isfinite(weight.numpy()).all() for weight in ranker.encoder.state_dict().values())
    assert all(np.isfinite(weight.numpy()).all() for weight in ranker.blend.state_dict().values())
    ranker.items.upsert([{**ROWS[5], column: -1e300}])  # while it serves
    assert_ranks(ranker, events)


@pytest.mark.parametrize("column", ["rating", "promotion"])
def test_number_beyond_a_half_float_is_read_alike_in_training_and_serving(column):
    """It overflowed in the lists, with a warning of numpy's, and did not where the model serves."""
    rows = [{**row, column: 1e6 if k % 5 else -1e6} for k, row in enumerate(ROWS)]
    ranker, _ = train(rows, EVENTS, TINY)
    assert_ranks(ranker, EVENTS)
    read = ("quality", column)
    assert abs(ranker.blend.mean[FEATURES.index(read)]) > 1e4


def test_rules_for_what_is_missing_can_be_chosen():
    ranker, _ = train([{**row, "rating": None if k % 2 else 2.0} for k, row in enumerate(ROWS)],
                      EVENTS, replace(TINY, imputation="rating=zero"))
    assert ranker.items.numbers[1, 1] == 0.0


@pytest.mark.parametrize(("events", "said"), [
    ([replace(event, ts=None) for event in EVENTS], "events have no times"),
    ([replace(event, item_id="gone") if k % 3 else event for k, event in enumerate(EVENTS)],
     "events name items that the catalogue lacks"),
    ([replace(event, event=f"x{event.event}") for event in EVENTS],
     "events hold words that count as a view each: xview, xpurchase; known: purchase, add_to_"),
], ids=["no times", "unknown items", "unknown words"])
def test_events_that_lack_something_train_and_say_so(caplog, events, said):
    with caplog.at_level(logging.WARNING):
        ranker, _ = train(ROWS, events, TINY)
    assert_ranks(ranker, events)
    assert any(said in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("events", [
    [Event(event.user_id, event.event, event.item_id, event.ts) for event in EVENTS],
    [replace(event, event="click") for event in EVENTS],
    [event for event in EVENTS if event.user_id == "u1"],
    [replace(event, user_id=f"once{k}") for k, event in enumerate(EVENTS[:150])],
    [replace(event, ts=START) for event in EVENTS],
    [*EVENTS, *(Event("u1", "search", None, START + k, "red cup") for k in range(50))],
    [*EVENTS, *(Event("u1", "return", "i3", START + k) for k in range(50))],
    [replace(event, ts=START) for event in make_events(ROWS, users=45, visits=4)],
    [*(Event("u1", "return", f"i{k % 9}", START - 1e6 + k) for k in range(600)), *EVENTS],
], ids=["no optional columns", "only clicks", "one user", "users of one event", "one instant",
        "searches", "returns", "many users at one instant", "returns before all else"])
def test_plain_logs_train(events):
    ranker, _ = train(ROWS, events, TINY)
    assert_ranks(ranker, events)


@pytest.mark.parametrize("events", [
    [], [Event("u", "search", None, 1.0, "cup")], [Event("u", "purchase", "gone", 1.0)],
    [Event("u", "return", "i1", 1.0)]],
    ids=["none", "searches", "unknown items", "returns"])
def test_log_without_a_positive_event_is_an_error(events):
    with pytest.raises(FileError, match="events hold no purchase, click or other positive event"):
        train(ROWS, events, TINY)


@pytest.mark.parametrize("title", ["", "?!", "a"])
def test_catalogue_in_which_no_query_finds_anything_is_an_error(title):
    rows = [{"item_id": row["item_id"], "title": title, "brand": None, "categories": []}
            for row in ROWS]
    with pytest.raises(FileError, match="no list could be made of the events"):
        train(rows, EVENTS, TINY)


@pytest.mark.parametrize("query", ["-", "4006381333931", "杯子"])
def test_searches_that_find_nothing_teach_by_what_was_taken(query):
    """Else a log whose every purchase follows a scanned code would teach nothing."""
    found = {}
    for words in (query, None):
        log = EventTable.from_events([replace(event, query=words) for event in EVENTS],
                                     {row["item_id"]: k for k, row in enumerate(ROWS)})
        found[words] = make_examples(log, ROWS, Retrieval(ROWS), since=0.0, most=100, per_visit=3,
                                     seed=0)
    assert len(found[query]) == len(found[None]) == 100
    assert query not in {example.query for example in found[query]}


@pytest.mark.parametrize(("colours", "nouns", "query"), [
    (["红色", "蓝色", "绿色"], ["杯子", "台灯"], "杯 子"),
    (["빨간 ", "파란 ", "초록 "], ["컵", "접시"], "접시"),
    (["красная ", "синяя ", "белая "], ["чашка", "лампа"], "чашка")],
    ids=["Chinese", "Korean", "Russian"])
def test_titles_of_other_scripts_teach_without_categories(colours, nouns, query):
    """No title of the Chinese ones shares a word with another, unless characters are words."""
    rows = [{"item_id": row["item_id"], "title": f"{colours[k % 3]}{nouns[k // 3 % 2]} {k}",
             "brand": None, "categories": []} for k, row in enumerate(ROWS)]
    log = EventTable.from_events([Event(e.user_id, e.event, e.item_id, e.ts) for e in EVENTS],
                                 {row["item_id"]: k for k, row in enumerate(rows)})
    retrieval = Retrieval(rows)
    found = make_examples(log, rows, retrieval, since=0.0, most=100, per_visit=3, seed=0)
    assert len(found) > 90
    assert query in {example.query for example in found}
    hits, _ = retrieval.search(query.replace(" ", ""))
    assert sorted(hits.tolist()) == [k for k, row in enumerate(rows)
                                     if query.replace(" ", "") in row["title"]]


def test_few_lists_ship_with_personalization_off_and_say_so(caplog):
    with caplog.at_level(logging.WARNING):
        ranker, _ = train(ROWS, EVENTS, TINY)
    assert any("too few lists" in record.getMessage() for record in caplog.records)
    with pytest.raises(Skip) as caught:
        ranker.rank(Candidates(("i1",), np.ones(1, np.float32)), state_of(history_of(EVENTS[:5])),
                    context())
    assert caught.value.reason is SkipReason.GATED


def test_shop_of_strangers_is_told_what_is_missing_and_its_order_measured(caplog):
    """Of shoppers that come once no personal gain can be shown, but what any of them gets can."""
    once = [replace(e, user_id=f"visitor {k}", session_id=None)
            for k, e in enumerate(make_events(ROWS, users=30, visits=8))]
    log = EventTable.from_events(once, {row["item_id"]: k for k, row in enumerate(ROWS)})
    with caplog.at_level(logging.WARNING):
        _, evidence = train_ranker(ROWS, log, replace(TINY, most_lists=200, evidence_share=0.4),
                                   quiet)
    assert "with the shopper's own history) to show a personal gain" in caplog.text
    assert evidence["lists"] >= FEWEST_LISTS
    assert evidence["is_personal"] is False
    assert 0 < evidence["mrr_engine"] < 1
    assert 0 < evidence["mrr_unpersonalised"] < 1


def test_lists_with_another_users_history_are_no_evidence_of_a_gain():
    log = EventTable.from_events(make_events(ROWS, users=30, visits=8),
                                 {row["item_id"]: k for k, row in enumerate(ROWS)})
    options = replace(TINY, most_lists=200, evidence_share=0.4)
    own, half, none = (train_ranker(ROWS, log, replace(options, foreign_share=share), quiet)[1]
                       for share in (0.0, 0.5, 1.0))
    assert own["lists"] > 1.5 * half["lists"] > 0
    assert none["is_personal"] is False


@pytest.mark.parametrize("is_shuffled", [False, True], ids=["own histories", "anybody's"])
def test_small_shop_is_personalised_if_its_few_lists_show_a_gain(is_shuffled):
    """Some hundred lists: a third of them are held out, not a seventh."""
    rows = make_rows(items=120)
    events = make_events(rows, users=20, visits=8)
    if is_shuffled:
        users = np.random.default_rng(0).permutation([event.user_id for event in events])
        events = [replace(event, user_id=str(user), session_id=f"{user} {k}")
                  for k, (event, user) in enumerate(zip(events, users, strict=True))]
    log = EventTable.from_events(events, {row["item_id"]: k for k, row in enumerate(rows)})
    ranker, evidence = train_ranker(rows, log, replace(TrainConfig(), epochs=1), quiet)
    assert 30 <= evidence["lists"] < 100
    assert evidence["is_personal"] is not is_shuffled
    assert ranker.config.is_personal is evidence["is_personal"]
    assert ranker.config.beats_engine is evidence["beats_engine"] is True
    assert evidence["mrr_engine"] < evidence["mrr_unpersonalised"]


@pytest.mark.parametrize("change", [
    {"cell": "cho"}, {"cell": "article"}, {"list_share": 0.0}, {"most_candidates": 1},
    {"evidence_share": 0.0}, {"most_lists": 1}, {"kept": 1}], ids=str)
def test_other_options_train(change):
    ranker, _ = train(ROWS, EVENTS, replace(TINY, **change))
    assert_ranks(ranker, EVENTS)


def test_same_seed_gives_the_same_model():
    first, second = (train(ROWS, EVENTS, replace(TINY, seed=5))[0] for _ in range(2))
    other, _ = train(ROWS, EVENTS, replace(TINY, seed=6))
    for part in ("encoder", "blend"):
        ours, theirs = (getattr(r, part).state_dict() for r in (first, second))
        assert all((ours[name] == theirs[name]).all() for name in ours), part
    assert any((first.blend.state_dict()[name] != value).any()
               for name, value in other.blend.state_dict().items())


def test_shop_without_times_is_evaluated_on_the_cases_own_histories():
    """Without times nothing tells what came before a case but the case itself."""
    ranker, _ = train(ROWS, [replace(event, ts=None) for event in EVENTS], TINY)
    ranker.config = replace(ranker.config, is_personal=True)
    cases = [replace(case, ts=0.0, history=replace(case.history, ts=(0.0,) * len(case.history)))
             for case in make_cases(ROWS, EVENTS, 6)]
    stranger = replace(cases[0], case_id="s", user_id="nobody", history=History())
    log = EventTable.from_events([replace(event, ts=None) for event in EVENTS], ranker.items.row_of)
    evaluated = evaluate(ranker, log, [*cases, stranger], quiet(""))
    known = [k for k, case in enumerate(evaluated.cases) if case.case_id != "s"]
    assert evaluated.lists.has_history[known].all()
    assert not evaluated.lists.has_history[[k for k in range(7) if k not in known]].any()
