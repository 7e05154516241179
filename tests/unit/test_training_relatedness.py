"""Which histories have nothing to do with what a search found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripts.evaluate import _table
from sidecar.analysis.evaluation_report import evaluation_page
from sidecar.ranking.items import ItemTable
from sidecar.ranking.signals import Knowledge
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.records import Event, History
from sidecar.training.associations import fit_associations
from sidecar.training.evaluation import UNRELATED, evaluate, report
from sidecar.training.event_table import EventTable
from sidecar.training.examples import Example
from sidecar.training.lists import ListMaker
from sidecar.training.relatedness import is_unrelated
from sidecar.training.walk import Walk
from tests.shops import (
    DAY_S,
    LEARNT,
    START,
    fresh_ranker,
    make_cases,
    make_events,
    make_rows,
    quiet,
)

SHOP = {  # item → brand and categories; "spoon" goes with "tea", and nothing else with anything
    "tea": ("Alba", ["drinks", "teas"]), "mate": ("Borea", ["drinks", "mates"]),
    "spoon": (None, ["kitchen", "spoons"]), "lamp": (None, ["home", "lamps"]),
    "torch": (None, ["home", "lamps"]), "alba lamp": ("Alba", ["home", "night lamps"]),
    "vase": (None, ["home", "vases"]), "rug": (None, ["home", "rugs"]),
    "bare": (None, []), "plain": (None, [])}
BASKETS = [Event(f"v{k}", "purchase", item, START + 60.0 * k, order_id=f"{k}") for k in range(9)
           for item in ("tea", "spoon")]


def found(events, hits, shop=SHOP):
    """Tell whether u's history is unrelated to some hits."""
    rows = [{"item_id": item, "title": item, "brand": brand, "categories": names}
            for item, (brand, names) in shop.items()]
    table = ItemTable(Vocabulary.fit(rows))
    table.upsert(rows)
    log = EventTable.from_events([*BASKETS, *events], table.row_of)
    search = Example(log.users.index("u") if "u" in log.users else -1, START + 9 * DAY_S, "x",
                     table.rows(hits), np.ones(len(hits), np.float32), np.zeros(len(hits), bool))
    walk = Walk(log, len(table), kept=9, strong_kinds=frozenset({"purchase"}))
    maker = ListMaker(log, [search], np.array([search.user]), walk)
    knowledge = Knowledge(table, walk.statistics, fit_associations(log.until(START + DAY_S),
                                                                   len(table)))
    maker.fill(knowledge, None, np.inf, lambda done, loss: None)
    return is_unrelated(maker.lists).tolist() == [True]


def done(item, word="purchase"):
    return [Event("u", word, item, START + 2 * DAY_S)]


@pytest.mark.parametrize(("item", "hits", "unrelated"), [
    ("lamp", ("tea", "mate"), True),
    ("lamp", ("tea", "lamp"), False),  # the item
    ("lamp", ("tea", "torch"), False),  # its narrowest category
    ("alba lamp", ("mate", "tea"), False),  # its brand
    ("alba lamp", ("mate", "lamp"), True),  # a wide category alone
    ("spoon", ("mate", "tea"), False),  # what goes with it
    ("bare", ("plain", "gone"), True),  # no brand and no category are none in common
    ("bare", ("plain", "bare"), False)])
def test_history_is_unrelated_where_no_hit_shares_anything_with_it(item, hits, unrelated):
    assert found(done(item), hits) == unrelated
    assert found(done(item, "view"), hits) == unrelated


def test_what_was_returned_is_related():
    assert not found(done("lamp", "return"), ("lamp", "tea"))


def test_who_did_nothing_has_no_history_that_could_be_unrelated():
    assert not found([], ("tea", "mate"))
    assert not found(done("gone"), ("tea", "mate"))


def test_in_a_shop_without_brands_and_categories_items_and_ties_tell():
    plain = {item: (None, []) for item in SHOP}
    assert found(done("alba lamp"), ("mate", "torch"), plain)
    assert not found(done("spoon"), ("mate", "tea"), plain)


def test_evaluation_tells_what_personalization_does_where_history_is_unrelated():
    """Half of the cases are of shoppers who bought but a thing like no other."""
    ranker, rows = fresh_ranker(), make_rows()
    ranker.items.upsert([{"item_id": "odd", "title": "odd", "brand": "Else",
                          "categories": ["oddities"]}])
    events = make_events(rows)
    cases = [case if k % 2 else replace(case, user_id=f"odd {k}", repeat=False, history=History(
        ("odd",), ("purchase",), (LEARNT,))) for k, case in enumerate(make_cases(rows, events))
        if case.ts > LEARNT]
    bought = [Event(case.user_id, "purchase", "odd", LEARNT) for case in cases
              if case.user_id.startswith("odd")]
    log = EventTable.from_events([*events, *bought], ranker.items.row_of)
    figures = report(evaluate(ranker, log, cases, quiet("")))
    told = figures["slices"][UNRELATED]
    assert told["cases"] == figures["unrelated_gain"]["cases"] == len(bought)
    assert told["rankers"].keys() == figures["slices"]["all"]["rankers"].keys()
    versus = told["rankers"]["model"]["mrr vs unpersonalised"]
    assert versus["difference"] == figures["unrelated_gain"]["difference"]
    text = _table(figures)
    assert f"\n{UNRELATED} ({len(bought)} cases)" in text
    assert f"over {len(bought)} cases with a personal order by a history unrelated" in text
    page = evaluation_page(figures, "Orders")
    assert f"{UNRELATED} ({len(bought)})" in page
    assert f"over the {len(bought)} cases that got a personal order by such a history" in page
