"""Findings about shoppers, against small logs worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from sidecar.analysis.basics import basics, long_tail
from sidecar.analysis.behaviour_report import behaviour_page, findings
from sidecar.analysis.clusters import _attributes, clusters, segments
from sidecar.analysis.pairs import find_pairs, next_visit_pairs
from sidecar.analysis.shop import Shop, Tally
from sidecar.analysis.trajectories import event_walks, trajectories, visit_steps
from sidecar.ranking.segments import Segments
from sidecar.records import Event
from sidecar.training.associations import fit_factors
from sidecar.training.event_table import EventTable
from sidecar.training.segments import fit_segments_on_factors
from tests.shops import fresh_ranker, make_events, make_rows
from tests.unit.test_analysis_pages import check

DAY_S = 86_400.0
ROWS = [{"item_id": f"i{k}", "title": f"thing {k}", "brand": ["alba", None, "dune"][k % 3],
         "categories": ["all", ["tea", "cups"][k % 2]], "price": 2.0 if k else None}
        for k in range(6)]


def shop_of(events, rows=ROWS, until=math.inf) -> Shop:
    tally = Tally(until)
    log = EventTable.from_events(tally.watch(events), {r["item_id"]: k for k, r in enumerate(rows)})
    return Shop.of(rows, log, tally)


def buy(user, item, day, order=None, **more):
    return Event(user, "purchase", f"i{item}", 1e9 + day * DAY_S, order_id=order, **more)


def states(log, names="ABC"):
    return {"state": log.item.astype(np.int64), "names": list(names)}


def test_basics_count_what_is_there():
    found = basics(shop_of([
        buy("u", 0, 0, "a", quantity=2, unit_price=1.5), buy("u", 1, 0, "a"),
        buy("u", 0, 7, "b"), buy("v", 0, 7, "c"), Event("v", "view", "gone", 1e9 + 8 * DAY_S)]))
    assert (found["events"], found["users"], found["visits"]) == (5, 2, 4)
    assert (found["items"], found["items_taken"], found["unknown_items"]) == (6, 2, 1)
    assert found["kinds"] == {"purchase": 4, "view": 1}
    assert found["repeat_share"] == 0.25
    assert found["gaps"]["median_days"] == 7.0
    assert dict(found["gaps"]["histogram"])["7–10"] == 1
    assert found["days"]["first"] == "2001-09-09"
    assert found["days"]["kinds"]["purchase"][0] == 2
    assert found["missing"]["catalogue"]["brand"] == pytest.approx(1 / 3)
    assert found["missing"]["catalogue"]["price"] == pytest.approx(1 / 6)
    assert found["missing"]["events"]["unit_price"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("word", ["search", "return", "purchase"])
def test_log_without_a_positive_event_on_a_known_item_has_a_page(word):
    item = {"search": None, "return": "i1", "purchase": "gone"}[word]
    shop = shop_of([Event(f"u{k % 9}", word, item, 1e9 + k, "cup") for k in range(60)])
    found = findings(shop)
    assert found["clusters"]["clusters"] == []
    check(behaviour_page(found, "Shoppers"))


def test_spend_is_what_was_paid_for_before_the_end():
    shop = shop_of([buy("u", 0, 0, quantity=2, unit_price=1.5), buy("u", 1, 9, unit_price=7.0),
                    Event("u", "view", "i1", 1e9, unit_price=9.0), buy("v", 1, 0, unit_price=4.0)],
                   until=1e9 + DAY_S)
    assert shop.tally.spend == {"u": 3.0, "v": 4.0}
    assert len(shop.log) == 3


@pytest.mark.parametrize(("word", "quantity"), [
    ("return", 1.0), ("refund", None), ("return", -1.0), ("purchase", -1.0)])
def test_what_was_returned_was_not_spent(word, quantity):
    shop = shop_of([buy("u", 0, 0, quantity=2, unit_price=10.0), buy("u", 1, 0, unit_price=5.0),
                    Event("u", word, "i0", 1e9 + DAY_S, quantity=quantity, unit_price=10.0)])
    assert shop.tally.spend == {"u": 15.0}


@pytest.mark.parametrize("word", ["view", "add_to_cart", "remove_from_cart"])
def test_what_left_a_cart_was_not_paid_back(word):
    shop = shop_of([buy("u", 0, 0, unit_price=10.0),
                    Event("u", word, "i0", 1e9 + DAY_S, quantity=-1.0, unit_price=10.0)])
    assert shop.tally.spend == {"u": 10.0}


def test_gini_of_even_and_of_uneven_counts():
    assert long_tail(np.array([3, 3, 3, 3]))["gini"] == pytest.approx(0.0)
    assert long_tail(np.array([0, 0, 0, 8]))["gini"] == pytest.approx(0.75)
    tail = long_tail(np.arange(100))
    assert tail["top_1_percent"] == pytest.approx(99 / 4950)
    assert tail["curve"][-1] == (1.0, 1.0)
    assert long_tail(np.zeros(3, int))["gini"] is None


def test_funnel_passes_from_stage_to_stage():
    def event(user, word, minute):
        return Event(user, word, None if word == "search" else "i1", 1e9 + 60 * minute,
                     session_id=user)

    found = basics(shop_of([
        event("u", "search", 0), event("u", "view", 1), event("u", "purchase", 2),
        event("v", "search", 0), event("v", "click", 1), event("w", "search", 0)]))["funnel"]
    assert [(s["stage"], s["visits"], s["passed"]) for s in found] == [
        ("search", 3, None), ("view", 2, pytest.approx(2 / 3)), ("purchase", 1, 0.5)]


def test_visits_count_as_the_state_they_are_mostly_in():
    log = shop_of([buy("u", 0, 0, "a"), buy("u", 1, 0, "a"), buy("u", 1, 0, "a"),
                   buy("u", 2, 5, "b"), buy("u", 0, 5, "b"), buy("v", 2, 1, "c")]).log
    steps = visit_steps(log, log.item.astype(np.int64))
    assert steps.state.tolist() == [1, 2, 2]
    assert steps.pairs()[0].tolist() == [1]
    assert steps.pairs()[1].tolist() == [2]


def test_transitions_have_counts_probabilities_and_lift():
    """Two users go A → B, one A → C, one C → A: P(B|A) = 2/3, P(B) = 1/2 of all steps."""
    log = shop_of([buy(user, item, day, f"{user}{day}") for user, items in (
        ("u", (0, 1)), ("v", (0, 1)), ("w", (0, 2)), ("x", (2, 0)))
        for day, item in enumerate(items)]).log
    found = trajectories(log, **states(log))["visit to visit"]
    assert found["steps"] == 4
    first = found["transitions"][0]
    assert (first["from"], first["to"], first["count"]) == ("A", "B", 2)
    assert first["probability"] == pytest.approx(2 / 3)
    assert first["lift"] == pytest.approx((2 / 3) / (2 / 4))
    assert found["matrix"]["names"][0] == "A"
    assert sum(found["matrix"]["probability"][0]) == pytest.approx(1.0)
    assert [(e["state"], e["count"]) for e in found["entries"]] == [("A", 3), ("C", 1)]
    assert found["exits"][0]["state"] == "B"


def test_paths_of_three_leave_out_staying():
    log = shop_of([buy("u", item, day, f"o{day}") for day, item in
                   enumerate((0, 1, 2, 0, 1, 2, 2, 2, 2))]).log
    found = trajectories(log, **states(log))["visit to visit"]["paths"]
    assert found[0]["path"] == ["A", "B", "C"]
    assert found[0]["count"] == 2
    assert ["C", "C", "C"] not in [p["path"] for p in found]


def test_within_a_visit_only_times_make_a_path():
    def view(item, minute, session):
        return Event("u", "view", f"i{item}", 1e9 + 60 * minute, session_id=session)

    basket = [buy("v", item, 0, "basket") for item in (0, 1, 2)]
    log = shop_of([view(0, 0, "s"), view(0, 1, "s"), view(1, 2, "s"), view(2, 500, "t"),
                   *basket]).log
    steps = event_walks(log, log.item.astype(np.int64)).moves()
    assert [pair.tolist() for pair in steps.pairs()] == [[0], [1]]
    assert trajectories(log, **states(log), are_items=True).keys() == {"within a visit"}


def drawn(shares, follow=None, visits=1000):
    """Visits of eight views of items drawn by ``shares``; ``follow`` may change what comes next."""
    rng = np.random.default_rng(0)
    events = []
    for visit in range(visits):
        item = -1
        for minute in range(8):
            item = (follow or {}).get(item, int(rng.choice(len(shares), p=shares)))
            events.append(Event(f"u{visit % 40}", "view", f"i{item}",
                                1e9 + visit * DAY_S + 60 * minute, session_id=f"s{visit}"))
    return shop_of(events).log


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.2,) * 5, (0.7, 0.2, 0.1), (0.6, 0.1, 0.1, 0.2)])
def test_views_independent_of_each_other_are_as_often_as_by_chance_within_a_visit(shares):
    log = drawn(shares)
    found = trajectories(log, **states(log, "ABCDE"[:len(shares)]))["within a visit"]
    assert found["by_lift"] == []
    for told in (*found["transitions"], *found["entries"], *found["exits"]):
        assert told["lift"] == pytest.approx(1.0, abs=0.25)


def test_what_always_follows_is_above_chance_within_a_visit():
    log = drawn((0.4, 0.2, 0.2, 0.2), follow={1: 3})
    found = trajectories(log, **states(log, "ABCD"))["within a visit"]
    told = found["by_lift"][0]
    assert (told["from"], told["to"], told["probability"]) == ("B", "D", 1.0)
    assert told["lift"] > 2
    assert told["p"] < 1e-9


def baskets(pairs):
    events = [buy(f"u{k}", item, k, f"o{k}") for k, items in enumerate(pairs) for item in items]
    return shop_of(events).log


def test_pair_has_support_confidence_and_lift():
    """A and B in 10 of 40 visits; A in 20, B in 10."""
    log = baskets([(0, 1)] * 10 + [(0,)] * 10 + [(2,)] * 20)
    found = find_pairs(log.visit, log.item.astype(np.int64), list("ABC"))
    assert (found["visits"], found["support_floor"], found["pairs"]) == (40, 5, 1)
    pair = found["by_lift"][0]
    assert (pair["a"], pair["b"], pair["visits"]) == ("A", "B", 10)
    assert (pair["support"], pair["confidence_ab"], pair["confidence_ba"]) == (0.25, 0.5, 1.0)
    assert pair["lift"] == pytest.approx(2.0)
    assert pair["p"] == pytest.approx(math.comb(20, 10) / math.comb(40, 10))


def test_independent_things_and_rare_pairs_are_not_told():
    log = baskets([(0, 1), (0,), (1,), ()] * 25 + [(2, 3)] * 4)
    found = find_pairs(log.visit, log.item.astype(np.int64), list("ABCD"))
    assert found["pairs"] == 1
    assert found["by_lift"] == found["by_support"] == []


def test_next_visit_pairs_have_a_direction():
    events = [buy(f"u{k}", item, day, f"{k}-{day}") for k in range(20)
              for day, item in enumerate((k % 2, 2 + k % 2))]
    log = shop_of(events).log
    found = next_visit_pairs(log, log.item.astype(np.int64), list("ABCD"))
    assert found["visits"] == 20
    assert {(p["a"], p["b"]) for p in found["by_lift"]} == {("A", "C"), ("B", "D")}
    assert found["by_lift"][0]["confidence_ab"] == 1.0


@pytest.mark.parametrize(("word", "is_taken"), [("view", False), ("purchase", True)])
def test_items_that_are_but_seen_together_are_not_told_as_taken_together(word, is_taken):
    events = [event for day in range(60) for event in (
        *(Event(f"u{day % 20}", word, f"i{item}", 1e9 + day * DAY_S, session_id=f"s{day}")
          for item in ((0, 1) if day % 2 else (2,))), buy(f"u{day % 20}", 3, day))]
    found = findings(shop_of(events))
    together = {(p["a"], p["b"]) for p in found["association"]["item"]["by_support"]}
    assert together == ({("thing 0 [i0]", "thing 1 [i1]")} if is_taken else set())
    assert bool(found["succession"]["item"]["by_support"]) == is_taken


def two_tastes(users=80):
    rng = np.random.default_rng(0)
    rows = make_rows()
    return rows, [buy(f"u{user}", int(rng.integers(30)) + 30 * (user % 2), day, f"{user}-{day}",
                      unit_price=1.0 + user % 2) for day in range(20) for user in range(users)]


def test_users_of_two_tastes_are_two_clusters_told_by_what_marks_them():
    rows, events = two_tastes()
    ages = {f"u{k}": {"age": ["young", "old"][k % 2], "id": k} for k in range(80)}
    found = clusters(shop_of(events, rows), None, ages)
    groups = found["clusters"]
    assert [group["users"] for group in groups] == [40, 40]
    tastes = [{int(mark["name"].split("[i")[1][:-1]) < 30 for mark in group["marks"]["item"]}
              for group in groups]
    assert sorted(map(str, tastes)) == ["{False}", "{True}"]
    assert {group["median_spend"] for group in groups} == {20.0, 40.0}
    assert {group["median_visits"] for group in groups} == {20.0}
    assert [(a["attribute"], round(a["cramers_v"], 2)) for a in found["attributes"]] == [
        ("age", 1.0)]
    assert found["map"]
    assert found["choices"][0]["size"] == 2


def test_cluster_whose_users_tell_nothing_keeps_its_number():
    """Twelve users in three clusters; of the first nothing is told, the others tell 3:1 and 1:3."""
    log = shop_of([buy(f"u{k}", 0, 0) for k in range(12)]).log
    ages = {f"u{k}": {"age": "old" if k in (4, 5, 6, 8) else "young"} for k in range(4, 12)}
    (found,) = _attributes(log, np.arange(12), np.repeat([0, 1, 2], 4), ages, 3)
    assert found["values"] == ["old", "young"]
    assert found["share"] == [None, [0.75, 0.25], [0.25, 0.75]]
    assert found["share_of_all"] == [0.5, 0.5]
    assert found["cramers_v"] == pytest.approx(0.5)  # φ = (3·3 − 1·1) / (4·4)


def test_model_s_own_segments_come_first_and_those_of_interest_vectors_as_what_they_are():
    ranker = fresh_ranker()
    rows, events = two_tastes()
    log = EventTable.from_events(events, ranker.items.row_of)
    factors = fit_factors(log, len(rows), 0)
    fit = fit_segments_on_factors(log, factors)
    ranker.knowledge = replace(ranker.knowledge, factors=factors, segments=fit.segments)
    ranker.items.upsert([{**rows[0], "item_id": "new"}])  # since the model was trained
    found = findings(Shop.of([*rows, {"item_id": "new", "title": "new"}], log, Tally()), ranker)
    own = found["segments"]
    assert own["space"] == "item factors of the model"
    assert [g["users"] for g in own["clusters"]] == np.bincount(fit.weights.argmax(1)).tolist()
    for group, lift in zip(own["clusters"], fit.segments.lift, strict=True):
        best = int(lift.argmax())
        assert group["raised"][0] == {"name": f"{rows[best]['title']} [i{best}]",
                                      "lift": pytest.approx(float(np.exp(lift[best])), rel=1e-2)}
        tastes = [{int(told["name"].split("[i")[1][:-1]) < 30 for told in told_of} for told_of in (
            group["raised"], group["marks"]["item"])]
        assert tastes[0] == tastes[1]
        assert len(tastes[0]) == 1
    assert found["clusters"]["space"] == "interest vectors of the model"
    assert found["clusters"]["choices"]
    html = behaviour_page(found, "Shop")
    check(html)
    assert 0 < html.index("space of item factors of the model") < html.index("space of interest")
    assert "item that the model raises for it" in html


def test_model_without_segments_says_so():
    ranker = fresh_ranker()
    ranker.knowledge = replace(ranker.knowledge, segments=Segments.none())
    rows = make_rows()
    log = EventTable.from_events(make_events(rows), ranker.items.row_of)
    assert segments(Shop.of(rows, log, Tally()), ranker, {})["clusters"] == []


@pytest.mark.parametrize("events", [
    [], [buy("u", 0, 0)], [Event("u", "search", None, 1e9, query="tea")],
    [Event("u", "purchase", "i0")] * 3, [Event("u", "purchase", "gone", 1e9)],
    [Event("u", "return", "i0", 1e9)], [buy("u", k % 6, k, f"o{k}") for k in range(300)]],
    ids=["empty", "one event", "searches", "no times", "unknown items", "returns", "one user"])
def test_thin_logs_make_a_report_that_says_so(events):
    found = findings(shop_of(events))
    html = behaviour_page(found, "Shop")
    check(html)
    assert "Nothing to show" in html
    assert "No clusters" in html
    json.dumps(found, allow_nan=False, default=lambda value: value.item())


def test_report_names_things_and_is_repeatable():
    rows, events = two_tastes(60)
    rows = [{**row, "title": f"<b>{row['title']}</b>"} for row in rows]
    pages = [behaviour_page(findings(shop_of(events, rows)), "Shop") for _ in range(2)]
    assert pages[0] == pages[1]
    check(pages[0])
    assert "&lt;b&gt;red cup no0&lt;/b&gt; [i0]" in pages[0]
    assert "Trajectories: brand" in pages[0]
