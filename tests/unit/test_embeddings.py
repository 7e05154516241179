"""Vectors that were made elsewhere: what looks alike ranks alike, whatever it is called."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from sidecar.ranking.embeddings import EMBEDDING_WIDTH, Embeddings
from sidecar.ranking.items import TEXT_STEPS, ItemTable
from sidecar.ranking.vocabulary import TEXT_WIDTH, Vocabulary
from sidecar.records import Case, Event
from sidecar.stores.models import load_ranker, save_ranker
from sidecar.training.evaluation import evaluate, report
from sidecar.training.event_table import EventTable
from tests.shops import DAY_S, SMALL, START, history_of, quiet, train

STYLES = 6
DIM = 24


def prints(items: int = 90, *, with_vectors: bool = True) -> list[dict]:
    """Return posters of six styles that only their pictures tell; titles say nothing of them."""
    rng = np.random.default_rng(3)
    styles = rng.normal(size=(STYLES, DIM))
    rows = []
    for k in range(items):
        picture = 3.0 + styles[k % STYLES] + 0.5 * rng.normal(size=DIM)
        rows.append({"item_id": f"i{k}", "title": f"poster no{k}", "brand": None, "categories": [],
                     "vectors": {"picture": picture.tolist()} if with_vectors else None})
    return rows


def test_alike_is_what_looks_alike_and_not_what_lies_in_the_same_cone():
    rows = prints()
    table = ItemTable(Vocabulary.fit(rows))
    table.upsert(rows)
    vectors = table.texts(np.arange(len(rows)))[:, -EMBEDDING_WIDTH:]
    likeness = vectors @ vectors.T
    same = np.equal.outer(np.arange(len(rows)) % STYLES, np.arange(len(rows)) % STYLES)
    np.fill_diagonal(same, False)
    assert likeness[same].min() > likeness[~same & ~np.eye(len(rows), dtype=bool)].max()
    assert np.linalg.norm(table.texts(np.arange(3)), axis=1) == pytest.approx(1, abs=4 / TEXT_STEPS)


def test_several_names_join_and_one_that_is_absent_says_nothing():
    rows = prints()
    rng = np.random.default_rng(0)
    for k, row in enumerate(rows):
        if k % 2:
            row["vectors"]["sound"] = rng.normal(size=5).tolist()
    fitted = Embeddings.fit(rows)
    assert fitted.widths == {"picture": DIM, "sound": 5}
    assert fitted.lacking(rows) == {"picture": 0, "sound": 45}
    assert np.linalg.norm(fitted.reduced(rows[0])) == pytest.approx(1)
    assert np.linalg.norm(fitted.reduced({"vectors": {"sound": [1.0] * 5}})) == pytest.approx(1)


@pytest.mark.parametrize("vectors", [
    None, {}, {"picture": []}, {"picture": [1.0, 2.0]}, {"picture": [0.0] * DIM},
    {"picture": [float("nan")] * DIM}, {"picture": [float("inf")] * DIM}, {"other": [1.0] * DIM}])
def test_product_without_a_vector_that_fits_is_told_by_its_words_alone(vectors):
    known = Vocabulary.fit(prints())
    codes = known.word_codes(["poster", "no7"])
    vector = known.content_vector(codes, {"vectors": vectors})
    assert np.isfinite(vector).all()
    assert vector == pytest.approx(known.text_vector(codes))


def test_catalogue_without_vectors_leaves_all_the_room_to_words():
    rows = [{"item_id": str(k), "title": " ".join(f"w{k * j % 97}" for j in range(1, 9))}
            for k in range(200)]
    known = Vocabulary.fit(rows)
    assert not known.embeddings.widths
    assert np.abs(known.word_vectors).sum(axis=0)[TEXT_WIDTH - EMBEDDING_WIDTH:].all()
    codes = known.word_codes(["w1", "w2"])
    assert known.content_vector(codes, rows[0]) == pytest.approx(known.text_vector(codes))


@pytest.mark.parametrize("rows", [
    prints(1), prints(2), [prints(1)[0]] * 5, [{"vectors": {"picture": [1e300, -1e300]}}] * 3])
def test_smallest_catalogues_fit(rows):
    fitted = Embeddings.fit(rows)
    assert np.isfinite(fitted.axes).all()
    assert np.isfinite(fitted.reduced(rows[0])).all()


def visits(rows, users=48) -> list[Event]:
    """Every shopper buys posters of one style, each but once, and mostly those that are new: what
    goes with what in the log says little of them."""
    rng = np.random.default_rng(1)
    events = []
    for user in range(users):
        own = [k for k in range(len(rows)) if k % STYLES == user % STYLES]
        for visit in range(len(own) - 2):
            k = own.pop(int(rng.integers(2)))
            ts = START + (10 * visit + rng.uniform(0, 9)) * DAY_S
            events.append(Event(f"u{user}", "purchase", f"i{k}", ts, "poster",
                                order_id=f"o{user}-{visit}"))
    return sorted(events, key=lambda event: event.ts)


def searches(rows, events) -> list[Case]:
    """The last purchase of each shopper, among all that they had not bought before."""
    cases = []
    for user in sorted({event.user_id for event in events}):
        own = [event for event in events if event.user_id == user]
        owned = {event.item_id for event in own[:-1]}
        left = tuple(row["item_id"] for row in rows if row["item_id"] not in owned)
        cases.append(Case(f"c {user}", user, "poster", own[-1].ts - 1, history_of(own[:-1]), left,
                          tuple(np.linspace(2, 1, len(left)).tolist()), (own[-1].item_id,), True,
                          False))
    return cases


def mrr_of(rows) -> float:
    events = visits(rows)
    split = START + 120 * DAY_S
    config = replace(SMALL, most_lists=400, blend_epochs=8)
    ranker, _ = train(rows, [event for event in events if event.ts < split], config)
    ranker.config = replace(ranker.config, is_personal=True)
    cases = [case for case in searches(rows, events) if case.ts > split]
    log = EventTable.from_events(events, ranker.items.row_of)
    figures = report(evaluate(ranker, log, cases, quiet("")))
    return figures["slices"]["all"]["rankers"]["model"]["mrr"][0]


def test_new_items_of_a_taste_that_only_pictures_tell_are_found():
    with_pictures, without = mrr_of(prints()), mrr_of(prints(with_vectors=False))
    assert with_pictures > without + 0.1


def test_saved_model_reads_the_vectors_of_new_and_changed_products(tmp_path, caplog):
    rows = prints()
    del rows[5]["vectors"]
    tiny = replace(SMALL, width=4, hidden=4, layers=1, most_lists=40)
    with caplog.at_level(logging.WARNING):
        ranker, _ = train(rows, visits(rows), tiny)
    assert "1 of 90 items have no vector picture" in [r.getMessage() for r in caplog.records]
    save_ranker(ranker, tmp_path, {})
    items = load_ranker(tmp_path, "cpu").items
    assert items.upsert(rows) == 0  # training and serving make the same of them
    changed = {**rows[0], "vectors": rows[1]["vectors"]}
    fresh = {**rows[1], "item_id": "new", "title": rows[0]["title"]}
    assert items.upsert([changed, fresh]) == 2
    assert (items.text[0] == items.text[items.row_of["new"]]).all()
